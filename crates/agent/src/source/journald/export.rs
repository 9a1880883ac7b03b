//! The journal's export format, as `journalctl --output=export` writes it (<https://systemd.io/JOURNAL_EXPORT_FORMATS/>): one field a
//! line, `NAME=value`; a value that is no plain text as `NAME`, a line end, its length in 8 bytes, least first, its bytes and a line
//! end; an empty line after each entry. Of other forms that there are, JSON shows a byte as up to four and has no bound that a reader
//! could keep.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};

use crate::line::LINE_MAX_BYTES;

/// The fields that are asked for. `__CURSOR` and `__REALTIME_TIMESTAMP` come unasked.
pub(super) const FIELDS: [&str; 10] = [
    "MESSAGE",
    "MESSAGE_ID",
    "N_DROPPED",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "_COMM",
    "_HOSTNAME",
    "_PID",
    "_SYSTEMD_UNIT",
    "_TRANSPORT",
];
/// Those that tell the unit, asked for only where units are chosen.
pub(super) const UNIT_FIELDS: [&str; 5] = ["COREDUMP_UNIT", "OBJECT_SYSTEMD_UNIT", "UNIT", "_SYSTEMD_SLICE", "_UID"];
/// Bytes of a message that are held before they are given away in pieces.
const HELD_MAX_BYTES: usize = LINE_MAX_BYTES;
/// Bytes that are moved at once, so that a last part still fits a chunk.
const STEP_BYTES: usize = LINE_MAX_BYTES / 2;
/// Bytes of any other field that are kept.
const FIELD_KEPT_BYTES: usize = 4_096;
/// Longest name of a field: the journal allows 64 bytes.
const NAME_MAX_BYTES: usize = 256;

/// An entry, or as much of one as is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Names and values, the message excepted, in the order in which they came.
    fields: Vec<(&'static str, Bytes)>,
    /// The cursor; empty if there was none.
    pub(super) cursor: Bytes,
    /// Microseconds since 1970.
    realtime_us: Bytes,
    /// The message, or the next part of it. `None`: the entry has none.
    pub(super) message: Option<Bytes>,
    /// Bytes of the message that were given away before.
    pub(super) given: u64,
    /// Whether the entry ends here.
    pub(super) whole: bool,
}

impl Entry {
    /// A field's value; empty if there is none, or if it is no text.
    pub(super) fn text(&self, name: &str) -> &str {
        let field = self.fields.iter().find(|(known, _)| *known == name);
        field.and_then(|(_, value)| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// When journald took it; 0 if that is not said.
    pub(super) fn time_unix_nano(&self) -> u64 {
        let text = std::str::from_utf8(&self.realtime_us).ok();
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default().saturating_mul(1_000)
    }

    /// What stands for the line: the message, or else the fields that were asked for, one a line.
    pub(super) fn original(&self) -> Bytes {
        if let Some(message) = &self.message {
            return message.clone();
        }
        let fields = self.fields.iter().filter(|(name, _)| FIELDS.contains(name));
        let lines: Vec<_> = fields.map(|(name, value)| [name.as_bytes(), value].join(&b'=')).collect();
        lines.join(&b'\n').into()
    }
}

/// Reads entries out of a stream of bytes. Holds what was pushed and not taken, and [`HELD_MAX_BYTES`] of a message.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: BytesMut,
    state: State,
    entry: Entry,
    message: BytesMut,
    has_message: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// At the beginning of a line.
    #[default]
    Name,
    /// Within a value that ends with its line.
    Text(Field),
    /// Before a length.
    Length(Field),
    /// Within a value of which that many bytes are to come, and a line end.
    Binary(Field, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Cursor,
    Realtime,
    Message,
    /// One of [`FIELDS`] or [`UNIT_FIELDS`].
    Kept(&'static str),
    Other,
}

impl Parser {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next entry, or the next part of one with a long message; `None` until more is pushed.
    pub(super) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if self.message.len() > HELD_MAX_BYTES {
                return Ok(Some(self.part()));
            }
            match self.state {
                State::Name => match self.name()? {
                    Step::Entry => return Ok(Some(self.end())),
                    Step::On => {}
                    Step::More => return Ok(None),
                },
                State::Text(field) => {
                    let window = self.buffer.get(..STEP_BYTES).unwrap_or(&self.buffer);
                    match memchr(b'\n', window) {
                        Some(end) => {
                            let value = self.buffer.split_to(end);
                            self.buffer.advance(1);
                            self.state = State::Name;
                            self.take(field, &value);
                        }
                        None if self.buffer.is_empty() => return Ok(None),
                        None => {
                            let value = self.buffer.split_to(window.len());
                            self.take(field, &value);
                        }
                    }
                }
                State::Length(field) => {
                    let Some(bytes) = self.buffer.first_chunk::<8>() else { return Ok(None) };
                    let length = u64::from_le_bytes(*bytes);
                    self.buffer.advance(8);
                    self.state = State::Binary(field, length);
                }
                State::Binary(field, 0) => match self.buffer.first() {
                    None => return Ok(None),
                    Some(b'\n') => {
                        self.buffer.advance(1);
                        self.state = State::Name;
                        // Also a value of no bytes is a value.
                        self.take(field, &[]);
                    }
                    Some(_) => return Err(damaged("a value without its line end")),
                },
                State::Binary(_, _) if self.buffer.is_empty() => return Ok(None),
                State::Binary(field, left) => {
                    let there = self.buffer.len().min(STEP_BYTES);
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(there);
                    let value = self.buffer.split_to(count);
                    self.state = State::Binary(field, left - count as u64);
                    self.take(field, &value);
                }
            }
        }
    }

    fn name(&mut self) -> io::Result<Step> {
        let window = self.buffer.get(..NAME_MAX_BYTES).unwrap_or(&self.buffer);
        let Some(end) = memchr2(b'=', b'\n', window) else {
            return if window.len() < NAME_MAX_BYTES { Ok(Step::More) } else { Err(damaged("a name without end")) };
        };
        let line = self.buffer.split_to(end);
        let is_text = self.buffer.first() == Some(&b'=');
        self.buffer.advance(1);
        if line.is_empty() && !is_text {
            // More than one empty line may stand between entries.
            return Ok(if self.entry.cursor.is_empty() && !self.has_message { Step::On } else { Step::Entry });
        }
        let field = match &line[..] {
            b"__CURSOR" => Field::Cursor,
            b"__REALTIME_TIMESTAMP" => Field::Realtime,
            b"MESSAGE" => Field::Message,
            name => {
                let mut kept = FIELDS.into_iter().chain(UNIT_FIELDS);
                kept.find(|known| known.as_bytes() == name).map_or(Field::Other, Field::Kept)
            }
        };
        self.state = if is_text { State::Text(field) } else { State::Length(field) };
        match field {
            // A field may occur twice.
            Field::Message if self.has_message => self.message.extend_from_slice(b"\n"),
            Field::Message => self.has_message = true,
            Field::Kept(name) => self.entry.fields.push((name, Bytes::new())),
            _ => {}
        }
        Ok(Step::On)
    }

    /// A value, or the next part of one.
    fn take(&mut self, field: Field, value: &[u8]) {
        let kept = match field {
            Field::Message => return self.message.extend_from_slice(value),
            Field::Other => return,
            Field::Cursor => &mut self.entry.cursor,
            Field::Realtime => &mut self.entry.realtime_us,
            Field::Kept(_) => match self.entry.fields.last_mut() {
                Some((_, kept)) => kept,
                None => return,
            },
        };
        let room = FIELD_KEPT_BYTES.saturating_sub(kept.len());
        let value = value.get(..room).unwrap_or(value);
        if !value.is_empty() {
            *kept = [&kept[..], value].concat().into();
        }
    }

    fn part(&mut self) -> Entry {
        let part = self.message.split_to(HELD_MAX_BYTES).freeze();
        let given = self.entry.given;
        self.entry.given += part.len() as u64;
        Entry { message: Some(part), given, whole: false, ..self.entry.clone() }
    }

    fn end(&mut self) -> Entry {
        let message = std::mem::take(&mut self.has_message).then(|| self.message.split().freeze());
        Entry { message, whole: true, ..std::mem::take(&mut self.entry) }
    }
}

enum Step {
    Entry,
    On,
    More,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("journalctl's output can't be read: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(bytes: &[u8], step: usize) -> io::Result<Vec<Entry>> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for part in bytes.chunks(step) {
            parser.push(part);
            while let Some(entry) = parser.next_entry()? {
                found.push(entry);
            }
        }
        Ok(found)
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn text_and_binary_fields_are_read_however_the_bytes_come() {
        let mut bytes = b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=17\nSYSLOG_IDENTIFIER=sshd\nOTHER=x\n".to_vec();
        bytes.extend(binary("MESSAGE", b"a\nb\xff\n\n"));
        bytes.extend(binary("COREDUMP", &[10; 100]));
        bytes.extend(b"_PID=42\n\n\n__CURSOR=c\nMESSAGE=\n\n__CURSOR=d\nPRIORITY=3\n_PID=7\n\n");
        for step in 1..bytes.len() {
            let found = entries(&bytes, step).unwrap();
            let [first, second, third] = &found[..] else { panic!("{found:?}") };
            assert_eq!(first.message.as_deref(), Some(&b"a\nb\xff\n\n"[..]), "in steps of {step}");
            assert_eq!((first.text("SYSLOG_IDENTIFIER"), first.text("_PID")), ("sshd", "42"));
            assert_eq!((first.time_unix_nano(), &first.cursor[..]), (17_000, &b"s=1;i=2"[..]));
            assert_eq!((second.original(), &second.cursor[..]), (Bytes::new(), &b"c"[..]));
            assert_eq!((third.original(), third.message.is_none()), (Bytes::from("PRIORITY=3\n_PID=7"), true));
        }
    }

    #[test]
    fn a_long_message_is_given_in_parts_and_little_is_held() {
        for text in [false, true] {
            let message = vec![b'x'; 5 * HELD_MAX_BYTES + 3];
            let field = if text { [b"MESSAGE=", &message[..], b"\n"].concat() } else { binary("MESSAGE", &message) };
            let bytes = [b"__CURSOR=c\n", &field[..], b"PRIORITY=4\n\n__CURSOR=d\nMESSAGE=y\n\n"].concat();
            let found = entries(&bytes, 100_000).unwrap();
            let (last, long) = found.split_last().unwrap();
            assert_eq!((&last.cursor[..], last.given, last.whole), (&b"d"[..], 0, true));
            let mut given = 0;
            for part in long {
                assert_eq!((part.given, &part.cursor[..]), (given, &b"c"[..]));
                given += part.message.as_ref().unwrap().len() as u64;
                assert_eq!(part.whole, given == message.len() as u64);
                assert!(part.message.as_ref().unwrap().len() <= HELD_MAX_BYTES + STEP_BYTES);
            }
            assert_eq!((given, long.last().unwrap().text("PRIORITY")), (message.len() as u64, "4"));
        }
    }

    #[test]
    fn long_fields_are_cut() {
        let bytes = [b"__CURSOR=c\n_COMM=", &[b'x'; 9_000][..], b"\nMESSAGE=m\n\n"].concat();
        assert_eq!(entries(&bytes, 1_000).unwrap()[0].text("_COMM").len(), FIELD_KEPT_BYTES);
    }

    #[test]
    fn what_is_no_export_is_an_error() {
        assert!(entries(&[b'x'; 300], 300).is_err());
        assert!(entries(b"MESSAGE\n\x01\0\0\0\0\0\0\0ab\n", 7).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600), step in 1_usize..50) {
            let _ = entries(&bytes, step);
        }

        #[test]
        fn any_message_comes_back(message in proptest::collection::vec(any::<u8>(), 0..600), step in 1_usize..50) {
            let bytes = [b"__CURSOR=c\n", &binary("MESSAGE", &message)[..], b"\n"].concat();
            let found = entries(&bytes, step).unwrap();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].message.as_deref(), Some(&message[..]));
        }
    }
}
