//! su, of util-linux, shadow and the BSDs' manner.

use sigillo_proto::v1::Outcome;

use crate::profile::facts::{Facts, severity::WARN};

/// One message. The actor is who was, the target who he became.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    let (failed, rest) = match ["FAILED SU ", "FAILED su ", "- "].iter().find_map(|sign| text.strip_prefix(sign)) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (account, actor, tty) = if let Some(rest) = rest.strip_prefix("(to ") {
        let (account, rest) = rest.split_once(") ")?;
        let (actor, tty) = rest.rsplit_once(" on ")?;
        (account, actor, tty)
    } else if let Some(rest) = rest.strip_prefix("Successful su for ").or_else(|| rest.strip_prefix("for ")) {
        let (account, actor) = rest.rsplit_once(" by ")?;
        (account, actor, "")
    } else {
        // `+ /dev/pts/0 alice:root`, `- pts/0 alice:root`
        let rest = if failed { rest } else { rest.strip_prefix("+ ")? };
        let (tty, who) = rest.split_once(' ')?;
        let (actor, account) = who.split_once(':')?;
        (account, actor, tty)
    };
    let outcome = if failed { Outcome::Failure } else { Outcome::Success };
    let facts = Facts::new("su.run", "su.run", outcome).on("account", account).by_account(actor);
    let facts = facts.with("tty", tty.trim_start_matches("/dev/"));
    Some(if failed { facts.severity(WARN) } else { facts })
}

#[cfg(test)]
mod tests {
    use crate::profile::testing::{Expected, check};

    use super::read;

    #[test]
    fn lines_mean_what_they_say() {
        let su = || Expected::new("su.run", "su.run", "success").target("account", "root").actor("alice");
        let failed =
            || Expected::new("su.run", "su.run", "failure").target("account", "root").actor("alice").severity(13);
        check(
            read,
            [
                ("Successful su for root by alice", su()),
                ("FAILED su for root by alice", failed()),
                ("+ /dev/pts/1 alice:root", su().with("tty", "pts/1")),
                ("- pts/1 alice:root", failed().with("tty", "pts/1")),
                ("(to root) alice on pts/1", su().with("tty", "pts/1")),
                ("FAILED SU (to root) alice on pts/1", failed().with("tty", "pts/1")),
            ],
        );
        for text in ["", "+ ", "(to root)", "Successful su for", "hello world: x"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
