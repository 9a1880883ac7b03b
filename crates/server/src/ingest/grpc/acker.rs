//! Answers a source, in order: a batch is acknowledged once it is durable.

use std::{sync::Arc, time::Duration};

use sigillo_journal::{Receipt, Refusal, SubmitError};
use sigillo_model::ids::{BatchHash, Epoch, SourceSeq};
use sigillo_proto::v1::{self, AppendResponse, RefusalKind, append_response::Message as Answer};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    InFlight, Item, Shared, Stop,
    news::{self, NEWS_EVERY},
};
use crate::{config::SourceSettings, own::Event};

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
    answers: Answers,
}

impl Acker {
    pub(super) fn new(shared: Arc<Shared>, source: Arc<SourceSettings>, answers: Answers) -> Self {
        Self { shared, source, answers }
    }

    pub(super) async fn run(self, mut items: mpsc::Receiver<Item>) {
        let mut told = None;
        let mut news_at = Instant::now() + NEWS_EVERY;
        // When this returns, the queue closes and the receiver ends with it.
        loop {
            let item = tokio::select! {
                item = items.recv() => item,
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
                Item::Welcome(welcome, shown) => {
                    told = Some(shown);
                    self.answers.send(Answer::Welcome(*welcome)).await
                }
                Item::Answer(answer) => self.answers.send(*answer).await,
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

    /// Tells of a newer checkpoint, if there is one.
    async fn tell(&self, told: &mut Option<news::Told>) -> Result<(), Gone> {
        let Some(before) = *told else { return Ok(()) };
        let Some(shown) = news::news(&self.shared.log, before).await else { return Ok(()) };
        *told = Some(shown.told);
        self.answers.send(Answer::News(shown.into())).await
    }

    async fn acknowledge(&self, batch: InFlight) -> Result<(), Gone> {
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
        self.answers.send(Answer::Ack(ack(&answer))).await
    }

    async fn stop(&self, stop: Stop) -> Result<(), Gone> {
        if let Stop::Tell(answer, status) = stop {
            self.end(answer, status).await;
        }
        Err(Gone)
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

    async fn refused(&self, refusal: Refusal, epoch: Epoch, first: SourceSeq, hash: BatchHash) -> Stop {
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
            self.shared.note(&self.source, event).await;
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

fn ack(answer: &sigillo_journal::Answer) -> v1::Ack {
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
        ..v1::Ack::default()
    }
}
