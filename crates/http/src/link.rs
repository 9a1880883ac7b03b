//! One connection to one place, made when it is needed.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{HttpError, Url};

/// Most bytes of an answer's head that are buffered.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// The authorities from which the other side's certificate may come.
#[derive(Clone)]
pub struct Roots(TlsConnector);

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Roots")
    }
}

impl Roots {
    /// Reads certificates in PEM.
    pub fn load(path: &Path) -> Result<Self, HttpError> {
        let wrong = |problem: String| HttpError::Roots { path: path.to_owned(), problem };
        let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(error.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("holds no certificate in PEM".into()));
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type, if it is text.
    pub content_type: Option<String>,
    /// The body, whole.
    pub body: Bytes,
}

/// A connection that is kept alive between requests and made anew when it was lost.
#[derive(Debug)]
pub struct Link {
    url: Url,
    roots: Option<Roots>,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Link {
    /// A link to `url`; each request may take `timeout`, connecting included. `roots` are needed for `https`.
    pub fn new(url: Url, roots: Option<Roots>, timeout: Duration) -> Result<Self, HttpError> {
        if url.tls() && roots.is_none() {
            let problem = "its certificate can't be checked: name the file of the authorities that it comes from";
            return Err(HttpError::Url { url: url.to_string(), problem: problem.into() });
        }
        Ok(Self { url, roots, timeout, sender: None })
    }

    /// Where it leads.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Gets a resource of at most `max_bytes`.
    pub async fn get(&mut self, resource: &str, max_bytes: usize) -> Result<Answer, HttpError> {
        self.request(Method::GET, resource, Bytes::new(), max_bytes).await
    }

    /// Posts `body` to a resource. It may arrive twice, when a kept connection breaks: only for what may be repeated.
    pub async fn post(&mut self, resource: &str, body: Bytes, max_bytes: usize) -> Result<Answer, HttpError> {
        self.request(Method::POST, resource, body, max_bytes).await
    }

    async fn request(
        &mut self,
        method: Method,
        resource: &str,
        body: Bytes,
        max_bytes: usize,
    ) -> Result<Answer, HttpError> {
        let within = self.timeout;
        let late = HttpError::Timeout { host: self.url.authority(), ms: within.as_millis() };
        // Taken out, and put back only after a whole answer: a connection in an unknown state is not used again.
        let kept = self.sender.take();
        let answered = timeout(within, async {
            if let Some(mut sender) = kept
                && let Ok(answer) = self.exchange(&mut sender, &method, resource, body.clone(), max_bytes).await
            {
                return Ok((sender, answer));
            }
            let mut sender = self.connect().await?;
            let answer = self.exchange(&mut sender, &method, resource, body, max_bytes).await?;
            Ok((sender, answer))
        });
        let (sender, answer) = answered.await.map_err(|_| late)??;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn exchange(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        method: &Method,
        resource: &str,
        body: Bytes,
        max_bytes: usize,
    ) -> Result<Answer, HttpError> {
        let request = Request::builder()
            .method(method)
            .uri(self.url.path(resource))
            .header(header::HOST, self.url.authority())
            .header(header::USER_AGENT, concat!("sigillo/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        sender.ready().await.map_err(|error| self.broken(&error))?;
        let (head, body) = sender.send_request(request).await.map_err(|error| self.broken(&error))?.into_parts();
        let content_type =
            head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let body = Limited::new(body, max_bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpError::TooLarge { host: self.url.authority(), max: max_bytes }
            } else {
                self.broken(&error)
            }
        })?;
        Ok(Answer { status: head.status.as_u16(), content_type, body: body.to_bytes() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let stream = TcpStream::connect((self.url.host(), self.url.port())).await.map_err(|error| self.lost(&error))?;
        // Requests are small and awaited.
        let _ = stream.set_nodelay(true);
        match &self.roots {
            Some(Roots(tls)) if self.url.tls() => {
                let name = ServerName::try_from(self.url.host().to_owned()).map_err(|error| self.lost(&error))?;
                let stream = tls.connect(name, stream).await.map_err(|error| self.lost(&error))?;
                self.shake_hands(stream).await
            }
            _ => self.shake_hands(stream).await,
        }
    }

    async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
    ) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_MAX_BYTES)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Ends with the sender. Its errors reach whoever waits for an answer.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn lost(&self, error: &impl ToString) -> HttpError {
        HttpError::Connect { host: self.url.authority(), problem: error.to_string() }
    }

    fn broken(&self, error: &impl ToString) -> HttpError {
        HttpError::Broken { host: self.url.authority(), problem: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers each connection with the same bytes, after having read something, and keeps it open.
    async fn server(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4_096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    async fn get(answer: &[u8]) -> Result<Answer, HttpError> {
        let url = Url::parse(&format!("http://{}", server(answer.to_vec()).await)).unwrap();
        let mut link = Link::new(url, None, Duration::from_millis(500)).unwrap();
        link.get("first", 100).await?;
        link.get("second", 100).await
    }

    #[tokio::test]
    async fn answers_come_whole() {
        let answer = get(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok").await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert_eq!(answer.content_type.as_deref(), Some("text/plain"));
    }

    #[tokio::test]
    async fn what_is_too_large_too_late_or_not_http_is_an_error() {
        let mut large = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..1_000 {
            large.extend_from_slice(b"400\r\n");
            large.extend_from_slice(&[b'x'; 1_024]);
            large.extend_from_slice(b"\r\n");
        }
        assert!(matches!(get(&large).await, Err(HttpError::TooLarge { max: 100, .. })));
        assert!(matches!(get(b"").await, Err(HttpError::Timeout { ms: 500, .. })));
        let cut = get(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok").await;
        assert!(matches!(cut, Err(HttpError::Timeout { .. })), "{cut:?}");
        assert!(matches!(get(b"nonsense\r\n\r\n").await, Err(HttpError::Broken { .. })));
        let mut heads = b"HTTP/1.1 200 OK\r\n".to_vec();
        heads.extend_from_slice(&b"X: y\r\n".repeat(5_000));
        assert!(matches!(get(&heads).await, Err(HttpError::Broken { .. })));
    }

    #[test]
    fn tls_needs_authorities() {
        let url = Url::parse("https://log.example").unwrap();
        let error = Link::new(url, None, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("name the file of the authorities"), "{error}");
    }
}
