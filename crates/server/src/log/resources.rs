//! What is published, by path: tiles of the tree and bundles of its entries. Hashes only.

use std::sync::Arc;

use sigillo_journal::{ReadError, Reader};
use sigillo_model::{
    ids::{ChainHash, NodeHash},
    tile::TilePath,
};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

use super::state::Log;

/// Tiles and proofs that are made at a time, for everybody together. The lowest tiles are derived from records, which takes the
/// better part of a millisecond each.
const AT_A_TIME: usize = 8;

/// Why a resource can't be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResourceError {
    /// There is none of this name, or not yet.
    #[error("nothing is published there")]
    NotFound,
    /// The journal can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A task has failed.
    #[error(transparent)]
    Task(#[from] JoinError),
}

/// Makes what is published. Shared.
#[derive(Debug, Clone)]
pub(crate) struct Resources {
    log: Arc<Log>,
    reader: Reader,
    room: Arc<Semaphore>,
}

impl Resources {
    /// Of this log and journal.
    pub(crate) fn new(log: Arc<Log>, reader: Reader) -> Self {
        Self { log, reader, room: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// The log.
    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The journal.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The tile or bundle at `path`, which lies within the published size. Any width of a partial tile is given: it was
    /// published if a checkpoint had that size.
    pub(crate) async fn tile(&self, path: &str) -> Result<Vec<u8>, ResourceError> {
        let tile = TilePath::parse(path).ok_or(ResourceError::NotFound)?;
        let size = self.log.served_size();
        let there = TilePath::within(tile.kind, tile.index, size).ok_or(ResourceError::NotFound)?;
        if there.width < tile.width {
            return Err(ResourceError::NotFound);
        }
        self.blocking(move |reader| reader.tree(size)?.tile(&tile)).await
    }

    /// The chain value of record `index`, and proof that it is in the tree of `size`.
    pub(crate) async fn inclusion(&self, index: u64, size: u64) -> Result<(ChainHash, Vec<NodeHash>), ResourceError> {
        let (entries, proof) = self
            .blocking(move |reader| {
                let proof = reader.inclusion(index, size)?;
                Ok((reader.leaves(index..index.saturating_add(1))?, proof))
            })
            .await?;
        Ok((entries.first().copied().ok_or(ResourceError::NotFound)?, proof))
    }

    /// Proof that the tree of `old` is the beginning of the tree of `new`.
    pub(crate) async fn consistency(&self, old: u64, new: u64) -> Result<Vec<NodeHash>, ResourceError> {
        self.blocking(move |reader| reader.consistency(old, new)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ResourceError> {
        // Never closed.
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| ResourceError::NotFound)?;
        let reader = self.reader.clone();
        // The permit goes along: a caller that goes away does not make room while its work goes on.
        let task = spawn_blocking(move || {
            let outcome = make(&reader);
            drop(permit);
            outcome
        });
        Ok(task.await??)
    }
}
