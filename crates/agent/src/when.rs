//! Times as logs write them.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::{Offset, TimeZone},
};

/// How far a time may lie ahead of our own clock before it is taken for one of an earlier year.
const AHEAD_NS: u64 = 24 * 3_600 * 1_000_000_000;

/// When a line was read, and where: what times without a year or a zone are understood by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock<'a> {
    /// When the line was read, nanoseconds since the epoch.
    pub(crate) observed: u64,
    /// The machine's zone.
    pub(crate) zone: &'a TimeZone,
}

impl Clock<'_> {
    /// `Mar  9 10:32:51`, 15 bytes: the newest such time that is not ahead of the reading by more than a day. 0 = unknown.
    pub(crate) fn yearless(self, text: &[u8]) -> u64 {
        self.find_yearless(text).unwrap_or_default()
    }

    /// Nanoseconds of a time of the machine's zone; 0 = unknown.
    pub(crate) fn local(self, time: DateTime) -> u64 {
        self.zone.to_ambiguous_timestamp(time).compatible().ok().map_or(0, nanos)
    }

    fn find_yearless(self, text: &[u8]) -> Option<u64> {
        let month = month(text.get(..3)?)?;
        let day = number(text.get(4..6)?.trim_ascii_start())?;
        let (hour, minute, second) = time_of_day(text.get(7..15)?)?;
        let newest = self.observed.saturating_add(AHEAD_NS);
        let now = Timestamp::from_nanosecond(i128::from(self.observed)).ok()?;
        let year = self.zone.to_datetime(now).year();
        // Eight years back: a 29 February is found whenever it was.
        (year.saturating_sub(8)..=year.saturating_add(1)).rev().find_map(|year| {
            let date = Date::new(year, month, i8::try_from(day).ok()?).ok()?;
            let time = self.local(date.at(hour, minute, second, 0));
            (time != 0 && time <= newest).then_some(time)
        })
    }
}

/// Nanoseconds since the epoch; 0 for what lies before it.
pub(crate) fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}

/// `23/Nov/2026:12:00:00 +0100` as web servers write it; the month may be a number. 0 = unknown.
pub(crate) fn web(text: &str) -> u64 {
    find_web(text.as_bytes()).unwrap_or_default()
}

fn find_web(text: &[u8]) -> Option<u64> {
    let (day, rest) = (text.get(..2)?, text.get(3..)?);
    let (month, rest) = match rest.get(2)? {
        b'/' => (i8::try_from(number(rest.get(..2)?)?).ok()?, rest.get(3..)?),
        _ => (self::month(rest.get(..3)?)?, rest.get(4..)?),
    };
    let (year, rest) = (number(rest.get(..4)?)?, rest.get(5..)?);
    let (hour, minute, second) = time_of_day(rest.get(..8)?)?;
    let offset = offset(rest.get(9..14)?)?;
    let date = Date::new(i16::try_from(year).ok()?, month, i8::try_from(number(day)?).ok()?).ok()?;
    offset.to_timestamp(date.at(hour, minute, second, 0)).ok().map(nanos)
}

/// `+0100`
fn offset(text: &[u8]) -> Option<Offset> {
    let seconds = i32::from(number(text.get(1..3)?)?) * 3_600 + i32::from(number(text.get(3..5)?)?) * 60;
    Offset::from_seconds(if text.first()? == &b'-' { -seconds } else { seconds }).ok()
}

/// `2026/11/23 12:00:00` or with dashes, 19 bytes.
pub(crate) fn civil(text: &[u8]) -> Option<DateTime> {
    let year = i16::try_from(number(text.get(..4)?)?).ok()?;
    let month = i8::try_from(number(text.get(5..7)?)?).ok()?;
    let day = i8::try_from(number(text.get(8..10)?)?).ok()?;
    let (hour, minute, second) = time_of_day(text.get(11..19)?)?;
    Some(Date::new(year, month, day).ok()?.at(hour, minute, second, 0))
}

/// `12:05:18`
pub(crate) fn time_of_day(text: &[u8]) -> Option<(i8, i8, i8)> {
    let part = |at: usize, max: u16| {
        number(text.get(at..at + 2)?).filter(|part| *part <= max).and_then(|part| i8::try_from(part).ok())
    };
    let colons = text.get(2) == Some(&b':') && text.get(5) == Some(&b':');
    // A leap second is the second before it.
    colons.then_some(())?;
    Some((part(0, 23)?, part(3, 59)?, part(6, 60)?.min(59)))
}

/// `Nov`
pub(crate) fn month(name: &[u8]) -> Option<i8> {
    const NAMES: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    NAMES.iter().position(|month| *month == name).and_then(|index| i8::try_from(index + 1).ok())
}

/// Up to four digits, and nothing else.
fn number(digits: &[u8]) -> Option<u16> {
    let valid = (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> u64 {
        nanos(text.parse().unwrap())
    }

    fn clock(zone: &TimeZone, observed: &str) -> u64 {
        Clock { observed: utc(observed), zone }.yearless(b"Dec 31 23:59:59")
    }

    #[test]
    fn a_time_without_year_is_the_newest_that_is_past() {
        let zone = TimeZone::UTC;
        assert_eq!(clock(&zone, "2027-01-01T00:00:05Z"), utc("2026-12-31T23:59:59Z"));
        assert_eq!(clock(&zone, "2026-12-31T23:59:59Z"), utc("2026-12-31T23:59:59Z"));
        // A clock that is a little ahead of ours.
        assert_eq!(clock(&zone, "2026-12-31T12:00:00Z"), utc("2026-12-31T23:59:59Z"));
        assert_eq!(clock(&zone, "2026-12-30T12:00:00Z"), utc("2025-12-31T23:59:59Z"));
        let rome = TimeZone::fixed(Offset::from_hours(1).unwrap());
        assert_eq!(clock(&rome, "2026-12-31T23:30:00Z"), utc("2026-12-31T22:59:59Z"));
    }

    #[test]
    fn days_that_are_not_in_every_year_are_found() {
        let clock = Clock { observed: utc("2026-03-01T00:00:00Z"), zone: &TimeZone::UTC };
        assert_eq!(clock.yearless(b"Feb 29 01:02:03"), utc("2024-02-29T01:02:03Z"));
        assert_eq!(clock.yearless(b"Mar  1 00:00:00"), utc("2026-03-01T00:00:00Z"));
        for wrong in ["Feb 30 01:02:03", "Xxx 29 01:02:03", "Feb 29 25:02:03", "Feb 29 1:02:03", "Feb 2", ""] {
            assert_eq!(clock.yearless(wrong.as_bytes()), 0, "{wrong:?}");
        }
    }

    #[test]
    fn times_of_web_servers_are_read() {
        let noon = utc("2026-11-23T12:00:00Z");
        for text in ["23/Nov/2026:12:00:00 +0000", "23/Nov/2026:13:30:00 +0130", "23/11/2026:07:00:00 -0500"] {
            assert_eq!(web(text), noon, "{text:?}");
        }
        for text in
            ["", "23/Nov/2026", "23/Foo/2026:12:00:00 +0000", "99/Nov/2026:12:00:00 +0000", "23/Nov/2026:12:00:00 +x"]
        {
            assert_eq!(web(text), 0, "{text:?}");
        }
    }

    #[test]
    fn times_without_zone_are_ours() {
        let rome = TimeZone::fixed(Offset::from_hours(1).unwrap());
        let time = civil(b"2026/11/23 13:00:00").unwrap();
        assert_eq!(Clock { observed: 0, zone: &rome }.local(time), utc("2026-11-23T12:00:00Z"));
        assert_eq!(civil(b"2026/13/23 13:00:00"), None);
    }
}
