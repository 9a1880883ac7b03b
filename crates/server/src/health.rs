//! What the world is told of this server by `grpc.health.v1`.

use std::sync::Arc;

use sigillo_proto::v1::{
    audit_server::AuditServer, ingest_server::IngestServer, log_server::LogServer, query_server::QueryServer,
};
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{audit::AuditService, ingest::grpc::IngestService, log::LogService, query::QueryService};

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Everything is served.
    Serving,
    /// The journal takes nothing more; it can be read.
    Poisoned,
    /// The server stops.
    Draining,
}

/// Everything that is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    state: State,
    /// Checkpoints are signed, or are not asked for.
    checkpoints: bool,
}

/// The server's health. Only ever gets worse, until a restart.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    state: Arc<watch::Sender<Condition>>,
}

impl Health {
    /// A healthy server, which reports to `reporter` until it is dropped.
    pub(crate) fn start(reporter: HealthReporter) -> Self {
        let (state, mut changes) = watch::channel(Condition { state: State::Serving, checkpoints: true });
        tokio::spawn(async move {
            loop {
                let state = *changes.borrow_and_update();
                report(&reporter, state).await;
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        Self { state: Arc::new(state) }
    }

    /// The journal's writer has failed.
    pub(crate) fn poisoned(&self) {
        metrics::gauge!("sigillo_journal_poisoned").set(1);
        self.worsen(State::Poisoned);
    }

    /// No checkpoints are signed any more; everything else goes on.
    pub(crate) fn no_checkpoints(&self) {
        self.state.send_modify(|condition| condition.checkpoints = false);
    }

    /// The server stops.
    pub(crate) fn draining(&self) {
        self.worsen(State::Draining);
    }

    fn worsen(&self, to: State) {
        self.state.send_if_modified(|condition| {
            let worse = to > condition.state;
            if worse {
                condition.state = to;
            }
            worse
        });
    }
}

async fn report(reporter: &HealthReporter, Condition { state, checkpoints }: Condition) {
    let serving = |serving| if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    let all = state == State::Serving;
    let reads = state != State::Draining;
    reporter.set_service_status("", serving(all)).await;
    reporter.set_service_status(IngestServer::<IngestService>::NAME, serving(all)).await;
    reporter.set_service_status(QueryServer::<QueryService>::NAME, serving(reads)).await;
    reporter.set_service_status(LogServer::<LogService>::NAME, serving(reads && checkpoints)).await;
    reporter.set_service_status(AuditServer::<AuditService>::NAME, serving(reads)).await;
}
