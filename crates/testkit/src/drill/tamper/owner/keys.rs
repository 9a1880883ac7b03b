//! Everybody's keys. The owner of the server has the log's; the others are what the owner lacks.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use sigillo_model::{
    checkpoint::Checkpoint,
    ids::{NodeHash, Origin},
    note::{KeyKind, Note, Signature, SigningKey},
    statement::{Act, Order},
};

use super::Without;

/// Name of the witness whose key the drill holds, in the trust file. The other one, `w1`, is a process.
const WITNESS: &str = "w2";
/// Name of its key.
const WITNESS_NAME: &str = "witness.invalid/2";
/// Where the time stands in a cosignature, after the key's id.
const COSIGNED_TIME: std::ops::Range<usize> = 4..12;

#[derive(Debug)]
pub(super) struct Keys {
    pub(super) origin: Origin,
    /// The owner has it.
    pub(super) log: SigningKey,
    /// What the recovery key names next.
    pub(super) next_log: SigningKey,
    /// A key that the owner makes.
    pub(super) strange_log: SigningKey,
    pub(super) witness: SigningKey,
    /// Another key of the same name, which the owner makes.
    pub(super) strange_witness: SigningKey,
    pub(super) recovery: SigningKey,
    pub(super) officers: Vec<SigningKey>,
    /// Of people who are no officers.
    pub(super) strangers: Vec<SigningKey>,
}

impl Keys {
    pub(super) fn new(origin: &Origin, random: &mut ChaCha12Rng) -> Result<Self> {
        let mut key = |name: &str, kind| SigningKey::from_seed(name, kind, &random.random());
        Ok(Self {
            origin: origin.clone(),
            log: key(origin.as_str(), KeyKind::Log)?,
            next_log: key(origin.as_str(), KeyKind::Log)?,
            strange_log: key(origin.as_str(), KeyKind::Log)?,
            witness: key(WITNESS_NAME, KeyKind::Cosigner)?,
            strange_witness: key(WITNESS_NAME, KeyKind::Cosigner)?,
            recovery: key("recovery", KeyKind::Log)?,
            officers: ["ada", "ben", "eva"]
                .map(|name| key(name, KeyKind::Log))
                .into_iter()
                .collect::<Result<_, _>>()?,
            // Two of them call themselves as officers do.
            strangers: ["ada", "ben", "mallory"]
                .map(|name| key(name, KeyKind::Log))
                .into_iter()
                .collect::<Result<_, _>>()?,
        })
    }

    /// The trust file, which asks for one of two witnesses.
    pub(super) fn trust(&self, live_witness: &str, without: Option<Without>) -> String {
        let recovery = match without {
            Some(Without::Recovery) => String::new(),
            _ => format!("recovery {}\n", self.recovery.verifier()),
        };
        let line = |officer: &SigningKey| format!("officer {}\n", officer.verifier());
        let officers = match without {
            Some(Without::Officers) => String::new(),
            _ => self.officers.iter().map(line).collect::<Vec<_>>().concat(),
        };
        let quorum = if without == Some(Without::Quorum) { "none" } else { "one" };
        let (log, witness) = (self.log.verifier(), self.witness.verifier());
        format!(
            "log {log}\n{recovery}{officers}{live_witness}witness {WITNESS} {witness}\n\
             group one any w1 {WITNESS}\nquorum {quorum}\n"
        )
    }

    pub(super) fn checkpoint(&self, size: u64, root: NodeHash) -> String {
        Checkpoint { origin: self.origin.as_str().to_owned(), size, root }.text()
    }

    /// What the owner can make: a checkpoint that the log's key has signed, and a key that only has a witness's name.
    pub(super) fn signed(&self, size: u64, root: NodeHash, now: u64) -> Result<Note> {
        let mut note = signed_by(&self.log, &self.checkpoint(size, root))?;
        self.cosign_falsely(&mut note, now)?;
        Ok(note)
    }

    /// Adds a fresh cosignature that only has a witness's name.
    pub(super) fn cosign_falsely(&self, note: &mut Note, now: u64) -> Result<()> {
        Ok(note.add(self.strange_witness.cosign(note.text(), now)?)?)
    }

    /// An order with these signatures under it.
    pub(super) fn order(&self, act: &Act, signers: &[&SigningKey]) -> Result<Vec<u8>> {
        let text = Order::text(&self.origin, act);
        let signatures = signers.iter().map(|key| key.sign(&text)).collect::<Result<Vec<Signature>, _>>()?;
        Ok(Note::new(text, signatures)?.to_bytes())
    }

    /// As two officers sign it.
    pub(super) fn lawful_order(&self, act: &Act) -> Result<Vec<u8>> {
        self.order(act, &self.officers.iter().take(2).collect::<Vec<_>>())
    }
}

pub(super) fn signed_by(key: &SigningKey, text: &str) -> Result<Note> {
    Ok(Note::new(text, vec![key.sign(text)?])?)
}

/// The same note, with another time in the cosignature of the witness whose key the drill holds.
pub(super) fn at_another_time(note: &Note, time: u64) -> Result<Note> {
    let moved = note.signatures().iter().map(|signature| {
        let line = signature.to_string();
        let (start, encoded) = line.trim_end().rsplit_once(' ').context("a signature without bytes")?;
        if signature.name() != WITNESS_NAME {
            return Ok(signature.clone());
        }
        let mut bytes = BASE64_STANDARD.decode(encoded)?;
        bytes.get_mut(COSIGNED_TIME).context("a cosignature without time")?.copy_from_slice(&time.to_be_bytes());
        let line = format!("{start} {}", BASE64_STANDARD.encode(bytes));
        Signature::parse(&line).context("this is no signature")
    });
    Ok(Note::new(note.text(), moved.collect::<Result<_>>()?)?)
}
