//! A small HTTP client for what the transparency log needs: published resources and witnesses. Plain HTTP to loopback only,
//! else TLS 1.3 with the authorities of a file; one connection, kept alive; every wait and every answer bounded.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod link;
mod url;

pub use link::{Answer, Link, Roots};
pub use url::Url;

use std::path::PathBuf;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The address makes no sense, or would send plain text over a network.
    #[error("address {url:?}: {problem}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The file of authorities can't be used.
    #[error("{path}: {problem}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nothing answers there, or TLS fails.
    #[error("cannot connect to {host}: {problem}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        problem: String,
    },
    /// The answer did not come in time.
    #[error("{host} did not answer within {ms} ms")]
    Timeout {
        /// Host and port.
        host: String,
        /// How long it was waited for.
        ms: u128,
    },
    /// The answer is larger than what was asked for can be.
    #[error("{host} answers with more than {max} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
        /// Most bytes.
        max: usize,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{host}: {problem}")]
    Broken {
        /// Host and port.
        host: String,
        /// Why.
        problem: String,
    },
}
