//! Statements.
pub mod counters;

/// Stub.
pub fn original(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&[0x1a]).and_then(|rest| rest.get(1..))
}
