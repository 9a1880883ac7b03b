//! Audit records as pairs: `type=T msg=audit(SECONDS.MILLIS:SERIAL): KEY=VALUE …`.
//!
//! A value is a bare word, or stands in quotes, or, where it holds a space, a quote or a byte that can't be shown, is written in
//! hexadecimal. What programs say stands in single quotes behind `msg=` and is a list of pairs again.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use crate::scrub::{Found, note};

/// Shortest hexadecimal value that is looked into for secrets.
const SECRET_MIN_HEX: usize = 8;

/// A value as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    Bare(&'a str),
    Quoted(&'a str),
}

impl<'a> Raw<'a> {
    pub(super) fn plain(self) -> &'a str {
        match self {
            Self::Bare("(null)" | "?" | "(none)") => "",
            Self::Bare(text) | Self::Quoted(text) => text,
        }
    }

    /// As text: what is hexadecimal is decoded, zero bytes between arguments become spaces.
    pub(super) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Bare(text) => match decode(text.as_bytes()) {
                Some(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
                None => self.plain().into(),
            },
            Self::Quoted(text) => text.into(),
        }
    }
}

/// All pairs of one record, those inside `msg='…'` in its place.
pub(super) struct Pairs<'a>(&'a str);

impl<'a> Pairs<'a> {
    pub(super) fn of(record: &'a str) -> Self {
        Self(record)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // 0x1d stands before what the daemon adds in words.
            let rest = self.0.trim_start_matches([' ', '\x1d', '\'', ',']);
            let (key, value) = rest.split_once('=')?;
            // A word that is no pair, such as `denied` in `avc:  denied  { read }`.
            let key = key.rsplit([' ', '\x1d', '\'']).next().unwrap_or(key);
            if let Some(value) = value.strip_prefix('"') {
                let (value, rest) = value.split_once('"').unwrap_or((value, ""));
                self.0 = rest;
                return Some((key, Raw::Quoted(value)));
            }
            if let Some(inner) = value.strip_prefix('\'') {
                self.0 = inner;
                continue;
            }
            let end = value.find([' ', '\x1d', '\'']).unwrap_or(value.len());
            let (value, rest) = value.split_at_checked(end)?;
            self.0 = rest;
            return Some((key, Raw::Bare(value)));
        }
    }
}

/// Takes secrets out of hexadecimal values, where no pattern sees them. `None` if there is none.
pub(crate) fn scrub_hex(line: &[u8], scrub: impl Fn(&[u8]) -> Option<(Bytes, Found)>) -> Option<(Bytes, Found)> {
    let mut clean = BytesMut::new();
    let mut found = Found::new();
    let (mut done, mut at) = (0, 0);
    while let Some(place) = memchr2(b'=', b' ', line.get(at..)?).map(|place| at + place + 1) {
        let digits = line.get(place..)?.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        at = place + digits;
        if digits < SECRET_MIN_HEX {
            continue;
        }
        let Some(bytes) = line.get(place..at).and_then(decode) else { continue };
        if let Some((text, more)) = scrub(&bytes) {
            clean.extend_from_slice(line.get(done..place)?);
            clean.extend_from_slice(hex::encode_upper(&text).as_bytes());
            note(&mut found, more);
            done = at;
        }
    }
    if found.is_empty() {
        return None;
    }
    clean.extend_from_slice(line.get(done..)?);
    Some((clean.freeze(), found))
}

/// Bytes of an even number of hexadecimal digits, zero bytes as spaces.
fn decode(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.len() < 2 {
        return None;
    }
    let mut bytes = hex::decode(digits).ok()?;
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::Scrubber;

    #[test]
    fn pairs_are_read_whatever_their_quotes() {
        let text = "pid=1 avc:  denied  { read } name=\"a b\" msg='op=x acct=616263 res=failed'\x1dUID=\"root\" last=";
        let pairs: Vec<_> = Pairs::of(text).map(|(key, value)| (key, value.text().into_owned())).collect();
        let expected = [
            ("pid", "1"),
            ("name", "a b"),
            ("op", "x"),
            ("acct", "abc"),
            ("res", "failed"),
            ("UID", "root"),
            ("last", ""),
        ];
        assert_eq!(pairs, expected.map(|(key, value)| (key, value.to_owned())));
        assert_eq!(Pairs::of("no pairs at all").next(), None);
        assert_eq!(Pairs::of("a=\"open").next(), Some(("a", Raw::Quoted("open"))));
    }

    #[test]
    fn secrets_do_not_hide_in_digits() {
        let scrubber = Scrubber::new(&[]).unwrap();
        let scrub = |line: &str| scrub_hex(line.as_bytes(), |bytes| scrubber.scrub(bytes));
        // The command line, its arguments divided by zero bytes.
        let title = hex::encode_upper(b"mysql\0-u\0root\0-phunter22\0db");
        let (clean, found) = scrub(&format!("type=PROCTITLE proctitle={title} x=1")).unwrap();
        let expected = hex::encode_upper(b"mysql -u root -p[scrubbed:argument] db");
        assert_eq!(clean, format!("type=PROCTITLE proctitle={expected} x=1"));
        assert_eq!(found.len(), 1);
        let harmless = hex::encode_upper(b"ls -l /home");
        assert_eq!(scrub(&format!("type=PROCTITLE proctitle={harmless}")), None);
        assert_eq!(scrub("a=ABCDEF012 b= "), None);
    }
}
