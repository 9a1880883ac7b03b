//! The agent: sources, batches, shipping.
