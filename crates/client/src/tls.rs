//! TLS 1.3 with a client certificate, over rustls and aws-lc-rs.

use std::{
    io,
    net::IpAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{ClientError, Endpoint, error};

/// For TCP's and TLS's handshakes together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The server at the other end, for errors.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) url: Arc<str>,
    /// Why TLS ended, if it did: the layers above keep only the text of such an error. With TLS 1.3 the server looks at our
    /// certificate after our handshake is over, so its refusal comes with the first bytes that are read.
    pub(crate) fault: Arc<OnceLock<rustls::Error>>,
}

impl Peer {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.into(), fault: Arc::default() }
    }
}

/// A stream that remembers why TLS ended.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

/// Connects once. Files are read anew each time, so that renewed certificates count from the next connection on.
pub(crate) async fn connect(endpoint: &Endpoint, peer: &Peer) -> Result<Watched, ClientError> {
    let url = &endpoint.url;
    let target = endpoint.target()?;
    let config = client_config(endpoint)?;
    let name = endpoint.name.as_deref().unwrap_or(&target.host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| ClientError::Url {
        url: url.clone(),
        what: format!("{name:?} is neither a DNS name nor an IP address: correct the setting `name` or the url's host"),
    })?;
    let handshakes = async {
        let tcp = match target.host.parse::<IpAddr>() {
            Ok(address) => TcpStream::connect((address, target.port)).await?,
            Err(_) => TcpStream::connect((target.host.as_str(), target.port)).await?,
        };
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    };
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s");
    timeout(CONNECT_TIMEOUT, handshakes)
        .await
        .map_err(slow)
        .and_then(|result| result)
        .map(|stream| Watched { stream, peer: peer.clone() })
        .map_err(|error| ClientError::from_connect(url, &error))
}

fn client_config(endpoint: &Endpoint) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", &endpoint.ca)? {
        roots.add(certificate).map_err(|error| {
            wrong("ca", &endpoint.ca, format!("holds a certificate that can't be used as an authority: {error}"))
        })?;
    }
    let chain = certificates("cert", &endpoint.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read("key", &endpoint.key)?)
        .map_err(|error| wrong("key", &endpoint.key, format!("holds no private key in PEM form ({error})")))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ClientError::Tls { url: endpoint.url.clone(), what: error.to_string() })?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| {
            wrong("key", &endpoint.key, format!("does not belong to {} ({error})", endpoint.cert.display()))
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let certificates = CertificateDer::pem_slice_iter(&read(setting, path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(setting, path, format!("is not valid PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong(setting, path, "holds no certificate: it should begin with BEGIN CERTIFICATE".into()));
    }
    Ok(certificates)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "correct the path in the configuration, or put the file there",
            io::ErrorKind::PermissionDenied => "let the user under which this program runs read it",
            _ => "check the disk and the path",
        };
        wrong(setting, path, format!("can't be read ({error}): {hint}"))
    })
}

fn wrong(setting: &'static str, path: &Path, what: String) -> ClientError {
    ClientError::File { setting, path: path.to_owned(), what }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &result
            && let Some(fault) = error::tls_error(error)
        {
            // The first one is the cause.
            let _ = self.peer.fault.set(fault.clone());
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
