//! What is published, by path: tiles of the tree and bundles of its entries. Hashes only.

use std::sync::Arc;

use sigillo_journal::{ReadError, Reader, TreeReader};
use sigillo_model::{
    ids::{ChainHash, NodeHash},
    proof::{self, MakeError, Subtrees},
    tile::{TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath},
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
    /// It was asked for something that can't be.
    #[error("{0}")]
    Range(String),
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
        self.blocking(move |reader| make(reader, tile, size)).await
    }

    /// The chain value of record `index`, and proof that it is in the tree of `size`.
    pub(crate) async fn inclusion(&self, index: u64, size: u64) -> Result<(ChainHash, Vec<NodeHash>), ResourceError> {
        self.blocking(move |reader| {
            let proof = proof::inclusion(index, size, &Tree(reader.tree(size)?)).map_err(unmade)?;
            // Within the size, or there would be no proof.
            let entry = reader.leaves(index..index.saturating_add(1))?.first().copied();
            Ok((entry.ok_or(ResourceError::NotFound)?, proof))
        })
        .await
    }

    /// Proof that the tree of `old` is the beginning of the tree of `new`.
    pub(crate) async fn consistency(&self, old: u64, new: u64) -> Result<Vec<NodeHash>, ResourceError> {
        self.blocking(move |reader| consistency(reader, old, new)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Reader) -> Result<T, ResourceError> + Send + 'static,
    ) -> Result<T, ResourceError> {
        // Never closed.
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| ResourceError::NotFound)?;
        let reader = self.reader.clone();
        // The permit goes along: a caller that goes away does not make room while its work goes on.
        spawn_blocking(move || {
            let made = make(&reader);
            drop(permit);
            made
        })
        .await?
    }
}

/// Proof that the tree of `old` is the beginning of the tree of `new`. Blocks.
pub(crate) fn consistency(reader: &Reader, old: u64, new: u64) -> Result<Vec<NodeHash>, ResourceError> {
    proof::consistency(old, new, &Tree(reader.tree(new)?)).map_err(unmade)
}

/// The tree of a journal, as proofs are made from it.
struct Tree(TreeReader);

impl Subtrees for Tree {
    type Error = ReadError;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, ReadError> {
        self.0.subtree(height, index)
    }
}

fn unmade(error: MakeError<ReadError>) -> ResourceError {
    match error {
        MakeError::Range(error) => ResourceError::Range(error.to_string()),
        MakeError::Subtrees(error) => ResourceError::Read(error),
    }
}

fn make(reader: &Reader, tile: TilePath, size: u64) -> Result<Vec<u8>, ResourceError> {
    let first = tile.index * u64::from(TILE_WIDTH);
    let range = first..first + u64::from(tile.width);
    match tile.kind {
        TileKind::Hashes(level) => {
            let tree = reader.tree(size)?;
            let hash = |index| tree.subtree(TILE_HEIGHT * u32::from(level), index);
            let hashes = range.map(hash).collect::<Result<Vec<_>, _>>()?;
            Ok(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
        }
        TileKind::Entries => {
            let mut bundle = Vec::with_capacity(usize::from(tile.width) * 34);
            for entry in reader.leaves(range)? {
                bundle.extend_from_slice(&32_u16.to_be_bytes());
                bundle.extend_from_slice(entry.as_bytes());
            }
            Ok(bundle)
        }
    }
}
