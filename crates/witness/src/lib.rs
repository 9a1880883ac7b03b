//! A witness of transparency logs, as the C2SP specifications tlog-witness and tlog-cosignature describe it.
//!
//! It remembers, for each log that it watches, the newest checkpoint that it has seen, and cosigns a newer one only with a proof
//! that it continues the old one. So whoever rewrites a log can't get a second cosignature for the same part of it. It needs no
//! trust in the log, no access to the records, and very little of a machine.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod config;
mod http;
mod key_file;
mod serve;
mod state;
mod witness;

pub use config::{Config, ConfigError};
pub use key_file::{KeyFileError, create as create_key, read as read_key};
pub use serve::{ServeError, Server};
pub use state::{StateDir, StateError};
pub use witness::{Refusal, Witness, WitnessError};
