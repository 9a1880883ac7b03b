//! The offline verifier: reads an evidence file and a trust file, and says what is proved, by whom, when, and what is not.
//!
//! It needs no network, no server and no database. What the files mean is defined in `sigillo_model::evidence`; here are the
//! reading, the time-stamp tokens, the export of what is readable, and the words.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod command;
pub mod export;
pub mod read;
pub mod show;
pub mod token;
pub mod verdict;

/// The page that defines the formats.
pub const FORMAT_PAGE: &str = include_str!("../../model/FORMAT.md");
