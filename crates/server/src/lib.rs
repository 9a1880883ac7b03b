//! The server: from transport to domain. Configuration, TLS, ingest, reads, the product's own records. Knows no `RocksDB`.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod clock;
pub mod command;
pub mod config;
pub mod dev;
pub mod identity;
pub mod telemetry;

mod accept;
mod audit;
mod control;
mod error;
mod feed;
mod files;
mod health;
mod ingest;
mod log;
mod own;
mod query;
mod reads;
mod refusals;
mod register;
mod restored;
mod run;
mod sources;
mod tls;

pub use error::{OwnError, ServerError};
pub use run::{Controls, Listeners, check, run};
