//! Marks: how far each source was read, by keys and in bytes that the sources choose.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, Bytes, TryGetError};

use crate::SpoolError;

/// Marks at most: twice as many as files are followed at once, for what else is read and what was followed before.
pub const MARKS_MAX: usize = 8_192;
/// Bytes of a mark's key at most.
pub const KEY_MAX_BYTES: usize = 4_096;
/// Bytes of a mark's value at most.
pub const VALUE_MAX_BYTES: usize = 4_096;
/// Bytes of all marks at most, as each segment's header repeats them.
pub const MARKS_MAX_BYTES: usize = 4 << 20;

/// Key to value.
pub type Marks = BTreeMap<Arc<str>, Bytes>;

/// The marks of a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    marks: Marks,
    bytes: usize,
}

fn bytes_of(key: &str, value: &[u8]) -> usize {
    4 + key.len() + value.len()
}

impl Table {
    /// With these marks, if they keep the bounds.
    pub(crate) fn new(marks: Marks) -> Result<Self, SpoolError> {
        let mut table = Self::default();
        let changes: Vec<(Arc<str>, Bytes)> = marks.into_iter().collect();
        table.check(&changes)?;
        table.apply(&changes);
        Ok(table)
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Whether the table would keep its bounds with these changes.
    pub(crate) fn check(&self, changes: &[(Arc<str>, Bytes)]) -> Result<(), SpoolError> {
        if changes.len() > MARKS_MAX {
            return Err(SpoolError::Mark("at most 8,192 change at once"));
        }
        let (mut more, mut bytes) = (0, 0);
        for (key, value) in changes {
            if key.is_empty() || key.len() > KEY_MAX_BYTES {
                return Err(SpoolError::Mark("a key has 1 to 4,096 bytes"));
            }
            if value.len() > VALUE_MAX_BYTES {
                return Err(SpoolError::Mark("a value has at most 4,096 bytes"));
            }
            // What goes is not counted against what comes: the sum is at most too great, and then looked at closely.
            more += usize::from(!value.is_empty() && !self.marks.contains_key(key));
            bytes += bytes_of(key, value);
        }
        if self.marks.len() + more <= MARKS_MAX && self.bytes + bytes <= MARKS_MAX_BYTES {
            return Ok(());
        }
        let mut after = self.clone();
        after.apply(changes);
        if after.marks.len() > MARKS_MAX {
            return Err(SpoolError::Mark("there are 8,192 marks at most: forget those of sources that are gone"));
        }
        if after.bytes > MARKS_MAX_BYTES || bytes > MARKS_MAX_BYTES {
            return Err(SpoolError::Mark("all marks have 4 MiB at most"));
        }
        Ok(())
    }

    /// What makes `other` of this: removals first, so that no bound is broken on the way.
    pub(crate) fn changes_to(&self, other: &Self) -> Vec<(Arc<str>, Bytes)> {
        let gone = self.marks.keys().filter(|key| !other.marks.contains_key(*key));
        let gone = gone.map(|key| (Arc::clone(key), Bytes::new()));
        let set = other.marks.iter().filter(|(key, value)| self.marks.get(*key) != Some(value));
        gone.chain(set.map(|(key, value)| (Arc::clone(key), value.clone()))).collect()
    }

    /// Applies changes that were checked; an empty value forgets its key.
    pub(crate) fn apply(&mut self, changes: &[(Arc<str>, Bytes)]) {
        for (key, value) in changes {
            let before = if value.is_empty() {
                self.marks.remove(key)
            } else {
                self.bytes += bytes_of(key, value);
                self.marks.insert(Arc::clone(key), value.clone())
            };
            self.bytes -= before.map_or(0, |before| bytes_of(key, &before));
        }
    }
}

/// Writes marks: `u16 count`, each `u16 length || key || u16 length || value`. All lengths are within their bounds.
pub(crate) fn encode<'a>(out: &mut Vec<u8>, marks: impl ExactSizeIterator<Item = (&'a Arc<str>, &'a Bytes)>) {
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    out.extend(short(marks.len()));
    for (key, value) in marks {
        out.extend(short(key.len()));
        out.extend_from_slice(key.as_bytes());
        out.extend(short(value.len()));
        out.extend_from_slice(value);
    }
}

/// Reads what [`encode`] wrote, to the end of the bytes.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<(Arc<str>, Bytes)>> {
    let count = usize::from(bytes.try_get_u16().ok()?);
    // Each has at least five bytes.
    if count > MARKS_MAX || count > bytes.len() / 5 {
        return None;
    }
    let mut marks = Vec::with_capacity(count);
    for _ in 0..count {
        let key = std::str::from_utf8(piece(&mut bytes).ok()?).ok()?;
        let value = piece(&mut bytes).ok()?;
        if key.is_empty() || key.len() > KEY_MAX_BYTES || value.len() > VALUE_MAX_BYTES {
            return None;
        }
        marks.push((Arc::from(key), Bytes::copy_from_slice(value)));
    }
    bytes.is_empty().then_some(marks)
}

fn piece<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], TryGetError> {
    let length = usize::from(bytes.try_get_u16()?);
    let (piece, rest) =
        bytes.split_at_checked(length).ok_or(TryGetError { requested: length, available: bytes.len() })?;
    *bytes = rest;
    Ok(piece)
}
