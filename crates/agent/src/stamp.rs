//! What the beginning of a line says about itself, where that can be read cheaply and without doubt.

use jiff::Timestamp;

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
}

/// Reads the header of an RFC 5424 line, the priority of an RFC 3164 one (whose time has no year and no zone, so is left
/// unknown), or an RFC 3339 time stamp. After the latter, host and program are taken only if the host is ours: an
/// application's own words may stand there as well.
pub(crate) fn read<'a>(line: &'a [u8], our_host: &str) -> Stamp<'a> {
    let Some((priority, rest)) = priority(line) else {
        return file_format(line, our_host);
    };
    let stamp = Stamp { priority: Some(priority & 7), ..Stamp::default() };
    let Some(header) = rest.strip_prefix(b"1 ") else { return stamp };
    let mut fields = header.splitn(5, |byte| *byte == b' ').map(field);
    let mut next = || fields.next().unwrap_or_default();
    let (time, host, program, process) = (next(), next(), next(), next());
    Stamp { event_time_unix_nano: nanos(time), host, program, process_id: process.parse().unwrap_or_default(), ..stamp }
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

/// `2026-11-23T12:05:18.123+01:00 host program[123]: …`
fn file_format<'a>(line: &'a [u8], our_host: &str) -> Stamp<'a> {
    if !line.first().is_some_and(u8::is_ascii_digit) {
        return Stamp::default();
    }
    let mut fields = line.splitn(4, |byte| *byte == b' ').map(field);
    let mut next = || fields.next().unwrap_or_default();
    let (time, host, tag) = (next(), next(), next());
    let stamp = Stamp { event_time_unix_nano: nanos(time), ..Stamp::default() };
    let Some(tag) = tag.strip_suffix(':').filter(|_| host == our_host && stamp.event_time_unix_nano != 0) else {
        return stamp;
    };
    let (program, process) = tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('[')).unwrap_or((tag, ""));
    Stamp { host, program, process_id: process.parse().unwrap_or_default(), ..stamp }
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
    text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_435_200_000_000_000;

    #[test]
    fn rfc_5424_headers_are_read() {
        let line = b"<165>1 2026-11-23T12:00:00.000003Z web-1 evntslog 42 ID47 - hello";
        let expected = Stamp {
            event_time_unix_nano: NOON + 3_000,
            priority: Some(5),
            host: "web-1",
            program: "evntslog",
            process_id: 42,
        };
        assert_eq!(read(line, ""), expected);
        let nothing = Stamp { priority: Some(6), ..Stamp::default() };
        assert_eq!(read(b"<14>1 - - - - - - x", ""), nothing);
    }

    #[test]
    fn times_without_zone_or_year_stay_unknown() {
        let stamp = read(b"<34>Oct 11 22:14:15 mymachine su: failed", "mymachine");
        assert_eq!(stamp, Stamp { priority: Some(2), ..Stamp::default() });
        for line in
            ["Oct 11 22:14:15 host su: x", "2026-11-23T12:00:00 no zone", "2026-11-23 12:00:00 no zone", "", "<", "7"]
        {
            assert_eq!(read(line.as_bytes(), "host"), Stamp::default(), "{line:?}");
        }
    }

    #[test]
    fn rfc_3339_stamps_are_read_and_words_of_applications_left_alone() {
        let line = b"2026-11-23T13:00:00.5+01:00 web-1 sshd[77]: Accepted";
        let time = NOON + 500_000_000;
        let expected =
            Stamp { event_time_unix_nano: time, priority: None, host: "web-1", program: "sshd", process_id: 77 };
        assert_eq!(read(line, "web-1"), expected);
        assert_eq!(read(line, "other"), Stamp { event_time_unix_nano: time, ..Stamp::default() });
    }

    #[test]
    fn priorities_out_of_range_are_no_priorities() {
        for line in ["<192>1 x", "<007>1 x", "<>1 x", "<1234>x", "<-1>x", "<+1>x"] {
            assert_eq!(read(line.as_bytes(), ""), Stamp::default(), "{line:?}");
        }
    }
}
