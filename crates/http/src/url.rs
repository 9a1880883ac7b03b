//! Addresses of resources.

use std::fmt;

use http::Uri;

use crate::HttpError;

/// Where a set of resources lies: `https://host:port/prefix`, or `http://` on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

impl Url {
    /// Reads an address. Plain HTTP is refused but for loopback addresses and `localhost`.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let wrong = |problem: &str| HttpError::Url { url: text.to_owned(), problem: problem.to_owned() };
        let uri: Uri = text.parse().map_err(|error| wrong(&format!("it can't be read: {error}")))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it must begin with https:// (or http:// on this machine)")),
        };
        if uri.query().is_some() {
            return Err(wrong("it must end before the query"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !tls && !loopback {
            return Err(wrong("plain HTTP is for this machine only: use https://"));
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Whether it needs TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as a request names them.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The path of a resource below the prefix.
    pub(crate) fn path(&self, resource: &str) -> String {
        format!("{}/{resource}", self.prefix)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let url = Url::parse("https://log.example/a/b/").unwrap();
        assert_eq!((url.path("checkpoint"), url.authority()), ("/a/b/checkpoint".into(), "log.example:443".into()));
        assert_eq!(Url::parse("http://[::1]:8080").unwrap().authority(), "[::1]:8080");
        assert_eq!(Url::parse("http://127.0.0.1").unwrap().path("x"), "/x");
        assert!(Url::parse("http://localhost:1/w").is_ok());
        for bad in ["http://log.example", "http://10.0.0.1", "ftp://a", "log.example", "https://a/?q", "", "https://"] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
    }
}
