//! A record: three parts, each encoded once by whoever first saw the line, and never re-encoded.

use bytes::Bytes;

/// One part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Part {
    /// When, what, on what, with what outcome, where.
    Core = 0,
    /// Who.
    Personal = 1,
    /// The words themselves.
    Content = 2,
}

impl Part {
    /// All parts, in the order in which they are hashed and laid out.
    pub const ALL: [Self; 3] = [Self::Core, Self::Personal, Self::Content];

    /// Its name in orders and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Personal => "personal",
            Self::Content => "content",
        }
    }

    /// Its number `j` in the hashes.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Bits of a bitmap of present parts that may be set.
pub const PART_BITS: u8 = 0b111;

/// The encoded parts of a record, borrowed. Index: [`Part`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordRef<'a> {
    /// Encoded `CorePart`, if present.
    pub core: Option<&'a [u8]>,
    /// Encoded `PersonalPart`, if present.
    pub personal: Option<&'a [u8]>,
    /// Encoded `ContentPart`, if present.
    pub content: Option<&'a [u8]>,
}

impl<'a> RecordRef<'a> {
    /// The bytes of one part.
    pub const fn part(&self, part: Part) -> Option<&'a [u8]> {
        match part {
            Part::Core => self.core,
            Part::Personal => self.personal,
            Part::Content => self.content,
        }
    }

    /// One bit per present part: bit `j` for part `j`.
    pub fn bitmap(&self) -> u8 {
        Part::ALL.iter().filter(|part| self.part(**part).is_some()).fold(0, |bits, part| bits | 1 << part.number())
    }

    /// Bytes of the parts together.
    pub fn length(&self) -> usize {
        Part::ALL.iter().filter_map(|part| self.part(*part)).map(<[u8]>::len).sum()
    }
}

/// The encoded parts of a record, owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Encoded `CorePart`, if present.
    pub core: Option<Bytes>,
    /// Encoded `PersonalPart`, if present.
    pub personal: Option<Bytes>,
    /// Encoded `ContentPart`, if present.
    pub content: Option<Bytes>,
}

impl Record {
    /// The same record, borrowed.
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef { core: self.core.as_deref(), personal: self.personal.as_deref(), content: self.content.as_deref() }
    }
}

impl From<RecordRef<'_>> for Record {
    fn from(record: RecordRef<'_>) -> Self {
        let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        Self { core: copy(record.core), personal: copy(record.personal), content: copy(record.content) }
    }
}
