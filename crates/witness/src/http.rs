//! The witness over HTTP: what the specification tlog-witness asks for, a read side for monitors, and a sign of life.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use sigillo_model::{
    add_checkpoint::{AddCheckpointError, BODY_MAX_BYTES, SIZE_CONTENT_TYPE},
    checkpoint::CheckpointError,
};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    state::StateError,
    witness::{Refusal, Witness},
};

/// In which a request's body must have come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const TEXT: &str = "text/plain; charset=utf-8";

/// All paths.
pub(crate) fn router(witness: Arc<Witness>, prefix: &str) -> Router {
    Router::new()
        .route(&format!("{prefix}/add-checkpoint"), post(add_checkpoint))
        .route(&format!("{prefix}/checkpoint/{{origin_hash}}"), get(checkpoint))
        .route("/health", get(health))
        .with_state(witness)
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX_BYTES)).await {
        Ok(Ok(body)) => body,
        // The other reason is a connection that broke, where nobody hears the answer.
        Ok(Err(_)) => {
            let text = format!("the body is larger than {BODY_MAX_BYTES} bytes");
            return answer(StatusCode::PAYLOAD_TOO_LARGE, &text);
        }
        Err(_) => return answer(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    let cosigned = spawn_blocking(move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        witness.add_checkpoint(&body, now).inspect_err(|refusal| log(refusal, &body))
    });
    match cosigned.await {
        Ok(Ok(signature)) => (StatusCode::OK, [(CONTENT_TYPE, TEXT)], signature.to_string()).into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Err(error) => {
            tracing::error!(%error, "a request broke");
            answer(StatusCode::INTERNAL_SERVER_ERROR, "the request broke; the witness's own log says why")
        }
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Body(AddCheckpointError::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
        // An empty tree can't have another root, as a wrong proof can't lead to it.
        Refusal::Checkpoint(CheckpointError::EmptyRoot) | Refusal::Inconsistent(_) | Refusal::Sign(_) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Refusal::Body(_) | Refusal::Checkpoint(_) | Refusal::Backwards { .. } => StatusCode::BAD_REQUEST,
        Refusal::UnknownLog(_) => StatusCode::NOT_FOUND,
        Refusal::NotSigned(_) => StatusCode::FORBIDDEN,
        Refusal::OtherSize(size) | Refusal::OtherRoot(size) => {
            return (StatusCode::CONFLICT, [(CONTENT_TYPE, SIZE_CONTENT_TYPE)], format!("{size}\n")).into_response();
        }
        // Paths are the operator's, who finds them in the log.
        Refusal::State(_) => {
            return answer(StatusCode::INTERNAL_SERVER_ERROR, "the witness can't remember: see its own log");
        }
    };
    answer(status, &refusal.to_string())
}

fn log(refusal: &Refusal, body: &[u8]) {
    match refusal {
        // The log's own signature is under this: proof of misconduct, if the log's key is its own.
        Refusal::OtherRoot(_) | Refusal::Inconsistent(_) => {
            tracing::error!(%refusal, request = %String::from_utf8_lossy(body), "a log may have forked");
        }
        Refusal::State(_) => tracing::error!(%refusal, "not cosigned"),
        Refusal::OtherSize(_) => tracing::debug!(%refusal, "not cosigned"),
        _ => tracing::info!(%refusal, "not cosigned"),
    }
}

async fn checkpoint(State(witness): State<Arc<Witness>>, Path(origin_hash): Path<String>) -> Response {
    match read(move || witness.newest(&origin_hash)).await {
        Ok(Some(note)) => (StatusCode::OK, [(CONTENT_TYPE, TEXT)], note.to_string()).into_response(),
        Ok(None) => answer(StatusCode::NOT_FOUND, "no checkpoint of such a log was cosigned here"),
        Err(response) => response,
    }
}

async fn health(State(witness): State<Arc<Witness>>) -> Response {
    match read(move || witness.sizes().try_for_each(|(_, size)| size.map(|_| ()))).await {
        Ok(()) => answer(StatusCode::OK, "ok"),
        Err(response) => response,
    }
}

/// Reads the state off the runtime's own threads.
async fn read<T: Send + 'static>(read: impl FnOnce() -> Result<T, StateError> + Send + 'static) -> Result<T, Response> {
    match spawn_blocking(read).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!(%error, "the state could not be read");
            Err(answer(StatusCode::INTERNAL_SERVER_ERROR, "the witness can't remember: see its own log"))
        }
        Err(_) => Err(answer(StatusCode::INTERNAL_SERVER_ERROR, "the request broke")),
    }
}

fn answer(status: StatusCode, text: &str) -> Response {
    (status, [(CONTENT_TYPE, TEXT)], format!("{text}\n")).into_response()
}
