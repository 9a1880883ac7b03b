//! Sends batches to a server and waits for their receipts.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use sigillo_client::{AppendSession, Connection, PROTOCOL, unix_nanos};
use sigillo_model::batch::Batch;
use sigillo_proto::v1::{self, append_request, append_response};
use sigillo_testkit::server::Server;
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::load::{Load, Stream};

/// When batches are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as the server's credit allows.
    Full,
    /// At this rate, whatever the server does (an open loop); latency counts from the time at which a batch was due.
    Records { per_s: f64, during: Duration },
    /// The next batch only after the receipt of the one before.
    OneByOne { during: Duration },
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Run {
    /// Records with a receipt.
    pub(crate) records: u64,
    /// From the first batch sent to the last receipt.
    pub(crate) elapsed: Duration,
    /// From when a batch was sent, or due, to its receipt; sorted.
    latencies: Vec<Duration>,
    /// When receipts came, and for how many records of the journal.
    acked: Vec<(Instant, u64)>,
}

impl Run {
    /// The latency that so much of the batches stayed within, milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index, between 0 and the length"
        )]
        let index = ((self.latencies.len() as f64 * quantile).ceil() as usize).saturating_sub(1);
        self.latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
    }

    /// How many records the journal had after the last receipt.
    pub(crate) fn journal_size(&self) -> u64 {
        self.acked.iter().map(|(_, size)| *size).max().unwrap_or(0)
    }

    /// The longest time between a receipt and the first checkpoint that covers it, milliseconds. `seen`: when each came, and
    /// its size.
    pub(crate) fn behind_ms(&self, seen: &[(Instant, u64)]) -> f64 {
        let behind = self.acked.iter().map(|(acked, size)| {
            let covering = seen.iter().find(|(_, covered)| covered >= size);
            covering.map_or(f64::INFINITY, |(at, _)| at.saturating_duration_since(*acked).as_secs_f64() * 1_000.0)
        });
        behind.fold(0.0, f64::max)
    }

    pub(crate) fn records_per_s(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }
}

/// Opens a connection for every stream, then sends them all at once.
pub(crate) async fn drive(server: &Server, load: &Load, pace: Pace) -> Result<Run> {
    let start = Arc::new(Barrier::new(load.streams.len()));
    // Set by the first stream that has no batch left, so that no rate is measured with fewer streams.
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for (index, stream) in load.streams.iter().enumerate() {
        let connection = Connection::open(&server.endpoint(&stream.source.name)).await?;
        let session = connection.append(hello()).await.with_context(|| format!("stream {index}"))?;
        let share = load.streams.len() as f64;
        let batches = Sender::prepare(stream);
        let sender = Sender {
            credit_bytes: session.welcome.credit_bytes,
            session,
            queue: batches,
            flying: VecDeque::new(),
            flying_bytes: 0,
            run: Run::default(),
            over: Arc::clone(&over),
        };
        let barrier = Arc::clone(&start);
        tasks.spawn(async move {
            barrier.wait().await;
            let begun = Instant::now();
            // Streams at a given rate take turns.
            let offset = index as f64 / share;
            sender.send_all(pace, share, offset).await.map(|run| (begun, Instant::now(), run))
        });
    }
    let mut all = Run::default();
    let (mut first, mut last) = (None, None);
    while let Some(done) = tasks.join_next().await {
        let (begun, ended, run) = done??;
        all.records += run.records;
        all.latencies.extend(run.latencies);
        all.acked.extend(run.acked);
        first = first.min(Some(begun)).or(Some(begun));
        last = last.max(Some(ended));
    }
    all.latencies.sort_unstable();
    all.elapsed = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
    Ok(all)
}

struct Sender {
    session: AppendSession,
    credit_bytes: u64,
    queue: VecDeque<v1::Batch>,
    /// Sent and not yet acknowledged: the sequence after the batch, its bytes, when it was sent or due.
    flying: VecDeque<(u64, u64, Instant)>,
    flying_bytes: u64,
    run: Run,
    over: Arc<AtomicBool>,
}

impl Sender {
    /// Only the compressed block is shared with the load; nothing is copied.
    fn prepare(stream: &Stream) -> VecDeque<v1::Batch> {
        stream.batches.iter().map(|batch: &Batch| v1::Batch::from(batch)).collect()
    }

    async fn send_all(mut self, pace: Pace, streams: f64, offset: f64) -> Result<Run> {
        let begun = Instant::now();
        let until = match pace {
            Pace::Full => None,
            Pace::Records { during, .. } | Pace::OneByOne { during } => Some(begun + during),
        };
        let mut due = begun;
        if let (Pace::Records { per_s, .. }, Some(batch)) = (pace, self.queue.front()) {
            due += Duration::from_secs_f64(f64::from(batch.count) * streams / per_s * offset);
        }
        let mut not_before = begun;
        loop {
            let now = Instant::now();
            let ended = until.is_some_and(|until| now >= until) || self.over.load(Ordering::Relaxed);
            let next = if ended { None } else { self.queue.front() };
            let Some(batch) = next else {
                if !matches!(pace, Pace::Full) {
                    self.over.store(true, Ordering::Relaxed);
                }
                if self.flying.is_empty() {
                    return Ok(self.run);
                }
                not_before = self.receive().await?.unwrap_or(not_before);
                continue;
            };
            let bytes = batch.block.len() as u64;
            let fits = match pace {
                Pace::OneByOne { .. } => self.flying.is_empty(),
                _ => self.flying.is_empty() || self.flying_bytes + bytes <= self.credit_bytes,
            };
            if !fits {
                not_before = self.receive().await?.unwrap_or(not_before);
                continue;
            }
            let at = if matches!(pace, Pace::Records { .. }) { due.max(not_before) } else { not_before };
            if at > now {
                tokio::select! {
                    () = sleep_until(at) => {}
                    wait = self.session.receiver.recv() => not_before = self.took(wait?)?.unwrap_or(not_before),
                }
                continue;
            }
            let (count, end) = (batch.count, batch.first + u64::from(batch.count));
            let message = append_request::Message::Batch(batch.clone());
            tokio::select! {
                sent = self.session.sender.send(message) => {
                    if sent.is_err() {
                        // Why, the receiver knows.
                        self.receive().await?;
                        bail!("the stream has ended");
                    }
                    self.flying.push_back((end, bytes, if matches!(pace, Pace::Records { .. }) { due } else { now }));
                    self.flying_bytes += bytes;
                    self.queue.pop_front();
                    if let Pace::Records { per_s, .. } = pace {
                        due += Duration::from_secs_f64(f64::from(count) * streams / per_s);
                    }
                }
                answer = self.session.receiver.recv() => not_before = self.took(answer?)?.unwrap_or(not_before),
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Instant>> {
        let answer = self.session.receiver.recv().await?;
        self.took(answer)
    }

    /// Takes an answer; if it says to wait, until when.
    fn took(&mut self, answer: Option<append_response::Message>) -> Result<Option<Instant>> {
        let now = Instant::now();
        match answer.context("the server has ended the stream")? {
            append_response::Message::Ack(ack) => {
                let receipt = ack.receipt.context("an ack has a receipt")?;
                self.run.records += u64::from(receipt.count);
                self.run.acked.push((now, receipt.sequence + u64::from(receipt.count)));
                while let Some((_, bytes, since)) = self.flying.front().filter(|(end, ..)| *end <= ack.next_sequence) {
                    self.flying_bytes -= bytes;
                    self.run.latencies.push(now.duration_since(*since));
                    self.flying.pop_front();
                }
                Ok(None)
            }
            append_response::Message::News(_) => Ok(None),
            append_response::Message::Throttle(wait) => Ok(Some(now + Duration::from_millis(u64::from(wait.wait_ms)))),
            other => bail!("the server answers {other:?}"),
        }
    }
}

fn hello() -> v1::Hello {
    v1::Hello {
        protocol: PROTOCOL,
        agent: concat!("sigillo-bench ", env!("CARGO_PKG_VERSION")).into(),
        epoch: 1,
        clock_unix_nano: unix_nanos(),
        ..v1::Hello::default()
    }
}
