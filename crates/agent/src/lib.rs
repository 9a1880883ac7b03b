//! The agent: reads lines from files, standard input and the systemd journal, makes records of them, and ships them.
//!
//! First form, without a spool: what was read and not acknowledged is read again after a restart, from the places that the
//! state file remembers. So a line arrives exactly once as long as the agent stops in good order. After `kill -9` or a power
//! cut the lines that were acknowledged since the state was last written (at most a second's worth) arrive twice, in a new
//! epoch; and what came by standard input and was not acknowledged is gone, since it can't be read again.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod check;
mod config;
#[allow(dead_code, reason = "called from the core once it is built on the spool")]
mod declare;
mod error;
mod line;
mod profile;
mod receipts;
mod record;
mod run;
mod scrub;
mod source;
mod stamp;
mod state;
mod when;

pub use check::check;
pub use config::{AuditSettings, BatchSettings, Config, JournaldSettings, SocketSettings};
pub use error::AgentError;
pub use profile::Profile;
pub use run::{Mode, run};
pub use scrub::ScrubSettings;
pub use source::file::{Begin, FileSettings, Multiline};

/// Name and version, as the server's register shows them.
pub const AGENT: &str = concat!("sigillo-agent ", env!("CARGO_PKG_VERSION"));
