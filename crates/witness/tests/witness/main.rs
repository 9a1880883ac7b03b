//! The real program: what it answers over HTTP, and what it has signed after it was killed.

mod answers;
mod kill;
mod support;
