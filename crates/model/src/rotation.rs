//! A change of the log's key, and which key holds at which size.
//!
//! A rotation is a note signed by the offline recovery key of the trust file, with the text
//!
//! ```text
//! sigillo rotation v1
//! <origin>
//! <size after which the old key is invalid, decimal>
//! <verifier key of the new key>
//! ```

use crate::{
    ids::Origin,
    note::{KeyError, KeyKind, Note, NoteError, VerifierKey},
    policy::{Judgement, JudgementError, Policy},
    text,
};

/// First line of the text.
pub const HEADER: &str = "sigillo rotation v1";

/// A change of the log's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The journal.
    pub origin: Origin,
    /// The greatest size at which the key before is valid.
    pub size: u64,
    /// The key from this size on.
    pub key: VerifierKey,
}

/// Why a note changes no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// The recovery key has not signed it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is no rotation of this journal.
    #[error("line {0} of the rotation is not what it should be")]
    Line(usize),
    /// The new key is none of a log, or has another name than the origin.
    #[error("the rotation's new key: {0}")]
    Key(#[from] KeyError),
    /// Rotations must be sorted by size.
    #[error("the rotations are not in the order of their sizes")]
    Order,
}

impl Rotation {
    /// The text to sign.
    pub fn text(&self) -> String {
        format!("{HEADER}\n{}\n{}\n{}\n", self.origin, self.size, self.key)
    }

    /// Reads a rotation of the journal `origin` that one of the `recovery` keys has signed.
    pub fn verify(note: &Note, origin: &Origin, recovery: &[VerifierKey]) -> Result<Self, RotationError> {
        note.verify(recovery)?;
        let mut lines = note.text().split('\n');
        let mut next = |number: usize| lines.next().ok_or(RotationError::Line(number));
        if next(1)? != HEADER {
            return Err(RotationError::Line(1));
        }
        if next(2)? != origin.as_str() {
            return Err(RotationError::Line(2));
        }
        let size = text::decimal(next(3)?).ok_or(RotationError::Line(3))?;
        let key = VerifierKey::parse(next(4)?)?;
        if key.kind() != KeyKind::Log || key.name() != origin.as_str() {
            return Err(RotationError::Line(4));
        }
        let rotation = Self { origin: origin.clone(), size, key };
        if rotation.text() == note.text() { Ok(rotation) } else { Err(RotationError::Line(5)) }
    }
}

/// The keys of a log over time: those of the trust file, and those to which rotations have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKeys {
    policy: Policy,
    rotations: Vec<Rotation>,
}

impl LogKeys {
    /// The keys of `policy`, which nothing has changed.
    pub fn unchanged(policy: &Policy) -> Self {
        Self { policy: policy.clone(), rotations: Vec::new() }
    }

    /// The keys of `policy`, changed by `rotations`, which have been verified and come in the order of their sizes.
    pub fn new(policy: &Policy, rotations: Vec<Rotation>) -> Result<Self, RotationError> {
        if rotations.windows(2).any(|pair| matches!(pair, [a, b] if a.size > b.size)) {
            return Err(RotationError::Order);
        }
        let policy = rotations.iter().fold(policy.clone(), |policy, rotation| policy.with_log(rotation.key.clone()));
        Ok(Self { policy, rotations })
    }

    /// The policy, with all keys of the log.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Checks a checkpoint as [`Policy::check`] does, and that its log's key is the one that holds at its size.
    pub fn check(&self, note: &Note) -> Result<Judgement<'_>, JudgementError> {
        let judgement = self.policy.check(note)?;
        let size = judgement.checkpoint.size;
        // A key holds from its own rotation to the next one; those that no rotation names, from the beginning.
        let place = self.rotations.iter().rposition(|rotation| rotation.key == *judgement.log);
        let since = place.and_then(|place| self.rotations.get(place)).map_or(0, |rotation| rotation.size);
        let until = self.rotations.get(place.map_or(0, |place| place + 1)).map_or(u64::MAX, |rotation| rotation.size);
        if (since..=until).contains(&size) {
            Ok(judgement)
        } else {
            Err(JudgementError::NotTheLog(judgement.checkpoint.origin))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::Checkpoint, ids::NodeHash, note::SigningKey};

    const ORIGIN: &str = "journal.example.net/2026";

    fn key(name: &str, seed: u8) -> SigningKey {
        SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap()
    }

    fn note(key: &SigningKey, text: &str) -> Note {
        Note::new(text, vec![key.sign(text).unwrap()]).unwrap()
    }

    #[test]
    fn a_key_holds_from_its_rotation_to_the_next() {
        let origin = Origin::new(ORIGIN).unwrap();
        let (first, second, third) = (key(ORIGIN, 1), key(ORIGIN, 2), key(ORIGIN, 3));
        let recovery = key("recovery", 9);
        let trust = format!("log {}\nrecovery {}\nquorum none\n", first.verifier(), recovery.verifier());
        let policy = Policy::parse(trust.as_bytes()).unwrap();
        let rotation = |size, key: &SigningKey, by: &SigningKey| {
            let text = Rotation { origin: origin.clone(), size, key: key.verifier().clone() }.text();
            Rotation::verify(&note(by, &text), &origin, policy.recovery())
        };
        assert!(rotation(10, &second, &first).is_err(), "an old key names no new one");
        let rotations = vec![rotation(10, &second, &recovery).unwrap(), rotation(20, &third, &recovery).unwrap()];
        let keys = LogKeys::new(&policy, rotations.clone()).unwrap();
        let holds = |key: &SigningKey, size| {
            let text = Checkpoint { origin: ORIGIN.to_owned(), size, root: NodeHash::new([5; 32]) }.text();
            keys.check(&note(key, &text)).is_ok()
        };
        for (key, sizes) in [(&first, 1..=10_u64), (&second, 10..=20), (&third, 20..=30)] {
            for size in 1..=30 {
                assert_eq!(holds(key, size), sizes.contains(&size), "{size}");
            }
        }
        assert!(LogKeys::new(&policy, rotations.into_iter().rev().collect()).is_err());
    }
}
