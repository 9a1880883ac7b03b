//! `sigillod --dev`: a server to try things with, on this machine only. Makes its own throw-away certificates, once, and writes the
//! configurations of server, agent and command line next to them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Serialize;
use sigillo_journal::OpenError;
use sigillo_model::{ids::Origin, note::VerifierKey};

use crate::{
    config::{
        CheckpointTable, Config, ConfigError, DiskTable, Fingerprints, LimitsTable, LogTable, ReaderTable, RoleName,
        Settings, SourceTable, SpeaksFor, SpeaksForWord, TlsTable,
    },
    error::ServerError,
    identity::Fingerprint,
    log::{keys, receipt_name},
};

/// The journal's name.
const ORIGIN: &str = "localhost/sigillo-dev";
const CA: &str = "ca.pem";
const DATA: &str = "data";
const LOG_KEY: &str = "keys/log.key";
const RECEIPT_KEY: &str = "keys/receipt.key";
const TRUST: &str = "trust.txt";
const REMEMBERED: &str = "remembered";
const CONFIG: &str = "sigillod.toml";
/// Name of the file, of the source, and of its class.
const SOURCES: [(&str, &str, &str); 3] =
    [("agent", "dev-agent", "service"), ("panel", "dev-panel", "panel"), ("admin", "dev-admin-host", "admin")];
/// Name of the file and of the reader.
const READER: (&str, &str) = ("reader", "dev-investigator");

/// Makes what is missing in `dir` and returns the settings of a server there.
pub fn prepare(dir: &Path, listen: SocketAddr, metrics: SocketAddr) -> Result<Settings, ServerError> {
    for (place, address) in [("--listen", listen), ("--metrics", metrics)] {
        if !address.ip().is_loopback() {
            let problem = "--dev serves this machine only: give a loopback address, such as 127.0.0.1:7443".to_owned();
            return Err(ConfigError::Value { place: place.to_owned(), problem }.into());
        }
    }
    check_unused(&dir.join(DATA))?;
    fs::create_dir_all(dir).map_err(ServerError::file(dir))?;
    // Written last: when it is there, all of them are.
    if !dir.join(CA).exists() {
        make_certificates(dir)?;
    }
    make_log_keys(dir)?;
    let path = dir.join(CONFIG);
    write_toml(&path, &config(dir, listen, metrics)?)?;
    Ok(Settings::load(&path)?)
}

/// Refuses to go on while a server runs on this data: what was written for those who connect to it must stay.
fn check_unused(data: &Path) -> Result<(), ServerError> {
    let path = data.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ServerError::file(path)(error)),
    };
    // Given back at once: the journal takes it for itself when it is opened.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(OpenError::InUse(data.to_owned()).into()),
        Err(error) => Err(ServerError::file(path)(error.into())),
    }
}

/// Writes the configurations of those that connect, once the server's address is known.
pub fn announce(dir: &Path, listen: SocketAddr) -> Result<(), ServerError> {
    #[derive(Serialize)]
    struct Endpoint {
        url: String,
        ca: &'static str,
        cert: String,
        key: String,
        trust: &'static str,
        remember: &'static str,
    }
    #[derive(Serialize)]
    struct Agent {
        state_dir: &'static str,
        server: Endpoint,
    }
    let endpoint = |name: &str| Endpoint {
        url: format!("https://{listen}"),
        ca: CA,
        cert: format!("{name}.pem"),
        key: format!("{name}.key"),
        trust: TRUST,
        remember: REMEMBERED,
    };
    write_toml(&dir.join("agent.toml"), &Agent { state_dir: "agent-state", server: endpoint("agent") })?;
    write_toml(&dir.join("sigillo.toml"), &endpoint(READER.0))
}

fn config(dir: &Path, listen: SocketAddr, metrics: SocketAddr) -> Result<Config, ServerError> {
    let source = |(file, name, class): (&str, &str, &str)| -> Result<SourceTable, ServerError> {
        Ok(SourceTable {
            name: name.into(),
            fingerprint: Fingerprints::One(fingerprint(dir, file)?),
            class: class.into(),
            home: crate::config::PROVIDER.into(),
            speaks_for: SpeaksFor::Word(SpeaksForWord::All),
        })
    };
    Ok(Config {
        origin: ORIGIN.into(),
        data_dir: DATA.into(),
        listen,
        metrics_listen: metrics,
        open_tenants: true,
        tls: TlsTable { cert: "server.pem".into(), key: "server.key".into(), client_ca: CA.into() },
        checkpoint: Some(CheckpointTable {
            key: LOG_KEY.into(),
            receipt_key: RECEIPT_KEY.into(),
            trust: TRUST.into(),
            rotations: vec![],
            interval_ms: crate::config::default_interval_ms(),
            publish_listen: Some(beside(metrics)),
            witness_timeout_ms: crate::config::default_witness_timeout_ms(),
            witness_ca: None,
        }),
        limits: LimitsTable::default(),
        disk: DiskTable::default(),
        classes: vec![],
        tenants: vec![],
        sources: SOURCES.into_iter().map(source).collect::<Result<_, _>>()?,
        readers: vec![ReaderTable {
            name: READER.1.into(),
            fingerprint: Fingerprints::One(fingerprint(dir, READER.0)?),
            role: RoleName::Auditor,
        }],
        log: LogTable::default(),
    })
}

/// The next port; a free one beside a free one.
fn beside(address: SocketAddr) -> SocketAddr {
    let port = if address.port() == 0 { 0 } else { address.port().checked_add(1).unwrap_or(0) };
    SocketAddr::new(address.ip(), port)
}

/// The keys of the log, once, and a trust file that asks for no witness.
fn make_log_keys(dir: &Path) -> Result<(), ServerError> {
    let trust = dir.join(TRUST);
    // Written last: when it is there, all of them are.
    if trust.exists() {
        return Ok(());
    }
    let origin = Origin::new(ORIGIN)
        .map_err(|error| ConfigError::Value { place: "origin".into(), problem: error.to_string() })?;
    let make = |file: &str, name: &str| -> Result<VerifierKey, ServerError> {
        let path = dir.join(file);
        // Of an earlier, interrupted start.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(ServerError::file(path)(error));
        }
        Ok(keys::generate(&path, name)?.verifier().clone())
    };
    let log = make(LOG_KEY, ORIGIN)?;
    let receipt = make(RECEIPT_KEY, &receipt_name(&origin))?;
    write(
        &trust,
        &format!(
            "# Written once by sigillod --dev. No witness is asked for.\nlog {log}\nreceipt {receipt}\nquorum none\n"
        ),
    )
}

fn fingerprint(dir: &Path, name: &str) -> Result<String, ServerError> {
    let path = dir.join(format!("{name}.pem"));
    let certificate = CertificateDer::from_pem_file(&path).map_err(|error| ServerError::Certificate {
        path,
        problem: format!("{error}; remove {CA} beside it to have all certificates made anew"),
    })?;
    Ok(Fingerprint::of(&certificate).to_string())
}

fn make_certificates(dir: &Path) -> Result<(), ServerError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "sigillo --dev throw-away authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Its key is kept nowhere: nobody can make further certificates.
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let issue = |file: &str, name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose| -> Result<(), ServerError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        write_private(&dir.join(format!("{file}.key")), &key.serialize_pem())?;
        write(&dir.join(format!("{file}.pem")), &certificate.pem())
    };
    issue("server", "localhost", &["localhost", "127.0.0.1", "::1"], ExtendedKeyUsagePurpose::ServerAuth)?;
    let clients = SOURCES.map(|(file, name, _)| (file, name)).into_iter().chain([READER]);
    for (file, name) in clients {
        issue(file, name, &[name], ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    write(&dir.join(CA), &authority.pem())
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<(), ServerError> {
    let text = toml::to_string(value)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() })?;
    write(path, &format!("# Written by sigillod --dev at each start.\n{text}"))
}

fn write(path: &Path, text: &str) -> Result<(), ServerError> {
    fs::write(path, text).map_err(ServerError::file(path))
}

fn write_private(path: &Path, text: &str) -> Result<(), ServerError> {
    // A file of an earlier, interrupted start may have other rights.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(ServerError::file(path)(error));
    }
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(ServerError::file(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn certificates_are_made_once_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let first = prepare(dir.path(), any, any).unwrap();
        announce(dir.path(), "127.0.0.1:1234".parse().unwrap()).unwrap();
        let again = prepare(dir.path(), any, any).unwrap();
        assert_eq!(first.sources[0].fingerprints, again.sources[0].fingerprints);
        assert_eq!(first.hash, again.hash);
        let mode = fs::metadata(dir.path().join("reader.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let endpoint = fs::read_to_string(dir.path().join("sigillo.toml")).unwrap();
        assert!(endpoint.contains("url = \"https://127.0.0.1:1234\""), "{endpoint}");
    }

    #[test]
    fn nobody_else_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let error = prepare(dir.path(), "0.0.0.0:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}
