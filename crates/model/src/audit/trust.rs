//! What a walk is held to beside itself: checkpoints that others have kept, judged by a trust file when the walk comes to their
//! sizes, and what the journal's own statements say.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use crate::{
    audit::{Fault, Finding},
    checkpoint::{Checkpoint, CheckpointError},
    ids::{NodeHash, Origin},
    note::{Note, SIGNATURES_MAX},
    policy::Policy,
    rotation::{LogKeys, Rotation},
};

/// Remarks that are kept at most; what comes after is of the same kind.
const REMARKS_MAX: usize = 64;
/// Sizes with a counters record as the last that are kept: of the newest, the checkpoint may not have its quorum yet.
const COUNTERS_MAX: usize = 16;

/// Who holds a checkpoint against a journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The journal itself, which keeps some for ever. Its owner can drop them, and can't forge cosignatures.
    Journal,
    /// The server, or the files that it publishes.
    Server,
    /// The verifier: a file with a checkpoint that it accepted before.
    Remembered(String),
    /// A witness of the trust file, by its read side.
    Witness(String),
    /// Somebody's copy of a witness's view.
    View(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal => f.write_str("the journal's own kept checkpoint"),
            Self::Server => f.write_str("the checkpoint that the server shows"),
            Self::Remembered(file) => write!(f, "the remembered checkpoint {file}"),
            Self::Witness(name) => write!(f, "the view of witness {name}"),
            Self::View(place) => write!(f, "the witness's view {place}"),
        }
    }
}

/// A checkpoint that somebody holds. Nothing in it is believed before it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    note: Note,
    checkpoint: Checkpoint,
    by: Holder,
}

impl Shown {
    /// Reads what the note states.
    pub fn new(note: Note, by: Holder) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::parse_own(note.text())?;
        Ok(Self { note, checkpoint, by })
    }

    /// What it states.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Who holds it.
    pub fn by(&self) -> &Holder {
        &self.by
    }
}

/// A checkpoint that has been judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// What it states.
    pub checkpoint: Checkpoint,
    /// The note, with the signatures of everybody who holds it.
    pub note: Note,
    /// Who holds it, the first of them.
    pub by: Holder,
    /// Whether the trust file's quorum has cosigned it.
    pub quorum: bool,
    /// The time for which the quorum vouches, seconds since 1970.
    pub quorum_time: Option<u64>,
}

/// A signed checkpoint that the records do not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Number of records that it covers.
    pub size: u64,
    /// The root that was signed.
    pub signed: NodeHash,
    /// Who holds it.
    pub by: Holder,
    /// The root that is there instead, by the records or by another signed checkpoint.
    pub found: NodeHash,
    /// Who holds a signed checkpoint of the same size with the other root: then the log has signed two.
    pub twice: Option<Holder>,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, signed, by, found, twice } = self;
        match twice {
            None => write!(f, "the root of {size} records is {found}, but {by} has {signed}, signed by the log"),
            Some(other) => write!(
                f,
                "the log has signed two roots for {size} records: {signed} in {by} and {found} in {other}. That is misconduct, and \
                 the two notes prove it to anybody: keep them"
            ),
        }
    }
}

/// The demands of a trust file on a walk, and what has come of them so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    policy: Policy,
    keys: LogKeys,
    rotations: Vec<Rotation>,
    /// By size, those that the walk has still to meet.
    ahead: BTreeMap<u64, Vec<Shown>>,
    /// Those of sizes that were passed before they were shown.
    behind: Vec<Shown>,
    /// The greatest size with a root that more vouch for than the log itself, and that was met.
    proved: u64,
    newest: Option<Judged>,
    cosigned: Option<Judged>,
    /// Sizes right after a counters record, ascending: the newest of those that were walked.
    counters: VecDeque<u64>,
    counted: Option<Judged>,
    /// The greatest time for which a quorum vouches.
    quorum_time: Option<u64>,
    unusable: Option<String>,
    remarks: Vec<String>,
}

impl Trust {
    /// The demands of `policy`.
    pub fn new(policy: Policy) -> Self {
        Self {
            keys: LogKeys::unchanged(&policy),
            policy,
            rotations: Vec::new(),
            ahead: BTreeMap::new(),
            behind: Vec::new(),
            proved: 0,
            newest: None,
            cosigned: None,
            counters: VecDeque::new(),
            counted: None,
            quorum_time: None,
            unusable: None,
            remarks: Vec::new(),
        }
    }

    /// The trust file.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes of the log's key that the walk has found, in order.
    pub fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }

    /// Everything below is proved unaltered by checkpoints that others than the log vouch for.
    pub fn proved(&self) -> u64 {
        self.proved
    }

    /// The greatest checkpoint that was met.
    pub fn newest(&self) -> Option<&Judged> {
        self.newest.as_ref()
    }

    /// The greatest checkpoint with a quorum that was met.
    pub fn cosigned(&self) -> Option<&Judged> {
        self.cosigned.as_ref()
    }

    /// The greatest checkpoint with a quorum that was met and ends with a counters record: what shows that a run is whole.
    pub fn counted(&self) -> Option<&Judged> {
        self.counted.as_ref()
    }

    /// Sizes right after a counters record, the newest first, of those that were walked: no more than a few.
    pub fn after_counters(&self) -> impl Iterator<Item = u64> + '_ {
        self.counters.iter().rev().copied()
    }

    /// Notes that a counters record is the last of so many records.
    pub(super) fn counters(&mut self, size: u64) {
        if self.counters.len() >= COUNTERS_MAX {
            self.counters.pop_front();
        }
        self.counters.push_back(size);
    }

    /// The greatest time for which a quorum vouches, seconds since 1970.
    pub fn quorum_time(&self) -> Option<u64> {
        self.quorum_time
    }

    /// Why a checkpoint that the verifier itself remembers can't be used. Then nothing can be said.
    pub fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    /// What a person should know though it changes no verdict.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Adds a remark.
    pub fn remark(&mut self, remark: String) {
        if self.remarks.len() < REMARKS_MAX && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    /// Goes on where an earlier walk ended: with the checkpoint that it accepted.
    pub fn resume(&mut self, rotations: Vec<Rotation>, accepted: Option<Note>) -> Result<(), Finding> {
        for rotation in rotations {
            self.rotated(rotation);
        }
        let by = Holder::Remembered("of the audit's own state".to_owned());
        match accepted.and_then(|note| Shown::new(note, by).ok()) {
            Some(shown) => self.proved_behind(shown),
            None => Ok(()),
        }
    }

    /// Forgets what is still expected, and the remarks: for the next look at a journal that is followed.
    pub fn look_again(&mut self) {
        self.ahead.clear();
        self.behind.clear();
        self.remarks.clear();
    }

    /// Changes the log's key by a rotation that an earlier walk has found.
    pub fn rotated(&mut self, rotation: Rotation) {
        let size = rotation.size;
        let rotations = [self.rotations.as_slice(), &[rotation]].concat();
        match LogKeys::new(&self.policy, rotations.clone()) {
            Ok(keys) => (self.keys, self.rotations) = (keys, rotations),
            Err(error) => self.remark(format!("the change of the log's key at size {size} is ignored: {error}")),
        }
    }

    /// Reads a statement about the log's key.
    pub(super) fn rotation(&mut self, seq: u64, text: &str, origin: &Origin) {
        let verified = Note::parse(text.as_bytes())
            .map_err(Into::into)
            .and_then(|note| Rotation::verify(&note, origin, self.policy.recovery()));
        match verified {
            Ok(rotation) => self.rotated(rotation),
            Err(error) => self.remark(format!("record {seq} would change the log's key and is ignored: {error}")),
        }
    }

    /// Demands that the walk, which has come to `walked` records with `root`, meets this checkpoint.
    pub(super) fn expect(&mut self, shown: Shown, walked: u64, root: &NodeHash) -> Result<(), Finding> {
        let size = shown.checkpoint.size;
        if size < walked {
            self.behind.push(shown);
            return Ok(());
        }
        self.ahead.entry(size).or_default().push(shown);
        if size == walked { self.meet(size, root) } else { Ok(()) }
    }

    /// Whether the log has signed this checkpoint with the key that holds at its size.
    pub fn is_signed(&self, shown: &Shown) -> bool {
        self.keys.check(&shown.note).is_ok()
    }

    /// Takes the checkpoints whose sizes were passed before they were shown: they need a proof of consistency with what was walked.
    pub fn take_behind(&mut self) -> Vec<Shown> {
        std::mem::take(&mut self.behind)
    }

    /// Holds a checkpoint of [`Trust::take_behind`] against the root that was proved for its size.
    pub fn proved_behind(&mut self, shown: Shown) -> Result<(), Finding> {
        let (size, root) = (shown.checkpoint.size, shown.checkpoint.root);
        self.hold(vec![shown], size, Some(&root))
    }

    /// Whether checkpoints of just this size are expected.
    pub(super) fn is_due(&self, size: u64) -> bool {
        self.ahead.first_key_value().is_some_and(|(next, _)| *next == size)
    }

    /// Holds the checkpoints of this size against the records' root.
    pub(super) fn meet(&mut self, size: u64, root: &NodeHash) -> Result<(), Finding> {
        match self.ahead.remove(&size) {
            Some(shown) => self.hold(shown, size, Some(root)),
            None => Ok(()),
        }
    }

    /// The greatest checkpoint beyond the walk's end that the log has signed; an error if it has signed two of one size.
    pub fn beyond(&mut self) -> Result<Option<(u64, Holder)>, Finding> {
        let mut greatest = None;
        for (size, shown) in std::mem::take(&mut self.ahead) {
            let (valid, _) = self.sort(shown)?;
            self.check_one_root(&valid, size, None)?;
            if let Some(first) = valid.into_iter().next() {
                greatest = Some((size, first.by));
            }
        }
        Ok(greatest)
    }

    /// Those whose log's key holds, and whether somebody beside the log vouches for one of them.
    fn sort(&mut self, shown: Vec<Shown>) -> Result<(Vec<Shown>, bool), Finding> {
        let (mut valid, mut vouched) = (Vec::new(), false);
        for shown in shown {
            let size = shown.checkpoint.size;
            let judged = self.keys.check(&shown.note).map_err(|error| error.to_string()).and_then(|judgement| {
                let has_cosigned =
                    |name: &String| judgement.cosignatures.iter().any(|(word, _)| word.to_string() == *name);
                match &shown.by {
                    Holder::Witness(name) if !has_cosigned(name) => {
                        Err("it lacks the witness's own cosignature".to_owned())
                    }
                    Holder::View(_) if judgement.cosignatures.is_empty() => {
                        Err("no witness of the trust file has cosigned it".to_owned())
                    }
                    // Where no witness is asked for, the log alone vouches.
                    Holder::Journal | Holder::Server => Ok(judgement.quorum && self.policy.asks_for_witnesses()),
                    _ => Ok(true),
                }
            });
            match judged {
                Ok(beyond_the_log) => {
                    vouched |= beyond_the_log;
                    valid.push(shown);
                }
                Err(error) if shown.by == Holder::Journal => {
                    let what = format!(
                        "the checkpoint kept for {size} records is not one of this log by the trust file: {error}"
                    );
                    return Err(Finding { from: self.proved, to: size, fault: Fault::Derived(what) });
                }
                Err(error) if matches!(shown.by, Holder::Remembered(_)) => {
                    let what = format!("{} can't be used with this trust file: {error}", shown.by);
                    self.unusable.get_or_insert(what);
                }
                Err(error) => self.remark(format!("{} says nothing: {error}", shown.by)),
            }
        }
        Ok((valid, vouched))
    }

    fn check_one_root(&self, shown: &[Shown], size: u64, root: Option<&NodeHash>) -> Result<(), Finding> {
        let Some(first) = shown.first() else { return Ok(()) };
        let expected = root.unwrap_or(&first.checkpoint.root);
        let Some(other) = shown.iter().find(|shown| shown.checkpoint.root != *expected) else { return Ok(()) };
        let same = shown.iter().find(|shown| shown.checkpoint.root == *expected);
        let missed = Missed {
            size,
            signed: other.checkpoint.root,
            by: other.by.clone(),
            found: *expected,
            twice: same.map(|same| same.by.clone()),
        };
        let from = self.proved.min(size);
        Err(Finding { from, to: size, fault: Fault::Checkpoint(Box::new(missed)) })
    }

    fn hold(&mut self, shown: Vec<Shown>, size: u64, root: Option<&NodeHash>) -> Result<(), Finding> {
        let (valid, vouched) = self.sort(shown)?;
        self.check_one_root(&valid, size, root)?;
        let Some(judged) = self.join(valid) else { return Ok(()) };
        if vouched || (judged.quorum && self.policy.asks_for_witnesses()) {
            self.proved = self.proved.max(size);
        }
        self.quorum_time = self.quorum_time.max(judged.quorum_time);
        if judged.quorum && self.cosigned.as_ref().is_none_or(|known| known.checkpoint.size <= size) {
            self.cosigned = Some(judged.clone());
        }
        let is_greatest = self.counted.as_ref().is_none_or(|known| known.checkpoint.size <= size);
        if judged.quorum && is_greatest && self.counters.contains(&size) {
            self.counted = Some(judged.clone());
        }
        if self.newest.as_ref().is_none_or(|known| known.checkpoint.size <= size) {
            self.newest = Some(judged);
        }
        Ok(())
    }

    /// Notes of one text, as one note with all their signatures: each witness shows its own.
    fn join(&self, shown: Vec<Shown>) -> Option<Judged> {
        let mut shown = shown.into_iter();
        let Shown { mut note, checkpoint, by } = shown.next()?;
        for signature in shown.flat_map(|more| more.note.signatures().to_vec()) {
            if note.signatures().len() < SIGNATURES_MAX && !note.signatures().contains(&signature) {
                // A note that has no room for more is judged by what it has.
                let _ = note.add(signature);
            }
        }
        let judgement = self.keys.check(&note).ok()?;
        let (quorum, quorum_time) = (judgement.quorum, judgement.quorum_time);
        Some(Judged { checkpoint, note, by, quorum, quorum_time })
    }
}
