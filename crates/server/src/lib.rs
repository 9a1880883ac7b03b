//! The server: transport to domain. Ingest, query, audit, configuration, TLS, telemetry.
