//! Which records go into an evidence file, and how much of each is shown.

use std::collections::BTreeSet;

use sigillo_journal::Direction;
use sigillo_model::{
    entry::{Entry, Gone},
    record::PART_BITS,
    statement::{self, Act, Statement, counters::CounterKey},
};
use sigillo_query::{Order, Search, Step};
use tonic::Status;

use super::{Export, RECORDS_MAX, Stop, counters::own_texts};

/// A record of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chosen {
    /// Which.
    pub(super) seq: u64,
    /// One bit for each part that is shown, if it is kept; none for a record of which only the commitment is given.
    pub(super) shown: u8,
}

/// The records of the file, ascending.
pub(super) fn choose(export: &mut Export) -> Result<Vec<Chosen>, Stop> {
    let size = export.end.size;
    let mut chosen = Vec::new();
    let mut gone = Vec::new();
    let filter = export.wish.filter.clone();
    let mut search = Search::new(export.journal.clone(), filter, Order::OldestFirst, 0..size);
    while let Some(step) = search.next()? {
        match step {
            // What is not of the run has no place in it.
            Step::Match(hit) if is_of_run(export, &hit.envelope) => {
                chosen.push(Chosen { seq: hit.envelope.seq.get(), shown: export.wish.parts });
                if hit.gone != Gone::NOTHING {
                    gone.push((hit.envelope.seq.get(), hit.envelope.retention));
                }
            }
            Step::Match(_) => (),
            Step::Scanned { .. } => export.feed.flush()?,
        }
        check(&chosen)?;
    }
    if let Some((key, _)) = &export.wish.run {
        for stored in export.journal.entries(0..size, Direction::Forward) {
            let stored = stored?;
            let entry = stored.entry()?;
            if has_any(&entry, key) {
                let all = entry.envelopes().enumerate().filter(|(_, envelope)| is_of(key, envelope));
                for (index, envelope) in all.filter(|(_, envelope)| envelope.seq.get() < size) {
                    chosen.push(Chosen { seq: envelope.seq.get(), shown: 0 });
                    if entry.gone(index) != Gone::NOTHING {
                        gone.push((envelope.seq.get(), envelope.retention));
                    }
                }
                check(&chosen)?;
            }
        }
        // The counters record.
        chosen.push(Chosen { seq: size - 1, shown: PART_BITS });
    }
    if !gone.is_empty() {
        gone.sort_unstable();
        gone.dedup();
        statements(export, &gone, &mut chosen)?;
    }
    tidy(&mut chosen);
    Ok(chosen)
}

/// Sorts them, each once with all that is to be shown of it.
pub(super) fn tidy(chosen: &mut Vec<Chosen>) {
    chosen.sort_unstable();
    chosen.dedup_by(|next, kept| {
        let same = next.seq == kept.seq;
        if same {
            kept.shown |= next.shown;
        }
        same
    });
}

fn check(chosen: &[Chosen]) -> Result<(), Stop> {
    if chosen.len() <= 2 * RECORDS_MAX {
        return Ok(());
    }
    Err(Stop::Refused(Status::out_of_range(format!(
        "more than {RECORDS_MAX} records: export a shorter range, or fewer sources"
    ))))
}

fn is_of_run(export: &Export, envelope: &sigillo_model::envelope::Envelope) -> bool {
    export.wish.run.as_ref().is_none_or(|(key, _)| is_of(key, envelope))
}

fn is_of(key: &CounterKey, envelope: &sigillo_model::envelope::Envelope) -> bool {
    match key {
        CounterKey::Source(id) => envelope.source == *id,
        CounterKey::Tenant(id) => envelope.tenant == *id,
    }
}

/// Whether any record of an entry is of this source or tenant, by its columns.
fn has_any(entry: &Entry<'_>, key: &CounterKey) -> bool {
    match key {
        CounterKey::Source(id) => entry.source == *id,
        CounterKey::Tenant(id) => entry.tenants.iter().any(|(tenant, _)| tenant == id),
    }
}

/// Adds the statements that explain what is `gone`: orders that name one of these records, purges that cover one, and the
/// retention statements that the purges cite.
fn statements(
    export: &Export,
    gone: &[(u64, sigillo_model::ids::RetentionId)],
    chosen: &mut Vec<Chosen>,
) -> Result<(), Stop> {
    let mut cited = BTreeSet::new();
    for stored in export.journal.source_entries_newest_first(statement::journal_source()) {
        // Newest first within an entry too, so that a purge is met before what it cites.
        let mut texts = Vec::new();
        own_texts(&stored?, |seq, text| {
            if let Some(Ok(statement)) = Statement::parse(text, &export.origin) {
                texts.push((seq, statement));
            }
        })?;
        for (seq, statement) in texts.into_iter().rev().filter(|(seq, _)| *seq < export.end.size) {
            let explains = match statement {
                Statement::Other => false,
                Statement::Purge(purge) => {
                    let from = gone.partition_point(|(seq, _)| *seq < purge.from);
                    let mut within = gone.iter().skip(from).take_while(|(seq, _)| *seq < purge.to);
                    let covers = within.any(|(_, retention)| *retention == purge.class);
                    if covers {
                        cited.insert(purge.retention);
                    }
                    covers
                }
                Statement::Order(order) => match order.act {
                    Act::Keep(_) => cited.contains(&seq),
                    Act::Erase(erasure) => {
                        let named = |target: &u64| gone.binary_search_by_key(target, |(seq, _)| *seq).is_ok();
                        erasure.targets.iter().any(|(target, _)| named(target))
                    }
                },
            };
            if explains {
                chosen.push(Chosen { seq, shown: PART_BITS });
            }
        }
    }
    Ok(())
}
