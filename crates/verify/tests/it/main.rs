//! The verifier on files: its words, its exit codes, time-stamp tokens, what it exports.

mod command;
mod files;
mod token;
