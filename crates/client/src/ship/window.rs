//! The batches that are made and not acknowledged, and the chain that they continue. No input or output.

use std::{cmp::Ordering, collections::VecDeque, mem};

use sigillo_model::{
    batch::{Batch, epoch_opening},
    block::{BlockBuilder, Inflater},
    ids::{BatchHash, BatchSecret, Epoch, Origin, SourceId, SourceSeq},
};
use sigillo_proto::v1;
use tokio::time::Instant;

use crate::{
    ClientError,
    error::plain,
    ship::{Outcome, Position, Settled},
};

/// zstd's level for batches: the fastest; the journal keeps them as they come.
const LEVEL: i32 = 1;
/// Bytes that a batch takes besides its block, about.
const BATCH_OVERHEAD_BYTES: usize = 256;

/// Records that will be one batch.
#[derive(Debug)]
pub(super) struct Draft {
    builder: BlockBuilder,
    oldest_unix_nano: u64,
}

impl Draft {
    /// Takes what was built; the builder is empty afterwards.
    pub(super) fn take(builder: &mut BlockBuilder, oldest: &mut Option<(Instant, u64)>) -> Self {
        Self { builder: mem::take(builder), oldest_unix_nano: oldest.take().map_or(0, |(_, nanos)| nanos) }
    }
}

/// A batch that is made and not acknowledged.
#[derive(Debug)]
struct Held {
    batch: Batch,
    oldest_unix_nano: u64,
}

impl Held {
    fn bytes(&self) -> usize {
        self.batch.compressed.len() + BATCH_OVERHEAD_BYTES
    }
}

/// All unacknowledged batches of one epoch, oldest first.
#[derive(Debug)]
pub(super) struct Window {
    origin: Origin,
    source: SourceId,
    epoch: Epoch,
    /// What the journal knew of us when the epoch was opened; the opening value follows from it.
    before: (Epoch, Option<BatchHash>),
    /// Everything below is acknowledged.
    durable: SourceSeq,
    next: SourceSeq,
    head: BatchHash,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// How many of `held` were sent on the present stream.
    sent: usize,
    sent_bytes: usize,
}

impl Window {
    /// Opens an epoch: the time of now, and greater than any that the journal or the caller knows.
    pub(super) fn open(welcome: &v1::Welcome, after: Epoch, now_unix_nano: u64) -> Result<Self, ClientError> {
        let protocol = |what: &str| ClientError::Protocol(plain(&format!("the welcome's {what}")));
        let origin = Origin::new(welcome.origin.as_str()).map_err(|error| protocol(&error.to_string()))?;
        let source = SourceId::from_slice(&welcome.source).ok_or_else(|| protocol("source has not 16 bytes"))?;
        let before = known(welcome)?;
        let least = before.0.max(after).get().checked_add(1).ok_or_else(|| protocol("epoch is the last number"))?;
        let epoch = Epoch::new(now_unix_nano.max(least));
        Ok(Self {
            head: epoch_opening(&origin, source, epoch, before.1),
            origin,
            source,
            epoch,
            before,
            durable: SourceSeq::new(0),
            next: SourceSeq::new(0),
            held: VecDeque::new(),
            held_bytes: 0,
            sent: 0,
            sent_bytes: 0,
        })
    }

    /// Bytes of all that is held.
    pub(super) fn bytes(&self) -> usize {
        self.held_bytes
    }

    /// How we introduce ourselves to go on with this epoch.
    pub(super) fn hello(&self, agent: &str, clock_unix_nano: u64) -> v1::Hello {
        let head = if self.next.get() == 0 { Vec::new() } else { self.head.as_bytes().to_vec() };
        v1::Hello {
            protocol: crate::PROTOCOL,
            agent: agent.to_owned(),
            epoch: self.epoch.get(),
            first_retained: self.durable.get(),
            next_sequence: self.next.get(),
            head: head.into(),
            clock_unix_nano,
            ..v1::Hello::default()
        }
    }

    /// What waits here, for the server.
    pub(super) fn heartbeat(&self, clock_unix_nano: u64) -> v1::Heartbeat {
        v1::Heartbeat {
            waiting_records: self.next.get() - self.durable.get(),
            oldest_unix_nano: self.held.front().map_or(0, |held| held.oldest_unix_nano),
            clock_unix_nano,
        }
    }

    /// Makes a batch of the records and holds it.
    pub(super) fn seal(&mut self, mut draft: Draft) -> Result<(), ClientError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| ClientError::Protocol(format!("this machine gives no random numbers: {error}")))?;
        let secret = BatchSecret::new(secret);
        let batch = Batch::seal(&mut draft.builder, self.source, self.epoch, self.next, self.head, secret, LEVEL)?;
        (self.next, self.head) = (batch.end(), batch.hash);
        let held = Held { batch, oldest_unix_nano: draft.oldest_unix_nano };
        self.held_bytes += held.bytes();
        self.held.push_back(held);
        Ok(())
    }

    /// Whether a batch waits that may be sent while at most `credit` bytes are under way; one may always be.
    pub(super) fn may_send(&self, credit: u64) -> bool {
        self.held.get(self.sent).is_some_and(|held| {
            self.sent == 0 || u64::try_from(self.sent_bytes + held.bytes()).is_ok_and(|bytes| bytes <= credit)
        })
    }

    /// The next batch to send, which counts as sent from now on, and its bytes.
    pub(super) fn send(&mut self) -> Option<(v1::Batch, u64)> {
        let held = self.held.get(self.sent)?;
        self.sent += 1;
        self.sent_bytes += held.bytes();
        Some((v1::Batch::from(&held.batch), held.bytes() as u64))
    }

    /// Nothing counts as sent: everything that is held is sent again, as it is.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.sent_bytes) = (0, 0);
    }

    /// Lets go of what the server has acknowledged. `None` for an ack that says nothing new.
    pub(super) fn acknowledge(&mut self, ack: v1::Ack) -> Result<Option<Settled>, ClientError> {
        let wrong = |what: &str| Err(ClientError::Protocol(format!("an ack {what}")));
        if ack.epoch != self.epoch.get() {
            return wrong("names another epoch than ours");
        }
        if ack.next_sequence <= self.durable.get() {
            return Ok(None);
        }
        let known = self.held.iter().take(self.sent).position(|held| held.batch.end().get() == ack.next_sequence);
        let Some(last) = known else { return wrong("covers something that was not sent") };
        let Some(receipt) = ack.receipt else { return wrong("comes without a receipt") };
        let position = self
            .held
            .get(last)
            .map(|held| &held.batch)
            .filter(|batch| is_for(&receipt, batch))
            .map(|batch| Position { epoch: batch.epoch, next: batch.end(), head: batch.hash });
        let Some(position) = position else { return wrong("has a receipt for something else than its batch") };
        for held in self.held.drain(..=last) {
            self.held_bytes -= held.bytes();
            self.sent_bytes -= held.bytes();
        }
        self.sent -= last + 1;
        let records = position.next.get() - self.durable.get();
        self.durable = position.next;
        Ok(Some(Settled { records, position, outcome: Outcome::Durable(receipt) }))
    }

    /// Whether the refusal is about the oldest batch. (What was sent after it is refused with it.)
    pub(super) fn is_oldest(&self, refusal: &v1::Refusal) -> bool {
        self.held
            .front()
            .is_some_and(|held| (held.batch.epoch.get(), held.batch.first.get()) == (refusal.epoch, refusal.first))
    }

    /// Whether the journal expects something that is held here.
    pub(super) fn holds(&self, epoch: u64, sequence: u64) -> bool {
        epoch == self.epoch.get() && (self.durable.get()..=self.next.get()).contains(&sequence)
    }

    /// Whether the epoch was opened on something that is not the journal's state any more, and nothing of it is durable: a
    /// predecessor's last batch arrived in between. Then our first batch can't be taken, through no fault of its own.
    pub(super) fn is_opening_stale(&self, welcome: &v1::Welcome) -> Result<bool, ClientError> {
        let known = known(welcome)?;
        Ok(self.durable.get() == 0 && known.0 < self.epoch && known != self.before)
    }

    /// Goes on with this epoch on a new stream, or in a new epoch if this one's opening has become stale.
    pub(super) fn resume(&mut self, welcome: &v1::Welcome, now_unix_nano: u64) -> Result<(), ClientError> {
        self.check_journal(welcome)?;
        let gap = |message: &str| ClientError::Gap {
            expected_epoch: welcome.epoch,
            expected: welcome.next_sequence,
            message: message.to_owned(),
        };
        match Epoch::new(welcome.epoch).cmp(&self.epoch) {
            Ordering::Greater => {
                return Err(ClientError::StaleEpoch(format!("{} after our {}", welcome.epoch, self.epoch)));
            }
            Ordering::Equal if welcome.next_sequence < self.durable.get() => {
                return Err(gap("it has less than it acknowledged"));
            }
            Ordering::Equal if welcome.next_sequence > self.next.get() => {
                return Err(ClientError::Fork(format!(
                    "it expects record {}, we have made {} in this epoch",
                    welcome.next_sequence, self.next
                )));
            }
            Ordering::Less if self.durable.get() > 0 => return Err(gap("it has forgotten our epoch")),
            Ordering::Less if self.is_opening_stale(welcome)? => return self.reopen(welcome, now_unix_nano),
            Ordering::Equal | Ordering::Less => {}
        }
        self.rewind();
        Ok(())
    }

    /// Takes out the oldest batch, which the server will never take. The others can only go on in a new epoch.
    pub(super) fn refuse_oldest(&mut self, message: String) -> Option<Settled> {
        let held = self.held.pop_front()?;
        self.held_bytes -= held.bytes();
        self.rewind();
        let batch = &held.batch;
        self.durable = batch.end();
        Some(Settled {
            records: u64::from(batch.count),
            position: Position { epoch: batch.epoch, next: batch.end(), head: batch.hash },
            outcome: Outcome::Refused { batch: v1::Batch::from(batch), message },
        })
    }

    /// Makes the held records into batches of a new epoch. Only for records that the journal does not have: those after a
    /// refused batch, or of an epoch that it never opened.
    pub(super) fn reopen(&mut self, welcome: &v1::Welcome, now_unix_nano: u64) -> Result<(), ClientError> {
        self.check_journal(welcome)?;
        let mut window = Self::open(welcome, self.epoch, now_unix_nano)?;
        let mut inflater = Inflater::default();
        for held in &self.held {
            let mut builder = BlockBuilder::default();
            for record in held.batch.open(&mut inflater)?.records() {
                builder.push(record)?;
            }
            window.seal(Draft { builder, oldest_unix_nano: held.oldest_unix_nano })?;
        }
        *self = window;
        Ok(())
    }

    fn check_journal(&self, welcome: &v1::Welcome) -> Result<(), ClientError> {
        if welcome.origin == self.origin.as_str() && *welcome.source == *self.source.as_bytes() {
            return Ok(());
        }
        let message = format!("journal {} answers, or knows us as another source", plain(&welcome.origin));
        Err(ClientError::Gap { expected_epoch: welcome.epoch, expected: welcome.next_sequence, message })
    }
}

/// The journal's newest epoch of us, and our chain's head there.
fn known(welcome: &v1::Welcome) -> Result<(Epoch, Option<BatchHash>), ClientError> {
    if welcome.epoch == 0 {
        return Ok((Epoch::new(0), None));
    }
    let head = BatchHash::from_slice(&welcome.head)
        .ok_or_else(|| ClientError::Protocol("the welcome's head has not 32 bytes".into()))?;
    Ok((Epoch::new(welcome.epoch), Some(head)))
}

fn is_for(receipt: &v1::Receipt, batch: &Batch) -> bool {
    (receipt.epoch, receipt.first, receipt.count) == (batch.epoch.get(), batch.first.get(), batch.count)
        && *receipt.batch_hash == *batch.hash.as_bytes()
}
