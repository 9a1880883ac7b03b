//! Records of the kernel's audit log; what belongs to one event comes as one text, a record a line.

mod pairs;

use std::borrow::Cow;

use sigillo_proto::v1::{ActorKind, Outcome};

pub(crate) use pairs::scrub_hex;

use crate::profile::{
    audit::pairs::{Pairs, Raw},
    facts::{
        Facts, Person,
        severity::{INFO, WARN},
    },
};

/// The user id of what nobody logged in to do.
const NOBODY: &str = "4294967295";
/// Arguments and paths of one event that are looked at.
const LIST_MAX: usize = 64;

/// What the records of one event say together. Of a key that several have, the first counts.
#[derive(Debug, Default)]
struct Event<'a> {
    kind: &'a str,
    time: u64,
    serial: &'a str,
    login_id: &'a str,
    login_name: Cow<'a, str>,
    account: Cow<'a, str>,
    address: &'a str,
    host_name: &'a str,
    session: &'a str,
    exe: Cow<'a, str>,
    command: Cow<'a, str>,
    title: Cow<'a, str>,
    arguments: Vec<Cow<'a, str>>,
    paths: Vec<Cow<'a, str>>,
    directory: Cow<'a, str>,
    terminal: &'a str,
    syscall: &'a str,
    key: Cow<'a, str>,
    operation: &'a str,
    unit: &'a str,
    result: &'a str,
    is_denied: bool,
}

/// The records of one event.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    let mut event = Event::default();
    text.lines().for_each(|line| event.add(line));
    if event.kind.is_empty() { None } else { Some(event.facts()) }
}

impl<'a> Event<'a> {
    fn add(&mut self, line: &'a str) {
        let Some((kind, rest)) = split(line) else { return };
        if let Some((head, body)) = rest.strip_prefix("msg=audit(").and_then(|rest| rest.split_once(')')) {
            if self.time == 0 {
                (self.time, self.serial) = stamp(head).unwrap_or_default();
            }
            self.add_pairs(kind, body.strip_prefix(':').unwrap_or(body));
        } else {
            self.add_pairs(kind, rest);
        }
        // What ends an event, or only adds to it, does not name it.
        let adds = matches!(kind, "EOE" | "PROCTITLE" | "CWD" | "PATH" | "EXECVE" | "SOCKADDR" | "SYSCALL" | "OBJ_PID");
        if self.kind.is_empty() || (!adds && matches!(self.kind, "SYSCALL" | "PROCTITLE" | "CWD" | "PATH")) {
            self.kind = kind;
        }
        if kind == "EXECVE" {
            self.kind = "EXECVE";
        }
    }

    fn add_pairs(&mut self, kind: &'a str, body: &'a str) {
        self.is_denied |= matches!(kind, "AVC" | "USER_AVC") && (body.contains("denied") || body.contains("DENIED"));
        let keep = |slot: &mut &'a str, value: Raw<'a>| {
            if slot.is_empty() {
                *slot = value.plain();
            }
        };
        let keep_text = |slot: &mut Cow<'a, str>, value: Raw<'a>| {
            if slot.is_empty() {
                *slot = value.text();
            }
        };
        for (key, value) in Pairs::of(body) {
            match key {
                "auid" => keep(&mut self.login_id, value),
                "AUID" => keep_text(&mut self.login_name, value),
                "acct" => keep_text(&mut self.account, value),
                "id" | "ID" if self.account.is_empty() => self.account = value.plain().into(),
                "addr" => keep(&mut self.address, value),
                "hostname" => keep(&mut self.host_name, value),
                "ses" => keep(&mut self.session, value),
                "exe" => keep_text(&mut self.exe, value),
                "cmd" => keep_text(&mut self.command, value),
                "proctitle" => keep_text(&mut self.title, value),
                "cwd" => keep_text(&mut self.directory, value),
                "name" if kind == "PATH" && self.paths.len() < LIST_MAX => self.paths.push(value.text()),
                "terminal" | "tty" => keep(&mut self.terminal, value),
                // The name, where the daemon adds it, says more than the number.
                "SYSCALL" => self.syscall = value.plain(),
                "syscall" => keep(&mut self.syscall, value),
                "key" => keep_text(&mut self.key, value),
                "op" => keep(&mut self.operation, value),
                "unit" => keep(&mut self.unit, value),
                "res" | "success" | "result" => keep(&mut self.result, value),
                _ if kind == "EXECVE" && is_argument(key) && self.arguments.len() < LIST_MAX => {
                    self.arguments.push(value.text());
                }
                _ => {}
            }
        }
    }

    fn facts(self) -> Facts<'a> {
        let (event_name, action, target) = meaning(self.kind, self.operation);
        let outcome = match self.result {
            _ if self.is_denied => Outcome::Denied,
            "success" | "yes" | "1" => Outcome::Success,
            "failed" | "no" | "0" | "failure" => Outcome::Failure,
            _ => Outcome::Unspecified,
        };
        let mut facts = Facts::new(event_name, action, outcome).at(self.time);
        if action.is_empty() {
            facts.action = format!("audit.{}", self.kind.to_ascii_lowercase()).into();
        }
        let alarming = self.kind.starts_with("ANOM_") || matches!(outcome, Outcome::Denied | Outcome::Failure);
        facts.severity_number = if alarming { WARN } else { INFO };
        let login_id = Some(self.login_id).filter(|id| !matches!(*id, NOBODY | "-1" | "unset")).unwrap_or_default();
        let is_login = target == "service";
        let account = Some(self.account).filter(|_| !is_login || login_id.is_empty() || event_name == "audit.login");
        let logged_in = Person { id: login_id.into(), name: self.login_name, kind: ActorKind::System };
        let named = |name: Cow<'a, str>| Person { name, kind: ActorKind::System, ..Person::default() };
        (facts.actor, facts.target_id) = match (target, account) {
            // Who logs in is who he says he is.
            ("service", Some(name)) if !name.is_empty() => (Some(named(name)), self.exe.clone()),
            ("account" | "group", account) => (Some(logged_in), account.unwrap_or_default()),
            ("unit", _) => (None, self.unit.into()),
            ("file", _) => {
                let path = self.paths.last().cloned().unwrap_or_default();
                (Some(logged_in), path)
            }
            ("service" | "program", _) => (Some(logged_in), self.exe.clone()),
            _ => (Some(logged_in), Cow::Borrowed("")),
        };
        facts.actor =
            facts.actor.filter(|actor| !(actor.id.is_empty() && actor.name.is_empty() || actor.name == "unset"));
        facts.target_type = if facts.target_id.is_empty() { "".into() } else { target.into() };
        let address = if self.address.is_empty() { self.host_name } else { self.address };
        if !address.is_empty() {
            facts = facts.from(address);
        }
        facts.session = Some(self.session).filter(|id| *id != NOBODY).unwrap_or_default().into();
        let command = match () {
            () if !self.command.is_empty() => self.command,
            () if !self.arguments.is_empty() => self.arguments.join(" ").into(),
            () => self.title,
        };
        facts
            .with("type", self.kind)
            .with("serial", self.serial)
            .with("operation", self.operation)
            .with("command", &command)
            .with("directory", &self.directory)
            .with("exe", if target == "program" || is_login { "" } else { &self.exe })
            .with("tty", self.terminal)
            .with("syscall", self.syscall)
            .with("key", &self.key)
    }
}

/// Type and rest: `type=T REST`, or `T REST` as the systemd journal has it, or behind `node=NAME`.
fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("audit: ").unwrap_or(line);
    let line = match line.strip_prefix("node=") {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let (kind, rest) = line.split_once(' ')?;
    let named = kind.strip_prefix("type=");
    let kind = named.unwrap_or(kind);
    let shaped = kind.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let shaped = shaped && kind.len() > 2 || kind.starts_with("UNKNOWN[");
    (shaped && (named.is_some() || rest.contains('='))).then_some((kind, rest))
}

/// `SECONDS.MILLIS:SERIAL` as nanoseconds and serial.
fn stamp(head: &str) -> Option<(u64, &str)> {
    let (time, serial) = head.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let millis: u64 = millis.parse().ok().filter(|millis| *millis < 1_000)?;
    let seconds: u64 = seconds.parse().ok()?;
    Some((seconds.checked_mul(1_000)?.checked_add(millis)?.checked_mul(1_000_000)?, serial))
}

/// `a0`, `a1`, …; not `a1_len`, nor pieces of a long one, `a1[0]`.
fn is_argument(key: &str) -> bool {
    key.strip_prefix('a').is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Event name, action (empty: made of the type) and kind of target of a type of record.
fn meaning(kind: &str, operation: &str) -> (&'static str, &'static str, &'static str) {
    match kind {
        "USER_LOGIN" => ("audit.login", "login", "service"),
        "USER_AUTH" | "USER_ACCT" | "USER_ERR" => ("audit.auth", "authenticate", "service"),
        "CRED_ACQ" | "CRED_REFR" => ("audit.credential", "credential.acquire", "service"),
        "CRED_DISP" => ("audit.credential", "credential.release", "service"),
        "USER_START" => ("audit.session", "session.open", "service"),
        "USER_END" => ("audit.session", "session.close", "service"),
        "USER_LOGOUT" => ("audit.login", "logout", "service"),
        "LOGIN" => ("audit.session", "session.login_id", "account"),
        "USER_CMD" => ("audit.command", "sudo.run", "program"),
        "USER_CHAUTHTOK" => ("audit.account", "password.change", "account"),
        "ADD_USER" => ("audit.account", "account.create", "account"),
        "DEL_USER" => ("audit.account", "account.delete", "account"),
        "USER_MGMT" => ("audit.account", "account.update", "account"),
        "ACCT_LOCK" => ("audit.account", "account.lock", "account"),
        "ACCT_UNLOCK" => ("audit.account", "account.unlock", "account"),
        "ADD_GROUP" => ("audit.account", "group.create", "group"),
        "DEL_GROUP" => ("audit.account", "group.delete", "group"),
        "GRP_MGMT" => ("audit.account", "group.update", "group"),
        "EXECVE" => ("audit.exec", "process.run", "program"),
        "SYSCALL" | "PATH" => ("audit.file", "file.access", "file"),
        "CONFIG_CHANGE" if operation.contains("remove") => ("audit.config", "audit_rule.delete", "audit"),
        "CONFIG_CHANGE" if operation.contains("add") => ("audit.config", "audit_rule.create", "audit"),
        "CONFIG_CHANGE" => ("audit.config", "audit.update", "audit"),
        "DAEMON_START" => ("audit.daemon", "logging.start", "service"),
        "DAEMON_END" | "DAEMON_ABORT" => ("audit.daemon", "logging.stop", "service"),
        "SERVICE_START" => ("audit.service", "service.start", "unit"),
        "SERVICE_STOP" => ("audit.service", "service.stop", "unit"),
        "SYSTEM_BOOT" => ("audit.host", "host.start", "host"),
        "SYSTEM_SHUTDOWN" => ("audit.host", "host.stop", "host"),
        "AVC" | "USER_AVC" | "SELINUX_ERR" => ("audit.avc", "access.check", "program"),
        _ if kind.starts_with("ANOM_") => ("audit.anomaly", "", "program"),
        _ => ("audit.event", "", "program"),
    }
}

#[cfg(test)]
mod tests;
