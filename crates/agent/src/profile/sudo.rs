//! sudo: `alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/id`

use sigillo_proto::v1::Outcome;

use crate::profile::facts::{Facts, severity::WARN};

/// One message. The actor is the person, the target the account that the command runs as.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    let (name, rest) = text.split_once(" : ")?;
    let name = name.trim_ascii();
    if name.is_empty() || name.contains(' ') {
        return None;
    }
    // The command stands last and may hold anything.
    let (head, command) = match rest.split_once("COMMAND=") {
        Some((head, command)) => (head, command),
        None => (rest, ""),
    };
    let mut account = "";
    let mut reason = "";
    let mut facts = Facts::new("sudo.run", "sudo.run", Outcome::Success).by_account(name).with("command", command);
    for part in head.split(" ; ").map(|part| part.trim_ascii().trim_end_matches(" ;")).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("TTY", tty)) => facts.push("tty", tty),
            Some(("PWD", dir)) => facts.push("directory", dir),
            Some(("USER", user)) => account = user,
            Some(("GROUP", group)) => facts.push("group", group),
            Some(("TSID", session)) => facts = facts.in_session(session),
            Some(("ENV" | "HOST" | "CHROOT", _)) => {}
            _ if reason.is_empty() => reason = part,
            _ => {}
        }
    }
    if account.is_empty() && command.is_empty() {
        return None;
    }
    let outcome = outcome(reason);
    let facts = Facts { outcome, ..facts }.on("account", account).with("reason", reason);
    Some(if outcome == Outcome::Success { facts } else { facts.severity(WARN) })
}

fn outcome(reason: &str) -> Outcome {
    match reason {
        "" | "(command continued)" => Outcome::Success,
        _ if reason.contains("incorrect password attempt") => Outcome::Failure,
        // Not allowed, not in sudoers, not on this host, no password given.
        _ => Outcome::Denied,
    }
}

#[cfg(test)]
mod tests {
    use crate::profile::testing::{Expected, check};

    use super::read;

    #[test]
    fn lines_mean_what_they_say() {
        let run = |outcome| Expected::new("sudo.run", "sudo.run", outcome).target("account", "root").actor("alice");
        check(
            read,
            [
                (
                    "   alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/sh -c a ; USER=x ; COMMAND=b",
                    run("success")
                        .with("command", "/bin/sh -c a ; USER=x ; COMMAND=b")
                        .with("tty", "pts/0")
                        .with("directory", "/home/alice"),
                ),
                (
                    "alice : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/id",
                    run("failure")
                        .severity(13)
                        .with("command", "/usr/bin/id")
                        .with("tty", "pts/0")
                        .with("directory", "/home/alice")
                        .with("reason", "3 incorrect password attempts"),
                ),
                (
                    "alice : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/id",
                    run("denied")
                        .severity(13)
                        .with("command", "/usr/bin/id")
                        .with("tty", "pts/0")
                        .with("directory", "/")
                        .with("reason", "user NOT in sudoers"),
                ),
                (
                    "alice : command not allowed ; PWD=/ ; USER=root ; COMMAND=list",
                    run("denied")
                        .severity(13)
                        .with("command", "list")
                        .with("directory", "/")
                        .with("reason", "command not allowed"),
                ),
                (
                    "alice : TTY=pts/1 ; PWD=/ ; USER=root ; GROUP=adm ; TSID=00000A ; COMMAND=/usr/bin/id",
                    run("success")
                        .session("00000A")
                        .with("command", "/usr/bin/id")
                        .with("tty", "pts/1")
                        .with("directory", "/")
                        .with("group", "adm"),
                ),
            ],
        );
    }

    #[test]
    fn other_words_stay_words() {
        for text in ["", "alice : ", "two words : USER=root", "unable to resolve host web-1", " : USER=root"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
