//! `sigillod order` and `sigillod purge`.

use std::{fs::File, io::Read, path::PathBuf};

use clap::Args;
use sigillo_model::{class::Class, note::NOTE_MAX_BYTES};
use sigillo_proto::v1::{ExecuteRequest, PurgeRequest, RemovalResponse};

use super::{Config, Failure, client, line};

/// Of `sigillod order`.
#[derive(Debug, Args)]
#[command(after_help = "\
The order comes from `sigillo order`, signed by two of the officers that the server's trust file names. It becomes a record, and is
carried out then, whatever happens to this command or to the server.

Example:
  sudo sigillod order case12")]
pub struct OrderArgs {
    #[command(flatten)]
    config: Config,
    /// The order
    file: PathBuf,
}

/// Of `sigillod purge`.
#[derive(Debug, Args)]
#[command(after_help = "\
By the newest retention order of the class: what was received before has no parts any more, but for its envelope and commitment.

Example:
  sudo sigillod purge --class service")]
pub struct PurgeArgs {
    #[command(flatten)]
    config: Config,
    /// Name or number of the retention class
    #[arg(long, value_name = "CLASS", value_parser = class)]
    class: u16,
}

pub(super) async fn order(args: OrderArgs) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::Unreadable(format!("{}: {error}", args.file.display()));
    let mut order = Vec::new();
    let file = File::open(&args.file).map_err(unreadable)?;
    // One byte more than is taken, so that the server says what is wrong.
    file.take(NOTE_MAX_BYTES as u64 + 1).read_to_end(&mut order).map_err(unreadable)?;
    let settings = args.config.load()?;
    let request = ExecuteRequest { order: order.into() };
    let done = client::connect(&settings.data_dir).await?.execute(request).await?.into_inner();
    Ok(told(&done))
}

pub(super) async fn purge(args: PurgeArgs) -> Result<String, Failure> {
    let settings = args.config.load()?;
    let request = PurgeRequest { retention_class: args.class.into() };
    let done = client::connect(&settings.data_dir).await?.purge(request).await?.into_inner();
    Ok(told(&done))
}

fn told(done: &RemovalResponse) -> String {
    let mut text = String::new();
    line(&mut text, "order", format_args!("record {}", done.statement));
    line(&mut text, "took", format_args!("{} parts of {} records, {} bytes", done.parts, done.records, done.bytes));
    text
}

fn class(text: &str) -> Result<u16, String> {
    match Class::from_name(text) {
        Some(class) => Ok(class.retention().get()),
        None => text.parse().map_err(|_| "a retention class is a number, or the name of a class".to_owned()),
    }
}
