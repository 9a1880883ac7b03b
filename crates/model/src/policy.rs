//! The *trust file*: which log, which witnesses, and how many of them must agree. Its syntax is that of the C2SP specification
//! tlog-policy (`log`, `witness`, `group`, `quorum`), with lines of our own for the other keys that a verifier must know.
//!
//! It is what a verifier believes without proof, so it is had from somebody trusted and never from the log itself.

mod parse;

use std::fmt;

pub use parse::PolicyError;

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    note::{Note, NoteError, VerifierKey},
};

/// Bytes of a trust file at most.
pub const POLICY_MAX_BYTES: usize = 1 << 20;
/// Lines of one kind in a trust file at most.
pub const POLICY_MAX_LINES: usize = 256;

/// A word of a trust file: octets, usually UTF-8. Names are equal only if their octets are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(Vec<u8>);

impl Word {
    /// The word as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

/// A `log` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Its key, named as the log's origin.
    pub key: VerifierKey,
    /// Where it publishes.
    pub url: Option<Word>,
}

/// A `witness` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name within the file.
    pub name: Word,
    /// Its key.
    pub key: VerifierKey,
    /// Its submission prefix.
    pub url: Option<Word>,
}

/// A `group` line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: Word,
    /// How many of the members must have witnessed.
    threshold: usize,
    members: Vec<Member>,
}

/// What a group or the quorum refers to, by its place among its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// The `quorum` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quorum {
    /// No witness is asked for.
    None,
    Of(Member),
}

/// A trust file that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    /// Each refers to witnesses and to groups before it only.
    groups: Vec<Group>,
    quorum: Quorum,
    recovery: Vec<VerifierKey>,
    receipts: Vec<VerifierKey>,
    officers: Vec<VerifierKey>,
    auditors: Vec<VerifierKey>,
    exporters: Vec<VerifierKey>,
    authorities: Vec<[u8; 32]>,
}

/// What a note is worth under a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement<'a> {
    /// What the log has stated.
    pub checkpoint: Checkpoint,
    /// The key that it was stated with.
    pub log: &'a VerifierKey,
    /// Witnesses that have cosigned it, in the note's order, each with its time in seconds since 1970.
    pub cosignatures: Vec<(&'a Word, u64)>,
    /// Whether they are enough.
    pub quorum: bool,
    /// The greatest time such that the cosignatures from then on are enough: the log was in this state at that time by the word
    /// of a whole quorum. None if they are not enough, or if no witness is asked for.
    pub quorum_time: Option<u64>,
    /// Auditors that have walked all of it, with their times.
    pub auditors: Vec<(&'a VerifierKey, u64)>,
}

/// Why a note says nothing under a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JudgementError {
    /// It is not signed by anybody known, or wrongly so.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No log of the trust file has signed it as its own.
    #[error(
        "no log of the trust file has signed a checkpoint of `{0}`: this is another log, or the trust file is out of date"
    )]
    NotTheLog(String),
}

impl Policy {
    /// Checks signatures and quorum of a checkpoint.
    pub fn check(&self, note: &Note) -> Result<Judgement<'_>, JudgementError> {
        let known: Vec<(Role, &VerifierKey)> = self
            .logs
            .iter()
            .map(|log| (Role::Log, &log.key))
            .chain(self.witnesses.iter().enumerate().map(|(index, witness)| (Role::Witness(index), &witness.key)))
            .chain(self.auditors.iter().map(|key| (Role::Auditor, key)))
            .collect();
        let keys: Vec<VerifierKey> = known.iter().map(|(_, key)| (*key).clone()).collect();
        let verified = note.verify(&keys)?;
        let checkpoint = Checkpoint::parse_own(note.text())?;

        let mut log = None;
        let mut cosignatures = Vec::new();
        let mut auditors = Vec::new();
        for signature in verified {
            match (known.get(signature.key), signature.time) {
                // A log speaks for its own origin only.
                (Some((Role::Log, key)), _) if key.name() == checkpoint.origin => log = log.or(Some(*key)),
                (Some((Role::Witness(index), _)), Some(time)) => cosignatures.push((*index, time)),
                (Some((Role::Auditor, key)), Some(time)) => auditors.push((*key, time)),
                _ => {}
            }
        }
        let log = log.ok_or_else(|| JudgementError::NotTheLog(checkpoint.origin.clone()))?;
        let quorum = self.is_quorum(&cosignatures, 0);
        let quorum_time = cosignatures
            .iter()
            .map(|(_, time)| *time)
            .filter(|since| self.asks_for_witnesses() && self.is_quorum(&cosignatures, *since))
            .max();
        let name = |(index, time): (usize, u64)| Some((&self.witnesses.get(index)?.name, time));
        let cosignatures = cosignatures.into_iter().filter_map(name).collect();
        Ok(Judgement { checkpoint, log, cosignatures, quorum, quorum_time, auditors })
    }

    /// Whether the cosignatures at or after a time are enough.
    fn is_quorum(&self, cosignatures: &[(usize, u64)], since: u64) -> bool {
        let Quorum::Of(quorum) = self.quorum else { return true };
        let signed = |index: usize| cosignatures.iter().any(|(witness, time)| *witness == index && *time >= since);
        let mut met: Vec<bool> = Vec::with_capacity(self.groups.len());
        let has_witnessed = |met: &[bool], member: Member| match member {
            Member::Witness(index) => signed(index),
            Member::Group(index) => met.get(index).copied().unwrap_or(false),
        };
        for group in &self.groups {
            let count = group.members.iter().filter(|member| has_witnessed(&met, **member)).count();
            met.push(count >= group.threshold);
        }
        has_witnessed(&met, quorum)
    }

    /// The same policy, with one more key of a log: that to which it has changed by a rotation.
    #[must_use]
    pub fn with_log(&self, key: VerifierKey) -> Self {
        let mut policy = self.clone();
        if policy.logs.iter().all(|log| log.key != key) {
            policy.logs.push(Log { key, url: None });
        }
        policy
    }

    /// The logs.
    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// The witnesses.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Whether cosignatures are asked for at all.
    pub fn asks_for_witnesses(&self) -> bool {
        self.quorum != Quorum::None
    }

    /// Offline keys that may name a new key of the log.
    pub fn recovery(&self) -> &[VerifierKey] {
        &self.recovery
    }

    /// Keys that sign receipts.
    pub fn receipts(&self) -> &[VerifierKey] {
        &self.receipts
    }

    /// Keys of the officers who order erasures and set retention.
    pub fn officers(&self) -> &[VerifierKey] {
        &self.officers
    }

    /// Keys of those who walk every record.
    pub fn auditors(&self) -> &[VerifierKey] {
        &self.auditors
    }

    /// Keys of those who export evidence.
    pub fn exporters(&self) -> &[VerifierKey] {
        &self.exporters
    }

    /// SHA-256 of the certificates of the time-stamping authorities.
    pub fn authorities(&self) -> &[[u8; 32]] {
        &self.authorities
    }
}

/// What a known key is in the policy.
#[derive(Clone, Copy)]
enum Role {
    Log,
    Witness(usize),
    Auditor,
}

#[cfg(test)]
mod tests;
