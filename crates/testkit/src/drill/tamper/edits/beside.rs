//! Edits of what the journal keeps beside the records, and of the head file. The layouts are written here a second time, from
//! the format page: an intruder does not use the journal's own code.

use std::fs;

use anyhow::{Context, Result};
use rand::{Rng, seq::IndexedRandom};
use sigillo_model::{
    entry::{Entry, checksum},
    ids::{Epoch, SourceId, SourceSeq, TenantId},
    state::JournalState,
    tree::TreeRow,
};

use super::{super::verdict::Place, Scene};
use crate::database::Database;

/// Offset of the chain value in `meta/head`, after version and size.
const HEAD_CHAIN: usize = 9;
const HEAD_TIME: usize = 41;
const HEAD_ROOT: usize = 49;

pub(super) fn head_size(scene: &mut Scene<'_>) -> Result<Place> {
    let size = scene.images.size();
    let other = if scene.random.random() { size + 1 } else { size - 1 };
    change(scene, "meta", b"head", |value, _| value[1..HEAD_CHAIN].copy_from_slice(&other.to_be_bytes()))
}

pub(super) fn head_chain(scene: &mut Scene<'_>) -> Result<Place> {
    change(scene, "meta", b"head", |value, byte| value[HEAD_CHAIN + byte % 32] ^= 1)
}

pub(super) fn head_time(scene: &mut Scene<'_>) -> Result<Place> {
    change(scene, "meta", b"head", |value, byte| value[HEAD_TIME + byte % 8] ^= 1)
}

pub(super) fn head_root(scene: &mut Scene<'_>) -> Result<Place> {
    change(scene, "meta", b"head", |value, byte| value[HEAD_ROOT + byte % 32] ^= 1)
}

pub(super) fn tree_row_changed(scene: &mut Scene<'_>) -> Result<Place> {
    let key = any_key(scene, "tree")?;
    let mut value = scene.db.get("tree", &key)?;
    value.truncate(32);
    value[scene.random.random_range(0..32)] ^= 1;
    scene.db.put("tree", &key, &sealed(value))?;
    tree_place(&key)
}

pub(super) fn tree_row_removed(scene: &mut Scene<'_>) -> Result<Place> {
    let key = any_key(scene, "tree")?;
    scene.db.delete("tree", &key)?;
    tree_place(&key)
}

/// A row after the last of its level, or of a level that the tree does not have.
pub(super) fn tree_row_added(scene: &mut Scene<'_>) -> Result<Place> {
    let level: u8 = scene.random.random_range(0..4);
    let key = tree_key(level, scene.images.size() + scene.random.random_range(0..1_000));
    scene.db.put("tree", &key, &sealed(vec![7; 32]))?;
    Ok(Place::Anywhere)
}

pub(super) fn checkpoint_beyond(scene: &mut Scene<'_>) -> Result<Place> {
    let size = scene.images.size() + scene.random.random_range(1..1_000);
    scene.db.put("checkpoints", &size.to_be_bytes(), &sealed(b"a note".to_vec()))?;
    Ok(Place::Anywhere)
}

pub(super) fn checkpoint_unreadable(scene: &mut Scene<'_>) -> Result<Place> {
    let size = scene.random.random_range(1..=scene.images.size());
    let mut value = sealed(b"a note".to_vec());
    value[scene.random.random_range(0..6)] ^= 1;
    scene.db.put("checkpoints", &size.to_be_bytes(), &value)?;
    Ok(Place::Anywhere)
}

/// A row of `pending`: version, stage, and how far it has come.
fn removal_under_way() -> Vec<u8> {
    sealed([[1, 0].as_slice(), &[0; 32]].concat())
}

pub(super) fn removal_added(scene: &mut Scene<'_>) -> Result<Place> {
    let seq = scene.images.size() + scene.random.random_range(0..1_000);
    scene.db.put("pending", &seq.to_be_bytes(), &removal_under_way())?;
    Ok(Place::Anywhere)
}

pub(super) fn removal_unreadable(scene: &mut Scene<'_>) -> Result<Place> {
    let seq = scene.random.random_range(0..scene.images.size());
    let mut value = removal_under_way();
    value[scene.random.random_range(0..34)] ^= 1;
    scene.db.put("pending", &seq.to_be_bytes(), &value)?;
    Ok(Place::Anywhere)
}

pub(super) fn retention_added(scene: &mut Scene<'_>) -> Result<Place> {
    let class = scene.random.random_range(0..6);
    let row = sealed([[1].as_slice(), &[0; 24]].concat());
    scene.db.put("pending", &[b'c', 0, class], &row)?;
    Ok(Place::Anywhere)
}

/// The records that a row of the tree stands for; of an anchor, those that it follows.
fn tree_place(key: &[u8]) -> Result<Place> {
    let index = u64::from_be_bytes(key[1..].try_into()?);
    Ok(match key[0] {
        0 => Place::Records { from: (index - 1) * 256, to: index * 256 },
        level => {
            let width = 256_u64.pow(level.into());
            Place::Records { from: index * width, to: (index + 1) * width }
        }
    })
}

pub(super) fn head_removed(scene: &mut Scene<'_>) -> Result<Place> {
    scene.db.delete("meta", b"head")?;
    Ok(Place::Anywhere)
}

pub(super) fn origin(scene: &mut Scene<'_>) -> Result<Place> {
    scene.db.put("meta", b"origin", b"another.invalid/journal")?;
    Ok(Place::Anywhere)
}

pub(super) fn meta_added(scene: &mut Scene<'_>) -> Result<Place> {
    scene.db.put("meta", b"note", b"x")?;
    Ok(Place::Anywhere)
}

pub(super) fn source_changed(scene: &mut Scene<'_>) -> Result<Place> {
    let key = any_key(scene, "sources")?;
    change(scene, "sources", &key, |value, byte| {
        let fields = value.len() - 9;
        value[1 + byte % fields] ^= 1;
    })
}

pub(super) fn source_removed(scene: &mut Scene<'_>) -> Result<Place> {
    let key = any_key(scene, "sources")?;
    scene.db.delete("sources", &key)?;
    Ok(Place::Anywhere)
}

pub(super) fn tenant_changed(scene: &mut Scene<'_>) -> Result<Place> {
    let key = any_key(scene, "tenants")?;
    change(scene, "tenants", &key, |value, byte| value[1 + byte % 8] ^= 1)
}

pub(super) fn tenant_added(scene: &mut Scene<'_>) -> Result<Place> {
    let id: [u8; 16] = scene.random.random();
    scene.db.put("tenants", &id, &tenant_value(3))?;
    Ok(Place::Anywhere)
}

pub(super) fn batch_changed(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    let key = memory_of(scene, &scene.entry_bytes(&entry)?)?;
    let other = scene.random.random_range(entry.from + 1..entry.from + 1_000);
    scene.db.put("batches", &key, &other.to_be_bytes())?;
    Ok(entry.place())
}

pub(super) fn batch_removed(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    let key = memory_of(scene, &scene.entry_bytes(&entry)?)?;
    scene.db.delete("batches", &key)?;
    Ok(entry.place())
}

pub(super) fn batch_added(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    let next = SourceSeq::new(u64::MAX >> scene.random.random_range(1..8));
    scene.db.put("batches", &batch_key(entry.source, Epoch::new(1), next), &entry.from.to_be_bytes())?;
    Ok(Place::Anywhere)
}

fn memory_of(_: &Scene<'_>, bytes: &[u8]) -> Result<[u8; 32]> {
    let entry = Entry::decode(bytes)?;
    Ok(batch_key(entry.source, entry.epoch, entry.source_seq))
}

/// The file's own checksum is made to fit.
pub(super) fn head_file(scene: &mut Scene<'_>) -> Result<Place> {
    let path = scene.dir.join("head");
    let text = fs::read_to_string(&path)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.pop();
    if scene.random.random() {
        let size: u64 = lines[2].parse()?;
        lines[2] = (size + scene.random.random_range(1..100)).to_string();
    } else {
        let flipped = if lines[3].starts_with('0') { "1" } else { "0" };
        lines[3].replace_range(..1, flipped);
    }
    let body = lines.join("\n") + "\n";
    let sum = hex::encode(checksum(body.as_bytes()));
    // Replaced, not written into: nothing is shared with the image, but nothing should depend on it.
    fs::write(&path, format!("{body}{sum}\n"))?;
    Ok(Place::Anywhere)
}

/// Writes head, tree and sources as they follow from a state; `rows` are all rows of the tree.
pub(in crate::drill::tamper) fn put_state(db: &Database, state: &JournalState, rows: &[TreeRow]) -> Result<()> {
    for (key, _) in db.pairs("tree")? {
        db.delete("tree", &key)?;
    }
    for row in rows {
        db.put("tree", &tree_key(row.level, row.index), &sealed(row.hash.to_vec()))?;
    }
    let mut head = vec![2];
    head.extend(state.size.to_be_bytes());
    head.extend(state.chain.as_bytes());
    head.extend(state.receipt_time.get().to_be_bytes());
    head.extend(state.tree.root().as_bytes());
    db.put("meta", b"head", &sealed(head))?;
    for (source, state) in &state.sources {
        let mut value = vec![1];
        value.extend(state.epoch.get().to_be_bytes());
        value.extend(state.next.get().to_be_bytes());
        value.extend(state.head.as_bytes());
        value.extend(state.count.get().to_be_bytes());
        db.put("sources", source.as_bytes(), &sealed(value))?;
    }
    Ok(())
}

/// Writes the counts of tenants as they follow from a state.
pub(in crate::drill::tamper) fn put_tenants(db: &Database, state: &JournalState) -> Result<()> {
    let put = |(tenant, count): (&TenantId, &sigillo_model::ids::Count)| {
        db.put("tenants", tenant.as_bytes(), &tenant_value(count.get()))
    };
    state.tenants.iter().try_for_each(put)
}

fn tenant_value(count: u64) -> Vec<u8> {
    let mut value = vec![1];
    value.extend(count.to_be_bytes());
    sealed(value)
}

pub(in crate::drill::tamper) fn batch_key(source: SourceId, epoch: Epoch, first: SourceSeq) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(source.as_bytes());
    key[16..24].copy_from_slice(&epoch.get().to_be_bytes());
    key[24..].copy_from_slice(&first.get().to_be_bytes());
    key
}

fn tree_key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn any_key(scene: &mut Scene<'_>, family: &str) -> Result<Vec<u8>> {
    let pairs = scene.db.pairs(family)?;
    pairs.choose(scene.random).map(|(key, _)| key.to_vec()).with_context(|| format!("{family} is empty"))
}

/// Changes a value and its checksum. `change` gets a random number to choose a byte.
fn change(scene: &mut Scene<'_>, family: &str, key: &[u8], change: impl FnOnce(&mut [u8], usize)) -> Result<Place> {
    let mut value = scene.db.get(family, key)?;
    change(&mut value, scene.random.random_range(0..1_000));
    value.truncate(value.len() - 8);
    scene.db.put(family, key, &sealed(value))?;
    Ok(Place::Anywhere)
}

/// A value with its checksum after it.
pub(in crate::drill::tamper) fn sealed(mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&value);
    value.extend(sum);
    value
}
