//! What a service owes to its surroundings: metrics, a word to the service manager, an end when it is asked to.

use std::net::SocketAddr;

use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use sd_notify::NotifyState;
use sigillo_model::verdict::Verdict;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::tell;
use crate::failure::Failure;

const VERDICTS: [&str; 4] = ["intact", "unmet", "stale", "altered"];

/// Begins to show metrics.
pub(super) fn show_metrics(address: SocketAddr) -> Result<(), Failure> {
    let shown = PrometheusBuilder::new().with_http_listener(address).install();
    shown.map_err(|error| Failure::Usage(format!("--metrics {address}: {error}")))
}

/// Cancelled by SIGTERM or SIGINT.
pub(super) fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

/// Tells the service manager, if there is one.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    // Without one there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// Records walked since the last time.
pub(super) fn walked(size: u64, more: u64) {
    gauge!("sigillo_audit_size").set(precise(size));
    counter!("sigillo_audit_records_walked_total").increment(more);
}

/// The newest verdict, and the age of the newest quorum.
pub(super) fn judged(verdict: &Verdict, quorum_time: Option<u64>, now: u64) {
    let word = tell::word(verdict);
    for name in VERDICTS {
        gauge!("sigillo_audit_verdict", "verdict" => name).set(if name == word { 1.0 } else { 0.0 });
    }
    age(quorum_time, now);
    gauge!("sigillo_audit_last_look_unix_seconds").set(precise(now));
}

/// The age of the newest quorum, which grows while nothing is heard.
pub(super) fn age(quorum_time: Option<u64>, now: u64) {
    if let Some(time) = quorum_time {
        gauge!("sigillo_audit_quorum_age_seconds").set(precise(now.saturating_sub(time)));
    }
}

/// Whether the server could be reached.
pub(super) fn reached(yes: bool) {
    gauge!("sigillo_audit_reachable").set(if yes { 1.0 } else { 0.0 });
}

/// Exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
fn precise(number: u64) -> f64 {
    number as f64
}
