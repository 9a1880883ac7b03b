//! Writing into a journal's database behind the journal's back, with valid checksums, while its server is stopped.

use std::path::Path;

use anyhow::{Context, Result};
use rocksdb::{ColumnFamilyDescriptor, DB, Options, WriteOptions};

/// Sets the value of a key in a column family of the journal in `data_dir`.
pub fn put(data_dir: &Path, family: &str, key: &[u8], value: &[u8]) -> Result<()> {
    let path = data_dir.join("journal");
    let options = Options::default();
    let families = DB::list_cf(&options, &path)?;
    let descriptors = families.iter().map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
    let db = DB::open_cf_descriptors(&options, &path, descriptors)?;
    let family = db.cf_handle(family).with_context(|| format!("column family {family}"))?;
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    Ok(db.put_cf_opt(&family, key, value, &synced)?)
}
