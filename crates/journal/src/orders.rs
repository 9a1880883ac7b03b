//! What statements put into force: removals to carry out, and how long the payloads of each retention class are kept.
//!
//! Whatever statement is appended, by whatever way, is met here, in the same write that makes it durable: so an order that stands
//! in the journal is carried out, and one that does not is not.

use std::{collections::HashMap, sync::Arc};

use sigillo_model::{
    audit::{Fault, Finding},
    block::Inflater,
    ids::{Origin, ReceiptTime, RetentionId},
    statement::{self, Act, Erasure, Purge, Retention, Statement},
};

use crate::{
    error::ReadError,
    frame::{Receipt, Submission},
    layout::{self, ClassRow, PendingRow, Table},
    read,
    store::{Store, StoreError, StoreErrorKind, WriteSet},
};

/// What is in force.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    classes: HashMap<RetentionId, ClassRow>,
    inflater: Inflater,
}

impl Orders {
    /// Reads what is in force, and the sequences of the statements whose removals are under way.
    pub(crate) fn load(store: &Arc<dyn Store>) -> Result<(Self, Vec<u64>), StoreError> {
        let mut orders = Self::default();
        let mut pending = Vec::new();
        for pair in read::pairs(store, Table::Pending) {
            let (key, value) = pair?;
            if let Some((class, row)) = ClassRow::class(&key).zip(ClassRow::decode(&value)) {
                orders.classes.insert(class, row);
            } else if let Some((seq, _)) = layout::read_u64(&key).zip(PendingRow::decode(&value)) {
                pending.push(seq);
            } else {
                let message = "a removal under way, or what is in force for a class, can't be read".to_owned();
                return Err(StoreError { kind: StoreErrorKind::Damaged, message });
            }
        }
        Ok((orders, pending))
    }

    /// Looks for statements in a batch that was just appended, and adds the rows that they need. Gives the sequences of those
    /// that take something out. What a statement may not do, it does not: a walk would find it unlawful.
    pub(crate) fn meet(
        &mut self,
        origin: &Origin,
        submission: &Submission,
        receipt: &Receipt,
        writes: &mut WriteSet,
    ) -> Vec<u64> {
        if !statement::may_be_statement(submission.class, submission.source) {
            return Vec::new();
        }
        // It was opened, and its hashes checked, by whoever submits it.
        let Ok(block) = submission.batch.open(&mut self.inflater) else { return Vec::new() };
        let mut removals = Vec::new();
        for (seq, record) in (receipt.seq.get()..).zip(block.records()) {
            let text = record.content.and_then(statement::original);
            let Some(Ok(found)) = text.and_then(|text| Statement::parse(text, origin)) else { continue };
            let class = match found {
                Statement::Order(order) if order.check_form().is_err() => continue,
                Statement::Order(order) => match order.act {
                    Act::Erase(_) => {
                        removals.push(seq);
                        None
                    }
                    Act::Keep(Retention { class, keep_s }) => {
                        let purged_to = self.classes.get(&class).map_or(0, |row| row.purged_to);
                        Some((class, ClassRow { retention: seq, keep_s, purged_to }))
                    }
                },
                Statement::Purge(purge) => match self.classes.get(&purge.class) {
                    Some(row) if row.retention == purge.retention && purge.to <= seq => {
                        removals.push(seq);
                        Some((purge.class, ClassRow { purged_to: purge.to.max(row.purged_to), ..*row }))
                    }
                    _ => continue,
                },
                Statement::Other => continue,
            };
            if let Some((class, row)) = class {
                self.classes.insert(class, row);
                writes.puts.push((Table::Pending, ClassRow::key(class).to_vec(), row.encode()));
            }
        }
        let row = |seq: &u64| (Table::Pending, layout::tail_key(*seq).to_vec(), PendingRow::NEW.encode());
        writes.puts.extend(removals.iter().map(row));
        removals
    }
}

/// See [`crate::Reader::refuses`].
pub(crate) fn refuses(store: &Arc<dyn Store>, size: u64, erasure: &Erasure) -> Result<Option<String>, ReadError> {
    let mut inflater = Inflater::default();
    for (seq, _) in &erasure.targets {
        if *seq >= size {
            return Ok(Some(format!("record {seq} is not there: the journal has {size} records")));
        }
        let missing = || read::derived(*seq, "the entry that holds this record is missing");
        let stored = read::containing(store.as_ref(), *seq)?.ok_or_else(missing)?;
        let entry = stored.entry()?;
        if !statement::may_be_statement(entry.class, entry.source) {
            continue;
        }
        let altered = |error| ReadError::Altered(Finding { from: entry.seq.get(), to: entry.end(), fault: error });
        let block = entry.block(&mut inflater).map_err(|error| altered(Fault::Block(error)))?;
        let place = usize::try_from(seq - entry.seq.get()).unwrap_or(usize::MAX);
        if block.records().nth(place).and_then(|record| record.content).is_some_and(statement::is_statement) {
            return Ok(Some(format!("record {seq} is a statement, by which removals are judged: it is never erased")));
        }
    }
    Ok(None)
}

/// What a purge of a class would take at `now`: nothing if no retention statement is in force, or nothing is due.
pub(crate) fn plan_purge(
    store: &Arc<dyn Store>,
    class: RetentionId,
    now: ReceiptTime,
    first_received_since: impl FnOnce(ReceiptTime) -> Result<u64, ReadError>,
) -> Result<Option<Purge>, ReadError> {
    let Some(value) = store.get(Table::Pending, &ClassRow::key(class))? else { return Ok(None) };
    let row = ClassRow::decode(&value).ok_or_else(|| read::derived(0, "what is in force for a class can't be read"))?;
    let Some(due) = (Retention { class, keep_s: row.keep_s }).due_before(now) else { return Ok(None) };
    let to = first_received_since(due)?;
    let purge = Purge { from: row.purged_to, to, class, retention: row.retention };
    Ok((purge.from < purge.to).then_some(purge))
}
