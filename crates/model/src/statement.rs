//! Statements.
pub mod counters;

/// Stub.
pub fn original(content: &[u8]) -> Option<&[u8]> {
    let mut at = content.strip_prefix(&[0x1a])?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let (byte, rest) = at.split_first()?;
        at = rest;
        length |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte < &128 {
            return at.get(..length);
        }
    }
}
