//! The streams of each source: how many there may be, and that a newer session ends the older ones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sigillo_model::ids::SourceId;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Shared;

/// All streams that are open.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<SourceId, Vec<Stream>>>,
}

#[derive(Debug)]
struct Stream {
    /// Set when a newer session of the source has begun.
    superseded: CancellationToken,
    /// It has said hello.
    begun: bool,
}

/// One of the streams that a source may have.
pub(super) struct Slot {
    shared: Arc<Shared>,
    source: SourceId,
    /// Cancelled when a newer session of the source has begun; tells this stream from the others, too.
    superseded: CancellationToken,
}

impl Slot {
    pub(super) fn take(shared: &Arc<Shared>, source: SourceId) -> Result<Self, Status> {
        let mut open = shared.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = open.entry(source).or_default();
        let most = shared.limits.streams_per_source;
        if streams.len() >= most {
            return Err(Status::resource_exhausted(format!(
                "this source has {most} streams open, the most it may have: end one first"
            )));
        }
        let superseded = CancellationToken::new();
        streams.push(Stream { superseded: superseded.clone(), begun: false });
        Ok(Self { shared: Arc::clone(shared), source, superseded })
    }

    /// This stream has said hello. If it is a session, all of the source's that have begun before are told to end: what is left of
    /// them, on a connection that nobody noticed to be dead or in a copy of the sender, must not write beside this one.
    pub(super) fn begin(&self, session: bool) {
        let mut open = self.shared.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.get_mut(&self.source).into_iter().flatten() {
            if stream.superseded == self.superseded {
                stream.begun = true;
            } else if session && stream.begun {
                stream.superseded.cancel();
            }
        }
    }

    /// Returns once a newer session of the source has begun.
    pub(super) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.shared.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = open.get_mut(&self.source) {
            streams.retain(|stream| stream.superseded != self.superseded);
            if streams.is_empty() {
                open.remove(&self.source);
            }
        }
    }
}
