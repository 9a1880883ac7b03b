//! Verification of a local journal, read-only: every record, every link, the heads, and everything that is kept beside the
//! records and follows from them.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    iter::Peekable,
    path::Path,
    sync::Arc,
};

use sigillo_model::{
    audit::{Fault, Finding, Holder, Removed, Shown, Trust, Walker},
    entry::Entry,
    ids::{ChainHash, Origin, SourceId, TenantId},
    limits::BATCH_MAX_RECORDS,
    note::{Note, VerifierKey},
    state::JournalState,
};

use crate::{
    checkpoints::KeptCheckpoint,
    error::OpenError,
    frame::Head,
    head_file::HeadFile,
    layout::{self, ClassRow, PendingRow, StoredHead, Table},
    options, read,
    recover::{self, Format},
    store::{Pair, RocksStore, Store, StoreError, StoreErrorKind},
    submit,
    verify_tree::TreeRows,
};

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Records verified.
    pub records: u64,
    /// Records that the head promises.
    pub total: u64,
    /// Bytes verified, before compression.
    pub bytes: u64,
}

/// A journal that is intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub origin: Origin,
    /// Records verified.
    pub records: u64,
    /// Batches that hold them.
    pub entries: u64,
    /// Bytes of the records, before compression.
    pub raw_bytes: u64,
    /// Where it stands.
    pub head: Head,
    /// What was erased and purged, all of it explained by lawful statements.
    pub removed: Removed,
    /// What has come of the trust file's demands.
    pub trust: Option<Trust>,
}

/// What a verification is held to, besides the journal itself.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// A head that somebody noted: size and chain value. The journal must once have had it.
    pub noted: Option<(u64, ChainHash)>,
    /// The officers two of whom must have signed each order by which something is gone. None: by the provider's word.
    pub officers: Vec<VerifierKey>,
    /// The trust file, whose officers go before. With it the checkpoints that the journal keeps are held against its records too.
    pub trust: Option<Trust>,
    /// Checkpoints that others hold; judged by the trust file.
    pub shown: Vec<Shown>,
}

/// A journal that is not shown to be intact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is not what was written.
    #[error("{0}")]
    Altered(Finding),
    /// It can't be read, which says nothing about it.
    #[error("{0}")]
    Unreadable(String),
}

/// Verifies the journal in `dir`, whose server is stopped. Changes nothing in the database. Blocks; `progress` is called after
/// every few thousand records.
pub fn verify(dir: &Path, progress: impl FnMut(Progress)) -> Result<Report, VerifyError> {
    verify_demanding(dir, Demands::default(), progress)
}

/// As [`verify`], and holds the journal to these demands.
pub fn verify_demanding(dir: &Path, demands: Demands, progress: impl FnMut(Progress)) -> Result<Report, VerifyError> {
    let unreadable = |error: &dyn std::fmt::Display| VerifyError::Unreadable(error.to_string());
    let database = options::database_dir(dir);
    if !database.is_dir() {
        return Err(VerifyError::Unreadable(format!("{}: there is no journal here", dir.display())));
    }
    let _lock = match submit::lock_for_reading(dir) {
        Ok(lock) => lock,
        Err(error @ OpenError::InUse(_)) => {
            return Err(VerifyError::Unreadable(format!("{error}, or verify it over the wire")));
        }
        Err(error) => return Err(unreadable(&error)),
    };
    let head_path = options::head_path(dir);
    let head_file = match HeadFile::read(&head_path) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(altered(0, 0, format!("the head file {} is missing", head_path.display()))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(altered(0, 0, format!("the head file {}: {error}", head_path.display())));
        }
        Err(error) => return Err(VerifyError::Unreadable(format!("{}: {error}", head_path.display()))),
    };
    match RocksStore::open_read_only(&database) {
        Ok(store) => Verification { store: Arc::new(store), head_file, demands, progress }.run(),
        Err(error) => Err(locate_damage(&database, head_file, progress, &error)),
    }
}

/// The database can't be opened whole. If that is because of its write-ahead log, what stands before the damage can be walked,
/// and tells where the damage is.
fn locate_damage(
    database: &Path,
    head_file: HeadFile,
    progress: impl FnMut(Progress),
    error: &StoreError,
) -> VerifyError {
    let unopened = at(0, error);
    if error.kind != StoreErrorKind::Damaged {
        return unopened;
    }
    let Ok(store) = RocksStore::open_before_damage(database) else { return unopened };
    let (from, to) =
        match (Verification { store: Arc::new(store), head_file, demands: Demands::default(), progress }).run() {
            Ok(report) => (report.records, report.records),
            Err(VerifyError::Altered(finding)) => (finding.from, finding.to),
            Err(VerifyError::Unreadable(_)) => return unopened,
        };
    altered(from, to, format!("the write-ahead log is damaged; it held these records, or later ones: {error}"))
}

struct Verification<P> {
    store: Arc<dyn Store>,
    head_file: HeadFile,
    demands: Demands,
    progress: P,
}

impl<P: FnMut(Progress)> Verification<P> {
    fn run(mut self) -> Result<Report, VerifyError> {
        let (origin, format, head) = self.identity()?;
        let mut rows = (format == Format::Two).then(|| TreeRows::new(self.store.clone()));
        let (trust, shown) = (self.demands.trust.take(), std::mem::take(&mut self.demands.shown));
        if let Some(trust) = &trust
            && !trust.policy().officers().is_empty()
        {
            self.demands.officers = trust.policy().officers().to_vec();
        }
        let mut walker = Walker::whole(JournalState::genesis(origin.clone())).trusting(self.demands.officers.clone());
        // The head file is a head that the server noted; others may have noted some too.
        for (size, chain) in self.demands.noted.into_iter().chain([(self.head_file.size, self.head_file.chain)]) {
            walker = walker.meeting(size, chain);
        }
        let table = (trust.is_some() && format == Format::Two).then(|| read::pairs(&self.store, Table::Checkpoints));
        let mut kept = table.into_iter().flatten().peekable();
        if let Some(trust) = trust {
            walker = walker.held_to(trust);
        }
        shown.into_iter().try_for_each(|shown| walker.expect(shown)).map_err(VerifyError::Altered)?;
        let (mut records, mut entries, mut raw_bytes) = (0, 0, 0);
        let mut expected_memory = Fingerprint::new();
        let mut reported = 0;
        for pair in read::pairs(&self.store, Table::Tail) {
            let size = walker.state().size;
            let (key, value) = pair.map_err(|error| at(size, &error))?;
            if layout::read_u64(&key) != Some(size) {
                let found = layout::read_u64(&key).unwrap_or_default();
                let fault = Fault::Sequence { expected: size, found };
                return Err(VerifyError::Altered(Finding { from: size, to: found.max(size), fault }));
            }
            expect_kept(&mut walker, &mut kept)?;
            let entry = walker.step(&value).map_err(VerifyError::Altered)?;
            expected_memory.add(&layout::batch_key(entry.source, entry.epoch, entry.source_seq), size);
            if let Some(rows) = &mut rows {
                walker.tree_rows().iter().try_for_each(|row| rows.check(row))?;
            }
            records += u64::from(entry.records);
            raw_bytes += entry.raw_bytes;
            entries += 1;
            if records - reported >= 8_192 {
                reported = records;
                (self.progress)(Progress { records, total: head.size, bytes: raw_bytes });
            }
        }
        walker.check_head(head.size, head.chain).map_err(VerifyError::Altered)?;
        let removed = walker.removed().map_err(VerifyError::Altered)?.clone();
        let state = walker.state();
        if self.head_file.clean && (self.head_file.size, self.head_file.chain) != (state.size, state.chain) {
            let what = format!("the journal was closed with {} records, nothing may follow them", self.head_file.size);
            return Err(altered(self.head_file.size, state.size, what));
        }
        let last = state.size.saturating_sub(1);
        if head.receipt_time != state.receipt_time {
            return Err(altered(last, state.size, "the stored head's time is not the last record's".to_owned()));
        }
        if head.root.is_some_and(|root| root != state.tree.root()) {
            return Err(altered(last, state.size, "the stored head's root is not that of the records".to_owned()));
        }
        if let Some(rows) = rows {
            rows.check_end(state.size)?;
            self.check_checkpoints(state.size)?;
            self.check_pending(&walker)?;
        }
        self.check_derived(state, &expected_memory)?;
        (self.progress)(Progress { records, total: head.size, bytes: raw_bytes });
        let (head, trust) = (Head::of(state), walker.trust().cloned());
        Ok(Report { origin, records, entries, raw_bytes, head, removed, trust })
    }

    /// Kept checkpoints can be read and cover records that are there; what they say needs keys to check.
    fn check_checkpoints(&self, size: u64) -> Result<(), VerifyError> {
        for pair in read::pairs(&self.store, Table::Checkpoints) {
            let pair = pair.map_err(|error| at(size, &error))?;
            let kept = KeptCheckpoint::read(pair).map_err(|error| altered(0, size, error.to_string()))?;
            if kept.size > size {
                let what = format!("a checkpoint of {} records is kept, the journal has {size}", kept.size);
                return Err(altered(size, kept.size, what));
            }
        }
        Ok(())
    }

    /// What is in force for each retention class is what the newest statements say, and removals under way have their statements.
    fn check_pending(&self, walker: &Walker) -> Result<(), VerifyError> {
        let size = walker.state().size;
        let wrong = |what: &str| altered(0, size, what.to_owned());
        let mut classes = 0;
        for pair in read::pairs(&self.store, Table::Pending) {
            let (key, value) = pair.map_err(|error| at(size, &error))?;
            let Some(class) = ClassRow::class(&key) else {
                let row = layout::read_u64(&key).zip(PendingRow::decode(&value));
                if row.is_none_or(|(seq, _)| seq >= size) {
                    return Err(wrong("a removal under way can't be read, or has no statement"));
                }
                continue;
            };
            let kept = ClassRow::decode(&value).map(|row| (row.retention, row.keep_s, row.purged_to));
            let retention = walker.retentions().get(&class);
            let purged_to = walker.purged_to().get(&class).copied().unwrap_or_default();
            // Who trusts certain officers finds other statements unlawful; what is kept does not know them.
            if self.demands.officers.is_empty()
                && kept != retention.map(|retention| (retention.seq, retention.keep_s, purged_to))
            {
                return Err(wrong("what is kept about a retention class is not what its statements say"));
            }
            classes += 1;
        }
        if classes < walker.retentions().len() {
            return Err(wrong("what is in force for a retention class is missing"));
        }
        Ok(())
    }

    /// `meta` holds the format, the origin and the head, and nothing else.
    fn identity(&self) -> Result<(Origin, Format, StoredHead), VerifyError> {
        let mut keys = Vec::new();
        for pair in read::pairs(&self.store, Table::Meta) {
            keys.push(pair.map_err(|error| at(0, &error))?.0);
        }
        let expected = [layout::FORMAT_KEY, layout::HEAD_KEY, layout::ORIGIN_KEY, layout::PREDECESSOR_KEY];
        let found: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        // A journal that succeeds none has no last key.
        if found != expected && Some(found.as_slice()) != expected.get(..3) {
            return Err(altered(0, 0, "the journal's own description has keys missing or added".to_owned()));
        }
        let text = |key| -> Result<String, VerifyError> {
            let value = self.store.get(Table::Meta, key).map_err(|error| at(0, &error))?;
            Ok(String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
        };
        let found = text(layout::FORMAT_KEY)?;
        let format = Format::read(&found).ok_or_else(|| {
            altered(0, 0, format!("the journal has format {found:?}, this program reads {:?}", layout::FORMAT))
        })?;
        let origin = text(layout::ORIGIN_KEY)?;
        if origin != self.head_file.origin.as_str() {
            let file = &self.head_file.origin;
            return Err(altered(0, 0, format!("the database is of journal {origin:?}, the head file of {file:?}")));
        }
        let head = read::head(&self.store).map_err(|error| at(0, &error))?;
        if head.root.is_none() != (format == Format::One) {
            return Err(altered(0, 0, "the stored head is not of the journal's format".to_owned()));
        }
        let origin =
            recover::known_as(self.store.as_ref(), self.head_file.origin.clone()).map_err(|error| match error {
                OpenError::Altered(finding) => VerifyError::Altered(finding),
                other => VerifyError::Unreadable(other.to_string()),
            })?;
        Ok((origin, format, head))
    }

    /// What is kept beside the records must be what the records give: nothing less, nothing more.
    fn check_derived(&self, state: &JournalState, expected_memory: &Fingerprint) -> Result<(), VerifyError> {
        let end = state.size;
        let (mut sources, mut tenants) = (0, 0);
        for pair in read::pairs(&self.store, Table::Sources) {
            let (key, value) = pair.map_err(|error| at(end, &error))?;
            let known = SourceId::from_slice(&key).and_then(|id| state.sources.get(&id));
            if known.is_none() || layout::decode_source(&value).as_ref() != known {
                return Err(altered(
                    0,
                    end,
                    format!("the state kept for source {} is not what its records give", hex::encode(&key)),
                ));
            }
            sources += 1;
        }
        for pair in read::pairs(&self.store, Table::Tenants) {
            let (key, value) = pair.map_err(|error| at(end, &error))?;
            let known = TenantId::from_slice(&key).and_then(|id| state.tenants.get(&id));
            if known.is_none() || layout::decode_tenant(&value).as_ref() != known {
                return Err(altered(
                    0,
                    end,
                    format!("the count kept for tenant {} is not what its records give", hex::encode(&key)),
                ));
            }
            tenants += 1;
        }
        if (sources, tenants) != (state.sources.len(), state.tenants.len()) {
            return Err(altered(0, end, "the state kept for a source or tenant is missing".to_owned()));
        }
        let mut memory = expected_memory.fresh();
        for pair in read::pairs(&self.store, Table::Batches) {
            let (key, value) = pair.map_err(|error| at(end, &error))?;
            let row = <&[u8; 32]>::try_from(key.as_ref()).ok().zip(layout::read_u64(&value));
            let (key, seq) = row.ok_or_else(|| self.name_memory_fault(end))?;
            memory.add(key, seq);
        }
        if memory == *expected_memory { Ok(()) } else { Err(self.name_memory_fault(end)) }
    }

    /// Finds which batch the memory of batches is wrong about. Slow, and only walked when it is.
    fn name_memory_fault(&self, end: u64) -> VerifyError {
        for pair in read::pairs(&self.store, Table::Tail) {
            let Ok((_, value)) = pair else { break };
            let Ok(entry) = Entry::decode(&value) else { break };
            let key = layout::batch_key(entry.source, entry.epoch, entry.source_seq);
            let remembered = self.store.get(Table::Batches, &key).ok().flatten();
            if remembered.as_deref().and_then(layout::read_u64) != Some(entry.seq.get()) {
                let what = "the memory of this batch is missing or wrong".to_owned();
                return altered(entry.seq.get(), entry.end(), what);
            }
        }
        altered(0, end, "the journal remembers a batch that it does not hold".to_owned())
    }
}

/// Makes the walk expect the kept checkpoints that the next entry may reach. Format 1 has no table of them.
fn expect_kept(
    walker: &mut Walker,
    kept: &mut Peekable<impl Iterator<Item = Result<Pair, StoreError>>>,
) -> Result<(), VerifyError> {
    let size = walker.state().size;
    let reach = size.saturating_add(BATCH_MAX_RECORDS as u64);
    let is_near = |pair: &Result<Pair, StoreError>| {
        let far = pair.as_ref().ok().and_then(|(key, _)| layout::read_u64(key)).is_some_and(|size| size > reach);
        !far
    };
    while let Some(pair) = kept.next_if(is_near) {
        let kept = KeptCheckpoint::read(pair.map_err(|error| at(size, &error))?);
        let kept = kept.map_err(|error| altered(size, size, error.to_string()))?;
        let wrong =
            |what: String| altered(size, kept.size, format!("the checkpoint kept for {} records: {what}", kept.size));
        let note = Note::parse(&kept.note).map_err(|error| wrong(error.to_string()))?;
        let shown = Shown::new(note, Holder::Journal).map_err(|error| wrong(error.to_string()))?;
        let stated = shown.checkpoint();
        if stated.size != kept.size || stated.origin != walker.state().origin.as_str() {
            return Err(wrong(format!("it states {} records of {}", stated.size, stated.origin)));
        }
        walker.expect(shown).map_err(VerifyError::Altered)?;
    }
    Ok(())
}

/// Of a set of rows of `batches`, whatever their order. Its key is made anew for each verification, so that nobody can
/// prepare other rows with the same fingerprint.
struct Fingerprint {
    hashing: RandomState,
    rows: u64,
    sum: u128,
}

impl Fingerprint {
    fn new() -> Self {
        Self { hashing: RandomState::new(), rows: 0, sum: 0 }
    }

    /// An empty one that can be compared with this one.
    fn fresh(&self) -> Self {
        Self { hashing: self.hashing.clone(), rows: 0, sum: 0 }
    }

    fn add(&mut self, key: &[u8; 32], seq: u64) {
        // SipHash under a random key, widened by hashing twice; rows that differ are told apart but for a chance of 2^-64.
        let high = self.hashing.hash_one((0_u8, key, seq));
        let low = self.hashing.hash_one((1_u8, key, seq));
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from(high) << 64 | u128::from(low));
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        (self.rows, self.sum) == (other.rows, other.sum)
    }
}

pub(crate) fn altered(from: u64, to: u64, what: String) -> VerifyError {
    VerifyError::Altered(Finding { from, to, fault: Fault::Derived(what) })
}

/// A failure of the store after `size` records: damage is an alteration, anything else says nothing about the records.
pub(crate) fn at(size: u64, error: &StoreError) -> VerifyError {
    match error.kind {
        StoreErrorKind::Damaged => altered(size, size, format!("the database is damaged here or after: {error}")),
        StoreErrorKind::NoSpace | StoreErrorKind::Failed | StoreErrorKind::Busy => {
            VerifyError::Unreadable(error.to_string())
        }
    }
}
