//! Applying a frame: pure, deterministic, the same on every machine that gets the same frames.
//!
//! Everything taken from a clock or from configuration is in the frame already. Nothing is read here but the state and,
//! for batches at or below a source's mark, what the journal remembers of them.

use std::collections::{BTreeSet, HashMap};

use sigillo_model::{
    batch::Batch,
    entry::{Entry, Run, Salts},
    ids::{Count, Epoch, Seq, SourceId, SourceSeq, TenantId},
    limits::{BATCH_MAX_RECORDS, BLOCK_MAX_BYTES},
    state::{JournalState, SourceState},
};

use crate::{
    error::SubmitError,
    frame::{Head, Receipt, Refusal, Submission},
    layout::{self, Table},
    orders::Orders,
    store::{StoreError, WriteSet},
};

/// What came of a frame: its receipts and refusals in the frame's order, and what must be written for them to hold.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) outcomes: Vec<Result<Receipt, SubmitError>>,
    pub(crate) writes: WriteSet,
    pub(crate) touched: Vec<(SourceId, SourceState)>,
    /// Sequences of statements by which something is to go.
    pub(crate) removals: Vec<u64>,
}

/// Applies a frame to `state`. `remembered` looks a batch up by its key in `batches` and gives its receipt.
pub(crate) fn apply(
    state: &mut JournalState,
    orders: &mut Orders,
    frame: &[Submission],
    remembered: impl Fn(&[u8; 32]) -> Result<Option<Receipt>, StoreError>,
) -> Applied {
    let mut applied = Applied {
        outcomes: Vec::with_capacity(frame.len()),
        writes: WriteSet::default(),
        touched: Vec::new(),
        removals: Vec::new(),
    };
    let mut in_frame: HashMap<[u8; 32], Receipt> = HashMap::new();
    let (mut sources, mut tenants) = (BTreeSet::new(), BTreeSet::new());
    for submission in frame {
        let batch = &submission.batch;
        let key = layout::batch_key(submission.source, batch.epoch, batch.first);
        let known = state.sources.get(&submission.source).copied();
        let seen = known.is_some_and(|source| (batch.epoch, batch.first) < (source.epoch, source.next));
        let earlier = match in_frame.get(&key) {
            Some(receipt) => Some(Receipt { repeated: true, ..*receipt }),
            None if seen => match remembered(&key) {
                Ok(earlier) => earlier,
                Err(error) => {
                    applied.outcomes.push(Err(SubmitError::Unreadable(error.to_string())));
                    continue;
                }
            },
            None => None,
        };
        let outcome = match place(state, submission, known, earlier) {
            Err(refusal) => Err(refusal),
            Ok(Place::Repeated(receipt)) => Ok(receipt),
            Ok(Place::Next) => append(state, submission, known, &mut applied.writes).inspect(|receipt| {
                in_frame.insert(key, *receipt);
                applied.removals.extend(orders.meet(&state.origin, submission, receipt, &mut applied.writes));
                applied.writes.puts.push((Table::Batches, key.to_vec(), receipt.seq.get().to_be_bytes().to_vec()));
                sources.insert(submission.source);
                tenants.extend(submission.runs.iter().map(|run| run.tenant));
            }),
        };
        applied.outcomes.push(outcome.map_err(SubmitError::Refused));
    }
    for source in sources {
        if let Some(source_state) = state.sources.get(&source) {
            let value = layout::encode_source(source_state);
            applied.writes.puts.push((Table::Sources, source.as_bytes().to_vec(), value));
            applied.touched.push((source, *source_state));
        }
    }
    for tenant in tenants {
        if let Some(count) = state.tenants.get(&tenant) {
            applied.writes.puts.push((Table::Tenants, tenant.as_bytes().to_vec(), layout::encode_tenant(*count)));
        }
    }
    if !applied.writes.puts.is_empty() {
        let head = Head::of(state);
        applied.writes.puts.push((Table::Meta, layout::HEAD_KEY.to_vec(), layout::encode_head(&head)));
    }
    applied
}

enum Place {
    /// It goes on where its source stopped.
    Next,
    /// It is in the journal already.
    Repeated(Receipt),
}

/// Where a batch belongs, by its source's numbers and hashes.
fn place(
    state: &JournalState,
    submission: &Submission,
    known: Option<SourceState>,
    earlier: Option<Receipt>,
) -> Result<Place, Refusal> {
    let batch = &submission.batch;
    check_shape(submission)?;
    let (expected_epoch, expected) = known.map_or((batch.epoch, SourceSeq::new(0)), |s| (s.epoch, s.next));
    if let Some(receipt) = earlier {
        let same = receipt.batch_hash == batch.hash && receipt.count == batch.count;
        return if same { Ok(Place::Repeated(receipt)) } else { Err(Refusal::Fork { expected_epoch, expected }) };
    }
    match known {
        Some(source) if batch.epoch < source.epoch => Err(Refusal::StaleEpoch { expected_epoch, expected }),
        Some(source) if batch.epoch == source.epoch => {
            if batch.first > source.next {
                Err(Refusal::Gap { expected_epoch, expected })
            } else if batch.first < source.next || batch.previous != source.head {
                Err(Refusal::Fork { expected_epoch, expected })
            } else {
                Ok(Place::Next)
            }
        }
        _ => opens_epoch(state, submission.source, batch),
    }
}

fn opens_epoch(state: &JournalState, source: SourceId, batch: &Batch) -> Result<Place, Refusal> {
    if batch.first != SourceSeq::new(0) {
        return Err(Refusal::Gap { expected_epoch: batch.epoch, expected: SourceSeq::new(0) });
    }
    if batch.previous != state.epoch_opening(source, batch.epoch) {
        let message = "the first batch of an epoch must name the epoch's opening value as the hash before it, made with \
                       the last head of the epoch before";
        return Err(Refusal::Invalid(message.to_owned()));
    }
    Ok(Place::Next)
}

fn check_shape(submission: &Submission) -> Result<(), Refusal> {
    let batch = &submission.batch;
    let covered: u64 = submission.runs.iter().map(|run| u64::from(run.records)).sum();
    let invalid = |message: &str| Err(Refusal::Invalid(message.to_owned()));
    if batch.count == 0 {
        return invalid("a batch has at least one record");
    }
    if batch.epoch == Epoch::new(0) {
        return invalid("epochs are numbered from 1");
    }
    if batch.first.checked_add(u64::from(batch.count)).is_none() {
        return invalid("the batch's sequences run past the end of 64-bit numbers");
    }
    if batch.count as usize > BATCH_MAX_RECORDS || batch.block_bytes as usize > BLOCK_MAX_BYTES {
        return invalid("the batch is larger than the limits that the journal states");
    }
    if submission.runs.iter().any(|run| run.records == 0) {
        return invalid("a run covers at least one record");
    }
    if covered != u64::from(batch.count) || submission.commitments.len() != batch.count as usize {
        return invalid("runs and commitments must cover the records of the batch");
    }
    Ok(())
}

/// Gives the batch its place at the end of the journal.
fn append(
    state: &mut JournalState,
    submission: &Submission,
    known: Option<SourceState>,
    writes: &mut WriteSet,
) -> Result<Receipt, Refusal> {
    let batch = &submission.batch;
    let count = u64::from(batch.count);
    let (tenants, runs) = columns(state, submission)?;
    let source_count = known.map_or(Count::new(0), |source| source.count);
    let mut entry = Entry {
        class: submission.class,
        seq: Seq::new(state.size),
        count: batch.count,
        receipt_time: submission.received.max(state.receipt_time),
        source: submission.source,
        epoch: batch.epoch,
        source_seq: batch.first,
        source_count,
        batch_hash: batch.hash,
        chain_hash: state.chain,
        salts: Salts::Secret(batch.secret.clone()),
        tenants,
        runs,
        block_bytes: batch.block_bytes,
        compressed: &batch.compressed,
    };
    let mut rows = Vec::new();
    state.link(entry.envelopes(), &submission.commitments, &mut rows);
    entry.chain_hash = state.chain;
    writes.puts.extend(rows.iter().map(layout::tree_row));

    for run in &submission.runs {
        let next = state.tenants.entry(run.tenant).or_default();
        *next = Count::new(next.get().saturating_add(u64::from(run.records)));
    }
    state.sources.insert(
        submission.source,
        SourceState {
            epoch: batch.epoch,
            next: batch.end(),
            head: batch.hash,
            count: Count::new(source_count.get().saturating_add(count)),
        },
    );
    state.receipt_time = entry.receipt_time;
    writes.puts.push((Table::Tail, layout::tail_key(entry.seq.get()).to_vec(), entry.encode()));
    Ok(Receipt::of(&entry, false))
}

type Columns = (Vec<(TenantId, Count)>, Vec<Run>);

/// The tenant columns of an entry: tenants in order of first appearance, neighbouring runs that are alike joined.
fn columns(state: &JournalState, submission: &Submission) -> Result<Columns, Refusal> {
    let mut tenants: Vec<(TenantId, Count)> = Vec::new();
    let mut places: HashMap<TenantId, u16> = HashMap::new();
    let mut runs: Vec<Run> = Vec::new();
    for run in &submission.runs {
        let tenant = if let Some(place) = places.get(&run.tenant) {
            *place
        } else {
            let place = u16::try_from(tenants.len())
                .map_err(|_| Refusal::Invalid("too many tenants in one batch".to_owned()))?;
            tenants.push((run.tenant, state.tenants.get(&run.tenant).copied().unwrap_or_default()));
            places.insert(run.tenant, place);
            place
        };
        let next = Run { tenant, retention: run.retention, flags: run.flags, records: run.records };
        match runs.last_mut() {
            Some(last) if (last.tenant, last.retention, last.flags) == (tenant, run.retention, run.flags) => {
                last.records = last.records.saturating_add(run.records);
            }
            _ => runs.push(next),
        }
    }
    Ok((tenants, runs))
}
