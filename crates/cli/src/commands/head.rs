//! `sigillo head`: where the journal stands.

use std::process::ExitCode;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::json;
use sigillo_model::ids::ChainHash;
use sigillo_proto::v1;

use crate::{
    failure::Failure,
    global::GlobalArgs,
    output::{Format, Sink, escape::escape, fields::rfc3339, json_line},
};

/// Show the journal's newest durable record: size, chain value, time
#[derive(Debug, Args)]
#[command(after_long_help = "\
Note size and chain value somewhere that the provider cannot reach. Later,
  sigillo verify --expect-size SIZE --expect-chain VALUE
tells whether all that the journal held then is still as it was.

Examples:
  sigillo head
  sigillo head -o json | jq -r .chain_hash")]
pub(crate) struct HeadArgs {}

pub(crate) async fn run(_args: HeadArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let head = global.connect().await?.head().await?;
    let chain = chain_hash(&head)?;
    let mut sink = Sink::plain(false);
    sink.write(&match global.output {
        Format::Json => {
            let time = (head.receipt_time_unix_nano != 0).then(|| rfc3339(head.receipt_time_unix_nano, &TimeZone::UTC));
            json_line(&json!({
                "origin": head.origin,
                "size": head.size,
                "chain_hash": chain.to_string(),
                "receipt_time": time,
            }))
        }
        Format::Text => {
            let time = match head.receipt_time_unix_nano {
                0 => "none, the journal is empty".to_owned(),
                time => rfc3339(time, &TimeZone::UTC),
            };
            let (origin, size) = (escape(&head.origin), head.size);
            format!("origin  {origin}\nsize    {size}\nchain   {chain}\ntime    {time}\n").into_bytes()
        }
    })?;
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// The chain value of a head that a server sent.
pub(crate) fn chain_hash(head: &v1::Head) -> Result<ChainHash, Failure> {
    ChainHash::from_slice(&head.chain_hash)
        .ok_or_else(|| Failure::Unreadable("the server sent a head whose chain value has not 32 bytes".into()))
}
