//! How records and verdicts are shown, here and by the other tools for people: never so that they do something to a terminal.

pub mod escape;
pub mod fields;
pub mod severity;
pub mod verdict;
