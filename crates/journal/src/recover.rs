//! Opening: what is on the disk is read and checked before anything is written.

use std::{path::Path, sync::Arc};

use sigillo_model::{
    audit::{Fault, Finding, Walker},
    chain,
    ids::{ChainHash, Origin, SourceId, TenantId},
    state::JournalState,
};

use crate::{
    error::{OpenError, ReadError},
    frame::Head,
    head_file::HeadFile,
    layout::{self, Table},
    read,
    store::{Direction, Store, StoreError, StoreErrorKind, WriteSet},
};

/// How many of the newest records are verified again when the journal is opened, unless they are large.
const RECOVERY_RECORDS: u64 = 65_536;
/// How many bytes of stored entries, roughly, are verified again at most.
const RECOVERY_BYTES: usize = 64 << 20;

/// A journal's state, read from its store and checked.
pub(crate) struct Recovered {
    pub(crate) state: JournalState,
    pub(crate) created: bool,
    pub(crate) unclean: bool,
    pub(crate) verified_records: u64,
}

/// What the head file says, which is written for a journal that is about to be made: it comes before the database, so that
/// one without the other is never left by a crash.
pub(crate) fn head_file(path: &Path, origin: &Origin, database_exists: bool) -> Result<HeadFile, OpenError> {
    let io = |error| OpenError::Io { path: path.to_owned(), error };
    if let Some(file) = HeadFile::read(path).map_err(io)? {
        return Ok(file);
    }
    if database_exists {
        let what =
            format!("the head file {} is missing: without it the database can't be shown to be whole", path.display());
        return Err(altered(0, 0, what));
    }
    let new = HeadFile { origin: origin.clone(), size: 0, chain: chain::genesis(origin), clean: false };
    new.write(path).map_err(io)?;
    Ok(new)
}

/// Reads and checks a store against the head file, or writes a new journal into an empty one.
pub(crate) fn recover(store: &Arc<dyn Store>, origin: &Origin, head_file: &HeadFile) -> Result<Recovered, OpenError> {
    let created = store.get(Table::Meta, layout::FORMAT_KEY)?.is_none();
    if created {
        if head_file.size > 0 {
            return Err(OpenError::Lost { durable: head_file.size, found: 0 });
        }
        create(store, origin)?;
    }
    let (state, verified_records) = load(store, origin)?;
    check_durable(store, &state, head_file.size, head_file.chain)?;
    if head_file.clean && head_file.size != state.size {
        let what = format!("the journal was closed with {} records, nothing may follow them", head_file.size);
        return Err(altered(head_file.size, state.size, what));
    }
    Ok(Recovered { state, created, unclean: !created && !head_file.clean, verified_records })
}

/// Checks that a store, opened for writing, stands where it stood when it was recovered read-only.
pub(crate) fn check_same(store: &Arc<dyn Store>, recovered: Recovered) -> Result<Recovered, OpenError> {
    let (before, now) = (Head::of(&recovered.state), read::head(store)?);
    if before == now {
        return Ok(recovered);
    }
    let what = "the database stands elsewhere when opened for writing than it did when it was read".to_owned();
    Err(altered(before.size.min(now.size), before.size.max(now.size), what))
}

fn create(store: &Arc<dyn Store>, origin: &Origin) -> Result<(), OpenError> {
    let head = Head::of(&JournalState::genesis(origin.clone()));
    let meta = |key: &[u8], value: &[u8]| (Table::Meta, key.to_vec(), value.to_vec());
    let puts = vec![
        meta(layout::FORMAT_KEY, layout::FORMAT.as_bytes()),
        meta(layout::ORIGIN_KEY, origin.as_str().as_bytes()),
        meta(layout::HEAD_KEY, &layout::encode_head(&head)),
    ];
    Ok(store.commit(WriteSet { puts })?)
}

/// Reads the state and verifies the newest records against it.
pub(crate) fn load(store: &Arc<dyn Store>, origin: &Origin) -> Result<(JournalState, u64), OpenError> {
    check_identity(store, origin)?;
    let head = read::head(store)?;
    let mut state = JournalState {
        size: head.size,
        chain: head.chain,
        receipt_time: head.receipt_time,
        ..JournalState::genesis(origin.clone())
    };
    for pair in read::pairs(store, Table::Sources) {
        let (key, value) = pair?;
        let (source, value) = SourceId::from_slice(&key)
            .zip(layout::decode_source(&value))
            .ok_or_else(|| altered(0, head.size, "the state of a source can't be read".to_owned()))?;
        state.sources.insert(source, value);
    }
    for pair in read::pairs(store, Table::Tenants) {
        let (key, value) = pair?;
        let (tenant, count) = TenantId::from_slice(&key)
            .zip(layout::decode_tenant(&value))
            .ok_or_else(|| altered(0, head.size, "the count of a tenant can't be read".to_owned()))?;
        state.tenants.insert(tenant, count);
    }
    let verified = verify_newest(store, &state)?;
    Ok((state, verified))
}

fn check_identity(store: &Arc<dyn Store>, origin: &Origin) -> Result<(), OpenError> {
    let text = |key| -> Result<String, OpenError> {
        let value = store.get(Table::Meta, key)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&value).into_owned())
    };
    let found = text(layout::FORMAT_KEY)?;
    if found != layout::FORMAT {
        return Err(OpenError::Version { found, known: layout::FORMAT });
    }
    let found = text(layout::ORIGIN_KEY)?;
    if found != origin.as_str() {
        return Err(OpenError::Origin { found, expected: origin.to_string() });
    }
    Ok(())
}

/// Walks the newest records up to the head. Returns how many.
fn verify_newest(store: &Arc<dyn Store>, state: &JournalState) -> Result<u64, OpenError> {
    let start = find_start(store, state)?;
    let first = start.size;
    let mut walker = Walker::part(start);
    for stored in read::Entries::new(store, first..state.size, Direction::Forward) {
        let seq = walker.state().size;
        let entry = walker.step(stored.map_err(open_error)?.bytes()).map_err(OpenError::Altered)?;
        let key = layout::batch_key(entry.source, entry.epoch, entry.source_seq);
        if store.get(Table::Batches, &key)?.as_deref().and_then(layout::read_u64) != Some(seq) {
            let end = walker.state().size;
            return Err(altered(seq, end, "the memory of this batch is missing or wrong".to_owned()));
        }
    }
    walker.check_head(state.size, state.chain).map_err(OpenError::Altered)?;
    let end = walker.state();
    let differs = end.sources.iter().any(|(id, source)| state.sources.get(id) != Some(source))
        || end.tenants.iter().any(|(id, count)| state.tenants.get(id) != Some(count));
    if differs {
        let what = "the counters kept beside the records are not what the records give".to_owned();
        return Err(altered(first, state.size, what));
    }
    Ok(state.size - first)
}

/// Where the walk of the newest records begins: the end of an entry, so many records or bytes before the head.
fn find_start(store: &Arc<dyn Store>, state: &JournalState) -> Result<JournalState, OpenError> {
    let genesis = JournalState::genesis(state.origin.clone());
    let mut bytes = 0;
    for stored in read::Entries::new(store, 0..state.size, Direction::Backward) {
        let stored = stored.map_err(open_error)?;
        let entry = stored.entry().map_err(open_error)?;
        if state.size.saturating_sub(entry.end()) >= RECOVERY_RECORDS || bytes >= RECOVERY_BYTES {
            let (size, chain, receipt_time) = (entry.end(), entry.chain_hash, entry.receipt_time);
            return Ok(JournalState { size, chain, receipt_time, ..genesis });
        }
        bytes += stored.bytes().len();
    }
    Ok(genesis)
}

/// What was durable once must be there still, with the same chain value.
pub(crate) fn check_durable(
    store: &Arc<dyn Store>,
    state: &JournalState,
    size: u64,
    chain: ChainHash,
) -> Result<(), OpenError> {
    if state.size < size {
        return Err(OpenError::Lost { durable: size, found: state.size });
    }
    let found = read::chain_at(store, &state.origin, size).map_err(open_error)?;
    if found == Some(chain) {
        return Ok(());
    }
    let what = format!("after {size} records the chain value was {chain} once, and is not any more");
    Err(altered(size.saturating_sub(1), size, what))
}

fn open_error(error: ReadError) -> OpenError {
    match error {
        ReadError::Altered(finding) => OpenError::Altered(finding),
        ReadError::Store(message) => OpenError::Store(StoreError { kind: StoreErrorKind::Failed, message }),
    }
}

fn altered(from: u64, to: u64, what: String) -> OpenError {
    OpenError::Altered(Finding { from, to, fault: Fault::Derived(what) })
}
