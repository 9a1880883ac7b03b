//! The journal: the only crate that knows RocksDB.
