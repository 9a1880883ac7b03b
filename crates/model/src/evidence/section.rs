//! The container: a magic line, then sections in fixed order, each with its length before it.
//!
//! ```text
//! "sigillo evidence v1\n"
//! sections, each: u8 kind, u32 bytes, then these bytes
//! ```

use super::report::Finding;

/// The first bytes of every evidence file.
pub const MAGIC: &[u8] = b"sigillo evidence v1\n";
/// Bytes of what stands before a section.
pub const HEADER_BYTES: usize = 5;

/// What a section holds. [`Kind::ALL`] has them in the order in which they stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Origin, query, who exported, why, when.
    About = 1,
    /// The trust file as the exporter saw it: for information only.
    Trust = 2,
    /// A rotation of the log's key.
    Rotation = 3,
    /// The checkpoint to which everything is proved.
    Checkpoint = 4,
    /// A smaller checkpoint, with its proof of consistency.
    Earlier = 5,
    /// A run of a source's or tenant's counters that the file claims to hold whole.
    Run = 6,
    /// Records, and the hashes of the gap before them.
    Records = 7,
    /// The hashes of the gap after the last record.
    Edge = 8,
    /// The proof of a run's end.
    Counters = 9,
    /// A time-stamp token over a checkpoint's note.
    Token = 10,
    /// What leads from records to a head that their source has signed. Stands before the records.
    Head = 11,
    /// Reserved for the records that say what sources and tenants are.
    Register = 12,
    /// Hashes of the format page and of the verifier.
    Tools = 13,
    /// The digest of all before, and the exporter's signature.
    End = 14,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 14] = [
        Self::About,
        Self::Trust,
        Self::Rotation,
        Self::Checkpoint,
        Self::Earlier,
        Self::Run,
        Self::Head,
        Self::Records,
        Self::Edge,
        Self::Counters,
        Self::Token,
        Self::Register,
        Self::Tools,
        Self::End,
    ];

    /// The kind of this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Its place in the order of sections.
    fn place(self) -> usize {
        Self::ALL.into_iter().position(|kind| kind == self).unwrap_or(Self::ALL.len())
    }

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::About => "about",
            Self::Trust => "trust",
            Self::Rotation => "rotation",
            Self::Checkpoint => "checkpoint",
            Self::Earlier => "earlier checkpoint",
            Self::Run => "run",
            Self::Records => "records",
            Self::Edge => "edge",
            Self::Counters => "counters",
            Self::Token => "time-stamp token",
            Self::Head => "signed head",
            Self::Register => "register",
            Self::Tools => "tools",
            Self::End => "end",
        }
    }

    /// Bytes of one section of this kind at most.
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::About => 128 << 10,
            Self::Rotation | Self::Checkpoint | Self::Token | Self::End => 64 << 10,
            Self::Earlier => 72 << 10,
            Self::Run => 1 << 10,
            Self::Records => 4 << 20,
            Self::Edge | Self::Counters => 8 << 10,
            Self::Trust | Self::Head | Self::Register => 1 << 20,
            Self::Tools => 64,
        }
    }

    /// Sections of this kind in a file at most. The least is one for those of which there is one at most, else none.
    pub const fn max_count(self) -> u64 {
        match self {
            Self::About | Self::Trust | Self::Checkpoint | Self::Edge | Self::Tools | Self::End => 1,
            Self::Rotation | Self::Token | Self::Register => 64,
            Self::Head => 4_096,
            Self::Earlier => 1_024,
            Self::Run | Self::Counters => 16,
            Self::Records => u64::MAX,
        }
    }
}

/// What stands before a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the section holds.
    pub kind: Kind,
    /// Bytes that follow; at most [`Kind::max_bytes`].
    pub length: usize,
}

impl Header {
    /// Reads the bytes before a section.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, Finding> {
        let [kind, length @ ..] = bytes;
        let kind = Kind::from_number(kind).ok_or(Finding::UnknownSection(kind))?;
        let length = u32::from_be_bytes(length) as usize;
        if length > kind.max_bytes() {
            return Err(Finding::SectionTooLong { kind, length });
        }
        Ok(Self { kind, length })
    }

    /// The bytes before a section.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        [self.kind as u8, a, b, c, d]
    }
}

/// Watches over order and number of sections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Order {
    last: Option<Kind>,
    count: u64,
}

impl Order {
    /// After the last records and what proves the runs' ends.
    pub(super) fn after_records() -> Self {
        Self { last: Some(Kind::Counters), count: Kind::Counters.max_count() }
    }

    /// Takes the next section, if it may stand here.
    pub(super) fn step(&mut self, kind: Kind) -> Result<(), Finding> {
        let misplaced = Finding::SectionMisplaced { kind, after: self.last };
        match self.last {
            Some(last) if last == kind => {
                self.count = self.count.saturating_add(1);
            }
            Some(last) if last.place() > kind.place() => return Err(misplaced),
            _ => self.count = 1,
        }
        // Kinds of which each file has exactly one: none of them may be stepped over.
        let before = |first: Kind, second: Kind| first.place() < second.place();
        let skipped = |between: Kind| {
            between.max_count() == 1 && before(between, kind) && self.last.is_none_or(|last| before(last, between))
        };
        if self.count > kind.max_count() || Kind::ALL.into_iter().any(skipped) {
            return Err(misplaced);
        }
        self.last = Some(kind);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Kind::{About, Checkpoint, Earlier, Edge, End, Head, Records, Rotation, Run, Token, Tools, Trust},
        *,
    };

    #[test]
    fn headers_are_bounded() {
        for kind in Kind::ALL {
            let most = Header { kind, length: kind.max_bytes() };
            assert_eq!(Header::parse(most.to_bytes()), Ok(most));
            let more = Header { kind, length: kind.max_bytes() + 1 };
            assert!(Header::parse(more.to_bytes()).is_err());
        }
        for number in [0, 15, 255] {
            assert_eq!(Header::parse([number, 0, 0, 0, 0]), Err(Finding::UnknownSection(number)));
        }
    }

    #[test]
    fn order_is_kept() {
        let takes = |kinds: &[Kind]| {
            let mut order = Order::default();
            kinds.iter().all(|kind| order.step(*kind).is_ok())
        };
        assert!(takes(&[About, Trust, Checkpoint, Edge, Tools, End]));
        assert!(takes(&[
            About, Trust, Rotation, Rotation, Checkpoint, Earlier, Records, Records, Edge, Token, Tools, End
        ]));
        assert!(!takes(&[Trust]));
        assert!(!takes(&[About, Checkpoint]));
        assert!(!takes(&[About, Trust, Checkpoint, Checkpoint]));
        assert!(!takes(&[About, Trust, Checkpoint, Records, Earlier]));
        assert!(!takes(&[About, Trust, Checkpoint, Records, Edge, End]));
        assert!(!takes(&[About, Trust, Checkpoint, Records, Edge, Tools, End, End]));
        assert!(takes(&[About, Trust, Checkpoint, Run, Head, Head, Records, Edge, Tools, End]));
        assert!(!takes(&[About, Trust, Checkpoint, Records, Head, Edge, Tools, End]));
        let mut many = vec![About, Trust];
        many.extend([Rotation; 65]);
        assert!(!takes(&many));
    }
}
