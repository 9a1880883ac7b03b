//! Lines and words of the text formats: numbers and base64, each with one spelling only.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::ids::NodeHash;

/// Reads a decimal number without sign, leading zeros or anything else.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

/// Standard base64 with padding, RFC 4648, section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads standard base64; other spellings of the same bytes (no padding, stray bits, white space) are refused.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Reads a hash in base64.
pub(crate) fn hash(text: &str) -> Option<NodeHash> {
    // Before decoding, so that a long line costs nothing.
    if text.len() == 44 { NodeHash::from_slice(&from_base64(text)?) } else { None }
}

/// The lines of a text, taken one by one, so that what follows them can be read in another way.
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, number: 0 }
    }

    /// The next line, without its newline; `None` if there is none, if it has no end, or if it is not UTF-8.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        self.number += 1;
        let (line, rest) = self.rest.split_at_checked(memchr::memchr(b'\n', self.rest)?)?;
        self.rest = rest.get(1..)?;
        std::str::from_utf8(line).ok()
    }

    /// Number of the line that was last asked for, from 1.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// What has not been taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "00", "01", "+1", "-1", " 1", "1 ", "0x1", "18446744073709551616", "1\n", "١"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(from_base64("AAE="), Some(vec![0, 1]));
        for bad in ["AAE", "AAF=", "AAE=\n", "AA E=", "AAE==", "_-8="] {
            assert_eq!(from_base64(bad), None, "{bad:?}");
        }
    }
}
