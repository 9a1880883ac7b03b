//! Signed heads: which key signs the next head of each source, and what a head must say to be taken.
//!
//! What is known here follows from own records and from nothing else: registrations of keys, heads, and snapshots of both. A head
//! is first a durable record and then known; after a crash in between the source sends it again. Sources that have no key
//! cost a look into a map.

mod history;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sigillo_journal::{Journal, ReadError};
use sigillo_model::{
    head::{HeadError, SignedHead, key_name, statement::SourceKey},
    ids::{BatchHash, Epoch, SourceId, SourceSeq},
    note::{KeyError, KeyKind, VerifierKey},
    state::SourceState,
};
use tokio::{
    sync::{Mutex as Turn, RwLock},
    task::{JoinError, spawn_blocking},
};

use crate::{
    ingest::pace::LEFT_OUT,
    own::{self, Event, Own, OwnError},
};
pub(crate) use history::{History, read};

/// Batches of a source with a key that may come without a head between them.
pub(crate) const BATCHES_MAX: u32 = 256;
/// Batches may go on coming for so long without a head. Sources sign once 5 s after news.
pub(crate) const WITHOUT_HEAD_MAX: Duration = Duration::from_secs(180);
/// A snapshot is written once there are so many own records since the last one, or four times as many as sources, so that a start reads
/// few.
const SNAPSHOT_AFTER: u64 = 4_096;

/// What is known of a source's heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Signs the next one.
    key: [u8; 32],
    /// Time of the last one, by the source's clock; 0 when the key has been registered since.
    time_ns: u64,
    /// Where the last one stands; `None` where only its time is remembered.
    covered: Option<(Epoch, SourceSeq)>,
}

/// Heads of all sources. As many are known as sources have ever registered a key; those were configured.
#[derive(Debug)]
pub(crate) struct Heads {
    journal: Journal,
    own: Own,
    sources: Mutex<HashMap<SourceId, Arc<SourceHeads>>>,
    /// Taken for reading by whoever changes what is known, from before its record until it is known; for writing by a snapshot.
    gate: RwLock<()>,
    snapshot_after: u64,
    /// Count of own records at the last snapshot.
    snapshot_at: AtomicU64,
    snapshot_open: AtomicBool,
}

/// Heads of one source.
#[derive(Debug, Default)]
struct SourceHeads {
    /// Held from a look at what is known until what follows is a durable record and known.
    turn: Turn<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    /// Batches since the last head.
    batches: u32,
    /// When the first of them came on the newest stream, and the last one.
    came: Option<(Instant, Instant)>,
}

/// Where batches without a head began.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// How many came.
    pub(crate) batches: u32,
    /// For how long.
    pub(crate) during: Duration,
}

/// What came of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It is known now.
    Now,
    /// It was known.
    Before,
    /// The source registers too many.
    TooFast,
}

/// Why a head is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadRefused {
    /// It says something wrong: an alarm.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// No record could be written of it.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// What it is to be held against can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The task that reads has failed.
    #[error(transparent)]
    Task(#[from] JoinError),
}

/// What is wrong with a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("it can't be read: {0}")]
    Form(HeadError),
    #[error("it is of the journal {0:?}, not of this one")]
    Origin(String),
    #[error("it is of the source {0}, not of the one that sent it")]
    Source(SourceId),
    #[error("no key of this source is known: the key comes before the first head")]
    NoKey,
    #[error("it is not signed by the key that was announced: {0}")]
    Signature(HeadError),
    #[error("it covers epoch {0} up to {1}, which is before what the head before it covers")]
    Back(Epoch, SourceSeq),
    #[error("it covers epoch {0} up to {1}, where no batch ends that was received before it")]
    Place(Epoch, SourceSeq),
    #[error("it names another hash of the batches up to {1} of epoch {0} than those received")]
    Hash(Epoch, SourceSeq),
}

impl Wrong {
    /// A short name, for programs.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Form(_) => "form",
            Self::Origin(_) => "origin",
            Self::Source(_) => "source",
            Self::NoKey => "no_key",
            Self::Signature(_) => "signature",
            Self::Back(..) | Self::Place(..) => "next",
            Self::Hash(..) => "batch_hash",
        }
    }
}

impl Heads {
    /// By what the own records say.
    pub(crate) fn new(journal: Journal, own: Own, history: History) -> Self {
        let state = |known| State { known: Some(known), ..State::default() };
        let heads = |known| SourceHeads { state: Mutex::new(state(known)), ..SourceHeads::default() };
        let sources = history.known.into_iter().map(|(source, known)| (source, Arc::new(heads(known)))).collect();
        let written = journal.source(own::source()).map_or(0, |state| state.count.get());
        Self {
            journal,
            own,
            sources: Mutex::new(sources),
            gate: RwLock::default(),
            snapshot_after: SNAPSHOT_AFTER,
            snapshot_at: AtomicU64::new(written.saturating_sub(history.records)),
            snapshot_open: AtomicBool::new(false),
        }
    }

    /// A stream of this source begins. Returns the key of its next head and the time of its last one; `None` if no key is known.
    pub(crate) async fn begin(&self, source: SourceId) -> Option<([u8; 32], u64)> {
        let heads = self.get(source)?;
        // What an older stream is about to make known is known first.
        let _turn = heads.turn.lock().await;
        let mut state = heads.state();
        // A source that was away for long is not late.
        state.came = None;
        state.known.map(|known| (known.key, known.time_ns))
    }

    /// Counts a batch that has become durable. Tells if heads are missing; then it begins to count anew.
    ///
    /// A batch may be on its way for long, and the head behind it: what counts is the time between those before it.
    pub(crate) fn count_batch(&self, source: SourceId, now: Instant) -> Option<Missing> {
        let heads = self.get(source)?;
        let mut state = heads.state();
        state.known?;
        state.batches = state.batches.saturating_add(1);
        let (first, last) = state.came.unwrap_or((now, now));
        state.came = Some((first, now));
        let (batches, during) = (state.batches, last.saturating_duration_since(first));
        if batches <= BATCHES_MAX && during <= WITHOUT_HEAD_MAX {
            return None;
        }
        (state.batches, state.came) = (0, None);
        Some(Missing { batches, during })
    }

    /// Where the last head of a source stands, if that is remembered, and its time.
    pub(crate) fn last(&self, source: SourceId) -> (Option<(Epoch, SourceSeq)>, u64) {
        let known = self.get(source).and_then(|heads| heads.state().known);
        known.map_or((None, 0), |known| (known.covered, known.time_ns))
    }

    /// Registers the key of the next head, if it is not the one that is known. One that replaces another key, which the last head has
    /// not announced, is an alarm. Returns once that is a durable record. `turn` says whether the source may cause one now, and how
    /// many were left out before.
    pub(crate) async fn register(
        &self,
        source: SourceId,
        name: &str,
        key: [u8; 32],
        reason: String,
        turn: impl FnOnce() -> Option<u64>,
    ) -> Result<Registered, OwnError> {
        let heads = self.entry(source);
        let _gate = self.gate.read().await;
        let _turn = heads.turn.lock().await;
        let before = heads.state().known;
        if before.is_some_and(|before| before.key == key) {
            return Ok(Registered::Before);
        }
        let Some(left_out) = turn() else { return Ok(Registered::TooFast) };
        let event = Event::new(history::KEY)
            .target("source", name)
            .original(SourceKey { source, key }.text(self.journal.origin()))
            .text("public_key", hex::encode(key))
            .number(LEFT_OUT, left_out);
        let event = match before {
            None => event.body(format!("source {name} has registered the key of its signed heads")),
            Some(before) => event
                .warning()
                .body(format!(
                    "source {name} has registered a key for its signed heads that its last head did not announce"
                ))
                .text("previous", hex::encode(before.key))
                .text("reason", reason),
        };
        self.own.record(event).await?;
        // A beginning: what the key before it signed says nothing of this one's heads.
        *heads.state() = State { known: Some(Known { key, time_ns: 0, covered: None }), ..State::default() };
        Ok(Registered::Now)
    }

    /// Takes a head, of a source that stands at `at` by what came before on the same stream. Returns the time of the newest head once
    /// that is a durable record. One that is not newer is taken for the repetition that it is.
    pub(crate) async fn take(
        &self,
        source: SourceId,
        name: &str,
        note: &[u8],
        at: Option<SourceState>,
    ) -> Result<u64, HeadRefused> {
        let origin = self.journal.origin();
        let (head, signed) = SignedHead::parse(note).map_err(Wrong::Form)?;
        if head.origin.as_str() != origin.as_str() {
            return Err(Wrong::Origin(head.origin.as_str().into()).into());
        }
        if head.source != source {
            return Err(Wrong::Source(head.source).into());
        }
        let heads = self.get(source).ok_or(Wrong::NoKey)?;
        let _gate = self.gate.read().await;
        let _turn = heads.turn.lock().await;
        let known = heads.state().known.ok_or(Wrong::NoKey)?;
        if head.time_ns <= known.time_ns {
            return Ok(known.time_ns);
        }
        head.verify(&signed, &known.key).map_err(Wrong::Signature)?;
        let place = (head.epoch, head.next);
        if known.covered.is_some_and(|covered| place < covered) {
            return Err(Wrong::Back(head.epoch, head.next).into());
        }
        let hash = self.hash_at(&head, at).await?.ok_or(Wrong::Place(head.epoch, head.next))?;
        if hash != head.batch_hash {
            return Err(Wrong::Hash(head.epoch, head.next).into());
        }
        let event = Event::new(history::HEAD)
            .target("source", name)
            .body(format!("source {name} has signed what it sent up to {} of epoch {}", head.next, head.epoch))
            .original(note)
            .number("epoch", head.epoch.get())
            .number("next_sequence", head.next.get())
            .number("head_time_unix_nano", head.time_ns);
        self.own.record(event).await?;
        let known = Known { key: head.next_key, time_ns: head.time_ns, covered: Some(place) };
        *heads.state() = State { known: Some(known), ..State::default() };
        Ok(head.time_ns)
    }

    /// The hash of the source's chain at the place that a head covers. Mostly it is where the source stands; a head can be older
    /// than the newest batch when the server stopped after the batch and before the head was a record.
    async fn hash_at(&self, head: &SignedHead, at: Option<SourceState>) -> Result<Option<BatchHash>, HeadRefused> {
        if let Some(at) = at
            && (at.epoch, at.next) == (head.epoch, head.next)
        {
            return Ok(Some(at.head));
        }
        let reader = self.journal.reader();
        let (source, epoch, next) = (head.source, head.epoch, head.next);
        Ok(spawn_blocking(move || reader.source_hash(source, epoch, next)).await??)
    }

    /// Writes a snapshot if one is due.
    pub(crate) async fn attend(&self) {
        let sources = self.sources().len() as u64;
        let due = self.snapshot_after.max(sources.saturating_mul(4));
        let since = self.written().saturating_sub(self.snapshot_at.load(Ordering::Relaxed));
        if since < due || self.snapshot_open.swap(true, Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.snapshot().await {
            tracing::error!(%error, "the keys of signed heads could not be recorded together: a start reads more");
        }
        // Also after a failure: not with each head.
        self.snapshot_at.store(self.written(), Ordering::Relaxed);
        self.snapshot_open.store(false, Ordering::Release);
    }

    async fn snapshot(&self) -> Result<(), OwnError> {
        let _gate = self.gate.write().await;
        let sources: Vec<_> = self.sources().iter().map(|(source, heads)| (*source, Arc::clone(heads))).collect();
        let known = sources.iter().filter_map(|(source, heads)| Some((*source, heads.state().known?)));
        for event in history::snapshot(self.journal.origin(), self.written(), known.collect()) {
            self.own.record(event).await?;
        }
        Ok(())
    }

    /// Count of own records.
    fn written(&self) -> u64 {
        self.journal.source(own::source()).map_or(0, |state| state.count.get())
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<SourceId, Arc<SourceHeads>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, source: SourceId) -> Option<Arc<SourceHeads>> {
        self.sources().get(&source).map(Arc::clone)
    }

    fn entry(&self, source: SourceId) -> Arc<SourceHeads> {
        Arc::clone(self.sources().entry(source).or_default())
    }
}

impl SourceHeads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether these bytes are a key that can check a source's heads.
pub(crate) fn check_key(source: SourceId, key: &[u8]) -> Result<[u8; 32], KeyError> {
    let key: [u8; 32] = key.try_into().map_err(|_| KeyError::Point(key_name(source)))?;
    VerifierKey::new(&key_name(source), KeyKind::Log, &key).map(|_| key)
}
