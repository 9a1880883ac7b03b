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
                "checkpoints": standing(head.checkpoint_state()),
            }))
        }
        Format::Text => {
            let time = match head.receipt_time_unix_nano {
                0 => "none, the journal is empty".to_owned(),
                time => rfc3339(time, &TimeZone::UTC),
            };
            let (origin, size) = (escape(&head.origin), head.size);
            let quorum = standing(head.checkpoint_state());
            format!("origin  {origin}\nsize    {size}\nchain   {chain}\ntime    {time}\nquorum  {quorum}\n")
                .into_bytes()
        }
    })?;
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// How the newest checkpoints stand with the policy of witnesses, in a word.
fn standing(state: v1::CheckpointState) -> &'static str {
    match state {
        v1::CheckpointState::Met => "met",
        v1::CheckpointState::Unmet => "unmet",
        v1::CheckpointState::Stale => "stale",
        v1::CheckpointState::None | v1::CheckpointState::Unspecified => "none",
    }
}

/// What is to be said beside an answer when the newest checkpoints are not cosigned as they should be.
pub(crate) fn warning(state: v1::CheckpointState) -> Option<&'static str> {
    match state {
        v1::CheckpointState::Unmet => Some(
            "the server's newest checkpoints are not cosigned as its policy asks: nobody else vouches for the newest records",
        ),
        v1::CheckpointState::Stale => Some(
            "the server's newest cosigned checkpoint is older than ten minutes: nobody else vouches for what came since",
        ),
        v1::CheckpointState::Met | v1::CheckpointState::None | v1::CheckpointState::Unspecified => None,
    }
}

/// The chain value of a head that a server sent.
pub(crate) fn chain_hash(head: &v1::Head) -> Result<ChainHash, Failure> {
    ChainHash::from_slice(&head.chain_hash)
        .ok_or_else(|| Failure::Unreadable("the server sent a head whose chain value has not 32 bytes".into()))
}
