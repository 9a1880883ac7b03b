//! The Ingest service: the transport's end of a source's stream.
//!
//! Two tasks serve a stream. The *receiver* takes messages, checks batches and hands them to the journal's queue; the *acker*
//! waits for each to be durable and answers in the same order. Between them stands a bounded queue, and before the journal a
//! bound on bytes, so that a peer that sends much or reads nothing is held back by HTTP/2's flow control and by nothing else.

mod acker;
mod news;
mod receiver;
mod streams;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use sigillo_journal::{Journal, Pending, SubmitError};
use sigillo_model::{
    ids::{BatchHash, Epoch, SourceSeq},
    state::SourceState,
};
use sigillo_proto::v1::{
    self, AppendRequest, AppendResponse, RefusalKind, append_response::Message as Answer, ingest_server::Ingest,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Response, Status, Streaming};
use tracing::Instrument;

use crate::{
    clock::Clock,
    config::{Limits, SourceSettings},
    health::Health,
    identity::{Identities, Peer},
    ingest::{
        heads::{BATCHES_MAX, Heads, Missing, WITHOUT_HEAD_MAX, Wrong},
        pace::Pace,
    },
    log::Resources,
    own::{Event, Own},
    sources::{Declared, Sources},
};
use acker::{Acker, Answers};
use receiver::Receiver;
use streams::Slot;
pub(crate) use streams::Streams;

/// Batches of one stream that may wait for their acknowledgement.
const INFLIGHT_BATCHES: usize = 512;
/// Answers that may wait to be sent.
const ANSWERS: usize = 32;
/// How long a sender is asked to wait when there is no room or no trusted time, milliseconds.
const WAIT_MS: u32 = 5_000;

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
    /// How many of them each source can cause.
    pub(crate) pace: Pace,
    /// Signed heads.
    pub(crate) heads: Heads,
    /// Time of receipt.
    pub(crate) clock: Arc<Clock>,
    /// What the world is told of this server.
    pub(crate) health: Health,
    /// Bounds.
    pub(crate) limits: Limits,
    /// Bytes of batches, on all streams, that were received and are not in the journal's queue yet.
    pub(crate) inflight: Arc<Semaphore>,
    /// Tasks that a stop waits for.
    pub(crate) tasks: TaskTracker,
    /// Checkpoints, and proofs between them.
    pub(crate) log: Resources,
    /// How each source stands.
    pub(crate) sources: Arc<Sources>,
    /// Those that are open.
    pub(crate) streams: Streams,
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
        let stall = self.shared.limits.stall_timeout;
        let answers = Answers::new(answers, stall, peer.closing.clone());
        let acker = Acker::new(Arc::clone(&self.shared), Arc::clone(&source), items, answers);
        let receiver = Receiver::new(Arc::clone(&self.shared), peer, source, request.into_inner(), queue, slot);
        self.shared.tasks.spawn(acker.run().instrument(span.clone()));
        self.shared.tasks.spawn(receiver.run().instrument(span));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// What the acker is to do, in order.
enum Item {
    /// Answer this, and tell of checkpoints that are newer than what it tells of. The source stands so.
    Welcome(Box<v1::Welcome>, news::Told, Option<SourceState>),
    /// Answer this.
    Answer(Box<Answer>),
    /// Wait until the batch is durable, then acknowledge it.
    Batch(Box<InFlight>),
    /// Register this key, with the sender's reason, and tell the receiver that it is done.
    HeadKey { key: [u8; 32], reason: String, done: oneshot::Sender<()> },
    /// Check this signed head, make it a record, acknowledge it, then tell the receiver that it is done.
    Head { note: Bytes, done: oneshot::Sender<()> },
    /// Refuse a batch that can't be taken, and end the stream.
    Invalid { problem: String, epoch: Epoch, first: SourceSeq },
    /// Answer this, if anything, and end the stream with this status.
    End(Option<Box<Answer>>, Status),
}

struct InFlight {
    pending: Pending,
    epoch: Epoch,
    first: SourceSeq,
    hash: BatchHash,
    arrived: Instant,
    declared: Declared,
    /// Of the stream's credit. Given back once the acknowledgement is on its way.
    _credit: OwnedSemaphorePermit,
}

/// Why the receiver takes no more.
enum Stop {
    /// The sender has ended its half, or is gone.
    Ended,
    /// The batch with these numbers can't be taken.
    Invalid { problem: String, epoch: Epoch, first: SourceSeq },
    /// The sender is to be told.
    Tell(Option<Box<Answer>>, Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Tell(None, status)
    }
}

impl Shared {
    /// What a sender is told of a batch that can't be taken. The sender sets it aside, so the journal says that it did.
    async fn invalid(&self, source: &SourceSettings, message: String, epoch: Epoch, first: SourceSeq) -> Stop {
        self.sources.refused(source.id, RefusalKind::Invalid);
        tracing::warn!(%epoch, %first, message, "a batch is invalid");
        let event = Event::new("source.refused")
            .warning()
            .outcome(v1::Outcome::Denied)
            .target("source", &source.name)
            .body(format!("a batch of source {} was refused: {message}", source.name))
            .number("epoch", epoch.get())
            .number("first", first.get());
        self.note(source, self.uncovered(source, event)).await;
        let status = Status::invalid_argument(message.clone());
        let kind = RefusalKind::Invalid.into();
        let (epoch, first) = (epoch.get(), first.get());
        let refusal = v1::Refusal { kind, message, epoch, first, expected_epoch: 0, expected_sequence: 0 };
        Stop::Tell(Some(Box::new(Answer::Refusal(refusal))), status)
    }

    /// Records what a source did wrong, or lets that wait for its turn where the source does so much of it.
    async fn note(&self, source: &SourceSettings, event: Event) {
        if let Some(event) = self.pace.pass(source.id, event) {
            self.own.note(event).await;
        }
    }

    /// Records what has waited for its turn.
    pub(crate) async fn note_due(&self) {
        self.note_all(self.pace.due()).await;
    }

    /// No stream is open any more: records what is left to tell of them.
    pub(crate) async fn ended(&self) {
        self.note_all(self.pace.rest()).await;
        self.heads.attend().await;
    }

    async fn note_all(&self, events: Vec<Event>) {
        join_all(events.into_iter().map(|event| self.own.note(event))).await;
    }

    /// What a sender is told of a head that says something wrong. Somebody else may be signing, or have altered what it keeps: an alarm.
    async fn wrong_head(&self, source: &SourceSettings, wrong: &Wrong, note: &[u8], at: Option<SourceState>) -> Stop {
        let message = format!("a signed head is wrong: {wrong}");
        tracing::warn!(message, "a signed head is refused");
        let event = Event::new("source.head_invalid")
            .body(format!("source {} has sent a signed head that is wrong: {wrong}", source.name))
            .text("differs", wrong.name())
            .text("note", String::from_utf8_lossy(note));
        self.head_alarm(source, event, message, at).await
    }

    /// What a sender is told that has a key and signs no heads.
    async fn missing_head(&self, source: &SourceSettings, missing: &Missing, at: Option<SourceState>) -> Stop {
        let Missing { batches, during } = missing;
        let seconds = during.as_secs();
        let message = format!(
            "{batches} batches came within {seconds} s without a signed head: a head is due every {BATCHES_MAX} batches and              {} s at least",
            WITHOUT_HEAD_MAX.as_secs()
        );
        tracing::warn!(batches, seconds, "signed heads are missing");
        let event = Event::new("source.head_missing")
            .body(format!("source {} sends batches without a signed head: {message}", source.name))
            .number("batches", *batches)
            .number("seconds", seconds);
        self.head_alarm(source, event, message, at).await
    }

    /// Adds to an alarm which of the source's records no good head covers: nobody has signed that they are what was read.
    fn uncovered(&self, source: &SourceSettings, event: Event) -> Event {
        let (covered, time_ns) = self.heads.last(source.id);
        let (to_epoch, to) =
            self.journal.source(source.id).map_or((0, 0), |state| (state.epoch.get(), state.next.get()));
        let event = event.number("last_head_unix_nano", time_ns).number("to_epoch", to_epoch).number("to_sequence", to);
        match covered {
            Some((epoch, next)) => event.number("from_epoch", epoch.get()).number("from_sequence", next.get()),
            None => event,
        }
    }

    /// Records an alarm about heads, with the range of what no good head covers.
    async fn head_alarm(
        &self,
        source: &SourceSettings,
        event: Event,
        message: String,
        at: Option<SourceState>,
    ) -> Stop {
        let kind = RefusalKind::Head;
        self.sources.refused(source.id, kind);
        let (epoch, first) = at.map_or((0, 0), |at| (at.epoch.get(), at.next.get()));
        let event = event.warning().outcome(v1::Outcome::Denied).target("source", &source.name);
        self.note(source, self.uncovered(source, event)).await;
        let status = Status::failed_precondition(message.clone());
        let (kind, expected_epoch, expected_sequence) = (kind.into(), epoch, first);
        let refusal = v1::Refusal { kind, message, epoch, first, expected_epoch, expected_sequence };
        Stop::Tell(Some(Box::new(Answer::Refusal(refusal))), status)
    }

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
