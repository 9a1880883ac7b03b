//! What lines say, in the words of the audit core. PROFILES.md lists all names.
//!
//! A profile never fails: a line that does not fit stays a plain record. Parsers go over the text once, from fixed words to fixed
//! words; where a sender may choose a name freely, from the end, so that nobody can put words into another's mouth.

mod access;
mod accounts;
pub(crate) mod audit;
mod bareos;
mod borg;
mod cron;
pub(crate) mod facts;
mod logind;
mod pam;
mod plesk;
mod proxmox;
mod restic;
mod scan;
mod sshd;
mod su;
mod sudo;
#[cfg(test)]
mod testing;
mod web_error;

use std::borrow::Cow;

use serde::Deserialize;

use crate::{profile::facts::Facts, when::Clock};

/// Bytes of a message that profiles look at. What names a fact stands at the beginning.
const MESSAGE_MAX_BYTES: usize = 64 << 10;

/// By which words a source's lines are understood.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// By the program that wrote the line, if it says so, else by the name of the file.
    #[default]
    Auto,
    /// By none: time, severity, host and program at most.
    Plain,
    /// OpenSSH's server.
    Sshd,
    /// sudo.
    Sudo,
    /// su.
    Su,
    /// PAM modules in any program.
    Pam,
    /// cron and crontab.
    Cron,
    /// systemd-logind.
    Logind,
    /// useradd, usermod, userdel, groupadd, gpasswd, passwd and their kin.
    Accounts,
    /// nginx's access log.
    Nginx,
    /// nginx's error log.
    NginxError,
    /// Apache's access log.
    Apache,
    /// Apache's error log.
    ApacheError,
    /// Proxmox tasks and logins.
    Proxmox,
    /// Plesk's action log.
    Plesk,
    /// Bareos jobs.
    Bareos,
    /// restic results.
    Restic,
    /// Borg results.
    Borg,
    /// The kernel's audit log.
    Audit,
}

/// What is known of a message apart from its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The program that wrote it, or nothing.
    pub(crate) program: &'a str,
    /// What the stream's name makes us expect.
    pub(crate) expected: Profile,
    pub(crate) clock: Clock<'a>,
}

impl Profile {
    /// What a path, unit or channel makes us expect.
    pub(crate) fn of_stream(name: &str) -> Self {
        let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
        let (folders, file) = (folders.to_ascii_lowercase(), file.to_ascii_lowercase());
        let any = |words: &[&str]| words.iter().any(|word| folders.contains(word) || file.contains(word));
        let (access, error) = (file.contains("access"), file.contains("error"));
        match () {
            () if folders.ends_with("/audit") || file.starts_with("audit.log") => Self::Audit,
            () if folders.ends_with("/pve/tasks") || folders.ends_with("/proxmox-backup/tasks") => Self::Proxmox,
            () if access => Self::Nginx,
            () if error && any(&["apache", "httpd"]) => Self::ApacheError,
            () if error && any(&["nginx"]) => Self::NginxError,
            () if any(&["plesk", "action-log", "actionlog"]) => Self::Plesk,
            () if any(&["bareos", "bacula"]) => Self::Bareos,
            () if any(&["restic"]) => Self::Restic,
            () if any(&["borg"]) => Self::Borg,
            () => Self::Plain,
        }
    }

    fn of_program(program: &str) -> Self {
        match program.rsplit('/').next().unwrap_or(program) {
            "sshd" | "sshd-session" | "sshd-auth" => Self::Sshd,
            "sudo" => Self::Sudo,
            "su" => Self::Su,
            "CRON" | "cron" | "crond" | "crontab" => Self::Cron,
            "systemd-logind" => Self::Logind,
            "useradd" | "usermod" | "userdel" | "groupadd" | "groupmod" | "groupdel" | "gpasswd" | "passwd"
            | "chage" | "chsh" | "chfn" | "newusers" | "chpasswd" => Self::Accounts,
            "nginx" => Self::Nginx,
            "apache2" | "httpd" => Self::Apache,
            "pvedaemon"
            | "pveproxy"
            | "pvescheduler"
            | "pvesh"
            | "qm"
            | "pct"
            | "vzdump"
            | "proxmox-backup-proxy"
            | "proxmox-backup-api"
            | "pmgdaemon"
            | "pmgproxy" => Self::Proxmox,
            "plesk" | "psa" | "sw-engine" | "sw-cp-server" => Self::Plesk,
            "bareos-dir" | "bareos-fd" | "bareos-sd" => Self::Bareos,
            "restic" => Self::Restic,
            "borg" | "borgmatic" => Self::Borg,
            "audit" | "auditd" | "audispd" | "audisp-syslog" => Self::Audit,
            _ => Self::Plain,
        }
    }

    /// What a message says, without its header. `None` if it says nothing that we know.
    pub(crate) fn read<'a>(self, message: &'a [u8], context: &Context<'_>) -> Option<Facts<'a>> {
        let profile = match self {
            Self::Auto if context.program.is_empty() => context.expected,
            Self::Auto => Self::of_program(context.program),
            profile => profile,
        };
        let profile = match profile {
            Self::Plain if self == Self::Auto && (message.starts_with(b"pam_") || message.starts_with(b"PAM ")) => {
                Self::Pam
            }
            Self::Plain => return None,
            profile => profile,
        };
        let message = message.get(..MESSAGE_MAX_BYTES).unwrap_or(message);
        match String::from_utf8_lossy(message) {
            Cow::Borrowed(text) => profile.read_text(text, context),
            Cow::Owned(text) => profile.read_text(&text, context).map(Facts::into_owned),
        }
    }

    fn read_text<'a>(self, text: &'a str, context: &Context<'_>) -> Option<Facts<'a>> {
        let text = text.trim_ascii();
        // rsyslog joins equal messages: `message repeated 3 times: [ … ]`
        if let Some((count, said)) =
            text.strip_prefix("message repeated ").and_then(|rest| rest.split_once(" times: [ "))
        {
            let facts = self.read_one(said.strip_suffix(']').unwrap_or(said).trim_ascii(), context)?;
            return Some(facts.with_number("repeated", scan::count(count)));
        }
        self.read_one(text, context)
    }

    fn read_one<'a>(self, text: &'a str, context: &Context<'_>) -> Option<Facts<'a>> {
        let clock = context.clock;
        match self {
            Self::Auto | Self::Plain => None,
            Self::Nginx | Self::NginxError => access::read(text).or_else(|| web_error::nginx(text, clock)),
            Self::Apache | Self::ApacheError => access::read(text).or_else(|| web_error::apache(text, clock)),
            Self::Audit => audit::read(text),
            Self::Proxmox => proxmox::read(text).or_else(|| pam::read(text)),
            Self::Plesk => plesk::read(text, clock),
            Self::Bareos => bareos::read(text),
            Self::Restic => restic::read(text),
            Self::Borg => borg::read(text),
            Self::Pam => pam::read(text),
            Self::Sshd => sshd::read(text).or_else(|| pam::read(text)),
            Self::Sudo => sudo::read(text).or_else(|| pam::read(text)),
            Self::Su => su::read(text).or_else(|| pam::read(text)),
            Self::Cron => cron::read(text).or_else(|| pam::read(text)),
            Self::Logind => logind::read(text).or_else(|| pam::read(text)),
            Self::Accounts => accounts::read(text).or_else(|| pam::read(text)),
        }
    }
}

#[cfg(test)]
mod tests;
