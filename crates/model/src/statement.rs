//! Statements: records of the product that verifiers read. Orders of officers, and what the server did by them.
//!
//! A statement is the text in the field `original` (3) of the content part of a record of class and source "journal". Its first
//! line is `sigillo <kind> v1`, its second the origin.
//!
//! ```text
//! sigillo erasure v1                 a note that two officers have signed
//! <origin>
//! <basis, one line>
//! <sequence> <parts>                 ascending; parts: `record`, or some of core,personal,content
//!
//! sigillo retention v1               a note that two officers have signed
//! <origin>
//! <retention class>
//! <seconds to keep>
//!
//! sigillo purge v1                   the server's own word
//! <origin>
//! <from>
//! <to, exclusive>
//! <retention class>
//! <sequence of the retention statement>
//! ```

pub mod counters;

use std::fmt::Write;

use crate::{
    class::Class,
    entry::Gone,
    ids::{ClassId, Origin, ReceiptTime, RetentionId, SourceId},
    note::{KeyKind, Note, NoteError, VerifierKey},
    record::Part,
    text,
};

/// Targets of an erasure order at most; the limit of a note may be met before.
pub const TARGETS_MAX: usize = 4_096;
/// Bytes of an order's basis at most.
pub const BASIS_MAX_BYTES: usize = 1_024;
/// Seconds that a retention statement may ask for at most: a hundred years.
pub const KEEP_MAX_S: u64 = 100 * 366 * 86_400;

const START: &[u8] = b"sigillo ";
const ERASURE: &str = "sigillo erasure v1";
const RETENTION: &str = "sigillo retention v1";
const PURGE: &str = "sigillo purge v1";
const MINUTE_NS: u64 = 60_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Id of the source under which the product's own records stand, statements among them.
pub fn journal_source() -> SourceId {
    SourceId::from_name(Class::Journal.name())
}

/// True if records of this class and source may be statements.
pub fn may_be_statement(class: ClassId, source: SourceId) -> bool {
    class == Class::Journal.id() && source == journal_source()
}

/// The field `original` of an encoded content part; `None` if there is none or the bytes are no message.
pub fn original(content: &[u8]) -> Option<&[u8]> {
    let mut rest = content;
    let mut found = None;
    while !rest.is_empty() {
        let (key, after) = varint(rest)?;
        let length = match key & 7 {
            0 => after.len() - varint(after)?.1.len(),
            1 => 8,
            5 => 4,
            2 => {
                let (length, value) = varint(after)?;
                let (value, after) = value.split_at_checked(usize::try_from(length).ok()?)?;
                if key >> 3 == 3 {
                    // Of a field that stands twice the last one counts.
                    found = Some(value);
                }
                rest = after;
                continue;
            }
            _ => return None,
        };
        rest = after.get(length..)?;
    }
    found
}

/// A number in protobuf's encoding, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// True if a record with this content, of the journal's own source, is a statement of any kind: such a record is never erased or
/// purged, for what it says is needed to judge what is gone.
pub fn is_statement(content: &[u8]) -> bool {
    original(content).is_some_and(|text| text.starts_with(START))
}

/// Why a text is not taken for a statement or an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not a signed note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A line that is not what it should be. Counted from 1.
    #[error("line {0} is not what it should be")]
    Line(usize),
    /// Of another journal.
    #[error("it is about the journal {0:?}, not this one")]
    Origin(String),
    /// None of the kinds that officers sign.
    #[error("it is no order: the first line is `{ERASURE}` or `{RETENTION}`")]
    Kind,
    /// Fewer than two of the officers' keys have signed.
    #[error("two different officers must sign: one who proposes and one who approves; {0} did")]
    Officers(usize),
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// What officers ordered.
    Order(Order),
    /// What the server purged.
    Purge(Purge),
    /// Of a kind that has nothing to do with removals, or that this version does not know.
    Other,
}

impl Statement {
    /// Reads a statement's text. `None`: it is none.
    pub fn parse(text: &[u8], origin: &Origin) -> Option<Result<Self, StatementError>> {
        if !text.starts_with(START) {
            return None;
        }
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Some(if first == PURGE.as_bytes() {
            Purge::parse(text, origin).map(Self::Purge)
        } else if first == ERASURE.as_bytes() || first == RETENTION.as_bytes() {
            Order::parse(text, origin).map(Self::Order)
        } else {
            Ok(Self::Other)
        })
    }
}

/// What officers order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Records or parts of them are to go.
    Erase(Erasure),
    /// How long the payloads of a retention class are kept, from now on.
    Keep(Retention),
}

/// Which records or parts are to go, and on what ground.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// The legal ground, a case number, a sentence: one line.
    pub basis: String,
    /// Sequences, ascending, each with what is to go of it.
    pub targets: Vec<(u64, Gone)>,
}

/// How long the payloads of a retention class are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The class.
    pub class: RetentionId,
    /// Seconds after the minute of receipt.
    pub keep_s: u64,
}

impl Retention {
    /// True if a record received at `received` is due to be purged at `now`: the minute of its receipt ended long enough ago.
    /// Minutes, so that a verifier needs to remember one number for each.
    pub fn is_due(&self, received: ReceiptTime, now: ReceiptTime) -> bool {
        self.due_before(now).is_some_and(|due| received < due)
    }

    /// Records received before this time are due at `now`; `None` if nothing can be.
    pub fn due_before(&self, now: ReceiptTime) -> Option<ReceiptTime> {
        let latest = now.get().checked_sub(self.keep_s.checked_mul(SECOND_NS)?)?;
        Some(minute(ReceiptTime::new(latest)))
    }
}

/// The beginning of the minute.
pub(crate) fn minute(time: ReceiptTime) -> ReceiptTime {
    ReceiptTime::new(time.get() - time.get() % MINUTE_NS)
}

/// An order with the signatures under it, which are to be checked before anything is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What is ordered.
    pub act: Act,
    note: Note,
}

impl Order {
    /// The text to sign, which two officers then sign one after the other.
    pub fn text(origin: &Origin, act: &Act) -> String {
        match act {
            Act::Erase(erasure) => {
                let mut text = format!("{ERASURE}\n{origin}\n{}\n", erasure.basis);
                for (seq, gone) in &erasure.targets {
                    // Writing to a String can't fail.
                    let _ = writeln!(text, "{seq} {gone}");
                }
                text
            }
            Act::Keep(Retention { class, keep_s }) => format!("{RETENTION}\n{origin}\n{class}\n{keep_s}\n"),
        }
    }

    /// Reads an order of the journal `origin`. Signatures are not checked here.
    pub fn parse(bytes: &[u8], origin: &Origin) -> Result<Self, StatementError> {
        let note = Note::parse(bytes)?;
        let act = parse_act(note.text(), origin)?;
        Ok(Self { act, note })
    }

    /// The signed note, as it is kept.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that two different ones of the `officers` have signed, and nobody in their name wrongly. Their places in `officers`,
    /// the proposer's first.
    pub fn check(&self, officers: &[VerifierKey]) -> Result<(usize, usize), StatementError> {
        let verified = self.note.verify(officers)?;
        let key = |place: usize| officers.get(place).filter(|key| key.kind() == KeyKind::Log);
        let signed: Vec<usize> =
            verified.iter().map(|signature| signature.key).filter(|place| key(*place).is_some()).collect();
        let first = *signed.first().ok_or(StatementError::Officers(0))?;
        let public = |place| key(place).map(VerifierKey::public_bytes);
        let second = signed.into_iter().find(|place| public(*place) != public(first));
        second.map(|second| (first, second)).ok_or(StatementError::Officers(1))
    }

    /// Checks that two signatures stand under it that claim different keys, for who knows no officers.
    pub fn check_form(&self) -> Result<(), StatementError> {
        let claim = |signature: &crate::note::Signature| (signature.name().to_owned(), signature.id());
        let signatures = self.note.signatures();
        let first = signatures.first().map(claim);
        let differs = signatures.iter().any(|other| Some(claim(other)) != first);
        if differs { Ok(()) } else { Err(StatementError::Officers(signatures.len().min(1))) }
    }
}

/// Reads the text of an order.
pub fn parse_act(text: &str, origin: &Origin) -> Result<Act, StatementError> {
    let mut lines = Lines::new(text);
    let act = match lines.next()? {
        ERASURE => {
            lines.origin(origin)?;
            let basis = lines.next()?;
            if basis.is_empty() || basis.len() > BASIS_MAX_BYTES {
                return Err(lines.wrong());
            }
            let mut targets: Vec<(u64, Gone)> = Vec::new();
            while let Some(line) = lines.more() {
                let (seq, parts) = line.split_once(' ').ok_or_else(|| lines.wrong())?;
                let target = text::decimal(seq).zip(parse_parts(parts)).ok_or_else(|| lines.wrong())?;
                if targets.len() == TARGETS_MAX || targets.last().is_some_and(|(last, _)| *last >= target.0) {
                    return Err(lines.wrong());
                }
                targets.push(target);
            }
            if targets.is_empty() {
                return Err(lines.wrong());
            }
            Act::Erase(Erasure { basis: basis.to_owned(), targets })
        }
        RETENTION => {
            lines.origin(origin)?;
            let class = lines.class()?;
            let keep_s = lines.number()?;
            if keep_s > KEEP_MAX_S {
                return Err(lines.wrong());
            }
            Act::Keep(Retention { class, keep_s })
        }
        _ => return Err(StatementError::Kind),
    };
    lines.end()?;
    Ok(act)
}

/// Reads `record`, or some of `core,personal,content` in this order; all three of them are written `record`.
pub fn parse_parts(text: &str) -> Option<Gone> {
    if text == "record" {
        return Some(Gone::RECORD);
    }
    let mut gone = Gone::NOTHING;
    for word in text.split(',') {
        let part = Part::ALL.into_iter().find(|part| part.name() == word)?;
        gone = gone.with(Gone::part(part));
    }
    (gone != Gone::RECORD && gone.to_string() == text).then_some(gone)
}

/// What the server purged: the payloads of all records of a retention class in a range that were due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// First sequence.
    pub from: u64,
    /// The sequence after the last.
    pub to: u64,
    /// The class; records of others stay.
    pub class: RetentionId,
    /// Sequence of the retention statement by which they were due: the newest of the class before the purge.
    pub retention: u64,
}

impl Purge {
    /// The statement's text.
    pub fn text(&self, origin: &Origin) -> String {
        let Self { from, to, class, retention } = self;
        format!("{PURGE}\n{origin}\n{from}\n{to}\n{class}\n{retention}\n")
    }

    fn parse(bytes: &[u8], origin: &Origin) -> Result<Self, StatementError> {
        let text = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        let mut lines = Lines::new(text);
        lines.next()?;
        lines.origin(origin)?;
        let (from, to) = (lines.number()?, lines.number()?);
        if from >= to {
            return Err(lines.wrong());
        }
        let purge = Self { from, to, class: lines.class()?, retention: lines.number()? };
        lines.end()?;
        Ok(purge)
    }
}

/// The lines of a text, each of which ends in a newline.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, number: 0 }
    }

    /// The line that was read last is not what it should be.
    fn wrong(&self) -> StatementError {
        StatementError::Line(self.number)
    }

    fn more(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        self.number += 1;
        Some(line)
    }

    fn next(&mut self) -> Result<&'a str, StatementError> {
        self.more().ok_or(StatementError::Line(self.number + 1))
    }

    fn origin(&mut self, origin: &Origin) -> Result<(), StatementError> {
        let line = self.next()?;
        if line == origin.as_str() { Ok(()) } else { Err(StatementError::Origin(line.to_owned())) }
    }

    fn number(&mut self) -> Result<u64, StatementError> {
        let line = self.next()?;
        text::decimal(line).ok_or_else(|| self.wrong())
    }

    fn class(&mut self) -> Result<RetentionId, StatementError> {
        let number = self.number()?;
        u16::try_from(number).map(RetentionId::new).map_err(|_| self.wrong())
    }

    fn end(&self) -> Result<(), StatementError> {
        if self.rest.is_empty() { Ok(()) } else { Err(StatementError::Line(self.number + 1)) }
    }
}

#[cfg(test)]
mod tests;
