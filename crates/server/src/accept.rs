//! The accept loop: TCP, TLS with a deadline, HTTP/2, and an end for every connection.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower::Service;

use crate::{
    config::Limits,
    identity::{Fingerprint, Peer},
    tls::Tls,
};

/// TLS handshakes at a time. They cost the most and come from anybody, so they don't take the connections' room; more wait
/// in the listener's backlog.
const HANDSHAKES: usize = 256;
/// Calls at a time on one connection.
const CALLS_PER_CONNECTION: u32 = 128;
/// Bytes that a peer may send on one call before they are read; more than a batch of ordinary size.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for all calls of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of answers that are buffered for a call.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Most bytes of a request's headers.
const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// A silent peer is asked so often whether it lives, and given up after as long without an answer.
const PING_EVERY: Duration = Duration::from_secs(20);
/// After a failed `accept` (no file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Accept {
    /// Certificates.
    pub(crate) tls: Arc<Tls>,
    /// The services.
    pub(crate) routes: Routes,
    /// Bounds.
    pub(crate) limits: Limits,
    /// Set when the server stops.
    pub(crate) closing: CancellationToken,
}

/// Accepts until the server stops, then waits for the connections to end.
pub(crate) async fn serve(listener: TcpListener, accept: Accept) {
    let accept = Arc::new(accept);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let room = Arc::new(Semaphore::new(accept.limits.connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = accept.closing.cancelled() => break,
            accepted = accept_one(&listener, &handshakes) => accepted,
        };
        let (handshake, stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (accept, room) = (Arc::clone(&accept), Arc::clone(&room));
        connections.spawn(async move {
            let Some((stream, peer)) = shake_hands(stream, address, &accept).await else { return };
            drop(handshake);
            let Ok(_permit) = room.try_acquire() else {
                metrics::counter!("sigillo_connections_refused_total").increment(1);
                let limit = accept.limits.connections;
                return tracing::warn!(%address, limit, "too many connections: closed at once");
            };
            metrics::gauge!("sigillo_connections").increment(1);
            serve_http(stream, peer, &accept).await;
            metrics::gauge!("sigillo_connections").decrement(1);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is room for its handshake.
async fn accept_one(
    listener: &TcpListener,
    handshakes: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let permit = Arc::clone(handshakes).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((permit, stream, address))
}

async fn shake_hands(stream: TcpStream, address: SocketAddr, accept: &Accept) -> Option<(TlsStream<TcpStream>, Peer)> {
    // Acknowledgements are small and awaited.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::select! {
        () = accept.closing.cancelled() => return None,
        handshake = timeout(accept.limits.handshake_timeout, accept.tls.acceptor().accept(stream)) => handshake,
    };
    let reason = match handshake {
        Ok(Ok(stream)) => match peer_fingerprint(&stream) {
            Some(fingerprint) => {
                return Some((stream, Peer { fingerprint, address, closing: accept.closing.child_token() }));
            }
            None => "no client certificate".to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the handshake took too long".to_owned(),
    };
    refused(address, &reason);
    None
}

fn refused(address: SocketAddr, reason: &str) {
    metrics::counter!("sigillo_handshakes_failed_total").increment(1);
    tracing::info!(%address, reason, "a TLS handshake failed");
}

fn peer_fingerprint(stream: &TlsStream<TcpStream>) -> Option<Fingerprint> {
    let (_, session) = stream.get_ref();
    session.peer_certificates()?.first().map(|certificate| Fingerprint::of(certificate))
}

async fn serve_http(stream: TlsStream<TcpStream>, peer: Peer, accept: &Accept) {
    let (address, closing) = (peer.address, peer.closing.clone());
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let mut routes = accept.routes.clone();
        async move { Ok::<_, Infallible>(routes.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADERS_MAX_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = closing.cancelled() => None,
        () = sleep(accept.limits.connection_age) => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        // Calls learn it from their peer and end by themselves; GOAWAY keeps new ones off.
        closing.cancel();
        connection.as_mut().graceful_shutdown();
        let Ok(ended) = timeout(accept.limits.drain_timeout, connection).await else {
            return tracing::info!(%address, "a connection did not end in time: cut");
        };
        ended
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection broke");
    }
}
