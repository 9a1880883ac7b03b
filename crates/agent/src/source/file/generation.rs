//! One file that had the name, for as long as it is read.

use std::{
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use sigillo_client::unix_nanos;
use sigillo_model::record::Record;

use super::{
    content::{Content, FileId},
    cut::{End, Rule, cut},
    mark::Mark,
    print::{Fit, HEAD_BYTES, Head, TAIL_BYTES, tail},
};
use crate::{
    line::{LINE_MAX_BYTES, Piece},
    record::Maker,
    source::{CHUNK_BYTES, CHUNK_RECORDS},
};

/// Bytes that are read at once: the longest line, its end, and what is compared before it fit in.
pub(super) const READ_BYTES: usize = LINE_MAX_BYTES + (64 << 10);
/// Bytes of an unfinished line that are remembered in case that the file is truncated before they are in a record.
const PARTIAL_BYTES: usize = 16 << 10;

/// A message is over after this time in which nothing was written.
const SILENCE: Duration = Duration::from_secs(1);

/// A file and how far it was read.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) content: Content,
    pub(super) mark: Mark,
    /// The name that it has, or had before it was rotated, without symbolic links.
    pub(super) real: PathBuf,
    /// The greatest length that was seen.
    pub(super) seen: u64,
    /// When that changed last.
    changed: Duration,
    /// The unfinished line at the end.
    pub(super) partial: Bytes,
    /// Whether it was found under the name of a rotated file.
    pub(super) is_rotated: bool,
    /// When another file was seen to have the name.
    pub(super) superseded: Option<Duration>,
    /// The number under which it is watched.
    pub(super) watch: Option<i32>,
}

/// What a step gave.
#[derive(Debug)]
pub(super) enum Step {
    Records(Vec<Record>),
    /// There is nothing whole.
    Nothing,
    /// The file no longer holds what was read of it.
    Changed,
}

impl Generation {
    pub(super) fn new(content: Content, mark: Mark, real: PathBuf, now: Duration) -> Self {
        Self {
            seen: mark.offset,
            content,
            mark,
            real,
            changed: now,
            partial: Bytes::new(),
            is_rotated: false,
            superseded: None,
            watch: None,
        }
    }

    /// A file that was not read yet.
    pub(super) fn unread(content: Content, id: FileId, real: &Path, began: Option<u64>, now: Duration) -> Self {
        let mut generation = Self::new(content, Mark { began, ..Mark::new(id) }, real.to_owned(), now);
        generation.seen = generation.metadata().ok().flatten().map_or(0, |metadata| metadata.len());
        generation
    }

    /// Remembers the first bytes, so that a truncation before they were read is noticed; more of them each time, if they are the same.
    pub(super) fn glimpse(&mut self) -> io::Result<()> {
        let mut bytes = [0; HEAD_BYTES];
        let head = self.content.head(&mut bytes)?;
        if head.starts_with(&self.partial) {
            self.partial = Bytes::copy_from_slice(head);
        }
        self.seen = self.seen.max(self.metadata()?.map_or(0, |metadata| metadata.len()));
        Ok(())
    }

    /// Whether nothing was read or seen of a file that may be cut to nothing at any time.
    pub(super) fn is_unseen(&self) -> bool {
        self.mark.offset == 0 && self.partial.is_empty() && !self.is_rotated && self.content.plain().is_some()
    }

    pub(super) fn metadata(&self) -> io::Result<Option<Metadata>> {
        self.content.plain().map(std::fs::File::metadata).transpose()
    }

    /// Goes to the end without reading; an unfinished line at the end is read once it is whole.
    pub(super) fn skip_to_end(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        let length = self.metadata()?.map_or(0, |metadata| metadata.len());
        let start = length.saturating_sub(buffer.len() as u64);
        let count = self.content.read_at(buffer, start)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        let line = memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1);
        self.mark.offset = start + line as u64;
        (self.seen, self.partial) = (length, Bytes::new());
        let is_enough = start == 0 || line >= TAIL_BYTES;
        self.mark.tail = if is_enough { tail(bytes.get(..line).unwrap_or_default()) } else { String::new() };
        let mut first = [0; HEAD_BYTES];
        let first = self.content.head(&mut first)?;
        self.note_head(first);
        Ok(())
    }

    fn saw(&mut self, length: u64, now: Duration) {
        if length > self.seen {
            (self.seen, self.changed) = (length, now);
        }
    }

    /// Whether nothing was written for some time, nor the name lost.
    pub(super) fn is_quiet(&self, now: Duration, wait: Duration) -> bool {
        now.saturating_sub(self.changed.max(self.superseded.unwrap_or_default())) >= wait
    }

    /// When an unfinished message is over.
    pub(super) fn quiet_at(&self) -> Option<Duration> {
        (self.seen > self.mark.offset).then_some(self.changed + SILENCE)
    }

    /// The next records, at most a chunk of them.
    pub(super) fn step(
        &mut self,
        maker: &Maker,
        rule: &Rule,
        end: End,
        buffer: &mut BytesMut,
        now: Duration,
    ) -> io::Result<Step> {
        if self.mark.offset == 0 {
            // What nobody wrote is no line.
            self.mark.offset = self.content.end_of_hole()?;
            if self.mark.offset > 0 {
                self.partial = Bytes::new();
            }
            self.mark.tail = tail(&vec![0; usize::try_from(self.mark.offset).unwrap_or(TAIL_BYTES).min(TAIL_BYTES)]);
        }
        let before = TAIL_BYTES.min(usize::try_from(self.mark.offset).unwrap_or(TAIL_BYTES));
        let count = self.content.read_at(buffer, self.mark.offset - before as u64)?;
        let known = buffer.get(..before.min(count)).unwrap_or_default();
        // Looked at after the rest was read: if it is there still, then the rest belongs to it. Reading is not one act.
        let mut first = [0; HEAD_BYTES];
        let first = self.content.head(&mut first)?;
        let start = if before == 0 { buffer.get(..first.len().min(count)).unwrap_or_default() } else { b"" };
        if self.mark.head.fits(first) != Fit::Same
            || !first.starts_with(start)
            || !self.content.still_holds(known, self.mark.offset)?
        {
            return Ok(Step::Changed);
        }
        if known.len() < before || !self.mark.tail.is_empty() && self.mark.tail != tail(known) {
            return Ok(Step::Changed);
        }
        // Little was read, and what we saw behind it has changed or gone: these are other bytes of the same looks.
        let unread = buffer.get(before..count).unwrap_or_default();
        let is_shorter = || Ok::<_, io::Error>(self.metadata()?.is_some_and(|metadata| metadata.len() < self.seen));
        if !self.mark.is_certain() && (!unread.starts_with(&self.partial) || is_shorter()?) {
            return Ok(Step::Changed);
        }
        if count == before {
            if let Some(kind) = self.content.damage() {
                return Err(kind.into());
            }
            self.partial = Bytes::new();
            return Ok(Step::Nothing);
        }
        self.saw(self.mark.offset + (count - before) as u64, now);
        let is_quiet = rule.joins() && now.saturating_sub(self.changed) >= SILENCE;
        let end = if end == End::Open && is_quiet { End::Quiet } else { end };
        let bytes = std::mem::take(buffer).freeze();
        let is_from_start = self.mark.offset == before as u64;
        let records = self.records(maker, rule, end, &bytes.slice(..count), before);
        // What was read is what counts: by now the file may hold something else.
        self.note_head(if is_from_start { bytes.get(..count).unwrap_or_default() } else { first });
        *buffer = bytes.try_into_mut().unwrap_or_else(|_| BytesMut::zeroed(READ_BYTES));
        if records.is_empty() {
            return Ok(Step::Nothing);
        }
        Ok(Step::Records(records))
    }

    /// Records of the bytes from `start`.
    fn records(&mut self, maker: &Maker, rule: &Rule, end: End, bytes: &Bytes, start: usize) -> Vec<Record> {
        let observed = unix_nanos();
        let (mut records, mut length, mut at) = (Vec::new(), 0, start);
        let mut pieces = self.mark.pieces;
        // What the buffer ends with may go on in the file.
        let end = if bytes.len() == READ_BYTES { End::Open } else { end };
        while records.len() < CHUNK_RECORDS {
            let Some(found) = cut(bytes.get(at..).unwrap_or_default(), &mut pieces, rule, end) else { break };
            let consumed = found.next as u64;
            let line = bytes.slice(at + found.range.start..at + found.range.end);
            let record = maker.line(Piece { bytes: line, fragment: found.fragment, consumed }, observed);
            length += record.as_ref().length();
            if length > CHUNK_BYTES && !records.is_empty() {
                break;
            }
            records.push(record);
            at += found.next;
            self.mark.pieces = pieces;
        }
        self.mark.offset += (at - start) as u64;
        self.mark.tail = tail(bytes.get(..at).unwrap_or_default());
        let rest = bytes.get(at..).unwrap_or_default();
        self.partial = if rest.len() > PARTIAL_BYTES { Bytes::new() } else { Bytes::copy_from_slice(rest) };
        records
    }

    /// Learns more of the beginning while less is known than will be compared.
    fn note_head(&mut self, first: &[u8]) {
        let readable = usize::try_from(self.mark.offset).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
        let first = first.get(..readable).unwrap_or(first);
        if self.mark.head.length() < first.len() {
            self.mark.head = Head::of(first);
        }
    }
}
