//! The connection to a server: mutual TLS, sessions, retry, and a shipper that sends records until they are durable.
//!
//! No type of the transport is public: callers see messages of `sigillo_proto::v1` and [`ClientError`].

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod backoff;
mod connection;
mod cpu;
mod endpoint;
mod error;
pub mod files;
mod guard;
mod link;
mod log;
mod session;
pub mod ship;
mod sources;
pub mod spooled;
mod tls;

pub use backoff::Backoff;
pub use connection::{Connection, Responses};
pub use cpu::CpuPace;
pub use endpoint::Endpoint;
pub use error::{ClientError, Code, plain};
pub use guard::Guard;
pub use session::{AppendReceiver, AppendSender, AppendSession, PROTOCOL, unix_nanos};
