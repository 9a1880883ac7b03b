//! The server over real sockets and real TLS, through `run` as the program calls it.

mod heads;
mod identity;
mod ingest;
mod life;
mod limits;
mod log;
mod publish;
mod reads;
mod receipts;
mod sources;
mod support;
mod witness;
