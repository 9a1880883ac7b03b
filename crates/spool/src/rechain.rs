//! Carrying what is not released over into another epoch or journal: the same records and secrets under new numbers and hashes.
//!
//! Segment by segment: the new one is durable under its name before the old ones that it holds are removed, so that the disk needs
//! room for one segment more. Each new one names the last old one whose records it holds; after a crash the next opening goes on
//! behind that.

use std::{fs::File, mem, path::PathBuf, sync::Arc};

use bytes::Bytes;
use sigillo_model::{
    batch::{Batch, batch_hash, commitments, epoch_opening},
    block::Inflater,
    head::HeadKey,
    ids::{BatchHash, Epoch, NodeHash, SourceSeq},
    tree,
};

use crate::{
    Damage, Lost, Spool, SpoolError,
    ages::Ages,
    folder::{Folder, write},
    frame::{self, Content, SpooledBatch, Spot},
    key::KeyFile,
    layout::{Header, Tip, segment_name},
    marks::Table,
    recover::read_header,
    scan::{Scan, Step, Walk},
    segment::Active,
    shared::Known,
    since::SinceHead,
    spool::{Identity, now_ns},
};

/// Marks that one frame changes at most, when many do.
const CHANGES_MAX: usize = 512;

/// What was carried over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rechained {
    /// The batch that was left out, as it was.
    pub skipped: Option<Batch>,
    /// How many batches.
    pub batches: u64,
    /// How many records.
    pub records: u64,
    /// What could not be carried over because it was damaged, in the numbers of the old epoch.
    pub damage: Damage,
}

impl Spool {
    /// Begins an epoch, of this journal or another, with all records that are not released: of the present epoch from `from` on, and
    /// all that are retained if `from` is of another epoch. With `skip_first` the first batch of them is left out and returned;
    /// write it away before, for a crash may come between. Heads are left behind; new ones are signed where they are owed, with the
    /// time and checkpoint of `heads`, as by [`Spool::attest`]. A damaged spool gets a new key, and is none afterwards. `before` is
    /// the last batch hash that the journal knows of the source's epoch before.
    ///
    /// Readers must seek anew. After an error of [`SpoolError::Poisoned`] the next opening goes on with it; after another, nothing was
    /// done.
    pub fn rechain(
        &mut self,
        identity: Identity,
        epoch: Epoch,
        before: Option<BatchHash>,
        from: (Epoch, SourceSeq),
        skip_first: bool,
        heads: (u64, (u64, NodeHash)),
    ) -> Result<Rechained, SpoolError> {
        self.alive()?;
        if epoch <= self.epoch {
            return Err(SpoolError::Options("a new epoch must be greater than the one before"));
        }
        let identity = identity.plain()?;
        let from = if from.0 == self.epoch { from.1 } else { SourceSeq::new(0) };
        if self.damaged {
            self.key = KeyFile::create(&self.folder)?;
        } else {
            self.sync()?;
        }
        let tip = Tip {
            next: SourceSeq::new(0),
            hash: epoch_opening(&identity.origin, identity.source, epoch, before),
            key: self.key.key().public(),
            head_time_ns: self.tip.head_time_ns,
        };
        let number = self.active.number.checked_add(1).ok_or(SpoolError::Overflow("the segments"))?;
        let marks = None;
        let signer = Signer { key: self.key.key().clone(), signed: 0, heads, head_bytes: self.options.head_bytes };
        let mut carry = Carry::new(identity, epoch, tip, marks, number, self.damaged);
        (carry.from, carry.skip, carry.signer) = (Some(from), skip_first, Some(signer));
        // Readers stay away from files that go.
        let saved = {
            let mut view = self.shared.view();
            view.generation += 1;
            mem::take(&mut view.segments)
        };
        let old: Vec<u64> = saved.iter().map(|known| known.number).collect();
        match carry.run(&self.folder, &mut self.key, &old) {
            Ok(active) => Ok(self.carried(carry, active, true)),
            Err(error) if carry.known.is_empty() => {
                self.shared.view().segments = saved;
                Err(error)
            }
            Err(_) => self.poison_after(Err(SpoolError::Poisoned)),
        }
    }

    /// Goes on with what was carried over; `anew`: nothing of it was here before.
    fn carried(&mut self, carry: Carry, active: Active, anew: bool) -> Rechained {
        let Carry { identity, epoch, tip, marks, known, ages, since_head, out, .. } = carry;
        let before = if anew { 0 } else { self.bytes() };
        let bytes = known.iter().map(|known| known.bytes).fold(before, u64::saturating_add);
        self.closed_bytes = bytes.saturating_sub(active.end);
        let mut view = self.shared.view();
        view.segments.extend(known);
        (view.epoch, view.next) = (epoch, tip.next);
        drop(view);
        if anew {
            (self.released, self.released_head_ns) = (SourceSeq::new(0), self.tip.head_time_ns);
            self.damaged = false;
        }
        (self.identity, self.epoch, self.active, self.ages) = (identity, epoch, active, ages);
        self.marks = marks.unwrap_or_default();
        (self.since_head, self.tip) = (since_head, tip);
        out
    }
}

/// Goes on with what a crash interrupted: the segments `old` are still to be carried over into the epoch of `spool`.
pub(crate) fn finish(spool: &mut Spool, old: &[u64], damage: Damage) -> Result<Damage, SpoolError> {
    let number = spool.active.number.checked_add(1).ok_or(SpoolError::Overflow("the segments"))?;
    let (identity, tip) = (spool.identity.clone(), spool.tip.clone());
    let mut carry = Carry::new(identity, spool.epoch, tip, Some(spool.marks.clone()), number, true);
    carry.ages = mem::take(&mut spool.ages);
    carry.since_head = spool.since_head;
    // Of one that is damaged nobody takes a head; it is carried over once more.
    carry.signer = (!spool.damaged).then(|| Signer {
        key: spool.key.key().clone(),
        signed: 0,
        heads: (now_ns(), (0, tree::empty())),
        head_bytes: spool.options.head_bytes,
    });
    carry.out.damage = damage;
    let active = carry.run(&spool.folder, &mut spool.key, old)?;
    Ok(spool.carried(carry, active, false).damage)
}

/// What is carried over, as far as it has come.
struct Carry {
    identity: Identity,
    epoch: Epoch,
    tip: Tip,
    /// As the segments that were made leave them; `None` before the first one.
    marks: Option<Table>,
    /// Of the segment that is made next.
    number: u64,
    /// Records of the old epoch below this are left behind; `None` once the first that is not was met.
    from: Option<SourceSeq>,
    skip: bool,
    /// Whether what is damaged is left behind; else it is an error.
    tolerant: bool,
    walk: Option<Walk>,
    known: Vec<Known>,
    ages: Ages,
    since_head: SinceHead,
    signer: Option<Signer>,
    out: Rechained,
    inflater: Inflater,
    frame: Vec<u8>,
}

/// Signs heads on the way. Their key moves on in memory, and on the disk with the segment that holds them.
struct Signer {
    key: HeadKey,
    /// Heads of the segment that is being made.
    signed: u32,
    /// Their time, or the first free one after it, and the checkpoint that was seen.
    heads: (u64, (u64, NodeHash)),
    head_bytes: u64,
}

/// A segment that is being made.
struct Making<'a> {
    file: &'a mut File,
    path: PathBuf,
    /// Where the next frame begins; 0 before the header.
    end: u64,
    known: Option<Known>,
}

impl Carry {
    fn new(identity: Identity, epoch: Epoch, tip: Tip, marks: Option<Table>, number: u64, tolerant: bool) -> Self {
        Self {
            identity,
            epoch,
            tip,
            marks,
            number,
            from: None,
            skip: false,
            tolerant,
            walk: None,
            known: Vec::new(),
            ages: Ages::default(),
            since_head: SinceHead::default(),
            signer: None,
            out: Rechained::default(),
            inflater: Inflater::default(),
            frame: Vec::new(),
        }
    }

    /// Makes a new segment of each old one and removes that; the last new one, to be written on.
    fn run(&mut self, folder: &Folder, key: &mut KeyFile, old: &[u64]) -> Result<Active, SpoolError> {
        let mut rest = old.iter().copied();
        loop {
            let number = self.number;
            let path = folder.segment(number);
            let mut group = Vec::new();
            let mut made = None;
            let file = folder.create(number, |file| {
                let mut making = Making { file, path: path.clone(), end: 0, known: None };
                // What is released is left behind without a segment of its own.
                for number in rest.by_ref() {
                    group.push(number);
                    self.segment(folder, number, &mut making)?;
                    if self.from.is_none() {
                        break;
                    }
                }
                let (last, marks) = (group.last().copied().unwrap_or(0), self.marks_now());
                self.begin(&mut making, last, &marks)?;
                made = making.known.map(|known| Known { bytes: making.end, ..known });
                Ok(())
            })?;
            let (header_bytes, end) = made.as_ref().map_or((0, 0), |known| (known.header_bytes, known.bytes));
            self.known.extend(made);
            if let Some(signed) =
                self.signer.as_mut().map(|signer| mem::take(&mut signer.signed)).filter(|signed| *signed > 0)
            {
                key.advance(signed)?;
            }
            for number in group {
                folder.remove(number)?;
            }
            if rest.len() == 0 {
                if let Some(walk) = &mut self.walk {
                    let damage = mem::take(&mut walk.damage);
                    damage.findings.into_iter().for_each(|what| self.out.damage.find(what));
                    damage.lost.into_iter().for_each(|lost| self.out.damage.lose(lost));
                }
                return Ok(Active { number, path, file, header_bytes, end, synced: end });
            }
            self.number = number.checked_add(1).ok_or(SpoolError::Overflow("the segments"))?;
        }
    }

    fn marks_now(&self) -> Table {
        self.walk.as_ref().map_or_else(|| self.marks.clone().unwrap_or_default(), |walk| walk.marks.clone())
    }

    /// Takes what an old segment holds.
    fn segment(&mut self, folder: &Folder, number: u64, making: &mut Making<'_>) -> Result<(), SpoolError> {
        let (path, name) = (folder.segment(number), segment_name(number));
        let (file, header) = read_header(folder, number)?;
        let offset = header.as_ref().map_or(0, |(_, bytes)| *bytes);
        match (header, &mut self.walk) {
            (Some((header, _)), Some(walk)) => walk.header(header),
            (Some((header, _)), none) => *none = Some(Walk::new(header)),
            // Before a header was read, nobody knows what a frame continues.
            (None, None) if self.tolerant => return Ok(()),
            (None, _) if !self.tolerant => return Err(SpoolError::Rotten { segment: number, offset }),
            (None, _) => {}
        }
        let end = file.metadata().map_err(SpoolError::io(&path))?.len();
        let mut scan = Scan::new(&file, number, offset, end);
        loop {
            let offset = scan.offset;
            let what = || format!("{name} at byte {offset}");
            let Some(step) = scan.step().map_err(SpoolError::io(&path))? else { return Ok(()) };
            match step {
                Step::Frame(Content::Batch(spooled)) => self.batch(spooled, number, making, &what)?,
                Step::Frame(Content::Head { head, .. }) => {
                    if let Some(walk) = &mut self.walk {
                        walk.head(&head, &what);
                    }
                }
                Step::Frame(Content::Marks(changes)) => {
                    if let Some(walk) = &mut self.walk {
                        walk.changes(&changes, &what);
                    }
                    if making.known.is_some() {
                        self.write_marks(making, &changes)?;
                    }
                }
                Step::Gap { offset, .. } => {
                    if let Some(walk) = &mut self.walk {
                        walk.damage.find(format!("{name} is damaged at byte {offset}"));
                    }
                }
            }
            if !self.tolerant && self.walk.as_ref().is_some_and(|walk| !walk.damage.is_none()) {
                return Err(SpoolError::Rotten { segment: number, offset });
            }
        }
    }

    fn batch(
        &mut self,
        spooled: SpooledBatch,
        number: u64,
        making: &mut Making<'_>,
        what: &dyn Fn() -> String,
    ) -> Result<(), SpoolError> {
        let Some(walk) = &mut self.walk else { return Ok(()) };
        let before = making.known.is_none().then(|| walk.marks.clone());
        if !walk.batch(&spooled, what) {
            return Ok(());
        }
        let (source, epoch) = (walk.identity.source, walk.epoch);
        let SpooledBatch { made_ns, batch, changes } = spooled;
        if let Some(from) = self.from {
            if batch.end() <= from {
                return Ok(());
            }
            if batch.first < from {
                let (first, next) = (batch.first, batch.end());
                return Err(SpoolError::NotHere { asked_epoch: epoch, asked: from, epoch, first, next });
            }
            self.from = None;
        }
        if mem::take(&mut self.skip) {
            self.out.skipped = Some(batch);
            return Ok(());
        }
        let opened = batch.open(&mut self.inflater).and_then(|block| {
            let commitments = commitments(&batch.secret, &block);
            batch.check_hash(source, &commitments).map(|()| commitments)
        });
        let commitments = match opened {
            Ok(commitments) => commitments,
            Err(error) => {
                // It was damaged before its checksum was made; nobody can send it.
                self.out.damage.find(format!("{}: {error}", what()));
                self.out.damage.lose(Lost { epoch, from: batch.first, to: Some(batch.end()) });
                return Ok(());
            }
        };
        if let Some(marks) = before {
            self.begin(making, number, &marks)?;
        }
        let (first, previous) = (self.tip.next, self.tip.hash);
        let hash = batch_hash(&previous, self.identity.source, self.epoch, first, &commitments);
        let batch = Batch { epoch: self.epoch, first, previous, hash, ..batch };
        first.checked_add(u64::from(batch.count)).ok_or(SpoolError::Overflow("the epoch"))?;
        let mut bytes = mem::take(&mut self.frame);
        frame::encode_batch(&mut bytes, self.spot(making), made_ns, &batch, &changes);
        making.write(&bytes)?;
        self.frame = bytes;
        self.apply(&changes);
        (self.tip.next, self.tip.hash) = (batch.end(), batch.hash);
        self.ages.add(first, made_ns);
        self.since_head.add(batch.count, batch.compressed.len());
        self.out.batches += 1;
        self.out.records += u64::from(batch.count);
        self.attest_when_owed(making)
    }

    /// Signs a head, if one is owed.
    fn attest_when_owed(&mut self, making: &mut Making<'_>) -> Result<(), SpoolError> {
        let spot = self.spot(making);
        let Some(signer) = self.signer.as_mut().filter(|signer| self.since_head.owes_head(signer.head_bytes)) else {
            return Ok(());
        };
        let (head, note) = self.tip.sign(&self.identity, self.epoch, &signer.key, signer.heads)?;
        frame::encode_head(&mut self.frame, spot, &note);
        making.write(&self.frame)?;
        signer.key = signer.key.clone().ratchet();
        signer.signed += 1;
        self.tip.pass(&head);
        self.since_head = SinceHead::default();
        Ok(())
    }

    /// Everything in a segment is durable when it gets its name.
    fn spot(&self, making: &Making<'_>) -> Spot {
        Spot { segment: self.number, offset: making.end, synced: making.end }
    }

    fn apply(&mut self, changes: &[(Arc<str>, Bytes)]) {
        if let Some(marks) = &mut self.marks {
            marks.apply(changes);
        }
    }

    /// Writes the header, if there is none yet, and what brings the marks to `marks`.
    fn begin(&mut self, making: &mut Making<'_>, made_from: u64, marks: &Table) -> Result<(), SpoolError> {
        if making.known.is_some() {
            return Ok(());
        }
        let header = Header {
            number: self.number,
            made_from,
            identity: self.identity.clone(),
            epoch: self.epoch,
            tip: self.tip.clone(),
            // It continues the segment before it.
            marks: self.marks.get_or_insert_with(|| marks.clone()).clone(),
        };
        making.write(&header.encode())?;
        let (header_bytes, first, head_time_ns) = (making.end, self.tip.next, self.tip.head_time_ns);
        making.known = Some(Known { number: self.number, header_bytes, bytes: 0, first, head_time_ns });
        for changes in header.marks.changes_to(marks).chunks(CHANGES_MAX) {
            self.write_marks(making, changes)?;
        }
        Ok(())
    }

    fn write_marks(&mut self, making: &mut Making<'_>, changes: &[(Arc<str>, Bytes)]) -> Result<(), SpoolError> {
        let mut bytes = mem::take(&mut self.frame);
        frame::encode_marks(&mut bytes, self.spot(making), changes);
        making.write(&bytes)?;
        self.frame = bytes;
        self.apply(changes);
        Ok(())
    }
}

impl Making<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        write(self.file, &self.path, bytes)?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}
