//! Reading what is durable, beside the spool and on any thread.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sigillo_model::{
    batch::Batch,
    ids::{Epoch, SourceSeq},
};

use crate::{
    SpoolError,
    frame::{self, Content, FrameHeader, HEADER_BYTES, Kind, NUMBERS_BYTES},
    layout::Header,
    scan::read_frame,
    shared::{Known, Shared, View},
};

/// What a sender sends, in the order in which it was spooled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A batch.
    Batch(Batch),
    /// A signed head.
    Head {
        /// The note.
        note: Bytes,
        /// Its time, nanoseconds since 1970 UTC.
        time_ns: u64,
    },
}

/// Reads batches and heads, with files of its own. Holds one frame at a time.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    at: Option<At>,
}

/// Where a reader is.
#[derive(Debug)]
struct At {
    generation: u64,
    segment: Open,
    offset: u64,
    epoch: Epoch,
    /// The next record that is wanted.
    from: SourceSeq,
    /// Heads up to this time are not wanted.
    head_time_ns: u64,
}

/// A segment, open for reading.
#[derive(Debug)]
struct Open {
    number: u64,
    path: PathBuf,
    file: File,
}

impl Open {
    fn new(shared: &Shared, known: &Known) -> io::Result<Self> {
        let path = shared.segment(known.number);
        Ok(Self { number: known.number, file: File::open(&path)?, path })
    }

    fn rotten(&self, offset: u64) -> SpoolError {
        SpoolError::Rotten { segment: self.number, offset }
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, at: None }
    }

    /// Places the reader before record `seq` of `epoch`; heads up to the time `head_time_ns` are passed over.
    pub fn seek(&mut self, epoch: Epoch, seq: SourceSeq, head_time_ns: u64) -> Result<(), SpoolError> {
        self.at = None;
        let (generation, segment, offset) = open(&self.shared, |view| {
            if epoch != view.epoch || seq < view.first() || seq > view.next {
                return Err(view.not_here(epoch, seq));
            }
            let below = |known: &Known| known.first <= seq && known.head_time_ns <= head_time_ns;
            // At worst the first one: what is older than it is not here.
            Ok(view.segments.partition_point(below).saturating_sub(1))
        })?;
        self.at = Some(At { generation, segment, offset, epoch, from: seq, head_time_ns });
        Ok(())
    }

    /// The next batch or head that is durable; `None` if there is none yet.
    #[allow(clippy::should_implement_trait, reason = "it fails, and more may come after the end")]
    pub fn next(&mut self) -> Result<Option<Frame>, SpoolError> {
        let Some(at) = &mut self.at else {
            let view = self.shared.view();
            return Err(view.not_here(view.epoch, view.next));
        };
        loop {
            let Some(limit) = at.limit(&self.shared)? else { return Ok(None) };
            let Some(header) = at.header(limit)? else { continue };
            let offset = at.offset;
            if at.passes_over(header)? {
                at.offset += header.frame_bytes();
                continue;
            }
            let content = read_frame(&at.segment.file, offset, header).map_err(SpoolError::io(&at.segment.path))?;
            let rotten = at.segment.rotten(offset);
            at.offset += header.frame_bytes();
            match content.ok_or(rotten)? {
                Content::Batch(spooled) => {
                    let batch = spooled.batch;
                    if batch.epoch != at.epoch || batch.first != at.from {
                        return Err(at.segment.rotten(offset));
                    }
                    at.from = batch.end();
                    return Ok(Some(Frame::Batch(batch)));
                }
                Content::Head { head, note } if head.time_ns > at.head_time_ns => {
                    at.head_time_ns = head.time_ns;
                    return Ok(Some(Frame::Head { note, time_ns: head.time_ns }));
                }
                Content::Head { .. } | Content::Marks(_) => {}
            }
        }
    }

    /// As [`crate::Spool::key_after`].
    pub fn key_after(&self, head_time_ns: u64) -> Result<[u8; 32], SpoolError> {
        key_after(&self.shared, head_time_ns)
    }
}

impl At {
    /// Up to where the present segment may be read. At its end the reader goes on to the next one; `None` if there is none.
    fn limit(&mut self, shared: &Shared) -> Result<Option<u64>, SpoolError> {
        loop {
            let view = shared.view();
            if view.generation != self.generation {
                return Err(SpoolError::Moved);
            }
            let limit = match view.find(self.segment.number) {
                Some(known) => known.bytes,
                // Released and deleted, and whole as long as it is open here.
                None => self.segment.file.metadata().map_err(SpoolError::io(&self.segment.path))?.len(),
            };
            if self.offset < limit {
                return Ok(Some(limit));
            }
            // What lies between was released, too.
            let number = self.segment.number;
            let Some(next) = view.segments.iter().find(|known| known.number > number) else { return Ok(None) };
            match Open::new(shared, next) {
                Ok(segment) => (self.segment, self.offset) = (segment, next.header_bytes),
                // Released since: segments leave the view before the folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(SpoolError::io(&shared.segment(next.number))(error)),
            }
        }
    }

    /// The header of the frame at the present place, which lies whole below `limit`.
    fn header(&mut self, limit: u64) -> Result<Option<FrameHeader>, SpoolError> {
        let rotten = self.segment.rotten(self.offset);
        if self.offset.saturating_add(HEADER_BYTES as u64) > limit {
            return Err(rotten);
        }
        let mut bytes = [0; HEADER_BYTES];
        self.segment.file.read_exact_at(&mut bytes, self.offset).map_err(|error| self.cut_off(error))?;
        let header = FrameHeader::parse(&bytes, self.segment.number, self.offset)
            .filter(|header| self.offset.saturating_add(header.frame_bytes()) <= limit);
        header.map(Some).ok_or(rotten)
    }

    /// Whether a frame holds a batch that is not wanted: those are not read whole.
    fn passes_over(&self, header: FrameHeader) -> Result<bool, SpoolError> {
        if header.kind == Kind::Marks {
            return Ok(true);
        }
        if header.kind != Kind::Batch || header.length < NUMBERS_BYTES {
            return Ok(false);
        }
        let mut bytes = [0; NUMBERS_BYTES];
        let place = self.offset + HEADER_BYTES as u64;
        self.segment.file.read_exact_at(&mut bytes, place).map_err(|error| self.cut_off(error))?;
        let (first, end) = frame::numbers(&bytes).ok_or_else(|| self.segment.rotten(self.offset))?;
        if first < self.from && end > self.from {
            // Between the records of one batch.
            return Err(SpoolError::NotHere {
                asked_epoch: self.epoch,
                asked: self.from,
                epoch: self.epoch,
                first: end,
                next: end,
            });
        }
        Ok(end <= self.from)
    }

    /// A file that is shorter than it was.
    fn cut_off(&self, error: io::Error) -> SpoolError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            self.segment.rotten(self.offset)
        } else {
            SpoolError::io(&self.segment.path)(error)
        }
    }
}

/// Opens the segment that `choose` names by its place among the retained ones: the view's generation, the file, and where its
/// frames begin.
fn open(shared: &Shared, choose: impl Fn(&View) -> Result<usize, SpoolError>) -> Result<(u64, Open, u64), SpoolError> {
    let view = shared.view();
    let known = choose(&view).map(|index| view.segments.get(index))?;
    let known = known.ok_or_else(|| view.not_here(view.epoch, view.next))?;
    // Segments leave the view before the folder, and the view is held.
    let segment = Open::new(shared, known).map_err(SpoolError::io(&shared.segment(known.number)))?;
    Ok((view.generation, segment, known.header_bytes))
}

/// The public key that signs the first head after a time.
pub(crate) fn key_after(shared: &Shared, head_time_ns: u64) -> Result<[u8; 32], SpoolError> {
    let (generation, segment, offset) = open(shared, |view| {
        Ok(view.segments.partition_point(|known| known.head_time_ns <= head_time_ns).saturating_sub(1))
    })?;
    let mut key = first_key(&segment)?;
    let (epoch, from) = (shared.view().epoch, SourceSeq::new(u64::MAX));
    let mut at = At { generation, segment, offset, epoch, from, head_time_ns: 0 };
    while let Some(limit) = at.limit(shared)? {
        let Some(header) = at.header(limit)? else { continue };
        let offset = at.offset;
        at.offset += header.frame_bytes();
        if header.kind != Kind::Head {
            continue;
        }
        let content = read_frame(&at.segment.file, offset, header).map_err(SpoolError::io(&at.segment.path))?;
        let Some(Content::Head { head, .. }) = content else { return Err(at.segment.rotten(offset)) };
        if head.time_ns > head_time_ns {
            break;
        }
        key = head.next_key;
    }
    Ok(key)
}

fn first_key(segment: &Open) -> Result<[u8; 32], SpoolError> {
    let path: &Path = &segment.path;
    let header = Header::read(&segment.file, segment.number).map_err(SpoolError::io(path))?;
    header.map(|(header, _)| header.tip.key).ok_or_else(|| segment.rotten(0))
}
