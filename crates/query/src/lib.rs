//! Searching a journal: which records are asked for, and finding them in what the journal's reader gives. And times as people
//! write them.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod when;

mod filter;
mod scan;
mod search;

pub use filter::Filter;
pub use search::{Hit, Order, Search, Step};
