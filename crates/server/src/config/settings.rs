//! The configuration checked, with names resolved: what the rest of the server works with.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use sigillo_model::{
    class::{Class, FIRST_CONFIGURED},
    ids::{self, ClassId, NameError, Origin, RetentionId, SourceId, TenantId},
    limits::MESSAGE_MAX_BYTES,
    roles::Role,
};

use super::{
    CheckpointTable, ClassNames, ClassTable, Config, Fingerprints, LimitsTable, LogTable, PROVIDER, ReaderTable,
    RoleName, SourceTable, SpeaksFor, SpeaksForWord,
};
use crate::identity::Fingerprint;

/// Most classes that may be configured.
const CLASSES_MAX: usize = 256;
/// Most certificates of one source or reader.
const CERTIFICATES_MAX: usize = 4;

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It isn't the TOML that it should be.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value that does not fit.
    #[error("{place}: {problem}")]
    Value {
        /// Table and field.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// The configuration in effect.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file it was read from, to read it again.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub hash: [u8; 32],
    /// The journal's name.
    pub origin: Origin,
    /// Where the journal lies.
    pub data_dir: PathBuf,
    /// The gRPC listener.
    pub listen: SocketAddr,
    /// The metrics' listener.
    pub metrics_listen: SocketAddr,
    /// Certificates.
    pub tls: TlsFiles,
    /// The transparency log, if there is to be one.
    pub checkpoint: Option<CheckpointSettings>,
    /// Bounds.
    pub limits: Limits,
    /// Free bytes kept for the product's own records.
    pub reserve_bytes: u64,
    /// Classes by number, built-in ones included.
    pub classes: ClassNames,
    /// Names of the tenants that exist.
    pub tenants: Vec<String>,
    /// Whether other names of tenants exist too.
    pub open_tenants: bool,
    /// Who may send.
    pub sources: Vec<SourceSettings>,
    /// Who may read.
    pub readers: Vec<ReaderSettings>,
    /// The server's own log.
    pub log: LogTable,
}

/// Files of certificates.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities of clients.
    pub client_ca: PathBuf,
}

/// The transparency log; documented in [`CheckpointTable`].
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "documented field by field in CheckpointTable")]
pub struct CheckpointSettings {
    pub key: KeySource,
    pub receipt_key: KeySource,
    pub trust: PathBuf,
    pub rotations: Vec<PathBuf>,
    pub interval: Duration,
    pub publish_listen: Option<SocketAddr>,
    pub witness_timeout: Duration,
    pub witness_ca: Option<PathBuf>,
}

/// Where a private key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file, which must be its owner's alone.
    File(PathBuf),
    /// A credential of the service, by its name.
    Credential(String),
}

/// Bounds, documented in [`LimitsTable`].
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "documented field by field in LimitsTable")]
pub struct Limits {
    pub connections: usize,
    pub connection_age: Duration,
    pub handshake_timeout: Duration,
    pub streams_per_source: usize,
    pub credit_bytes: usize,
    pub inflight_bytes: usize,
    pub queue_bytes: usize,
    pub reads: usize,
    pub stall_timeout: Duration,
    pub drain_timeout: Duration,
}

/// A source.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: SourceId,
    /// Its certificates.
    pub fingerprints: Vec<Fingerprint>,
    /// Its class.
    pub class: ClassId,
    /// Name of its class.
    pub class_name: String,
    /// How long its records are kept.
    pub retention: RetentionId,
    /// Name of its home tenant.
    pub home: String,
    /// For whom else it may speak.
    pub grant: Grant,
}

/// For whom a source may speak besides its home.
#[derive(Debug, Clone)]
pub enum Grant {
    /// Nobody.
    None,
    /// These.
    List(HashMap<String, TenantId>),
    /// Every tenant that exists.
    All,
}

/// A reader.
#[derive(Debug, Clone)]
pub struct ReaderSettings {
    /// The person.
    pub name: String,
    /// The certificates.
    pub fingerprints: Vec<Fingerprint>,
    /// What it may do.
    pub role: Role,
}

impl Settings {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let syntax = |error: toml::de::Error| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() };
        let config: Config = toml::from_str(&text).map_err(syntax)?;
        Self::check(config, path, Sha256::digest(text.as_bytes()).into())
    }

    /// Checks a configuration that lies (or would lie) at `path`.
    pub fn check(config: Config, path: &Path, hash: [u8; 32]) -> Result<Self, ConfigError> {
        let base = path.parent().unwrap_or(Path::new("."));
        let origin = Origin::new(config.origin).map_err(|error| value("origin", &error))?;
        if !config.metrics_listen.ip().is_loopback() {
            let problem = "metrics are served in plain text: give a loopback address, such as 127.0.0.1:7444";
            return Err(value("metrics_listen", &problem));
        }
        let mut classes: ClassNames =
            Class::ALL.into_iter().map(|class| (class.id().get(), class.name().to_owned())).collect();
        let mut retention: BTreeMap<String, (ClassId, RetentionId)> =
            Class::ALL.into_iter().map(|class| (class.name().to_owned(), (class.id(), class.retention()))).collect();
        for (index, class) in config.classes.iter().enumerate() {
            add_class(&format!("[[class]] {}", index + 1), class, &mut classes, &mut retention)?;
        }
        let mut tenants = vec![PROVIDER.to_owned()];
        for (index, tenant) in config.tenants.iter().enumerate() {
            check_name(&format!("[[tenant]] {} name", index + 1), &tenant.name)?;
            tenants.push(tenant.name.clone());
        }
        let mut seen = Seen::default();
        let mut sources = Vec::with_capacity(config.sources.len());
        for (index, source) in config.sources.into_iter().enumerate() {
            let source = check_source(&format!("[[source]] {}", index + 1), source, &retention, &mut seen)?;
            tenants.push(source.home.clone());
            sources.push(source);
        }
        let mut readers = Vec::with_capacity(config.readers.len());
        for (index, reader) in config.readers.into_iter().enumerate() {
            readers.push(check_reader(&format!("[[reader]] {}", index + 1), reader, &mut seen)?);
        }
        tenants.sort_unstable();
        tenants.dedup();
        Ok(Self {
            path: path.to_owned(),
            hash,
            origin,
            data_dir: base.join(config.data_dir),
            listen: config.listen,
            metrics_listen: config.metrics_listen,
            tls: TlsFiles {
                cert: base.join(config.tls.cert),
                key: base.join(config.tls.key),
                client_ca: base.join(config.tls.client_ca),
            },
            checkpoint: config.checkpoint.map(|table| check_checkpoint(table, base)).transpose()?,
            limits: check_limits(&config.limits)?,
            reserve_bytes: config.disk.reserve_bytes,
            classes,
            tenants,
            open_tenants: config.open_tenants,
            sources,
            readers,
            log: config.log,
        })
    }
}

fn value(place: &str, problem: &impl ToString) -> ConfigError {
    ConfigError::Value { place: place.to_owned(), problem: problem.to_string() }
}

fn check_name(place: &str, name: &str) -> Result<(), ConfigError> {
    ids::check_name(name).map_err(|error: NameError| value(place, &error))
}

fn add_class(
    place: &str,
    class: &ClassTable,
    classes: &mut ClassNames,
    by_name: &mut BTreeMap<String, (ClassId, RetentionId)>,
) -> Result<(), ConfigError> {
    check_name(&format!("{place} name"), &class.name)?;
    if class.number < FIRST_CONFIGURED {
        let problem = format!("numbers below {FIRST_CONFIGURED} are built in: choose {FIRST_CONFIGURED} or greater");
        return Err(value(&format!("{place} number"), &problem));
    }
    if classes.len() >= CLASSES_MAX {
        return Err(value(place, &format!("at most {CLASSES_MAX} classes, built-in ones included")));
    }
    if let Some(other) = classes.insert(class.number, class.name.clone()) {
        return Err(value(&format!("{place} number"), &format!("{} is already {other:?}", class.number)));
    }
    let retention = RetentionId::new(class.retention.unwrap_or(class.number));
    if by_name.insert(class.name.clone(), (ClassId::new(class.number), retention)).is_some() {
        return Err(value(&format!("{place} name"), &format!("{:?} exists already", class.name)));
    }
    Ok(())
}

/// Names and certificates that were given out.
#[derive(Default)]
struct Seen {
    sources: HashSet<String>,
    readers: HashSet<String>,
    fingerprints: HashMap<Fingerprint, String>,
}

impl Seen {
    fn fingerprints(&mut self, place: &str, given: &Fingerprints) -> Result<Vec<Fingerprint>, ConfigError> {
        let field = format!("{place} fingerprint");
        let texts = given.texts();
        if !(1..=CERTIFICATES_MAX).contains(&texts.len()) {
            return Err(value(&field, &format!("give 1 to {CERTIFICATES_MAX} certificates")));
        }
        texts.iter().map(|text| self.fingerprint(place, &field, text)).collect()
    }

    fn fingerprint(&mut self, place: &str, field: &str, text: &str) -> Result<Fingerprint, ConfigError> {
        let fingerprint = Fingerprint::parse(text).ok_or_else(|| {
            let problem = "expected the SHA-256 of the certificate, 64 hexadecimal digits \
                           (openssl x509 -in FILE -noout -fingerprint -sha256)";
            value(field, &problem)
        })?;
        match self.fingerprints.insert(fingerprint, place.to_owned()) {
            Some(other) => Err(value(field, &format!("this certificate is already that of {other}: one for each"))),
            None => Ok(fingerprint),
        }
    }
}

fn check_source(
    place: &str,
    source: SourceTable,
    classes: &BTreeMap<String, (ClassId, RetentionId)>,
    seen: &mut Seen,
) -> Result<SourceSettings, ConfigError> {
    check_name(&format!("{place} name"), &source.name)?;
    if source.name == Class::Journal.name() {
        return Err(value(&format!("{place} name"), &"\"journal\" is the server's own source: choose another name"));
    }
    if !seen.sources.insert(source.name.clone()) {
        return Err(value(&format!("{place} name"), &format!("{:?} exists already", source.name)));
    }
    let fingerprints = seen.fingerprints(place, &source.fingerprint)?;
    let Some((class, retention)) = classes.get(&source.class).copied() else {
        let known = classes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let problem = format!("there is no class {:?}; there are {known}; add a [[class]]", source.class);
        return Err(value(&format!("{place} class"), &problem));
    };
    if class == Class::Journal.id() {
        return Err(value(&format!("{place} class"), &"\"journal\" is the server's own class"));
    }
    check_name(&format!("{place} home"), &source.home)?;
    let grant = match source.speaks_for {
        SpeaksFor::Word(SpeaksForWord::None) => Grant::None,
        SpeaksFor::Word(SpeaksForWord::All) => Grant::All,
        SpeaksFor::List(names) => {
            names.iter().try_for_each(|name| check_name(&format!("{place} speaks_for"), name))?;
            Grant::List(names.into_iter().map(|name| (name.clone(), TenantId::from_name(&name))).collect())
        }
    };
    Ok(SourceSettings {
        id: SourceId::from_name(&source.name),
        name: source.name,
        fingerprints,
        class,
        class_name: source.class,
        retention,
        home: source.home,
        grant,
    })
}

fn check_reader(place: &str, reader: ReaderTable, seen: &mut Seen) -> Result<ReaderSettings, ConfigError> {
    check_name(&format!("{place} name"), &reader.name)?;
    if !seen.readers.insert(reader.name.clone()) {
        return Err(value(&format!("{place} name"), &format!("{:?} exists already", reader.name)));
    }
    let fingerprints = seen.fingerprints(place, &reader.fingerprint)?;
    let role = match reader.role {
        RoleName::Operator => Role::Operator,
        RoleName::Investigator => Role::Investigator,
        RoleName::Auditor => Role::Auditor,
    };
    Ok(ReaderSettings { name: reader.name, fingerprints, role })
}

fn check_checkpoint(table: CheckpointTable, base: &Path) -> Result<CheckpointSettings, ConfigError> {
    let millis = |field: &str, given, least, most| {
        within(&format!("[checkpoint] {field}"), given, least, most).map(Duration::from_millis)
    };
    let source = |field: &str, given: &str| match given.strip_prefix("credential:") {
        // It becomes the name of a file in a folder that the service manager chooses.
        Some(name) if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') => {
            Err(value(&format!("[checkpoint] {field}"), &format!("{name:?} is not the name of a credential")))
        }
        Some(name) => Ok(KeySource::Credential(name.to_owned())),
        None => Ok(KeySource::File(base.join(given))),
    };
    Ok(CheckpointSettings {
        key: source("key", &table.key)?,
        receipt_key: source("receipt_key", &table.receipt_key)?,
        trust: base.join(table.trust),
        rotations: table.rotations.into_iter().map(|path| base.join(path)).collect(),
        interval: millis("interval_ms", table.interval_ms, 10, 1_000)?,
        publish_listen: table.publish_listen,
        witness_timeout: millis("witness_timeout_ms", table.witness_timeout_ms, 100, 60_000)?,
        witness_ca: table.witness_ca.map(|path| base.join(path)),
    })
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(
    place: &str,
    given: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if given >= least && given <= most {
        Ok(given)
    } else {
        Err(value(place, &format!("{given} is not within {least} to {most}")))
    }
}

fn check_limits(table: &LimitsTable) -> Result<Limits, ConfigError> {
    fn limit<T: PartialOrd + std::fmt::Display + Copy>(
        field: &str,
        given: T,
        least: T,
        most: T,
    ) -> Result<T, ConfigError> {
        within(&format!("[limits] {field}"), given, least, most)
    }
    // A semaphore's permits, which count bytes here, are below 2^29 on 32-bit machines and 2^32 per acquisition.
    const BYTES_MAX: usize = 1 << 32;
    let credit_bytes = limit("credit_bytes", table.credit_bytes, MESSAGE_MAX_BYTES, 1 << 30)?;
    Ok(Limits {
        connections: limit("connections", table.connections, 1, 65_536)?,
        connection_age: Duration::from_secs(limit("connection_age_s", table.connection_age_s, 10, 86_400)?),
        handshake_timeout: Duration::from_millis(limit(
            "handshake_timeout_ms",
            table.handshake_timeout_ms,
            100,
            60_000,
        )?),
        streams_per_source: limit("streams_per_source", table.streams_per_source, 1, 1_024)?,
        credit_bytes,
        inflight_bytes: limit("inflight_bytes", table.inflight_bytes, credit_bytes, BYTES_MAX)?,
        queue_bytes: limit("queue_bytes", table.queue_bytes, MESSAGE_MAX_BYTES, BYTES_MAX)?,
        reads: limit("reads", table.reads, 1, 256)?,
        stall_timeout: Duration::from_secs(limit("stall_timeout_s", table.stall_timeout_s, 1, 3_600)?),
        drain_timeout: Duration::from_secs(limit("drain_timeout_s", table.drain_timeout_s, 1, 600)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        origin = "journal.example.net/2026"
        data_dir = "data"
        [tls]
        cert = "server.pem"
        key = "server.key"
        client_ca = "ca.pem"
    "#;

    fn check(more: &str) -> Result<Settings, String> {
        let config: Config = toml::from_str(&format!("{MINIMAL}{more}")).map_err(|error| error.to_string())?;
        Settings::check(config, Path::new("/etc/sigillo/sigillod.toml"), [0; 32]).map_err(|error| error.to_string())
    }

    fn source(fingerprint_digit: char, fields: &str) -> String {
        let fingerprint = fingerprint_digit.to_string().repeat(64);
        format!("\n[[source]]\nfingerprint = \"{fingerprint}\"\n{fields}\n")
    }

    #[test]
    fn a_minimal_file_gets_the_documented_defaults() {
        let settings = check("").unwrap();
        assert_eq!(settings.data_dir, Path::new("/etc/sigillo/data"));
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7443");
        assert_eq!(settings.metrics_listen.to_string(), "127.0.0.1:7444");
        assert_eq!(settings.tenants, [PROVIDER]);
    }

    #[test]
    fn contradictions_are_refused_with_place_and_remedy() {
        let a = source('a', "name = \"a\"\nclass = \"service\"");
        let cases = [
            ("[limits]\nreads = 0".to_owned(), "[limits] reads: 0 is not within 1 to 256"),
            ("[limits]\nnonsense = 1".to_owned(), "unknown field `nonsense`"),
            ("[[class]]\nname = \"vpn\"\nnumber = 9".to_owned(), "[[class]] 1 number: numbers below 256"),
            ("[[class]]\nname = \"panel\"\nnumber = 300".to_owned(), "[[class]] 1 name: \"panel\" exists"),
            (source('a', "name = \"journal\"\nclass = \"service\""), "[[source]] 1 name: \"journal\" is the server's"),
            (source('a', "name = \"a\"\nclass = \"journal\""), "[[source]] 1 class: \"journal\" is the server's"),
            (source('a', "name = \"a\"\nclass = \"vpn\""), "add a [[class]]"),
            (
                "[checkpoint]\nkey = \"credential:../k\"\nreceipt_key = \"r\"\ntrust = \"t\"".to_owned(),
                "is not the name",
            ),
            (
                "[checkpoint]\nkey = \"k\"\nreceipt_key = \"r\"\ntrust = \"t\"\ninterval_ms = 2000".to_owned(),
                "[checkpoint] interval_ms: 2000 is not within 10 to 1000",
            ),
            (source('x', "name = \"a\"\nclass = \"service\""), "[[source]] 1 fingerprint: expected the SHA-256"),
            (format!("{a}{}", source('b', "name = \"a\"\nclass = \"panel\"")), "[[source]] 2 name: \"a\" exists"),
            (format!("{a}{}", source('a', "name = \"b\"\nclass = \"panel\"")), "already that of [[source]] 1"),
            (
                "[[reader]]\nname = \"r\"\nrole = \"auditor\"\nfingerprint = []".to_owned(),
                "[[reader]] 1 fingerprint: give 1 to 4 certificates",
            ),
            (
                format!("{a}[[reader]]\nname = \"r\"\nrole = \"auditor\"\nfingerprint = [\"{}\"]", "a".repeat(64)),
                "[[reader]] 1 fingerprint: this certificate is already that of [[source]] 1",
            ),
            (source('a', "name = \"a b\"\nclass = \"service\""), "[[source]] 1 name: a name has no spaces"),
        ];
        for (more, expected) in cases {
            let error = check(&more).unwrap_err();
            assert!(error.contains(expected), "{more}\ngave {error}\nexpected {expected}");
        }
    }

    #[test]
    fn plain_text_never_leaves_the_machine() {
        let text = format!("metrics_listen = \"0.0.0.0:7444\"\n{MINIMAL}");
        let config: Config = toml::from_str(&text).unwrap();
        let error = Settings::check(config, Path::new("x.toml"), [0; 32]).unwrap_err();
        assert!(error.to_string().starts_with("metrics_listen: metrics are served in plain text"), "{error}");
    }

    #[test]
    fn grants_are_a_word_or_a_list() {
        let all = source('a', "name = \"a\"\nclass = \"panel\"\nspeaks_for = \"all\"\nhome = \"acme\"");
        let list = source('b', "name = \"b\"\nclass = \"panel\"\nspeaks_for = [\"acme\"]");
        let settings = check(&format!("{all}{list}")).unwrap();
        assert!(matches!(settings.sources[0].grant, Grant::All));
        assert!(matches!(&settings.sources[1].grant, Grant::List(list) if list.contains_key("acme")));
        assert_eq!(settings.tenants, ["acme", PROVIDER]);
    }
}
