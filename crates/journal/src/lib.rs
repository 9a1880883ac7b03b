//! The journal: the only crate that knows RocksDB.
//!
//! Batches go in through [`Journal::submit`] and come back as receipts once they are durable. A single writer thread gives
//! sequences, links the chain and commits whole frames in one synced write each. [`Reader`]s see nothing past the durable
//! head and never touch the writer.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod apply;
pub mod backup;
mod checkpoints;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod conformance_removal;
#[cfg(test)]
mod conformance_tree;
mod eraser;
mod error;
mod frame;
mod head_file;
mod layout;
mod options;
mod orders;
mod read;
mod recover;
pub mod restore;
mod sign;
mod signed;
mod store;
mod submit;
mod tree;
pub mod verify;
mod verify_tree;
mod writer;

pub use checkpoints::KeptCheckpoint;
pub use eraser::{RemovalReport, Removals};
pub use error::{OpenError, ReadError, SubmitError};
pub use frame::{Head, Receipt, Refusal, Submission, TenantRun};
pub use options::Options;
pub use read::{Entries, Reader, StoredEntry};
pub use sign::{Answer, ReceiptProof};
pub use store::{Direction, StoreError, StoreErrorKind};
pub use submit::{Compose, Journal, Opened, Pending};
pub use tree::{Link, LinkedPart, TreeReader};
