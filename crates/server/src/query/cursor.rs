//! Where a search goes on: what `Done.cursor` holds. Opaque to clients.
//!
//! ```text
//! u8 version (2), u8 order (0 oldest first, 1 newest first), u64 from, u64 to: sequences still to be looked at
//! u64 snapshot: size of the journal when the search began
//! [8] first bytes of the SHA-256 of the filter without its times
//! 4 × (u8 whether there is one, u64 nanoseconds): the filter's times: since, until, received since, received until
//! ```

use std::ops::Range;

use prost::Message;
use sha2::{Digest, Sha256};
use sigillo_proto::v1;
use sigillo_query::Order;

const VERSION: u8 = 2;
#[cfg(test)]
const BYTES: usize = 70;

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
    /// The filter's times. They go with the cursor, for "two hours ago" is another time when the next page is asked for.
    pub(super) times: Times,
}

/// Since, until, received since, received until.
pub(super) type Times = [Option<u64>; 4];

/// What a cursor keeps of a filter's times.
pub(super) fn times(filter: &v1::Filter) -> Times {
    [filter.since_unix_nano, filter.until_unix_nano, filter.received_since_unix_nano, filter.received_until_unix_nano]
}

/// The filter with other times.
pub(super) fn with_times(filter: v1::Filter, times: Times) -> v1::Filter {
    let [since_unix_nano, until_unix_nano, received_since_unix_nano, received_until_unix_nano] = times;
    v1::Filter { since_unix_nano, until_unix_nano, received_since_unix_nano, received_until_unix_nano, ..filter }
}

/// What a cursor keeps of the rest of a filter.
pub(super) fn filter_mark(filter: &v1::Filter) -> [u8; 8] {
    let timeless = with_times(filter.clone(), Times::default());
    let digest: [u8; 32] = Sha256::digest(timeless.encode_to_vec()).into();
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
        let mut bytes = Vec::new();
        bytes.extend([VERSION, u8::from(self.newest_first)]);
        bytes.extend(self.remaining.start.to_be_bytes());
        bytes.extend(self.remaining.end.to_be_bytes());
        bytes.extend(self.snapshot.to_be_bytes());
        bytes.extend(self.filter);
        for time in self.times {
            bytes.push(u8::from(time.is_some()));
            bytes.extend(time.unwrap_or(0).to_be_bytes());
        }
        bytes
    }

    /// Reads what a client gives back.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let ([VERSION, order], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (from, rest) = rest.split_first_chunk::<8>()?;
        let (to, rest) = rest.split_first_chunk::<8>()?;
        let (snapshot, rest) = rest.split_first_chunk::<8>()?;
        let (filter, mut rest) = rest.split_first_chunk::<8>()?;
        let mut times = Times::default();
        for time in &mut times {
            let ([there], after) = rest.split_first_chunk::<1>()?;
            let (nanoseconds, after) = after.split_first_chunk::<8>()?;
            *time = match (there, u64::from_be_bytes(*nanoseconds)) {
                (0, 0) => None,
                (1, nanoseconds) => Some(nanoseconds),
                _ => return None,
            };
            rest = after;
        }
        if !rest.is_empty() {
            return None;
        }
        let cursor = Self {
            newest_first: match order {
                0 => false,
                1 => true,
                _ => return None,
            },
            remaining: u64::from_be_bytes(*from)..u64::from_be_bytes(*to),
            snapshot: u64::from_be_bytes(*snapshot),
            filter: *filter,
            times,
        };
        (cursor.remaining.start <= cursor.remaining.end && cursor.remaining.end <= cursor.snapshot).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_left_and_no_other_bytes_are_one() {
        let times = [Some(0), None, Some(u64::MAX), None];
        let cursor = Cursor { newest_first: true, remaining: 3..9, snapshot: 10, filter: [7; 8], times };
        let bytes = cursor.encode();
        assert_eq!((bytes.len(), Cursor::decode(&bytes)), (BYTES, Some(cursor.clone())));
        for length in 0..BYTES {
            assert_eq!(Cursor::decode(&bytes[..length]), None);
        }
        for (place, byte) in [(0, 1), (1, 2), (9, 10), (17, 11), (34, 0x80), (34, 2), (50, 1)] {
            let mut other = bytes.clone();
            other[place] = byte;
            assert_eq!(Cursor::decode(&other), None, "byte {place}");
        }
        assert_eq!(Cursor::decode(&[bytes, vec![0]].concat()), None);
    }
}
