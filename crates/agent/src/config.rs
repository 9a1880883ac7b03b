//! The configuration file.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sigillo_client::Endpoint;
use sigillo_model::limits::{BATCH_MAX_RECORDS, BLOCK_MAX_BYTES, FIELD_MAX_BYTES};

pub use crate::source::{audit::AuditSettings, journald::JournaldSettings, socket::SocketSettings};
use crate::{AgentError, FileSettings, ScrubSettings, scrub::Scrubber};

/// Everything that the agent is told. Relative paths are relative to the folder of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server, and who we are there.
    pub server: Endpoint,
    /// Folder in which the agent remembers how far it has come. Created if missing; one per agent.
    pub state_dir: PathBuf,
    /// Name of this machine in records. Default: the machine's own name.
    #[serde(default = "machine_name")]
    pub host: String,
    /// Tenant that all records concern. Default: the source's home tenant, as the server knows it.
    #[serde(default)]
    pub tenant: String,
    /// How long, in seconds, a server may show an older checkpoint than the one remembered, or none, before that is misconduct
    /// and shipping pauses: 1 to 86,400. Nothing is shipped meanwhile. Default 30. Only with `server.trust`.
    #[serde(default = "checkpoint_grace_s")]
    pub checkpoint_grace_s: u64,
    /// How batches are cut.
    #[serde(default)]
    pub batch: BatchSettings,
    /// Where what was read waits for the journal.
    #[serde(default)]
    pub spool: SpoolSettings,
    /// What the agent may use of the machine.
    #[serde(default)]
    pub limits: LimitSettings,
    /// Files to follow.
    #[serde(default, rename = "file")]
    pub files: Vec<FileSettings>,
    /// Readings of the systemd journal.
    #[serde(default)]
    pub journald: Vec<JournaldSettings>,
    /// The kernel's audit logs.
    #[serde(default)]
    pub audit: Vec<AuditSettings>,
    /// Sockets for programs of this machine.
    #[serde(default, rename = "socket")]
    pub sockets: Vec<SocketSettings>,
    /// Whether standard input is read. It is, too, if nothing else is: an agent without a source would ship nothing and say so
    /// to nobody.
    #[serde(default)]
    pub stdin: bool,
    /// Secrets of one's own that are taken out of all lines, beside the built-in ones.
    #[serde(default)]
    pub scrub: Vec<ScrubSettings>,
}

impl Config {
    /// Whether standard input is read.
    pub(crate) fn reads_stdin(&self) -> bool {
        let others = self.files.len() + self.journald.len() + self.audit.len() + self.sockets.len();
        self.stdin || others == 0
    }
}

/// How batches are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSettings {
    /// Records, 1 to 16,384. Default 8,192. What was read at once is never cut, so a batch may have up to 4,096.
    pub max_records: usize,
    /// Bytes before compression, 4 KiB to 8 MiB. Default 1 MiB. What was read at once, up to 512 KiB, is never cut.
    pub max_bytes: usize,
    /// Milliseconds after which what was read is synced and sent even if it is little, 1 to 60,000. Default 10.
    pub max_delay_ms: u64,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { max_records: 8_192, max_bytes: 1 << 20, max_delay_ms: 10 }
    }
}

impl BatchSettings {
    /// `max_delay_ms` as a duration.
    pub fn max_delay(&self) -> Duration {
        Duration::from_millis(self.max_delay_ms)
    }
}

/// Where what was read waits for the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolSettings {
    /// Bytes on the disk at most, 16 MiB to 1 TiB. Default 1 GiB. When they are used up nothing more is read: files keep their lines.
    pub max_bytes: Option<u64>,
    /// Bytes of one of its files, about. Default 8 MiB.
    pub segment_bytes: Option<u64>,
}

impl SpoolSettings {
    /// For the spool, which is `spool` in the state directory.
    pub(crate) fn options(&self, state_dir: &Path) -> sigillo_client::spooled::SpoolOptions {
        let mut options = sigillo_client::spooled::SpoolOptions::new(state_dir.join("spool"));
        options.max_bytes = self.max_bytes.unwrap_or(options.max_bytes);
        options.segment_bytes = self.segment_bytes.unwrap_or(options.segment_bytes);
        options
    }
}

/// What the agent may use of the machine. Its memory is bounded by itself; the service's unit sets a hard limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Percent of one processor core, 1 to 100,000; reading and sending pause to keep to it. Default: no limit.
    pub cpu_percent: Option<u32>,
    /// Bytes that are sent in a second, on average; at least 1,024. Default: no limit.
    pub bandwidth_bytes_s: Option<u64>,
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let wrong = |what: String| AgentError::Config { path: path.to_owned(), what };
        let text = fs::read_to_string(path).map_err(|error| wrong(format!("can't be read: {error}")))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let base = path.parent().unwrap_or(Path::new(""));
        config.server.resolve(base);
        config.state_dir = base.join(&config.state_dir);
        for file in &mut config.files {
            file.resolve(base);
        }
        for journald in &mut config.journald {
            journald.resolve(base);
        }
        for audit in &mut config.audit {
            audit.resolve(base);
        }
        for socket in &mut config.sockets {
            socket.resolve(base);
        }
        config.validate().map_err(wrong)?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), String> {
        let BatchSettings { max_records, max_bytes, max_delay_ms } = self.batch;
        if !(1..=BATCH_MAX_RECORDS).contains(&max_records) {
            return Err(format!("batch.max_records is {max_records}, it must be 1 to {BATCH_MAX_RECORDS}"));
        }
        if !(4_096..=BLOCK_MAX_BYTES).contains(&max_bytes) {
            return Err(format!("batch.max_bytes is {max_bytes}, it must be 4096 to {BLOCK_MAX_BYTES}"));
        }
        if !(1..=60_000).contains(&max_delay_ms) {
            return Err(format!("batch.max_delay_ms is {max_delay_ms}, it must be 1 to 60000"));
        }
        let LimitSettings { cpu_percent, bandwidth_bytes_s } = self.limits;
        if let Some(percent) = cpu_percent.filter(|percent| !(1..=100_000).contains(percent)) {
            return Err(format!("limits.cpu_percent is {percent}, it must be 1 to 100000"));
        }
        if let Some(bytes) = bandwidth_bytes_s.filter(|bytes| *bytes < 1_024) {
            return Err(format!("limits.bandwidth_bytes_s is {bytes}, it must be at least 1024"));
        }
        self.spool.options(&self.state_dir).check().map_err(|error| format!("[spool]: {error}"))?;
        if !(1..=86_400).contains(&self.checkpoint_grace_s) {
            let given = self.checkpoint_grace_s;
            return Err(format!("checkpoint_grace_s is {given}, it must be 1 to 86400"));
        }
        for (name, value) in [("host", &self.host), ("tenant", &self.tenant)] {
            if value.len() > FIELD_MAX_BYTES {
                return Err(format!("{name} has {} bytes, at most {FIELD_MAX_BYTES} are taken", value.len()));
            }
        }
        Scrubber::new(&self.scrub)?;
        self.sockets.iter().try_for_each(SocketSettings::validate)?;
        let mut seen = HashSet::new();
        if let Some(audit) = self.audit.iter().find(|audit| !seen.insert(&audit.path)) {
            return Err(format!("audit log {} is named twice: its events would be sent twice", audit.path.display()));
        }
        let mut seen = HashSet::new();
        if let Some(socket) = self.sockets.iter().find(|socket| !seen.insert(&socket.path)) {
            return Err(format!("socket {} is named twice", socket.path.display()));
        }
        let mut seen = HashSet::new();
        for file in &self.files {
            file.validate()?;
            if !seen.insert(file.name()) {
                return Err(format!("[[file]] {} is there twice: remove one", file.name()));
            }
        }
        self.journald.iter().try_for_each(JournaldSettings::validate)?;
        let mut seen = HashSet::new();
        if self.journald.iter().any(|journald| !seen.insert(journald.key())) {
            return Err("two [[journald]] tables name the same units: their lines would be sent twice".into());
        }
        Ok(())
    }
}

fn checkpoint_grace_s() -> u64 {
    30
}

fn machine_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "state_dir = 'state'\n[server]\nurl = 'https://a'\nca = 'ca.pem'\ncert = 'c'\nkey = 'k'\n";

    fn load(text: &str) -> Result<Config, AgentError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        Config::load(&path).map(|mut config| {
            config.state_dir = config.state_dir.strip_prefix(dir.path()).unwrap().to_owned();
            config
        })
    }

    #[test]
    fn defaults_are_filled_in_and_paths_resolved() {
        let config = load(&format!("{SERVER}[[file]]\npath = '/var/log/syslog'\n")).unwrap();
        assert_eq!(config.batch, BatchSettings::default());
        assert_eq!(config.state_dir, Path::new("state"));
        assert!(config.server.ca.is_absolute() && !config.host.is_empty());
    }

    #[test]
    fn contradictions_are_refused_with_their_place() {
        for (more, word) in [
            ("[batch]\nmax_records = 0\n", "max_records"),
            ("[batch]\nmax_bytes = 1\n", "max_bytes"),
            ("[spool]\nmax_bytes = 1\n", "[spool]"),
            ("[limits]\ncpu_percent = 0\n", "cpu_percent"),
            ("[limits]\nbandwidth_bytes_s = 1\n", "bandwidth_bytes_s"),
            ("[[file]]\npath = 'a'\n[[file]]\npath = 'a'\n", "twice"),
            ("[[journald]]\n[[journald]]\n", "[[journald]]"),
            ("[[journald]]\nunits = ['']\n", "no name of a unit"),
            ("[[file]]\nglob = 'a'\npath = 'a'\n", "glob"),
            ("[[socket]]\nmode = 660\n", "octal"),
            ("[[socket]]\n[[socket]]\n", "twice"),
            ("[[audit]]\n[[audit]]\n", "twice"),
            ("[[scrub]]\nname = 'x'\npattern = '('\n", "unclosed"),
        ] {
            let error = load(&format!("{SERVER}{more}")).unwrap_err().to_string();
            assert!(error.contains(word), "{more:?}: {error}");
        }
    }
}
