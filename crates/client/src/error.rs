//! What can go wrong between a client and a server.

use std::{error::Error, io, path::PathBuf, time::Duration};

use crate::tls::Peer;
use sigillo_model::{batch::BatchError, block::PushError};
use sigillo_spool::SpoolError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address can't be used.
    #[error("the server's url {url:?} can't be used: {what}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong, and what it should be.
        what: String,
    },
    /// A certificate or key file can't be used.
    #[error("{setting} file {}: {what}", path.display())]
    File {
        /// The setting that names the file: `ca`, `cert`, `key`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Nobody answers there, or the connection was cut.
    #[error("no connection to {url}: {what}")]
    Unreachable {
        /// The server.
        url: String,
        /// What the system says.
        what: String,
    },
    /// One side did not accept the other's certificate.
    #[error("no trust between us and {url}: {what}")]
    Tls {
        /// The server.
        url: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The server answers, and says no.
    #[error("the server {}: {message} ({code})", if code.is_failure() { "fails" } else { "refuses" })]
    Refused {
        /// The kind of refusal.
        code: Code,
        /// The server's words.
        message: String,
    },
    /// The server says something that the protocol does not allow here.
    #[error("the server breaks the protocol: {0}")]
    Protocol(String),
    /// A record breaks a limit, and was not taken.
    #[error("a record can't be sent: {0}")]
    Record(#[from] PushError),
    /// Records could not be made into a batch.
    #[error("records can't be made into a batch: {0}")]
    Batch(#[from] BatchError),
    /// The server will never take this batch.
    #[error("the server refuses the batch of {count} records from {first} of epoch {epoch}: {message}")]
    InvalidBatch {
        /// Epoch of the batch.
        epoch: u64,
        /// The sender's number of its first record.
        first: u64,
        /// How many records.
        count: u32,
        /// The server's words.
        message: String,
    },
    /// The journal misses records before those that we still hold.
    #[error(
        "the journal expects record {expected} of epoch {expected_epoch}, which this sender does not hold any more: {message}. \
         Records that it had acknowledged are gone; ask the journal's operator, and begin a new epoch by starting again"
    )]
    Gap {
        /// What the journal expects.
        expected_epoch: u64,
        /// What the journal expects.
        expected: u64,
        /// The server's words, or ours.
        message: String,
    },
    /// The journal holds other records under our numbers.
    #[error(
        "the journal holds other records under this sender's numbers: {0}. Its state was copied or rolled back, or two senders \
         use one certificate: give each its own"
    )]
    Fork(String),
    /// A newer epoch of this source exists.
    #[error(
        "the journal knows a newer epoch of this source: {0}. Another sender uses the same certificate: give each its own"
    )]
    StaleEpoch(String),
    /// Nothing was acknowledged for longer than the caller wants to wait.
    #[error("nothing was acknowledged for {} s: {reason}", waited.as_secs())]
    GaveUp {
        /// The caller's patience.
        waited: Duration,
        /// What hindered last.
        reason: String,
    },
    /// A receipt that the trust file's keys don't bear out. What it acknowledges is not taken as durable.
    #[error(
        "the server's receipt for the batch from {first} of epoch {epoch} is not taken: {what}. Its records are kept; check the \
         trust file, and ask the journal's operator"
    )]
    Receipt {
        /// Epoch of the batch.
        epoch: u64,
        /// The sender's number of its first record.
        first: u64,
        /// What is wrong.
        what: String,
    },
    /// A checkpoint that the trust file's keys don't bear out.
    #[error("the server's checkpoint is not taken: {0}. Check the trust file, and ask the journal's operator")]
    Checkpoint(String),
    /// The file with the checkpoint that is remembered is of no use.
    #[error(
        "the remembered checkpoint {} {what}: restore it. To begin anew, which forgives the journal all before, remove it",
        path.display()
    )]
    Remembered {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The journal was caught: what it shows does not fit what it has signed before.
    #[error(
        "{what}. {}. Show it to somebody whom the journal's owner does not command. To go on with the journal as it is now, remove \
         {} and, of an agent, `receipts.open`: what is remembered is not held against it then",
        evidence.as_ref().map_or("It could not be written down; the log has it".to_owned(), |path| {
            format!("The evidence is in {}", path.display())
        }),
        remembered.display()
    )]
    Misconduct {
        /// What it did.
        what: String,
        /// It shows an older state, or none: a restored backup, perhaps.
        stale: bool,
        /// Where that is written down.
        evidence: Option<PathBuf>,
        /// The file with the checkpoint that is remembered.
        remembered: PathBuf,
    },
    /// The spool can't be used, or not any more.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The spool belongs to another journal, or to another source of it.
    #[error(
        "the server is {server}, the spool {} was filled for {spool}. If the journal was succeeded by another one, name that one's trust \
         file in the configuration (`trust`), and what is not acknowledged goes there. Else correct the url or the certificate, or give \
         this agent a spool of its own",
        dir.display()
    )]
    OtherJournal {
        /// Journal and source of the spool.
        spool: String,
        /// Journal, and who we are there.
        server: String,
        /// The spool.
        dir: PathBuf,
    },
    /// The caller does not take what was settled.
    #[error("too many batches are settled and not taken: flush now and then")]
    Untaken,
    /// The shipper has stopped after an error that it told before.
    #[error("the shipper has stopped")]
    Stopped,
}

/// Kinds of refusal that callers tell apart; gRPC's code numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong (3).
    InvalidArgument,
    /// The certificate is not enrolled (16).
    Unauthenticated,
    /// The certificate's role may not do this (7).
    PermissionDenied,
    /// Too much at once (8).
    ResourceExhausted,
    /// The server is not in a state for this, and will not get there by itself (9).
    FailedPrecondition,
    /// Later perhaps: the server stops, or its disk is full (14).
    Unavailable,
    /// Something is wrong in the server (13).
    Internal,
    /// What the server holds is not what was written (15).
    DataLoss,
    /// Any other code, by its number.
    Other(i32),
}

impl Code {
    /// True if the server could not do what it would have done: nothing is wrong with the request or who makes it.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Unavailable | Self::Internal | Self::DataLoss)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InvalidArgument => f.write_str("invalid argument"),
            Self::Unauthenticated => f.write_str("unauthenticated"),
            Self::PermissionDenied => f.write_str("permission denied"),
            Self::ResourceExhausted => f.write_str("resource exhausted"),
            Self::FailedPrecondition => f.write_str("failed precondition"),
            Self::Unavailable => f.write_str("unavailable"),
            Self::Internal => f.write_str("internal"),
            Self::DataLoss => f.write_str("data loss"),
            Self::Other(number) => write!(f, "gRPC status {number}"),
        }
    }
}

impl From<tonic::Code> for Code {
    fn from(code: tonic::Code) -> Self {
        match code {
            tonic::Code::InvalidArgument => Self::InvalidArgument,
            tonic::Code::Unauthenticated => Self::Unauthenticated,
            tonic::Code::PermissionDenied => Self::PermissionDenied,
            tonic::Code::ResourceExhausted => Self::ResourceExhausted,
            tonic::Code::FailedPrecondition => Self::FailedPrecondition,
            tonic::Code::Unavailable => Self::Unavailable,
            tonic::Code::Internal => Self::Internal,
            tonic::Code::DataLoss => Self::DataLoss,
            other => Self::Other(other.into()),
        }
    }
}

impl ClientError {
    /// Reads a status: either the server's own word, or the transport's, which then has a cause.
    pub(crate) fn from_status(peer: &Peer, status: &tonic::Status) -> Self {
        match status.source() {
            Some(cause) => Self::from_cause(peer, cause),
            None => Self::Refused { code: status.code().into(), message: plain(status.message()) },
        }
    }

    /// Looks for what really happened below the layers of the transport.
    pub(crate) fn from_cause(peer: &Peer, cause: &(dyn Error + 'static)) -> Self {
        if let Some(fault) = peer.fault.get() {
            return Self::from_tls(&peer.url, fault);
        }
        let mut deepest = cause;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        Self::Unreachable { url: peer.url.to_string(), what: plain(&deepest.to_string()) }
    }

    pub(crate) fn from_connect(url: &str, error: &io::Error) -> Self {
        match tls_error(error) {
            Some(tls) => Self::from_tls(url, tls),
            None => Self::Unreachable { url: url.to_owned(), what: error.to_string() },
        }
    }

    fn from_tls(url: &str, error: &rustls::Error) -> Self {
        let what = match error {
            rustls::Error::InvalidCertificate(reason) => {
                format!("the server's certificate is not accepted ({reason}): check the settings `ca` and `name`")
            }
            rustls::Error::AlertReceived(alert) => format!(
                "the server does not accept our certificate ({alert:?}): check the settings `cert` and `key`, and that the \
                 certificate is enrolled and has not run out"
            ),
            other => other.to_string(),
        };
        Self::Tls { url: url.to_owned(), what }
    }
}

pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// A server's words, for terminals and logs: what steers a terminal, ends a line or reorders text is written as an escape.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let is_unsafe = c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
        if is_unsafe { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_server_steer_no_terminal() {
        let text = "f\u{fc}r \u{1b}[2J\r\n\u{9b}1m \u{202e}";
        assert_eq!(plain(text), "f\u{fc}r \\u{1b}[2J\\r\\n\\u{9b}1m \\u{202e}");
    }
}
