//! One connection to a server and the calls that can be made over it.

use std::{fmt, io, sync::Mutex, time::Duration};

use hyper_util::rt::TokioIo;
use sigillo_model::limits::MESSAGE_MAX_BYTES;
use sigillo_proto::v1::{self, audit_client::AuditClient, ingest_client::IngestClient, query_client::QueryClient};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint as Transport},
};

use crate::{
    AppendSession, ClientError, Endpoint,
    tls::{self, Peer},
};

/// Answers of the server may hold one stored entry, whose parts and lists come on top of a whole message of a source.
pub(crate) const ANSWER_MAX_BYTES: usize = 2 * MESSAGE_MAX_BYTES;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// One connection. Cheap to clone; clones share it. Once lost it stays lost: open a new one.
#[derive(Clone)]
pub struct Connection {
    endpoint: Endpoint,
    pub(crate) channel: Channel,
    peer: Peer,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.endpoint.url).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects: TCP, TLS 1.3, HTTP/2. Whether the server knows our certificate shows in the first call.
    pub async fn open(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let url = endpoint.url.clone();
        let peer = Peer::new(&url);
        let stream = Mutex::new(Some(Box::pin(tls::connect(endpoint, &peer)).await?));
        // The stream is made before, so that its errors are known; and used once, so that nothing reconnects unasked.
        let connector = tower::service_fn(move |_| {
            let stream = stream.lock().ok().and_then(|mut stream| stream.take());
            let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection was lost");
            std::future::ready(stream.map(TokioIo::new).ok_or_else(gone))
        });
        let channel = Transport::from_shared(url.clone())
            .map_err(|error| ClientError::Url { url: url.clone(), what: error.to_string() })?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector(connector)
            .await
            .map_err(|error| ClientError::from_cause(&peer, &error))?;
        Ok(Self { endpoint: endpoint.clone(), channel, peer })
    }

    /// Where this connection leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Opens a stream of batches: introduces us and waits for the server's welcome.
    pub async fn append(&self, hello: v1::Hello) -> Result<AppendSession, ClientError> {
        let client = IngestClient::new(self.channel.clone())
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
            .max_decoding_message_size(MESSAGE_MAX_BYTES);
        AppendSession::open(client, &self.peer, hello).await
    }

    /// Searches what was durable when the search began. An answer whose last message is not `Done` was cut off.
    pub async fn search(&self, request: v1::SearchRequest) -> Result<Responses<v1::SearchResponse>, ClientError> {
        self.answers(self.query().search(request).await)
    }

    /// Follows what matches from now on.
    pub async fn tail(&self, request: v1::TailRequest) -> Result<Responses<v1::SearchResponse>, ClientError> {
        self.answers(self.query().tail(request).await)
    }

    /// The journal's durable head.
    pub async fn head(&self) -> Result<v1::Head, ClientError> {
        let answer = self.audit().get_head(v1::GetHeadRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }

    /// The stored entries of a range of sequences. A walk whose last message is not `WalkEnd` was cut off.
    pub async fn walk(&self, request: v1::WalkRequest) -> Result<Responses<v1::WalkResponse>, ClientError> {
        self.answers(self.audit().walk(request).await)
    }

    /// Records with their proofs, as the beginning of an evidence file. One whose last message is not `ExportEnd` was cut off.
    pub async fn export(&self, request: v1::ExportRequest) -> Result<Responses<v1::ExportResponse>, ClientError> {
        self.answers(self.audit().export(request).await)
    }

    fn query(&self) -> QueryClient<Channel> {
        QueryClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    pub(crate) fn answers<T>(
        &self,
        answer: Result<tonic::Response<Streaming<T>>, tonic::Status>,
    ) -> Result<Responses<T>, ClientError> {
        let stream = answer.map_err(|status| self.error(&status))?.into_inner();
        Ok(Responses::new(stream, &self.peer))
    }

    pub(crate) fn error(&self, status: &tonic::Status) -> ClientError {
        ClientError::from_status(&self.peer, status)
    }
}

/// Messages of a server, as they come. Dropped, it tells the server to stop.
pub struct Responses<T> {
    stream: Streaming<T>,
    peer: Peer,
}

impl<T> fmt::Debug for Responses<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").field("url", &self.peer.url).finish_non_exhaustive()
    }
}

impl<T> Responses<T> {
    pub(crate) fn new(stream: Streaming<T>, peer: &Peer) -> Self {
        Self { stream, peer: peer.clone() }
    }

    /// The next message, or `None` after the last. Loses nothing when it is cancelled.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        self.stream.message().await.map_err(|status| ClientError::from_status(&self.peer, &status))
    }
}
