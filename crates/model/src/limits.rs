//! What is taken at most. Every limit that a sender can meet is named in the Welcome message.

/// Bytes of one record: its parts together.
pub const RECORD_MAX_BYTES: usize = 1 << 20;
/// Records in a batch.
pub const BATCH_MAX_RECORDS: usize = 16_384;
/// Bytes of a batch's block before compression.
pub const BLOCK_MAX_BYTES: usize = 8 << 20;
/// Bytes of a batch's block after compression, so that an incompressible block of the greatest size still passes.
pub const COMPRESSED_MAX_BYTES: usize = BLOCK_MAX_BYTES + (64 << 10);
/// Bytes of one gRPC message.
pub const MESSAGE_MAX_BYTES: usize = COMPRESSED_MAX_BYTES + (64 << 10);
/// Attributes of one record, those inside lists and values included.
pub const ATTRIBUTES_MAX: usize = 1_024;
/// Levels to which the values of a record may be nested.
pub const NESTING_MAX: usize = 16;
/// Bytes of one short field: every text of the core and personal parts, and an attribute's key.
pub const FIELD_MAX_BYTES: usize = 4_096;
