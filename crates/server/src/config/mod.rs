//! The server's configuration as it is written: one TOML file. Every field is documented here; what contradicts itself is
//! refused by [`Settings::check`], with the place and what to do.

mod settings;

pub use settings::{
    CheckpointSettings, ConfigError, Grant, KeySource, Limits, ReaderSettings, Settings, SourceSettings, TlsFiles,
};

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The file. Relative paths are relative to the directory that it lies in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the journal for ever: a URL without scheme, spaces or `+`, for example `journal.example.net/2026`. A data
    /// directory belongs to the origin with which it was created.
    pub origin: String,
    /// Where the journal lies. Created when it does not exist.
    pub data_dir: PathBuf,
    /// Address and port of the gRPC listener. Always TLS. Port 0: a free one, written to `<data_dir>/addresses.toml`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Address and port of the metrics, plain HTTP, hence on a loopback address only.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: SocketAddr,
    /// Whether sources that speak for "all" may name tenants that this file doesn't: for installations where any name of a
    /// tenant is a valid one. At most a million names are then remembered; a claim beyond that goes to the home tenant.
    #[serde(default)]
    pub open_tenants: bool,
    /// Certificates.
    pub tls: TlsTable,
    /// The transparency log: signed checkpoints, witnesses, published resources. Without it nothing is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointTable>,
    /// Bounds.
    #[serde(default)]
    pub limits: LimitsTable,
    /// The disk.
    #[serde(default)]
    pub disk: DiskTable,
    /// Classes of sources besides the built-in ones.
    #[serde(default, rename = "class")]
    pub classes: Vec<ClassTable>,
    /// Tenants for which sources that speak for "all" may speak. "provider" and the sources' homes always exist.
    #[serde(default, rename = "tenant")]
    pub tenants: Vec<TenantTable>,
    /// Who may send.
    #[serde(default, rename = "source")]
    pub sources: Vec<SourceTable>,
    /// Who may read.
    #[serde(default, rename = "reader")]
    pub readers: Vec<ReaderTable>,
    /// The server's own log (not the journal).
    #[serde(default)]
    pub log: LogTable,
}

/// `[tls]`: files in PEM, read again on SIGHUP and when they change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsTable {
    /// The server's certificate, followed by its issuers.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that issue the certificates of sources and readers.
    pub client_ca: PathBuf,
}

/// `[checkpoint]`: read at the start only.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointTable {
    /// The log's private key: a file that only its owner may read (`sigillo key new --kind log --name ORIGIN`), or
    /// `credential:NAME`, a credential that systemd loads. Its name is the origin.
    pub key: String,
    /// The key that signs receipts, likewise. Its name is the origin followed by `/receipts`.
    pub receipt_key: String,
    /// The trust file: keys of the log, the witnesses with their addresses, the quorum.
    pub trust: PathBuf,
    /// Rotations: notes with which the recovery key names a new key of the log. Each is recorded at the first start that finds
    /// it; the newest one's key is the one to sign with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<PathBuf>,
    /// Milliseconds between checkpoints while there is news, 10 to 1,000.
    #[serde(default = "default_interval_ms")]
    pub interval_ms: u64,
    /// Address and port where checkpoint and tiles are published: plain HTTP on loopback, for a web server or proxy of this
    /// machine; TLS with the certificate of `[tls]`, without client certificates, elsewhere. Nowhere when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_listen: Option<SocketAddr>,
    /// Milliseconds within which a witness must have answered, 100 to 60,000.
    #[serde(default = "default_witness_timeout_ms")]
    pub witness_timeout_ms: u64,
    /// The authorities that certificates of witnesses come from, in PEM; needed as soon as one is at an `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness_ca: Option<PathBuf>,
}

/// `[limits]`: what is taken at most. Sizes of messages, batches and records are fixed and told to every sender.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTable {
    /// Connections at a time, 1 to 65,536. More are closed at once.
    pub connections: usize,
    /// Seconds for which a connection may stay open, 10 to 86,400; then it is asked to reconnect, so that a certificate that
    /// was withdrawn does not live on in an old connection.
    pub connection_age_s: u64,
    /// Milliseconds within which a TLS handshake must end, 100 to 60,000.
    pub handshake_timeout_ms: u64,
    /// Streams on which one source may append at a time, 1 to 1,024.
    pub streams_per_source: usize,
    /// Bytes of batches that one stream may have under way before an acknowledgement; at least one message.
    pub credit_bytes: usize,
    /// Bytes of batches that are checked at a time, on all streams together; at least `credit_bytes`.
    pub inflight_bytes: usize,
    /// Bytes of batches that wait for the journal's writer; at least one message.
    pub queue_bytes: usize,
    /// Searches, tails and walks at a time, 1 to 256.
    pub reads: usize,
    /// Seconds after which a reader or sender that takes nothing of what is sent to it is cut off, 1 to 3,600.
    pub stall_timeout_s: u64,
    /// Seconds that a stop waits for what was taken to become durable and for streams to end, 1 to 600.
    pub drain_timeout_s: u64,
}

impl Default for LimitsTable {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connection_age_s: 4 * 3_600,
            handshake_timeout_ms: 10_000,
            streams_per_source: 64,
            credit_bytes: 16 << 20,
            inflight_bytes: 96 << 20,
            queue_bytes: 64 << 20,
            reads: 64,
            stall_timeout_s: 60,
            drain_timeout_s: 30,
        }
    }
}

/// `[disk]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskTable {
    /// Free bytes below which records are refused until there is room again; the product's own records may use them.
    pub reserve_bytes: u64,
}

impl Default for DiskTable {
    fn default() -> Self {
        Self { reserve_bytes: 256 << 20 }
    }
}

/// `[[class]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassTable {
    /// Its name: no spaces, at most 128 bytes, not one of the built-in classes.
    pub name: String,
    /// Its number in the envelopes, 256 or greater. Once used for a name it is never given to another.
    pub number: u16,
    /// Number of the retention class that its records get; the class's own number when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<u16>,
}

/// `[[tenant]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantTable {
    /// Its name: no spaces, at most 128 bytes.
    pub name: String,
}

/// `[[source]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// Its name: no spaces, at most 128 bytes, not "journal". Its id follows from it, so a name is never given to another.
    pub name: String,
    /// SHA-256 of its certificate (DER), 64 hexadecimal digits; colons are allowed. A list of up to 4 while certificates are
    /// renewed: name the new one beside the old one, exchange it on the host, then take the old one out.
    pub fingerprint: Fingerprints,
    /// Name of its class.
    pub class: String,
    /// The tenant whom its records concern unless they say otherwise.
    #[serde(default = "default_home")]
    pub home: String,
    /// For whom it may speak besides its home: `"none"`, `"all"`, or a list of names.
    #[serde(default)]
    pub speaks_for: SpeaksFor,
}

/// `fingerprint`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fingerprints {
    /// One certificate.
    One(String),
    /// Several, each as good as the others.
    Several(Vec<String>),
}

impl Fingerprints {
    /// As texts.
    pub(crate) fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }
}

/// `speaks_for`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SpeaksFor {
    /// `"none"` or `"all"`.
    Word(SpeaksForWord),
    /// Names of tenants.
    List(Vec<String>),
}

impl Default for SpeaksFor {
    fn default() -> Self {
        Self::Word(SpeaksForWord::None)
    }
}

/// The words that `speaks_for` knows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeaksForWord {
    /// Only for its home.
    None,
    /// For every tenant there is.
    All,
}

/// `[[reader]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderTable {
    /// The person's name or account, as it will stand in the journal: no spaces, at most 128 bytes. One person, one reader.
    pub name: String,
    /// SHA-256 of the certificate (DER), 64 hexadecimal digits; colons are allowed. A list of up to 4, as of a source.
    pub fingerprint: Fingerprints,
    /// `operator`, `investigator` or `auditor`.
    pub role: RoleName,
}

/// Roles of readers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Sees the head.
    Operator,
    /// Searches and follows.
    Investigator,
    /// Searches, follows and walks.
    Auditor,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogTable {
    /// `text` or `json`.
    pub format: LogFormat,
    /// Which events, as the `tracing` crates' filters write it: `info`, `warn,sigillo_server=debug`.
    pub filter: String,
}

impl Default for LogTable {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Names of classes by number: the built-in ones and those that ever were configured.
pub type ClassNames = BTreeMap<u16, String>;

/// Where the gRPC listener is unless configured.
pub fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7443))
}

/// Where the metrics are unless configured.
pub fn default_metrics_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7444))
}

pub(crate) fn default_interval_ms() -> u64 {
    500
}

pub(crate) fn default_witness_timeout_ms() -> u64 {
    5_000
}

/// The tenant that the provider is.
pub const PROVIDER: &str = "provider";

fn default_home() -> String {
    PROVIDER.into()
}
