//! How far an auditor has walked a journal, as it is kept between two walks.
//!
//! ```text
//! "sigillo audit 1\n"
//! u16 length of the origin || origin || u8 0, or 1 || hash of the note that it succeeds[32]
//! u64 size || chain value[32] || u64 receipt time
//! roots of the tree's full subtrees[32], the largest first: one for each bit that is set in the size
//! u32 sources, each: source[16] || u64 epoch || u64 next || batch hash[32] || u64 count       ascending
//! u32 tenants, each: tenant[16] || u64 count                                                  ascending
//! u32 changes of the log's key, each: u64 size || u16 length || verifier key                  in order
//! u32 length of the accepted checkpoint's note, 0: none || note
//! u64 checksum: the first 8 bytes of D("checksum", all before)
//! ```
//!
//! It is believed as it stands: the checksum is against rot, and the folder must be the auditor's own.

use std::{collections::HashMap, hash::Hash};

use crate::{
    cursor::{Cursor, Short},
    entry::checksum,
    ids::{BatchHash, ChainHash, Count, Epoch, NodeHash, NoteHash, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
    note::{NOTE_MAX_BYTES, Note, VerifierKey},
    rotation::Rotation,
    state::{JournalState, SourceState},
    tree::Frontier,
};

const MAGIC: &[u8; 16] = b"sigillo audit 1\n";

/// How far an auditor has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Where the walk stands.
    pub state: JournalState,
    /// Changes of the log's key that it has met.
    pub rotations: Vec<Rotation>,
    /// The checkpoint that was accepted last.
    pub accepted: Option<Note>,
}

/// Bytes that are not such a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Another version, or something else.
    #[error("it is not an audit's state of a version that this program knows")]
    Version,
    /// The checksum does not fit.
    #[error("its checksum does not fit: it was damaged")]
    Checksum,
    /// The bytes don't add up.
    #[error("its fields do not add up")]
    Layout,
}

impl From<Short> for SavedError {
    fn from(_: Short) -> Self {
        Self::Layout
    }
}

impl Saved {
    /// The bytes to keep.
    pub fn encode(&self) -> Vec<u8> {
        let Self { state, rotations, accepted } = self;
        let mut out = MAGIC.to_vec();
        put_short(&mut out, state.origin.as_str().as_bytes());
        match state.origin.predecessor() {
            None => out.push(0),
            Some(note) => {
                out.push(1);
                out.extend(note.as_bytes());
            }
        }
        out.extend(state.size.to_be_bytes());
        out.extend(state.chain.as_bytes());
        out.extend(state.receipt_time.get().to_be_bytes());
        state.tree.subtrees().iter().for_each(|root| out.extend(root.as_bytes()));
        put_count(&mut out, state.sources.len());
        for (id, source) in sorted(&state.sources, |id| *id.as_bytes()) {
            out.extend(id.as_bytes());
            out.extend(source.epoch.get().to_be_bytes());
            out.extend(source.next.get().to_be_bytes());
            out.extend(source.head.as_bytes());
            out.extend(source.count.get().to_be_bytes());
        }
        put_count(&mut out, state.tenants.len());
        for (id, count) in sorted(&state.tenants, |id| *id.as_bytes()) {
            out.extend(id.as_bytes());
            out.extend(count.get().to_be_bytes());
        }
        put_count(&mut out, rotations.len());
        for rotation in rotations {
            out.extend(rotation.size.to_be_bytes());
            put_short(&mut out, rotation.key.to_string().as_bytes());
        }
        let note = accepted.as_ref().map(Note::to_bytes).unwrap_or_default();
        put_count(&mut out, note.len());
        out.extend(note);
        let checksum = checksum(&out);
        out.extend(checksum);
        out
    }

    /// Reads what [`Saved::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        if !bytes.starts_with(MAGIC) {
            return Err(SavedError::Version);
        }
        let (body, stored) = bytes.split_last_chunk::<8>().ok_or(SavedError::Layout)?;
        if checksum(body) != *stored {
            return Err(SavedError::Checksum);
        }
        let mut cursor = Cursor::new(body);
        cursor.take(MAGIC.len())?;
        let origin = Origin::new(take_text(&mut cursor)?).map_err(|_| SavedError::Layout)?;
        let origin = match cursor.u8()? {
            0 => origin,
            1 => origin.after(NoteHash::new(cursor.array()?)),
            _ => return Err(SavedError::Layout),
        };
        let mut state = JournalState::genesis(origin.clone());
        state.size = cursor.u64()?;
        state.chain = ChainHash::new(cursor.array()?);
        state.receipt_time = ReceiptTime::new(cursor.u64()?);
        state.tree = Frontier::rebuild(state.size, |_, _| cursor.array().map(NodeHash::new))?;
        let mut last = None;
        for _ in 0..cursor.u32()? {
            let id = SourceId::new(follow(&mut last, cursor.array()?)?);
            let (epoch, next) = (Epoch::new(cursor.u64()?), SourceSeq::new(cursor.u64()?));
            let (head, count) = (BatchHash::new(cursor.array()?), Count::new(cursor.u64()?));
            state.sources.insert(id, SourceState { epoch, next, head, count });
        }
        let mut last = None;
        for _ in 0..cursor.u32()? {
            let id = TenantId::new(follow(&mut last, cursor.array()?)?);
            state.tenants.insert(id, Count::new(cursor.u64()?));
        }
        let mut rotations = Vec::new();
        for _ in 0..cursor.u32()? {
            let size = cursor.u64()?;
            let key = VerifierKey::parse(&take_text(&mut cursor)?).map_err(|_| SavedError::Layout)?;
            rotations.push(Rotation { origin: origin.clone(), size, key });
        }
        let accepted = match cursor.u32()? as usize {
            0 => None,
            length if length <= NOTE_MAX_BYTES => {
                Some(Note::parse(cursor.take(length)?).map_err(|_| SavedError::Layout)?)
            }
            _ => return Err(SavedError::Layout),
        };
        if cursor.remaining() == 0 { Ok(Self { state, rotations, accepted }) } else { Err(SavedError::Layout) }
    }
}

/// The id, if it is greater than the last one: none stands twice, and there is one order.
fn follow(last: &mut Option<[u8; 16]>, id: [u8; 16]) -> Result<[u8; 16], SavedError> {
    if last.replace(id) < Some(id) { Ok(id) } else { Err(SavedError::Layout) }
}

fn sorted<K: Eq + Hash, V, B: Ord>(map: &HashMap<K, V>, by: impl Fn(&K) -> B) -> Vec<(&K, &V)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_unstable_by_key(|(id, _)| by(id));
    pairs
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // Neither sources nor tenants nor a note come near four milliards.
    out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

/// Of an origin or a key: both are far shorter than 64 KiB.
fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(bytes);
}

fn take_text(cursor: &mut Cursor<'_>) -> Result<String, SavedError> {
    let length = usize::from(cursor.u16()?);
    String::from_utf8(cursor.take(length)?.to_vec()).map_err(|_| SavedError::Layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Checkpoint,
        note::{KeyKind, SigningKey},
        tree,
    };

    fn saved() -> Saved {
        let origin = Origin::new("log.example/1").unwrap().after(NoteHash::new([6; 32]));
        let mut state = JournalState::genesis(origin.clone());
        for number in 0..13_u8 {
            state.tree.push(tree::leaf(&[number]), |_, _, _| ());
            let head = BatchHash::new([number; 32]);
            let (epoch, next) = (Epoch::new(u64::from(number)), SourceSeq::new(7));
            let source = SourceState { epoch, next, head, count: Count::new(9) };
            state.sources.insert(SourceId::new([number; 16]), source);
            state.tenants.insert(TenantId::new([number; 16]), Count::new(u64::from(number)));
        }
        (state.size, state.chain, state.receipt_time) = (13, ChainHash::new([5; 32]), ReceiptTime::new(77));
        let key = SigningKey::from_seed(origin.as_str(), KeyKind::Log, &[3; 32]).unwrap();
        let text = Checkpoint { origin: origin.as_str().into(), size: 13, root: state.tree.root() }.text();
        let note = Note::new(text.clone(), vec![key.sign(&text).unwrap()]).unwrap();
        let rotation = Rotation { origin, size: 4, key: key.verifier().clone() };
        Saved { state, rotations: vec![rotation], accepted: Some(note) }
    }

    #[test]
    fn what_is_kept_is_had_again() {
        let saved = saved();
        assert_eq!(Saved::decode(&saved.encode()), Ok(saved.clone()));
        let begun = Saved { state: JournalState::genesis(saved.state.origin), rotations: Vec::new(), accepted: None };
        assert_eq!(Saved::decode(&begun.encode()), Ok(begun));
    }

    #[test]
    fn every_other_form_is_refused() {
        let bytes = saved().encode();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Saved::decode(&flipped).is_err(), "byte {at}");
            assert!(Saved::decode(&bytes[..at]).is_err(), "cut at {at}");
            // Also with a checksum that fits.
            let mut cut = bytes[..at].to_vec();
            cut.extend(checksum(&cut));
            assert!(Saved::decode(&cut).is_err() || at == bytes.len() - 8, "cut at {at}");
        }
    }
    #[test]
    fn ids_stand_once_and_in_order() {
        let saved = saved();
        let bytes = saved.encode();
        for (id, width) in [([3_u8; 16], 16 + 8 + 8 + 32 + 8), ([3; 16], 16 + 8)] {
            // The tenants come after the sources.
            let all = bytes.windows(16).enumerate().filter(|(_, window)| *window == id).map(|(at, _)| at);
            let at = if width == 72 { all.min() } else { all.max() }.unwrap();
            for other in [[2; 16], [1; 16], [4; 16], [200; 16]] {
                let mut changed = bytes[..bytes.len() - 8].to_vec();
                changed[at..at + 16].copy_from_slice(&other);
                changed.extend(checksum(&changed));
                assert_eq!(Saved::decode(&changed), Err(SavedError::Layout), "{other:?} at {at}");
            }
        }
    }
}
