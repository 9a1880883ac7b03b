//! The people's command line: one file per command.
