//! The product's own records: starts, stops, reads, alarms. They take the same way into the journal as everybody's.

use sigillo_journal::{Journal, Submission, SubmitError, TenantRun};
use sigillo_model::{
    batch::{Batch, BatchError, commitments},
    block::{BlockBuilder, Inflater, PushError},
    class::Class,
    envelope::Flags,
    ids::{BatchHash, BatchSecret, Epoch, SourceId, SourceSeq, TenantId},
    record::Record,
};
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value::Value},
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

use crate::{clock::Clock, config::PROVIDER};

/// Own records that may wait.
const WAITING_MAX: usize = 1_024;
/// Of these, so many go into one batch at most.
const BATCH_MAX: usize = 256;
/// zstd's fastest: own batches are small.
const COMPRESSION: i32 = 1;

/// Id of the source under which the product's own records stand.
pub(crate) fn source() -> SourceId {
    SourceId::from_name(Class::Journal.name())
}

/// An own record could not be made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnError {
    /// The journal does not take it.
    #[error("the journal does not take its own records: {0}")]
    Journal(String),
    /// It is larger than a record may be.
    #[error("the journal's own record is too large: {0}")]
    TooLarge(PushError),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
}

/// Something that the product did or noticed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    core: v1::CorePart,
    personal: Option<v1::PersonalPart>,
    content: v1::ContentPart,
}

impl Event {
    /// An event of this name, of informational severity, that went well.
    pub(crate) fn new(name: &str) -> Self {
        let core = v1::CorePart {
            event_name: name.into(),
            action: name.into(),
            severity_number: 9,
            outcome: v1::Outcome::Success.into(),
            ..Default::default()
        };
        Self { core, ..Self::default() }
    }

    /// Somebody should look at it.
    #[must_use]
    pub(crate) fn warning(mut self) -> Self {
        self.core.severity_number = 13;
        self
    }

    /// How it ended, where not well.
    #[must_use]
    pub(crate) fn outcome(mut self, outcome: v1::Outcome) -> Self {
        self.core.outcome = outcome.into();
        self
    }

    /// What it was done to.
    #[must_use]
    pub(crate) fn target(mut self, kind: &str, id: &str) -> Self {
        self.core.target = Some(v1::Target { r#type: kind.into(), id: id.into() });
        self
    }

    /// Who did it, and from where.
    #[must_use]
    pub(crate) fn actor(mut self, id: &str, kind: v1::ActorKind, address: &str, session: &str) -> Self {
        self.personal = Some(v1::PersonalPart {
            actor: Some(v1::Actor { id: id.into(), name: String::new(), kind: kind.into() }),
            client_address: address.into(),
            session: session.into(),
            ..Default::default()
        });
        self
    }

    /// A sentence for people.
    #[must_use]
    pub(crate) fn body(mut self, text: impl Into<String>) -> Self {
        self.content.body = Some(text_value(text));
        self
    }

    /// A further fact.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        let value = Some(v1::AnyValue { value: Some(value) });
        self.content.attributes.push(v1::KeyValue { key: key.into(), value });
        self
    }

    /// A further fact that is a text.
    #[must_use]
    pub(crate) fn text(self, key: &str, text: impl Into<String>) -> Self {
        self.with(key, Value::StringValue(text.into()))
    }

    /// A further fact that is a number.
    #[must_use]
    pub(crate) fn number(self, key: &str, number: impl TryInto<i64>) -> Self {
        self.with(key, Value::IntValue(number.try_into().unwrap_or(i64::MAX)))
    }

    fn encode(mut self, host: &str, time_ns: u64) -> Record {
        self.core.event_time_unix_nano = time_ns;
        self.core.observed_time_unix_nano = time_ns;
        host.clone_into(&mut self.core.host);
        self.core.program = "sigillod".into();
        Fields { core: Some(self.core), personal: self.personal, content: Some(self.content), unreadable: vec![] }
            .encode()
    }
}

fn text_value(text: impl Into<String>) -> v1::AnyValue {
    v1::AnyValue { value: Some(Value::StringValue(text.into())) }
}

/// Where own records are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    orders: mpsc::Sender<Order>,
    clock: Arc<Clock>,
    host: Arc<str>,
}

#[derive(Debug)]
struct Order {
    record: Record,
    done: oneshot::Sender<Result<(), OwnError>>,
}

impl Own {
    /// Begins an epoch of own records. The task behind it ends with the last handle.
    pub(crate) fn start(journal: Journal, clock: Arc<Clock>, host: &str) -> Self {
        let (orders, waiting) = mpsc::channel(WAITING_MAX);
        // The time of the start, as a number that has never been used; after the last one even if the clock went back.
        let last = journal.source(source()).map_or(0, |state| state.epoch.get());
        let epoch = Epoch::new(clock.believed().get().max(last.saturating_add(1)));
        let previous = journal.epoch_opening(source(), epoch);
        let writer = Writer {
            journal,
            clock: Arc::clone(&clock),
            epoch,
            next: SourceSeq::new(0),
            previous,
            builder: BlockBuilder::default(),
            inflater: Inflater::default(),
            unanswered: None,
        };
        tokio::spawn(writer.run(waiting));
        Self { orders, clock, host: host.into() }
    }

    /// Returns once the event is durable.
    pub(crate) async fn record(&self, event: Event) -> Result<(), OwnError> {
        let record = event.encode(&self.host, self.clock.believed().get());
        let (done, outcome) = oneshot::channel();
        self.orders.send(Order { record, done }).await.map_err(|_| OwnError::Stopped)?;
        outcome.await.unwrap_or(Err(OwnError::Stopped))
    }

    /// Records what must not stop what it tells of: a failure goes to the server's log.
    pub(crate) async fn note(&self, event: Event) {
        let name = event.core.event_name.clone();
        if let Err(error) = self.record(event).await {
            tracing::error!(event = name, %error, "an own record could not be written");
        }
    }
}

struct Writer {
    journal: Journal,
    clock: Arc<Clock>,
    epoch: Epoch,
    next: SourceSeq,
    previous: BatchHash,
    builder: BlockBuilder,
    inflater: Inflater,
    /// A batch that got no answer: it may be in the journal or not, so it is sent again before any other takes its numbers.
    unanswered: Option<Submission>,
}

impl Writer {
    /// One batch at a time, of whatever came while the one before was being made durable.
    async fn run(mut self, mut waiting: mpsc::Receiver<Order>) {
        let mut orders = Vec::with_capacity(BATCH_MAX);
        while waiting.recv_many(&mut orders, BATCH_MAX).await > 0 {
            let mut taken = Vec::with_capacity(orders.len());
            for order in orders.drain(..) {
                match self.builder.push(order.record.as_ref()) {
                    Ok(()) => taken.push(order.done),
                    Err(PushError::Full) => {
                        self.write(&mut taken).await;
                        // An empty block takes every record that is within the limit by itself.
                        match self.builder.push(order.record.as_ref()) {
                            Ok(()) => taken.push(order.done),
                            Err(error) => answer(order.done, Err(OwnError::TooLarge(error))),
                        }
                    }
                    Err(error) => answer(order.done, Err(OwnError::TooLarge(error))),
                }
            }
            self.write(&mut taken).await;
        }
    }

    async fn write(&mut self, taken: &mut Vec<oneshot::Sender<Result<(), OwnError>>>) {
        if taken.is_empty() {
            return;
        }
        let outcome = self.submit().await;
        if outcome.is_err() {
            // Those who wait for these records are told that they are not written; so they must not be, later.
            self.builder = BlockBuilder::default();
        }
        taken.drain(..).for_each(|done| answer(done, outcome.clone()));
    }

    async fn submit(&mut self) -> Result<(), OwnError> {
        if let Some(submission) = self.unanswered.take() {
            self.settle(submission).await?;
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| OwnError::Random(error.to_string()))?;
        let secret = BatchSecret::new(secret);
        let broken = |error: BatchError| OwnError::Journal(error.to_string());
        let (epoch, first, previous) = (self.epoch, self.next, self.previous);
        let batch =
            Batch::seal(&mut self.builder, source(), epoch, first, previous, secret, COMPRESSION).map_err(broken)?;
        let block = batch.open(&mut self.inflater).map_err(broken)?;
        let commitments = commitments(&batch.secret, &block);
        let run = TenantRun {
            tenant: TenantId::from_name(PROVIDER),
            retention: Class::Journal.retention(),
            flags: Flags::COMMITTED_BY_LISTENER,
            records: batch.count,
        };
        let submission = Submission {
            source: source(),
            class: Class::Journal.id(),
            batch,
            commitments,
            runs: vec![run],
            received: self.clock.believed(),
        };
        self.settle(submission).await
    }

    async fn settle(&mut self, submission: Submission) -> Result<(), OwnError> {
        let (end, hash) = (submission.batch.end(), submission.batch.hash);
        match self.journal.submit(submission.clone()).await {
            Ok(_) => {
                self.next = end;
                self.previous = hash;
                Ok(())
            }
            Err(error) => {
                // A refused batch is certainly not in the journal: its numbers are free again.
                if !matches!(error, SubmitError::Refused(_)) {
                    self.unanswered = Some(submission);
                }
                Err(OwnError::Journal(error.to_string()))
            }
        }
    }
}

/// Whoever asked may be gone.
fn answer(done: oneshot::Sender<Result<(), OwnError>>, outcome: Result<(), OwnError>) {
    let _ = done.send(outcome);
}
