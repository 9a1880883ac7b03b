//! Edits through the database's own interface, with valid checksums everywhere: what somebody does who knows the formats.

pub(super) mod beside;
mod entries;
mod inside;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha12Rng;
use sigillo_model::{
    block::{self, BlockBuilder, Inflater},
    entry::Entry,
    record::Record,
};

use super::{
    image::{Images, Indexed},
    verdict::Place,
};
use crate::database::Database;

/// Makes one edit and says where.
pub(super) type Edit = fn(&mut Scene<'_>) -> Result<Place>;

/// A copy of a journal that is about to be edited.
pub(super) struct Scene<'a> {
    pub(super) db: &'a Database,
    /// The journal's folder.
    pub(super) dir: &'a Path,
    pub(super) images: &'a Images,
    pub(super) random: &'a mut ChaCha12Rng,
}

/// Every edit, with its name.
pub(super) const EDITS: [(&str, Edit); 55] = [
    ("a byte of a record's core part", inside::core_byte),
    ("a byte of a record's personal part", inside::personal_byte),
    ("a byte of a record's content part", inside::content_byte),
    ("a record's part removed", inside::part_removed),
    ("a record deleted, counts adapted", inside::record_deleted),
    ("a record deleted, counts as before", inside::record_deleted_only),
    ("a record inserted, counts adapted", inside::record_inserted),
    ("two records of a block swapped", inside::records_swapped),
    ("records of two blocks swapped", inside::records_exchanged),
    ("class", inside::class),
    ("retention class", inside::retention),
    ("flags", inside::flags),
    ("tenant", inside::tenant),
    ("tenant count", inside::tenant_count),
    ("border between two tenants' runs", inside::run_border),
    ("receipt time", inside::receipt_time),
    ("source", inside::source),
    ("epoch", inside::epoch),
    ("source sequence", inside::source_seq),
    ("source count", inside::source_count),
    ("batch secret", inside::secret),
    ("batch hash", inside::batch_hash),
    ("chain value", inside::chain_hash),
    ("an entry deleted", entries::deleted),
    ("the first entry deleted", entries::first_deleted),
    ("the newest entry deleted", entries::newest_deleted),
    ("the newest entry deleted with everything derived from it", entries::rolled_back),
    ("an entry repeated at the end", entries::repeated),
    ("an entry inserted between two", entries::inserted),
    ("two entries swapped", entries::swapped),
    ("an entry replaced by a copy of another", entries::replaced),
    ("a record changed, everything after it chained anew", entries::rechained),
    ("head: size", beside::head_size),
    ("head: chain value", beside::head_chain),
    ("head: time", beside::head_time),
    ("head: root", beside::head_root),
    ("a row of the tree changed", beside::tree_row_changed),
    ("a row of the tree removed", beside::tree_row_removed),
    ("a row of the tree added", beside::tree_row_added),
    ("a kept checkpoint of more records than there are", beside::checkpoint_beyond),
    ("a kept checkpoint that can't be read", beside::checkpoint_unreadable),
    ("a removal under way without its statement", beside::removal_added),
    ("a removal under way that can't be read", beside::removal_unreadable),
    ("a retention class that no statement names", beside::retention_added),
    ("head removed", beside::head_removed),
    ("origin", beside::origin),
    ("a key added to the description", beside::meta_added),
    ("a source's state changed", beside::source_changed),
    ("a source's state removed", beside::source_removed),
    ("a tenant's count changed", beside::tenant_changed),
    ("a tenant added", beside::tenant_added),
    ("the memory of a batch changed", beside::batch_changed),
    ("the memory of a batch removed", beside::batch_removed),
    ("the memory of a batch added", beside::batch_added),
    ("head file: chain value or size, valid checksum", beside::head_file),
];

impl Indexed {
    fn place(&self) -> Place {
        Place::Records { from: self.from, to: self.to }
    }
}

/// An entry, its block inflated.
struct Inflated<'a> {
    entry: Entry<'a>,
    records: Vec<Record>,
}

impl Inflated<'_> {
    fn read(bytes: &[u8]) -> Result<Inflated<'_>> {
        let entry = Entry::decode(bytes)?;
        let mut inflater = Inflater::default();
        let block = entry.block(&mut inflater)?;
        Ok(Inflated { records: block.records().map(Record::from).collect(), entry })
    }

    /// The bytes to store: compressed anew, with a valid checksum.
    fn encode(self) -> Result<Vec<u8>> {
        let mut builder = BlockBuilder::default();
        self.records.iter().try_for_each(|record| builder.push(record.as_ref()))?;
        let block = builder.take();
        let compressed = block::compress(&block, 1);
        Ok(Entry { block_bytes: u32::try_from(block.len())?, compressed: &compressed, ..self.entry }.encode())
    }
}

impl Scene<'_> {
    /// Any entry of which this is true.
    fn pick(&mut self, suits: impl Fn(&Inflated<'_>) -> bool) -> Result<Indexed> {
        let entries = &self.images.entries;
        let start = self.random.random_range(0..entries.len());
        for entry in entries.iter().cycle().skip(start).take(entries.len()) {
            if suits(&Inflated::read(&self.entry_bytes(entry)?)?) {
                return Ok(*entry);
            }
        }
        anyhow::bail!("no entry suits")
    }

    fn any_entry(&mut self) -> Result<Indexed> {
        self.images.entries.choose(self.random).copied().context("there are no entries")
    }

    fn entry_bytes(&self, entry: &Indexed) -> Result<Vec<u8>> {
        self.db.get("tail", &entry.from.to_be_bytes())
    }

    /// Changes an entry in its place.
    fn change(
        &mut self,
        entry: Indexed,
        change: impl FnOnce(&mut Inflated<'_>, &mut ChaCha12Rng) -> Result<()>,
    ) -> Result<Place> {
        let before = self.entry_bytes(&entry)?;
        let mut inflated = Inflated::read(&before)?;
        change(&mut inflated, self.random)?;
        let after = inflated.encode()?;
        ensure!(before != after, "nothing was changed");
        Entry::decode(&after).context("the edit is not well formed")?;
        self.db.put("tail", &entry.from.to_be_bytes(), &after)?;
        Ok(entry.place())
    }
}

/// Flips a random bit.
fn flip_bit<const N: usize>(bytes: &[u8; N], random: &mut ChaCha12Rng) -> [u8; N] {
    let mut flipped = *bytes;
    flipped[random.random_range(0..N)] ^= 1 << random.random_range(0..8);
    flipped
}
