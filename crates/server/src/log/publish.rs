//! Published resources over HTTP, as the C2SP specification tlog-tiles lays them out: one that changes and many that never do.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::resources::{ResourceError, Resources};
use crate::tls::Tls;

/// Connections at a time. More wait in the listener's backlog.
const CONNECTIONS: usize = 256;
/// A client has so long for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// And so long to send a request's head, also between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// No connection lives longer.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Bytes of a request's head at most.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// After a failed `accept` (no file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the server stops. Plain HTTP without `tls`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    resources: Resources,
    closing: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accept(&listener, &room) => accepted,
        };
        let (permit, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection for published resources could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, resources, closing) = (tls.clone(), resources.clone(), closing.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let served = async {
                match tls {
                    None => converse(stream, &resources).await,
                    Some(tls) => {
                        let handshake = timeout(HANDSHAKE_TIMEOUT, tls.public_acceptor().accept(stream)).await;
                        if let Ok(Ok(stream)) = handshake {
                            converse(stream, &resources).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = closing.cancelled() => {}
                _ = timeout(AGE_MAX, served) => {}
            }
        });
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, tokio::net::TcpStream)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    let _ = stream.set_nodelay(true);
    Ok((permit, stream))
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, resources: &Resources) {
    let service = service_fn(|request: Request<Incoming>| {
        let resources = resources.clone();
        async move { Ok::<_, Infallible>(answer(&request, &resources).await) }
    });
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection for published resources broke");
    }
}

async fn answer(request: &Request<Incoming>, resources: &Resources) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return told(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let path = request.uri().path().trim_start_matches('/');
    if path == "checkpoint" {
        return match resources.log().served() {
            Some(served) => {
                let mut answer = Response::new(Full::new(Bytes::from_owner(served.note)));
                label(answer.headers_mut(), "text/plain; charset=utf-8", "no-store");
                answer
            }
            None => told(StatusCode::NOT_FOUND, "there is no checkpoint yet\n"),
        };
    }
    match resources.tile(path).await {
        Ok(tile) => {
            let mut answer = Response::new(Full::new(tile.into()));
            label(answer.headers_mut(), "application/octet-stream", "public, max-age=31536000, immutable");
            answer
        }
        Err(ResourceError::NotFound) => {
            told(StatusCode::NOT_FOUND, "nothing is published there: /checkpoint tells how far the tiles go\n")
        }
        Err(error) => {
            tracing::error!(path, %error, "a published resource can't be read");
            told(StatusCode::INTERNAL_SERVER_ERROR, "the journal can't be read\n")
        }
    }
}

fn told(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    label(answer.headers_mut(), "text/plain; charset=utf-8", "no-store");
    answer
}

fn label(headers: &mut HeaderMap, kind: &'static str, cache: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
}
