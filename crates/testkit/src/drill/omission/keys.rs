//! Everybody's keys, and the trust file that names them.

use anyhow::Result;
use sigillo_model::{
    checkpoint::Checkpoint,
    ids::Origin,
    note::{KeyKind, Note, SigningKey},
    policy::Policy,
};

use super::journal::Journal;

/// When checkpoints are cosigned, seconds since 1970; also the verifier's time.
pub(super) const NOW_S: u64 = 1_772_442_000;

pub(super) struct Keys {
    log: SigningKey,
    witnesses: [SigningKey; 2],
    pub(super) auditor: SigningKey,
    /// Calls itself as the auditor, and is not in the trust file.
    pub(super) stranger: SigningKey,
    officers: [SigningKey; 2],
    pub(super) trust: String,
    pub(super) policy: Policy,
}

impl Keys {
    pub(super) fn new(origin: &Origin) -> Result<Self> {
        let key = |name: &str, kind, seed| SigningKey::from_seed(name, kind, &[seed; 32]);
        let log = key(origin.as_str(), KeyKind::Log, 1)?;
        let witnesses = [key("one.example/w", KeyKind::Cosigner, 2)?, key("two.example/w", KeyKind::Cosigner, 3)?];
        let auditor = key("auditor.example", KeyKind::Auditor, 4)?;
        let stranger = key("auditor.example", KeyKind::Auditor, 5)?;
        let officers = [key("officer-a", KeyKind::Log, 6)?, key("officer-b", KeyKind::Log, 7)?];
        let [one, two] = witnesses.each_ref().map(SigningKey::verifier);
        let [a, b] = officers.each_ref().map(SigningKey::verifier);
        let trust = format!(
            "log {}\nwitness one {one}\nwitness two {two}\ngroup both all one two\nquorum both\nauditor {}\nofficer {a}\nofficer {b}\n",
            log.verifier(),
            auditor.verifier(),
        );
        let policy = Policy::parse(trust.as_bytes())?;
        Ok(Self { log, witnesses, auditor, stranger, officers, trust, policy })
    }

    /// The checkpoint of a size, signed by the log and cosigned by both witnesses.
    pub(super) fn checkpoint(&self, journal: &Journal, size: u64) -> Result<Note> {
        let origin = journal.origin.as_str().to_owned();
        let text = Checkpoint { origin, size, root: journal.root(size) }.text();
        let mut note = Note::new(text.clone(), vec![self.log.sign(&text)?])?;
        for witness in &self.witnesses {
            note.add(witness.cosign(&text, NOW_S)?)?;
        }
        Ok(note)
    }

    /// An order that both officers have signed.
    pub(super) fn order(&self, text: &str) -> Result<Note> {
        let [a, b] = self.officers.each_ref().map(|officer| officer.sign(text));
        Ok(Note::new(text, vec![a?, b?])?)
    }
}
