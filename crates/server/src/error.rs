//! Why a server does not start, or stops otherwise than asked.

use std::{io, net::SocketAddr, path::PathBuf};

use sigillo_journal::{OpenError, ReadError, SubmitError};

use crate::config::ConfigError;
pub use crate::own::OwnError;

/// Why a server does not start, or stops otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key can't be used.
    #[error("{path}: {problem}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A private key of the log can't be used.
    #[error("{place}: {problem}")]
    Key {
        /// The file or credential.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The trust file does not fit.
    #[error("{path}: {problem}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The file that says what was signed last can't be used.
    #[error("{0}")]
    Signed(String),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The throw-away certificates can't be made.
    #[error("making certificates: {0}")]
    MakeCertificate(#[from] rcgen::Error),
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Telemetry can't be set up.
    #[error("telemetry: {0}")]
    Telemetry(String),
    /// The journal can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal can't be read.
    #[error("reading the journal's own records: {0}")]
    Read(#[from] ReadError),
    /// The journal can't be closed as it should.
    #[error("closing the journal: {0}")]
    Close(SubmitError),
    /// The start can't be recorded; nothing that is not recorded happens.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// A number in the configuration was once given to another name.
    #[error(
        "[[class]] {name:?} has number {number}, which the journal knows as {before:?}: numbers stand in envelopes for ever; \
         give it another one"
    )]
    ClassNumber {
        /// The number.
        number: u16,
        /// The configured name.
        name: String,
        /// The name that has it.
        before: String,
    },
    /// A task has ended abnormally.
    #[error("a task of the server has failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ServerError {
    /// A fault of a file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
