//! The counters record: where every source and tenant stands, as the root of a tree over salted entries.
//!
//! It is the last record under a checkpoint that is meant for witnesses. With the entry of a source or tenant it shows that a
//! run of its numbers reaches the end; it tells about nobody else.
//!
//! ```text
//! sigillo counters v1
//! <origin>
//! <salt, 64 hexadecimal digits>
//! <root, base64>
//! <number of entries>
//! source <id, 32 hexadecimal digits> <epoch> <next count>       the changes since the last counters record,
//! tenant <id, 32 hexadecimal digits> 0 <next count>             sources first, then by id
//! ```

use std::{convert::Infallible, fmt::Write};

use crate::{
    hash,
    ids::{Count, Epoch, NodeHash, Origin, SourceId, TenantId},
    proof::{self, Subtrees},
    text,
    tree::{self, RootBuilder},
};

/// First line of the statement's text.
pub const HEADER: &str = "sigillo counters v1";

/// Whose counter. Sources sort before tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CounterKey {
    /// Of a source.
    Source(SourceId),
    /// Of a tenant.
    Tenant(TenantId),
}

impl CounterKey {
    /// `u8 kind (1 source, 2 tenant) || id[16]`.
    pub fn to_bytes(&self) -> [u8; 17] {
        let (kind, id) = match self {
            Self::Source(id) => (1, id.as_bytes()),
            Self::Tenant(id) => (2, id.as_bytes()),
        };
        let mut bytes = [kind; 17];
        bytes.iter_mut().skip(1).zip(id).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads what [`CounterKey::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; 17]) -> Option<Self> {
        let [kind, id @ ..] = bytes;
        match kind {
            1 => Some(Self::Source(SourceId::new(id))),
            2 => Some(Self::Tenant(TenantId::new(id))),
            _ => None,
        }
    }
}

/// Where a source or tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CounterEntry {
    /// Who.
    pub key: CounterKey,
    /// The source's newest epoch; 0 for a tenant.
    pub epoch: Epoch,
    /// The count that its next record will get.
    pub next: Count,
}

impl CounterEntry {
    /// The hash of its leaf: of `D("counter", salt[32] || u8 kind || id[16] || u64 epoch || u64 next)`.
    pub fn leaf(&self, salt: &[u8; 32]) -> NodeHash {
        let mut hasher = hash::COUNTER.hasher();
        hasher
            .update(salt)
            .update(&self.key.to_bytes())
            .update(&self.epoch.get().to_be_bytes())
            .update(&self.next.get().to_be_bytes());
        tree::leaf(hasher.finalize().as_bytes())
    }

    fn line(&self) -> String {
        match &self.key {
            CounterKey::Source(id) => format!("source {id} {} {}\n", self.epoch, self.next),
            CounterKey::Tenant(id) => format!("tenant {id} {} {}\n", self.epoch, self.next),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let key = match (words.next()?, words.next()?) {
            ("source", id) => CounterKey::Source(SourceId::from_hex(id).ok()?),
            ("tenant", id) => CounterKey::Tenant(TenantId::from_hex(id).ok()?),
            _ => return None,
        };
        let epoch = Epoch::new(text::decimal(words.next()?)?);
        let next = Count::new(text::decimal(words.next()?)?);
        // Tenants have no epochs; any other number would be a second form of the same.
        let canonical = epoch.get() == 0 || matches!(key, CounterKey::Source(_));
        (canonical && words.next().is_none()).then_some(Self { key, epoch, next })
    }
}

/// The tree over where everybody stands.
#[derive(Debug, Clone)]
pub struct CounterTree {
    salt: [u8; 32],
    entries: Vec<CounterEntry>,
    leaves: Vec<NodeHash>,
}

impl CounterTree {
    /// Over these entries, one for each source and tenant. `salt` must come from a cryptographic random source.
    pub fn build(salt: [u8; 32], mut entries: Vec<CounterEntry>) -> Self {
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.key);
        let leaves = entries.iter().map(|entry| entry.leaf(&salt)).collect();
        Self { salt, entries, leaves }
    }

    /// RFC 6962 root over the entries, sorted.
    pub fn root(&self) -> NodeHash {
        let mut root = RootBuilder::default();
        self.leaves.iter().for_each(|leaf| root.push(*leaf));
        root.root()
    }

    /// All entries, sorted.
    pub fn entries(&self) -> &[CounterEntry] {
        &self.entries
    }

    /// The entry of a source or tenant, and its place.
    pub fn find(&self, key: &CounterKey) -> Option<(u64, &CounterEntry)> {
        let index = self.entries.binary_search_by_key(key, |entry| entry.key).ok()?;
        Some((index as u64, self.entries.get(index)?))
    }

    /// The proof that the entry at `index` is in the root: siblings, from the leaf up.
    pub fn proof(&self, index: u64) -> Option<Vec<NodeHash>> {
        let size = self.leaves.len() as u64;
        proof::inclusion(index, size, &Leaves(&self.leaves)).ok()
    }

    /// The statement, naming the entries that changed since the last one.
    pub fn statement(&self, origin: &Origin, changes: Vec<CounterEntry>) -> Counters {
        Counters {
            origin: origin.clone(),
            salt: self.salt,
            root: self.root(),
            count: self.entries.len() as u64,
            changes,
        }
    }
}

struct Leaves<'a>(&'a [NodeHash]);

impl Subtrees for Leaves<'_> {
    type Error = Infallible;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, Infallible> {
        let width = 1_usize << height;
        let first = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(width);
        let mut root = RootBuilder::default();
        self.0.iter().skip(first).take(width).for_each(|leaf| root.push(*leaf));
        Ok(root.root())
    }
}

/// What a counters record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// The journal.
    pub origin: Origin,
    /// Salt of the entries: without it, a guessed id could be looked up in a proof.
    pub salt: [u8; 32],
    /// Root over all entries.
    pub root: NodeHash,
    /// Number of all entries.
    pub count: u64,
    /// Entries that changed since the last counters record, sorted.
    pub changes: Vec<CounterEntry>,
}

/// A text that begins as a counters record and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0} of the counters record is not what it should be")]
pub struct CountersError(
    /// Number of the line, from 1.
    pub usize,
);

impl Counters {
    /// The statement's text.
    pub fn text(&self) -> String {
        let mut out = format!("{HEADER}\n{}\n{}\n", self.origin, hex::encode(self.salt));
        // Writing to a String can't fail.
        let _ = writeln!(out, "{}\n{}", text::base64(self.root.as_bytes()), self.count);
        out.extend(self.changes.iter().map(CounterEntry::line));
        out
    }

    /// Reads the text, in the one form that [`Counters::text`] writes.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, CountersError> {
        let mut lines = text.strip_suffix('\n').ok_or(CountersError(1))?.split('\n');
        let mut next = |number: usize| lines.next().ok_or(CountersError(number));
        if next(1)? != HEADER {
            return Err(CountersError(1));
        }
        if next(2)? != origin.as_str() {
            return Err(CountersError(2));
        }
        let mut salt = [0; 32];
        let digits = next(3)?;
        hex::decode_to_slice(digits, &mut salt).map_err(|_| CountersError(3))?;
        let root = text::hash(next(4)?).ok_or(CountersError(4))?;
        let count = text::decimal(next(5)?).ok_or(CountersError(5))?;
        let mut changes: Vec<CounterEntry> = Vec::new();
        for (number, line) in (6..).zip(lines) {
            let entry = CounterEntry::parse(line).ok_or(CountersError(number))?;
            if changes.last().is_some_and(|last| last.key >= entry.key) {
                return Err(CountersError(number));
            }
            changes.push(entry);
        }
        let counters = Self { origin: origin.clone(), salt, root, count, changes };
        // Upper-case digits are another spelling.
        if counters.text() == text { Ok(counters) } else { Err(CountersError(3)) }
    }

    /// Whether this entry is among those of the root.
    pub fn holds(&self, entry: &CounterEntry, index: u64, hashes: &[NodeHash]) -> bool {
        proof::verify_inclusion(&entry.leaf(&self.salt), index, self.count, hashes, &self.root).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(sources: u8, tenants: u8) -> Vec<CounterEntry> {
        let source = |i| CounterKey::Source(SourceId::new([i; 16]));
        let tenant = |i| CounterKey::Tenant(TenantId::new([i; 16]));
        let entry = |(i, key)| CounterEntry {
            epoch: Epoch::new(if matches!(key, CounterKey::Source(_)) { 3 } else { 0 }),
            next: Count::new(u64::from(i) * 10),
            key,
        };
        let tenants = (0..tenants).map(|i| (i, tenant(i)));
        tenants.chain((0..sources).map(|i| (i, source(i)))).map(entry).collect()
    }

    #[test]
    fn every_entry_is_proved_and_no_other() {
        let origin = Origin::new("journal.example.net/2026").unwrap();
        for (sources, tenants) in [(1, 0), (1, 1), (3, 4), (20, 13)] {
            let tree = CounterTree::build([7; 32], entries(sources, tenants));
            let counters = tree.statement(&origin, Vec::new());
            for entry in entries(sources, tenants) {
                let (index, found) = tree.find(&entry.key).unwrap();
                assert_eq!(*found, entry);
                let proof = tree.proof(index).unwrap();
                assert!(counters.holds(&entry, index, &proof));
                let less = CounterEntry { next: Count::new(entry.next.get() + 1), ..entry };
                assert!(!counters.holds(&less, index, &proof));
                assert!(!counters.holds(&entry, index + 1, &proof));
                let other = Counters { salt: [8; 32], ..counters.clone() };
                assert!(!other.holds(&entry, index, &proof));
            }
            assert_eq!(tree.proof(u64::from(sources + tenants)), None);
        }
    }

    #[test]
    fn the_text_has_one_form() {
        let origin = Origin::new("journal.example.net/2026").unwrap();
        let tree = CounterTree::build([0xab; 32], entries(2, 2));
        let counters = tree.statement(&origin, tree.entries().to_vec());
        let text = counters.text();
        assert_eq!(Counters::parse(&text, &origin), Ok(counters));
        let lines: Vec<&str> = text.lines().collect();
        let swapped = [lines[..5].to_vec(), vec![lines[6], lines[5]]].concat().join("\n") + "\n";
        let upper = text.replace("abab", "ABAB");
        let longer = text.clone() + "source 00 1 1\n";
        let bad = [
            &text[..text.len() - 1],
            &swapped,
            &upper,
            &longer,
            "",
            "sigillo counters v1\n",
            &text.replace(" 0 10", " 00 10"),
            &text.replace(" 0 10", " 1 10"),
        ];
        for text in bad {
            assert!(Counters::parse(text, &origin).is_err(), "{text}");
        }
        let other = Origin::new("journal.example.net/2027").unwrap();
        assert_eq!(Counters::parse(&text, &other), Err(CountersError(2)));
    }
}
