//! Reading a segment's frames one after the other, past what is damaged, and whether each continues what came before.

use std::{fs::File, io, os::unix::fs::FileExt};

use bytes::Bytes;
use sigillo_model::{head::SignedHead, ids::Epoch};

use crate::{
    Damage, Lost,
    frame::{Content, FrameHeader, HEADER_BYTES, SpooledBatch, payload},
    layout::{Header, Tip, segment_name},
    marks::Table,
    spool::Identity,
};

/// Bytes that are looked through at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What stands at a place.
#[derive(Debug)]
pub(crate) enum Step {
    /// A frame.
    Frame(Content),
    /// No frame, though there are bytes.
    Gap { offset: u64, next: Option<Next> },
}

/// A frame behind a gap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    pub(crate) offset: u64,
    /// How many bytes of the segment were durable when it was written.
    pub(crate) synced: u64,
    /// Where it ends.
    pub(crate) end: u64,
}

/// Goes through the frames of a segment.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    file: &'a File,
    number: u64,
    pub(crate) offset: u64,
    end: u64,
}

impl<'a> Scan<'a> {
    /// From `offset` to `end`.
    pub(crate) fn new(file: &'a File, number: u64, offset: u64, end: u64) -> Self {
        // No segment is larger; what is beyond can't be a frame.
        Self { file, number, offset, end: end.min(u64::from(u32::MAX)) }
    }

    /// What stands at the present place, which moves on behind it. `None` at the end.
    pub(crate) fn step(&mut self) -> io::Result<Option<Step>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        if let Some((header, content)) = self.frame(self.offset)? {
            self.offset += header.frame_bytes();
            return Ok(Some(Step::Frame(content)));
        }
        let offset = self.offset;
        let next = self.find(offset + 1)?;
        self.offset = next.map_or(self.end, |next| next.offset);
        Ok(Some(Step::Gap { offset, next }))
    }

    /// The frame that stands there, if there is a whole one.
    fn frame(&self, offset: u64) -> io::Result<Option<(FrameHeader, Content)>> {
        let mut bytes = [0; HEADER_BYTES];
        if offset.saturating_add(HEADER_BYTES as u64) > self.end {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, offset)?;
        let Some(header) = FrameHeader::parse(&bytes, self.number, offset) else { return Ok(None) };
        self.whole(offset, header)
    }

    fn whole(&self, offset: u64, header: FrameHeader) -> io::Result<Option<(FrameHeader, Content)>> {
        if offset.saturating_add(header.frame_bytes()) > self.end {
            return Ok(None);
        }
        let content = read_frame(self.file, offset, header)?;
        Ok(content.map(|content| (header, content)))
    }

    /// The first frame at or after `from`.
    pub(crate) fn find(&self, from: u64) -> io::Result<Option<Next>> {
        let mut at = from;
        let mut chunk = vec![0; CHUNK_BYTES];
        while at.saturating_add(HEADER_BYTES as u64) <= self.end {
            let there = usize::try_from(self.end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let Some(bytes) = chunk.get_mut(..there) else { break };
            self.file.read_exact_at(bytes, at)?;
            for (offset, window) in (at..).zip(bytes.windows(HEADER_BYTES)) {
                let header = window.first_chunk().and_then(|bytes| FrameHeader::parse(bytes, self.number, offset));
                if let Some(header) = header
                    && self.whole(offset, header)?.is_some()
                {
                    let end = offset.saturating_add(header.frame_bytes());
                    return Ok(Some(Next { offset, synced: header.synced, end }));
                }
            }
            at += (there - HEADER_BYTES + 1) as u64;
        }
        Ok(None)
    }
}

/// Reads a whole frame; `None` if its checksum does not hold or its payload is none. The header was checked, and the frame lies
/// within the file: as much memory is taken as there are bytes.
pub(crate) fn read_frame(file: &File, offset: u64, header: FrameHeader) -> io::Result<Option<Content>> {
    let mut bytes = vec![0; usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, offset)?;
    if payload(&bytes).is_none() {
        return Ok(None);
    }
    Ok(Content::decode(header.kind, &Bytes::from(bytes)))
}

/// Follows the chain through segments and frames, and notes what does not fit.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) identity: Identity,
    pub(crate) epoch: Epoch,
    pub(crate) tip: Tip,
    pub(crate) marks: Table,
    pub(crate) damage: Damage,
}

impl Walk {
    /// Begins with the first segment.
    pub(crate) fn new(header: Header) -> Self {
        let Header { identity, epoch, tip, marks, .. } = header;
        Self { identity, epoch, tip, marks, damage: Damage::default() }
    }

    /// Comes to the header of the next segment, which is believed from there on.
    pub(crate) fn header(&mut self, header: Header) {
        let fits = header.identity == self.identity
            && header.epoch == self.epoch
            && header.tip == self.tip
            && header.marks == self.marks;
        if !fits {
            let name = segment_name(header.number);
            self.damage.find(format!("{name} does not continue the segment before it"));
            if header.epoch == self.epoch && header.tip.next > self.tip.next {
                self.lost(Some(header.tip.next));
            }
        }
        let Header { identity, epoch, tip, marks, .. } = header;
        (self.identity, self.epoch, self.tip, self.marks) = (identity, epoch, tip, marks);
    }

    fn lost(&mut self, to: Option<sigillo_model::ids::SourceSeq>) {
        self.damage.lose(Lost { epoch: self.epoch, from: self.tip.next, to });
    }

    /// Everything from here on is missing.
    pub(crate) fn lost_end(&mut self) {
        self.lost(None);
    }

    /// Comes to a batch; false if it is none of this chain, or was there before.
    pub(crate) fn batch(&mut self, spooled: &SpooledBatch, what: &dyn Fn() -> String) -> bool {
        let SpooledBatch { batch, changes, .. } = spooled;
        let fits = batch.epoch == self.epoch && batch.first == self.tip.next && batch.previous == self.tip.hash;
        if !fits {
            self.damage.find(format!("{} does not continue the batch before it", what()));
            if batch.epoch != self.epoch || batch.first < self.tip.next {
                return false;
            }
            if batch.first > self.tip.next {
                self.lost(Some(batch.first));
            }
        }
        (self.tip.next, self.tip.hash) = (batch.end(), batch.hash);
        self.changes(changes, what);
        true
    }

    /// Comes to a head.
    pub(crate) fn head(&mut self, head: &SignedHead, what: &dyn Fn() -> String) {
        let fits = head.origin.as_str() == self.identity.origin.as_str()
            && head.source == self.identity.source
            && head.epoch == self.epoch
            && head.next == self.tip.next
            && head.batch_hash == self.tip.hash
            && head.time_ns > self.tip.head_time_ns;
        if !fits {
            self.damage.find(format!("{} does not attest the batches before it", what()));
            if head.epoch == self.epoch && head.next > self.tip.next {
                self.lost(Some(head.next));
                (self.tip.next, self.tip.hash) = (head.next, head.batch_hash);
            }
        }
        self.tip.key = head.next_key;
        self.tip.head_time_ns = self.tip.head_time_ns.max(head.time_ns);
    }

    /// Comes to changed marks.
    pub(crate) fn changes(&mut self, changes: &crate::frame::Changes, what: &dyn Fn() -> String) {
        if self.marks.check(changes).is_ok() {
            self.marks.apply(changes);
        } else {
            self.damage.find(format!("{} has marks beyond all bounds", what()));
        }
    }
}
