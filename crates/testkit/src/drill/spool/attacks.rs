//! What is done to a spool by whoever takes the machine.

use std::fmt;

use anyhow::{Context, Result};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha12Rng;
use sigillo_model::{
    batch::Batch,
    block::{BlockBuilder, Inflater, compress},
    ids::SourceSeq,
};

use super::{
    image::{Item, item, mend_hash, same, sent_bytes},
    sender::Message,
    story::{End, Story, record},
};

/// What is altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    FlippedBit,
    ChangedRecord,
    DroppedRecord,
    AddedRecord,
    DroppedBatch,
    DoubledBatch,
    SwappedBatches,
    MovedBatch,
    FlippedHead,
    DroppedHead,
    Truncated,
    SwappedSegments,
    WentOnFromBefore,
    WentOnFromCopy,
}

/// How far whoever alters it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    /// The bytes alone; checksums, which nobody sends, may be mended or not.
    Bytes,
    /// The hash of the batch is mended.
    BatchHash,
    /// All batches that follow are numbered and chained anew.
    Chain,
    /// So, and the heads that follow are left out.
    WithoutHeads,
    /// So, and the heads that follow are signed anew with the stolen key.
    SignedAnew,
    /// So, and the stolen key is registered before.
    KeyAnnounced,
}

const REWRITTEN: [Power; 4] = [Power::Chain, Power::WithoutHeads, Power::SignedAnew, Power::KeyAnnounced];

const WAYS: [(Edit, &[Power]); 14] = [
    (Edit::FlippedBit, &[Power::Bytes]),
    (
        Edit::ChangedRecord,
        &[Power::Bytes, Power::BatchHash, Power::Chain, Power::WithoutHeads, Power::SignedAnew, Power::KeyAnnounced],
    ),
    (Edit::DroppedRecord, &[Power::BatchHash, Power::Chain, Power::WithoutHeads, Power::SignedAnew]),
    (Edit::AddedRecord, &[Power::BatchHash, Power::Chain, Power::WithoutHeads, Power::SignedAnew]),
    (Edit::DroppedBatch, &[Power::Bytes, Power::Chain, Power::WithoutHeads, Power::SignedAnew, Power::KeyAnnounced]),
    (Edit::DoubledBatch, &REWRITTEN),
    (Edit::SwappedBatches, &[Power::Bytes, Power::Chain, Power::WithoutHeads, Power::SignedAnew]),
    (Edit::MovedBatch, &[Power::Bytes, Power::Chain, Power::WithoutHeads, Power::SignedAnew]),
    (Edit::FlippedHead, &[Power::Bytes]),
    (Edit::DroppedHead, &[Power::Bytes]),
    (Edit::Truncated, &[Power::Bytes]),
    (Edit::SwappedSegments, &[Power::Bytes, Power::Chain, Power::WithoutHeads]),
    (Edit::WentOnFromBefore, &REWRITTEN),
    (Edit::WentOnFromCopy, &[Power::Chain]),
];

/// An attack on a story: what is sent instead of its rest.
#[derive(Debug)]
pub(super) struct Attack {
    edit: Edit,
    power: Power,
    items: Vec<Item>,
    /// The head at the end, without which the server would soon ask for one.
    last: Item,
}

/// Attempts to find a place for an edit; some need what not every spool has.
const ATTEMPTS: usize = 200;

impl Attack {
    /// Any that this story allows.
    pub(super) fn make(story: &Story, random: &mut ChaCha12Rng) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let (edit, powers) = *WAYS.choose(random).context("ways")?;
            let power = *powers.choose(random).context("powers")?;
            if let Some(attack) = Self::attempt(story, edit, power, random)? {
                return Ok(attack);
            }
        }
        anyhow::bail!("no attack fits a spool of {} frames", story.frames.len())
    }

    /// What goes over the stream.
    pub(super) fn message(&self, story: &Story) -> Message {
        let key = match self.power {
            Power::KeyAnnounced => Some((story.stolen_key().public(), "the disk was replaced".to_owned())),
            _ => None,
        };
        let items = self.items.iter().chain([&self.last]).cloned().collect();
        Message { key, items }
    }

    fn attempt(story: &Story, edit: Edit, power: Power, random: &mut ChaCha12Rng) -> Result<Option<Self>> {
        let items: Vec<Item> = story.frames.iter().filter_map(item).collect();
        // Frames from here on the machine has not signed yet: they are its own to choose.
        let signed = items.iter().rposition(|item| matches!(item, Item::Head(_))).context("a spool without heads")?;
        let Some(Edited { mut items, at, touched }) = edited(story, items, signed, edit, random)? else {
            return Ok(None);
        };
        match power {
            Power::Bytes => {}
            Power::BatchHash => {
                if let Some(Item::Batch(batch)) = items.get_mut(touched) {
                    mend_hash(batch, story.source)?;
                }
            }
            Power::Chain | Power::WithoutHeads | Power::SignedAnew | Power::KeyAnnounced => {
                chain(story, &mut items, at)?;
            }
        }
        let mut key = if edit == Edit::WentOnFromCopy {
            story.copy.as_ref().context("chosen with a copy")?.1.clone()
        } else {
            story.stolen_key()
        };
        let mut end = story.end;
        match power {
            Power::WithoutHeads => {
                let mut index = 0;
                items.retain(|item| {
                    index += 1;
                    index <= at || matches!(item, Item::Batch(_))
                });
            }
            Power::SignedAnew | Power::KeyAnnounced => {
                for index in at..items.len() {
                    if matches!(items.get(index), Some(Item::Head(_))) {
                        end = end_of(story, items.get(..index).unwrap_or_default(), end);
                        let (head, next) = story.sign(&key, &mut end)?;
                        key = next;
                        if let Some(item) = items.get_mut(index) {
                            *item = head;
                        }
                    }
                }
            }
            _ => {}
        }
        end = end_of(story, &items, end);
        let (last, _) = story.sign(&key, &mut end)?;
        // Sent from where the server stands, or from before that what it has already.
        let from = if at < story.sent { random.random_range(0..=at) } else { random.random_range(0..=story.sent) };
        items.drain(..from);
        Ok(Some(Self { edit, power, items, last }))
    }
}

/// Altered items: from which one on they are others, and which one was touched itself.
struct Edited {
    items: Vec<Item>,
    at: usize,
    touched: usize,
}

/// `None` where this story has no place for such an edit. `signed`: the last head.
fn edited(
    story: &Story,
    mut items: Vec<Item>,
    signed: usize,
    edit: Edit,
    random: &mut ChaCha12Rng,
) -> Result<Option<Edited>> {
    // What the server has already is noticed only if other batches come under its numbers.
    let least = match edit {
        Edit::FlippedBit | Edit::ChangedRecord | Edit::WentOnFromBefore => 0,
        _ => story.sent,
    };
    let is_batch = |items: &[Item], index: usize| matches!(items.get(index), Some(Item::Batch(_)));
    let batches: Vec<usize> = (least..signed).filter(|index| is_batch(&items, *index)).collect();
    let heads: Vec<usize> = (least..=signed).filter(|index| !is_batch(&items, *index)).collect();
    let place = |at: usize| move |items: Vec<Item>| Some(Edited { items, at, touched: at });
    let Some(at) = batches.choose(random).copied() else { return Ok(None) };
    Ok(match edit {
        Edit::FlippedBit => flipped(story, items, at, random),
        Edit::FlippedHead => heads.choose(random).and_then(|at| flipped(story, items, *at, random)),
        Edit::ChangedRecord | Edit::DroppedRecord | Edit::AddedRecord => {
            let Some(Item::Batch(batch)) = items.get_mut(at) else { return Ok(None) };
            if !rewrite(batch, edit, random)? {
                return Ok(None);
            }
            place(at)(items)
        }
        Edit::DroppedBatch => {
            items.remove(at);
            place(at)(items)
        }
        Edit::DoubledBatch => {
            // Behind the last batch that is signed it would be a new one, which only the machine can sign, and did.
            if !batches.iter().any(|other| *other > at) {
                return Ok(None);
            }
            let double = items.get(at).context("chosen above")?.clone();
            items.insert(at + 1, double);
            place(at + 1)(items)
        }
        Edit::SwappedBatches => {
            let Some(other) = batches.iter().copied().find(|other| *other > at) else { return Ok(None) };
            items.swap(at, other);
            place(at)(items)
        }
        Edit::MovedBatch => {
            // Into another segment.
            let Some(to) = batches.iter().copied().rfind(|to| segment(story, *to) != segment(story, at)) else {
                return Ok(None);
            };
            let moved = items.remove(at);
            items.insert(to, moved);
            place(at.min(to))(items)
        }
        Edit::DroppedHead => heads.choose(random).copied().and_then(|at| {
            items.remove(at);
            place(at)(items)
        }),
        Edit::Truncated => {
            let at = random.random_range(least..=signed);
            items.truncate(at);
            place(at)(items)
        }
        Edit::SwappedSegments => {
            let (this, next) = (segment(story, at), segment(story, at) + 1);
            let first = (least..items.len()).find(|index| segment(story, *index) == this);
            let (Some(first), true) = (first, batches.iter().any(|index| segment(story, *index) == next)) else {
                return Ok(None);
            };
            let of = |wanted: usize| (first..items.len()).filter(move |index| segment(story, *index) == wanted);
            let rest = (first..items.len()).filter(|index| segment(story, *index) > next);
            let order: Vec<usize> = (0..first).chain(of(next)).chain(of(this)).chain(rest).collect();
            let swapped = order.into_iter().filter_map(|index| items.get(index).cloned()).collect();
            place(first)(swapped)
        }
        Edit::WentOnFromBefore => {
            items.truncate(at);
            forge(story, &mut items, random)?;
            place(at)(items)
        }
        Edit::WentOnFromCopy => {
            let Some((frames, _)) = story.copy else { return Ok(None) };
            // Numbers that the copy does not know of are taken.
            if !(frames..story.sent).any(|index| is_batch(&items, index)) {
                return Ok(None);
            }
            items.truncate(frames);
            forge(story, &mut items, random)?;
            place(frames)(items)
        }
    })
}

/// Flips a bit of a frame's bytes as they lie in the spool. What can't be read afterwards is left out.
fn flipped(story: &Story, mut items: Vec<Item>, at: usize, random: &mut ChaCha12Rng) -> Option<Edited> {
    let frame = story.frames.get(at)?;
    let mut bytes = frame.to_vec();
    *bytes.get_mut(random.random_range(sent_bytes(frame)))? ^= 1 << random.random_range(0..8);
    match item(&bytes.into()) {
        Some(item) if items.get(at).is_some_and(|before| same(before, &item)) => return None,
        Some(item) => *items.get_mut(at)? = item,
        // What the server has is no news to it.
        None if at < story.sent => return None,
        None => drop(items.remove(at)),
    }
    Some(Edited { items, at, touched: at })
}

/// Changes, drops or adds a record of a batch; false where it can't.
fn rewrite(batch: &mut Batch, edit: Edit, random: &mut ChaCha12Rng) -> Result<bool> {
    let mut inflater = Inflater::default();
    let block = batch.open(&mut inflater)?;
    if edit == Edit::DroppedRecord && block.count() < 2 {
        return Ok(false);
    }
    let chosen = random.random_range(0..block.count()) as usize;
    let mut builder = BlockBuilder::default();
    for (index, old) in block.records().enumerate() {
        if index != chosen || edit == Edit::AddedRecord {
            builder.push(old)?;
        }
        if index == chosen && edit != Edit::DroppedRecord {
            builder.push(record(random).as_ref())?;
        }
    }
    batch.count = u32::try_from(builder.count())?;
    let block = builder.take();
    batch.block_bytes = u32::try_from(block.len())?;
    batch.compressed = compress(&block, 1).into();
    Ok(true)
}

/// Adds batches and heads that the machine has never made; a head after them is signed later, if at all.
fn forge(story: &Story, items: &mut Vec<Item>, random: &mut ChaCha12Rng) -> Result<()> {
    let like = story.batches().last().context("a spool without batches")?;
    for _ in 0..random.random_range(1..6) {
        let Item::Batch(mut batch) = like.clone() else { continue };
        let mut builder = BlockBuilder::default();
        for _ in 0..random.random_range(1..10) {
            builder.push(record(random).as_ref())?;
        }
        batch.count = u32::try_from(builder.count())?;
        let block = builder.take();
        batch.block_bytes = u32::try_from(block.len())?;
        batch.compressed = compress(&block, 1).into();
        items.push(Item::Batch(batch));
    }
    Ok(())
}

/// Numbers and chains all batches anew from a place on.
fn chain(story: &Story, items: &mut [Item], from: usize) -> Result<()> {
    let mut end = end_of(story, items.get(..from).unwrap_or_default(), story.end);
    for item in items.iter_mut().skip(from) {
        if let Item::Batch(batch) = item {
            (batch.first, batch.previous) = (end.next, end.hash);
            mend_hash(batch, story.source)?;
            (end.next, end.hash) = (batch.end(), batch.hash);
        }
    }
    Ok(())
}

/// Where the last batch of a row ends.
fn end_of(story: &Story, items: &[Item], times: End) -> End {
    let last = items.iter().rev().find_map(|item| if let Item::Batch(batch) = item { Some(batch) } else { None });
    let (next, hash) = last.map_or((SourceSeq::new(0), story.opening), |batch| (batch.end(), batch.hash));
    End { next, hash, ..times }
}

/// In which segment a frame lies.
fn segment(story: &Story, index: usize) -> usize {
    let mut end = 0;
    let lies = story.image.segments.iter().position(|segment| {
        end += segment.len();
        index < end
    });
    lies.unwrap_or(usize::MAX)
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edit = match self.edit {
            Edit::FlippedBit => "a bit flipped",
            Edit::ChangedRecord => "a record changed",
            Edit::DroppedRecord => "a record left out",
            Edit::AddedRecord => "a record added",
            Edit::DroppedBatch => "a batch left out",
            Edit::DoubledBatch => "a batch doubled",
            Edit::SwappedBatches => "two batches swapped",
            Edit::MovedBatch => "a batch moved to another segment",
            Edit::FlippedHead => "a bit of a head flipped",
            Edit::DroppedHead => "a head left out",
            Edit::Truncated => "cut off",
            Edit::SwappedSegments => "two segments swapped",
            Edit::WentOnFromBefore => "cut off and continued otherwise",
            Edit::WentOnFromCopy => "an older copy with its key continued",
        };
        let power = match self.power {
            Power::Bytes => "nothing mended",
            Power::BatchHash => "batch hash mended",
            Power::Chain => "chained anew",
            Power::WithoutHeads => "chained anew without heads",
            Power::SignedAnew => "signed anew",
            Power::KeyAnnounced => "signed anew, key announced",
        };
        write!(f, "{edit}, {power}")
    }
}
