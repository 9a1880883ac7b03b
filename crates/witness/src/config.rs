//! The configuration file.

use std::{
    collections::HashSet,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sigillo_model::note::{KeyError, KeyKind, VerifierKey};

/// Logs that a witness watches at most.
const LOGS_MAX: usize = 1_000;
/// Keys that a log may have at a time.
const KEYS_MAX: usize = 16;

/// Everything that the witness is told. Relative paths are relative to the folder of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the witness; its key has the same.
    pub name: String,
    /// File of the private key, or `credential:NAME` for one that systemd passes on.
    pub key: PathBuf,
    /// Folder in which the witness remembers what it has cosigned. Created if missing; one per witness, never restored from a
    /// backup.
    pub state_dir: PathBuf,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Begins the paths of all requests, such as `/w1`. Default: nothing.
    #[serde(default)]
    pub prefix: String,
    /// Certificate and key. Required unless the address is one of this machine only.
    pub tls: Option<TlsFiles>,
    /// The logs to watch.
    #[serde(default, rename = "log")]
    pub logs: Vec<LogSettings>,
}

/// Files of the TLS certificate, both PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate with its intermediates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A log to watch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// The first line of its checkpoints.
    pub origin: String,
    /// Its public keys, `name+id+key`. More than one while a key is replaced.
    pub keys: Vec<String>,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, or not of this shape.
    #[error("{path}: {source}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Plaintext on a public address.
    #[error("{0} is reached from other machines: add [tls] with cert and key, or listen on 127.0.0.1 behind a proxy")]
    Plaintext(SocketAddr),
    /// A prefix that no path begins with.
    #[error(
        "prefix = \"{0}\": it must be empty, or begin with `/` and not end with one, of letters, digits and `-._/`"
    )]
    Prefix(String),
    /// No log, or too many.
    #[error("there are {0} [[log]] tables; 1 to {LOGS_MAX} are taken")]
    LogCount(usize),
    /// An origin that no checkpoint can have, or one that is there twice.
    #[error("origin = \"{0}\": it must be one line, not empty, and stand in one [[log]] table only")]
    Origin(String),
    /// No key, or too many.
    #[error("the log `{origin}` has {count} keys; 1 to {KEYS_MAX} are taken")]
    KeyCount {
        /// The log.
        origin: String,
        /// How many it has.
        count: usize,
    },
    /// A key that can't be used.
    #[error("a key of the log `{origin}`: {source}")]
    Key {
        /// The log.
        origin: String,
        /// Why.
        source: KeyError,
    },
    /// A key that signs no checkpoints, or one that is there twice.
    #[error("the log `{origin}` has the key `{name}` twice, or it is not a log's key (type 01)")]
    WrongKey {
        /// The log.
        origin: String,
        /// Name of the key.
        name: String,
    },
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Form { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.state_dir = folder.join(&config.state_dir);
        if !config.key.to_string_lossy().starts_with(crate::key_file::CREDENTIAL) {
            config.key = folder.join(&config.key);
        }
        if let Some(tls) = &mut config.tls {
            tls.cert = folder.join(&tls.cert);
            tls.key = folder.join(&tls.key);
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            return Err(ConfigError::Plaintext(self.listen));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
        let prefix = &self.prefix;
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/') || !prefix.chars().all(plain)) {
            return Err(ConfigError::Prefix(prefix.clone()));
        }
        if !(1..=LOGS_MAX).contains(&self.logs.len()) {
            return Err(ConfigError::LogCount(self.logs.len()));
        }
        let mut origins = HashSet::new();
        for log in &self.logs {
            let line = !log.origin.is_empty() && !log.origin.chars().any(|c| c < ' ');
            if !line || !origins.insert(&log.origin) {
                return Err(ConfigError::Origin(log.origin.clone()));
            }
            log.verifiers()?;
        }
        Ok(())
    }
}

impl LogSettings {
    /// The keys, read.
    pub(crate) fn verifiers(&self) -> Result<Vec<VerifierKey>, ConfigError> {
        let origin = || self.origin.clone();
        if !(1..=KEYS_MAX).contains(&self.keys.len()) {
            return Err(ConfigError::KeyCount { origin: origin(), count: self.keys.len() });
        }
        let mut keys: Vec<VerifierKey> = Vec::new();
        for text in &self.keys {
            let key = VerifierKey::parse(text).map_err(|source| ConfigError::Key { origin: origin(), source })?;
            let known = keys.iter().any(|other| other.name() == key.name() && other.id() == key.id());
            if key.kind() != KeyKind::Log || known {
                return Err(ConfigError::WrongKey { origin: origin(), name: key.name().to_owned() });
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.toml");
        fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    fn config(listen: &str, more: &str) -> String {
        let logs = format!("[[log]]\norigin = \"example.com/foo\"\nkeys = [\"{KEY}\"]\n");
        format!("name = \"w\"\nkey = \"k\"\nstate_dir = \"s\"\nlisten = \"{listen}\"\n{more}\n{logs}")
    }

    #[test]
    fn plaintext_is_for_this_machine_only() {
        for listen in ["127.0.0.1:80", "[::1]:80", "127.9.9.9:1"] {
            assert!(load(&config(listen, "")).is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            assert!(matches!(load(&config(listen, "")), Err(ConfigError::Plaintext(_))), "{listen}");
            let tls = "tls = { cert = \"c\", key = \"k\" }";
            assert!(load(&config(listen, tls)).unwrap().tls.unwrap().cert.is_absolute(), "{listen}");
        }
    }

    #[test]
    fn contradictions_are_refused_at_the_start() {
        let good = config("127.0.0.1:1", "prefix = \"/w1\"");
        assert!(load(&good).is_ok());
        let key = format!("\"{KEY}\"");
        for (from, to) in [
            ("\"/w1\"", "\"w1\""),
            ("\"/w1\"", "\"/w1/\""),
            ("\"/w1\"", "\"/{w}\""),
            ("\"example.com/foo\"", "\"\""),
            ("\"example.com/foo\"", "\"a\\nb\""),
            (key.as_str(), ""),
            (&key, &format!("{key}, {key}")),
            (&key, "\"x\""),
            ("[[log]]", "[log]"),
            ("origin", "origins"),
        ] {
            let changed = good.replacen(from, to, 1);
            assert!(changed != good && load(&changed).is_err(), "{from} -> {to}");
        }
        let twice = format!("{good}{}", &good[good.find("[[log]]").unwrap()..]);
        assert!(matches!(load(&twice), Err(ConfigError::Origin(_))));
        assert!(matches!(load(&good[..good.find("[[log]]").unwrap()]), Err(ConfigError::LogCount(0))));
    }

    #[test]
    fn the_example_is_good() {
        let example = fs::read_to_string("../../deploy/sigillo-witness.example.toml").unwrap();
        let config = load(&example).unwrap();
        assert!(config.tls.is_some() && config.logs.len() == 1);
    }
}
