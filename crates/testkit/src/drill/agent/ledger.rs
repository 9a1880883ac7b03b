//! What the journal holds of each file, held against what was written.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use sigillo_client::Connection;
use sigillo_model::{audit::Walker, block::Inflater, entry::Entry, ids::ChainHash, state::JournalState};
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value, walk_response::Message},
};

use super::acts;
use crate::{
    config,
    numbered::{NumberedLog, Place, Rotation, parse},
};

/// So many acts later an unanswered one does not come any more.
const UNANSWERED_MAX: u64 = 10_000;
/// Event that declares a loss.
const LOSS: &str = "agent.loss";

/// What the journal holds, followed entry by entry: every commitment and link of it is recomputed.
#[derive(Debug)]
pub(super) struct Ledger {
    walker: Walker,
    inflater: Inflater,
    streams: HashMap<String, Stream>,
    /// Names of streams by their files' paths.
    paths: HashMap<String, String>,
    acts: ActsMet,
    /// Lines met.
    pub(super) found: u64,
    /// Lines that are missing and declared lost.
    pub(super) declared: u64,
    /// Lines of files that came and went before anybody could look at them: of those nobody can tell that they ever were.
    pub(super) unseen: u64,
    /// Declarations under which no line is missing.
    pub(super) needless: u64,
}

/// The acts that a program wrote to the agent's socket.
#[derive(Debug, Default)]
struct ActsMet {
    /// Number of the next one.
    next: u64,
    /// Those that did not come before a later one.
    missing: HashSet<u64>,
    /// Of these the agent has said that they survive.
    kept: HashSet<u64>,
}

/// A file's lines.
#[derive(Debug, Default)]
struct Stream {
    /// Number of the next line.
    next: u64,
    gaps: Vec<Gap>,
    losses: Vec<Loss>,
}

/// Lines that are missing, and the sequence of the line after them.
#[derive(Debug, Clone, Copy)]
struct Gap {
    from: u64,
    to: u64,
    before: u64,
    after: u64,
}

/// A declared loss: offsets in one of the files that had the path. Where it ends is not always known.
#[derive(Debug, Clone, Copy)]
struct Loss {
    seq: u64,
    from: u64,
    to: Option<u64>,
}

impl Ledger {
    pub(super) fn new(logs: &[NumberedLog]) -> Result<Self> {
        let path = |log: &NumberedLog| (log.path().display().to_string(), log.name().to_owned());
        Ok(Self {
            walker: Walker::whole(JournalState::genesis(config::origin()?)),
            inflater: Inflater::default(),
            streams: logs.iter().map(|log| (log.name().to_owned(), Stream::default())).collect(),
            paths: logs.iter().map(path).collect(),
            acts: ActsMet::default(),
            found: 0,
            declared: 0,
            unseen: 0,
            needless: 0,
        })
    }

    /// Follows the journal to its end, and returns its size.
    pub(super) async fn follow(&mut self, connection: &Connection) -> Result<u64> {
        let request = v1::WalkRequest { from: self.walker.state().size, to: 0, reason: "agent drill".to_owned() };
        let mut responses = connection.walk(request).await?;
        let first = responses.next().await?.and_then(|response| response.message);
        let Some(Message::Start(start)) = first else { bail!("the walk did not begin with a start") };
        let head = start.head.unwrap_or_default();
        let chain = ChainHash::from_slice(&head.chain_hash).ok_or_else(|| anyhow!("the head has no chain value"))?;
        loop {
            match responses.next().await?.and_then(|response| response.message) {
                Some(Message::Entry(bytes)) => self.step(&bytes)?,
                Some(Message::End(_)) => break,
                other => bail!("the walk was cut off by {other:?}"),
            }
        }
        self.walker.check_head(head.size, chain)?;
        Ok(head.size)
    }

    fn step(&mut self, bytes: &[u8]) -> Result<()> {
        self.walker.step(bytes).map_err(|finding| anyhow!("the chain does not verify: {finding}"))?;
        let entry = Entry::decode(bytes)?;
        let block = entry.block(&mut self.inflater)?;
        for (seq, record) in (entry.seq.get()..).zip(block.records()) {
            let Fields { core, content, .. } = Fields::decode(record);
            let (core, content) = (core.unwrap_or_default(), content.unwrap_or_default());
            if core.event_name == LOSS {
                let target = core.target.unwrap_or_default();
                let name = self.paths.get(&target.id);
                let Some(stream) = name.and_then(|name| self.streams.get_mut(name)) else {
                    bail!("record {seq} declares a loss in {target:?}, which is no file of ours");
                };
                stream.losses.push(Loss::read(seq, &content.attributes)?);
            } else if let Some((name, number)) = parse(&content.original)
                && let Some(stream) = self.streams.get_mut(name)
            {
                stream.meet(number, seq).map_err(|error| anyhow!("{name}: {error}"))?;
                self.found += 1;
            } else if let Some(number) = act(&content.original) {
                self.acts.meet(number, seq)?;
                self.found += 1;
            }
        }
        Ok(())
    }

    /// The agent has said of these acts that they survive.
    pub(super) fn kept(&mut self, numbers: HashSet<u64>) {
        self.acts.kept.extend(numbers);
    }

    /// Whether nothing is to come any more.
    pub(super) fn is_complete(&self, logs: &[NumberedLog]) -> bool {
        self.acts.kept.iter().all(|number| self.acts.has(*number))
            && logs.iter().all(|log| self.streams.get(log.name()).is_some_and(|stream| stream.next == log.next()))
    }

    /// What is still to come, for people.
    pub(super) fn missing(&self, logs: &[NumberedLog]) -> String {
        let of = |log: &NumberedLog| {
            let next = self.streams.get(log.name()).map_or(0, |stream| stream.next);
            (next < log.next()).then(|| format!("{} from {next} to {}", log.name(), log.next() - 1))
        };
        let mut acts: Vec<u64> = self.acts.kept.iter().copied().filter(|number| !self.acts.has(*number)).collect();
        acts.sort_unstable();
        let acts = (!acts.is_empty()).then(|| format!("acts that the agent said it keeps: {acts:?}"));
        logs.iter().filter_map(of).chain(acts).collect::<Vec<_>>().join(", ")
    }

    /// Each line that is missing must be declared lost.
    pub(super) fn settle(&mut self, logs: &[NumberedLog]) -> Result<()> {
        self.acts.kept.clear();
        let settled = self.acts.next;
        // An unanswered one may still come.
        self.acts.missing.retain(|number| number + UNANSWERED_MAX > settled);
        for log in logs {
            let Some(stream) = self.streams.get_mut(log.name()) else { continue };
            for gap in &stream.gaps {
                let within = |loss: &&Loss| gap.before < loss.seq && loss.seq < gap.after;
                let losses: Vec<&Loss> = stream.losses.iter().filter(within).collect();
                let unseen = gap.check(log, &losses).map_err(|error| {
                    anyhow!("{}: lines {} to {} are missing: {error}", log.name(), gap.from, gap.to - 1)
                })?;
                self.unseen += unseen;
                self.declared += gap.to - gap.from - unseen;
            }
            let covers = |loss: &&Loss| !stream.gaps.iter().any(|gap| gap.before < loss.seq && loss.seq < gap.after);
            self.needless += stream.losses.iter().filter(covers).count() as u64;
            stream.gaps.clear();
            stream.losses.clear();
        }
        Ok(())
    }
}

impl ActsMet {
    fn has(&self, number: u64) -> bool {
        number < self.next && !self.missing.contains(&number)
    }

    fn meet(&mut self, number: u64, seq: u64) -> Result<()> {
        let next = self.next;
        // Who connects anew may overtake what the connection before has not got rid of.
        let late = number < next && self.missing.remove(&number);
        ensure!(late || number >= next, "act {number} stands at {seq}, too: it is doubled");
        if !late {
            self.missing.extend(next..number);
            self.next = number + 1;
        }
        Ok(())
    }
}

impl Stream {
    fn meet(&mut self, number: u64, seq: u64) -> Result<()> {
        let next = self.next;
        ensure!(number >= next, "line {number} stands at {seq} after line {}: doubled, or out of order", next - 1);
        if number > next {
            let before = self.gaps.last().map_or(0, |gap| gap.after);
            self.gaps.push(Gap { from: next, to: number, before, after: seq });
        }
        self.next = number + 1;
        Ok(())
    }
}

impl Gap {
    /// Each run of missing lines that stood in one file must lie within a declared loss: one that begins where that run begins or before,
    /// and ends after it or nobody knows where. What was lost before anybody looked at it is covered by an open end. Returns how many
    /// lines are of files of which nothing was read and nothing is left: nobody can declare those.
    fn check(&self, log: &NumberedLog, losses: &[&Loss]) -> Result<u64> {
        let mut opened = false;
        let mut unseen = 0;
        let mut number = self.from;
        while number < self.to {
            let first = log.place(number).context("a line that was never written")?;
            let rest = (number..self.to).map_while(|number| log.place(number));
            let run: Vec<Place> = rest.take_while(|place| place.generation == first.generation).collect();
            let to = run.last().map_or(first.to, |place| place.to);
            let covers = |loss: &&&Loss| loss.from <= first.from && loss.to.is_none_or(|end| to <= end);
            let covering = losses.iter().find(covers);
            let after = number + run.len() as u64;
            let whole = first.from == 0 && log.place(after).is_none_or(|next| next.generation != first.generation);
            let gone = log.end_of(first.generation).is_some_and(|end| Rotation::LOSING.contains(&end));
            let never_seen = whole && gone && covering.is_none() && !opened;
            if never_seen {
                unseen += run.len() as u64;
            }
            ensure!(
                covering.is_some() || opened || never_seen,
                "bytes {} to {to} of generation {} (ended by {:?}) are covered by none of the declared losses {losses:?}",
                first.from,
                first.generation,
                log.end_of(first.generation)
            );
            opened |= covering.is_some_and(|loss| loss.to.is_none());
            number = after;
        }
        Ok(unseen)
    }
}

/// Number of an act.
fn act(line: &[u8]) -> Option<u64> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    let (name, number) = parse(line.get("message")?.as_str()?.as_bytes())?;
    (name == acts::NAME).then_some(number)
}

impl Loss {
    fn read(seq: u64, attributes: &[v1::KeyValue]) -> Result<Self> {
        let text = |key: &str| {
            let value = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
            if let any_value::Value::StringValue(text) = value { Some(text.as_str()) } else { None }
        };
        let number = |key: &str| text(key).filter(|text| !text.is_empty()).map(str::parse::<u64>).transpose();
        let from = number("from")?.with_context(|| format!("loss {seq} does not say from where"))?;
        Ok(Self { seq, from, to: number("to")? })
    }
}
