//! The decoders that are fuzzed: those of the tests.

#[path = "../../crates/verify/tests/decoders/points.rs"]
pub mod points;
