//! Statements.
pub mod counters;
