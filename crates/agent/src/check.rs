//! `sigillo-agent check`: is everything there that the agent needs, and what would it make of it?

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sigillo_client::{ClientError, Connection, plain, ship, unix_nanos};
use sigillo_proto::record::Fields;
use x509_cert::der::Decode;

use crate::{AGENT, Config, line::Piece, record::Maker, run, source::file};

/// Bytes at the end of a file in which its last line is looked for.
const TAIL_BYTES: u64 = 16 << 10;
/// A certificate that runs out sooner is reported.
const RENEW_BEFORE_DAYS: u64 = 14;
/// Clocks that differ by more are reported, nanoseconds.
const SKEW_MAX_NS: u64 = 5_000_000_000;
const DAY_S: u64 = 86_400;

/// What was found: whether it is fine, and what it is.
type Finding = (bool, String);

/// Looks at everything that the configuration names; one line per thing, true if it is fine.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let maker = run::maker(config).ok();
    for table in &config.files {
        let paths = file::found(table);
        if paths.is_empty() {
            findings.push((false, format!("file {}: there is none; the agent will wait for it", table.name())));
        }
        findings.extend(paths.iter().map(|path| log_file(path, maker.as_ref())));
    }
    if !config.journald.is_empty() {
        let journalctl = find_program("journalctl");
        findings.push(match journalctl {
            Some(path) => (true, format!("systemd journal is read with {}", path.display())),
            None => (false, "systemd journal: there is no journalctl on this machine".into()),
        });
    }
    findings.extend(config.audit.iter().map(|audit| log_file(&audit.path, maker.as_ref())));
    let sockets =
        config.sockets.iter().map(|socket| (true, format!("socket {} is offered to programs", socket.path.display())));
    findings.extend(sockets);
    if config.reads_stdin() {
        findings.push((true, "standard input is read".into()));
    }
    findings.push(certificate(&config.server.cert));
    findings.extend(server(config).await.unwrap_or_else(|error| vec![(false, format!("server: {error}"))]));
    findings
}

/// Its size, and what would be made of its last line.
fn log_file(path: &Path, maker: Option<&Maker>) -> Finding {
    let name = path.display();
    match last_line(path) {
        Ok((size, line)) => {
            let made = maker.filter(|_| !line.is_empty()).map(|maker| made_of(maker, path, line));
            let made = made.map(|made| format!("; its last line would be {made}")).unwrap_or_default();
            (true, format!("file {name} is readable, {size} bytes{made}"))
        }
        Err(error) => (false, format!("file {name}: {error}; the agent will wait for it")),
    }
}

fn last_line(path: &Path) -> io::Result<(u64, Bytes)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let line = tail.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    Ok((size, Bytes::copy_from_slice(line.unwrap_or_default())))
}

fn made_of(maker: &Maker, path: &Path, line: Bytes) -> String {
    let record =
        maker.of(&path.to_string_lossy()).line(Piece { consumed: 0, bytes: line, fragment: None }, unix_nanos());
    let core = Fields::decode(record.as_ref()).core.unwrap_or_default();
    let words = [("program", &core.program), ("event", &core.event_name), ("action", &core.action)];
    let words: Vec<String> = words
        .iter()
        .filter(|(_, word)| !word.is_empty())
        .map(|(name, word)| format!("{name} {}", plain(word)))
        .collect();
    if words.is_empty() { "kept as it is, found by its text".into() } else { words.join(", ") }
}

/// How long our certificate is good.
fn certificate(path: &Path) -> Finding {
    let name = path.display();
    match not_after(path) {
        Ok(until) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let days = until.saturating_sub(now).as_secs() / DAY_S;
            (days >= RENEW_BEFORE_DAYS, format!("certificate {name} is good for {days} more days"))
        }
        Err(error) => (false, format!("certificate {name}: {error}")),
    }
}

fn not_after(path: &Path) -> Result<Duration, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let inner = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).ok_or("holds no certificate")?.0;
    let base64: String = inner.split_whitespace().collect();
    let der = STANDARD.decode(base64).map_err(|error| error.to_string())?;
    let certificate = x509_cert::Certificate::from_der(&der).map_err(|error| error.to_string())?;
    Ok(certificate.tbs_certificate().validity().not_after.to_unix_duration())
}

async fn server(config: &Config) -> Result<Vec<Finding>, ClientError> {
    let session = Connection::open(&config.server).await?.append(ship::hello_asking(AGENT)).await?;
    let welcome = &session.welcome;
    let source: String = hex::encode(&welcome.source);
    let found = format!(
        "server {} answers: journal {}, we are source {source} of class {}, newest epoch {}, next record {}",
        config.server.url,
        plain(&welcome.origin),
        plain(&welcome.class),
        welcome.epoch,
        welcome.next_sequence
    );
    let skew = welcome.server_time_unix_nano.abs_diff(unix_nanos());
    let clock = format!("clock: {} ms from the server's", skew / 1_000_000);
    Ok(vec![(true, found), (skew <= SKEW_MAX_NS, clock)])
}

fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}
