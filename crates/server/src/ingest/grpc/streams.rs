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
    /// Takes a place before anything is heard on the stream: as many again as may go on can be waited for or be about to end, so that
    /// those that hang do not keep out the session that ends them.
    pub(super) fn take(shared: &Arc<Shared>, source: SourceId) -> Result<Self, Status> {
        let mut open = shared.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = open.entry(source).or_default();
        let most = shared.limits.streams_per_source;
        if streams.len() >= most.saturating_mul(2) {
            return Err(too_many(most));
        }
        let superseded = CancellationToken::new();
        streams.push(Stream { superseded: superseded.clone(), begun: false });
        Ok(Self { shared: Arc::clone(shared), source, superseded })
    }

    /// This stream has said hello. If it is a session, all of the source's that have begun before are told to end: what is left of
    /// them, on a connection that nobody noticed to be dead or in a copy of the sender, must not write beside this one. Fails if as many
    /// as may be go on.
    pub(super) fn begin(&self, session: bool) -> Result<(), Status> {
        let mut open = self.shared.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = open.entry(self.source).or_default();
        if session {
            streams.iter().filter(|stream| stream.begun).for_each(|stream| stream.superseded.cancel());
        }
        let most = self.shared.limits.streams_per_source;
        if streams.iter().filter(|stream| stream.begun && !stream.superseded.is_cancelled()).count() >= most {
            return Err(too_many(most));
        }
        if let Some(this) = streams.iter_mut().find(|stream| stream.superseded == self.superseded) {
            this.begun = true;
        }
        Ok(())
    }

    /// Returns once a newer session of the source has begun.
    pub(super) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

fn too_many(most: usize) -> Status {
    Status::resource_exhausted(format!("this source has {most} streams open, the most it may have: end one first"))
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
