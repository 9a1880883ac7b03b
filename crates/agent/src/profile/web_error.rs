//! Error logs of nginx and Apache.

use std::net::IpAddr;

use sigillo_proto::v1::{ActorKind, Outcome};

use crate::{
    profile::{
        access::request_line,
        facts::{
            Facts,
            severity::{ERROR, FATAL, INFO, WARN},
        },
        scan::{between, word},
    },
    when::{self, Clock},
};

/// `2026/11/23 12:00:00 [error] 12#34: *5 MESSAGE, client: A, server: S, request: "R", host: "H", referrer: "…"`
pub(super) fn nginx<'a>(text: &'a str, clock: Clock<'_>) -> Option<Facts<'a>> {
    // A line that came by syslog has its time in the header.
    let (time, rest) = match text.split_once(" [") {
        Some((stamp, rest)) if stamp.len() == 19 => (clock.local(when::civil(stamp.as_bytes())?), rest),
        _ => (0, text.strip_prefix('[')?),
    };
    let (level, rest) = rest.split_once("] ")?;
    let severity = number(level)?;
    let (_process, message) = rest.split_once(": ")?;
    let Some((said, client, rest)) = client(message) else {
        return Some(failure("nginx.error", level, severity, message).at(time));
    };
    let request = between(rest, ", request: \"", "\"").unwrap_or_default();
    let (method, path) = request_line(request);
    let vhost = between(rest, ", host: \"", "\"").unwrap_or_else(|| rest.split(", ").next().unwrap_or_default());
    let facts = failure("nginx.error", level, severity, said).on("url", path).from(client).at(time);
    Some(facts.with("method", method).with("vhost", vhost))
}

/// What is said, the client and what follows `, server: `. The client has chosen texts before and behind its address: where they
/// read like another one, nothing is taken.
fn client(message: &str) -> Option<(&str, &str, &str)> {
    let mut places = message.match_indices(", client: ").filter_map(|(place, key)| {
        let (client, rest) = message.get(place + key.len()..)?.split_once(", ")?;
        let rest = rest.strip_prefix("server: ")?;
        let server = rest.split_once(", ").map_or(rest, |(server, _)| server);
        let after = rest.get(server.len()..)?;
        let follows = [", request: \"", ", upstream: \"", ", host: \""].iter().any(|next| after.starts_with(next));
        let is_address = client.parse::<IpAddr>().is_ok() || client.starts_with("unix:");
        let is_whole = is_address && !server.contains([' ', '"']) && (after.is_empty() || follows);
        is_whole.then_some((message.get(..place)?, client, rest))
    });
    let first = places.next()?;
    places.all(|(_, client, _)| client == first.1).then_some(first)
}

/// `[Mon Nov 23 12:00:00.123456 2026] [core:error] [pid 1:tid 2] [client 192.0.2.7:5555] MESSAGE, referer: …`
pub(super) fn apache<'a>(text: &'a str, clock: Clock<'_>) -> Option<Facts<'a>> {
    let (stamp, rest) = text.strip_prefix('[')?.split_once("] [")?;
    let (level, mut rest) = rest.split_once("] ")?;
    let level = level.rsplit(':').next().unwrap_or(level);
    let severity = number(level)?;
    let mut client = "";
    while let Some((group, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        match group.strip_prefix("client ").or_else(|| group.strip_prefix("remote ")) {
            Some(address) => client = address,
            None if group.starts_with("pid ") => {}
            None => break,
        }
        rest = after;
    }
    let said = rest.rsplit_once(", referer: ").map_or(rest, |(said, _)| said);
    let facts = failure("apache.error", level, severity, said).at(ctime(stamp, clock));
    if client.is_empty() {
        return Some(facts);
    }
    Some(facts.from(without_port(client)))
}

fn failure<'a>(event_name: &'static str, level: &'a str, severity: u32, said: &'a str) -> Facts<'a> {
    let denied = ["access forbidden by rule", "client denied by", "limiting requests", "limiting connections"];
    let (action, outcome) = if login(said).is_some() {
        ("login", Outcome::Failure)
    } else if denied.iter().any(|words| said.contains(words)) {
        ("http.request", Outcome::Denied)
    } else if severity >= ERROR {
        ("http.request", Outcome::Failure)
    } else {
        ("http.note", Outcome::Unspecified)
    };
    let facts = Facts::new(event_name, action, outcome).severity(severity);
    let facts = facts.by(login(said).unwrap_or_default(), ActorKind::Unspecified).with("reason", said);
    Facts { severity_text: level.into(), ..facts }
}

/// Who failed to log in: `user "bob": password mismatch`, `AH01617: user bob: authentication failure for "/x": Password Mismatch`
fn login(said: &str) -> Option<&str> {
    if let Some((_, rest)) = said.split_once("user \"") {
        let (name, rest) = rest.split_once('"')?;
        return (rest.starts_with(": password mismatch") || rest.starts_with(" was not found in")).then_some(name);
    }
    let rest = said.strip_prefix("AH01617: user ").or_else(|| said.strip_prefix("AH01618: user "))?;
    rest.rsplit_once(": authentication failure").or_else(|| rest.rsplit_once(" not found: ")).map(|(name, _)| name)
}

/// `Mon Nov 23 12:00:00.123456 2026`
fn ctime(text: &str, clock: Clock<'_>) -> u64 {
    let parse = || {
        let (_weekday, rest) = word(text);
        let (month, rest) = word(rest);
        let (day, rest) = word(rest.trim_ascii_start());
        let (time, year) = rest.rsplit_once(' ')?;
        let (hour, minute, second) = when::time_of_day(time.as_bytes().get(..8)?)?;
        let micros: i32 = time.get(9..).unwrap_or("0").parse().ok().filter(|micros| (0..1_000_000).contains(micros))?;
        let date =
            jiff::civil::Date::new(year.parse().ok()?, when::month(month.as_bytes())?, day.parse().ok()?).ok()?;
        Some(clock.local(date.at(hour, minute, second, micros * 1_000)))
    };
    parse().unwrap_or_default()
}

/// `192.0.2.7:5555` and `2001:db8::7:5555`, as Apache writes them.
fn without_port(client: &str) -> &str {
    match client.rsplit_once(':') {
        Some((address, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            if address.parse::<std::net::IpAddr>().is_ok() { address } else { client }
        }
        _ => client,
    }
}

fn number(level: &str) -> Option<u32> {
    Some(match level {
        "emerg" => FATAL,
        "alert" => 19,
        "crit" => 18,
        "error" => ERROR,
        "warn" => WARN,
        "notice" => 10,
        "info" => INFO,
        "debug" => 5,
        _ if level.starts_with("trace") => 1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::profile::testing::{Expected, check};

    const TIME: u64 = 1_795_435_200_000_000_000;

    fn clock() -> Clock<'static> {
        static ZONE: TimeZone = TimeZone::UTC;
        Clock { observed: TIME, zone: &ZONE }
    }

    #[test]
    fn nginx_lines_mean_what_they_say() {
        let error = |action, outcome| {
            let expected = Expected::new("nginx.error", action, outcome).target("url", "/x").client("192.0.2.7");
            expected.time(TIME).severity(17)
        };
        check(
            |text| nginx(text, clock()),
            [
                (
                    r#"2026/11/23 12:00:00 [error] 12#34: *5 open() "/srv/x" failed (2: No such file or directory), client: 192.0.2.7, server: example.com, request: "GET /x?y HTTP/1.1", host: "www.example.com", referrer: "http://a/""#,
                    error("http.request", "failure")
                        .with("reason", r#"*5 open() "/srv/x" failed (2: No such file or directory)"#)
                        .with("method", "GET")
                        .with("vhost", "www.example.com"),
                ),
                // A path that pretends to be another client.
                (
                    r#"2026/11/23 12:00:00 [error] 12#34: *5 open() "/, client: 198.51.100.1, server: x" failed, client: 192.0.2.7, server: example.com, request: "GET /x HTTP/1.1", host: "example.com""#,
                    error("http.request", "failure")
                        .with("reason", r#"*5 open() "/, client: 198.51.100.1, server: x" failed"#)
                        .with("method", "GET")
                        .with("vhost", "example.com"),
                ),
                // A page that sent the client and pretends the same.
                (
                    r#"2026/11/23 12:00:00 [error] 12#34: *5 open() "/x" failed, client: 192.0.2.7, server: example.com, request: "GET /x HTTP/1.1", host: "example.com", referrer: "http://a/, client: 198.51.100.1, server: x""#,
                    error("http.request", "failure")
                        .with("reason", r#"*5 open() "/x" failed"#)
                        .with("method", "GET")
                        .with("vhost", "example.com"),
                ),
                // Nothing tells which of the two is the server's word.
                (
                    r#"2026/11/23 12:00:00 [error] 12#34: open() "/x" failed, client: 192.0.2.7, server: a, request: "GET /x HTTP/1.1", client: 198.51.100.1, server: a, request: "GET /x HTTP/1.1""#,
                    error("http.request", "failure").client("").target("", "").with(
                        "reason",
                        r#"open() "/x" failed, client: 192.0.2.7, server: a, request: "GET /x HTTP/1.1", client: 198.51.100.1, server: a, request: "GET /x HTTP/1.1""#,
                    ),
                ),
                (
                    "2026/11/23 12:00:00 [error] 12#34: *5 SSL_do_handshake() failed while SSL handshaking, client: 192.0.2.7, server: 0.0.0.0:443",
                    error("http.request", "failure")
                        .target("url", "")
                        .with("reason", "*5 SSL_do_handshake() failed while SSL handshaking")
                        .with("vhost", "0.0.0.0:443"),
                ),
                (
                    r#"2026/11/23 12:00:00 [error] 12#34: *5 user "bob": password mismatch, client: 192.0.2.7, server: _, request: "GET /x HTTP/1.1""#,
                    error("login", "failure")
                        .actor_of("bob", ActorKind::Unspecified)
                        .with("reason", r#"*5 user "bob": password mismatch"#)
                        .with("method", "GET")
                        .with("vhost", "_"),
                ),
                (
                    r#"2026/11/23 12:00:00 [error] 12#34: *5 access forbidden by rule, client: 192.0.2.7, server: _, request: "GET /x HTTP/1.1""#,
                    error("http.request", "denied")
                        .with("reason", "*5 access forbidden by rule")
                        .with("method", "GET")
                        .with("vhost", "_"),
                ),
                (
                    "2026/11/23 12:00:00 [notice] 12#34: signal process started",
                    Expected::new("nginx.error", "http.note", "")
                        .time(TIME)
                        .severity(10)
                        .with("reason", "signal process started"),
                ),
            ],
        );
    }

    #[test]
    fn apache_lines_mean_what_they_say() {
        let error = |action, outcome| {
            Expected::new("apache.error", action, outcome).client("192.0.2.7").time(TIME).severity(17)
        };
        check(
            |text| apache(text, clock()),
            [
                (
                    "[Mon Nov 23 12:00:00.000000 2026] [core:error] [pid 1:tid 2] [client 192.0.2.7:5555] AH00037: Symbolic link not allowed, referer: http://a/",
                    error("http.request", "failure").with("reason", "AH00037: Symbolic link not allowed"),
                ),
                (
                    "[Mon Nov 23 12:00:00 2026] [error] [client 192.0.2.7] client denied by server configuration: /srv",
                    error("http.request", "denied").with("reason", "client denied by server configuration: /srv"),
                ),
                (
                    "[Mon Nov 23 12:00:00.000000 2026] [auth_basic:error] [pid 1] [client 192.0.2.7:5] AH01617: user bob: authentication failure for \"/x\": Password Mismatch",
                    error("login", "failure")
                        .actor_of("bob", ActorKind::Unspecified)
                        .with("reason", "AH01617: user bob: authentication failure for \"/x\": Password Mismatch"),
                ),
                (
                    "[Mon Nov 23 12:00:00.500000 2026] [mpm_event:notice] [pid 1:tid 2] AH00489: Apache/2.4.62 configured",
                    Expected::new("apache.error", "http.note", "")
                        .time(TIME + 500_000_000)
                        .severity(10)
                        .with("reason", "AH00489: Apache/2.4.62 configured"),
                ),
            ],
        );
    }

    #[test]
    fn other_words_stay_words() {
        for text in ["", "[", "[x] [y] z", "2026/11/23 12:00:00 error", "2026/11/23 12:00:00 [sad] 1#1: x", "[error] x"]
        {
            assert_eq!((nginx(text, clock()), apache(text, clock())), (None, None), "{text:?}");
        }
    }
}
