//! The Ingest service: the transport's end of a source's stream.
//!
//! Two tasks serve a stream. The *receiver* takes messages, checks batches and hands them to the journal's queue; the *acker*
//! waits for each to be durable and answers in the same order. Between them stands a bounded queue, and before the journal a
//! bound on bytes, so that a peer that sends much or reads nothing is held back by HTTP/2's flow control and by nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sigillo_journal::{Journal, Pending, Receipt, Refusal, SubmitError};
use sigillo_model::{
    batch::Batch,
    ids::{BatchHash, Epoch, SourceId, SourceSeq},
    limits,
};
use sigillo_proto::v1::{
    self, AppendRequest, AppendResponse, RefusalKind, append_request::Message as Request,
    append_response::Message as Answer, ingest_server::Ingest,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Response, Status, Streaming};
use tracing::Instrument;

use super::check::Checker;
use crate::{
    clock::Clock,
    config::{Limits, SourceSettings},
    health::Health,
    identity::{Identities, Peer},
    own::{Event, Own},
};

/// Version of the protocol.
const PROTOCOL: u32 = 1;
/// Batches of one stream that may wait for their acknowledgement.
const INFLIGHT_BATCHES: usize = 512;
/// Answers that may wait to be sent.
const ANSWERS: usize = 32;
/// Most time between the stream's opening and its Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A block of more bytes is checked off the threads that serve everybody.
const HEAVY_BYTES: u64 = 256 << 10;
/// How long a sender is asked to wait when there is no room or no trusted time, milliseconds.
const WAIT_MS: u32 = 5_000;
/// When a sender may come back after a drain, milliseconds.
const RECONNECT_MS: u32 = 1_000;
/// Longest text of a sender that is put into the product's own records, characters.
const SENDERS_TEXT_MAX: usize = 1_024;

/// The service.
#[derive(Debug)]
pub(crate) struct IngestService {
    shared: Arc<Shared>,
}

/// What all streams share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where records go.
    pub(crate) journal: Journal,
    /// Who is who.
    pub(crate) identities: Arc<Identities>,
    /// The product's own records.
    pub(crate) own: Own,
    /// Time of receipt.
    pub(crate) clock: Arc<Clock>,
    /// What the world is told of this server.
    pub(crate) health: Health,
    /// Bounds.
    pub(crate) limits: Limits,
    /// Bytes of batches under way, on all streams.
    pub(crate) inflight: Arc<Semaphore>,
    /// Tasks that a stop waits for.
    pub(crate) tasks: TaskTracker,
    /// Streams by source.
    pub(crate) streams: Mutex<HashMap<SourceId, usize>>,
}

impl IngestService {
    /// Serves streams.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    type AppendStream = ReceiverStream<Result<AppendResponse, Status>>;

    async fn append(
        &self,
        request: tonic::Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let peer = Peer::of(&request)?;
        let source = self.shared.identities.source(&peer)?;
        let slot = Slot::take(&self.shared, source.id)?;
        let (answers, stream) = mpsc::channel(ANSWERS);
        let (queue, items) = mpsc::channel(INFLIGHT_BATCHES);
        let span = tracing::info_span!("append", source = %source.name, address = %peer.address);
        let answers = Answers { sender: answers, stall: self.shared.limits.stall_timeout };
        let acker = Acker { shared: Arc::clone(&self.shared), source: Arc::clone(&source), answers };
        let receiver = Receiver {
            shared: Arc::clone(&self.shared),
            peer,
            source,
            requests: request.into_inner(),
            queue,
            credit: Arc::new(Semaphore::new(self.shared.limits.credit_bytes)),
            checker: Checker::default(),
        };
        self.shared.tasks.spawn(acker.run(items).instrument(span.clone()));
        self.shared.tasks.spawn(
            async move {
                receiver.run().await;
                drop(slot);
            }
            .instrument(span),
        );
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// One of the streams that a source may have.
struct Slot {
    shared: Arc<Shared>,
    source: SourceId,
}

impl Slot {
    fn take(shared: &Arc<Shared>, source: SourceId) -> Result<Self, Status> {
        let mut streams = shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(source).or_default();
        let most = shared.limits.streams_per_source;
        if *open >= most {
            return Err(Status::resource_exhausted(format!(
                "this source has {most} streams open, the most it may have: end one first"
            )));
        }
        *open += 1;
        Ok(Self { shared: Arc::clone(shared), source })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = streams.get_mut(&self.source) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.source);
            }
        }
    }
}

/// What the acker is to do, in order.
enum Item {
    /// Answer this.
    Answer(Answer),
    /// Wait until the batch is durable, then acknowledge it.
    Batch(Box<InFlight>),
    /// Answer this, if anything, and end the stream with this status.
    End(Option<Box<Answer>>, Status),
}

struct InFlight {
    pending: Pending,
    epoch: Epoch,
    first: SourceSeq,
    hash: BatchHash,
    arrived: Instant,
    /// Given back once the acknowledgement is on its way.
    _bytes: [OwnedSemaphorePermit; 2],
}

struct Receiver {
    shared: Arc<Shared>,
    peer: Peer,
    source: Arc<SourceSettings>,
    requests: Streaming<AppendRequest>,
    queue: mpsc::Sender<Item>,
    credit: Arc<Semaphore>,
    checker: Checker,
}

/// Why the receiver takes no more.
enum Stop {
    /// The sender has ended its half, or is gone.
    Ended,
    /// The sender is to be told.
    Tell(Option<Box<Answer>>, Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Tell(None, status)
    }
}

impl Receiver {
    async fn run(mut self) {
        tracing::debug!("a stream begins");
        match self.receive().await {
            Err(Stop::Tell(answer, status)) => {
                tracing::info!(code = ?status.code(), reason = status.message(), "the stream is ended");
                // Behind what was taken before, so that its acknowledgements come first.
                let _ = self.queue.send(Item::End(answer, status)).await;
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
                Request::Loss(loss) => self.loss(&loss).await?,
                Request::Hello(_) => return Err(Status::failed_precondition("Hello is sent once").into()),
            }
        }
        Ok(())
    }

    /// The next message; `None` at the end, also when the connection is to be closed.
    async fn next(&mut self) -> Result<Option<Request>, Stop> {
        let message = tokio::select! {
            biased;
            () = self.peer.closing.cancelled() => {
                let drain = Answer::Drain(v1::Drain { reconnect_ms: RECONNECT_MS });
                let _ = self.queue.send(Item::Answer(drain)).await;
                return Ok(None);
            }
            message = self.requests.message() => message,
        };
        match message {
            Ok(None) => Ok(None),
            Ok(Some(AppendRequest { message: Some(message) })) => Ok(Some(message)),
            Ok(Some(AppendRequest { message: None })) => {
                Err(Status::invalid_argument("a message of a kind that this server does not know").into())
            }
            // Cut off by the other side: what was handed to the journal is whole, and what was not leaves no trace.
            Err(status) if matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Unknown) => Err(Stop::Ended),
            Err(status) => Err(status.into()),
        }
    }

    async fn hello(&self, hello: &v1::Hello) -> Result<(), Stop> {
        if hello.protocol != PROTOCOL {
            let message = format!("protocol {} is not known, this server speaks {PROTOCOL}", hello.protocol);
            return Err(Status::failed_precondition(message).into());
        }
        let state = self.shared.journal.source(self.source.id);
        let welcome = v1::Welcome {
            origin: self.shared.journal.origin().as_str().into(),
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
        };
        let agent: String = hello.agent.chars().take(128).collect();
        tracing::info!(agent = ?agent, epoch = hello.epoch, next = hello.next_sequence, "a source says hello");
        self.hand_on(Item::Answer(Answer::Welcome(welcome))).await
    }

    async fn batch(&mut self, message: v1::Batch) -> Result<(), Stop> {
        let arrived = Instant::now();
        self.check_standing()?;
        let received = self.shared.clock.now().map_err(|stepped| wait(&stepped))?;
        let cost = message.block.len() + message.count as usize * size_of::<BatchHash>();
        let bytes = [
            room(&self.credit, cost, self.shared.limits.credit_bytes).await?,
            room(&self.shared.inflight, cost, self.shared.limits.inflight_bytes).await?,
        ];
        let raw_bytes = message.block_bytes;
        let (epoch, first) = (message.epoch, message.first);
        let refuse = |problem: String| invalid(&self.source, problem, epoch, first);
        let batch = Batch::try_from(message).map_err(|error| refuse(error.to_string()))?;
        let (hash, count) = (batch.hash, batch.count);
        let (source, tenants) = (&*self.source, &self.shared.identities.tenants);
        let checker = &mut self.checker;
        let outcome = if raw_bytes > HEAVY_BYTES {
            tokio::task::block_in_place(|| checker.check(source, tenants, batch, received))
        } else {
            checker.check(source, tenants, batch, received)
        };
        let submission = outcome.map_err(|error| refuse(error.to_string()))?;
        let pending = self.shared.journal.enqueue(submission).await.map_err(|error| self.shared.failed(&error))?;
        metrics::counter!("sigillo_ingest_batches_total").increment(1);
        metrics::counter!("sigillo_ingest_records_total").increment(u64::from(count));
        metrics::counter!("sigillo_ingest_raw_bytes_total").increment(raw_bytes);
        let (epoch, first) = (Epoch::new(epoch), SourceSeq::new(first));
        self.hand_on(Item::Batch(Box::new(InFlight { pending, epoch, first, hash, arrived, _bytes: bytes }))).await
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
        let waiting = u32::try_from(heartbeat.waiting_records).unwrap_or(u32::MAX);
        metrics::gauge!("sigillo_source_waiting_records", "source" => self.source.name.clone()).set(waiting);
    }

    async fn loss(&mut self, loss: &v1::Loss) -> Result<(), Stop> {
        self.check_standing()?;
        let event = Event::new("source.loss")
            .warning()
            .outcome(v1::Outcome::Failure)
            .target("source", &self.source.name)
            .body(format!("source {} says that lines were lost before they became records", self.source.name))
            .text("stream", cut(&loss.stream))
            .number("lines", loss.lines)
            .number("bytes", loss.bytes)
            .text("reason", cut(&loss.reason))
            .number("noticed_unix_nano", loss.noticed_unix_nano);
        self.shared.own.record(event).await.map_err(|error| {
            tracing::error!(%error, "a declared loss could not be recorded");
            Stop::Tell(None, Status::unavailable("the loss could not be recorded: declare it again"))
        })
    }

    async fn hand_on(&self, item: Item) -> Result<(), Stop> {
        // The acker ends early only after it has told the sender why.
        self.queue.send(item).await.map_err(|_| Stop::Ended)
    }
}

/// Room for so many bytes, or for all there may be at once.
async fn room(bytes: &Arc<Semaphore>, wanted: usize, most: usize) -> Result<OwnedSemaphorePermit, Stop> {
    let permits = u32::try_from(wanted.min(most)).unwrap_or(u32::MAX);
    Arc::clone(bytes).acquire_many_owned(permits).await.map_err(|_| Stop::Ended)
}

struct Answers {
    sender: mpsc::Sender<Result<AppendResponse, Status>>,
    stall: Duration,
}

/// The sender is gone or takes no answers.
struct Gone;

impl Answers {
    async fn send(&self, answer: Answer) -> Result<(), Gone> {
        self.put(Ok(AppendResponse { message: Some(answer) })).await
    }

    async fn put(&self, answer: Result<AppendResponse, Status>) -> Result<(), Gone> {
        match self.sender.send_timeout(answer, self.stall).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Gone),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                tracing::warn!(seconds = self.stall.as_secs(), "the sender takes no answers: cut off");
                Err(Gone)
            }
        }
    }
}

struct Acker {
    shared: Arc<Shared>,
    source: Arc<SourceSettings>,
    answers: Answers,
}

impl Acker {
    async fn run(self, mut items: mpsc::Receiver<Item>) {
        // When this returns, the queue closes and the receiver ends with it.
        while let Some(item) = items.recv().await {
            let sent = match item {
                Item::Answer(answer) => self.answers.send(answer).await,
                Item::Batch(batch) => self.acknowledge(*batch).await,
                Item::End(answer, status) => {
                    self.end(answer, status).await;
                    Err(Gone)
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    async fn acknowledge(&self, batch: InFlight) -> Result<(), Gone> {
        let receipt = match batch.pending.await {
            Ok(receipt) => receipt,
            Err(SubmitError::Refused(refusal)) => {
                let (answer, status) = self.refused(&refusal, batch.epoch, batch.first, batch.hash).await;
                self.end(Some(Box::new(answer)), status).await;
                return Err(Gone);
            }
            Err(error) => {
                if let Stop::Tell(answer, status) = self.shared.failed(&error) {
                    self.end(answer, status).await;
                }
                return Err(Gone);
            }
        };
        if receipt.first.get() == 0 && !receipt.repeated {
            self.shared.own.note(self.epoch_opened(&receipt)).await;
        }
        metrics::histogram!("sigillo_ack_seconds").record(batch.arrived.elapsed().as_secs_f64());
        self.answers.send(Answer::Ack(ack(&receipt))).await
    }

    async fn end(&self, answer: Option<Box<Answer>>, status: Status) {
        if let Some(answer) = answer
            && self.answers.send(*answer).await.is_err()
        {
            return;
        }
        // A sender that is gone by now needs no status.
        let _ = self.answers.put(Err(status)).await;
    }

    fn epoch_opened(&self, receipt: &Receipt) -> Event {
        Event::new("source.epoch_opened")
            .target("source", &self.source.name)
            .body(format!("source {} has begun to number its records anew", self.source.name))
            .number("epoch", receipt.epoch.get())
            .number("sequence", receipt.seq.get())
            .text("batch_hash", receipt.batch_hash.to_string())
    }

    async fn refused(&self, refusal: &Refusal, epoch: Epoch, first: SourceSeq, hash: BatchHash) -> (Answer, Status) {
        let (kind, expected, message) = match refusal {
            Refusal::Gap { expected_epoch, expected } => (
                RefusalKind::Gap,
                Some((*expected_epoch, *expected)),
                format!("records are missing before this batch: send from {expected} on, or declare a loss in a new epoch"),
            ),
            Refusal::Fork { expected_epoch, expected } => (
                RefusalKind::Fork,
                Some((*expected_epoch, *expected)),
                "other records were received under these numbers: the source's state was copied or rolled back; begin a \
                 new epoch"
                    .to_owned(),
            ),
            Refusal::StaleEpoch { expected_epoch, expected } => (
                RefusalKind::StaleEpoch,
                Some((*expected_epoch, *expected)),
                format!("this source has begun epoch {expected_epoch}: an older one takes no more records"),
            ),
            Refusal::Invalid(problem) => (RefusalKind::Invalid, None, problem.clone()),
        };
        let (expected_epoch, expected_sequence) =
            expected.map_or((0, 0), |(epoch, sequence)| (epoch.get(), sequence.get()));
        metrics::counter!("sigillo_ingest_refusals_total", "kind" => kind.as_str_name()).increment(1);
        tracing::warn!(kind = kind.as_str_name(), %epoch, %first, expected_epoch, expected_sequence, "a batch is refused");
        if kind == RefusalKind::Fork {
            let event = Event::new("source.fork")
                .warning()
                .outcome(v1::Outcome::Denied)
                .target("source", &self.source.name)
                .body(format!("source {} has sent other records under numbers that are taken", self.source.name))
                .number("epoch", epoch.get())
                .number("first", first.get())
                .text("batch_hash", hash.to_string())
                .number("expected_epoch", expected_epoch)
                .number("expected_sequence", expected_sequence);
            self.shared.own.note(event).await;
        }
        let status = Status::failed_precondition(message.clone());
        let refusal = v1::Refusal {
            kind: kind.into(),
            message,
            epoch: epoch.get(),
            first: first.get(),
            expected_epoch,
            expected_sequence,
        };
        (Answer::Refusal(refusal), status)
    }
}

impl Shared {
    /// What a sender is told when the journal can't take a batch now.
    ///
    /// The stream always ends: the batch is dropped here while later ones may be under way, and only a new Hello and Welcome
    /// make both sides agree again on the number to go on from. UNAVAILABLE makes senders retry.
    fn failed(&self, error: &SubmitError) -> Stop {
        match error {
            SubmitError::NoSpace { free_bytes, reserve_bytes } => {
                tracing::error!(free_bytes, reserve_bytes, "the disk's reserve is reached: records are refused");
                wait(&"the server's disk is full to its reserve; records are taken again when there is room")
            }
            SubmitError::Poisoned(reason) => {
                tracing::error!(reason, "the journal's writer takes nothing more until a restart");
                self.health.poisoned();
                Stop::Tell(None, Status::unavailable("the journal takes no records until it is restarted"))
            }
            SubmitError::Unreadable(_) => {
                tracing::error!(%error, "what the journal holds of an earlier batch can't be read");
                let message =
                    "a batch was received under these numbers, but can't be read to compare: the operator must act";
                Stop::Tell(None, Status::unavailable(message))
            }
            SubmitError::Closed => Stop::Tell(None, Status::unavailable("the server is stopping")),
            SubmitError::Refused(_) => {
                tracing::error!(%error, "the journal refused a batch before it was queued");
                Stop::Tell(None, Status::unavailable("the journal has not taken the batch"))
            }
        }
    }
}

fn wait(reason: &impl ToString) -> Stop {
    let reason = reason.to_string();
    let throttle = Answer::Throttle(v1::Throttle { wait_ms: WAIT_MS, reason: reason.clone() });
    Stop::Tell(Some(Box::new(throttle)), Status::unavailable(reason))
}

fn invalid(source: &SourceSettings, message: String, epoch: u64, first: u64) -> Stop {
    metrics::counter!("sigillo_ingest_refusals_total", "kind" => RefusalKind::Invalid.as_str_name()).increment(1);
    tracing::warn!(source = %source.name, epoch, first, message, "a batch is invalid");
    let status = Status::invalid_argument(message.clone());
    let kind = RefusalKind::Invalid.into();
    let refusal = v1::Refusal { kind, message, epoch, first, expected_epoch: 0, expected_sequence: 0 };
    Stop::Tell(Some(Box::new(Answer::Refusal(refusal))), status)
}

fn ack(receipt: &Receipt) -> v1::Ack {
    v1::Ack {
        epoch: receipt.epoch.get(),
        next_sequence: receipt.first.get() + u64::from(receipt.count),
        receipt: Some(v1::Receipt {
            epoch: receipt.epoch.get(),
            first: receipt.first.get(),
            count: receipt.count,
            sequence: receipt.seq.get(),
            chain_hash: receipt.chain_hash.as_bytes().to_vec().into(),
            batch_hash: receipt.batch_hash.as_bytes().to_vec().into(),
            receipt_time_unix_nano: receipt.receipt_time.get(),
        }),
    }
}

/// A sender's text, not longer than is wanted in an own record.
fn cut(text: &str) -> String {
    text.chars().take(SENDERS_TEXT_MAX).collect()
}

/// A limit as the wire states it; all are far below 2^32.
fn wire(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
