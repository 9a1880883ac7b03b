//! Whether to cosign. Knows no network and no clock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use sigillo_model::{
    add_checkpoint::{AddCheckpoint, AddCheckpointError},
    checkpoint::{Checkpoint, CheckpointError},
    note::{Note, NoteError, Signature, SigningKey, VerifierKey},
    proof::{ProofError, verify_consistency},
    tree,
};

use crate::{
    config::{Config, ConfigError},
    key_file::{self, KeyFileError},
    state::{Newest, StateDir, StateError, StateFile, origin_hash},
};

/// Why a witness can't begin.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// From the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// From the key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// From the folder of the state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key has another name.
    #[error("the configuration names the witness `{config}`, its key `{key}`: they must be the same")]
    Name {
        /// In the configuration.
        config: String,
        /// In the key.
        key: String,
    },
}

/// Why a checkpoint is not cosigned.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request is malformed.
    #[error(transparent)]
    Body(#[from] AddCheckpointError),
    /// The note's text is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The old size is beyond the new one.
    #[error("the old size {old} is greater than the checkpoint's {new}")]
    Backwards {
        /// Old size of the request.
        old: u64,
        /// Size of the checkpoint.
        new: u64,
    },
    /// No log of this origin is watched.
    #[error("this witness does not watch the log `{0}`")]
    UnknownLog(String),
    /// No key of the log has signed, or one has not signed this.
    #[error(transparent)]
    NotSigned(NoteError),
    /// The witness has cosigned another size last.
    #[error("the witness has cosigned size {0} last")]
    OtherSize(u64),
    /// The witness has cosigned another root of the same size: the log has forked.
    #[error("the witness has cosigned another root of size {0}")]
    OtherRoot(u64),
    /// The log does not continue what was cosigned, as far as the proof shows.
    #[error("the consistency proof does not hold: {0}")]
    Inconsistent(#[from] ProofError),
    /// The witness does not know what it has cosigned, or can't remember it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The checkpoint can't carry the cosignature.
    #[error(transparent)]
    Sign(NoteError),
}

/// A log that is watched.
#[derive(Debug)]
struct Watched {
    keys: Vec<VerifierKey>,
    file: StateFile,
    /// Held from reading the file until the new one is synced.
    turn: Mutex<()>,
}

/// The witness: its key, its logs and what it has cosigned.
#[derive(Debug)]
pub struct Witness {
    key: SigningKey,
    /// By origin.
    logs: BTreeMap<String, Watched>,
    /// Origins by their hash, as readers ask for them.
    by_hash: BTreeMap<String, String>,
    _state: StateDir,
}

impl Witness {
    /// Reads the key and opens the state.
    pub fn open(config: &Config) -> Result<Self, WitnessError> {
        let key = key_file::read(&config.key)?;
        if key.verifier().name() != config.name {
            let key = key.verifier().name().to_owned();
            return Err(WitnessError::Name { config: config.name.clone(), key });
        }
        let state = StateDir::open(&config.state_dir)?;
        let mut logs = BTreeMap::new();
        let mut by_hash = BTreeMap::new();
        for log in &config.logs {
            let (keys, file) = (log.verifiers()?, state.log(&log.origin));
            logs.insert(log.origin.clone(), Watched { keys, file, turn: Mutex::new(()) });
            by_hash.insert(origin_hash(&log.origin), log.origin.clone());
        }
        Ok(Self { key, logs, by_hash, _state: state })
    }

    /// The public key.
    pub fn key(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// Takes a request, `add-checkpoint` of the specification, and returns the cosignature. Blocks on the disk.
    pub fn add_checkpoint(&self, body: &[u8], unix_seconds: u64) -> Result<Signature, Refusal> {
        let AddCheckpoint { old_size, proof, checkpoint: note } = AddCheckpoint::parse(body)?;
        let new = Checkpoint::parse(note.text())?;
        let log = self.logs.get(&new.origin).ok_or_else(|| Refusal::UnknownLog(new.origin.clone()))?;
        note.verify(&log.keys).map_err(Refusal::NotSigned)?;
        if old_size > new.size {
            return Err(Refusal::Backwards { old: old_size, new: new.size });
        }

        // Nothing is kept in memory, so a thread that died with the lock leaves nothing half done.
        let turn = log.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (size, root) =
            log.file.load()?.map_or((0, tree::empty()), |newest| (newest.checkpoint.size, newest.checkpoint.root));
        if old_size != size {
            return Err(Refusal::OtherSize(size));
        }
        if new.size == size && new.root != root {
            return Err(Refusal::OtherRoot(size));
        }
        verify_consistency(size, &root, new.size, &new.root, &proof)?;

        let cosignature = self.key.cosign(note.text(), unix_seconds).map_err(Refusal::Sign)?;
        // Only what was verified is kept: the log's word and ours.
        let kept = log_signature(&note, &log.keys).into_iter().chain([cosignature.clone()]).collect();
        log.file.store(&Note::new(note.text(), kept).map_err(Refusal::Sign)?)?;
        drop(turn);
        Ok(cosignature)
    }

    /// The newest checkpoint that was cosigned of the log whose origin has this hash: SHA-256, lower-case hexadecimal.
    pub fn newest(&self, origin_hash: &str) -> Result<Option<Note>, StateError> {
        let Some(log) = self.by_hash.get(origin_hash).and_then(|origin| self.logs.get(origin)) else {
            return Ok(None);
        };
        Ok(log.file.load()?.map(|newest| newest.note))
    }

    /// What is remembered of each log: its size, 0 if nothing was cosigned yet.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, Result<u64, StateError>)> {
        let size = |newest: Option<Newest>| newest.map_or(0, |newest| newest.checkpoint.size);
        self.logs.iter().map(move |(origin, log)| (origin.as_str(), log.file.load().map(size)))
    }
}

/// The first signature of one of the log's keys.
fn log_signature(note: &Note, keys: &[VerifierKey]) -> Option<Signature> {
    let is_known =
        |signature: &&Signature| keys.iter().any(|key| key.name() == signature.name() && key.id() == signature.id());
    note.signatures().iter().find(is_known).cloned()
}

#[cfg(test)]
mod tests;
