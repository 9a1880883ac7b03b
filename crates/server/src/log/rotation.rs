//! Which key may sign: one of the trust file's, or the newest one that a rotation in the journal names. A rotation is a note of the
//! recovery key, which lies offline; an old key never names a new one.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use prost::Message;
use sigillo_journal::{ReadError, Reader};
use sigillo_model::{
    block::{Block, Inflater},
    ids::Origin,
    note::{NOTE_MAX_BYTES, Note, VerifierKey},
    policy::Policy,
    rotation::{HEADER, LogKeys, Rotation},
};
use sigillo_proto::v1;

use crate::{
    error::ServerError,
    own::{self, Event, Own},
};

/// The rotations that the journal holds, by size, each once. Blocks.
fn recorded(reader: &Reader, origin: &Origin, recovery: &[VerifierKey]) -> Result<Vec<Rotation>, ReadError> {
    let mut inflater = Inflater::default();
    let mut rotations = Vec::new();
    for stored in reader.source_entries_newest_first(own::source()) {
        let stored = stored?;
        let entry = stored.entry()?;
        // As with the register: a block that this version can't read holds none that it knows.
        let Ok(bytes) = inflater.inflate(entry.compressed, entry.block_bytes as usize) else { continue };
        let Ok(block) = Block::parse(bytes) else { continue };
        for content in block.records().filter_map(|record| record.content) {
            let Ok(content) = v1::ContentPart::decode(content) else { continue };
            if !content.original.starts_with(HEADER.as_bytes()) {
                continue;
            }
            let note = Note::parse(&content.original).ok();
            match note.and_then(|note| Rotation::verify(&note, origin, recovery).ok()) {
                Some(rotation) if !rotations.contains(&rotation) => rotations.push(rotation),
                Some(_) => {}
                None => {
                    tracing::warn!("the journal holds a rotation that the recovery key has not signed: not followed");
                }
            }
        }
    }
    rotations.sort_by_key(|rotation| rotation.size);
    Ok(rotations)
}

/// Records the rotations of `files` that are new, and returns the trust file with every key that the journal's rotations name.
/// Refuses `key` if it is not the one to sign with.
pub(crate) async fn admit(
    trust: Policy,
    path: &Path,
    files: &[PathBuf],
    key: &VerifierKey,
    reader: Reader,
    own: &Own,
) -> Result<Policy, ServerError> {
    let unfit = |problem: String| ServerError::Trust { path: path.to_owned(), problem };
    let origin = reader.origin().clone();
    let recovery = trust.recovery().to_vec();
    let mut rotations = if recovery.is_empty() {
        Vec::new()
    } else {
        let (origin, recovery) = (origin.clone(), recovery.clone());
        tokio::task::spawn_blocking(move || recorded(&reader, &origin, &recovery)).await??
    };
    for file in files {
        let text = read(file).map_err(ServerError::file(file))?;
        let wrong = |problem: String| ServerError::Trust { path: file.clone(), problem };
        let note = Note::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let rotation = Rotation::verify(&note, &origin, &recovery).map_err(|error| wrong(error.to_string()))?;
        if rotations.contains(&rotation) {
            continue;
        }
        let event = Event::new("key.rotated")
            .warning()
            .body(format!("from size {} on, checkpoints are signed with another key", rotation.size))
            .text("key", rotation.key.to_string())
            .original(text);
        own.record(event).await?;
        rotations.push(rotation);
    }
    rotations.sort_by_key(|rotation| rotation.size);
    let newest = rotations.last().map(|rotation| rotation.key.clone());
    if newest.as_ref().is_some_and(|newest| newest != key) {
        return Err(unfit(
            "a rotation in the journal names another key than the one that would sign: give that one in [checkpoint] key".into(),
        ));
    }
    if newest.is_none() && !trust.logs().iter().any(|log| log.key == *key) {
        return Err(unfit(format!(
            "neither it nor a rotation in the journal names the key that would sign: nobody could verify anything. Add the line \
             `log {key}`, or, if the log has signed with another key before, have the recovery key sign a rotation"
        )));
    }
    let keys = LogKeys::new(&trust, rotations).map_err(|error| unfit(error.to_string()))?;
    Ok(keys.policy().clone())
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(NOTE_MAX_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
