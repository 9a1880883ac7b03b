//! What tests, benches and drills share: the real binaries as processes, a simulated loss of power, certificates, records
//! and batches from a seed. Development only.

pub mod batches;
pub mod binaries;
pub mod certificates;
pub mod config;
pub mod database;
pub mod powerloss;
pub mod process;
pub mod records;
pub mod server;
