//! Proxmox VE and Backup Server: tasks in syslog and in `/var/log/pve/tasks/index`, and logins.
//!
//! A task is named `UPID:NODE:PID:PSTART:START:TYPE:ID:USER:`, numbers in hexadecimal, `START` in seconds since the epoch; Backup
//! Server puts a task number before `START`.

use sigillo_proto::v1::{ActorKind, Outcome};

use crate::profile::{
    facts::{Facts, severity::WARN},
    scan::{between, unquoted, word},
};

/// One message, or one line of the index.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    if text.starts_with("UPID:") {
        return index(text);
    }
    // `<root@pam> MESSAGE`
    let (user, said) = match text.strip_prefix('<').and_then(|rest| rest.split_once("> ")) {
        Some((user, said)) => (user, said),
        None => ("", text),
    };
    if let Some(upid) = said.strip_prefix("starting task ") {
        return Some(Task::parse(word(upid).0)?.facts(Outcome::Started));
    }
    if let Some(rest) = said.strip_prefix("end task ") {
        let (upid, status) = word(rest);
        return Some(ended(&Task::parse(upid)?, status));
    }
    if let Some(name) = said.strip_prefix("successful auth for user ") {
        return Some(login(Outcome::Success, unquoted(name)));
    }
    if let Some(rest) = said.strip_prefix("authentication failure; rhost=") {
        // Who calls chooses the name; what follows it is the server's, so it is looked for from the end.
        let (address, rest) = rest.split_once(" user=")?;
        let (name, reason) = rest.rsplit_once(" msg=").unwrap_or((rest, ""));
        let address = address.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(address, |(a, _)| a);
        return Some(login(Outcome::Failure, name).severity(WARN).from(address).with("reason", reason));
    }
    let (_said, upid) = said.split_once(": UPID:")?;
    let task = Task::parse(said.get(said.len() - upid.len() - 5..)?)?;
    Some(if user.is_empty() { task.facts(Outcome::Started) } else { task.facts(Outcome::Started).by(user, kind(user)) })
}

/// `UPID END STATUS`
fn index(text: &str) -> Option<Facts<'_>> {
    let (upid, rest) = word(text);
    let (end, status) = word(rest);
    let end = u64::from_str_radix(end, 16).ok().filter(|_| end.len() >= 8 && !status.is_empty())?;
    Some(ended(&Task::parse(upid)?, status).at(end.saturating_mul(1_000_000_000)))
}

struct Task<'a> {
    upid: &'a str,
    node: &'a str,
    kind: &'a str,
    id: &'a str,
    user: &'a str,
}

impl<'a> Task<'a> {
    fn parse(upid: &'a str) -> Option<Self> {
        let mut fields = upid.strip_prefix("UPID:")?.strip_suffix(':')?.split(':');
        let (node, _pid, _pstart) = (fields.next()?, fields.next()?, fields.next()?);
        let rest = (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next());
        let (kind, id, user) = match rest {
            (_start, kind, id, user, None) => (kind, id, user),
            (_number, _start, kind, id, Some(user)) => (kind, id, user),
        };
        fields.next().is_none().then_some(Self { upid, node, kind, id, user })
    }

    fn facts(&self, outcome: Outcome) -> Facts<'a> {
        let (action, target) = meaning(self.kind);
        let mut facts = Facts::new("proxmox.task", action.unwrap_or("task.run"), outcome);
        if action.is_none() {
            facts.action = format!("task.{}", self.kind.to_ascii_lowercase()).into();
        }
        let id = if self.id.is_empty() { self.node } else { self.id };
        let target = if self.id.is_empty() { "host" } else { target };
        let facts = facts.on(target, id).by(self.user, kind(self.user)).in_session(self.upid);
        facts.with("node", self.node).with("task", self.kind)
    }
}

fn ended<'a>(task: &Task<'a>, status: &'a str) -> Facts<'a> {
    if status == "OK" || status.starts_with("WARNINGS") {
        return task.facts(Outcome::Success).with("status", status);
    }
    task.facts(Outcome::Failure).severity(WARN).with("status", status)
}

fn login(outcome: Outcome, name: &str) -> Facts<'_> {
    Facts::new("proxmox.login", "login", outcome).on("service", "proxmox").by(name, kind(name))
}

/// Accounts of the host log in by PAM.
fn kind(user: &str) -> ActorKind {
    let realm = between(user, "@", "!").or_else(|| user.rsplit_once('@').map(|(_, realm)| realm));
    if realm == Some("pam") { ActorKind::System } else { ActorKind::Unspecified }
}

/// Action and kind of target of a type of task.
fn meaning(task: &str) -> (Option<&'static str>, &'static str) {
    let (action, target) = match task {
        "qmstart" => ("vm.start", "vm"),
        "qmstop" => ("vm.stop", "vm"),
        "qmshutdown" => ("vm.shutdown", "vm"),
        "qmreboot" => ("vm.reboot", "vm"),
        "qmreset" => ("vm.reset", "vm"),
        "qmsuspend" | "qmpause" => ("vm.suspend", "vm"),
        "qmresume" => ("vm.resume", "vm"),
        "qmcreate" => ("vm.create", "vm"),
        "qmdestroy" => ("vm.delete", "vm"),
        "qmclone" => ("vm.clone", "vm"),
        "qmmigrate" => ("vm.migrate", "vm"),
        "qmrestore" => ("vm.restore", "vm"),
        "qmconfig" | "resize" => ("vm.update", "vm"),
        "qmtemplate" => ("vm.template", "vm"),
        "qmsnapshot" => ("vm.snapshot_create", "vm"),
        "qmdelsnapshot" => ("vm.snapshot_delete", "vm"),
        "qmrollback" => ("vm.rollback", "vm"),
        "vncproxy" | "spiceproxy" | "qmvncproxy" => ("vm.console", "vm"),
        "vzstart" => ("container.start", "container"),
        "vzstop" => ("container.stop", "container"),
        "vzshutdown" => ("container.shutdown", "container"),
        "vzreboot" => ("container.reboot", "container"),
        "vzcreate" => ("container.create", "container"),
        "vzdestroy" => ("container.delete", "container"),
        "vzclone" => ("container.clone", "container"),
        "vzmigrate" => ("container.migrate", "container"),
        "vzrestore" => ("container.restore", "container"),
        "vzsnapshot" => ("container.snapshot_create", "container"),
        "vzdelsnapshot" => ("container.snapshot_delete", "container"),
        "vzrollback" => ("container.rollback", "container"),
        "vzdump" | "backup" => ("backup.create", "backup"),
        "prune" | "prunejob" => ("backup.prune", "backup"),
        "verify" | "verificationjob" => ("backup.verify", "backup"),
        "reader" => ("backup.read", "backup"),
        "imgdel" => ("storage.delete", "storage"),
        "imgcopy" | "download" => ("storage.copy", "storage"),
        "vncshell" | "termproxy" | "spiceshell" => ("host.console", "host"),
        "aptupdate" => ("host.update", "host"),
        "srvstart" => ("service.start", "service"),
        "srvstop" => ("service.stop", "service"),
        "srvrestart" | "srvreload" => ("service.restart", "service"),
        "clustercreate" | "clusterjoin" => ("cluster.join", "cluster"),
        _ => return (None, "task"),
    };
    (Some(action), target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::{Expected, check};

    const UPID: &str = "UPID:pve1:0003A1B2:0012D687:6565F1C4:qmstart:100:root@pam:";

    fn task(action: &'static str, outcome: &'static str) -> Expected {
        Expected::new("proxmox.task", action, outcome).session(UPID).actor("root@pam").target("vm", "100")
    }

    #[test]
    fn lines_mean_what_they_say() {
        let start = || task("vm.start", "started").with("node", "pve1").with("task", "qmstart");
        check(
            read,
            [
                ("<root@pam> starting task UPID:pve1:0003A1B2:0012D687:6565F1C4:qmstart:100:root@pam:", start()),
                ("start VM 100: UPID:pve1:0003A1B2:0012D687:6565F1C4:qmstart:100:root@pam:", start()),
                (
                    "<root@pam> end task UPID:pve1:0003A1B2:0012D687:6565F1C4:qmstart:100:root@pam: OK",
                    task("vm.start", "success").with("node", "pve1").with("task", "qmstart").with("status", "OK"),
                ),
                (
                    "UPID:pve1:0003A1B2:0012D687:6565F1C4:qmstart:100:root@pam: 6565F1C8 VM 100 already running",
                    task("vm.start", "failure")
                        .severity(13)
                        .time(0x6565_f1c8 * 1_000_000_000)
                        .with("node", "pve1")
                        .with("task", "qmstart")
                        .with("status", "VM 100 already running"),
                ),
                (
                    "UPID:pve1:0003A1B2:0012D687:6565F1C4:vzdump::bob@pve!ci: 6565F1C8 WARNINGS: 1",
                    Expected::new("proxmox.task", "backup.create", "success")
                        .target("host", "pve1")
                        .actor_of("bob@pve!ci", ActorKind::Unspecified)
                        .session("UPID:pve1:0003A1B2:0012D687:6565F1C4:vzdump::bob@pve!ci:")
                        .time(0x6565_f1c8 * 1_000_000_000)
                        .with("node", "pve1")
                        .with("task", "vzdump")
                        .with("status", "WARNINGS: 1"),
                ),
                // Backup Server's form, and a type that we don't know.
                (
                    "starting task UPID:pbs:0003A1B2:0012D687:0000000A:6565F1C4:Tape-Thing:x:root@pam:",
                    Expected::new("proxmox.task", "task.tape-thing", "started")
                        .target("task", "x")
                        .actor("root@pam")
                        .session("UPID:pbs:0003A1B2:0012D687:0000000A:6565F1C4:Tape-Thing:x:root@pam:")
                        .with("node", "pbs")
                        .with("task", "Tape-Thing"),
                ),
                (
                    "<root@pam> successful auth for user 'bob@pve'",
                    Expected::new("proxmox.login", "login", "success")
                        .target("service", "proxmox")
                        .actor_of("bob@pve", ActorKind::Unspecified),
                ),
                (
                    "authentication failure; rhost=::ffff:192.0.2.7 user=root@pam msg=Authentication failure",
                    Expected::new("proxmox.login", "login", "failure")
                        .target("service", "proxmox")
                        .actor("root@pam")
                        .client("192.0.2.7")
                        .severity(13)
                        .with("reason", "Authentication failure"),
                ),
                (
                    "authentication failure; rhost=[2001:db8::7]:4022 user=root@pam msg=no",
                    Expected::new("proxmox.login", "login", "failure")
                        .target("service", "proxmox")
                        .actor("root@pam")
                        .client("2001:db8::7")
                        .severity(13)
                        .with("reason", "no"),
                ),
            ],
        );
    }

    #[test]
    fn other_words_stay_words() {
        for text in ["", "UPID:", "UPID:a:b OK", "starting task x", "end task UPID:a:b:c:d:e:f:g:h:i:j: OK", "<a> b"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
