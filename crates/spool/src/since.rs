//! What was appended since the last head, and when the next one is owed.

/// A head is owed after so many batches. The journal misses it after twice as many.
const BATCHES_MAX: u32 = 128;

/// What no head covers yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SinceHead {
    pub(crate) records: u64,
    batches: u32,
    bytes: u64,
}

impl SinceHead {
    /// A batch was appended, of so many records and so many bytes after compression.
    pub(crate) fn add(&mut self, records: u32, bytes: usize) {
        self.records = self.records.saturating_add(records.into());
        self.batches = self.batches.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether a head should cover it before anything else is appended.
    pub(crate) fn owes_head(&self, head_bytes: u64) -> bool {
        self.batches >= BATCHES_MAX || self.bytes >= head_bytes
    }
}
