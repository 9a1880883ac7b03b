//! Makes the sections of an evidence file, in their order.

use super::{
    about::{About, Attachment, Tools},
    heads::HeadProof,
    record::RecordView,
    run::{CounterProof, Run},
    section::{Header, Kind, MAGIC, Order},
};
use crate::ids::{ChainHash, NodeHash};

/// Bytes of records that are put into one section before the next is begun.
const SECTION_BYTES: usize = 256 << 10;

/// What can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// More than a section of this kind may hold.
    #[error("the {} section is longer than a file may hold", .0.name())]
    TooLong(Kind),
    /// A section that may not stand here, or too many of its kind.
    #[error("a {} section may not stand here", .0.name())]
    Order(Kind),
    /// An attachment's name that is no file name.
    #[error("{0:?} is no name for an attachment: letters, digits, '-', '_' and '.', at most 100")]
    Name(String),
}

/// Makes sections. What it writes is taken from [`Writer::take`], as often as one likes.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    order: Order,
    /// The records section under way.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    payload: Vec<u8>,
    /// Where the number of records stands in it.
    count_at: usize,
    count: u32,
    next: u64,
}

impl Writer {
    /// Begins a file.
    pub fn new(about: &About, trust: &[u8]) -> Result<Self, WriteError> {
        let mut writer = Self { out: MAGIC.to_vec(), order: Order::default(), open: None };
        writer.section(Kind::About, &about.encode()?)?;
        writer.section(Kind::Trust, trust)?;
        Ok(writer)
    }

    /// Goes on with a file that somebody else has begun, after a section of this kind: for attachments, tools and the end.
    pub fn resume_after_records() -> Self {
        Self { out: Vec::new(), order: Order::after_records(), open: None }
    }

    /// Adds a rotation's note.
    pub fn rotation(&mut self, note: &[u8]) -> Result<(), WriteError> {
        self.section(Kind::Rotation, note)
    }

    /// Adds the checkpoint's note.
    pub fn checkpoint(&mut self, note: &[u8]) -> Result<(), WriteError> {
        self.section(Kind::Checkpoint, note)
    }

    /// Adds a smaller checkpoint, with its consistency with the checkpoint. Ascending.
    pub fn earlier(&mut self, note: &[u8], consistency: &[NodeHash]) -> Result<(), WriteError> {
        let mut payload = hashes(Kind::Earlier, consistency)?;
        payload.extend(note);
        self.section(Kind::Earlier, &payload)
    }

    /// Claims a run.
    pub fn run(&mut self, run: &Run) -> Result<(), WriteError> {
        self.section(Kind::Run, &run.encode()?)
    }

    /// Brings what leads from records of a source to a head that it has signed. Ascending within a source's epoch.
    pub fn head(&mut self, proof: &HeadProof) -> Result<(), WriteError> {
        self.section(Kind::Head, &proof.encode()?)
    }

    /// Begins a stretch of consecutive records at sequence `first`: the chain value before it, and the hashes of the gap between
    /// the stretch before and this one.
    pub fn stretch(&mut self, first: u64, previous: &ChainHash, gap: &[NodeHash]) -> Result<(), WriteError> {
        self.close_records()?;
        let mut payload = first.to_be_bytes().to_vec();
        payload.extend(previous.as_bytes());
        payload.extend(hashes(Kind::Records, gap)?);
        let count_at = payload.len();
        payload.extend([0; 4]);
        self.open = Some(Open { payload, count_at, count: 0, next: first });
        Ok(())
    }

    /// Adds the next record of the stretch. `previous` is the chain value before it.
    pub fn record(&mut self, record: &RecordView<'_>, previous: &ChainHash) -> Result<(), WriteError> {
        let room = RecordView::max_bytes(record.shown_bytes());
        if let Some(open) = &self.open
            && open.count > 0
            && open.payload.len() + room > SECTION_BYTES
        {
            self.stretch(open.next, previous, &[])?;
        }
        let open = self.open.as_mut().ok_or(WriteError::Order(Kind::Records))?;
        record.encode(&mut open.payload);
        open.count += 1;
        open.next = open.next.saturating_add(1);
        Ok(())
    }

    /// Ends the records: the hashes of the gap after the last.
    pub fn edge(&mut self, gap: &[NodeHash]) -> Result<(), WriteError> {
        self.close_records()?;
        self.section(Kind::Edge, &hashes(Kind::Edge, gap)?)
    }

    /// Proves a run's end.
    pub fn counters(&mut self, proof: &CounterProof) -> Result<(), WriteError> {
        self.section(Kind::Counters, &proof.encode()?)
    }

    /// Adds a time-stamp token.
    pub fn token(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        self.section(Kind::Token, &Attachment::encode(name, bytes)?)
    }

    /// Says with what the file was made.
    pub fn tools(&mut self, tools: &Tools) -> Result<(), WriteError> {
        self.section(Kind::Tools, &tools.encode())
    }

    /// Ends the file, with [`super::Seal::text`] or a note of it.
    pub fn end(&mut self, seal: &[u8]) -> Result<(), WriteError> {
        self.section(Kind::End, seal)
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Bytes that [`Writer::take`] would give.
    pub fn pending(&self) -> usize {
        self.out.len()
    }

    fn close_records(&mut self) -> Result<(), WriteError> {
        let Some(Open { mut payload, count_at, count, .. }) = self.open.take() else { return Ok(()) };
        if count == 0 {
            return Err(WriteError::Order(Kind::Records));
        }
        payload.iter_mut().skip(count_at).zip(count.to_be_bytes()).for_each(|(to, from)| *to = from);
        self.section(Kind::Records, &payload)
    }

    fn section(&mut self, kind: Kind, payload: &[u8]) -> Result<(), WriteError> {
        if payload.len() > kind.max_bytes() {
            return Err(WriteError::TooLong(kind));
        }
        self.order.step(kind).map_err(|_| WriteError::Order(kind))?;
        self.out.extend(Header { kind, length: payload.len() }.to_bytes());
        self.out.extend(payload);
        Ok(())
    }
}

fn hashes(kind: Kind, hashes: &[NodeHash]) -> Result<Vec<u8>, WriteError> {
    let count = u8::try_from(hashes.len()).map_err(|_| WriteError::TooLong(kind))?;
    let mut out = Vec::with_capacity(1 + 32 * hashes.len());
    out.push(count);
    out.extend(hashes.iter().flat_map(NodeHash::as_bytes));
    Ok(out)
}
