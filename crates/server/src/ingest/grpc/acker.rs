//! Answers a source, in order: a batch is acknowledged once it is durable.

use std::{sync::Arc, time::Duration};

use sigillo_journal::{Receipt, Refusal, SubmitError};
use sigillo_model::{
    ids::{BatchHash, Count, Epoch, SourceSeq},
    state::SourceState,
};
use sigillo_proto::v1::{self, AppendResponse, RefusalKind, append_response::Message as Answer};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    InFlight, Item, Shared, Stop,
    news::{self, NEWS_EVERY},
    wait,
};
use crate::{
    config::SourceSettings,
    ingest::heads::{HeadRefused, Registered},
    own::Event,
};

/// The way to the sender.
pub(super) struct Answers {
    sender: mpsc::Sender<Result<AppendResponse, Status>>,
    stall: Duration,
    closing: CancellationToken,
}

/// The sender is gone or takes no answers.
struct Gone;

impl Answers {
    /// Waits no longer than `stall` for the sender to take an answer, then closes its connection by `closing`.
    pub(super) fn new(
        sender: mpsc::Sender<Result<AppendResponse, Status>>,
        stall: Duration,
        closing: CancellationToken,
    ) -> Self {
        Self { sender, stall, closing }
    }

    async fn send(&self, answer: Answer) -> Result<(), Gone> {
        self.put(Ok(AppendResponse { message: Some(answer) })).await
    }

    async fn put(&self, answer: Result<AppendResponse, Status>) -> Result<(), Gone> {
        match self.sender.send_timeout(answer, self.stall).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Gone),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                tracing::warn!(seconds = self.stall.as_secs(), "the sender takes no answers: its connection is closed");
                // What the transport holds for it can't be sent, so the stream alone would never end.
                self.closing.cancel();
                Err(Gone)
            }
        }
    }
}

/// The answering end of a stream.
pub(super) struct Acker {
    shared: Arc<Shared>,
    source: Arc<SourceSettings>,
    items: mpsc::Receiver<Item>,
    answers: Answers,
    /// Where the source stands by what came on this stream, durably.
    at: Option<SourceState>,
    /// Time of its newest head that is a durable record.
    head_time: u64,
}

impl Acker {
    pub(super) fn new(
        shared: Arc<Shared>,
        source: Arc<SourceSettings>,
        items: mpsc::Receiver<Item>,
        answers: Answers,
    ) -> Self {
        Self { shared, source, items, answers, at: None, head_time: 0 }
    }

    pub(super) async fn run(mut self) {
        let mut told = None;
        let mut news_at = Instant::now() + NEWS_EVERY;
        // When this returns, the queue closes and the receiver ends with it.
        loop {
            let item = tokio::select! {
                item = self.items.recv() => item,
                () = sleep_until(news_at), if told.is_some() => {
                    if self.tell(&mut told).await.is_err() {
                        return;
                    }
                    news_at = Instant::now() + NEWS_EVERY;
                    continue;
                }
            };
            let Some(item) = item else { return };
            let sent = match item {
                Item::Welcome(welcome, shown, state) => {
                    told = Some(shown);
                    (self.at, self.head_time) = (state, welcome.head_time_unix_nano);
                    self.answers.send(Answer::Welcome(*welcome)).await
                }
                Item::Answer(answer) => self.answers.send(*answer).await,
                Item::Batch(batch) => self.acknowledge(*batch).await,
                Item::HeadKey { key, reason, done } => self.register(key, reason, done).await,
                Item::Head { note, done } => self.take(&note, done).await,
                Item::Invalid { problem, epoch, first } => {
                    let stop = self.shared.invalid(&self.source, problem, epoch, first).await;
                    self.stop(stop).await
                }
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

    /// Tells of a newer checkpoint, if there is one.
    async fn tell(&self, told: &mut Option<news::Told>) -> Result<(), Gone> {
        let Some(before) = *told else { return Ok(()) };
        let Some(shown) = news::news(&self.shared.log, before).await else { return Ok(()) };
        *told = Some(shown.told);
        self.answers.send(Answer::News(shown.into())).await
    }

    async fn acknowledge(&mut self, batch: InFlight) -> Result<(), Gone> {
        let answer = match batch.pending.answer().await {
            Ok(answer) => answer,
            Err(SubmitError::Refused(refusal)) => {
                let stop = self.refused(refusal, batch.epoch, batch.first, batch.hash).await;
                return self.stop(stop).await;
            }
            Err(error) => return self.stop(self.shared.failed(&error)).await,
        };
        let receipt = &answer.receipt;
        if receipt.first.get() == 0 && !receipt.repeated {
            self.shared.own.note(self.epoch_opened(receipt)).await;
        }
        if !receipt.repeated {
            self.shared.sources.declares(self.source.id, batch.declared);
        }
        metrics::histogram!("sigillo_ack_seconds").record(batch.arrived.elapsed().as_secs_f64());
        let Receipt { epoch, first, count, batch_hash, .. } = *receipt;
        let (next, count) = (first.get() + u64::from(count), Count::default());
        self.at = Some(SourceState { epoch, next: SourceSeq::new(next), head: batch_hash, count });
        let missing =
            (!receipt.repeated).then(|| self.shared.heads.count_batch(self.source.id, Instant::now().into_std()));
        self.answers.send(Answer::Ack(ack(&answer, self.head_time))).await?;
        let Some(missing) = missing.flatten() else { return Ok(()) };
        // What came behind it is durable before the sender asks how far it has come.
        self.settle().await;
        self.stop(self.shared.missing_head(&self.source, &missing, self.at).await).await
    }

    /// Registers the key of the source's next head, if another one is known or none.
    async fn register(&mut self, key: [u8; 32], reason: String, done: oneshot::Sender<()>) -> Result<(), Gone> {
        let Shared { heads, pace, .. } = &*self.shared;
        let source = &self.source;
        match heads.register(source.id, &source.name, key, reason, || pace.turn(source.id, "source.key")).await {
            Ok(Registered::Now) => self.head_time = 0,
            Ok(Registered::Before) => {}
            // An alarm that must not be left out: the sender is held back instead.
            Ok(Registered::TooFast) => {
                return self.stop(wait(&"keys of signed heads are registered too fast")).await;
            }
            Err(error) => return self.stop(unrecorded(&error)).await,
        }
        // The receiver goes on; if it does not, the stream ends.
        let _ = done.send(());
        Ok(())
    }

    async fn take(&mut self, note: &[u8], done: oneshot::Sender<()>) -> Result<(), Gone> {
        match self.shared.heads.take(self.source.id, &self.source.name, note, self.at).await {
            Ok(time_ns) => self.head_time = time_ns,
            Err(HeadRefused::Wrong(wrong)) => {
                let stop = self.shared.wrong_head(&self.source, &wrong, note, self.at).await;
                return self.stop(stop).await;
            }
            Err(error) => return self.stop(unrecorded(&error)).await,
        }
        let (epoch, next_sequence) = self.at.map_or((0, 0), |at| (at.epoch.get(), at.next.get()));
        let ack = v1::Ack { epoch, next_sequence, receipt: None, head_time_unix_nano: self.head_time };
        // The receiver goes on; if it does not, the stream ends.
        let _ = done.send(());
        self.answers.send(Answer::Ack(ack)).await?;
        self.shared.heads.attend().await;
        Ok(())
    }

    async fn stop(&self, stop: Stop) -> Result<(), Gone> {
        if let Stop::Tell(answer, status) = stop {
            self.end(answer, status).await;
        }
        Err(Gone)
    }

    async fn end(&self, answer: Option<Box<Answer>>, status: Status) {
        self.shared.sources.ends_with(self.source.id, status.code());
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

    /// Waits until the journal has answered for every batch that came behind the last one: what it took of them is part of what the
    /// record of the refusal says.
    async fn settle(&mut self) {
        self.items.close();
        while let Some(item) = self.items.recv().await {
            if let Item::Batch(batch) = item {
                // Most are refused for the same reason.
                let _ = batch.pending.answer().await;
            }
        }
    }

    async fn refused(&mut self, refusal: Refusal, epoch: Epoch, first: SourceSeq, hash: BatchHash) -> Stop {
        self.settle().await;
        let (kind, expected_epoch, expected, message) = match refusal {
            Refusal::Gap { expected_epoch, expected } => {
                let message = format!(
                    "records are missing before this batch: send from {expected} on, or declare a loss and begin a new epoch"
                );
                (RefusalKind::Gap, expected_epoch, expected, message)
            }
            Refusal::Fork { expected_epoch, expected } => {
                let message = "other records were received under these numbers: the source's state was copied or rolled \
                               back; begin a new epoch";
                (RefusalKind::Fork, expected_epoch, expected, message.to_owned())
            }
            Refusal::StaleEpoch { expected_epoch, expected } => {
                let message =
                    format!("this source has begun epoch {expected_epoch}: an older one takes no more records");
                (RefusalKind::StaleEpoch, expected_epoch, expected, message)
            }
            Refusal::Invalid(problem) => return self.shared.invalid(&self.source, problem, epoch, first).await,
        };
        let (expected_epoch, expected_sequence) = (expected_epoch.get(), expected.get());
        self.shared.sources.refused(self.source.id, kind);
        tracing::warn!(kind = kind.as_str_name(), %epoch, %first, expected_epoch, expected_sequence, "a batch is refused");
        let alarm = match kind {
            RefusalKind::Fork => Some(("source.fork", "has sent other records under numbers that are taken")),
            RefusalKind::Gap => Some(("source.gap", "has left out records")),
            _ => None,
        };
        if let Some((name, what)) = alarm {
            let event = Event::new(name)
                .warning()
                .outcome(v1::Outcome::Denied)
                .target("source", &self.source.name)
                .body(format!("source {} {what}", self.source.name))
                .number("epoch", epoch.get())
                .number("first", first.get())
                .text("batch_hash", hash.to_string())
                .number("expected_epoch", expected_epoch)
                .number("expected_sequence", expected_sequence);
            let event = self.shared.uncovered(&self.source, event);
            // An alarm that must not be left out: the sender is held back instead. Should it not come again, the newest is recorded in time.
            let Some(event) = self.shared.pace.pass(self.source.id, event) else {
                return wait(&"batches that do not go on from those before come too fast");
            };
            if let Err(error) = self.shared.own.record(event).await {
                return unrecorded(&error);
            }
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
        Stop::Tell(Some(Box::new(Answer::Refusal(refusal))), status)
    }
}

/// What a sender is told whose key, head or alarm could not become a record.
fn unrecorded(error: &dyn std::error::Error) -> Stop {
    tracing::error!(%error, "a signed head, its key or an alarm could not be recorded");
    Stop::Tell(None, Status::unavailable("what was sent could not be recorded: send it again"))
}

fn ack(answer: &sigillo_journal::Answer, head_time_unix_nano: u64) -> v1::Ack {
    let sigillo_journal::Answer { receipt, proof } = answer;
    let path = proof.iter().flat_map(|proof| proof.frame.path(proof.index)).flat_map(|hash| *hash.as_bytes());
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
            frame_index: proof.as_ref().map_or(0, |proof| proof.index),
            frame_path: path.collect::<Vec<u8>>().into(),
            frame_note: proof.as_ref().map(|proof| proof.frame.note().clone()).unwrap_or_default(),
        }),
        head_time_unix_nano,
    }
}
