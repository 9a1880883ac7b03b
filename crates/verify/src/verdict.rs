//! The verdict over a file: the report, its time-stamp tokens, and the exit code that says so to scripts.

use std::io::Read;

use sigillo_model::{
    evidence::{Existed, Finding, Kind, Report, Watch},
    policy::Policy,
};

use crate::{
    read::{self, ReadError},
    token::{self, Stamp, TokenError},
};

/// Everything holds.
pub const EXIT_PROVED: u8 = 0;
/// The file is not what it should be, or claims what does not hold.
pub const EXIT_ALTERED: u8 = 1;
/// The command line or the trust file makes no sense.
pub const EXIT_USAGE: u8 = 2;
/// A file could not be read or written.
pub const EXIT_UNREADABLE: u8 = 3;
/// Everything holds, but fewer witnesses have cosigned than the trust file asks for.
pub const EXIT_NO_QUORUM: u8 = 6;

/// A time-stamp token of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name in the file.
    pub name: String,
    /// Of the checkpoint that it is over; none if it is over something else.
    pub size: Option<u64>,
    /// What it says, or why it says nothing.
    pub stamp: Result<Stamp, TokenError>,
}

/// The verdict over a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the file proves.
    pub report: Report,
    /// What time-stamping authorities say of it.
    pub tokens: Vec<Token>,
    /// Since when, at the latest, records existed by the word of a trusted authority: ascending.
    pub stamped: Vec<Existed>,
}

/// Verifies a file, tokens included.
pub fn verify(input: impl Read, policy: &Policy, watch: &mut impl Watch) -> Result<Verdict, ReadError> {
    let mut report = read::read(input, policy, watch)?;
    let mut tokens = Vec::new();
    for attachment in report.attachments.iter().filter(|attachment| attachment.kind == Kind::Token) {
        let stamp = token::verify(&attachment.bytes, policy.authorities());
        let size = stamp
            .as_ref()
            .ok()
            .and_then(|stamp| report.notes.iter().find(|(_, digest)| *digest == stamp.imprint).map(|(size, _)| *size));
        tokens.push(Token { name: attachment.name.clone(), size, stamp });
    }
    let wrong = tokens.iter().filter_map(|token| {
        let error = token.stamp.as_ref().err().filter(|error| !error.is_unknown())?;
        Some(Finding::Token { name: token.name.clone(), reason: error.to_string() })
    });
    report.findings.extend(wrong);
    let mut stamped: Vec<Existed> = tokens
        .iter()
        .filter_map(|token| Some(Existed { size: token.size?, time: token.stamp.as_ref().ok()?.time }))
        .collect();
    stamped.sort_unstable_by_key(|existed| existed.size);
    Ok(Verdict { report, tokens, stamped })
}

impl Verdict {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        if !self.report.findings.is_empty() {
            EXIT_ALTERED
        } else if self.report.checkpoint.quorum {
            EXIT_PROVED
        } else {
            EXIT_NO_QUORUM
        }
    }

    /// The earliest time by which the record of this sequence existed, by witnesses or by a time-stamping authority.
    pub fn existed_by(&self, seq: u64) -> Option<u64> {
        let stamped = self.stamped.iter().filter(|existed| seq < existed.size).map(|existed| existed.time).min();
        [self.report.existed_by(seq), stamped].into_iter().flatten().min()
    }
}

impl ReadError {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Finding(_) => EXIT_ALTERED,
            Self::Io(_) => EXIT_UNREADABLE,
        }
    }
}

/// Seconds since 1970 as RFC 3339, in UTC.
pub fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("{seconds} s after 1970"), |time| time.to_string())
}
