//! The words and formats of Sigillo, pure: no input or output, no clock, no randomness, no runtime, no database.
//!
//! Everything that is hashed, stored or checked is defined here once and used by the server, the agent, the people's tools
//! and the verifier alike. The layouts are published in `crates/model/FORMAT.md`.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod add_checkpoint;
pub mod audit;
pub mod batch;
pub mod block;
pub mod chain;
pub mod checkpoint;
pub mod class;
pub mod commitment;
pub mod entry;
pub mod envelope;
pub mod evidence;
pub mod head;
pub mod ids;
pub mod limits;
pub mod misconduct;
pub mod note;
pub mod policy;
pub mod proof;
pub mod receipt;
pub mod record;
pub mod record_proof;
pub mod roles;
pub mod rotation;
pub mod state;
pub mod statement;
pub mod tile;
pub mod tlog_proof;
pub mod tree;
pub mod verdict;

mod cursor;
mod hash;
mod text;
