//! From a sender's messages to submissions: one file per protocol, and what they share.

pub(crate) mod check;
pub(crate) mod grpc;
pub(crate) mod heads;
pub(crate) mod pace;
pub(crate) mod shape;
pub(crate) mod tenants;
