//! cron and crontab: `(root) CMD (/usr/sbin/logrotate /etc/logrotate.conf)`

use sigillo_proto::v1::Outcome;

use crate::profile::facts::Facts;

/// One message.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    let (name, rest) = text.strip_prefix('(')?.split_once(") ")?;
    let (verb, rest) = rest.split_once(" (")?;
    let subject = rest.strip_suffix(')').unwrap_or(rest);
    let run = |outcome| Facts::new("cron.run", "cron.run", outcome).by_account(name).with("command", subject);
    let table = |action| Facts::new("cron.table", action, Outcome::Success).on("crontab", subject).by_account(name);
    Some(match verb {
        "CMD" => run(Outcome::Started),
        "CMDEND" => run(Outcome::Success),
        "REPLACE" | "END EDIT" => table("crontab.update"),
        "BEGIN EDIT" => table("crontab.edit"),
        "DELETE" => table("crontab.delete"),
        "LIST" => table("crontab.read"),
        "RELOAD" => table("crontab.load"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::profile::testing::{Expected, check};

    use super::read;

    #[test]
    fn lines_mean_what_they_say() {
        let table = |action| Expected::new("cron.table", action, "success").target("crontab", "bob").actor("alice");
        check(
            read,
            [
                (
                    "(root) CMD (  cd / && run-parts --report /etc/cron.hourly)",
                    Expected::new("cron.run", "cron.run", "started")
                        .actor("root")
                        .with("command", "  cd / && run-parts --report /etc/cron.hourly"),
                ),
                ("(alice) REPLACE (bob)", table("crontab.update")),
                ("(alice) LIST (bob)", table("crontab.read")),
            ],
        );
        for text in ["", "(root)", "(root) CMD", "(CRON) INFO (No MTA installed, discarding output)"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
