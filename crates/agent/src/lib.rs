//! The agent: reads lines from files, standard input and the systemd journal, makes records of them, and ships them by way of a spool.
//!
//! What was read is in the spool or is read again: how far each source was read is stored in the same frame as its lines. So a line
//! arrives exactly once, whatever ends the agent; what can't be read again and was seen to be gone is declared in a record.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod check;
mod config;
mod declare;
mod error;
mod feed;
mod line;
mod profile;
mod receipts;
mod record;
mod run;
mod scrub;
mod source;
mod stamp;
mod state;
mod status;
mod when;

pub use check::check;
pub use config::{
    AuditSettings, BatchSettings, Config, JournaldSettings, LimitSettings, SocketSettings, SpoolSettings,
};
pub use error::AgentError;
pub use profile::Profile;
pub use run::{Mode, run};
pub use scrub::ScrubSettings;
pub use source::file::{Begin, FileSettings, Multiline};
pub use status::{Asked, Report, SourceReport, SpoolReport, ask};

/// Name and version, as the server's register shows them.
pub const AGENT: &str = concat!("sigillo-agent ", env!("CARGO_PKG_VERSION"));
