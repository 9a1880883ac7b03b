//! The spool against an exact model, and against everything that a crash, a full disk or a stranger does to its files.

mod basics;
mod crash;
mod support;
