//! What an evidence file proves, and what it does not: verdicts as data.

use super::{
    about::{About, Attachment, Tools},
    heads::{HeadFault, HeadVerdict},
    run::{Run, RunFault},
    seal::SealError,
    section::Kind,
    shared::GapError,
};
use crate::{
    cursor::Short,
    ids::{NodeHash, Seq},
    note::NoteError,
    policy::JudgementError,
    proof::ProofError,
    rotation::RotationError,
};

/// Something in a file that is not what it should be. The file proves nothing then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The first bytes are others.
    #[error("this is not an evidence file of version 1")]
    NotEvidence,
    /// The file ends early.
    #[error("the file ends before its end section: it was cut off")]
    Truncated,
    /// Bytes after the end.
    #[error("there are bytes after the end section")]
    Trailing,
    /// A section of a number that this version does not have.
    #[error("section {0} is not known to this program")]
    UnknownSection(u8),
    /// A section longer than its kind may be.
    #[error("the {} section says that it has {length} bytes; at most {} are taken", kind.name(), kind.max_bytes())]
    SectionTooLong {
        /// Its kind.
        kind: Kind,
        /// By its header.
        length: usize,
    },
    /// A section that may not stand where it does, or too many of its kind.
    #[error("a {} section may not stand here", kind.name())]
    SectionMisplaced {
        /// Its kind.
        kind: Kind,
        /// The kind before it.
        after: Option<Kind>,
    },
    /// A section whose fields are not in order.
    #[error("the {} section is not laid out as it should be", .0.name())]
    Section(Kind),
    /// A section whose lengths go past its end.
    #[error("a section's lengths do not add up")]
    Lengths,
    /// An envelope of no known version.
    #[error("a record's envelope is not one of version 1")]
    Envelope,
    /// A record whose bits or lengths are not in order.
    #[error("record {seq} is not laid out as it should be")]
    Record {
        /// By its envelope.
        seq: Seq,
    },
    /// A record stands elsewhere than its envelope says.
    #[error("record {expected} was expected, the envelope says {found}")]
    Sequence {
        /// By its place in the file.
        expected: u64,
        /// By the envelope.
        found: u64,
    },
    /// The receipt time goes back.
    #[error("record {0} was received before the record that precedes it")]
    Time(Seq),
    /// A stretch that goes on, from another value than the one before ended at.
    #[error("the records from {0} on do not follow from those before them")]
    Link(u64),
    /// The first record does not follow from the journal's origin.
    #[error("the journal does not begin with the value that follows from its origin")]
    Genesis,
    /// The hashes of a gap are not as many as needed.
    #[error(transparent)]
    Gap(#[from] GapError),
    /// The records don't lead to the checkpoint's root.
    #[error("the records and hashes lead to the root {found}, the checkpoint says {stated}")]
    Root {
        /// By the records.
        found: NodeHash,
        /// By the checkpoint.
        stated: NodeHash,
    },
    /// A count was used twice or goes back, which no lawful server does.
    #[error(
        "record {seq} has number {count}, which the same source or tenant had before: the journal itself was forged"
    )]
    CountTwice {
        /// The second record.
        seq: Seq,
        /// Its number.
        count: u64,
    },
    /// Two runs of one source or tenant.
    #[error("run {0} is of the same source or tenant as one before it: what lies between two runs could be withheld")]
    RunTwice(usize),
    /// The checkpoint can't be read.
    #[error("the checkpoint: {0}")]
    CheckpointNote(#[from] NoteError),
    /// The checkpoint is not signed as the trust file asks.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] JudgementError),
    /// Checkpoint and file are of different journals.
    #[error("the checkpoint is of another journal: {0}")]
    Origin(String),
    /// An earlier checkpoint that is not signed as the trust file asks, or is out of order.
    #[error("the earlier checkpoint {index}: {fault}")]
    Earlier {
        /// Its place, from 0.
        index: usize,
        /// What is wrong.
        fault: EarlierFault,
    },
    /// A rotation that does not hold.
    #[error("a rotation of the log's key: {0}")]
    Rotation(#[from] RotationError),
    /// A name that is no file name.
    #[error("the name of an attachment is not a plain file name")]
    AttachmentName,
    /// Two attachments of one name.
    #[error("two attachments have the same name")]
    AttachmentTwice,
    /// More is gone than a verifier keeps in mind.
    #[error("the file says that more is gone than a verifier keeps in mind: export a shorter range")]
    TooMuchGone,
    /// The end does not fit the file.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A run that the file claims to hold whole, and does not.
    #[error("run {run} is not what the file claims: {fault}")]
    Run {
        /// Its place, from 0.
        run: usize,
        /// Why not.
        fault: RunFault,
    },
    /// A head of a source that does not hold, or does not cover what it should.
    #[error("the signed head {index}: {fault}")]
    Head {
        /// Its place, from 0.
        index: usize,
        /// What is wrong.
        fault: HeadFault,
    },
    /// A time-stamp token that does not hold; with its name and the reason.
    #[error("the time-stamp token {name}: {reason}")]
    Token {
        /// Name of the attachment.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Why an earlier checkpoint does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EarlierFault {
    /// The note can't be read.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It is not signed as the trust file asks.
    #[error(transparent)]
    Judgement(#[from] JudgementError),
    /// It is of another journal, of size 0, not smaller than the checkpoint, or not greater than the one before.
    #[error("it is of another journal or its size is out of order")]
    Order,
    /// The log at that size is not the beginning of the log at the checkpoint.
    #[error("{0}: the log was rewritten")]
    Consistency(#[from] ProofError),
}

impl From<Short> for Finding {
    fn from(_: Short) -> Self {
        Self::Lengths
    }
}

/// A name and a time of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Of the signer, by the trust file.
    pub name: String,
    /// Seconds since 1970, by the signer's clock.
    pub time: u64,
}

/// The checkpoint to which everything is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpointed {
    /// Number of records of the journal then.
    pub size: u64,
    /// Root over them.
    pub root: NodeHash,
    /// Name of the log's key.
    pub log: String,
    /// Witnesses of the trust file that have cosigned.
    pub witnesses: Vec<Signed>,
    /// Whether they are as many as the trust file asks for.
    pub quorum: bool,
    /// When, by the word of a whole quorum. Seconds since 1970.
    pub quorum_time: Option<u64>,
    /// Auditors of the trust file that have walked every record up to here.
    pub auditors: Vec<Signed>,
    /// The note, byte for byte.
    pub note: Vec<u8>,
}

/// Records below a size that existed at a time, by the word of a whole quorum of witnesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Existed {
    /// All records with a sequence below this.
    pub size: u64,
    /// Seconds since 1970.
    pub time: u64,
}

/// Whether a run is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completeness {
    /// Each number came once, and these auditors have walked every record of the journal up to the checkpoint.
    CompleteCheckedBy(Vec<Signed>),
    /// Each number came once. That the provider gave no number twice is its own word.
    CompleteByProvidersWord,
    /// Not shown.
    NotShownComplete(NotShown),
}

/// Why completeness is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    /// The file claims none.
    #[error("the file does not claim to hold all records of a source or tenant")]
    NotClaimed,
    /// It claims one, and it does not hold.
    #[error(transparent)]
    Fault(RunFault),
}

/// What became of a run that the file claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunVerdict {
    /// The claim.
    pub run: Run,
    /// The verdict.
    pub completeness: Completeness,
}

/// Consecutive records of which the same is gone from the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// First sequence.
    pub from: u64,
    /// The sequence after the last.
    pub to: u64,
    /// One bit for each part that is gone; all three where nothing but the commitment is left.
    pub parts: u8,
    /// An order of two officers or a purge that was due, both under the checkpoint and in the file, explains it. Otherwise it is
    /// the exporter's word.
    pub explained: bool,
    /// It was a purge; else, if explained, an order.
    pub purged: bool,
}

/// What the exporter did not show, though the journal holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hidden {
    /// Records of which only the commitment is given.
    pub records: u64,
    /// Parts of other records of which only the hash is given. Index: [`crate::record::Part`].
    pub parts: [u64; 3],
}

/// What a file proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The exporter's own words.
    pub about: About,
    /// The trust file as the exporter saw it: informative only.
    pub trust: Vec<u8>,
    /// Records in the file, shown or not.
    pub records: u64,
    /// Stretches of consecutive records.
    pub stretches: u64,
    /// First and last sequence, unless there is no record.
    pub span: Option<(u64, u64)>,
    /// To what they are proved.
    pub checkpoint: Checkpointed,
    /// Since when, at the latest, what existed: by ascending size, times ascending too.
    pub existed_by: Vec<Existed>,
    /// Runs that the file claims to hold whole.
    pub runs: Vec<RunVerdict>,
    /// Heads that the sources have signed over records of the file.
    pub heads: Vec<HeadVerdict>,
    /// What is gone from the journal.
    pub removed: Vec<Removed>,
    /// What is not shown.
    pub hidden: Hidden,
    /// Time-stamp tokens and what is reserved, unchecked.
    pub attachments: Vec<Attachment>,
    /// SHA-256 of each checkpoint's note, with its size: what tokens are over.
    pub notes: Vec<(u64, [u8; 32])>,
    /// What the export was made with, by the exporter's word.
    pub tools: Tools,
    /// Exporters of the trust file that have signed the file.
    pub exporters: Vec<String>,
    /// Names of keys that have signed the file and are not in the trust file. Proves nothing.
    pub strangers: Vec<String>,
    /// What does not hold though all records are proved: claimed runs and heads.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The earliest time by which the record of this sequence existed, as far as shown.
    pub fn existed_by(&self, seq: u64) -> Option<u64> {
        self.existed_by.iter().find(|existed| seq < existed.size).map(|existed| existed.time)
    }

    /// The verdict over the whole file: that of its runs, the weakest of them.
    pub fn completeness(&self) -> Completeness {
        let weight = |completeness: &Completeness| match completeness {
            Completeness::NotShownComplete(_) => 0,
            Completeness::CompleteByProvidersWord => 1,
            Completeness::CompleteCheckedBy(_) => 2,
        };
        let runs = self.runs.iter().map(|run| &run.completeness);
        runs.min_by_key(|completeness| weight(completeness))
            .cloned()
            .unwrap_or(Completeness::NotShownComplete(NotShown::NotClaimed))
    }
}
