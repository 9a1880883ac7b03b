//! Declarations of what can't be read any more.

use std::path::Path;

use sigillo_client::unix_nanos;
use sigillo_model::record::Record;

use crate::{
    declare::{self, Declarer},
    record::Maker,
};

/// Why lines may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Truncated,
    TruncatedWhileAway,
    GoneWhileAway,
    Damaged,
}

impl Reason {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Truncated => "the file was truncated, and there is no copy of what was not read",
            Self::TruncatedWhileAway => {
                "the file was truncated while the agent was away, and there is no copy of what was not read"
            }
            Self::GoneWhileAway => {
                "the file was removed while the agent was away; what was written behind this place, if anything, was not read"
            }
            Self::Damaged => "the compressed file is damaged behind this place",
        }
    }
}

/// What was not read of a file: from a place on. Where it ended is not known: what was seen of it may have grown since.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) from: u64,
    pub(super) reason: Reason,
}

impl Loss {
    pub(super) fn record(&self, maker: &Maker, path: &Path) -> Record {
        let loss = declare::Loss {
            stream: &path.to_string_lossy(),
            reason: self.reason.words(),
            from: &self.from.to_string(),
            to: "",
            lines: None,
            bytes: None,
        };
        Declarer::new(maker).loss(&loss, unix_nanos())
    }
}
