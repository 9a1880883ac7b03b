//! Conversions of a head.

use sigillo_model::ids::{NameError, NoteHash, Origin};

use crate::v1;

/// The origin of a head, with what its journal succeeds: a walk from the first record begins with the genesis value of both.
pub fn head_origin(head: &v1::Head) -> Result<Origin, NameError> {
    let origin = Origin::new(head.origin.as_str())?;
    if head.predecessor.is_empty() {
        return Ok(origin);
    }
    NoteHash::from_slice(&head.predecessor).map(|note| origin.after(note)).ok_or(NameError::Hex(64))
}
