//! Looking through one stored entry: first at its columns, then at the bytes of whole regions, and only then at records.

use std::ops::Range;

use sigillo_model::{
    audit::{Fault, Finding},
    block::{Block, Inflater},
    entry::Entry,
    record::Record,
};

use crate::{
    filter::{Coarse, Matcher},
    search::Hit,
};

/// Looks through entries for what a matcher wants, reusing its memory from one to the next.
pub(crate) struct Scanner {
    matcher: Matcher,
    inflater: Inflater,
    /// Which records of the entry at hand may still match.
    candidates: Vec<bool>,
    /// Which of them have passed the coarse condition at hand.
    passed: Vec<bool>,
}

impl Scanner {
    pub(crate) fn new(matcher: Matcher) -> Self {
        Self { matcher, inflater: Inflater::default(), candidates: Vec::new(), passed: Vec::new() }
    }

    pub(crate) fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// The records of `entry` with a sequence in `range` that match, in order.
    pub(crate) fn scan(&mut self, entry: &Entry<'_>, range: &Range<u64>) -> Result<Vec<Hit>, Finding> {
        let mut hits = Vec::new();
        if !self.choose_by_columns(entry, range) {
            return Ok(hits);
        }
        let finding = |fault: Fault| Finding { from: entry.seq.get(), to: entry.end(), fault };
        let block = entry.block(&mut self.inflater).map_err(|error| finding(error.into()))?;
        if block.count() != entry.count {
            return Err(finding(Fault::Count { stated: entry.count, found: block.count() }));
        }
        for coarse in self.matcher.coarse() {
            self.passed.clear();
            self.passed.resize(self.candidates.len(), false);
            look(&block, coarse, &mut self.passed);
            self.candidates.iter_mut().zip(&self.passed).for_each(|(candidate, passed)| *candidate &= passed);
            if !self.candidates.contains(&true) {
                return Ok(hits);
            }
        }
        let records = block.records().zip(entry.envelopes()).zip(&self.candidates).enumerate();
        for (index, ((record, envelope), candidate)) in records {
            if *candidate && self.matcher.matches(record) {
                hits.push(Hit { envelope, record: Record::from(record), gone: entry.gone(index) });
            }
        }
        Ok(hits)
    }

    /// Marks as candidates the records that the envelope lets through; false if there is none.
    fn choose_by_columns(&mut self, entry: &Entry<'_>, range: &Range<u64>) -> bool {
        let filter = self.matcher.filter();
        if !(filter.classes.is_empty() || filter.classes.contains(&entry.class))
            || !(filter.sources.is_empty() || filter.sources.contains(&entry.source))
            || !self.matcher.received().contains(&entry.receipt_time.get())
        {
            return false;
        }
        self.candidates.clear();
        for run in &entry.runs {
            let tenant = entry.tenants.get(usize::from(run.tenant)).map(|(tenant, _)| tenant);
            let wanted = filter.tenants.is_empty() || tenant.is_some_and(|tenant| filter.tenants.contains(tenant));
            self.candidates.resize(self.candidates.len() + run.records as usize, wanted);
        }
        for (seq, candidate) in (entry.seq.get()..).zip(&mut self.candidates) {
            *candidate &= range.contains(&seq);
        }
        self.candidates.contains(&true)
    }
}

/// Marks the records in whose part one of the needles is found.
fn look(block: &Block<'_>, coarse: &Coarse, passed: &mut [bool]) {
    let region = block.region(coarse.part);
    for needle in &coarse.needles {
        let mut spans = block.spans(coarse.part);
        let mut span = spans.next();
        let mut at = 0;
        while let Some(found) = region.get(at..).and_then(|rest| needle.find(rest)) {
            let found = at + found;
            while span.as_ref().is_some_and(|(_, span)| span.end <= found) {
                span = spans.next();
            }
            let Some((index, bytes)) = &span else { break };
            if found + needle.needle().len() <= bytes.end {
                if let Some(passed) = passed.get_mut(*index) {
                    *passed = true;
                }
                at = bytes.end;
            } else {
                // It runs from one record into the next.
                at = found + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use memchr::memmem::Finder;
    use proptest::prelude::*;
    use sigillo_model::{
        block::BlockBuilder,
        record::{Part, RecordRef},
    };

    use super::*;

    proptest! {
        /// Few letters, so that needles are met often, also over the borders between records.
        #[test]
        fn a_coarse_look_finds_what_each_record_holds(
            records in prop::collection::vec(prop::option::of("[ab]{0,6}"), 1..20),
            needles in prop::collection::vec("[ab]{1,4}", 1..3),
        ) {
            let mut builder = BlockBuilder::default();
            for content in &records {
                let content = content.as_ref().map(String::as_bytes);
                builder.push(RecordRef { core: Some(b"ab"), personal: None, content }).unwrap();
            }
            let bytes = builder.take();
            let needles_ready = needles.iter().map(|needle| Finder::new(needle).into_owned()).collect();
            let coarse = Coarse { part: Part::Content, needles: needles_ready };
            let mut passed = vec![false; records.len()];
            look(&Block::parse(&bytes).unwrap(), &coarse, &mut passed);
            let expected: Vec<bool> = records
                .iter()
                .map(|content| content.as_ref().is_some_and(|text| needles.iter().any(|needle| text.contains(needle))))
                .collect();
            prop_assert_eq!(passed, expected);
        }
    }
}
