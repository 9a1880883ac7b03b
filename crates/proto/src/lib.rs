//! The wire of Sigillo, compiled from `proto/`, and the conversions between its messages and the model.

pub mod batch;
pub mod head;
pub mod receipt;
pub mod record;

/// Messages and, with the feature `wire`, services of `sigillo.v1`. Documented in `proto/sigillo/v1/`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/sigillo.v1.rs"));
}

/// The compiled `.proto` files, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sigillo.v1.bin"));
