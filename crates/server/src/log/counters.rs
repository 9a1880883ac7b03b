//! The counters record: where every source and tenant stands, as the last leaf of a checkpoint that is meant for witnesses.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sigillo_model::{
    ids::{Count, Epoch, SourceId, TenantId},
    state::JournalState,
    statement::counters::{CounterEntry, CounterKey, CounterTree},
};
use tokio::sync::oneshot;

use crate::{
    config::PROVIDER,
    own::{self, Event, Own, OwnError},
};

/// Bytes of a statement at most: a record has a mebibyte.
const TEXT_MAX_BYTES: usize = 1_000_000;

/// What was recorded last.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    last: HashMap<CounterKey, CounterEntry>,
    /// Size of the journal right after it.
    end: u64,
    at: Option<Instant>,
}

impl Counters {
    /// Whether to record them before the next checkpoint of a journal of `size` records: there is other news, and the last
    /// time is long enough ago.
    pub(crate) fn due(&self, size: u64, every: Duration) -> bool {
        size > self.end && self.at.is_none_or(|at| at.elapsed() >= every)
    }

    /// Records them, and returns the journal's size right after.
    pub(crate) async fn record(&mut self, own: &Own) -> Result<u64, OwnError> {
        // A failure is not repeated each second either.
        self.at = Some(Instant::now());
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| OwnError::Random(error.to_string()))?;
        let last = std::mem::take(&mut self.last);
        let (keep, kept) = oneshot::channel();
        let recorded = own
            .compose(move |state| {
                let (event, entries) = statement(state, salt, &last);
                // Whoever asked may be gone.
                let _ = keep.send(if event.is_some() { entries } else { last });
                event.ok_or_else(|| OwnError::Journal("there are too many sources and tenants for one record".into()))
            })
            .await;
        // Lost only with the record: then all are named again.
        self.last = kept.await.unwrap_or_default();
        self.end = recorded?.seq.get().saturating_add(1);
        Ok(self.end)
    }
}

/// The record, which counts itself, and all entries; no record if it would be too large.
fn statement(
    state: &JournalState,
    salt: [u8; 32],
    last: &HashMap<CounterKey, CounterEntry>,
) -> (Option<Event>, HashMap<CounterKey, CounterEntry>) {
    let (journal, provider) = (own::source(), TenantId::from_name(PROVIDER));
    let one_more = |count: Count, itself: bool| Count::new(count.get().saturating_add(u64::from(itself)));
    let source = |(id, source): (&SourceId, &sigillo_model::state::SourceState)| CounterEntry {
        key: CounterKey::Source(*id),
        epoch: source.epoch,
        next: one_more(source.count, *id == journal),
    };
    let tenant = |(id, count): (&TenantId, &Count)| CounterEntry {
        key: CounterKey::Tenant(*id),
        epoch: Epoch::new(0),
        next: one_more(*count, *id == provider),
    };
    let entries = state.sources.iter().map(source).chain(state.tenants.iter().map(tenant)).collect();
    let tree = CounterTree::build(salt, entries);
    let changes = tree.entries().iter().filter(|entry| last.get(&entry.key) != Some(entry)).copied().collect();
    let text = tree.statement(&state.origin, changes).text();
    let entries = tree.entries().iter().map(|entry| (entry.key, *entry)).collect();
    if text.len() > TEXT_MAX_BYTES {
        return (None, entries);
    }
    let event = Event::new("journal.counters")
        .body("where every source and tenant stands")
        .number("entries", tree.entries().len())
        .original(text);
    (Some(event), entries)
}

#[cfg(test)]
mod tests {
    use sigillo_model::{
        ids::{BatchHash, Origin, SourceSeq},
        state::SourceState,
        statement::counters,
    };

    use super::*;

    #[test]
    fn a_record_counts_itself_and_names_what_changed() {
        let origin = Origin::new("log.example").unwrap();
        let mut state = JournalState::genesis(origin.clone());
        let stands = |count| SourceState {
            epoch: Epoch::new(3),
            next: SourceSeq::new(1),
            head: BatchHash::new([0; 32]),
            count: Count::new(count),
        };
        let agent = SourceId::from_name("agent");
        state.sources.insert(own::source(), stands(5));
        state.sources.insert(agent, stands(7));
        state.tenants.insert(TenantId::from_name(PROVIDER), Count::new(12));
        let told = |event: Event| {
            let text = String::from_utf8(event.into_original()).unwrap();
            counters::Counters::parse(&text, &origin).unwrap()
        };
        let (event, entries) = statement(&state, [1; 32], &HashMap::new());
        let first = told(event.unwrap());
        assert_eq!((first.count, first.changes.len()), (3, 3));
        let next = |key| entries[&key].next.get();
        assert_eq!(next(CounterKey::Source(own::source())), 6);
        assert_eq!(next(CounterKey::Source(agent)), 7);
        assert_eq!(next(CounterKey::Tenant(TenantId::from_name(PROVIDER))), 13);
        // The agent's stays as it was; the record itself moves the other two.
        state.sources.insert(own::source(), stands(6));
        state.tenants.insert(TenantId::from_name(PROVIDER), Count::new(13));
        let second = told(statement(&state, [2; 32], &entries).0.unwrap());
        assert_eq!((second.count, second.changes.len()), (3, 2));
    }
}
