//! A block: the records of a batch, laid out part by part so that like stands beside like, and compressed as one.
//!
//! ```text
//! u8  version (1)
//! u32 count
//! count x u8 bitmap of present parts
//! for each part j: u32 length of part j, for each record that has it
//! for each part j: bytes of part j, for each record that has it
//! ```

use std::ops::Range;

use zstd::zstd_safe;

use crate::{
    cursor::{Cursor, Short},
    limits::{BATCH_MAX_RECORDS, BLOCK_MAX_BYTES, RECORD_MAX_BYTES},
    record::{PART_BITS, Part, RecordRef},
};

/// Version of this layout.
pub const BLOCK_VERSION: u8 = 1;

/// Bytes that are not a block, or break a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes are not one zstd frame of the stated length.
    #[error("the block is not one zstd frame that holds the stated {stated} bytes")]
    Compression {
        /// Bytes that it should have held.
        stated: usize,
    },
    /// The stated length is beyond the limit.
    #[error("the block has {bytes} bytes before compression, at most {BLOCK_MAX_BYTES} are taken: cut smaller batches")]
    TooLarge {
        /// Stated bytes.
        bytes: usize,
    },
    /// The layout's version is not known.
    #[error("the block has version {0}, this program knows version {BLOCK_VERSION}")]
    Version(u8),
    /// There are no records, or too many.
    #[error("the block has {0} records, 1 to {BATCH_MAX_RECORDS} are taken")]
    Count(u32),
    /// The block ends early, or goes on after its end.
    #[error("the block's lengths do not add up")]
    Layout,
    /// A record without parts, or with parts that this version doesn't know.
    #[error("record {index} of the block has no known part")]
    Parts {
        /// Place in the block.
        index: usize,
    },
    /// A record is beyond the limit.
    #[error("record {index} of the block has {bytes} bytes, at most {RECORD_MAX_BYTES} are taken: split the line")]
    RecordTooLarge {
        /// Place in the block.
        index: usize,
        /// Bytes of its parts.
        bytes: usize,
    },
}

impl From<Short> for BlockError {
    fn from(_: Short) -> Self {
        Self::Layout
    }
}

/// A checked block, borrowed from its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    bitmaps: &'a [u8],
    lengths: [&'a [u8]; 3],
    parts: [&'a [u8]; 3],
}

impl<'a> Block<'a> {
    /// Checks every length and limit of `bytes`; afterwards reading can't fail.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BlockError> {
        let mut cursor = Cursor::new(bytes);
        let version = cursor.u8()?;
        if version != BLOCK_VERSION {
            return Err(BlockError::Version(version));
        }
        let count = cursor.u32()?;
        if count == 0 || count as usize > BATCH_MAX_RECORDS {
            return Err(BlockError::Count(count));
        }
        let bitmaps = cursor.take(count as usize)?;
        if let Some(index) = bitmaps.iter().position(|bits| *bits == 0 || bits & !PART_BITS != 0) {
            return Err(BlockError::Parts { index });
        }
        Self::columns(bitmaps, cursor)
    }

    /// As [`Block::parse`], of what a reduced entry keeps: its bytes are the lengths and parts alone, the bitmaps stand
    /// elsewhere, and a record may have no part. Only the three low bits of a bitmap are looked at.
    pub(crate) fn parse_kept(bitmaps: &'a [u8], bytes: &'a [u8]) -> Result<Self, BlockError> {
        Self::columns(bitmaps, Cursor::new(bytes))
    }

    fn columns(bitmaps: &'a [u8], mut cursor: Cursor<'a>) -> Result<Self, BlockError> {
        let mut lengths: [&[u8]; 3] = [&[]; 3];
        for (part, slot) in Part::ALL.into_iter().zip(&mut lengths) {
            let having = bitmaps.iter().filter(|bits| *bits >> part.number() & 1 == 1).count();
            *slot = cursor.take(having * 4)?;
        }
        let mut parts: [&[u8]; 3] = [&[]; 3];
        for (lengths, slot) in lengths.iter().zip(&mut parts) {
            let total: u64 = lengths.chunks_exact(4).map(|length| u64::from(read_u32(length))).sum();
            *slot = cursor.take(usize::try_from(total).map_err(|_| BlockError::Layout)?)?;
        }
        if cursor.remaining() != 0 {
            return Err(BlockError::Layout);
        }
        let block = Self { bitmaps, lengths, parts };
        match block.records().map(|record| record.length()).enumerate().find(|(_, bytes)| *bytes > RECORD_MAX_BYTES) {
            Some((index, bytes)) => Err(BlockError::RecordTooLarge { index, bytes }),
            None => Ok(block),
        }
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        // At most BATCH_MAX_RECORDS, checked by `parse`.
        u32::try_from(self.bitmaps.len()).unwrap_or(u32::MAX)
    }

    /// The records in order.
    pub fn records(&self) -> Records<'a> {
        Records { bitmaps: self.bitmaps, lengths: self.lengths, parts: self.parts }
    }

    /// All bytes of one part, those of one record after those of the other: for a first, coarse look.
    pub fn region(&self, part: Part) -> &'a [u8] {
        let [core, personal, content] = self.parts;
        match part {
            Part::Core => core,
            Part::Personal => personal,
            Part::Content => content,
        }
    }

    /// Where in [`Block::region`] each record's own bytes lie: the record's place in the block, and the range. In order;
    /// records without this part are left out.
    pub fn spans(&self, part: Part) -> impl Iterator<Item = (usize, Range<usize>)> + use<'a> {
        let [core, personal, content] = self.lengths;
        let lengths = match part {
            Part::Core => core,
            Part::Personal => personal,
            Part::Content => content,
        };
        let having = self.bitmaps.iter().enumerate().filter(move |(_, bits)| *bits >> part.number() & 1 == 1);
        let mut at = 0;
        having.zip(lengths.chunks_exact(4)).map(move |((index, _), length)| {
            let start = at;
            at += read_u32(length) as usize;
            (index, start..at)
        })
    }
}

/// The records of a block, in order.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bitmaps: &'a [u8],
    lengths: [&'a [u8]; 3],
    parts: [&'a [u8]; 3],
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        let (bits, bitmaps) = self.bitmaps.split_first()?;
        self.bitmaps = bitmaps;
        let mut parts = [None; 3];
        for (j, ((lengths, bytes), slot)) in self.lengths.iter_mut().zip(&mut self.parts).zip(&mut parts).enumerate() {
            if bits >> j & 1 == 1 {
                let (length, rest) = lengths.split_at_checked(4)?;
                *lengths = rest;
                let (part, rest) = bytes.split_at_checked(read_u32(length) as usize)?;
                *bytes = rest;
                *slot = Some(part);
            }
        }
        let [core, personal, content] = parts;
        Some(RecordRef { core, personal, content })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.bitmaps.len(), Some(self.bitmaps.len()))
    }
}

fn read_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Collects records into a block.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    bitmaps: Vec<u8>,
    lengths: [Vec<u8>; 3],
    parts: [Vec<u8>; 3],
}

/// The record does not fit into the block that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Seal this block and begin another.
    #[error("the block is full")]
    Full,
    /// The record breaks the limit by itself.
    #[error("a record has at most {RECORD_MAX_BYTES} bytes, this one has {0}")]
    RecordTooLarge(usize),
    /// The record has no part at all.
    #[error("a record has at least one part")]
    Empty,
}

impl BlockBuilder {
    /// Adds a record, or says why not; then the block is unchanged.
    pub fn push(&mut self, record: RecordRef<'_>) -> Result<(), PushError> {
        let length = record.length();
        if length > RECORD_MAX_BYTES {
            return Err(PushError::RecordTooLarge(length));
        }
        let bitmap = record.bitmap();
        if bitmap == 0 {
            return Err(PushError::Empty);
        }
        // 13 bytes: bitmap and three lengths.
        if self.bitmaps.len() == BATCH_MAX_RECORDS || self.bytes() + length + 13 > BLOCK_MAX_BYTES {
            return Err(PushError::Full);
        }
        self.bitmaps.push(bitmap);
        for ((part, lengths), bytes) in Part::ALL.into_iter().zip(&mut self.lengths).zip(&mut self.parts) {
            if let Some(part) = record.part(part) {
                // At most RECORD_MAX_BYTES, checked above.
                lengths.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.bitmaps.len()
    }

    /// Bytes that the block would have now.
    pub fn bytes(&self) -> usize {
        let columns = self.lengths.iter().chain(&self.parts).map(Vec::len).sum::<usize>();
        5 + self.bitmaps.len() + columns
    }

    /// The block's bytes; the builder is empty again.
    pub fn take(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(self.bytes());
        block.push(BLOCK_VERSION);
        block.extend(u32::try_from(self.bitmaps.len()).unwrap_or(u32::MAX).to_be_bytes());
        block.append(&mut self.bitmaps);
        self.lengths.iter_mut().chain(&mut self.parts).for_each(|column| block.append(column));
        block
    }
}

/// Compresses a block into one zstd frame that states its length.
pub fn compress(block: &[u8], level: i32) -> Vec<u8> {
    // Fails only when memory does; a Vec of the bound's size always suffices.
    zstd::bulk::compress(block, level).unwrap_or_default()
}

/// Inflates blocks, reusing its memory. Never writes more than the stated length, whatever the frame claims.
pub struct Inflater {
    context: zstd_safe::DCtx<'static>,
    buffer: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { context: zstd_safe::DCtx::create(), buffer: Vec::new() }
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

impl Inflater {
    /// The `stated` bytes inside `compressed`, which must be exactly one frame that states that length itself.
    pub fn inflate(&mut self, compressed: &[u8], stated: usize) -> Result<&[u8], BlockError> {
        if stated > BLOCK_MAX_BYTES {
            return Err(BlockError::TooLarge { bytes: stated });
        }
        let wrong = BlockError::Compression { stated };
        let one_frame = zstd_safe::find_frame_compressed_size(compressed) == Ok(compressed.len());
        let content = zstd_safe::get_frame_content_size(compressed).ok().flatten();
        if !one_frame || content != Some(stated as u64) {
            return Err(wrong);
        }
        self.buffer.clear();
        self.buffer.reserve(stated);
        let written = self.context.decompress(&mut self.buffer, compressed).map_err(|_| wrong)?;
        if written == stated { Ok(&self.buffer) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Record;

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let part = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40).prop_map(Into::into));
        let record = (part(), part(), part())
            .prop_map(|(core, personal, content)| Record { core, personal, content })
            .prop_filter("a record has a part", |record| record.as_ref().bitmap() != 0);
        proptest::collection::vec(record, 1..20)
    }

    fn build(records: &[Record]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for record in records {
            builder.push(record.as_ref()).unwrap();
        }
        let expected = builder.bytes();
        let block = builder.take();
        assert_eq!(block.len(), expected);
        block
    }

    proptest! {
        #[test]
        fn what_is_built_is_read(records in records()) {
            let block = build(&records);
            let read: Vec<Record> = Block::parse(&block).unwrap().records().map(Record::from).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn spans_lead_from_a_region_to_its_records(records in records()) {
            let block = build(&records);
            let block = Block::parse(&block).unwrap();
            for part in Part::ALL {
                let mut left: Vec<Option<&[u8]>> = records.iter().map(|record| record.as_ref().part(part)).collect();
                let mut at = 0;
                for (index, span) in block.spans(part) {
                    prop_assert_eq!(span.start, at);
                    at = span.end;
                    prop_assert_eq!(left[index].take(), Some(&block.region(part)[span]));
                }
                prop_assert_eq!(at, block.region(part).len());
                prop_assert!(left.iter().all(Option::is_none));
            }
        }

        #[test]
        fn compression_is_undone(records in records()) {
            let block = build(&records);
            let compressed = compress(&block, 1);
            let mut inflater = Inflater::default();
            prop_assert_eq!(inflater.inflate(&compressed, block.len()), Ok(block.as_slice()));
        }

        #[test]
        fn no_bytes_are_trusted(records in records(), at: prop::sample::Index, bit in 0..8, cut: prop::sample::Index) {
            let mut block = build(&records);
            let at = at.index(block.len());
            block[at] ^= 1_u8 << bit;
            if let Ok(parsed) = Block::parse(&block) {
                prop_assert_eq!(parsed.records().count(), parsed.count() as usize);
            }
            block.truncate(cut.index(block.len()));
            prop_assert!(Block::parse(&block).is_err() || block.len() > 6);
        }
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let bomb = compress(&vec![0; 100 << 20], 1);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&bomb, 100 << 20), Err(BlockError::TooLarge { bytes: 100 << 20 }));
        assert_eq!(inflater.inflate(&bomb, 1000), Err(BlockError::Compression { stated: 1000 }));
        assert!(inflater.buffer.capacity() < BLOCK_MAX_BYTES);
    }

    #[test]
    fn only_one_frame_is_taken() {
        let mut two = compress(b"abc", 1);
        two.extend(compress(b"def", 1));
        assert_eq!(Inflater::default().inflate(&two, 6), Err(BlockError::Compression { stated: 6 }));
        let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
        skippable.extend(compress(b"abc", 1));
        assert_eq!(Inflater::default().inflate(&skippable, 3), Err(BlockError::Compression { stated: 3 }));
    }

    #[test]
    fn limits_are_kept() {
        let mut builder = BlockBuilder::default();
        let large = vec![b'x'; RECORD_MAX_BYTES + 1];
        let record = |content| RecordRef { content: Some(content), ..RecordRef::default() };
        assert_eq!(builder.push(record(&large)), Err(PushError::RecordTooLarge(RECORD_MAX_BYTES + 1)));
        assert_eq!(builder.push(RecordRef::default()), Err(PushError::Empty));
        while builder.push(record(&large[1..])).is_ok() {}
        assert!(builder.bytes() <= BLOCK_MAX_BYTES && builder.count() == 7);
        assert!(Block::parse(&builder.take()).is_ok());
        assert_eq!(builder.count(), 0);
    }
}
