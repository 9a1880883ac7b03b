//! Lines of PAM modules, whatever program they run in: `pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)`.

use sigillo_proto::v1::Outcome;

use crate::profile::{
    facts::{Facts, severity::WARN},
    scan::{between, count, unquoted, word},
};

/// One message.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    if let Some(rest) = text.strip_prefix("PAM ") {
        return summary(rest);
    }
    let (module, rest) = text.split_once('(')?;
    let (service, said) = rest.split_once("): ")?;
    let known = module.starts_with("pam_") && module.len() <= 64 && !module.contains(' ');
    let (service, kind) = service.split_once(':').filter(|_| known)?;
    let facts = match kind {
        "session" => session(said)?,
        "auth" => auth(said)?,
        "chauthtok" => password(said)?,
        "account" => account(said)?,
        _ => return None,
    };
    Some(facts.with("module", module).with("service", service))
}

/// `session opened for user NAME[(uid=N)] by [NAME](uid=N)`
fn session(said: &str) -> Option<Facts<'_>> {
    let (action, rest) = match said.strip_prefix("session opened for user ") {
        Some(rest) => ("session.open", rest),
        None => ("session.close", said.strip_prefix("session closed for user ")?),
    };
    let (user, by) = rest.rsplit_once(" by ").unwrap_or((rest, ""));
    let (user, by) = (bare(user), bare(by));
    let facts = Facts::new("pam.session", action, Outcome::Success).on("account", user);
    Some(facts.by_account(if by.is_empty() { user } else { by }))
}

fn auth(said: &str) -> Option<Facts<'_>> {
    if let Some(rest) = said.strip_prefix("authentication failure;") {
        return Some(peer(failure("authentication failure"), rest));
    }
    if let Some(rest) = said.strip_prefix("authentication success;") {
        return Some(peer(Facts::new("pam.auth", "login", Outcome::Success), rest));
    }
    if said.starts_with("check pass; user unknown") {
        return Some(failure("user unknown"));
    }
    if let Some(rest) = said.strip_prefix("Consecutive login failures for user ") {
        let name = word(rest).0;
        let facts = Facts { outcome: Outcome::Denied, ..failure("account locked after consecutive failures") };
        return Some(facts.by_account(name));
    }
    let name = said.strip_prefix("could not identify user (from getpwnam(").and_then(|rest| rest.split_once(')'));
    name.map(|(name, _)| failure("user unknown").by_account(name))
}

fn password(said: &str) -> Option<Facts<'_>> {
    if let Some(name) = said.strip_prefix("password changed for ") {
        return Some(Facts::new("pam.password", "password.change", Outcome::Success).on("account", name));
    }
    let failed = |reason, name| {
        let facts = Facts::new("pam.password", "password.change", Outcome::Failure).on("account", name);
        facts.severity(WARN).with("reason", reason)
    };
    if let Some(rest) = said.strip_prefix("user ") {
        let (name, _) = rest.rsplit_once(" does not exist in ")?;
        return Some(failed("user unknown", unquoted(name)));
    }
    let rest = said.strip_prefix("authentication failure;")?;
    Some(peer(failed("authentication failure", ""), rest))
}

/// `account NAME has expired (…)`, `expired password for user NAME (…)`
fn account(said: &str) -> Option<Facts<'_>> {
    let (name, reason) = match said.strip_prefix("account ") {
        Some(rest) => (rest.rsplit_once(" has expired")?.0, "account expired"),
        None => (said.strip_prefix("expired password for user ")?.rsplit_once(" (")?.0, "password expired"),
    };
    Some(Facts { outcome: Outcome::Denied, ..failure(reason) }.by_account(name))
}

/// `5 more authentication failures; logname= …`, `1 more authentication failure; …`
fn summary(rest: &str) -> Option<Facts<'_>> {
    let (number, rest) = rest.split_once(" more authentication failure")?;
    let count = count(number)?;
    let rest = rest.trim_start_matches('s').strip_prefix(';')?;
    Some(peer(failure("authentication failure").with_number("count", Some(count)), rest))
}

fn failure(reason: &str) -> Facts<'static> {
    Facts::new("pam.auth", "login", Outcome::Failure).severity(WARN).with("reason", reason)
}

/// ` logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root`: the name stands last, and whoever chose it may have put
/// an address into it.
fn peer<'a>(facts: Facts<'a>, rest: &'a str) -> Facts<'a> {
    let (rest, tail) = rest.split_once(" rhost=").unwrap_or((rest, ""));
    let (host, tail) = word(tail);
    let user = tail.trim_ascii_start().strip_prefix("user=").unwrap_or_default();
    let remote = rest.split_once(" ruser=").map_or("", |(_, name)| name.trim_ascii());
    let facts = facts.by_account(user);
    let facts = if host.is_empty() { facts } else { facts.from(host) };
    let facts = facts.with("remote_user", remote);
    facts.with("tty", between(rest, " tty=", " ").unwrap_or_default())
}

/// Without `(uid=0)`.
fn bare(name: &str) -> &str {
    name.split_once("(uid=").map_or(name, |(name, _)| name).trim_ascii()
}

#[cfg(test)]
mod tests {
    use crate::profile::testing::{Expected, check};

    use super::read;

    #[test]
    fn lines_mean_what_they_say() {
        let session = |action, actor, account| {
            Expected::new("pam.session", action, "success").target("account", account).actor(actor)
        };
        let fail = |reason| Expected::new("pam.auth", "login", "failure").severity(13).with("reason", reason);
        check(
            read,
            [
                (
                    "pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)",
                    session("session.open", "alice", "alice").with("module", "pam_unix").with("service", "sshd"),
                ),
                (
                    "pam_unix(sudo:session): session opened for user root by alice(uid=1000)",
                    session("session.open", "alice", "root").with("module", "pam_unix").with("service", "sudo"),
                ),
                (
                    "pam_unix(cron:session): session closed for user root",
                    session("session.close", "root", "root").with("module", "pam_unix").with("service", "cron"),
                ),
                (
                    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
                    fail("authentication failure")
                        .actor("root")
                        .client("192.0.2.7")
                        .with("tty", "ssh")
                        .with("module", "pam_unix")
                        .with("service", "sshd"),
                ),
                (
                    "pam_unix(su:auth): authentication failure; logname=bob uid=1001 euid=0 tty=pts/0 ruser=bob rhost=  user=root",
                    fail("authentication failure")
                        .actor("root")
                        .with("remote_user", "bob")
                        .with("tty", "pts/0")
                        .with("module", "pam_unix")
                        .with("service", "su"),
                ),
                (
                    "pam_sss(sshd:auth): authentication success; logname= uid=0 euid=0 tty=ssh ruser= rhost=gw.example.net user=eve",
                    Expected::new("pam.auth", "login", "success")
                        .actor("eve")
                        .with("client_host", "gw.example.net")
                        .with("tty", "ssh")
                        .with("module", "pam_sss")
                        .with("service", "sshd"),
                ),
                // A name that pretends to be an address.
                (
                    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=a rhost=198.51.100.1  user=b",
                    fail("authentication failure")
                        .actor("a rhost=198.51.100.1  user=b")
                        .client("192.0.2.7")
                        .with("tty", "ssh")
                        .with("module", "pam_unix")
                        .with("service", "sshd"),
                ),
                (
                    "pam_unix(sshd:auth): check pass; user unknown",
                    fail("user unknown").with("module", "pam_unix").with("service", "sshd"),
                ),
                (
                    "PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
                    fail("authentication failure")
                        .actor("root")
                        .client("192.0.2.7")
                        .with("count", "5")
                        .with("tty", "ssh"),
                ),
                (
                    "pam_faillock(sshd:auth): Consecutive login failures for user eve account temporarily locked",
                    Expected::new("pam.auth", "login", "denied")
                        .actor("eve")
                        .severity(13)
                        .with("reason", "account locked after consecutive failures")
                        .with("module", "pam_faillock")
                        .with("service", "sshd"),
                ),
            ],
        );
    }

    #[test]
    fn passwords_and_accounts_mean_what_they_say() {
        check(
            read,
            [
                (
                    "pam_unix(passwd:chauthtok): password changed for alice",
                    Expected::new("pam.password", "password.change", "success")
                        .target("account", "alice")
                        .with("module", "pam_unix")
                        .with("service", "passwd"),
                ),
                (
                    "pam_unix(chpasswd:chauthtok): user \"x y\" does not exist in /etc/passwd",
                    Expected::new("pam.password", "password.change", "failure")
                        .target("account", "x y")
                        .severity(13)
                        .with("reason", "user unknown")
                        .with("module", "pam_unix")
                        .with("service", "chpasswd"),
                ),
                (
                    "pam_unix(sshd:account): account eve has expired (account expired)",
                    Expected::new("pam.auth", "login", "denied")
                        .actor("eve")
                        .severity(13)
                        .with("reason", "account expired")
                        .with("module", "pam_unix")
                        .with("service", "sshd"),
                ),
            ],
        );
    }

    #[test]
    fn other_words_stay_words() {
        for text in [
            "",
            "pam_unix",
            "pam_unix(x): y",
            "pam_unix(x:session): y",
            "PAM x more",
            "f(a:auth): check pass; user unknown",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
