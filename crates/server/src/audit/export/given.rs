//! The checkpoint that an export is asked to be made against: one that an auditor has cosigned, say.

use sigillo_journal::{ReadError, Reader};
use sigillo_model::{checkpoint::Checkpoint, ids::Origin, note::Note, policy::Policy};
use tonic::Status;

use super::{Stop, counters::End};

/// A checkpoint of this log, by its signature.
#[derive(Debug)]
pub(super) struct Given {
    /// Records below it.
    pub(super) size: u64,
    checkpoint: Checkpoint,
    note: Note,
}

/// Reads the note of a request; `None` if there is none.
pub(super) fn given(bytes: &[u8], trust: &Policy, origin: &Origin) -> Result<Option<Given>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let wrong = |what: &dyn std::fmt::Display| Status::invalid_argument(format!("the given checkpoint: {what}"));
    let note = Note::parse(bytes).map_err(|error| wrong(&error))?;
    let checkpoint = trust.check(&note).map_err(|error| wrong(&error))?.checkpoint;
    if checkpoint.origin != origin.as_str() {
        return Err(wrong(&format!("it is of {}, this journal is {origin}", checkpoint.origin)));
    }
    if checkpoint.size == 0 {
        return Err(wrong(&"there is no record under it"));
    }
    Ok(Some(Given { size: checkpoint.size, checkpoint, note }))
}

impl Given {
    /// Holds it against the journal, and adds the cosignatures that are kept with it.
    pub(super) fn meet(self, reader: &Reader) -> Result<End, Stop> {
        let Self { size, checkpoint, mut note } = self;
        let refused = |what: &str| Stop::Refused(Status::failed_precondition(format!("the given checkpoint {what}")));
        match reader.root_at(size) {
            Ok(root) if root == checkpoint.root => (),
            Ok(_) => {
                return Err(refused(
                    "is signed by this log, and its root is not that of this journal: keep it, and have the journal verified",
                ));
            }
            Err(ReadError::Beyond { .. }) => return Err(refused("is of more records than this journal has")),
            Err(error) => return Err(error.into()),
        }
        let kept = reader.checkpoint_at_or_after(size)?.filter(|kept| kept.size == size);
        let kept = kept.and_then(|kept| Note::parse(&kept.note).ok()).filter(|kept| kept.text() == note.text());
        for signature in kept.iter().flat_map(Note::signatures) {
            let is_same = |other: &&sigillo_model::note::Signature| {
                (other.name(), other.id()) == (signature.name(), signature.id())
            };
            if note.signatures().iter().find(is_same).is_none() {
                // A note that has no room for more is as good as what it has.
                let _ = note.add(signature.clone());
            }
        }
        Ok(End { size, note: note.to_bytes(), proof: None })
    }
}
