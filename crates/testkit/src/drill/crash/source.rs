//! A sender that remembers every batch it ever sent, and every receipt it ever got.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use sigillo_client::{AppendSession, ClientError, Connection, Endpoint, PROTOCOL, unix_nanos};
use sigillo_model::{
    batch::Batch,
    entry::Entry,
    ids::{Origin, SourceId},
    record::Record,
};
use sigillo_proto::v1::{self, append_request, append_response::Message};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{batches::BatchChain, records::records};

/// Different records that a source sends, over and over.
const RECORDS: usize = 2_000;
/// Batches on their way without a receipt.
const WINDOW: usize = 8;
/// Longest wait for an answer of a server that is well.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A sender.
pub(super) struct Source {
    name: String,
    id: SourceId,
    chain: BatchChain,
    records: Vec<Record>,
    /// In order; those with a receipt come before those without.
    sent: Vec<Sent>,
    acknowledged: usize,
    /// Batches that the last walk met.
    walked: usize,
}

struct Sent {
    batch: Batch,
    receipt: Option<v1::Receipt>,
    /// Where a walk has met it.
    seq: Option<u64>,
}

impl Source {
    pub(super) fn new(origin: &Origin, name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            id: SourceId::from_name(name),
            chain: BatchChain::new(origin, name, seed),
            records: records(seed).take(RECORDS).collect(),
            sent: Vec::new(),
            acknowledged: 0,
            walked: 0,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn id(&self) -> SourceId {
        self.id
    }

    /// Batches with a receipt.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Sends batches of random size until the connection is cut, and tells of every answer. Whatever the server refuses is an
    /// error.
    pub(super) async fn send_until_cut(&mut self, endpoint: &Endpoint, seed: u64, receipts: &Notify) -> Result<()> {
        let mut random = ChaCha12Rng::seed_from_u64(seed);
        let mut session = match self.open(endpoint).await {
            Ok(session) => session,
            Err(error) => return cut_or(error),
        };
        loop {
            let room = self.sent.len() - self.acknowledged < WINDOW;
            tokio::select! {
                answer = session.receiver.recv() => match answer {
                    Ok(Some(answer)) => {
                        self.answered(answer).await?;
                        receipts.notify_one();
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => return cut_or(error.into()),
                },
                () = std::future::ready(()), if room => {
                    let batch = v1::Batch::from(self.cut_batch(&mut random)?);
                    if session.sender.send(append_request::Message::Batch(batch)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends everything again that has no receipt, and returns how many batches that were.
    pub(super) async fn send_again(&mut self, endpoint: &Endpoint) -> Result<usize> {
        let waiting = self.sent.len() - self.acknowledged;
        let mut session = self.open(endpoint).await?;
        let next = self.sent.iter().take(self.walked).last().map_or(0, |sent| sent.batch.end().get());
        let expected = session.welcome.next_sequence;
        ensure!(expected == next, "the journal holds records below {next}, the welcome says {expected}");
        while let Some(sent) = self.sent.get(self.acknowledged) {
            session.send(append_request::Message::Batch(v1::Batch::from(&sent.batch))).await?;
            let answer = loop {
                match timeout(ANSWER_MAX, session.recv()).await.context("no answer")?? {
                    Some(Message::News(_)) => {}
                    answer => break answer,
                }
            };
            self.answered(answer.context("the server ended the stream")?).await?;
        }
        Ok(waiting)
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<AppendSession> {
        let retained = self.sent.get(self.acknowledged).map_or(self.chain.next(), |sent| sent.batch.first);
        let hello = v1::Hello {
            protocol: PROTOCOL,
            agent: "sigillo-drill".into(),
            epoch: self.chain.epoch().get(),
            first_retained: retained.get(),
            next_sequence: self.chain.next().get(),
            head: self.chain.head().as_bytes().to_vec().into(),
            clock_unix_nano: unix_nanos(),
            ..v1::Hello::default()
        };
        let session = Connection::open(endpoint).await?.append(hello).await?;
        let durable = session.welcome.next_sequence;
        ensure!(
            durable >= retained.get(),
            "records below {} have receipts, the welcome expects {durable}",
            retained.get()
        );
        Ok(session)
    }

    fn cut_batch(&mut self, random: &mut ChaCha12Rng) -> Result<&Batch> {
        let count = match random.random_range(0..10) {
            0..4 => random.random_range(1..=3),
            4..8 => random.random_range(4..=100),
            8 => random.random_range(100..=400),
            _ => random.random_range(400..=1_500),
        };
        let from = random.random_range(0..RECORDS - count);
        let batch = self.chain.seal(&self.records[from..from + count])?;
        self.sent.push(Sent { batch, receipt: None, seq: None });
        self.sent.last().map(|sent| &sent.batch).context("just pushed")
    }

    async fn answered(&mut self, answer: Message) -> Result<()> {
        match answer {
            Message::Ack(ack) => {
                let receipt = ack.receipt.context("an ack without a receipt")?;
                let sent = self.sent.get_mut(self.acknowledged).context("an ack for nothing")?;
                let batch = &sent.batch;
                ensure!(
                    (receipt.epoch, receipt.first, receipt.count)
                        == (batch.epoch.get(), batch.first.get(), batch.count)
                        && receipt.batch_hash == batch.hash.as_bytes().as_slice(),
                    "the receipt {receipt:?} is not for the batch from {}",
                    batch.first
                );
                if let Some(seq) = sent.seq {
                    ensure!(
                        receipt.sequence == seq,
                        "the batch stands at {seq}, its receipt says {}",
                        receipt.sequence
                    );
                }
                sent.receipt = Some(receipt);
                self.acknowledged += 1;
            }
            Message::Throttle(throttle) => sleep(Duration::from_millis(throttle.wait_ms.into())).await,
            Message::Drain(_) | Message::News(_) => {}
            Message::Refusal(refusal) => bail!("refused: {refusal:?}"),
            Message::Welcome(_) => bail!("a second welcome"),
        }
        Ok(())
    }

    /// A walk begins anew.
    pub(super) fn begin_walk(&mut self) {
        self.walked = 0;
    }

    /// A walk has met this entry of ours, whose hashes it has checked.
    pub(super) fn meet(&mut self, entry: &Entry<'_>) -> Result<()> {
        let number = self.walked;
        let sent = self.sent.get_mut(number).with_context(|| format!("entry {number} was never sent"))?;
        let batch = &sent.batch;
        ensure!(
            (entry.epoch, entry.source_seq, entry.count, &entry.batch_hash, entry.secret())
                == (batch.epoch, batch.first, batch.count, &batch.hash, Some(&batch.secret))
                && entry.compressed == batch.compressed.as_ref(),
            "entry {number} at {} is not the batch that was sent",
            entry.seq
        );
        if let Some(receipt) = &sent.receipt {
            ensure!(
                receipt.sequence == entry.seq.get()
                    && receipt.chain_hash == entry.chain_hash.as_bytes().as_slice()
                    && receipt.receipt_time_unix_nano == entry.receipt_time.get(),
                "entry {number} at {} is not what its receipt says: {receipt:?}",
                entry.seq
            );
        }
        sent.seq = Some(entry.seq.get());
        self.walked += 1;
        Ok(())
    }

    /// A walk has come to its end: it must have met every batch with a receipt.
    pub(super) fn end_walk(&self) -> Result<()> {
        let lost = self.acknowledged.saturating_sub(self.walked);
        let Self { name, acknowledged, .. } = self;
        ensure!(lost == 0, "of {acknowledged} acknowledged batches of {name}, the last {lost} are lost");
        Ok(())
    }
}

/// The kill shows as a lost connection, at any step of making one or using it. Anything else is an error.
fn cut_or(error: anyhow::Error) -> Result<()> {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. } | ClientError::Tls { .. }) => Ok(()),
        _ => Err(error),
    }
}
