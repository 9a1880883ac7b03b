//! Moments as people write them, and as `journalctl --since` understands them.
//!
//! ```text
//! 2026-11-23 12:00:00   2026-11-23 12:00   2026-11-23   12:00:00   12:00       local, unless a zone follows:
//! 2026-11-23 12:00 UTC  12:00 Europe/Rome  today UTC
//! 2026-11-23T12:00[Asia/Tokyo]  12:00+05:30  2026-11-23 13:32 +0100
//! 2026-11-23T12:00:00Z  2026-11-23 12:00:00.5+01:00                            RFC 3339
//! @1700000000  @1700000000.25                                                  seconds since 1970
//! now  today  yesterday  tomorrow                                              the day's beginning, but for now
//! -2h  +5min  "2 hours ago"  "1h 30min ago"  "1h 30min left"                   from now
//! ```

use jiff::{
    Timestamp, Zoned, civil,
    tz::{Offset, TimeZone},
};

/// A text that is no moment, or one that can't be counted in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// No form fits.
    #[error(
        "{0:?} is not a time. Write for example \"2026-11-23 12:00\", 12:00:00, today, -2h, \"2 hours ago\", \
         2026-11-23T12:00:00Z or @1700000000"
    )]
    Form(String),
    /// Before 1970 or after 2554.
    #[error("{0:?} is outside of the years 1970 to 2554")]
    Range(String),
}

/// Reads `text`, as said at `now` in `now`'s time zone. Returns nanoseconds since 1970-01-01T00:00:00Z. A local time that
/// a change of clocks skips is moved forward by the change; of one that happens twice the first is meant.
pub fn parse(text: &str, now: &Zoned) -> Result<u64, WhenError> {
    let form = || WhenError::Form(text.to_owned());
    let trimmed = text.trim();
    let nanoseconds = match relative(trimmed) {
        Some(distance) => now.timestamp().as_nanosecond() + distance,
        None => absolute(trimmed, now).ok_or_else(form)?,
    };
    u64::try_from(nanoseconds).map_err(|_| WhenError::Range(text.to_owned()))
}

/// Nanoseconds since the epoch of a moment that stands for itself.
fn absolute(text: &str, now: &Zoned) -> Option<i128> {
    if let Some(seconds) = text.strip_prefix('@') {
        return decimal(seconds, NANOS_PER_SECOND);
    }
    // A timestamp's parser reads over the zone in brackets; a zoned one's refuses what contradicts itself.
    let timestamp = if text.contains('[') {
        text.parse::<Zoned>().map(|moment| moment.timestamp())
    } else {
        text.parse::<Timestamp>()
    };
    if let Ok(timestamp) = timestamp {
        return Some(timestamp.as_nanosecond());
    }
    if let Some(moment) = local(text, now) {
        return Some(moment.timestamp().as_nanosecond());
    }
    let (rest, zone) = split_zone(text)?;
    let now = now.with_time_zone(zone);
    Some(local(rest.trim_end(), &now)?.timestamp().as_nanosecond())
}

/// A zone at the end: `[Asia/Tokyo]`, a distance from UTC after a time of day, or a name or distance after a space.
fn split_zone(text: &str) -> Option<(&str, TimeZone)> {
    if let Some((rest, name)) = text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) {
        return Some((rest, TimeZone::get(name).ok()?));
    }
    if let Some((rest, zone)) = text.rsplit_once(char::is_whitespace)
        && let Some(zone) = distance_from_utc(zone).or_else(|| TimeZone::get(zone).ok())
    {
        return Some((rest, zone));
    }
    // The hyphens of a date stand before the first colon.
    let colon = text.find(':')?;
    let at = colon + text.get(colon..)?.find(['+', '-'])?;
    let (rest, zone) = text.split_at_checked(at)?;
    Some((rest, distance_from_utc(zone)?))
}

/// `+01:00`, `+0100` or `+01`.
fn distance_from_utc(text: &str) -> Option<TimeZone> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        2 => (digits, "00"),
        4 => digits.split_at_checked(2)?,
        5 => digits.split_once(':')?,
        _ => return None,
    };
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i32>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let offset = Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok()?;
    (hours < 24 && minutes < 60).then(|| TimeZone::fixed(offset))
}

fn local(text: &str, now: &Zoned) -> Option<Zoned> {
    match text {
        "now" => return Some(now.clone()),
        "today" => return now.start_of_day().ok(),
        "yesterday" => return now.yesterday().ok()?.start_of_day().ok(),
        "tomorrow" => return now.tomorrow().ok()?.start_of_day().ok(),
        _ => {}
    }
    // jiff would read over a zone, which is not local.
    let zone = |text: &str| {
        text.contains(['[', '+', 'Z', 'z']) || text.split_once(':').is_some_and(|(_, end)| end.contains('-'))
    };
    if zone(text) {
        return None;
    }
    // jiff reads more forms than people expect here ("20261123", "12"): those without these marks are left to nobody.
    let moment = if text.contains('-') {
        text.parse::<civil::DateTime>().ok()?
    } else if text.contains(':') {
        now.date().to_datetime(text.parse::<civil::Time>().ok()?)
    } else {
        return None;
    };
    moment.to_zoned(now.time_zone().clone()).ok()
}

/// Nanoseconds from now, if the text is a distance.
fn relative(text: &str) -> Option<i128> {
    if let Some(ahead) = text.strip_prefix('+').or_else(|| text.strip_suffix("left")) {
        distance(ahead)
    } else {
        text.strip_prefix('-').or_else(|| text.strip_suffix("ago")).and_then(distance).map(|behind| -behind)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_DAY: u64 = 86_400 * NANOS_PER_SECOND;

/// systemd's units. Days have 24 hours, months and years their average length, whatever the calendar says.
fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "us" | "usec" | "µs" => 1_000,
        "ms" | "msec" => 1_000_000,
        "" | "s" | "sec" | "second" | "seconds" => NANOS_PER_SECOND,
        "m" | "min" | "minute" | "minutes" => 60 * NANOS_PER_SECOND,
        "h" | "hr" | "hour" | "hours" => 3_600 * NANOS_PER_SECOND,
        "d" | "day" | "days" => NANOS_PER_DAY,
        "w" | "week" | "weeks" => 7 * NANOS_PER_DAY,
        "M" | "month" | "months" => 2_629_800 * NANOS_PER_SECOND,
        "y" | "year" | "years" => 31_557_600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// Nanoseconds of a sum such as "1h 30min", "2 hours" or "1.5d".
fn distance(text: &str) -> Option<i128> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0_i128;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (name, after) = split_where(after.trim_start(), |c| c.is_ascii_digit() || c.is_whitespace());
        sum = sum.checked_add(decimal(number, unit(name)?)?)?;
        rest = after.trim_start();
    }
    // More than the years since 1970 or until 2554 can't be meant; the caller's sum can't overflow.
    Some(sum.min(i128::from(u64::MAX)))
}

fn split_where(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

/// `text`, a decimal number without sign, times `nanoseconds`; what is finer than a nanosecond is cut off.
fn decimal(text: &str, nanoseconds: u64) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let nanoseconds = i128::from(nanoseconds);
    Some(whole.parse::<i128>().ok()? * nanoseconds + fraction.parse::<i128>().ok()? * nanoseconds / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Monday noon, an hour ahead of UTC.
    fn now() -> Zoned {
        "2026-11-23T12:00:00[Europe/Rome]".parse().unwrap()
    }

    #[test]
    fn every_form_is_understood() {
        let table = [
            ("2026-11-23 12:00:00", "2026-11-23T11:00:00Z"),
            ("2026-11-23 12:00:00.25", "2026-11-23T11:00:00.25Z"),
            ("2026-11-23 12:00", "2026-11-23T11:00:00Z"),
            ("  2026-11-23 12:00  ", "2026-11-23T11:00:00Z"),
            ("2026-11-23", "2026-11-22T23:00:00Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("12:00:00", "2026-11-23T11:00:00Z"),
            ("23:59", "2026-11-23T22:59:00Z"),
            ("2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z"),
            ("2026-11-23T12:00:00", "2026-11-23T11:00:00Z"),
            ("2026-11-23 12:00:00+05:30", "2026-11-23T06:30:00Z"),
            ("2026-11-23 12:00:00 UTC", "2026-11-23T12:00:00Z"),
            ("2026-11-23 12:00 America/New_York", "2026-11-23T17:00:00Z"),
            ("2026-11-23 UTC", "2026-11-23T00:00:00Z"),
            ("12:00 UTC", "2026-11-23T12:00:00Z"),
            ("12:00+05:30", "2026-11-23T06:30:00Z"),
            ("12:00-05:00", "2026-11-23T17:00:00Z"),
            ("12:00[Asia/Tokyo]", "2026-11-23T03:00:00Z"),
            ("2026-11-23T12:00[Asia/Tokyo]", "2026-11-23T03:00:00Z"),
            ("2026-11-23 12:00:00.5 [Asia/Tokyo]", "2026-11-23T03:00:00.5Z"),
            ("2026-11-23T12:00+09:00[Asia/Tokyo]", "2026-11-23T03:00:00Z"),
            ("2026-11-23[Asia/Tokyo]", "2026-11-22T15:00:00Z"),
            ("2026-11-23 13:32 +0100", "2026-11-23T12:32:00Z"),
            ("2026-11-23 13:32 -01", "2026-11-23T14:32:00Z"),
            ("2026-11-23 +01:00", "2026-11-22T23:00:00Z"),
            ("today UTC", "2026-11-23T00:00:00Z"),
            ("@1700000000", "2023-11-14T22:13:20Z"),
            ("@1700000000.5", "2023-11-14T22:13:20.5Z"),
            ("@0", "1970-01-01T00:00:00Z"),
            ("now", "2026-11-23T11:00:00Z"),
            ("today", "2026-11-22T23:00:00Z"),
            ("yesterday", "2026-11-21T23:00:00Z"),
            ("tomorrow", "2026-11-23T23:00:00Z"),
            ("-2h", "2026-11-23T09:00:00Z"),
            ("-90", "2026-11-23T10:58:30Z"),
            ("-1.5h", "2026-11-23T09:30:00Z"),
            ("+5min", "2026-11-23T11:05:00Z"),
            ("2 hours ago", "2026-11-23T09:00:00Z"),
            ("1h 30min ago", "2026-11-23T09:30:00Z"),
            ("1h30min ago", "2026-11-23T09:30:00Z"),
            ("1 day ago", "2026-11-22T11:00:00Z"),
            ("3d ago", "2026-11-20T11:00:00Z"),
            ("2 weeks ago", "2026-11-09T11:00:00Z"),
            ("10 s left", "2026-11-23T11:00:10Z"),
            ("-250ms", "2026-11-23T10:59:59.75Z"),
        ];
        for (text, expected) in table {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(parse(text, &now()).map(i128::from), Ok(expected.as_nanosecond()), "{text:?}");
        }
    }

    #[test]
    fn a_day_begins_where_its_clocks_say() {
        // Clocks went back in this night: the day began 25 hours before the next one.
        let now: Zoned = "2026-10-25T12:00:00[Europe/Rome]".parse().unwrap();
        let hours = (parse("tomorrow", &now).unwrap() - parse("today", &now).unwrap()) / 3_600 / NANOS_PER_SECOND;
        assert_eq!(hours, 25);
    }

    #[test]
    fn a_day_is_the_zones_own() {
        // Still Sunday there.
        let now: Zoned = "2026-11-23T00:30:00[Europe/Rome]".parse().unwrap();
        let expected: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        assert_eq!(parse("today UTC", &now).map(i128::from), Ok(expected.as_nanosecond()));
    }

    #[test]
    fn the_rest_is_refused() {
        let forms = [
            "",
            " ",
            "noon",
            "12",
            "2026",
            "20261123",
            "2026-13-01",
            "2026-11-23 25:00",
            "-",
            "+",
            "ago",
            "2 hours",
            "2 fortnights ago",
            "h ago",
            "1..5h ago",
            "@",
            "@x",
            "@-1",
            "12:00 Nowhere/City",
            "12:00[Nowhere/City]",
            "12:00+0",
            "12:00+25:00",
            "12:00 +01:60",
            "12:00Z",
            "2026-11-23T12:00+01:00[Asia/Tokyo]",
            "--2h",
            "1e3s ago",
        ];
        for text in forms {
            assert_eq!(parse(text, &now()), Err(WhenError::Form(text.to_owned())), "{text:?}");
        }
        for text in ["1969-12-31", "100 years ago", "@99999999999999999", "-999999999999y"] {
            assert_eq!(parse(text, &now()), Err(WhenError::Range(text.to_owned())), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text: String, number in "[-+@]?[0-9.]{0,20} ?[a-zM]{0,3}") {
            let _ = parse(&text, &now());
            let _ = parse(&number, &now());
        }
    }
}
