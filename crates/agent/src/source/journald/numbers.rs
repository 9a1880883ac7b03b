//! The journal's own counter.
//!
//! A cursor reads `s=<sequence id>;i=<number>;b=<boot id>;m=<monotonic µs>;t=<time µs>;x=<hash>`, numbers hexadecimal. Every entry that
//! journald writes takes the next number. Up to systemd 253 the system's files and each user's have a sequence id of their own, but one
//! counter; since then the id is one, too. Files of other machines in the same directory count for themselves. So an entry follows
//! well if the number before its own is the last one that was read of any sequence; a sequence that was not read before may begin
//! anywhere.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Sequences that are remembered: the ones read last.
const SEQUENCES_MAX: usize = 48;
const VERSION: u32 = 1;
/// Longest cursor that is taken: a mark has 4 KiB.
const CURSOR_MAX_BYTES: usize = 512;

/// A place in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) text: String,
    pub(super) sequence: u128,
    pub(super) number: u64,
    /// Boot, monotonic time, time and hash: the same entry may stand under another number in another file.
    place: Option<(u128, u64, u64, u64)>,
}

impl Cursor {
    /// Reads a cursor; `None` if it is none that journald makes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > CURSOR_MAX_BYTES {
            return None;
        }
        let field = |name: &str| text.split(';').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let id = |name| u128::from_str_radix(field(name)?, 16).ok();
        let number = |name| u64::from_str_radix(field(name)?, 16).ok();
        let place = || Some((id("b")?, number("m")?, number("t")?, number("x")?));
        Some(Self { text: text.to_owned(), sequence: id("s")?, number: number("i")?, place: place() })
    }

    /// Whether both lead to the same entry.
    pub(super) fn is_same_entry(&self, other: &Self) -> bool {
        (self.sequence, self.number) == (other.sequence, other.number)
            || self.place.is_some() && self.place == other.place
    }
}

/// How far the journal was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Of this form. Marks before had none.
    #[serde(default)]
    v: u32,
    /// Of the entry that was read last.
    pub(super) cursor: String,
    /// Bytes of its message that were read, if that is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<u64>,
    /// Ids and last numbers of the sequences, the one read last at the end.
    #[serde(default)]
    numbers: Vec<(String, u64)>,
}

impl Mark {
    /// Reads a mark; `None` if it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mark: Self = serde_json::from_slice(bytes).ok()?;
        (mark.v <= VERSION && Cursor::parse(&mark.cursor).is_some()).then_some(mark)
    }

    /// The mark's bytes.
    pub(super) fn to_bytes(&self) -> Bytes {
        // Numbers and texts only: this can't fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Numbers that are missing before this entry, first and last; `None` if it follows well.
    pub(super) fn missing_before(&self, cursor: &Cursor) -> Option<(u64, u64)> {
        let id = id(cursor);
        self.numbers.iter().find(|(known, _)| *known == id)?;
        let before = cursor.number.checked_sub(1)?;
        let last = self.numbers.iter().map(|(_, last)| *last).filter(|last| *last < cursor.number).max()?;
        // An entry of a number that was passed already comes late, and takes no other's place.
        let is_late = self.numbers.iter().any(|(known, last)| *known == id && *last >= cursor.number);
        (last < before && !is_late).then_some((last + 1, before))
    }

    /// Whether the number before this one was read, as far as numbers tell.
    pub(super) fn is_next(&self, cursor: &Cursor) -> bool {
        self.numbers.iter().any(|(_, last)| last.checked_add(1) == Some(cursor.number))
    }

    /// The entry was read, or that many bytes of its message.
    pub(super) fn advance(&mut self, cursor: &Cursor, part: Option<u64>) {
        (self.v, self.part) = (VERSION, part);
        self.cursor.clone_from(&cursor.text);
        let id = id(cursor);
        let place = self.numbers.iter().position(|(known, _)| *known == id);
        let last = place.map_or(0, |place| self.numbers.remove(place).1);
        if self.numbers.len() >= SEQUENCES_MAX {
            self.numbers.remove(0);
        }
        self.numbers.push((id, last.max(cursor.number)));
    }
}

fn id(cursor: &Cursor) -> String {
    format!("{:032x}", cursor.sequence)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(sequence: u128, number: u64) -> Cursor {
        let text = format!("s={sequence:032x};i={number:x};b=1;m=2;t=3;x={number:x}");
        Cursor::parse(&text).unwrap()
    }

    /// What is missing before each entry.
    fn missing(entries: &[(u128, u64)]) -> Vec<Option<(u64, u64)>> {
        let mut mark = Mark::default();
        let check = |&(sequence, number): &(u128, u64)| {
            let cursor = cursor(sequence, number);
            let missing = mark.missing_before(&cursor);
            mark.advance(&cursor, None);
            missing
        };
        entries.iter().map(check).collect()
    }

    #[test]
    fn real_cursors_are_read() {
        let text = "s=484a4bab080c41eca70f4bdb9065e784;i=40;b=6966d06d78784bf28409e3cb2c56cdef;m=55f7a35e5;t=660f53eacedac;x=33abc4f35c32b091";
        let cursor = Cursor::parse(text).unwrap();
        assert_eq!((cursor.number, cursor.sequence >> 120, cursor.text.as_str()), (0x40, 0x48, text));
        let flushed = text.replace("s=48", "s=49").replace("i=40", "i=99");
        assert!(cursor.is_same_entry(&Cursor::parse(&flushed).unwrap()));
        assert!(!cursor.is_same_entry(&Cursor::parse(&flushed.replace("x=33", "x=34")).unwrap()));
        for wrong in ["", "s=1", "i=1", "s=x;i=1", "s=1;i=10000000000000000", &format!("s=1;i=1;{}", "x".repeat(600))] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn gaps_are_seen_and_sequences_may_share_a_counter_or_not() {
        for (entries, expected) in [
            (&[(1, 7), (1, 8), (1, 9)][..], vec![None, None, None]),
            (&[(1, 7), (1, 9)], vec![None, Some((8, 8))]),
            // A user's journal shares the counter.
            (&[(1, 7), (2, 8), (1, 9), (2, 11)], vec![None, None, None, Some((10, 10))]),
            // Another machine's does not.
            (&[(1, 7), (3, 900), (1, 8), (3, 901), (1, 9)], vec![None; 5]),
            // After a start the files' ends count.
            (&[(1, 7), (2, 17), (1, 8), (2, 18), (1, 19)], vec![None; 5]),
            // Late ones are no gap, and hide none.
            (&[(1, 7), (1, 8), (1, 7), (1, 10)], vec![None, None, None, Some((9, 9))]),
            (&[(1, 0), (1, u64::MAX)], vec![None, Some((1, u64::MAX - 1))]),
        ] {
            assert_eq!(missing(entries), expected, "{entries:?}");
        }
    }

    #[test]
    fn marks_stay_small_and_old_ones_are_read() {
        let mut mark = Mark::default();
        for sequence in 0..1_000 {
            mark.advance(&cursor(u128::MAX - sequence, u64::MAX), Some(u64::MAX));
        }
        mark.cursor = format!("s=1;i=1;x={}", "0".repeat(500));
        assert!(mark.to_bytes().len() <= 4_096, "{}", mark.to_bytes().len());
        assert_eq!(Mark::parse(&mark.to_bytes()), Some(mark));
        assert_eq!(Mark::parse(br#"{"cursor":"s=1;i=2"}"#).unwrap().cursor, "s=1;i=2");
        for wrong in [&b""[..], b"{}", br#"{"cursor":"x"}"#, br#"{"v":2,"cursor":"s=1;i=2"}"#] {
            assert_eq!(Mark::parse(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_cursor_or_none(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Cursor::parse(&text), Mark::parse(&bytes));
        }

        #[test]
        fn exactly_what_was_left_out_is_missing(begin in 1_u64..1_000, lengths in proptest::collection::vec((1_u64..9, 0_u64..5), 1..20)) {
            let (mut entries, mut left_out, mut number) = (Vec::new(), Vec::new(), begin);
            for (run, gap) in lengths {
                entries.extend((number..number + run).map(|number| (1, number)));
                number += run;
                left_out.extend((gap > 0).then_some((number, number + gap - 1)));
                number += gap;
            }
            entries.push((1, number));
            prop_assert_eq!(missing(&entries).into_iter().flatten().collect::<Vec<_>>(), left_out);
        }
    }
}
