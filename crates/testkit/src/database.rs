//! A journal's database, opened by its own interface and behind the journal's back: what an intruder on the machine can do.

use std::path::Path;

use anyhow::{Context, Result};
use rocksdb::{ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode, LiveFile, Options};

/// A key and its value.
pub type Pair = (Box<[u8]>, Box<[u8]>);

/// Everything that is written through it has valid checksums.
pub struct Database {
    db: DB,
    families: Vec<String>,
}

/// Folder of the database in a journal's.
pub const FOLDER: &str = "journal";

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("families", &self.families).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database of the journal in `dir`, whose server is stopped.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, |options, path, descriptors| DB::open_cf_descriptors(options, path, descriptors))
    }

    /// As [`Database::open`], changing nothing.
    pub fn open_read_only(dir: &Path) -> Result<Self> {
        Self::open_with(dir, |options, path, descriptors| {
            DB::open_cf_descriptors_read_only(options, path, descriptors, false)
        })
    }

    fn open_with(
        dir: &Path,
        open: impl FnOnce(&Options, &Path, Vec<ColumnFamilyDescriptor>) -> Result<DB, rocksdb::Error>,
    ) -> Result<Self> {
        let path = dir.join(FOLDER);
        let mut options = Options::default();
        options.set_compression_type(DBCompressionType::None);
        let families = DB::list_cf(&options, &path)?;
        let descriptors = families.iter().map(|name| {
            let mut options = Options::default();
            options.set_compression_type(DBCompressionType::None);
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = open(&options, &path, descriptors.collect())?;
        Ok(Self { db, families })
    }

    fn family(&self, name: &str) -> Result<&rocksdb::ColumnFamily> {
        self.db.cf_handle(name).with_context(|| format!("there is no column family {name}"))
    }

    /// The value of a key in a column family; an error if there is none.
    pub fn get(&self, family: &str, key: &[u8]) -> Result<Vec<u8>> {
        let value = self.db.get_cf(self.family(family)?, key)?;
        value.with_context(|| format!("{family} has no key {}", hex::encode(key)))
    }

    /// Sets the value of a key.
    pub fn put(&self, family: &str, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_cf(self.family(family)?, key, value)?)
    }

    /// Removes a key.
    pub fn delete(&self, family: &str, key: &[u8]) -> Result<()> {
        Ok(self.db.delete_cf(self.family(family)?, key)?)
    }

    /// All pairs, by key.
    pub fn pairs(&self, family: &str) -> Result<Vec<Pair>> {
        Ok(self.db.iterator_cf(self.family(family)?, IteratorMode::Start).collect::<Result<_, _>>()?)
    }

    /// The tables that hold its data.
    pub fn live_files(&self) -> Result<Vec<LiveFile>> {
        Ok(self.db.live_files()?)
    }

    /// Merges everything into new files.
    pub fn compact(&self) -> Result<()> {
        for name in &self.families {
            self.db.compact_range_cf(self.family(name)?, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// Writes every pair again as it is.
    pub fn rewrite(&self) -> Result<()> {
        for name in &self.families {
            for (key, value) in self.pairs(name)? {
                self.put(name, &key, &value)?;
            }
        }
        Ok(())
    }

    /// Writes everything into tables and closes.
    pub fn close(self) -> Result<()> {
        for name in &self.families {
            self.db.flush_cf(self.family(name)?)?;
        }
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}
