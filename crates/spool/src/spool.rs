//! Appending, attesting, syncing, releasing.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use sigillo_model::{
    batch::{Batch, epoch_opening},
    block::{BlockBuilder, Inflater},
    ids::{BatchHash, BatchSecret, Epoch, NodeHash, Origin, SourceId, SourceSeq},
};

use crate::{
    Marks, Options, Place, Reader, SpoolError,
    ages::Ages,
    folder::{Folder, write},
    frame,
    key::KeyFile,
    layout::{Header, Tip},
    marks::Table,
    reader,
    segment::Active,
    shared::{Known, Shared, View},
    since::SinceHead,
};

/// zstd's level for batches: the fastest; the journal keeps them as they come.
const LEVEL: i32 = 1;
/// Number of the first segment of a new spool.
const FIRST_SEGMENT: u64 = 1;
/// By how much heads may exceed `max_bytes`: what is full must be attested, too.
const HEADS_MAX_BYTES: u64 = 1 << 20;

/// Whose records these are, and for which journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The journal, by its name alone: the spool does not keep what it succeeds.
    pub origin: Origin,
    /// The sender.
    pub source: SourceId,
}

/// Where a spool stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whose records these are.
    pub identity: Identity,
    /// The epoch.
    pub epoch: Epoch,
    /// The first record that can still be read.
    pub first_retained: SourceSeq,
    /// Everything below was released.
    pub released: SourceSeq,
    /// The sequence after the last durable record.
    pub synced: SourceSeq,
    /// The sequence after the last record.
    pub next: SourceSeq,
    /// Hash of the last batch, or the epoch's opening.
    pub head: BatchHash,
    /// Time of the last signed head, nanoseconds since 1970 UTC; 0 when there was none.
    pub head_time_ns: u64,
    /// How many records were appended since the last signed head.
    pub unattested: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// When the oldest batch was made that is not released, about; nanoseconds since 1970 UTC, 0 if all are.
    pub oldest_ns: u64,
    /// Whether only [`Spool::rechain`] can go on with it.
    pub damaged: bool,
}

/// A spool, open for writing. Dropping it unlocks its folder; what was not synced may then be lost, as by a crash.
#[derive(Debug)]
pub struct Spool {
    pub(crate) options: Options,
    pub(crate) folder: Folder,
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Identity,
    pub(crate) epoch: Epoch,
    pub(crate) tip: Tip,
    pub(crate) marks: Table,
    pub(crate) active: Active,
    pub(crate) key: KeyFile,
    /// Bytes of the segments before the active one.
    pub(crate) closed_bytes: u64,
    pub(crate) released: SourceSeq,
    pub(crate) released_head_ns: u64,
    pub(crate) since_head: SinceHead,
    pub(crate) ages: Ages,
    pub(crate) damaged: bool,
    pub(crate) poisoned: bool,
    /// The frame that is written, to use its memory again.
    pub(crate) frame: Vec<u8>,
}

impl Spool {
    /// Makes the first spool of a source, with a new random head key. `before` is the last batch hash that the journal knows of the
    /// source's epoch before, if any.
    pub fn create(
        options: &Options,
        identity: Identity,
        epoch: Epoch,
        before: Option<BatchHash>,
        marks: Marks,
    ) -> Result<Self, SpoolError> {
        options.check()?;
        let marks = Table::new(marks)?;
        let folder = Folder::open(&options.dir)?;
        if !folder.tidy()?.is_empty() {
            return Err(SpoolError::Exists(options.dir.clone()));
        }
        let identity = identity.plain()?;
        let key = KeyFile::create(&folder)?;
        let tip = Tip {
            next: SourceSeq::new(0),
            hash: epoch_opening(&identity.origin, identity.source, epoch, before),
            key: key.key().public(),
            head_time_ns: 0,
        };
        let header = Header { number: FIRST_SEGMENT, made_from: 0, identity, epoch, tip, marks };
        let active = begin(&folder, &header)?;
        folder.keep_reserve()?;
        let known = known(&header, &active);
        let next = header.tip.next;
        let view = View { generation: 0, epoch, segments: [known].into(), next };
        let shared = Arc::new(Shared::new(options.dir.clone(), view));
        let Header { identity, tip, marks, .. } = header;
        Ok(Self {
            options: options.clone(),
            folder,
            shared,
            identity,
            epoch,
            tip,
            marks,
            active,
            key,
            closed_bytes: 0,
            released: next,
            released_head_ns: 0,
            since_head: SinceHead::default(),
            ages: Ages::default(),
            damaged: false,
            poisoned: false,
            frame: Vec::new(),
        })
    }

    /// Seals the records in `block` into a batch and writes it with the marks that changed with them; an empty value forgets its
    /// key. Without records only the marks are written; without both, nothing is done. Durable after [`Spool::sync`] alone.
    ///
    /// `block` is empty afterwards. After an error it is as it was: after [`SpoolError::Full`] try again later.
    pub fn append(&mut self, block: &mut BlockBuilder, marks: &[(Arc<str>, Bytes)]) -> Result<Place, SpoolError> {
        match self.try_append(block, marks) {
            Err(error) if error.is_full() && self.renew()? => self.try_append(block, marks),
            appended => appended,
        }
    }

    fn try_append(&mut self, block: &mut BlockBuilder, marks: &[(Arc<str>, Bytes)]) -> Result<Place, SpoolError> {
        self.usable()?;
        self.marks.check(marks)?;
        if block.count() == 0 && marks.is_empty() {
            return Ok(self.place());
        }
        self.roll_when_due()?;
        let marks_bytes: usize = marks.iter().map(|(key, value)| 4 + key.len() + value.len()).sum();
        if block.count() == 0 {
            self.check_room(marks_bytes + frame::AROUND_BYTES + 2)?;
            let mut bytes = std::mem::take(&mut self.frame);
            frame::encode_marks(&mut bytes, self.active.spot(), marks);
            self.frame = bytes;
            self.write()?;
            self.marks.apply(marks);
            return Ok(self.place());
        }
        let batch = self.seal(block)?;
        let made_ns = now_ns();
        let written = self.check_room(frame::batch_frame_bytes(&batch, marks_bytes)).and_then(|()| {
            let mut bytes = std::mem::take(&mut self.frame);
            frame::encode_batch(&mut bytes, self.active.spot(), made_ns, &batch, marks);
            self.frame = bytes;
            self.write()
        });
        if let Err(error) = written {
            give_back(&batch, block)?;
            return Err(error);
        }
        (self.tip.next, self.tip.hash) = (batch.end(), batch.hash);
        self.since_head.add(batch.count, batch.compressed.len());
        self.marks.apply(marks);
        self.ages.add(batch.first, made_ns);
        Ok(self.place())
    }

    /// Signs a head over everything that was appended, makes all of it durable, and destroys the key. `seen` is size and root of
    /// the newest checkpoint that this source has seen; 0 and the root of no record when none.
    pub fn attest(&mut self, now_ns: u64, seen: (u64, NodeHash)) -> Result<(), SpoolError> {
        self.usable()?;
        // Without room for another segment, this one takes it.
        self.roll_when_due().or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })?;
        let (head, note) = self.tip.sign(&self.identity, self.epoch, self.key.key(), (now_ns, seen))?;
        if self.bytes() > self.options.max_bytes + HEADS_MAX_BYTES {
            return Err(SpoolError::Full("it has grown to its max_bytes"));
        }
        frame::encode_head(&mut self.frame, self.active.spot(), &note);
        self.write()?;
        let moved = self.active.sync().and_then(|()| self.key.advance(1));
        self.poison_after(moved)?;
        self.tip.pass(&head);
        self.since_head = SinceHead::default();
        // Nobody sees the head before its key is gone.
        self.publish();
        Ok(())
    }

    /// Makes everything durable that was appended, and shows it to readers. After an error only opening the spool anew helps.
    pub fn sync(&mut self) -> Result<Place, SpoolError> {
        self.alive()?;
        let synced = self.active.sync();
        self.poison_after(synced)?;
        self.publish();
        Ok(self.place())
    }

    /// All that lies below is not needed any more: records of this epoch below `seq`, and heads up to the time `head_time_ns`. Whole
    /// segments are deleted, durably. What was said before stays said; another epoch is ignored.
    pub fn release(&mut self, epoch: Epoch, seq: SourceSeq, head_time_ns: u64) -> Result<(), SpoolError> {
        self.alive()?;
        if epoch != self.epoch || self.damaged {
            return Ok(());
        }
        let durable = self.shared.view().next;
        self.released = self.released.max(seq.min(durable));
        self.released_head_ns = self.released_head_ns.max(head_time_ns.min(self.tip.head_time_ns));
        self.ages.release(self.released, self.tip.next);
        self.drop_released()
    }

    /// How far each source was read, as of the last [`Spool::append`].
    pub fn marks(&self) -> &Marks {
        self.marks.marks()
    }

    /// Where the spool stands.
    pub fn state(&self) -> State {
        let view = self.shared.view();
        State {
            identity: self.identity.clone(),
            epoch: self.epoch,
            first_retained: view.first(),
            released: self.released,
            synced: view.next,
            next: self.tip.next,
            head: self.tip.hash,
            head_time_ns: self.tip.head_time_ns,
            unattested: self.since_head.records,
            bytes: self.bytes(),
            oldest_ns: self.ages.oldest_ns(),
            damaged: self.damaged,
        }
    }

    /// Whether a head should cover what was appended before more is: the journal misses heads that come late.
    pub fn owes_head(&self) -> bool {
        self.since_head.owes_head(self.options.head_bytes)
    }

    /// The public key that must sign the first head newer than this time: of those that are retained, or the next one.
    pub fn key_after(&self, head_time_ns: u64) -> Result<[u8; 32], SpoolError> {
        reader::key_after(&self.shared, head_time_ns)
    }

    /// A reader, for any thread. It must be placed by [`Reader::seek`].
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    fn place(&self) -> Place {
        Place { epoch: self.epoch, end: self.tip.next }
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.closed_bytes.saturating_add(self.active.end)
    }

    pub(crate) fn alive(&self) -> Result<(), SpoolError> {
        if self.poisoned { Err(SpoolError::Poisoned) } else { Ok(()) }
    }

    fn usable(&self) -> Result<(), SpoolError> {
        self.alive()?;
        if self.damaged { Err(SpoolError::Damaged) } else { Ok(()) }
    }

    fn seal(&self, block: &mut BlockBuilder) -> Result<Batch, SpoolError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| SpoolError::Random(error.to_string()))?;
        // Before the records are taken.
        self.tip.next.checked_add(block.count() as u64).ok_or(SpoolError::Overflow("the epoch"))?;
        let (source, epoch) = (self.identity.source, self.epoch);
        let secret = BatchSecret::new(secret);
        Ok(Batch::seal(block, source, epoch, self.tip.next, self.tip.hash, secret, LEVEL)?)
    }

    /// Writes the frame that was made.
    fn write(&mut self) -> Result<(), SpoolError> {
        let written = self.active.write(&self.frame);
        if written.as_ref().is_err_and(SpoolError::is_full) { written } else { self.poison_after(written) }
    }

    /// After a failure of which nobody knows what it left behind, nothing is written any more.
    pub(crate) fn poison_after<T>(&mut self, result: Result<T, SpoolError>) -> Result<T, SpoolError> {
        self.poisoned |= result.is_err();
        result
    }

    fn publish(&self) {
        let mut view = self.shared.view();
        view.next = self.tip.next;
        if let Some(last) = view.segments.back_mut() {
            last.bytes = self.active.synced;
        }
    }

    fn roll_when_due(&mut self) -> Result<(), SpoolError> {
        if self.active.frames_bytes() < self.options.segment_bytes { Ok(()) } else { self.roll() }
    }

    /// Closes the segment and begins the next.
    fn roll(&mut self) -> Result<(), SpoolError> {
        // The header of the next one says where this one ends.
        self.sync()?;
        let number = self.active.number.checked_add(1).ok_or(SpoolError::Overflow("the segments"))?;
        let (identity, tip, marks) = (self.identity.clone(), self.tip.clone(), self.marks.clone());
        let header = Header { number, made_from: 0, identity, epoch: self.epoch, tip, marks };
        let active = match begin(&self.folder, &header) {
            Err(error) if error.is_full() => return Err(error),
            begun => self.poison_after(begun)?,
        };
        self.closed_bytes = self.bytes();
        self.shared.view().segments.push_back(known(&header, &active));
        self.active = active;
        Ok(())
    }

    /// Whether there is room for so many bytes more.
    fn check_room(&self, bytes: usize) -> Result<(), SpoolError> {
        let fits = self.bytes().saturating_add(bytes as u64) <= self.options.max_bytes;
        if fits { Ok(()) } else { Err(SpoolError::Full("it has grown to its max_bytes")) }
    }

    /// The last segment is never deleted; if nothing in it is needed, another takes its place. `false` if there is nothing to be won.
    fn renew(&mut self) -> Result<bool, SpoolError> {
        let is_done = self.released >= self.tip.next && self.released_head_ns >= self.tip.head_time_ns;
        if !is_done || self.active.frames_bytes() == 0 {
            return Ok(false);
        }
        self.folder.use_reserve()?;
        match self.roll() {
            Err(error) if error.is_full() => return Ok(false),
            rolled => rolled?,
        }
        self.drop_released()?;
        self.folder.keep_reserve()?;
        Ok(true)
    }

    fn drop_released(&mut self) -> Result<(), SpoolError> {
        loop {
            let mut view = self.shared.view();
            let below = view
                .segments
                .get(1)
                .is_some_and(|next| next.first <= self.released && next.head_time_ns <= self.released_head_ns);
            let Some(gone) = (if below { view.segments.pop_front() } else { None }) else { return Ok(()) };
            drop(view);
            self.closed_bytes = self.closed_bytes.saturating_sub(gone.bytes);
            let removed = self.folder.remove(gone.number);
            self.poison_after(removed)?;
        }
    }
}

impl Identity {
    /// As the spool keeps it, so that it compares equal after it was read.
    pub(crate) fn plain(self) -> Result<Self, SpoolError> {
        let origin = Origin::new(self.origin.as_str()).map_err(|_| SpoolError::Options("the origin is none"))?;
        Ok(Self { origin, source: self.source })
    }
}

/// Makes a segment that holds its header alone.
fn begin(folder: &Folder, header: &Header) -> Result<Active, SpoolError> {
    let (number, bytes) = (header.number, header.encode());
    let path = folder.segment(number);
    let file = folder.create(number, |file| write(file, &path, &bytes))?;
    let end = bytes.len() as u64;
    Ok(Active { number, path, file, header_bytes: end, end, synced: end })
}

/// A segment that was just begun, as readers know it.
fn known(header: &Header, active: &Active) -> Known {
    Known {
        number: header.number,
        header_bytes: active.header_bytes,
        bytes: active.synced,
        first: header.tip.next,
        head_time_ns: header.tip.head_time_ns,
    }
}

/// Puts the records of a batch that could not be written back where they came from.
fn give_back(batch: &Batch, block: &mut BlockBuilder) -> Result<(), SpoolError> {
    let mut inflater = Inflater::default();
    for record in batch.open(&mut inflater)?.records() {
        // They were in it before.
        let _ = block.push(record);
    }
    Ok(())
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
