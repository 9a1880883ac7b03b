//! Where a search goes on: what `Done.cursor` holds. Opaque to clients.
//!
//! ```text
//! u8 version (1), u8 order (0 oldest first, 1 newest first), u64 from, u64 to: sequences still to be looked at
//! u64 snapshot: size of the journal when the search began
//! [8] first bytes of the filter's SHA-256
//! ```

use std::ops::Range;

use prost::Message;
use sha2::{Digest, Sha256};
use sigillo_proto::v1;
use sigillo_query::Order;

const VERSION: u8 = 1;
const BYTES: usize = 34;

/// Where a search goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// From which end.
    pub(super) newest_first: bool,
    /// Sequences still to be looked at.
    pub(super) remaining: Range<u64>,
    /// Size of the journal when the search began.
    pub(super) snapshot: u64,
    /// Of the filter.
    pub(super) filter: [u8; 8],
}

/// What a cursor keeps of a filter.
pub(super) fn filter_mark(filter: &v1::Filter) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(filter.encode_to_vec()).into();
    let mut mark = [0; 8];
    mark.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    mark
}

impl Cursor {
    /// The order of the search.
    pub(super) fn order(&self) -> Order {
        if self.newest_first { Order::NewestFirst } else { Order::OldestFirst }
    }

    /// The bytes that a client keeps.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend([VERSION, u8::from(self.newest_first)]);
        bytes.extend(self.remaining.start.to_be_bytes());
        bytes.extend(self.remaining.end.to_be_bytes());
        bytes.extend(self.snapshot.to_be_bytes());
        bytes.extend(self.filter);
        bytes
    }

    /// Reads what a client gives back.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let ([VERSION, order], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (from, rest) = rest.split_first_chunk::<8>()?;
        let (to, rest) = rest.split_first_chunk::<8>()?;
        let (snapshot, rest) = rest.split_first_chunk::<8>()?;
        let cursor = Self {
            newest_first: match order {
                0 => false,
                1 => true,
                _ => return None,
            },
            remaining: u64::from_be_bytes(*from)..u64::from_be_bytes(*to),
            snapshot: u64::from_be_bytes(*snapshot),
            filter: rest.try_into().ok()?,
        };
        (cursor.remaining.start <= cursor.remaining.end && cursor.remaining.end <= cursor.snapshot).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_left_and_no_other_bytes_are_one() {
        let cursor = Cursor { newest_first: true, remaining: 3..9, snapshot: 10, filter: [7; 8] };
        let bytes = cursor.encode();
        assert_eq!((bytes.len(), Cursor::decode(&bytes)), (BYTES, Some(cursor.clone())));
        for length in 0..BYTES {
            assert_eq!(Cursor::decode(&bytes[..length]), None);
        }
        for (place, byte) in [(0, 2), (1, 2), (9, 10), (17, 11)] {
            let mut other = bytes.clone();
            other[place] = byte;
            assert_eq!(Cursor::decode(&other), None, "byte {place}");
        }
        assert_eq!(Cursor::decode(&[bytes, vec![0]].concat()), None);
    }
}
