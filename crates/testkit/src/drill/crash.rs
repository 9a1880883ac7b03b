//! The crash drill.

use anyhow::Result;

use super::Tally;

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 200)]
    pub trials: u32,
}

pub fn run(_: &Options) -> Result<Tally> {
    Ok(Tally::default())
}
