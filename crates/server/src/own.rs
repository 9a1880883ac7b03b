//! The product's own records: starts, stops, reads, alarms. They take the same way into the journal as everybody's.

use sigillo_journal::{Journal, Receipt, Refusal, Submission, SubmitError, TenantRun};
use sigillo_model::{
    batch::{Batch, BatchError, commitments},
    block::{BlockBuilder, Inflater, PushError},
    class::Class,
    envelope::Flags,
    ids::{BatchHash, BatchSecret, Epoch, ReceiptTime, SourceId, SourceSeq, TenantId},
    record::Record,
    state::JournalState,
};
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value::Value},
};
use std::sync::{Arc, Mutex, PoisonError};
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

    /// The text of a statement, for programs to verify.
    #[must_use]
    pub(crate) fn original(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.content.original = Vec::into(text.into());
        self
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.core.event_name
    }

    /// A fact that is a number, by its key.
    #[cfg(test)]
    pub(crate) fn attribute(&self, key: &str) -> i64 {
        let attribute = self.content.attributes.iter().find(|attribute| attribute.key == key);
        match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
            Some(Value::IntValue(number)) => *number,
            other => panic!("{key} is {other:?}"),
        }
    }

    /// The statement's text.
    #[cfg(test)]
    pub(crate) fn into_original(self) -> Vec<u8> {
        self.content.original.to_vec()
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

/// Makes an event of the state at which its record will stand.
type Compose = Box<dyn FnOnce(&JournalState) -> Result<Event, OwnError> + Send>;

enum Order {
    /// Write this.
    Record { record: Record, done: oneshot::Sender<Result<(), OwnError>> },
    /// Write what this makes, by itself.
    Compose { make: Compose, host: Arc<str>, done: oneshot::Sender<Result<Receipt, OwnError>> },
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
        self.orders.send(Order::Record { record, done }).await.map_err(|_| OwnError::Stopped)?;
        outcome.await.unwrap_or(Err(OwnError::Stopped))
    }

    /// Writes the event that `make` makes of the journal's state right before its record. Returns once it is durable. `make` runs
    /// in the journal's writer: it must be quick.
    pub(crate) async fn compose(
        &self,
        make: impl FnOnce(&JournalState) -> Result<Event, OwnError> + Send + 'static,
    ) -> Result<Receipt, OwnError> {
        let (done, outcome) = oneshot::channel();
        let order = Order::Compose { make: Box::new(make), host: Arc::clone(&self.host), done };
        self.orders.send(order).await.map_err(|_| OwnError::Stopped)?;
        outcome.await.unwrap_or(Err(OwnError::Stopped))
    }

    /// Records what must not stop what it tells of: a failure goes to the server's log.
    pub(crate) async fn note(&self, event: Event) {
        let name = event.name().to_owned();
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
                let (record, done) = match order {
                    Order::Record { record, done } => (record, done),
                    Order::Compose { make, host, done } => {
                        self.write(&mut taken).await;
                        answer(done, self.compose(make, host).await);
                        continue;
                    }
                };
                match self.builder.push(record.as_ref()) {
                    Ok(()) => taken.push(done),
                    Err(PushError::Full) => {
                        self.write(&mut taken).await;
                        // An empty block takes every record that is within the limit by itself.
                        match self.builder.push(record.as_ref()) {
                            Ok(()) => taken.push(done),
                            Err(error) => answer(done, Err(OwnError::TooLarge(error))),
                        }
                    }
                    Err(error) => answer(done, Err(OwnError::TooLarge(error))),
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
        let place = self.place()?;
        let submission = place.seal(&mut self.builder, &mut self.inflater)?;
        self.settle(submission).await
    }

    /// Writes one record that speaks of the journal's state right before it.
    async fn compose(&mut self, make: Compose, host: Arc<str>) -> Result<Receipt, OwnError> {
        if let Some(submission) = self.unanswered.take() {
            self.settle(submission).await?;
        }
        let place = self.place()?;
        // What was made, and why nothing was, if nothing was.
        let result: Arc<Mutex<Option<Result<Submission, OwnError>>>> = Arc::default();
        let slot = Arc::clone(&result);
        let compose = move |state: &JournalState| {
            let record = make(state).map(|event| event.encode(&host, place.received.get()));
            let submission = record.and_then(|record| {
                let mut builder = BlockBuilder::default();
                builder.push(record.as_ref()).map_err(OwnError::TooLarge)?;
                place.seal(&mut builder, &mut Inflater::default())
            });
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(submission.clone());
            submission.map_err(|error| SubmitError::Refused(Refusal::Invalid(error.to_string())))
        };
        let outcome = self.journal.compose(Box::new(compose)).await;
        let result = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (outcome, result) {
            (Ok(receipt), Some(Ok(submission))) => {
                (self.next, self.previous) = (submission.batch.end(), submission.batch.hash);
                Ok(receipt)
            }
            (Err(_), Some(Err(error))) => Err(error),
            (Err(error), Some(Ok(submission))) => {
                if !matches!(error, SubmitError::Refused(_)) {
                    self.unanswered = Some(submission);
                }
                Err(OwnError::Journal(error.to_string()))
            }
            (Err(error), None) => Err(OwnError::Journal(error.to_string())),
            (Ok(_), _) => Err(OwnError::Journal("a receipt for nothing".into())),
        }
    }

    /// Where the next batch will stand.
    fn place(&self) -> Result<Place, OwnError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| OwnError::Random(error.to_string()))?;
        let secret = BatchSecret::new(secret);
        let (epoch, first, previous) = (self.epoch, self.next, self.previous);
        Ok(Place { epoch, first, previous, secret, received: self.clock.believed() })
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

/// Where a batch of own records stands, with its secret and its time.
struct Place {
    epoch: Epoch,
    first: SourceSeq,
    previous: BatchHash,
    secret: BatchSecret,
    received: ReceiptTime,
}

impl Place {
    fn seal(self, builder: &mut BlockBuilder, inflater: &mut Inflater) -> Result<Submission, OwnError> {
        let broken = |error: BatchError| OwnError::Journal(error.to_string());
        let Self { epoch, first, previous, secret, received } = self;
        let batch = Batch::seal(builder, source(), epoch, first, previous, secret, COMPRESSION).map_err(broken)?;
        let block = batch.open(inflater).map_err(broken)?;
        let commitments = commitments(&batch.secret, &block);
        let run = TenantRun {
            tenant: TenantId::from_name(PROVIDER),
            retention: Class::Journal.retention(),
            flags: Flags::COMMITTED_BY_LISTENER,
            records: batch.count,
        };
        Ok(Submission { source: source(), class: Class::Journal.id(), batch, commitments, runs: vec![run], received })
    }
}

/// Whoever asked may be gone.
fn answer<T>(done: oneshot::Sender<Result<T, OwnError>>, outcome: Result<T, OwnError>) {
    let _ = done.send(outcome);
}
