//! Access that was refused leaves a trace: in the server's log, in a metric, and as an own record.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sigillo_model::roles::Action;
use sigillo_proto::v1;
use tonic::Status;

use crate::{
    identity::Peer,
    own::{Event, Own},
};

/// Own records of refused access come no faster, so that nobody fills the journal by asking.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// Notes refused access.
#[derive(Debug)]
pub(crate) struct Refusals {
    own: Own,
    state: Mutex<State>,
    /// A record is being written: while the journal is slow, none wait behind it.
    writing: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    recorded: Option<Instant>,
    /// Refusals since, that have no record of their own.
    uncounted: u64,
}

impl Refusals {
    /// Records with `own`.
    pub(crate) fn new(own: Own) -> Self {
        Self { own, state: Mutex::default(), writing: Arc::default() }
    }

    /// Notes that `peer`, whom the configuration calls `who` (empty: nobody), was refused `action`.
    pub(crate) fn note(&self, peer: &Peer, who: &str, action: Action, status: &Status) {
        metrics::counter!("sigillo_access_refused_total", "action" => action.name()).increment(1);
        let Peer { address, fingerprint, .. } = peer;
        tracing::warn!(%address, certificate = %fingerprint, who, action = action.name(), "access is refused");
        let Some(uncounted) = self.turn() else { return };
        let event = Event::new("access.refused")
            .warning()
            .outcome(v1::Outcome::Denied)
            .target("certificate", &fingerprint.to_string())
            .actor(who, v1::ActorKind::Unspecified, &address.ip().to_string(), "")
            .body(format!("{} was refused: {}", action.name(), status.message()))
            .text("attempted", action.name())
            .number("refused_without_record", uncounted);
        let (own, writing) = (self.own.clone(), Arc::clone(&self.writing));
        tokio::spawn(async move {
            own.note(event).await;
            writing.store(false, Ordering::Release);
        });
    }

    /// Whether this refusal gets a record, and how many before it got none.
    fn turn(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = state.recorded.is_some_and(|recorded| recorded.elapsed() < RECORD_EVERY);
        if soon || self.writing.swap(true, Ordering::Acquire) {
            state.uncounted += 1;
            return None;
        }
        state.recorded = Some(Instant::now());
        Some(std::mem::take(&mut state.uncounted))
    }
}
