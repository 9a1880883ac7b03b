//! What tests, benches and drills share: the real binaries as processes, certificates, records and batches from a seed.
//! Development only.

pub mod batches;
pub mod binaries;
pub mod certificates;
pub mod config;
pub mod database;
pub mod drill;
pub mod evidence;
pub mod powerloss;
pub mod process;
pub mod records;
pub mod server;
pub mod witness;
