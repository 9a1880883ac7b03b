//! TLS 1.3 with client certificates, from files that are read again when they change.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio_rustls::TlsAcceptor;

use crate::{config::TlsFiles, error::ServerError};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The certificates in effect.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// The same certificate for everybody.
    public: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, ServerError> {
        let config = ArcSwap::from_pointee(server_config(&files)?);
        let public = ArcSwap::from_pointee(public_config(&files)?);
        Ok(Self { files, config, public })
    }

    /// What accepts the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// What accepts a connection of anybody, for what is published.
    pub(crate) fn public_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.public.load_full())
    }

    /// Reads the files again. When they can't be used, the certificates in effect stay.
    pub(crate) fn reload(&self) {
        match server_config(&self.files).and_then(|config| Ok((config, public_config(&self.files)?))) {
            Ok((config, public)) => {
                self.config.store(Arc::new(config));
                self.public.store(Arc::new(public));
                tracing::info!("certificates were read again");
            }
            Err(error) => tracing::error!(%error, "certificates were not read again; those in effect stay"),
        }
    }

    /// Reads the files again whenever they have changed. Never ends.
    pub(crate) async fn follow(&self) {
        let mut seen = self.changed();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            let now = self.changed();
            if now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    fn changed(&self) -> [Option<SystemTime>; 3] {
        [&self.files.cert, &self.files.key, &self.files.client_ca]
            .map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
    }
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, ServerError> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.client_ca)? {
        roots.add(authority).map_err(|error| unusable(&files.client_ca, &error))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| unusable(&files.client_ca, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates(&files.cert)?, key)
        .map_err(|error| unusable(&files.cert, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry a certificate that was checked against an older list of authorities.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS without client certificates, for HTTP/1.1.
fn public_config(files: &TlsFiles) -> Result<ServerConfig, ServerError> {
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates(&files.cert)?, key)
        .map_err(|error| unusable(&files.cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| unusable(path, &error))?;
    if certificates.is_empty() {
        return Err(unusable(path, &"holds no certificate in PEM"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, problem: &impl ToString) -> ServerError {
    ServerError::Certificate { path: path.to_owned(), problem: problem.to_string() }
}
