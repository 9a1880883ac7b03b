//! Sends records until they are durable.
