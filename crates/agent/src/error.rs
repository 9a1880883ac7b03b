//! What stops the agent.

use std::{io, path::PathBuf};

use sigillo_client::ClientError;

/// Why the agent can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error("configuration {}: {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where, what, and what to do.
        what: String,
    },
    /// A file of the state directory can't be used.
    #[error("{}: {what}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Another agent works with this state.
    #[error("{}: another agent works with this state directory; give each its own `state_dir`", .0.display())]
    InUse(PathBuf),
    /// The journal was caught before, and nobody has acted yet.
    #[error(
        "{}: the journal was caught at misconduct, and nothing is shipped until somebody has acted. That file says what was found, \
         where the evidence is and how to go on; remove it then",
        .0.display()
    )]
    Paused(PathBuf),
    /// The connection to the server, or what the server said.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Reading a source failed.
    #[error("{name}: {source}")]
    Source {
        /// Path or name of the source.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The agent was stopped before everything was acknowledged.
    #[error(
        "stopped with {0} records not acknowledged; those of files and of the journal are read again at the next start"
    )]
    Unacknowledged(u64),
}

impl AgentError {
    /// Whether shipping pauses because the journal was caught at misconduct, now or before.
    pub fn is_misconduct(&self) -> bool {
        matches!(self, Self::Paused(_) | Self::Client(ClientError::Misconduct { .. }))
    }
}
