//! The client against a small server over real sockets and real TLS.

mod connection;
mod guard;
mod journal;
mod server;
mod ship;
mod spooled;
