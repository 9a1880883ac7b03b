//! The spool: what a sender has read and the journal has not acknowledged, on the sender's disk.
//!
//! Batches are sealed into the sender's chain as they are appended, with the marks that tell how far each source was read, in
//! one frame. Signed heads stand between them; the key that signs them moves forward with each. Frames lie in segments; whole
//! segments are deleted when all that they hold is acknowledged. Laid out in `crates/model/FORMAT.md`, "Spool".
//!
//! One thread owns the [`Spool`]. [`Reader`]s work beside it and see only what is durable. Nothing here starts a thread or reads a
//! network.
//!
//! A spool holds one epoch of one source of one journal. [`Spool::rechain`] carries what is not released over into another
//! epoch or journal.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod ages;
mod error;
mod folder;
mod frame;
mod key;
mod layout;
mod marks;
mod options;
mod reader;
mod rechain;
mod recover;
mod scan;
mod segment;
mod shared;
mod since;
mod spool;

pub use error::{Damage, Lost, SpoolError};
pub use marks::{KEY_MAX_BYTES, MARKS_MAX, MARKS_MAX_BYTES, Marks, VALUE_MAX_BYTES};
pub use options::Options;
pub use reader::{Frame, Reader};
pub use rechain::Rechained;
pub use recover::{Opened, open, set_aside};
pub use shared::Place;
pub use spool::{Identity, Spool, State};
