//! What the spool and its readers share: which segments there are, and how far they are durable.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sigillo_model::ids::{Epoch, SourceSeq};

use crate::{SpoolError, layout::segment_name};

/// A place in the sender's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The epoch.
    pub epoch: Epoch,
    /// The sequence after the last record.
    pub end: SourceSeq,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) number: u64,
    pub(crate) header_bytes: u64,
    /// How many of its bytes are durable, the header's among them.
    pub(crate) bytes: u64,
    /// The sequence of its first record.
    pub(crate) first: SourceSeq,
    /// Time of the last head before it.
    pub(crate) head_time_ns: u64,
}

/// What readers may see.
#[derive(Debug)]
pub(crate) struct View {
    /// Grows when the spool is carried over into another epoch.
    pub(crate) generation: u64,
    pub(crate) epoch: Epoch,
    /// Ascending, without a gap. The last one is written to.
    pub(crate) segments: VecDeque<Known>,
    /// The sequence after the last durable record.
    pub(crate) next: SourceSeq,
}

impl View {
    pub(crate) fn find(&self, number: u64) -> Option<&Known> {
        let index = self.segments.binary_search_by_key(&number, |known| known.number).ok()?;
        self.segments.get(index)
    }

    pub(crate) fn first(&self) -> SourceSeq {
        self.segments.front().map_or(self.next, |known| known.first)
    }

    pub(crate) fn not_here(&self, asked_epoch: Epoch, asked: SourceSeq) -> SpoolError {
        SpoolError::NotHere { asked_epoch, asked, epoch: self.epoch, first: self.first(), next: self.next }
    }
}

/// Behind an `Arc`, for readers on other threads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    view: Mutex<View>,
}

impl Shared {
    pub(crate) fn new(dir: PathBuf, view: View) -> Self {
        Self { dir, view: Mutex::new(view) }
    }

    /// Held for moments only; nobody panics with it.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.dir.join(segment_name(number))
    }
}
