//! What leads from records to a head that their own source has signed.
//!
//! ```text
//! u64 sequence of the record that holds the head; u16 bytes, the head's note
//! u64 sequence of the record that names its key; u16 bytes, what that record says: a head, or `sigillo source key v1`
//! u64 the source's number of the first record of the first batch
//! [32] batch hash before it
//! u32 batches, one after the other up to the head, each:
//!     u32 records
//!     u8  0: [32] root over its commitments. No record of it is in the file
//!         1: u16 number of hashes, the hashes: the shared proof of those of its records that are in the file
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    vec,
};

use super::{
    report::Finding,
    section::Kind,
    shared::{SharedRoot, subtrees},
    write::WriteError,
};
use crate::{
    batch::batch_hash_of_root,
    cursor::Cursor,
    envelope::Envelope,
    head::{HEAD_MAX_BYTES, HEADER, HeadError, SignedHead, statement::SourceKey},
    ids::{BatchHash, Commitment, Epoch, NodeHash, Origin, SourceId, SourceSeq},
    limits::BATCH_MAX_RECORDS,
    tree,
};

/// A statement, and the record that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// Sequence of the record.
    pub seq: u64,
    /// The statement's text; at most [`HEAD_MAX_BYTES`].
    pub text: Vec<u8>,
}

/// How a batch is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchProof {
    /// None of its records is in the file: the root over its commitments.
    Root(NodeHash),
    /// Some are: the hashes that stand for the others, as in a [`SharedRoot`] over the batch.
    Shared(Vec<NodeHash>),
}

/// What leads from records of one source and epoch to a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadProof {
    /// The head.
    pub head: Stated,
    /// What names the head's key: the head before, or a registration.
    pub announcement: Stated,
    /// The source's number of the first record of the first batch.
    pub first: SourceSeq,
    /// Batch hash before it.
    pub previous: BatchHash,
    /// Batches up to the head: how many records, and the proof.
    pub batches: Vec<(u32, BatchProof)>,
}

impl HeadProof {
    pub(super) fn encode(&self) -> Result<Vec<u8>, WriteError> {
        let too_long = |_| WriteError::TooLong(Kind::Head);
        let mut out = Vec::new();
        for Stated { seq, text } in [&self.head, &self.announcement] {
            out.extend(seq.to_be_bytes());
            out.extend(u16::try_from(text.len()).map_err(too_long)?.to_be_bytes());
            out.extend(text);
        }
        out.extend(self.first.get().to_be_bytes());
        out.extend(self.previous.as_bytes());
        out.extend(u32::try_from(self.batches.len()).map_err(too_long)?.to_be_bytes());
        for (records, proof) in &self.batches {
            out.extend(records.to_be_bytes());
            match proof {
                BatchProof::Root(root) => {
                    out.push(0);
                    out.extend(root.as_bytes());
                }
                BatchProof::Shared(hashes) => {
                    out.push(1);
                    out.extend(u16::try_from(hashes.len()).map_err(too_long)?.to_be_bytes());
                    out.extend(hashes.iter().flat_map(NodeHash::as_bytes));
                }
            }
        }
        Ok(out)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Finding> {
        let wrong = || Finding::Section(Kind::Head);
        let mut cursor = Cursor::new(bytes);
        let mut stated = || -> Result<Stated, Finding> {
            let (seq, length) = (cursor.u64()?, usize::from(cursor.u16()?));
            if length > HEAD_MAX_BYTES {
                return Err(wrong());
            }
            Ok(Stated { seq, text: cursor.take(length)?.to_vec() })
        };
        let (head, announcement) = (stated()?, stated()?);
        let (first, previous) = (SourceSeq::new(cursor.u64()?), BatchHash::new(cursor.array()?));
        let mut batches = Vec::new();
        for _ in 0..cursor.u32()? {
            let records = cursor.u32()?;
            if records == 0 || records as usize > BATCH_MAX_RECORDS {
                return Err(wrong());
            }
            let proof = match cursor.u8()? {
                0 => BatchProof::Root(NodeHash::new(cursor.array()?)),
                1 => {
                    let count = cursor.u16()?;
                    let hashes = (0..count).map(|_| Ok(NodeHash::new(cursor.array()?)));
                    BatchProof::Shared(hashes.collect::<Result<_, Finding>>()?)
                }
                _ => return Err(wrong()),
            };
            batches.push((records, proof));
        }
        if cursor.remaining() == 0 { Ok(Self { head, announcement, first, previous, batches }) } else { Err(wrong()) }
    }
}

/// Why records are not what a head has signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// The head can't be read, or the key that was announced has not signed it.
    #[error("the head: {0}")]
    Head(HeadError),
    /// What should name its key can't be read.
    #[error("what names its key: {0}")]
    Announcement(HeadError),
    /// What names its key is of another journal or source, or not before the head.
    #[error("what names its key is of another journal or source, or not before it")]
    Order,
    /// The records of the file do not lead to the head.
    #[error("the records do not lead to what the source has signed")]
    Records,
    /// The journal does not hold the statement.
    #[error("record {0} of the journal does not say so, or is not shown")]
    NotStated(u64),
}

/// What became of a head that a file brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadVerdict {
    /// Whose records.
    pub source: SourceId,
    /// Their epoch.
    pub epoch: Epoch,
    /// The source's numbers: of the first record that the head is shown to cover.
    pub from: u64,
    /// The number after the last that it covers.
    pub to: u64,
    /// Records of the file among them.
    pub records: u64,
    /// When the head was signed, nanoseconds since 1970 UTC, by the source's clock.
    pub time_ns: u64,
    /// Sequence of the record that names the head's key.
    pub announced: u64,
    /// That record is a registration: the key's beginning is the provider's word.
    pub registered: bool,
    /// Why it proves nothing.
    pub fault: Option<HeadFault>,
}

/// Follows the records of a file for all heads that it brings.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// By source and epoch, ascending.
    under_way: BTreeMap<(SourceId, Epoch), VecDeque<Following>>,
    verdicts: Vec<HeadVerdict>,
    /// What the journal must say, by sequence.
    stated: BTreeMap<u64, Expected>,
}

/// What a record of the journal must say.
#[derive(Debug)]
struct Expected {
    text: Vec<u8>,
    /// The heads that rest on it.
    heads: Vec<usize>,
}

impl Heads {
    /// Takes what the file brings for one head. Its signature is checked here.
    pub(super) fn add(&mut self, payload: &[u8], origin: &Origin) -> Result<(), Finding> {
        let index = self.verdicts.len();
        let fault = |fault| Finding::Head { index, fault };
        let HeadProof { head: stated, announcement, first, previous, batches } = HeadProof::parse(payload)?;
        let (head, note) = SignedHead::parse(&stated.text).map_err(|error| fault(HeadFault::Head(error)))?;
        let before = Announced::parse(&announcement.text, origin).map_err(fault)?;
        let of_this = head.origin.as_str() == origin.as_str() && before.source == head.source;
        if !of_this || before.time_ns >= head.time_ns || announcement.seq >= stated.seq {
            return Err(fault(HeadFault::Order));
        }
        head.verify(&note, &before.key).map_err(|error| fault(HeadFault::Head(error)))?;
        let under_way = self.under_way.entry((head.source, head.epoch)).or_default();
        if under_way.back().is_some_and(|last| first < last.head.next) || first >= head.next {
            return Err(fault(HeadFault::Order));
        }
        self.verdicts.push(HeadVerdict {
            source: head.source,
            epoch: head.epoch,
            from: first.get(),
            to: head.next.get(),
            records: 0,
            time_ns: head.time_ns,
            announced: announcement.seq,
            registered: before.time_ns == 0,
            fault: None,
        });
        under_way.push_back(Following {
            index,
            chain: previous,
            at: first,
            batches: batches.into(),
            batch: None,
            head,
        });
        for Stated { seq, text } in [stated, announcement] {
            let expected = self.stated.entry(seq).or_insert_with(|| Expected { text: text.clone(), heads: Vec::new() });
            if expected.text != text {
                return Err(fault(HeadFault::NotStated(seq)));
            }
            expected.heads.push(index);
        }
        Ok(())
    }

    /// Takes the next record of the file.
    pub(super) fn record(&mut self, envelope: &Envelope, commitment: &Commitment) {
        let Some(under_way) = self.under_way.get_mut(&(envelope.source, envelope.epoch)) else { return };
        while let Some(first) = under_way.front_mut() {
            if envelope.source_seq < first.head.next {
                if envelope.source_seq >= first.at || first.batch.is_some() {
                    let verdict = self.verdicts.get_mut(first.index);
                    match (first.record(envelope.source_seq, commitment), verdict) {
                        (Ok(()), Some(verdict)) => verdict.records += 1,
                        (Err(fault), Some(verdict)) => drop(verdict.fault.get_or_insert(fault)),
                        (_, None) => {}
                    }
                }
                return;
            }
            if let Some(done) = under_way.pop_front() {
                done.finish(&mut self.verdicts);
            }
        }
    }

    /// Takes what a record of the journal itself says.
    pub(super) fn statement(&mut self, seq: u64, text: &[u8]) {
        if self.stated.get(&seq).is_some_and(|expected| expected.text == text) {
            self.stated.remove(&seq);
        }
    }

    /// The verdicts, in the file's order.
    pub(super) fn finish(mut self) -> Vec<HeadVerdict> {
        for following in self.under_way.into_values().flatten() {
            following.finish(&mut self.verdicts);
        }
        for (seq, expected) in self.stated {
            for index in expected.heads {
                if let Some(verdict) = self.verdicts.get_mut(index) {
                    verdict.fault.get_or_insert(HeadFault::NotStated(seq));
                }
            }
        }
        self.verdicts
    }
}

/// The key of a head, by what names it.
struct Announced {
    source: SourceId,
    key: [u8; 32],
    /// Of the head that names it; 0 for a registration.
    time_ns: u64,
}

impl Announced {
    fn parse(text: &[u8], origin: &Origin) -> Result<Self, HeadFault> {
        if text.starts_with(HEADER.as_bytes()) {
            let (head, _) = SignedHead::parse(text).map_err(HeadFault::Announcement)?;
            let of_this = head.origin.as_str() == origin.as_str() && head.time_ns > 0;
            let announced = Self { source: head.source, key: head.next_key, time_ns: head.time_ns };
            return of_this.then_some(announced).ok_or(HeadFault::Order);
        }
        let text = std::str::from_utf8(text).map_err(|_| HeadFault::Announcement(HeadError::Line(1)))?;
        let SourceKey { source, key } = SourceKey::parse(text, origin).map_err(HeadFault::Announcement)?;
        Ok(Self { source, key, time_ns: 0 })
    }
}

/// The way to one head.
#[derive(Debug)]
struct Following {
    /// Place of its verdict.
    index: usize,
    head: SignedHead,
    /// Batch hash before the present batch.
    chain: BatchHash,
    /// First number of the present batch.
    at: SourceSeq,
    /// The present batch and those after it.
    batches: VecDeque<(u32, BatchProof)>,
    /// The present one, once a record of it has come, and the hashes that are left for it.
    batch: Option<(SharedRoot, vec::IntoIter<NodeHash>)>,
}

impl Following {
    fn record(&mut self, number: SourceSeq, commitment: &Commitment) -> Result<(), HeadFault> {
        let place = loop {
            let (records, _) = self.batches.front().ok_or(HeadFault::Records)?;
            match number.get().checked_sub(self.at.get()) {
                Some(place) if place < u64::from(*records) => break place,
                Some(_) => self.close()?,
                None => return Err(HeadFault::Records),
            }
        };
        let Some((records, BatchProof::Shared(hashes))) = self.batches.front_mut() else {
            return Err(HeadFault::Records);
        };
        let (shared, hashes) = self
            .batch
            .get_or_insert_with(|| (SharedRoot::new(u64::from(*records)), std::mem::take(hashes).into_iter()));
        step(shared, place, hashes)?;
        shared.leaf(tree::leaf(commitment.as_bytes()), &mut ());
        Ok(())
    }

    /// Ends the present batch.
    fn close(&mut self) -> Result<(), HeadFault> {
        let (records, proof) = self.batches.pop_front().ok_or(HeadFault::Records)?;
        let root = match (proof, self.batch.take()) {
            (BatchProof::Root(root), None) => root,
            (BatchProof::Shared(_), Some((mut shared, mut hashes))) => {
                step(&mut shared, u64::from(records), &mut hashes)?;
                let root = shared.finish(&mut ()).map_err(|_| HeadFault::Records)?;
                if hashes.len() > 0 {
                    return Err(HeadFault::Records);
                }
                root
            }
            _ => return Err(HeadFault::Records),
        };
        let SignedHead { source, epoch, .. } = self.head;
        self.chain = batch_hash_of_root(&self.chain, source, epoch, self.at, records, &root);
        self.at = self.at.checked_add(u64::from(records)).ok_or(HeadFault::Records)?;
        Ok(())
    }

    fn finish(mut self, verdicts: &mut [HeadVerdict]) {
        let Some(verdict) = verdicts.get_mut(self.index) else { return };
        while verdict.fault.is_none() && !self.batches.is_empty() {
            verdict.fault = self.close().err();
        }
        if verdict.fault.is_none() && (self.at, self.chain) != (self.head.next, self.head.batch_hash) {
            verdict.fault = Some(HeadFault::Records);
        }
    }
}

/// Steps over the records of a batch up to `to`, with the hashes that stand for them.
fn step(shared: &mut SharedRoot, to: u64, hashes: &mut vec::IntoIter<NodeHash>) -> Result<(), HeadFault> {
    if to < shared.at() {
        return Err(HeadFault::Records);
    }
    let count = subtrees(shared.at(), to, shared.size()).count();
    shared.gap(to, hashes.take(count), &mut ()).map_err(|_| HeadFault::Records)
}
