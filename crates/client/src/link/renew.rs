//! Certificates that are renewed while we work.

use std::{
    fs,
    path::Path,
    pin::Pin,
    time::{Duration, SystemTime},
};

use sigillo_proto::v1;
use tokio::time::sleep;
use tracing::warn;

use super::hello_asking;
use crate::{ClientError, Connection, Endpoint};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// By what a file is seen to have changed: when it was written, and how long it is.
type Stamp = Option<(SystemTime, u64)>;

/// What the files of an endpoint were when a connection was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps([Stamp; 3]);

/// Resolves to a connection that was made with newer files.
pub(super) type Renewed = Pin<Box<dyn Future<Output = (Connection, Stamps)> + Send>>;

impl Stamps {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let stamp = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self([&endpoint.ca, &endpoint.cert, &endpoint.key].map(|path| stamp(path)))
    }

    /// Looks at the files now and then; once they have changed, and the server welcomes us by the new ones as it did by the old, gives
    /// the connection. Files that don't work (yet) are reported, and tried again.
    pub(super) fn watch(self, endpoint: Endpoint, welcome: &v1::Welcome) -> Renewed {
        let (origin, source) = (welcome.origin.clone(), welcome.source.clone());
        Box::pin(async move {
            let mut said = String::new();
            loop {
                sleep(LOOK_EVERY).await;
                let now = Self::of(&endpoint);
                if now == self {
                    continue;
                }
                let error = match probe(&endpoint).await {
                    Ok((connection, welcome)) if (&welcome.origin, &welcome.source) == (&origin, &source) => {
                        return (connection, now);
                    }
                    Ok(_) => "the server knows us as another source by them".to_owned(),
                    Err(error) => error.to_string(),
                };
                if said != error {
                    warn!(error, "certificates were renewed and can't be used; the present connection is kept");
                    said = error;
                }
            }
        })
    }
}

async fn probe(endpoint: &Endpoint) -> Result<(Connection, v1::Welcome), ClientError> {
    let connection = Connection::open(endpoint).await?;
    let welcome = connection.append(hello_asking("")).await?.welcome;
    Ok((connection, welcome))
}
