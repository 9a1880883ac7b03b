//! What the journal holds of each source, and which alarms, held against what its spool held.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use sigillo_client::Connection;
use sigillo_model::{
    audit::Walker,
    block::Inflater,
    entry::Entry,
    ids::{BatchHash, SourceId},
    state::JournalState,
};
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value, walk_response::Message},
};

use super::{attacks::Attack, image::Item, sender::Delivered, story::Story};
use crate::{config, server::Server};

/// Severity from which an own record is an alarm: a warning.
const WARNING: u32 = 13;

/// A place in a source's sequences.
type At = (u64, u64);

/// The journal of a site, source by source.
#[derive(Debug)]
pub(super) struct Journal {
    sources: HashMap<SourceId, Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Where each begins and ends, and its hash.
    batches: Vec<(At, At, BatchHash)>,
    alarms: Vec<Alarm>,
    /// Where the newest good head stands.
    covered: At,
}

/// An own record of warning about a source, and the range of records that it is about.
#[derive(Debug)]
struct Alarm {
    event: String,
    from: At,
    to: At,
}

impl Journal {
    /// Walks the whole journal and verifies it.
    pub(super) async fn read(server: &Server) -> Result<Self> {
        let connection = Connection::open(&server.endpoint(config::READER)).await?;
        let request = v1::WalkRequest { from: 0, to: 0, reason: "spool drill".to_owned() };
        let mut responses = connection.walk(request).await?;
        let mut walker = Walker::whole(JournalState::genesis(config::origin()?));
        let mut inflater = Inflater::default();
        let mut journal = Self { sources: HashMap::new() };
        loop {
            match responses.next().await?.and_then(|response| response.message) {
                Some(Message::Start(_)) => {}
                Some(Message::Entry(bytes)) => {
                    walker.step(&bytes).map_err(|finding| anyhow!("the chain does not verify: {finding}"))?;
                    let entry = Entry::decode(&bytes)?;
                    let held = journal.sources.entry(entry.source).or_default();
                    let first = entry.source_seq.get();
                    let (from, to) = ((entry.epoch.get(), first), (entry.epoch.get(), first + u64::from(entry.count)));
                    held.batches.push((from, to, entry.batch_hash));
                    if entry.source == sigillo_model::statement::journal_source() {
                        for record in entry.block(&mut inflater)?.records() {
                            journal.learn(Fields::decode(record));
                        }
                    }
                }
                Some(Message::End(_)) => return Ok(journal),
                None => bail!("the walk was cut off"),
            }
        }
    }

    /// An own record.
    fn learn(&mut self, fields: Fields) {
        let (core, content) = (fields.core.unwrap_or_default(), fields.content.unwrap_or_default());
        let Some(target) = core.target.filter(|target| target.r#type == "source") else { return };
        let held = self.sources.entry(SourceId::from_name(&target.id)).or_default();
        let number = |key: &str| {
            let value = content.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?;
            match value.value.as_ref()? {
                any_value::Value::IntValue(number) => u64::try_from(*number).ok(),
                _ => None,
            }
        };
        let at = |epoch: &str, sequence: &str| Some((number(epoch)?, number(sequence)?));
        if core.event_name == "source.head" {
            held.covered = at("epoch", "next_sequence").unwrap_or(held.covered);
        } else if core.severity_number >= WARNING {
            let (from, to) = match core.event_name.as_str() {
                // From then on somebody else may be signing, and of all since the last head nobody knows.
                "source.key" => (held.covered, (u64::MAX, u64::MAX)),
                _ => (
                    at("from_epoch", "from_sequence").unwrap_or_default(),
                    at("to_epoch", "to_sequence").unwrap_or_default(),
                ),
            };
            held.alarms.push(Alarm { event: core.event_name, from, to });
        }
    }

    /// Whether what was done to a source's spool was noticed, or nothing was said where nothing was done.
    pub(super) fn judge(&self, story: &Story, attack: Option<&Attack>, delivered: Result<Delivered>) -> Result<String> {
        let delivered = delivered?;
        let held = self.sources.get(&story.source).context("the journal knows nothing of the source")?;
        let key = |batch: &sigillo_model::batch::Batch| {
            let epoch = batch.epoch.get();
            ((epoch, batch.first.get()), (epoch, batch.end().get()), batch.hash)
        };
        let batches =
            story.batches().filter_map(|item| if let Item::Batch(batch) = item { Some(key(&batch)) } else { None });
        let made: HashSet<(At, At, BatchHash)> = batches.collect();
        let altered: Vec<_> = held.batches.iter().filter(|batch| !made.contains(*batch)).collect();
        let events: Vec<&str> = held.alarms.iter().map(|alarm| alarm.event.as_str()).collect();
        if attack.is_none() {
            ensure!(delivered.refusal.is_none(), "refused: {:?}", delivered.refusal);
            ensure!(events.is_empty(), "alarms without a cause: {events:?}");
            ensure!(altered.is_empty(), "the journal holds what the spool never held: {altered:?}");
            ensure!(held.batches.len() == made.len(), "{} of {} batches arrived", held.batches.len(), made.len());
            ensure!(delivered.head_time_ns >= story.end.head_time_ns, "the last head is not acknowledged");
            return Ok(format!("{} batches", made.len()));
        }
        ensure!(delivered.refusal.is_some() || !events.is_empty(), "nobody noticed");
        for (from, to, hash) in &altered {
            let named = held.alarms.iter().any(|alarm| alarm.from <= *from && *to <= alarm.to);
            ensure!(named, "the altered batch {hash} at {from:?} is within no alarm's range: {:?}", held.alarms);
        }
        let refusal = delivered.refusal.as_deref().unwrap_or("not refused");
        Ok(format!("{events:?}, {} altered batches taken, {refusal}", altered.len()))
    }
}
