//! The engine's outbox: reads back what is synced, sends it, and knows what is under way.

mod outbox;
mod settle;

use std::{collections::VecDeque, sync::Arc};

use sigillo_model::{
    head::SignedHead,
    ids::{BatchHash, SourceSeq},
};
use sigillo_proto::v1::{self, append_request};
use sigillo_spool::{Damage, Frame, Reader};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Hold, Shared,
    hint::Hint,
    keeper::{Command, Stand},
};
use crate::ClientError;

/// Bytes under way at most, whatever the server would take: they are held in memory.
const FLIGHT_MAX_BYTES: u64 = 4 << 20;
/// Bytes that a message takes besides its block, about.
const MESSAGE_OVERHEAD_BYTES: u64 = 256;
/// Why another key than the announced one signs, unless something else is known.
const KEY_REASON: &str = "the spool was made anew, copied or brought back from an earlier state";

/// A batch under way.
struct Sent {
    first: SourceSeq,
    count: u32,
    end: SourceSeq,
    hash: BatchHash,
    bytes: u64,
}

/// A head under way, or the newest that is acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct SentHead {
    time: u64,
    next: SourceSeq,
}

/// A message that was read back, and what it is.
struct Read {
    message: append_request::Message,
    bytes: u64,
    sent: Result<Sent, SentHead>,
}

pub(super) struct Queue {
    shared: Arc<Shared>,
    keeper: mpsc::UnboundedSender<Command>,
    stand: watch::Receiver<Stand>,
    reader: Option<Reader>,
    /// Of a spool that was damaged: to be declared, when what is intact goes on in a new epoch.
    damage: Option<Damage>,
    welcome: v1::Welcome,
    /// What is acknowledged of the present epoch.
    acknowledged: SourceSeq,
    /// Its newest head that is acknowledged.
    head: SentHead,
    /// How far was read back.
    read: (SourceSeq, u64),
    /// Was read back and can't be sent yet.
    waiting: Option<Read>,
    batches: VecDeque<Sent>,
    heads: VecDeque<SentHead>,
    bytes: u64,
    /// To be sent first.
    head_key: Option<v1::HeadKey>,
    /// Why the next key is another one than announced.
    key_reason: String,
    /// The refusal that ended the last stream.
    refusal: Option<v1::Refusal>,
    /// The journal has moved on without us: no heads.
    probing: bool,
    /// What is acknowledged and not covered is sent once more, for its receipts.
    asks_receipts: bool,
    /// What was acknowledged, beside the spool; and what it said at the start.
    hint: Hint,
    hinted: SourceSeq,
}

impl Queue {
    pub(super) fn new(
        shared: Arc<Shared>,
        keeper: mpsc::UnboundedSender<Command>,
        stand: watch::Receiver<Stand>,
        reader: Option<Reader>,
        damage: Option<Damage>,
    ) -> Self {
        let dir = shared.options.spool.dir.clone();
        let mut queue = Self {
            shared,
            keeper,
            stand,
            reader,
            damage,
            welcome: v1::Welcome::default(),
            acknowledged: SourceSeq::new(0),
            head: SentHead::default(),
            read: (SourceSeq::new(0), 0),
            waiting: None,
            batches: VecDeque::new(),
            heads: VecDeque::new(),
            bytes: 0,
            head_key: None,
            key_reason: String::new(),
            refusal: None,
            probing: false,
            asks_receipts: true,
            hint: Hint::new(&dir),
            hinted: SourceSeq::new(0),
        };
        // Of another journal than the present one nobody else could tell.
        let stand = queue.stand.borrow().clone();
        if let Some(next) = stand.identity.and_then(|identity| queue.hint.load(&identity, stand.epoch)) {
            queue.hinted = next;
        }
        queue
    }

    fn command(&self, command: Command) {
        // A thread that has ended has told why.
        let _ = self.keeper.send(command);
    }

    /// Asks the thread and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply));
        answer.await.map_err(|_| ClientError::Stopped)
    }

    /// Whether heads go to the journal now.
    fn sends_heads(&self) -> bool {
        !self.probing
    }

    /// Whether something is synced that was not read back.
    fn has_unread(&self) -> bool {
        let stand = self.stand.borrow();
        self.read.0 < stand.next || (self.read.1 < stand.head_time && self.sends_heads())
    }

    /// Whether everything that will ever come is acknowledged.
    fn is_done(&self) -> bool {
        let stand = self.stand.borrow();
        let heads = !self.sends_heads() || self.head.time >= stand.head_time;
        stand.ending.is_some() && self.acknowledged >= stand.next && heads
    }

    /// Reads the next frame back.
    fn read(&mut self) -> Result<Option<Read>, ClientError> {
        if let Some(key) = self.head_key.take() {
            let message = append_request::Message::HeadKey(key);
            return Ok(Some(Read { message, bytes: 0, sent: Err(SentHead::default()) }));
        }
        let sends_heads = self.sends_heads();
        let Some(reader) = &mut self.reader else { return Ok(None) };
        loop {
            match reader.next()? {
                Some(Frame::Batch(batch)) => {
                    self.read.0 = batch.end();
                    let bytes = batch.compressed.len() as u64 + MESSAGE_OVERHEAD_BYTES;
                    let (first, count, end, hash) = (batch.first, batch.count, batch.end(), batch.hash);
                    let message = append_request::Message::Batch(v1::Batch::from(&batch));
                    return Ok(Some(Read { message, bytes, sent: Ok(Sent { first, count, end, hash, bytes }) }));
                }
                Some(Frame::Head { time_ns, .. }) if !sends_heads => self.read.1 = time_ns,
                Some(Frame::Head { note, time_ns }) => {
                    self.read.1 = time_ns;
                    let (bytes, head) = (note.len() as u64 + MESSAGE_OVERHEAD_BYTES, head_of(&note, time_ns));
                    let message = append_request::Message::Head(v1::SignedHead { note });
                    return Ok(Some(Read { message, bytes, sent: Err(head) }));
                }
                None => {
                    let stand = self.stand.borrow();
                    self.read = (stand.next, stand.head_time);
                    return Ok(None);
                }
            }
        }
    }

    /// Reads back from a place on, and nothing counts as sent.
    fn seek(&mut self, from: SourceSeq) -> Result<(), ClientError> {
        (self.waiting, self.bytes) = (None, 0);
        self.batches.clear();
        self.heads.clear();
        let (epoch, first) = {
            let stand = self.stand.borrow();
            (stand.epoch, stand.first)
        };
        let time = self.head.time;
        let Some(reader) = &mut self.reader else { return Ok(()) };
        reader.seek(epoch, from, time)?;
        let mut start = from;
        if let Some(Frame::Head { note, time_ns }) = reader.next()? {
            let next = head_of(&note, time_ns).next;
            if next < from {
                // It is taken only right after what it covers, so that is sent once more.
                reader.seek(epoch, first, u64::MAX)?;
                while let Some(Frame::Batch(batch)) = reader.next()? {
                    if batch.end() >= next {
                        start = batch.first;
                        break;
                    }
                }
            }
        }
        reader.seek(epoch, start, time)?;
        self.read = (start, time);
        Ok(())
    }

    /// Whether what is acknowledged waits for a checkpoint.
    fn holds(&self) -> bool {
        let options = &self.shared.options;
        options.hold == Hold::UntilCheckpoint
            && is_held(&self.welcome.class)
            && options.guard.as_ref().is_some_and(|guard| guard.checks_receipts())
    }

    /// Lets go of what needs not be kept.
    fn release(&self) {
        // A head that is not acknowledged is sent again after what it covers.
        let mut next = self.acknowledged.min(self.head.next);
        let head_time = self.head.time;
        let epoch = self.stand.borrow().epoch;
        if self.holds() {
            let covered = self.shared.options.guard.as_ref().and_then(|guard| guard.covered());
            next = match covered {
                Some((covered, until)) if covered == epoch => next.min(until),
                _ => return,
            };
        }
        self.command(Command::Release { epoch, next, head_time });
    }

    /// Writes down what is acknowledged, now and then or `now`.
    fn remember(&mut self, now: bool) {
        let stand = self.stand.borrow();
        if let Some(identity) = &stand.identity {
            self.hint.keep(identity, stand.epoch, self.acknowledged, now);
        }
    }
}

/// Classes whose records are synced at once, and held until a checkpoint covers them.
fn is_held(class: &str) -> bool {
    matches!(class, "panel" | "admin")
}

/// What a head of our own spool says; it was checked when it was read.
fn head_of(note: &[u8], time: u64) -> SentHead {
    let next = SignedHead::parse(note).map_or(SourceSeq::new(0), |(head, _)| head.next);
    SentHead { time, next }
}
