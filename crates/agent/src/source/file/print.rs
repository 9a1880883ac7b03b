//! By what the bytes of a file are recognized: sums of its beginning and of what stands before the place where reading goes on.
//! A remembered mark shows nothing of the lines themselves.

use serde::{Deserialize, Serialize};
use sigillo_model::entry::checksum;

/// Bytes of the beginning that are compared.
pub(super) const HEAD_BYTES: usize = 1_024;
/// Bytes before the place that are compared.
pub(super) const TAIL_BYTES: usize = 256;

type Sum = [u8; 8];

/// The beginning of a file: sums of its first 4, 16, 64, 256 and 1,024 bytes as far as there are more, and of all `length`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(super) struct Head {
    length: usize,
    sums: Vec<Sum>,
}

/// How a beginning compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Same,
    /// There are fewer bytes, and they are the first ones as far as that can be told.
    Shorter,
    Other,
}

impl Head {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
        Self { length: bytes.len(), sums: sizes(bytes.len()).filter_map(|size| sum(bytes, size)).collect() }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn fits(&self, bytes: &[u8]) -> Fit {
        let known = sizes(self.length).zip(&self.sums).filter(|(size, _)| *size <= bytes.len()).last();
        match known {
            None if self.length == 0 => Fit::Same,
            None => Fit::Other,
            Some((size, expected)) if sum(bytes, size) != Some(*expected) => Fit::Other,
            Some((size, _)) if size == self.length => Fit::Same,
            Some(_) => Fit::Shorter,
        }
    }
}

/// The sum of the bytes before a place, at most `TAIL_BYTES`.
pub(super) fn tail(bytes: &[u8]) -> String {
    hex::encode(checksum(bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default()))
}

fn sum(bytes: &[u8], size: usize) -> Option<Sum> {
    bytes.get(..size).map(checksum)
}

/// The lengths of which a head of `length` bytes has sums, least first.
fn sizes(length: usize) -> impl Iterator<Item = usize> {
    [4, 16, 64, 256, 1_024].into_iter().filter(move |size| *size < length).chain((length > 0).then_some(length))
}

/// As it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    length: usize,
    sums: String,
}

impl From<Head> for Written {
    fn from(head: Head) -> Self {
        Self { length: head.length, sums: hex::encode(head.sums.as_flattened()) }
    }
}

impl TryFrom<Written> for Head {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let bytes = hex::decode(&written.sums).map_err(|_| "sums are no hexadecimal digits")?;
        let (sums, rest) = bytes.as_chunks();
        if written.length > HEAD_BYTES || !rest.is_empty() || sums.len() != sizes(written.length).count() {
            return Err("sums don't fit the length");
        }
        Ok(Self { length: written.length, sums: sums.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_recognized_also_when_there_is_less_of_it() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1_500).collect();
        for length in [0, 1, 4, 5, 300, 1_024, 1_500] {
            let head = Head::of(&bytes[..length]);
            assert_eq!(head.fits(&bytes), Fit::Same, "{length}");
            let written = serde_json::to_string(&head).unwrap();
            assert_eq!(serde_json::from_str::<Head>(&written).unwrap(), head);
            for less in 0..length.min(HEAD_BYTES) {
                let expected = if less < 4 { Fit::Other } else { Fit::Shorter };
                assert_eq!(head.fits(&bytes[..less]), expected, "{less} of {length}");
            }
            if length > 0 {
                let mut other = bytes.clone();
                other[length.min(HEAD_BYTES) - 1] ^= 1;
                assert_eq!(head.fits(&other), Fit::Other, "{length}");
            }
        }
        assert!(serde_json::from_str::<Head>(r#"{"length":5,"sums":"00"}"#).is_err());
    }
}
