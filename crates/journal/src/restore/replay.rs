//! Orders of officers that came after the backup: what was erased since must not come back with it, so they are given anew to the
//! restored copy, word for word, before it is put in its place.

use std::path::Path;

use sigillo_model::{
    batch::{self, Batch},
    block::{BlockBuilder, Inflater},
    class::Class,
    entry::Entry,
    envelope::Flags,
    ids::{BatchSecret, Epoch, Origin, ReceiptTime, SourceSeq, TenantId},
    record::{Part, Record},
    statement::{self, Act, Statement},
};

use super::RestoreError;
use crate::{
    error::OpenError,
    frame::{Head, Submission, TenantRun},
    options::Options,
    read::StoredEntry,
    submit::Journal,
};

/// An order that the backup does not hold.
#[derive(Debug, Clone)]
pub(super) struct LostOrder {
    /// The record that holds it, as it was.
    record: Record,
    /// Whom the record concerned.
    tenant: TenantId,
}

/// What the lost records held of orders.
#[derive(Debug, Default)]
pub(super) struct LostOrders {
    pub(super) replayed: Vec<LostOrder>,
    /// Sequences of those that name records of which some are lost: their numbers will belong to others, so officers must sign anew.
    pub(super) to_be_signed_anew: Vec<u64>,
    inflater: Inflater,
}

impl LostOrders {
    /// Looks for orders in an entry that the backup, of `held` records, does not hold.
    pub(super) fn look(&mut self, stored: &StoredEntry, origin: &Origin, held: u64) -> Option<()> {
        let entry = stored.entry().ok()?;
        if !statement::may_be_statement(entry.class, entry.source) {
            return None;
        }
        let block = entry.block(&mut self.inflater).ok()?;
        for (seq, record) in (entry.seq.get()..).zip(entry.held(&block)) {
            let text = record.part(Part::Content).and_then(statement::original);
            let Some(Ok(Statement::Order(order))) = text.and_then(|text| Statement::parse(text, origin)) else {
                continue;
            };
            match &order.act {
                // Of lost records nothing comes back.
                Act::Erase(erasure) if erasure.targets.iter().all(|(target, _)| *target >= held) => {}
                Act::Erase(erasure) if erasure.targets.iter().any(|(target, _)| *target >= held) => {
                    self.to_be_signed_anew.push(seq);
                }
                Act::Erase(_) | Act::Keep(_) => {
                    let part = |part| record.part(part).map(|bytes| bytes.to_vec().into());
                    let (core, personal, content) = (part(Part::Core), part(Part::Personal), part(Part::Content));
                    let tenant = tenant_of(&entry, seq)?;
                    self.replayed.push(LostOrder { record: Record { core, personal, content }, tenant });
                }
            }
        }
        Some(())
    }
}

fn tenant_of(entry: &Entry<'_>, seq: u64) -> Option<TenantId> {
    let place = usize::try_from(seq.checked_sub(entry.seq.get())?).ok()?;
    entry.envelopes().nth(place).map(|envelope| envelope.tenant)
}

/// Appends the orders to the journal in `dir`, which nobody uses, and closes it. Returns where it then stands.
pub(super) fn replay(
    dir: &Path,
    origin: &Origin,
    orders: &[LostOrder],
    now: ReceiptTime,
) -> Result<Head, RestoreError> {
    let failed = |error: &dyn std::fmt::Display| RestoreError::Replay(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| failed(&error))?;
    let options = Options { reserve_bytes: 0, ..Options::new(dir, origin.clone()) };
    let journal = Journal::open(&options).map_err(RestoreError::Open)?.journal;
    runtime.block_on(async {
        for order in orders {
            let submission = submission(&journal, order, now).map_err(|error| failed(&error))?;
            let receipt = journal.submit(submission).await.map_err(|error| failed(&error))?;
            // What it erases is gone from the copy's files before the copy is anybody's journal.
            journal.removal(receipt.seq.get()).await.map_err(|error| failed(&error))?;
        }
        let head = journal.head();
        journal.close().await.map_err(|error| failed(&error))?;
        Ok(head)
    })
}

/// One order in an epoch of its own, so that it needs nothing of the journal but what it holds.
fn submission(journal: &Journal, order: &LostOrder, now: ReceiptTime) -> Result<Submission, OpenError> {
    let source = statement::journal_source();
    let other = |error: &dyn std::fmt::Display| OpenError::Io {
        path: "an order".into(),
        error: std::io::Error::other(error.to_string()),
    };
    let last = journal.source(source).map_or(0, |state| state.epoch.get());
    let epoch = Epoch::new(now.get().max(last.saturating_add(1)));
    let previous = journal.epoch_opening(source, epoch);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| other(&error))?;
    let mut builder = BlockBuilder::default();
    builder.push(order.record.as_ref()).map_err(|error| other(&error))?;
    let batch = Batch::seal(&mut builder, source, epoch, SourceSeq::new(0), previous, BatchSecret::new(secret), 1)
        .map_err(|error| other(&error))?;
    let commitments =
        batch::commitments(&batch.secret, &batch.open(&mut Inflater::default()).map_err(|error| other(&error))?);
    let run = TenantRun {
        tenant: order.tenant,
        retention: Class::Journal.retention(),
        flags: Flags::COMMITTED_BY_LISTENER,
        records: 1,
    };
    Ok(Submission { source, class: Class::Journal.id(), batch, commitments, runs: vec![run], received: now })
}
