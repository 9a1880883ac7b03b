//! Takes a source's messages, checks its batches, and hands them to the journal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sigillo_journal::Submission;
use sigillo_model::{
    batch::Batch,
    head::HEAD_MAX_BYTES,
    ids::{Commitment, Epoch, ReceiptTime, SourceSeq},
    limits,
};
use sigillo_proto::v1::{self, AppendRequest, append_request::Message as Request, append_response::Message as Answer};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tonic::{Code, Status, Streaming};

use super::{InFlight, Item, Shared, Stop, news, streams::Slot, wait};
use crate::{
    config::SourceSettings,
    identity::Peer,
    ingest::{check::Checker, heads},
    sources::Presence,
};

/// Version of the protocol.
const PROTOCOL: u32 = 1;
/// Most time between the stream's opening and its Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Most time between two messages. Senders that have nothing to send send heartbeats, every 10 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// A block of more bytes is checked off the threads that serve everybody.
const HEAVY_BYTES: u64 = 256 << 10;
/// When a sender may come back after a drain, milliseconds.
const RECONNECT_MS: u32 = 1_000;
/// Longest text of a sender that is put into the product's own records, characters.
const SENDERS_TEXT_MAX: usize = 1_024;

/// The receiving end of a stream.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    peer: Peer,
    source: Arc<SourceSettings>,
    requests: Streaming<AppendRequest>,
    queue: mpsc::Sender<Item>,
    credit: Arc<Semaphore>,
    checker: Checker,
    slot: Slot,
    /// The source's place in the register, from the welcome on.
    presence: Option<Presence>,
}

impl Receiver {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: Peer,
        source: Arc<SourceSettings>,
        requests: Streaming<AppendRequest>,
        queue: mpsc::Sender<Item>,
        slot: Slot,
    ) -> Self {
        let credit = Arc::new(Semaphore::new(shared.limits.credit_bytes));
        let checker = Checker::default();
        Self { shared, peer, source, requests, queue, credit, checker, slot, presence: None }
    }

    pub(super) async fn run(mut self) {
        tracing::debug!("a stream begins");
        match self.receive().await {
            Err(Stop::Tell(answer, status)) => {
                tracing::info!(code = ?status.code(), reason = status.message(), "the stream is ended");
                // Behind what was taken before, so that its acknowledgements come first.
                let _ = self.queue.send(Item::End(answer, status)).await;
            }
            Err(Stop::Invalid { problem, epoch, first }) => {
                // What was taken before it is part of what its record says.
                let _ = self.queue.send(Item::Invalid { problem, epoch, first }).await;
            }
            Err(Stop::Ended) | Ok(()) => tracing::debug!("the stream has ended"),
        }
    }

    async fn receive(&mut self) -> Result<(), Stop> {
        match timeout(HELLO_TIMEOUT, self.next()).await {
            Ok(next) => match next? {
                Some(Request::Hello(hello)) => self.hello(&hello).await?,
                Some(_) => return Err(Status::failed_precondition("the first message must be Hello").into()),
                None => return Ok(()),
            },
            Err(_) => return Err(Status::deadline_exceeded("no Hello within 10 s").into()),
        }
        while let Some(message) = self.next().await? {
            match message {
                Request::Batch(batch) => self.batch(batch).await?,
                Request::Heartbeat(heartbeat) => self.heartbeat(&heartbeat),
                Request::Goodbye(goodbye) => {
                    tracing::info!(reason = ?cut(&goodbye.reason), "the source stops on purpose");
                    self.presence.iter().for_each(|presence| presence.goodbye(&goodbye.reason));
                }
                Request::HeadKey(key) => self.head_key(&key).await?,
                Request::Head(head) => self.head(&head).await?,
                Request::Hello(_) => return Err(Status::failed_precondition("Hello is sent once").into()),
            }
        }
        Ok(())
    }

    /// The next message; `None` at the end, also when the connection is to be closed.
    async fn next(&mut self) -> Result<Option<Request>, Stop> {
        self.presence.iter_mut().for_each(Presence::waits);
        let message = self.message().await?;
        // Whoever may send no more is not heard either, be it only with heartbeats.
        if message.is_some() && self.presence.is_some() {
            self.check_standing()?;
            self.presence.iter_mut().for_each(Presence::takes);
        }
        Ok(message)
    }

    async fn message(&mut self) -> Result<Option<Request>, Stop> {
        let message = tokio::select! {
            biased;
            () = self.peer.closing.cancelled() => {
                self.shared.sources.ends_with(self.source.id, Code::Unavailable);
                let drain = Answer::Drain(v1::Drain { reconnect_ms: RECONNECT_MS });
                let _ = self.queue.send(Item::Answer(Box::new(drain))).await;
                return Ok(None);
            }
            () = self.slot.superseded() => {
                return Err(Status::aborted("a newer session of this source has begun").into());
            }
            message = timeout(IDLE_TIMEOUT, self.requests.message()) => message.map_err(|_| {
                Status::unavailable(format!("nothing came for {} s: send heartbeats", IDLE_TIMEOUT.as_secs()))
            })?,
        };
        match message {
            Ok(None) => Ok(None),
            Ok(Some(AppendRequest { message: Some(message) })) => Ok(Some(message)),
            Ok(Some(AppendRequest { message: None })) => {
                Err(Status::invalid_argument("a message of a kind that this server does not know").into())
            }
            // Cut off by the other side: what was handed to the journal is whole, and what was not leaves no trace.
            Err(status) if matches!(status.code(), Code::Cancelled | Code::Unknown) => Err(Stop::Ended),
            Err(status) => Err(status.into()),
        }
    }

    async fn hello(&mut self, hello: &v1::Hello) -> Result<(), Stop> {
        if hello.protocol != PROTOCOL {
            let message = format!("protocol {} is not known, this server speaks {PROTOCOL}", hello.protocol);
            return Err(Status::failed_precondition(message).into());
        }
        // Who names no epoch only asks.
        self.slot.begin(hello.epoch != 0)?;
        let origin = self.shared.journal.origin().as_str();
        let shown = news::welcome(&self.shared.log, origin, &hello.checkpoint).await?;
        let told = shown.told;
        let (head_key, head_time) = self.shared.heads.begin(self.source.id).await.unzip();
        let state = self.shared.journal.source(self.source.id);
        let welcome = v1::Welcome {
            origin: origin.into(),
            source: self.source.id.as_bytes().to_vec().into(),
            epoch: state.map_or(0, |state| state.epoch.get()),
            next_sequence: state.map_or(0, |state| state.next.get()),
            head: state.map(|state| state.head.as_bytes().to_vec().into()).unwrap_or_default(),
            credit_bytes: self.shared.limits.credit_bytes as u64,
            limits: Some(v1::Limits {
                message_bytes: limits::MESSAGE_MAX_BYTES as u64,
                batch_records: wire(limits::BATCH_MAX_RECORDS),
                block_bytes: limits::BLOCK_MAX_BYTES as u64,
                record_bytes: limits::RECORD_MAX_BYTES as u64,
                attributes: wire(limits::ATTRIBUTES_MAX),
                nesting: wire(limits::NESTING_MAX),
                field_bytes: wire(limits::FIELD_MAX_BYTES),
            }),
            server_time_unix_nano: self.shared.clock.believed().get(),
            class: self.source.class_name.clone(),
            checkpoint: shown.note.into(),
            consistency: shown.consistency,
            head_key: head_key.map(|key| key.to_vec().into()).unwrap_or_default(),
            head_time_unix_nano: head_time.unwrap_or_default(),
        };
        let agent: String = hello.agent.chars().take(128).collect();
        tracing::info!(agent = ?agent, epoch = hello.epoch, next = hello.next_sequence, "a source says hello");
        self.hand_on(Item::Welcome(Box::new(welcome), told, state)).await?;
        self.presence = Some(self.shared.sources.welcome(self.source.id, hello));
        Ok(())
    }

    async fn batch(&mut self, message: v1::Batch) -> Result<(), Stop> {
        let arrived = Instant::now();
        let received = self.shared.clock.now().map_err(|stepped| wait(&stepped))?;
        let (epoch, first) = (Epoch::new(message.epoch), SourceSeq::new(message.first));
        // Before room is asked for: what the sender states decides how much of what all share.
        if let Err(problem) = check_size(&message) {
            return Err(Stop::Invalid { problem, epoch, first });
        }
        let cost = message.block.len() + message.count as usize * size_of::<Commitment>();
        let credit = room(&self.credit, cost, self.shared.limits.credit_bytes).await?;
        // With a seat in the queue, so that the acker hears of every batch that the journal takes. Before room is taken of what all share,
        // which must not wait for this sender to take answers.
        let seat = self.queue.clone().reserve_owned().await.map_err(|_| Stop::Ended)?;
        let inflight = room(&self.shared.inflight, cost, self.shared.limits.inflight_bytes).await?;
        let raw_bytes = message.block_bytes;
        let submission = match self.check(message, received) {
            Ok(submission) => submission,
            Err(problem) => return Err(Stop::Invalid { problem, epoch, first }),
        };
        let declared = self.checker.declared();
        let (hash, count) = (submission.batch.hash, submission.batch.count);
        let pending = self.shared.journal.enqueue(submission).await.map_err(|error| self.shared.failed(&error))?;
        // From here on the journal's own queue bounds the bytes.
        drop(inflight);
        metrics::counter!("sigillo_ingest_batches_total").increment(1);
        metrics::counter!("sigillo_ingest_records_total").increment(u64::from(count));
        metrics::counter!("sigillo_ingest_raw_bytes_total").increment(raw_bytes);
        let batch = InFlight { pending, epoch, first, hash, arrived, declared, _credit: credit };
        seat.send(Item::Batch(Box::new(batch)));
        Ok(())
    }

    /// Makes a batch into a submission, or says what is wrong with it.
    fn check(&mut self, message: v1::Batch, received: ReceiptTime) -> Result<Submission, String> {
        let heavy = message.block_bytes > HEAVY_BYTES;
        let batch = Batch::try_from(message).map_err(|error| error.to_string())?;
        let (checker, source, tenants) = (&mut self.checker, &*self.source, &self.shared.identities.tenants);
        let check = || checker.check(source, tenants, batch, received);
        if heavy { tokio::task::block_in_place(check) } else { check() }.map_err(|error| error.to_string())
    }

    /// An open connection survives the removal of its certificate from the configuration, so each batch asks again.
    fn check_standing(&mut self) -> Result<(), Stop> {
        let now = self.shared.identities.source(&self.peer)?;
        if Arc::ptr_eq(&now, &self.source) {
            return Ok(());
        }
        if now.id != self.source.id {
            return Err(Status::unavailable("this certificate belongs to another source now: connect again").into());
        }
        self.source = now;
        self.checker.forget();
        Ok(())
    }

    fn heartbeat(&self, heartbeat: &v1::Heartbeat) {
        self.presence.iter().for_each(|presence| presence.heartbeat(heartbeat));
    }

    async fn head_key(&mut self, message: &v1::HeadKey) -> Result<(), Stop> {
        self.check_standing()?;
        let key = heads::check_key(self.source.id, &message.public_key);
        let key = key.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (done, registered) = oneshot::channel();
        self.hand_on(Item::HeadKey { key, reason: cut(&message.reason), done }).await?;
        // What comes after it is taken once it is a record. If it can't be, the acker has said so.
        registered.await.map_err(|_| Stop::Ended)
    }

    async fn head(&mut self, message: &v1::SignedHead) -> Result<(), Stop> {
        self.check_standing()?;
        // One byte too many is as wrong as all that came, and a copy does not hold on to the message.
        let note = message.note.get(..HEAD_MAX_BYTES + 1).unwrap_or(&message.note);
        let (done, taken) = oneshot::channel();
        self.hand_on(Item::Head { note: Bytes::copy_from_slice(note), done }).await?;
        // Nothing is taken behind a head that is wrong.
        taken.await.map_err(|_| Stop::Ended)
    }

    async fn hand_on(&self, item: Item) -> Result<(), Stop> {
        // The acker ends early only after it has told the sender why.
        self.queue.send(item).await.map_err(|_| Stop::Ended)
    }
}

/// Whether a batch has a size that is taken at all, by what it states.
fn check_size(message: &v1::Batch) -> Result<(), String> {
    let v1::Batch { count, block_bytes, block, .. } = message;
    if !(1..=limits::BATCH_MAX_RECORDS).contains(&(*count as usize)) {
        return Err(format!("the batch states {count} records, 1 to {} are taken", limits::BATCH_MAX_RECORDS));
    }
    if *block_bytes > limits::BLOCK_MAX_BYTES as u64 {
        return Err(format!(
            "the batch's block has {block_bytes} bytes, at most {} are taken: cut smaller batches",
            limits::BLOCK_MAX_BYTES
        ));
    }
    if block.len() > limits::COMPRESSED_MAX_BYTES {
        return Err(format!(
            "the batch's block has {} bytes after compression, at most {} are taken: cut smaller batches",
            block.len(),
            limits::COMPRESSED_MAX_BYTES
        ));
    }
    Ok(())
}

/// Room for so many bytes, or for all there may be at once.
async fn room(bytes: &Arc<Semaphore>, wanted: usize, most: usize) -> Result<OwnedSemaphorePermit, Stop> {
    let permits = u32::try_from(wanted.min(most)).unwrap_or(u32::MAX);
    Arc::clone(bytes).acquire_many_owned(permits).await.map_err(|_| Stop::Ended)
}

/// A sender's text, not longer than is wanted in an own record.
fn cut(text: &str) -> String {
    text.chars().take(SENDERS_TEXT_MAX).collect()
}

/// A limit as the wire states it; all are far below 2^32.
fn wire(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
