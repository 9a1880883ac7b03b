//! Connections: TCP, TLS 1.3 unless on loopback, HTTP/1.1 with keep-alive, and a bound on everything.

use std::{io, net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, TlsFiles},
    http,
    witness::Witness,
};

/// Connections at a time; more wait in the listener's backlog.
const CONNECTIONS: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// In which a request's headers must have come.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// After which a connection ends, so that none is held for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(3_600);
/// Given to requests under way when the witness stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed `accept` (no file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request before its body is read.
const BUFFER_BYTES: usize = 16 << 10;

/// Why the witness can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("{address} can't be listened on: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificate or key can't be used.
    #[error("{path}: {problem}")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
}

/// A witness that listens.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
}

impl Server {
    /// Reads the certificate and begins to listen.
    pub async fn bind(config: &Config, witness: Arc<Witness>) -> Result<Self, ServeError> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| ServeError::Listen { address: config.listen, source })?;
        Ok(Self { listener, tls, router: http::router(witness, &config.prefix) })
    }

    /// Where it listens, as a URL without the prefix.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.listener.local_addr()?))
    }

    /// Serves until told to stop, then waits for the requests under way.
    pub async fn run(self, closing: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = closing.cancelled() => break,
                accepted = async {
                    let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
                    self.listener.accept().await.map(|(stream, address)| (permit, stream, address))
                } => accepted,
            };
            let (permit, stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (tls, router, closing) = (self.tls.clone(), self.router.clone(), closing.clone());
            connections.spawn(async move {
                serve_one(stream, address, tls, router, closing).await;
                drop(permit);
            });
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

async fn serve_one(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    closing: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return serve_http(stream, address, router, closing).await };
    match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(stream, address, router, closing).await,
        Ok(Err(error)) => tracing::info!(%address, %error, "a TLS handshake failed"),
        Err(_) => tracing::info!(%address, "a TLS handshake took too long"),
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    router: Router,
    closing: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT).max_buf_size(BUFFER_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = closing.cancelled() => None,
        () = sleep(CONNECTION_AGE) => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        let Ok(ended) = timeout(DRAIN_TIMEOUT, connection).await else { return };
        ended
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection broke");
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let unusable = |path: &Path, problem: &dyn ToString| ServeError::Certificate {
        path: path.display().to_string(),
        problem: problem.to_string(),
    };
    let certificates = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(&files.cert, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| unusable(&files.cert, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
