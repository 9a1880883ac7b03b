//! systemd-logind: sessions, and the end of the machine.

use sigillo_proto::v1::Outcome;

use crate::profile::{
    facts::Facts,
    scan::{unquoted, word},
};

/// One message.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if let Some(rest) = text.strip_prefix("New session ") {
        // `New session 3 of user alice` and, since version 255, `New session '3' of user 'alice' with class …`
        let (session, user) = rest.split_once(" of user ")?;
        return Some(of(session, "session.open").by_account(unquoted(word(user).0)));
    }
    if let Some(session) = text.strip_prefix("Removed session ") {
        return Some(of(session, "session.close"));
    }
    if let Some(rest) = text.strip_prefix("Session ") {
        let (session, said) = word(rest);
        return said.starts_with("logged out").then(|| of(session, "logout"));
    }
    let action = match text {
        "System is powering down" | "Powering down" | "System is powering off" => "host.shutdown",
        "System is rebooting" | "Rebooting" => "host.reboot",
        "System is halting" | "Halting" => "host.halt",
        _ => return None,
    };
    Some(Facts::new("logind.host", action, Outcome::Started))
}

fn of<'a>(session: &'a str, action: &'static str) -> Facts<'a> {
    Facts::new("logind.session", action, Outcome::Success).in_session(unquoted(session))
}

#[cfg(test)]
mod tests {
    use crate::profile::testing::{Expected, check};

    use super::read;

    #[test]
    fn lines_mean_what_they_say() {
        let session = |action| Expected::new("logind.session", action, "success").session("c3");
        check(
            read,
            [
                ("New session c3 of user alice.", session("session.open").actor("alice")),
                (
                    "New session 'c3' of user 'alice' with class 'user' and type 'tty'.",
                    session("session.open").actor("alice"),
                ),
                ("Removed session c3.", session("session.close")),
                ("Session c3 logged out. Waiting for processes to exit.", session("logout")),
                ("System is rebooting.", Expected::new("logind.host", "host.reboot", "started")),
            ],
        );
        for text in ["", "New seat seat0.", "Session", "New session 3"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
