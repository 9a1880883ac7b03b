//! Builders, power loss, process harness, benches and drills. Development only.

pub mod powerloss;
