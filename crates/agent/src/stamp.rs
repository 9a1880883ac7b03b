//! What the beginning of a line says about itself, where that can be read cheaply and without doubt.

use jiff::Timestamp;

use crate::when::{self, Clock};

/// Longest time stamp that is looked at.
const STAMP_MAX_BYTES: usize = 40;

/// What a line says. Empty or 0 where it says nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    /// Nanoseconds since the epoch.
    pub(crate) event_time_unix_nano: u64,
    /// Syslog severity, 0 (emergency) to 7 (debug).
    pub(crate) priority: Option<u8>,
    pub(crate) host: &'a str,
    pub(crate) program: &'a str,
    pub(crate) process_id: u32,
    /// Path, unit or channel. Empty: the source's.
    pub(crate) stream: &'a str,
}

/// Reads the header of an RFC 5424 line, of an RFC 3164 one (whose time has no year and no zone: it is taken for the newest past
/// one of the machine's zone), or an RFC 3339 time stamp. After the latter, host and program are taken only if the host is ours, with
/// or without its domain, or the program has a process id: an application's own words may stand there as well. Returns also where the
/// message begins.
pub(crate) fn read<'a>(line: &'a [u8], our_host: &str, clock: Clock<'_>) -> (Stamp<'a>, usize) {
    let Some((priority, rest)) = priority(line) else {
        return match line.first() {
            Some(byte) if byte.is_ascii_digit() => file_format(line, our_host),
            Some(byte) if byte.is_ascii_uppercase() => traditional(line, line, clock).unwrap_or_default(),
            _ => <_>::default(),
        };
    };
    let priority = Some(priority & 7);
    let Some(header) = rest.strip_prefix(b"1 ") else {
        let (stamp, at) = traditional(line, rest, clock).unwrap_or((Stamp::default(), line.len() - rest.len()));
        return (Stamp { priority, ..stamp }, at);
    };
    let mut fields = header.splitn(6, |byte| *byte == b' ');
    let mut next = || fields.next().unwrap_or_default();
    let (time, host, program, process, _id, rest) =
        (field(next()), field(next()), field(next()), field(next()), next(), next());
    let stamp = Stamp {
        event_time_unix_nano: nanos(time),
        priority,
        host,
        program,
        process_id: process.parse().unwrap_or_default(),
        ..Stamp::default()
    };
    (stamp, line.len() - after_structured_data(rest).len())
}

/// OpenTelemetry's severity number and syslog's name of a syslog severity.
pub(crate) fn severity(priority: u8) -> (u32, &'static str) {
    match priority {
        0 => (21, "emerg"),
        1 => (19, "alert"),
        2 => (18, "crit"),
        3 => (17, "err"),
        4 => (13, "warning"),
        5 => (10, "notice"),
        6 => (9, "info"),
        _ => (5, "debug"),
    }
}

/// `<PRI>`: 0 to 191, without leading zeros.
fn priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let (digits, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
    let text = std::str::from_utf8(digits).ok().filter(|text| *text == "0" || !text.starts_with(['0', '+']))?;
    text.parse().ok().filter(|number| *number <= 191).map(|number| (number, rest))
}

/// What follows structured data: `-`, or elements in brackets, in which a quoted value may hold `\]`.
fn after_structured_data(rest: &[u8]) -> &[u8] {
    let mut end = usize::from(rest.first() == Some(&b'-'));
    while rest.get(end) == Some(&b'[') {
        let mut escaped = false;
        let close = rest.get(end..).unwrap_or_default().iter().position(|byte| {
            let closes = *byte == b']' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        });
        let Some(close) = close else { return rest };
        end += close + 1;
    }
    let message = rest.get(end..).unwrap_or_default();
    let message = message.strip_prefix(b" ").unwrap_or(message);
    message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message)
}

/// `Nov 23 12:05:18 host program[123]: …`, `text` being the end of the line that begins with the time.
fn traditional<'a>(line: &'a [u8], text: &'a [u8], clock: Clock<'_>) -> Option<(Stamp<'a>, usize)> {
    let time = text.get(..16).filter(|time| time.last() == Some(&b' '))?;
    let event_time_unix_nano = clock.yearless(time);
    if event_time_unix_nano == 0 {
        return None;
    }
    let mut fields = text.get(16..)?.splitn(3, |byte| *byte == b' ');
    let (host, tag, message) = (field(fields.next()?), fields.next()?, fields.next().unwrap_or_default());
    let stamp = Stamp { event_time_unix_nano, ..Stamp::default() };
    let Some((program, process_id)) = program(tag).filter(|_| !host.is_empty()) else {
        return Some((stamp, line.len() - text.len() + time.len()));
    };
    Some((Stamp { host, program, process_id, ..stamp }, line.len() - message.len()))
}

/// `2026-11-23T12:05:18.123+01:00 host program[123]: …`
fn file_format<'a>(line: &'a [u8], our_host: &str) -> (Stamp<'a>, usize) {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let mut next = || fields.next().unwrap_or_default();
    let (time, host, tag, message) = (next(), field(next()), next(), next());
    let stamp = Stamp { event_time_unix_nano: nanos(field(time)), ..Stamp::default() };
    if stamp.event_time_unix_nano == 0 {
        return <_>::default();
    }
    let is_ours = first_label(host).eq_ignore_ascii_case(first_label(our_host));
    match program(tag).filter(|(_, process_id)| !host.is_empty() && (is_ours || *process_id != 0)) {
        Some((program, process_id)) => (Stamp { host, program, process_id, ..stamp }, line.len() - message.len()),
        None => (stamp, line.len().min(time.len() + 1)),
    }
}

/// A machine's name without its domain.
fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// `program:` or `program[123]:`
fn program(tag: &[u8]) -> Option<(&str, u32)> {
    let tag = field(tag).strip_suffix(':')?;
    let (program, process) = tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('[')).unwrap_or((tag, ""));
    (!program.is_empty()).then(|| (program, process.parse().unwrap_or_default()))
}

/// A field of a header; empty for `-` and for what is no text.
fn field(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).ok().filter(|text| *text != "-").unwrap_or_default()
}

fn nanos(text: &str) -> u64 {
    // Shortest: 2026-11-23T12:05:18Z
    if !(20..=STAMP_MAX_BYTES).contains(&text.len()) || text.as_bytes().get(10) != Some(&b'T') {
        return 0;
    }
    text.parse::<Timestamp>().map(when::nanos).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    const NOON: u64 = 1_795_435_200_000_000_000;

    /// The stamp and the message.
    fn split<'a>(line: &'a [u8], our_host: &str) -> (Stamp<'a>, &'a str) {
        let (stamp, at) = super::read(line, our_host, Clock { observed: NOON, zone: &TimeZone::UTC });
        (stamp, std::str::from_utf8(&line[at..]).unwrap())
    }

    fn read<'a>(line: &'a [u8], our_host: &str) -> Stamp<'a> {
        split(line, our_host).0
    }

    #[test]
    fn rfc_5424_headers_are_read() {
        let line = b"<165>1 2026-11-23T12:00:00.000003Z web-1 evntslog 42 ID47 - hello";
        let expected = Stamp {
            event_time_unix_nano: NOON + 3_000,
            priority: Some(5),
            host: "web-1",
            program: "evntslog",
            process_id: 42,
            stream: "",
        };
        assert_eq!(split(line, ""), (expected, "hello"));
        let nothing = Stamp { priority: Some(6), ..Stamp::default() };
        assert_eq!(split(b"<14>1 - - - - - - x", ""), (nothing, "x"));
        for (data, message) in [
            (r#"[a@1 b="c"] hello you"#, "hello you"),
            (r#"[a@1 b="\]"][c d="e f"] hello"#, "hello"),
            ("- \u{feff}hello", "hello"),
            ("-", ""),
            ("[a@1 b=", "[a@1 b="),
            ("", ""),
        ] {
            let line = format!("<14>1 - - - - - {data}");
            assert_eq!(split(line.as_bytes(), ""), (nothing, message), "{data}");
        }
    }

    #[test]
    fn rfc_3164_headers_are_read_with_the_newest_past_time() {
        let time = NOON - 60 * 1_000_000_000;
        let expected = Stamp {
            event_time_unix_nano: time,
            priority: Some(2),
            host: "mymachine",
            program: "su",
            process_id: 0,
            stream: "",
        };
        assert_eq!(split(b"<34>Nov 23 11:59:00 mymachine su: failed", "other"), (expected, "failed"));
        let expected = Stamp { priority: None, process_id: 7, ..expected };
        assert_eq!(split(b"Nov 23 11:59:00 mymachine su[7]: failed now", "other"), (expected, "failed now"));
        let alone = Stamp { event_time_unix_nano: time, ..Stamp::default() };
        assert_eq!(split(b"Nov 23 11:59:00 the words of somebody", ""), (alone, "the words of somebody"));
        assert_eq!(split(b"<34>words", ""), (Stamp { priority: Some(2), ..Stamp::default() }, "words"));
    }

    #[test]
    fn times_that_are_none_stay_unknown() {
        for line in [
            "Nov 31 22:14:15 host su: x",
            "2026-11-23T12:00:00 no zone",
            "2026-11-23 12:00:00 no zone",
            "",
            "<",
            "7",
            "N",
        ] {
            assert_eq!(split(line.as_bytes(), "host"), (Stamp::default(), line), "{line:?}");
        }
    }

    #[test]
    fn rfc_3339_stamps_are_read_and_words_of_applications_left_alone() {
        let line = b"2026-11-23T13:00:00.5+01:00 web-1 sshd[77]: Accepted";
        let time = NOON + 500_000_000;
        let alone = Stamp { event_time_unix_nano: time, ..Stamp::default() };
        let expected = Stamp { host: "web-1", program: "sshd", process_id: 77, ..alone };
        assert_eq!(split(line, "web-1"), (expected, "Accepted"));
        // A collecting machine has the lines of others.
        assert_eq!(split(line, "other"), (expected, "Accepted"));
        let line = b"2026-11-23T13:00:00.5+01:00 WEB-1.example.com sudo: x";
        let expected = Stamp { host: "WEB-1.example.com", program: "sudo", process_id: 0, ..expected };
        assert_eq!(split(line, "web-1"), (expected, "x"));
        let line = b"2026-11-23T13:00:00.5+01:00 INFO main: x";
        assert_eq!(split(line, "web-1"), (alone, "INFO main: x"));
        assert_eq!(split(b"2026-11-23T13:00:00.5+01:00", "other"), (alone, ""));
    }

    #[test]
    fn priorities_out_of_range_are_no_priorities() {
        for line in ["<192>1 x", "<007>1 x", "<>1 x", "<1234>x", "<-1>x", "<+1>x"] {
            assert_eq!(read(line.as_bytes(), ""), Stamp::default(), "{line:?}");
        }
    }
}
