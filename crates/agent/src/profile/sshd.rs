//! OpenSSH's server.

use sigillo_proto::v1::Outcome;

use crate::profile::{
    facts::{Facts, severity::WARN},
    scan::{between, count, unquoted, word},
};

/// One message.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    let (text, preauth) = match text.strip_suffix(" [preauth]") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let text = ["error: ", "fatal: "].iter().find_map(|level| text.strip_prefix(level)).unwrap_or(text);
    let (verb, rest) = word(text);
    let facts = match verb {
        "Accepted" | "Failed" | "Postponed" => login(verb, rest),
        "Invalid" | "Illegal" => Some(invalid_user(rest.strip_prefix("user ")?)),
        "input_userauth_request:" => Some(invalid_user(rest.strip_prefix("invalid user ")?)),
        "User" => not_allowed(rest),
        "maximum" => too_many(rest.strip_prefix("authentication attempts exceeded for ")?),
        "Disconnecting:" => Some(disconnect("", rest)),
        "Disconnecting" | "Disconnected" | "Received" | "Connection" | "Timeout," => ended(text),
        "Starting" => session(rest, "session.open"),
        "Close" => session(rest, "session.close"),
        "subsystem" => subsystem(rest),
        "Server" => Some(service("service.start", Outcome::Started)).filter(|_| rest.starts_with("listening on ")),
        "Unable" => refused(rest.strip_prefix("to negotiate with ")?, text),
        "Did" => refused(rest.strip_prefix("not receive identification string from ")?, text),
        "banner" => refused(between_last(rest, "from ")?, text),
        "Bad" | "Protocol" => refused(between_last(rest, " from ")?, text),
        "reverse" | "Address" => mismatch(text),
        "PAM:" => denied_by_pam(rest),
        _ => None,
    }?;
    Some(if preauth { facts.with("phase", "preauth") } else { facts })
}

/// `METHOD for [invalid user ]NAME from ADDRESS port N ssh2[: KEY]`
fn login<'a>(verb: &str, rest: &'a str) -> Option<Facts<'a>> {
    let (method, rest) = rest.split_once(" for ")?;
    let accepted = verb == "Accepted";
    // Whom the server accepted has a name that it knows. Anybody else may call himself `x from 192.0.2.1 port 1`.
    let Peer { name, address, port, rest } = peer(rest, !accepted)?;
    let (name, invalid) = match name.strip_prefix("invalid user ") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let outcome = match verb {
        "Accepted" => Outcome::Success,
        "Failed" => Outcome::Failure,
        _ => Outcome::Started,
    };
    let facts = Facts::new("sshd.login", "login", outcome)
        .on("service", "ssh")
        .by_account(name)
        .from(address)
        .with("method", method)
        .with_number("port", port)
        .with("key", rest.split_once(": ").map_or("", |(_, key)| key))
        .with("reason", if invalid { "invalid user" } else { "" });
    Some(if outcome == Outcome::Failure { facts.severity(WARN) } else { facts })
}

/// `NAME[ from ADDRESS[ port N]]`
fn invalid_user(rest: &str) -> Facts<'_> {
    let Peer { name, address, port, .. } = peer(rest, true).unwrap_or(Peer { name: rest, ..Peer::default() });
    failure(name, address, port).with("reason", "invalid user")
}

/// `NAME from ADDRESS not allowed because …`
fn not_allowed(rest: &str) -> Option<Facts<'_>> {
    let (who, reason) = rest.rsplit_once(" not allowed because ")?;
    let (name, address) = who.rsplit_once(" from ").unwrap_or((who, ""));
    let facts = Facts { outcome: Outcome::Denied, ..failure(name, address, None) };
    Some(facts.with("reason", reason))
}

/// `[invalid user ]NAME from ADDRESS port N ssh2`
fn too_many(rest: &str) -> Option<Facts<'_>> {
    let Peer { name, address, port, .. } = peer(rest, true)?;
    let name = name.strip_prefix("invalid user ").unwrap_or(name);
    Some(failure(name, address, port).with("reason", "maximum authentication attempts exceeded"))
}

/// `Authentication failure for [illegal user ]NAME from ADDRESS`
fn denied_by_pam(rest: &str) -> Option<Facts<'_>> {
    let (reason, who) = rest.split_once(" for ")?;
    let (name, address) = who.rsplit_once(" from ")?;
    Some(failure(name.strip_prefix("illegal user ").unwrap_or(name), address, None).with("reason", reason))
}

fn failure<'a>(name: &'a str, address: &'a str, port: Option<i64>) -> Facts<'a> {
    let facts =
        Facts::new("sshd.login", "login", Outcome::Failure).on("service", "ssh").by_account(name).severity(WARN);
    let facts = if address.is_empty() { facts } else { facts.from(address) };
    facts.with_number("port", port)
}

/// All that ends a connection, or begins one: `WORDS[ by|from] [authenticating user|invalid user|user NAME ]ADDRESS port N[: WHY]`
fn ended(text: &str) -> Option<Facts<'_>> {
    let openings = [
        "Disconnected from ",
        "Disconnecting ",
        "Received disconnect from ",
        "Connection closed by ",
        "Connection reset by ",
        "Connection from ",
        "Timeout, client not responding from ",
    ];
    let begin = openings.iter().find(|opening| text.starts_with(**opening));
    let Some(opening) = begin else {
        let stops = text.starts_with("Received signal ");
        return stops.then(|| service("service.stop", Outcome::Success).with("reason", text));
    };
    if text.contains("Change of username or service not allowed") {
        // Two names that the client chose, around and before the address: nothing tells which address is the server's word.
        return Some(disconnect("", text));
    }
    let (said, rest) = text.split_at_checked(opening.len())?;
    let said = said.trim_ascii_end();
    let (who, named) = ["authenticating user ", "invalid user ", "user "]
        .iter()
        .find_map(|kind| rest.strip_prefix(kind))
        .map_or((rest, false), |who| (who, true));
    let (name, place) = if named { named_place(who)? } else { ("", who) };
    let (address, port, why) = place_of(place);
    if address.parse::<std::net::IpAddr>().is_err() && address != "UNKNOWN" {
        return None;
    }
    let facts = if said == "Connection from" {
        Facts::new("sshd.connect", "connect", Outcome::Unspecified).on("service", "ssh")
    } else {
        disconnect(name, if why.is_empty() { said } else { why })
    };
    Some(facts.from(address).with_number("port", port))
}

/// `NAME ADDRESS port N[: WHY]`, the name being whatever it is: the last ` port ` before the reason tells.
fn named_place(who: &str) -> Option<(&str, &str)> {
    let at = who.rfind(" port ").or(Some(who.len()))?;
    let name_end = who.get(..at)?.rfind(' ')?;
    Some((who.get(..name_end)?, who.get(name_end + 1..)?))
}

/// `ADDRESS[ port N][:WHY]`
fn place_of(place: &str) -> (&str, Option<i64>, &str) {
    let (address, rest) = word(place);
    let Some(rest) = rest.strip_prefix("port ") else {
        return match address.strip_suffix(':') {
            Some(address) => (address, None, rest),
            None => (address, None, ""),
        };
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (port, why) = rest.split_at_checked(digits).unwrap_or((rest, ""));
    (address, count(port), why.trim_start_matches(':').trim_ascii())
}

fn disconnect<'a>(name: &'a str, why: &'a str) -> Facts<'a> {
    Facts::new("sshd.disconnect", "disconnect", Outcome::Unspecified)
        .on("service", "ssh")
        .by_account(name)
        .with("reason", why)
}

/// `session: shell on pts/0 for NAME from ADDRESS port N id 0` and `session: user NAME from ADDRESS port N id 0`
fn session<'a>(rest: &'a str, action: &'static str) -> Option<Facts<'a>> {
    let rest = rest.strip_prefix("session: ")?;
    let (what, who) = match rest.strip_prefix("user ") {
        Some(who) => ("", who),
        None => rest.rsplit_once(" for ")?,
    };
    let Peer { name, address, port, rest } = peer(who, true)?;
    let facts = Facts::new("sshd.session", action, Outcome::Success)
        .on("service", "ssh")
        .by_account(name)
        .from(address)
        .with("what", what)
        .with_number("port", port);
    Some(facts.in_session(rest.strip_prefix("id ").unwrap_or_default()))
}

/// `request for sftp by user NAME`
fn subsystem(rest: &str) -> Option<Facts<'_>> {
    let (name, who) = rest.strip_prefix("request for ")?.split_once(" by user ")?;
    Some(
        Facts::new("sshd.subsystem", "subsystem.start", Outcome::Started).on("subsystem", name).by_account(word(who).0),
    )
}

fn service(action: &'static str, outcome: Outcome) -> Facts<'static> {
    Facts::new("sshd.service", action, outcome).on("service", "ssh")
}

/// Who was turned away before any name was given.
fn refused<'a>(place: &'a str, text: &'a str) -> Option<Facts<'a>> {
    let (address, port, _) = place_of(place);
    address.parse::<std::net::IpAddr>().ok()?;
    let facts = Facts::new("sshd.connect", "connect", Outcome::Failure).on("service", "ssh").from(address);
    Some(facts.with_number("port", port).with("reason", text))
}

/// `reverse mapping checking getaddrinfo for NAME [ADDRESS] failed …` and `Address A maps to NAME, but this does not map back …`
fn mismatch(text: &str) -> Option<Facts<'_>> {
    let (host, address) = match text.strip_prefix("Address ") {
        Some(rest) => (between(rest, " maps to ", ",")?, word(rest).0),
        None => (word(text.split_once(" for ")?.1).0, between(text, "[", "]")?),
    };
    address.parse::<std::net::IpAddr>().ok()?;
    let facts = Facts::new("sshd.connect", "connect", Outcome::Unspecified).on("service", "ssh").from(address);
    Some(facts.with("client_host", host).with("reason", "address and name do not map to each other"))
}

fn between_last<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.rsplit_once(start).map(|(_, rest)| rest)
}

#[derive(Debug, Default)]
struct Peer<'a> {
    name: &'a str,
    address: &'a str,
    port: Option<i64>,
    /// What follows the port and the protocol's name.
    rest: &'a str,
}

/// `NAME from ADDRESS[ port N …]`: the last, or the first, place that reads so.
fn peer(text: &str, last: bool) -> Option<Peer<'_>> {
    let at = |(place, from): (usize, &str)| {
        let rest = text.get(place + from.len()..)?;
        let (address, tail) = word(rest);
        address.parse::<std::net::IpAddr>().ok().filter(|_| tail.is_empty() || tail.starts_with("port "))?;
        let (port, rest) = word(tail.strip_prefix("port ").unwrap_or_default());
        Some(Peer { name: unquoted(text.get(..place)?), address, port: count(port), rest })
    };
    if last { text.rmatch_indices(" from ").find_map(at) } else { text.match_indices(" from ").find_map(at) }
}

#[cfg(test)]
mod tests {
    use crate::profile::testing::{Expected, check};

    use super::read;

    fn login(outcome: &'static str, actor: &'static str, address: &'static str) -> Expected {
        Expected::new("sshd.login", "login", outcome).target("service", "ssh").actor(actor).client(address)
    }

    fn gone(actor: &'static str, reason: &'static str) -> Expected {
        let expected = Expected::new("sshd.disconnect", "disconnect", "").target("service", "ssh").actor(actor);
        expected.client("192.0.2.7").with("port", "4022").with("reason", reason)
    }

    fn met(outcome: &'static str) -> Expected {
        Expected::new("sshd.connect", "connect", outcome).target("service", "ssh").client("192.0.2.7")
    }

    #[test]
    fn lines_mean_what_they_say() {
        let fail = |actor| login("failure", actor, "192.0.2.7").severity(13);
        check(
            read,
            [
                (
                    "Accepted publickey for alice from 192.0.2.7 port 4022 ssh2: ED25519 SHA256:abc",
                    login("success", "alice", "192.0.2.7")
                        .with("method", "publickey")
                        .with("port", "4022")
                        .with("key", "ED25519 SHA256:abc"),
                ),
                (
                    "Accepted password for bob from 2001:db8::7 port 4022 ssh2",
                    login("success", "bob", "2001:db8::7").with("method", "password").with("port", "4022"),
                ),
                (
                    "Failed password for invalid user admin from 192.0.2.7 port 4022 ssh2",
                    fail("admin").with("method", "password").with("port", "4022").with("reason", "invalid user"),
                ),
                (
                    "Failed password for invalid user  from 192.0.2.7 port 4022 ssh2",
                    fail("").with("method", "password").with("port", "4022").with("reason", "invalid user"),
                ),
                // A name that pretends to be an address.
                (
                    "Failed none for invalid user x from 198.51.100.9 port 1 ssh2 from 192.0.2.7 port 4022 ssh2",
                    fail("x from 198.51.100.9 port 1 ssh2")
                        .with("method", "none")
                        .with("port", "4022")
                        .with("reason", "invalid user"),
                ),
                (
                    "Postponed publickey for git from 192.0.2.7 port 4022 ssh2 [preauth]",
                    login("started", "git", "192.0.2.7")
                        .with("method", "publickey")
                        .with("port", "4022")
                        .with("phase", "preauth"),
                ),
                ("Invalid user support from 192.0.2.7", fail("support").with("reason", "invalid user")),
                (
                    "Invalid user a b from 192.0.2.7 port 4022",
                    fail("a b").with("port", "4022").with("reason", "invalid user"),
                ),
                (
                    "input_userauth_request: invalid user support [preauth]",
                    Expected::new("sshd.login", "login", "failure")
                        .target("service", "ssh")
                        .actor("support")
                        .severity(13)
                        .with("reason", "invalid user")
                        .with("phase", "preauth"),
                ),
                (
                    "User root from 192.0.2.7 not allowed because not listed in AllowUsers",
                    login("denied", "root", "192.0.2.7").severity(13).with("reason", "not listed in AllowUsers"),
                ),
                (
                    "error: maximum authentication attempts exceeded for invalid user pi from 192.0.2.7 port 4022 ssh2 [preauth]",
                    fail("pi")
                        .with("port", "4022")
                        .with("reason", "maximum authentication attempts exceeded")
                        .with("phase", "preauth"),
                ),
                (
                    "error: PAM: Authentication failure for illegal user pi from 192.0.2.7",
                    fail("pi").with("reason", "Authentication failure"),
                ),
            ],
        );
    }

    #[test]
    fn connections_come_and_go() {
        check(
            read,
            [
                (
                    "Received disconnect from 192.0.2.7 port 4022:11: disconnected by user",
                    gone("", "11: disconnected by user").order(&["reason", "port"]),
                ),
                ("Disconnected from 192.0.2.7 port 4022", gone("", "Disconnected from").order(&["reason", "port"])),
                (
                    "Disconnected from user alice 192.0.2.7 port 4022",
                    gone("alice", "Disconnected from").order(&["reason", "port"]),
                ),
                (
                    "Connection closed by authenticating user root 192.0.2.7 port 4022 [preauth]",
                    gone("root", "Connection closed by").order(&["reason", "port"]).with("phase", "preauth"),
                ),
                (
                    "Disconnecting authenticating user root 192.0.2.7 port 4022: Too many authentication failures [preauth]",
                    gone("root", "Too many authentication failures")
                        .order(&["reason", "port"])
                        .with("phase", "preauth"),
                ),
                (
                    "Disconnecting invalid user a 192.0.2.7 port 4022: Change of username or service not allowed: (a,x) -> (b 198.51.100.1 port 1,x) [preauth]",
                    Expected::new("sshd.disconnect", "disconnect", "")
                        .target("service", "ssh")
                        .with("reason", "Disconnecting invalid user a 192.0.2.7 port 4022: Change of username or service not allowed: (a,x) -> (b 198.51.100.1 port 1,x)")
                        .with("phase", "preauth"),
                ),
                ("Connection from 192.0.2.7 port 4022 on 192.0.2.1 port 22 rdomain \"\"", met("").with("port", "4022")),
                (
                    "Did not receive identification string from 192.0.2.7 port 4022",
                    met("failure")
                        .with("port", "4022")
                        .with("reason", "Did not receive identification string from 192.0.2.7 port 4022"),
                ),
                (
                    "fatal: Unable to negotiate with 192.0.2.7 port 4022: no matching key exchange method found. [preauth]",
                    met("failure")
                        .with("port", "4022")
                        .with(
                            "reason",
                            "Unable to negotiate with 192.0.2.7 port 4022: no matching key exchange method found.",
                        )
                        .with("phase", "preauth"),
                ),
                (
                    "reverse mapping checking getaddrinfo for host.example.net [192.0.2.7] failed - POSSIBLE BREAK-IN ATTEMPT!",
                    met("")
                        .with("client_host", "host.example.net")
                        .with("reason", "address and name do not map to each other"),
                ),
                (
                    "Starting session: shell on pts/0 for alice from 192.0.2.7 port 4022 id 0",
                    Expected::new("sshd.session", "session.open", "success")
                        .target("service", "ssh")
                        .actor("alice")
                        .client("192.0.2.7")
                        .session("0")
                        .with("what", "shell on pts/0")
                        .with("port", "4022"),
                ),
                (
                    "Received signal 15; terminating.",
                    Expected::new("sshd.service", "service.stop", "success")
                        .target("service", "ssh")
                        .with("reason", "Received signal 15; terminating."),
                ),
                (
                    "Server listening on 0.0.0.0 port 22.",
                    Expected::new("sshd.service", "service.start", "started").target("service", "ssh"),
                ),
            ],
        );
    }

    #[test]
    fn other_words_stay_words() {
        for text in
            ["", "Accepted", "Failed password for", "Connection to 192.0.2.7", "User", "Invalid request", "Bad x"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
