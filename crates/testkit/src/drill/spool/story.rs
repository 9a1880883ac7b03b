//! A machine's spool up to the moment when somebody takes it, made by the real one.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::{Rng, RngCore};
use rand_chacha::ChaCha12Rng;
use sigillo_client::unix_nanos;
use sigillo_model::{
    block::BlockBuilder,
    head::{HeadKey, SignedHead},
    ids::{BatchHash, Epoch, SourceId, SourceSeq},
    tree,
};
use sigillo_proto::{
    record::Fields,
    v1::{ContentPart, CorePart},
};
use sigillo_spool::{Identity, Marks, Options, Spool};

use super::{
    image::{Image, Item, item},
    sender::Message,
};
use crate::config;

/// Bytes of a segment: the least that there may be.
const SEGMENT_BYTES: u64 = 64 << 10;
const SPOOL_BYTES: u64 = 16 << 20;

/// Where the file of the head key has its two places.
const KEY_PLACES: [usize; 2] = [0, 4_096];

/// A source's history.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) source: SourceId,
    /// Public key of the first head.
    pub(super) first_key: [u8; 32],
    /// What was sent of an earlier epoch.
    earlier: Vec<Item>,
    /// The spool when it is taken.
    pub(super) image: Image,
    /// The same in one row.
    pub(super) frames: Vec<Bytes>,
    /// So many of these had been sent.
    pub(super) sent: usize,
    /// What whoever takes the machine finds: the key of the next head.
    key: HeadKey,
    pub(super) end: End,
    /// A copy that was made before, if its key was copied, too: how many frames it holds.
    pub(super) copy: Option<(usize, HeadKey)>,
    pub(super) epoch: Epoch,
    /// The hash before the present epoch's first batch.
    pub(super) opening: BatchHash,
}

/// Where a chain of batches and heads stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) next: SourceSeq,
    pub(super) hash: BatchHash,
    pub(super) head_time_ns: u64,
}

impl Story {
    /// Lets a spool grow in `dir`, and takes it.
    pub(super) fn make(dir: &Path, name: &str, random: &mut ChaCha12Rng) -> Result<Self> {
        let source = SourceId::from_name(name);
        let options = Options { segment_bytes: SEGMENT_BYTES, max_bytes: SPOOL_BYTES, ..Options::new(dir) };
        let identity = Identity { origin: config::origin()?, source };
        let mut epoch = Epoch::new(random.random_range(1..1_000));
        let mut spool = Spool::create(&options, identity.clone(), epoch, None, Marks::new())?;
        let first_key = spool.key_after(0)?;
        let mut earlier = Vec::new();
        for _ in 0..random.random_range(0..3) {
            grow(&mut spool, random.random_range(1..5), random)?;
            spool.attest(unix_nanos(), (0, tree::empty()))?;
            earlier.extend(Image::read(dir)?.segments.concat().iter().filter_map(item));
            let state = spool.state();
            spool.release(state.epoch, state.next, state.head_time_ns)?;
            epoch = Epoch::new(epoch.get() + random.random_range(1..10));
            let (from, heads) = ((state.epoch, state.next), (unix_nanos(), (0, tree::empty())));
            spool.rechain(identity.clone(), epoch, Some(state.head), from, false, heads)?;
        }
        let opening = spool.state().head;
        grow(&mut spool, random.random_range(6..14), random)?;
        spool.attest(unix_nanos(), (0, tree::empty()))?;
        let copy_frames = Image::read(dir)?.segments.concat().len();
        let copy_key = key(dir)?;
        grow(&mut spool, random.random_range(6..14), random)?;
        spool.attest(unix_nanos(), (0, tree::empty()))?;
        let state = spool.state();
        let end = End { next: state.next, hash: state.head, head_time_ns: state.head_time_ns };
        drop(spool);
        let image = Image::read(dir)?;
        let frames = image.segments.concat();
        let sent = random.random_range(0..frames.len() * 2 / 3);
        let copy = (sent > copy_frames + 1).then_some((copy_frames, copy_key));
        Ok(Self { source, first_key, earlier, image, frames, sent, key: key(dir)?, end, copy, epoch, opening })
    }

    /// What was sent before the machine was taken: its key, an earlier epoch, and some of the present one.
    pub(super) fn before(&self) -> Message {
        let sent = self.frames.iter().take(self.sent).filter_map(item);
        let items = self.earlier.iter().cloned().chain(sent).collect();
        Message { key: Some((self.first_key, String::new())), items }
    }

    /// The key that whoever takes the machine finds.
    pub(super) fn stolen_key(&self) -> HeadKey {
        self.key.clone()
    }

    /// All batches that were ever made.
    pub(super) fn batches(&self) -> impl Iterator<Item = Item> {
        let present = self.frames.iter().filter_map(item);
        self.earlier.iter().cloned().chain(present).filter(|item| matches!(item, Item::Batch(_)))
    }

    /// A head signed by `key`, later than all others; the key moves on.
    pub(super) fn sign(&self, key: &HeadKey, end: &mut End) -> Result<(Item, HeadKey)> {
        let next = key.clone().ratchet();
        end.head_time_ns = unix_nanos().max(end.head_time_ns + 1);
        let head = SignedHead {
            origin: config::origin()?,
            source: self.source,
            epoch: self.epoch,
            next: end.next,
            batch_hash: end.hash,
            time_ns: end.head_time_ns,
            seen: (0, tree::empty()),
            next_key: next.public(),
        };
        Ok((Item::Head(head.sign(key)?.into()), next))
    }
}

/// Appends batches, and a head after a few.
fn grow(spool: &mut Spool, batches: u32, random: &mut ChaCha12Rng) -> Result<()> {
    for number in 0..batches {
        let mut block = BlockBuilder::default();
        for _ in 0..random.random_range(1..30) {
            block.push(record(random).as_ref())?;
        }
        let mark = (Arc::from("file /var/log/app.log"), Bytes::from(number.to_be_bytes().to_vec()));
        spool.append(&mut block, &[mark])?;
        if random.random_bool(0.3) {
            spool.attest(unix_nanos(), (0, tree::empty()))?;
        }
    }
    spool.sync()?;
    Ok(())
}

/// A record that hardly compresses, so that a spool has several segments.
pub(super) fn record(random: &mut ChaCha12Rng) -> sigillo_model::record::Record {
    let mut noise = vec![0; random.random_range(20..600)];
    random.fill_bytes(&mut noise);
    let core = CorePart { observed_time_unix_nano: unix_nanos(), host: "drill".into(), ..CorePart::default() };
    let content = ContentPart { original: hex::encode(noise).into(), ..ContentPart::default() };
    Fields { core: Some(core), content: Some(content), ..Fields::default() }.encode()
}

/// The key in a spool's folder: the newer of the two that its file may hold.
fn key(dir: &Path) -> Result<HeadKey> {
    let bytes = fs::read(dir.join("head-key"))?;
    let slot = |at: usize| {
        let (number, rest) = bytes.get(at..)?.split_first_chunk::<8>()?;
        let seed = *rest.first_chunk::<32>()?;
        (seed != [0; 32]).then_some((u64::from_be_bytes(*number), seed))
    };
    let newest = KEY_PLACES.into_iter().filter_map(slot).max();
    newest.map(|(_, seed)| HeadKey::from_seed(seed)).context("the file head-key holds no key")
}
