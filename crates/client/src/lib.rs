//! The connection to a server: TLS, sessions, retry.
