//! Where a server is, and who we are there.

use std::path::{Path, PathBuf};

use http::Uri;
use serde::Deserialize;

use crate::ClientError;

/// Port of a URL that names none.
const DEFAULT_PORT: u16 = 7443;

/// The connection table of the agent's and the people's configuration files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Address of the server: `https://host:port`. Port 7443 if it names none.
    pub url: String,
    /// PEM file with the certificates of the authorities that the server's certificate may come from.
    pub ca: PathBuf,
    /// PEM file with our certificate, followed by intermediate ones if there are any.
    pub cert: PathBuf,
    /// PEM file with the private key of our certificate.
    pub key: PathBuf,
    /// Name that the server's certificate must carry. By default the host of `url`.
    #[serde(default)]
    pub name: Option<String>,
    /// The trust file: who signs the journal's checkpoints and receipts. Without it nothing that the server says is verified.
    #[serde(default)]
    pub trust: Option<PathBuf>,
    /// Folder in which the newest checkpoint is remembered, and in which misconduct is written down; needs `trust`. Made if missing. By
    /// default an agent's state directory, for people's commands `$XDG_STATE_HOME/sigillo`.
    #[serde(default)]
    pub remember: Option<PathBuf>,
}

/// Parts of the URL that are needed to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Endpoint {
    /// Makes relative paths relative to `base`, the folder of the configuration file.
    pub fn resolve(&mut self, base: &Path) {
        for path in
            [&mut self.ca, &mut self.cert, &mut self.key].into_iter().chain(&mut self.trust).chain(&mut self.remember)
        {
            *path = base.join(&*path);
        }
    }

    pub(crate) fn target(&self) -> Result<Target, ClientError> {
        let wrong = |what: &str| ClientError::Url { url: self.url.clone(), what: what.into() };
        let uri: Uri = self.url.parse().map_err(|error| wrong(&format!("it can't be read: {error}")))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("it must begin with https://, the server speaks nothing but TLS"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it must end after the port"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Target { host, port: uri.port_u16().unwrap_or(DEFAULT_PORT) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        let (ca, cert, key) = ("ca.pem".into(), "/x/a.pem".into(), "a.key".into());
        Endpoint { url: url.into(), ca, cert, key, name: None, trust: Some("trust.txt".into()), remember: None }
    }

    #[test]
    fn urls_are_checked() {
        let target = |host: &str, port| Target { host: host.into(), port };
        assert_eq!(endpoint("https://log.example").target().unwrap(), target("log.example", 7443));
        assert_eq!(endpoint("https://[::1]:99/").target().unwrap(), target("::1", 99));
        for bad in ["http://a:1", "a:1", "https://a/b", "https://", "https://a b", ""] {
            assert!(endpoint(bad).target().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let mut endpoint = endpoint("https://a");
        endpoint.resolve(Path::new("/etc/sigillo"));
        assert_eq!((endpoint.ca, endpoint.cert), ("/etc/sigillo/ca.pem".into(), "/x/a.pem".into()));
        assert_eq!(endpoint.trust, Some("/etc/sigillo/trust.txt".into()));
    }
}
