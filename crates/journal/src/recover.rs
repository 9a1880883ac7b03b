//! Opening: what is on the disk is read and checked before anything is written.

use std::{path::Path, sync::Arc};

use sigillo_model::{
    audit::{Fault, Finding, Walker},
    chain,
    ids::{ChainHash, NodeHash, NoteHash, Origin, SourceId, TenantId},
    state::JournalState,
    tree::TreeRow,
};

use crate::{
    error::{OpenError, ReadError},
    frame::Head,
    head_file::HeadFile,
    layout::{self, StoredHead, Table},
    read,
    store::{Direction, Store, StoreError, StoreErrorKind, WriteSet},
    tree::TreeReader,
};

/// How many of the newest records are verified again when the journal is opened, unless they are large.
const RECOVERY_RECORDS: u64 = 65_536;
/// How many bytes of stored entries, roughly, are verified again at most.
const RECOVERY_BYTES: usize = 64 << 20;
/// Rows of the tree that an upgrade writes at once.
const UPGRADE_ROWS: usize = 16_384;

/// A journal's state, read from its store and checked.
pub(crate) struct Recovered {
    pub(crate) state: JournalState,
    pub(crate) created: bool,
    pub(crate) unclean: bool,
    pub(crate) verified_records: u64,
    /// It is of the first format, and the tree of `state` is not known yet.
    pub(crate) without_tree: bool,
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

/// The origin with what the journal in `store` succeeds; as it is given where there is no journal yet.
pub(crate) fn known_as(store: &dyn Store, origin: Origin) -> Result<Origin, OpenError> {
    let Some(value) = store.get(Table::Meta, layout::PREDECESSOR_KEY)? else { return Ok(origin) };
    let damaged = || altered(0, 0, "the hash of the predecessor's note can't be read".to_owned());
    Ok(origin.after(NoteHash::from_slice(&value).ok_or_else(damaged)?))
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
    let without_tree = check_identity(store, origin)? == Format::One;
    let (state, verified_records) = if without_tree { load_without_tree(store, origin)? } else { load(store, origin)? };
    check_durable(store, &state, head_file.size, head_file.chain)?;
    if head_file.clean && head_file.size != state.size {
        let what = format!("the journal was closed with {} records, nothing may follow them", head_file.size);
        return Err(altered(head_file.size, state.size, what));
    }
    Ok(Recovered { state, created, unclean: !created && !head_file.clean, verified_records, without_tree })
}

/// Checks that a store, opened for writing, stands where it stood when it was recovered read-only.
pub(crate) fn check_same(store: &Arc<dyn Store>, recovered: Recovered) -> Result<Recovered, OpenError> {
    let before = Head::of(&recovered.state);
    let now = read::head(store)?;
    let root = (!recovered.without_tree).then_some(before.root);
    let StoredHead { size, chain, receipt_time, .. } = now;
    if (before.size, before.chain, before.receipt_time, root) == (size, chain, receipt_time, now.root) {
        return Ok(recovered);
    }
    let what = "the database stands elsewhere when opened for writing than it did when it was read".to_owned();
    Err(altered(before.size.min(now.size), before.size.max(now.size), what))
}

fn create(store: &Arc<dyn Store>, origin: &Origin) -> Result<(), OpenError> {
    let head = Head::of(&JournalState::genesis(origin.clone()));
    let meta = |key: &[u8], value: &[u8]| (Table::Meta, key.to_vec(), value.to_vec());
    let mut puts = vec![
        meta(layout::FORMAT_KEY, layout::FORMAT.as_bytes()),
        meta(layout::ORIGIN_KEY, origin.as_str().as_bytes()),
        meta(layout::HEAD_KEY, &layout::encode_head(&head)),
    ];
    puts.extend(origin.predecessor().map(|note| meta(layout::PREDECESSOR_KEY, note.as_bytes())));
    Ok(store.commit(WriteSet { puts, ..WriteSet::default() })?)
}

/// Gives a journal of the first format its tree. Every record is verified once; the format and the head are written last, so that
/// an upgrade that is cut short leaves a journal of the first format, and begins anew.
pub(crate) fn upgrade(store: &Arc<dyn Store>, mut recovered: Recovered) -> Result<Recovered, OpenError> {
    if !recovered.without_tree {
        return Ok(recovered);
    }
    let state = &recovered.state;
    tracing::info!(records = state.size, "this journal has no tree yet: all records are verified and it is made");
    clear_tree(store)?;
    let mut walker = Walker::whole(JournalState::genesis(state.origin.clone()));
    let mut writes = WriteSet::default();
    walk(store, &mut walker, state.size, |rows| {
        writes.puts.extend(rows.iter().map(layout::tree_row));
        if writes.puts.len() < UPGRADE_ROWS { Ok(()) } else { Ok(store.commit(std::mem::take(&mut writes))?) }
    })?;
    walker.check_head(state.size, state.chain).map_err(OpenError::Altered)?;
    let end = walker.state();
    if (&end.sources, &end.tenants, end.receipt_time) != (&state.sources, &state.tenants, state.receipt_time) {
        let what = "the counters or the time kept beside the records are not what the records give".to_owned();
        return Err(altered(0, state.size, what));
    }
    recovered.state = end.clone();
    let head = layout::encode_head(&Head::of(&recovered.state));
    writes.puts.push((Table::Meta, layout::HEAD_KEY.to_vec(), head));
    writes.puts.push((Table::Meta, layout::FORMAT_KEY.to_vec(), layout::FORMAT.as_bytes().to_vec()));
    store.commit(writes)?;
    recovered.verified_records = recovered.state.size;
    recovered.without_tree = false;
    Ok(recovered)
}

/// Removes what an upgrade that was cut short has left: the tree must have no row that the records don't give.
fn clear_tree(store: &Arc<dyn Store>) -> Result<(), OpenError> {
    loop {
        let rows = store.scan(Table::Tree, &[], Direction::Forward, UPGRADE_ROWS * layout::TREE_ROW_BYTES)?;
        if rows.is_empty() {
            return Ok(());
        }
        let deletes = rows.into_iter().map(|(key, _)| (Table::Tree, key.into_vec())).collect();
        store.commit(WriteSet { deletes, ..WriteSet::default() })?;
    }
}

/// Reads the state and verifies the newest records against it.
pub(crate) fn load(store: &Arc<dyn Store>, origin: &Origin) -> Result<(JournalState, u64), OpenError> {
    if check_identity(store, origin)? == Format::One {
        return Err(OpenError::Version { found: layout::FORMAT_1.to_owned(), known: layout::FORMAT });
    }
    let (mut state, root) = counters(store, origin)?;
    state.tree = TreeReader::new(store.clone(), origin.clone(), state.size).frontier().map_err(open_error)?;
    if Some(state.tree.root()) != root {
        let what = "the stored head's root is not that of the tree".to_owned();
        return Err(altered(0, state.size, what));
    }
    let mut start = find_start(store, &state)?;
    start.tree = TreeReader::new(store.clone(), origin.clone(), start.size).frontier().map_err(open_error)?;
    let verified = verify_newest(store, &state, start, |rows| rows.iter().try_for_each(|row| check_row(store, row)))?;
    Ok((state, verified))
}

/// As [`load`], of a journal of the first format.
fn load_without_tree(store: &Arc<dyn Store>, origin: &Origin) -> Result<(JournalState, u64), OpenError> {
    let (state, _) = counters(store, origin)?;
    let start = find_start(store, &state)?;
    let verified = verify_newest(store, &state, start, |_| Ok(()))?;
    Ok((state, verified))
}

fn check_row(store: &Arc<dyn Store>, row: &TreeRow) -> Result<(), OpenError> {
    let (table, key, value) = layout::tree_row(row);
    if store.get(table, &key)? == Some(value) {
        return Ok(());
    }
    let first = row.first_record();
    Err(altered(first, first, "a row of the tree is missing or wrong".to_owned()))
}

/// What is kept beside the records, but for the tree, and the root that the head states.
fn counters(store: &Arc<dyn Store>, origin: &Origin) -> Result<(JournalState, Option<NodeHash>), OpenError> {
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
    Ok((state, head.root))
}

/// How a journal is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Without a tree.
    One,
    /// As this program writes it.
    Two,
}

impl Format {
    /// From `meta/format`, if it is known.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            layout::FORMAT_1 => Some(Self::One),
            layout::FORMAT => Some(Self::Two),
            _ => None,
        }
    }
}

/// Reads the format, and checks that it is known and that the journal is the one that is meant.
fn check_identity(store: &Arc<dyn Store>, origin: &Origin) -> Result<Format, OpenError> {
    let text = |key| -> Result<String, OpenError> {
        let value = store.get(Table::Meta, key)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&value).into_owned())
    };
    let found = text(layout::FORMAT_KEY)?;
    let Some(format) = Format::read(&found) else {
        return Err(OpenError::Version { found, known: layout::FORMAT });
    };
    let found = text(layout::ORIGIN_KEY)?;
    if found != origin.as_str() {
        return Err(OpenError::Origin { found, expected: origin.to_string() });
    }
    Ok(format)
}

/// Walks the newest records, from `start` up to the head. Returns how many.
fn verify_newest(
    store: &Arc<dyn Store>,
    state: &JournalState,
    start: JournalState,
    rows: impl FnMut(&[TreeRow]) -> Result<(), OpenError>,
) -> Result<u64, OpenError> {
    let first = start.size;
    let mut walker = Walker::part(start);
    walk(store, &mut walker, state.size, rows)?;
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

/// Walks on up to the record `end`. The memory of each batch is compared, and `rows` gets the rows of the tree that each completes.
fn walk(
    store: &Arc<dyn Store>,
    walker: &mut Walker,
    end: u64,
    mut rows: impl FnMut(&[TreeRow]) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    for stored in read::Entries::new(store, walker.state().size..end, Direction::Forward) {
        let seq = walker.state().size;
        let entry = walker.step(stored.map_err(open_error)?.bytes()).map_err(OpenError::Altered)?;
        let key = layout::batch_key(entry.source, entry.epoch, entry.source_seq);
        if store.get(Table::Batches, &key)?.as_deref().and_then(layout::read_u64) != Some(seq) {
            let end = walker.state().size;
            return Err(altered(seq, end, "the memory of this batch is missing or wrong".to_owned()));
        }
        rows(walker.tree_rows())?;
    }
    Ok(())
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
        error @ ReadError::Beyond { .. } => altered(0, 0, error.to_string()),
    }
}

fn altered(from: u64, to: u64, what: String) -> OpenError {
    OpenError::Altered(Finding { from, to, fault: Fault::Derived(what) })
}
