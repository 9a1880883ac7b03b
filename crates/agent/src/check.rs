//! `sigillo-agent check`: is everything there that the agent needs, and what would it make of it?

mod journald;
mod spool;

pub(crate) use journald::journald;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sigillo_client::{ClientError, Connection, plain, ship, unix_nanos};
use sigillo_model::policy::Policy;
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
    for settings in &config.journald {
        findings.extend(journald(settings).await);
    }
    findings.extend(config.audit.iter().map(|audit| log_file(&audit.path, maker.as_ref())));
    let sockets =
        config.sockets.iter().map(|socket| (true, format!("socket {} is offered to programs", socket.path.display())));
    findings.extend(sockets);
    if config.reads_stdin() {
        findings.push((true, "standard input is read".into()));
    }
    findings.extend(spool::spool(&config.spool.options(&config.state_dir)));
    findings.push(certificate(&config.server.cert));
    findings.push(private_key(&config.server.key));
    findings.extend(config.server.trust.as_deref().map(trust));
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

/// Whether nobody else has our key.
fn private_key(path: &Path) -> Finding {
    let name = path.display();
    match fs::metadata(path).map(|metadata| (metadata.mode() & 0o777, metadata.mode() & 0o077)) {
        Ok((_, 0)) => (true, format!("key {name} is its owner's alone")),
        Ok((mode, _)) => (
            false,
            format!(
                "key {name}: others may read or write it (mode {mode:o}): run `chmod 600 {name}`; if somebody may have read it, enrol a new one"
            ),
        ),
        Err(error) => (false, format!("key {name}: {error}")),
    }
}

/// Whether the server can be held to it.
fn trust(path: &Path) -> Finding {
    let name = path.display();
    let policy = fs::read(path).map_err(|error| error.to_string());
    match policy.and_then(|bytes| Policy::parse(&bytes).map_err(|error| error.to_string())) {
        Ok(_) => (true, format!("trust file {name} says who signs the journal")),
        Err(error) => (false, format!("trust file {name}: {error}")),
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

#[cfg(test)]
mod testing {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread};

    use rustix::{
        process::{Gid, Uid, geteuid},
        thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
    };

    pub(super) fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Does it without root's rights, which end with the thread.
    pub(super) fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let unprivileged = move || {
            if geteuid().is_root() {
                let (user, group) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
                set_thread_groups(&[]).unwrap();
                set_thread_res_gid(group, group, group).unwrap();
                set_thread_res_uid(user, user, user).unwrap();
            }
            work()
        };
        thread::spawn(unprivileged).join().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_that_is_named_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.log"), "2026-11-23T12:00:00Z hello\n").unwrap();
        let text = "state_dir = 'state'\n[server]\nurl = 'https://127.0.0.1:1'\nca = 'ca'\ncert = 'c'\nkey = 'k'\ntrust = 't'\n\
            [spool]\nmax_bytes = 16777216\n[[file]]\npath = 'a.log'\n[[file]]\npath = 'b.log'\n[[audit]]\npath = 'audit.log'\n\
            [[journald]]\ndirectory = 'journal'\n[[socket]]\npath = 's'\n";
        fs::write(dir.path().join("agent.toml"), text).unwrap();
        fs::write(dir.path().join("k"), "").unwrap();
        testing::chmod(&dir.path().join("k"), 0o640);
        let config = Config::load(&dir.path().join("agent.toml")).unwrap();
        let findings = check(&config).await;
        let folder = dir.path().display();
        for (fine, what) in [
            (true, format!("file {folder}/a.log is readable, 27 bytes")),
            (false, format!("file {folder}/b.log: ")),
            (false, format!("file {folder}/audit.log: ")),
            (false, format!("journald in {folder}/journal: ")),
            (true, format!("socket {folder}/s is offered")),
            (true, format!("spool {folder}/state/spool may grow to 16777216 bytes, has 0 now, and ")),
            (false, format!("certificate {folder}/c: ")),
            (false, format!("key {folder}/k: others may read or write it (mode 640)")),
            (false, format!("trust file {folder}/t: ")),
            (false, "server: ".to_owned()),
        ] {
            let found = findings.iter().filter(|(is, found)| *is == fine && found.starts_with(&what)).count();
            assert_eq!(found, 1, "{what} {findings:#?}");
        }
        assert_eq!(findings.len(), 10, "{findings:#?}");
    }
}
