//! What the journal's own records state, compared with what the walk finds.

use crate::{
    audit::Fault,
    block::Block,
    class::Class,
    entry::Entry,
    ids::{Count, Epoch, SourceId},
    rotation,
    state::JournalState,
    statement::{
        self,
        counters::{self, CounterEntry, CounterKey, CounterTree, Counters},
    },
};

/// A statement, and its place in its entry.
pub(super) struct Statement<'a> {
    pub(super) index: u32,
    pub(super) text: &'a str,
}

/// The statements among an entry's records: those of the product's own source that begin as one.
pub(super) fn statements<'a>(entry: &Entry<'_>, block: &Block<'a>) -> Vec<Statement<'a>> {
    let own = entry.class == Class::Journal.id() && entry.source == SourceId::from_name(Class::Journal.name());
    if !own {
        return Vec::new();
    }
    let text = |content: &'a [u8]| std::str::from_utf8(statement::original(content)?).ok();
    let of = |(index, record): (u32, crate::record::RecordRef<'a>)| {
        let text = text(record.content?).filter(|text| text.starts_with("sigillo "))?;
        Some(Statement { index, text })
    };
    (0..).zip(block.records()).filter_map(of).collect()
}

impl Statement<'_> {
    /// Whether it changes the log's key.
    pub(super) fn is_rotation(&self) -> bool {
        self.begins_with(rotation::HEADER)
    }

    /// Whether it tells where every source and tenant stands.
    pub(super) fn is_counters(&self) -> bool {
        self.begins_with(counters::HEADER)
    }

    fn begins_with(&self, header: &str) -> bool {
        self.text.strip_prefix(header).is_some_and(|rest| rest.starts_with('\n'))
    }

    /// Compares a counters record with the numbers of the walk right after it. `before` is the state before its entry.
    pub(super) fn check_counters(&self, before: &JournalState, entry: &Entry<'_>) -> Result<(), Fault> {
        let wrong =
            |what: String| Fault::Derived(format!("the counters record says what the records do not give: {what}"));
        let stated = Counters::parse(self.text, &before.origin).map_err(|error| wrong(error.to_string()))?;
        let tree = CounterTree::build(stated.salt, standing(before, entry, self.index + 1));
        for change in &stated.changes {
            let found = tree.find(&change.key).map(|(_, found)| found);
            if found != Some(change) {
                let counted = found.map_or("none".to_owned(), |found| found.next.to_string());
                let who = match change.key {
                    CounterKey::Source(id) => format!("source {id}"),
                    CounterKey::Tenant(id) => format!("tenant {id}"),
                };
                return Err(wrong(format!("{who} has the count {}, the walk counts {counted}", change.next)));
            }
        }
        let (count, root) = (tree.entries().len() as u64, tree.root());
        if (stated.count, stated.root) != (count, root) {
            return Err(wrong(format!(
                "{} entries with root {}, the walk gives {count} with root {root}",
                stated.count, stated.root
            )));
        }
        Ok(())
    }
}

/// Where everybody stands after the first `records` records of an entry.
fn standing(before: &JournalState, entry: &Entry<'_>, records: u32) -> Vec<CounterEntry> {
    let source = |id: SourceId, epoch, next| CounterEntry { key: CounterKey::Source(id), epoch, next };
    let others = before.sources.iter().filter(|(id, _)| **id != entry.source);
    let mut entries: Vec<CounterEntry> = others.map(|(id, state)| source(*id, state.epoch, state.count)).collect();
    let own = entry.source_count.get().saturating_add(u64::from(records));
    entries.push(source(entry.source, entry.epoch, Count::new(own)));

    let mut tenants = before.tenants.clone();
    let mut left = records;
    for run in &entry.runs {
        let Some((tenant, first)) = entry.tenants.get(usize::from(run.tenant)).filter(|_| left > 0) else { break };
        let taken = run.records.min(left);
        left -= taken;
        let count = tenants.entry(*tenant).or_insert(*first);
        *count = Count::new(count.get().saturating_add(u64::from(taken)));
    }
    let tenant = |(id, next)| CounterEntry { key: CounterKey::Tenant(id), epoch: Epoch::new(0), next };
    entries.extend(tenants.into_iter().map(tenant));
    entries
}
