//! The real program: what it answers over HTTP, what it has signed after it was killed, and what programs of
//! others make of our logs and of it.

mod answers;
mod foreign;
mod kill;
mod publish;
mod support;
