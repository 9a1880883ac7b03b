//! What tests, benches and drills share: the real binaries as processes, certificates, records and batches from a seed.
//! Development only.

pub mod agent;
pub mod batches;
pub mod binaries;
pub mod certificates;
pub mod config;
pub mod daemon;
pub mod database;
pub mod drill;
pub mod evidence;
pub mod machine;
pub mod numbered;
pub mod powerloss;
pub mod process;
pub mod records;
pub mod server;
pub mod wire;
pub mod witness;
