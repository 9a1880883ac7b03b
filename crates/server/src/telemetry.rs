//! The server's own log and metrics. Neither ever holds a record's body or a secret.

use std::{convert::Infallible, io::IsTerminal, sync::OnceLock, time::Duration};

use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{LogFormat, LogTable},
    error::ServerError,
};

/// Most time for one answer to whoever collects the metrics.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds from a batch's arrival to its acknowledgement are counted in these buckets.
const ACK_BUCKETS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Begins to log to standard error. Once in a process.
pub fn log(table: &LogTable) -> Result<(), ServerError> {
    let fault = |error: &dyn ToString| ServerError::Telemetry(error.to_string());
    let builder = tracing_subscriber::fmt().with_env_filter(filter(table)?).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match table.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| fault(&error))
}

/// Which events are logged.
pub fn filter(table: &LogTable) -> Result<EnvFilter, ServerError> {
    EnvFilter::try_new(&table.filter).map_err(|error| ServerError::Telemetry(format!("[log] filter: {error}")))
}

/// The metrics of this process. They are global because the `metrics` crate's are.
pub fn metrics() -> Result<PrometheusHandle, ServerError> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets(&ACK_BUCKETS)
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| error.to_string())
        })
        .clone()
        .map_err(ServerError::Telemetry)
}

/// Serves `/metrics` until the server stops. One collector at a time: there is no reason for more.
pub async fn serve(listener: TcpListener, metrics: PrometheusHandle, closing: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let service = service_fn(|request: Request<Incoming>| {
            let answer = answer(&request, &metrics);
            async { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            () = closing.cancelled() => return,
            _ = timeout(SCRAPE_TIMEOUT, connection) => {}
        }
    }
}

fn answer(request: &Request<Incoming>, metrics: &PrometheusHandle) -> Response<String> {
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        let mut answer = Response::new("the metrics are at /metrics\n".to_owned());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return answer;
    }
    metrics.run_upkeep();
    let mut answer = Response::new(metrics.render());
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    answer.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    answer
}
