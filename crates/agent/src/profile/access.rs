//! Access logs of nginx, Apache and what writes like them: common and combined, with or without the virtual host before.
//!
//! `[VHOST ]ADDRESS IDENT USER [TIME] "REQUEST" STATUS BYTES[ "REFERER" "USER AGENT"…]`

use sigillo_proto::v1::{ActorKind, Outcome};

use crate::{
    profile::{
        facts::{
            Facts,
            severity::{ERROR, INFO},
        },
        scan::{count, word},
    },
    when,
};

/// One line.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    // The user may have chosen a name with a bracket, but with no quote: servers escape it.
    let (head, rest) = text.split_once("] \"")?;
    let (head, time) = head.rsplit_once(" [")?;
    let time = when::web(time);
    if time == 0 {
        return None;
    }
    let (client, head) = word(head);
    let (vhost, client, head) = match word(head) {
        // The client's address is never followed by another one: the first is what the client called the server.
        (second, head) if is_address(second) => (client, second, head),
        _ => ("", client, head),
    };
    let user = head.split_once(' ').map_or("", |(_ident, user)| user);
    let (request, rest) = quoted(rest)?;
    let (status, rest) = word(rest.strip_prefix(' ')?);
    let status_number = count(status).filter(|status| (100..=999).contains(status))?;
    let (bytes, rest) = word(rest);
    let (outcome, severity) = match status_number {
        401 | 403 => (Outcome::Denied, INFO),
        500.. => (Outcome::Failure, ERROR),
        400.. => (Outcome::Failure, INFO),
        _ => (Outcome::Success, INFO),
    };
    let (method, path) = request_line(request);
    let mut facts = Facts::new("http.request", "http.request", outcome)
        .on("url", path)
        .by(none(user), ActorKind::Unspecified)
        .from(client)
        .at(time)
        .severity(severity)
        .with("method", method)
        .with_number("status", Some(status_number))
        .with_number("bytes", count(bytes));
    if let Some((referer, rest)) = rest.strip_prefix('"').and_then(quoted) {
        facts.push("referer", none(referer));
        if let Some((agent, _)) = rest.strip_prefix(" \"").and_then(quoted) {
            facts.user_agent = none(agent).into();
        }
    }
    facts.push("vhost", vhost);
    Some(facts)
}

/// The text up to the closing quote, which no backslash precedes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let place = from + memchr::memchr2(b'"', b'\\', text.as_bytes().get(from..)?)?;
        if text.as_bytes().get(place) == Some(&b'"') {
            return Some((text.get(..place)?, text.get(place + 1..)?));
        }
        from = place + 2;
    }
}

/// Method and path of `GET /path?query HTTP/1.1`; nothing of what is no request.
pub(super) fn request_line(request: &str) -> (&str, &str) {
    let (method, rest) = word(request);
    if method.is_empty() || method.len() > 20 || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return ("", "");
    }
    let url = rest.rsplit_once(" HTTP/").map_or(rest, |(url, _)| url);
    (method, url.split_once(['?', '#']).map_or(url, |(path, _)| path))
}

/// Nothing for the sign of nothing.
fn none(text: &str) -> &str {
    if text == "-" { "" } else { text }
}

/// Whether it has the form of an address; whether it is one is seen later.
fn is_address(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    text.bytes().all(allowed)
        && (text.bytes().filter(|byte| *byte == b'.').count() == 3
            || text.contains("::")
            || text.matches(':').count() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::{Expected, check};

    const TIME: u64 = 1_795_435_200_000_000_000;

    fn request(outcome: &'static str, path: &'static str, client: &'static str) -> Expected {
        let expected = Expected::new("http.request", "http.request", outcome).client(client).time(TIME).severity(9);
        if path.is_empty() { expected.target("url", "") } else { expected.target("url", path) }
    }

    #[test]
    fn lines_mean_what_they_say() {
        check(
            read,
            [
                (
                    r#"192.0.2.7 - - [23/Nov/2026:12:00:00 +0000] "GET /a/b?x=1 HTTP/1.1" 200 512 "http://example.com/" "Mozilla/5.0 (X11)""#,
                    request("success", "/a/b", "192.0.2.7")
                        .agent("Mozilla/5.0 (X11)")
                        .with("method", "GET")
                        .with("status", "200")
                        .with("bytes", "512")
                        .with("referer", "http://example.com/"),
                ),
                (
                    r#"192.0.2.7 - bob smith [23/Nov/2026:13:00:00 +0100] "POST /x HTTP/2.0" 401 -"#,
                    request("denied", "/x", "192.0.2.7")
                        .actor_of("bob smith", ActorKind::Unspecified)
                        .with("method", "POST")
                        .with("status", "401"),
                ),
                (
                    r#"192.0.2.7 - a [b] [x [23/Nov/2026:12:00:00 +0000] "GET /x HTTP/1.1" 401 -"#,
                    request("denied", "/x", "192.0.2.7")
                        .actor_of("a [b] [x", ActorKind::Unspecified)
                        .with("method", "GET")
                        .with("status", "401"),
                ),
                (
                    r#"shop.example.com:443 2001:db8::7 - - [23/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 502 0 "-" "-""#,
                    request("failure", "/", "2001:db8::7")
                        .severity(17)
                        .with("method", "GET")
                        .with("status", "502")
                        .with("bytes", "0")
                        .with("vhost", "shop.example.com:443"),
                ),
                (
                    r#"192.0.2.7 - - [23/Nov/2026:12:00:00 +0000] "\x16\x03\x01" 400 226 "-" "a \"quoted\" agent" "extra""#,
                    request("failure", "", "192.0.2.7")
                        .agent(r#"a \"quoted\" agent"#)
                        .with("status", "400")
                        .with("bytes", "226"),
                ),
                (
                    r#"::ffff:192.0.2.7 - root@pam [23/11/2026:12:00:00 +0000] "GET /api2/json/version HTTP/1.1" 200 59"#,
                    request("success", "/api2/json/version", "192.0.2.7")
                        .actor_of("root@pam", ActorKind::Unspecified)
                        .with("method", "GET")
                        .with("status", "200")
                        .with("bytes", "59"),
                ),
                (
                    r#"198.51.100.1 192.0.2.7 - - [23/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 0"#,
                    request("success", "/", "192.0.2.7")
                        .with("method", "GET")
                        .with("status", "200")
                        .with("bytes", "0")
                        .with("vhost", "198.51.100.1"),
                ),
                (
                    r#"client.example.net - - [23/Nov/2026:12:00:00 +0000] "GET / HTTP/1.0" 304 -"#,
                    request("success", "/", "")
                        .with("client_host", "client.example.net")
                        .with("method", "GET")
                        .with("status", "304"),
                ),
            ],
        );
    }

    #[test]
    fn other_words_stay_words() {
        for text in [
            "",
            "[",
            "a [b] \"c\" 200 1",
            "192.0.2.7 - - [23/Nov/2026:12:00:00 +0000] \"GET / HTTP/1.1",
            "192.0.2.7 - - [23/Nov/2026:12:00:00 +0000] \"GET / HTTP/1.1\\\" 200 1",
            "192.0.2.7 - - [23/Nov/2026:12:00:00 +0000] \"GET / HTTP/1.1\" none 1",
            "192.0.2.7 - - [today] \"GET / HTTP/1.1\" 200 1",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
