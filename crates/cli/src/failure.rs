//! Why a command did not succeed, and the exit code that says so to scripts.

use std::io::{self, Write};

use sigillo_client::ClientError;

use crate::output::escape::escape;

/// Exit codes, as `sigillo --help` lists them.
pub(crate) const EXIT_ALTERED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_UNREADABLE: u8 = 3;
const EXIT_REFUSED: u8 = 4;
pub(crate) const EXIT_STALE: u8 = 5;
pub(crate) const EXIT_UNMET: u8 = 6;

/// Says something to people, on standard error. What a server says is no more trusted than what a record says.
pub(crate) fn tell(text: &str) {
    // Nobody may be listening (`2>&1 | head`).
    let _ = writeln!(io::stderr(), "sigillo: {}", escape(text));
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the configuration makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What is needed can't be read, or its end did not come.
    #[error("{0}")]
    Unreadable(String),
    /// The server will never take what it was sent.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// From the connection.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// From standard input or output, or a file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    /// Whether it may pass by itself: no connection, a server that fails, an end that did not come.
    pub(crate) fn is_passing(&self) -> bool {
        self.exit_code() == Some(EXIT_UNREADABLE)
    }

    /// The code to end with; `None` when whoever read our output has gone, which is no failure (`sigillo query | head`).
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Client(ClientError::Refused { code, .. }) if code.is_failure() => Some(EXIT_UNREADABLE),
            Self::Refused(_)
            | Self::Client(
                ClientError::Refused { .. }
                | ClientError::InvalidBatch { .. }
                | ClientError::Gap { .. }
                | ClientError::Fork(_)
                | ClientError::StaleEpoch(_),
            ) => Some(EXIT_REFUSED),
            Self::Client(ClientError::Misconduct { stale: false, .. }) => Some(EXIT_ALTERED),
            Self::Client(ClientError::Misconduct { stale: true, .. }) => Some(EXIT_STALE),
            Self::Usage(_) | Self::Client(ClientError::Url { .. } | ClientError::File { .. }) => Some(EXIT_USAGE),
            Self::Unreadable(_) | Self::Client(_) | Self::Io(_) => Some(EXIT_UNREADABLE),
        }
    }
}
