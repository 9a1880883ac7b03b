//! `sigillod status`.

use clap::Args;
use sigillo_proto::v1::{CheckpointState, StatusRequest, StatusResponse};

use super::{Config, Failure, client, line, time};

/// Of `sigillod status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks over the control socket in the data folder, as root or the server's own account. Exit code 3: no server runs.

Examples:
  sudo sigillod status
  sigillod status --config sigillo-dev/sigillod.toml")]
pub struct StatusArgs {
    #[command(flatten)]
    config: Config,
}

pub(super) async fn run(args: StatusArgs) -> Result<String, Failure> {
    let settings = args.config.load()?;
    let status = client::connect(&settings.data_dir).await?.status(StatusRequest {}).await?.into_inner();
    Ok(told(&status))
}

fn told(status: &StatusResponse) -> String {
    let head = status.head.clone().unwrap_or_default();
    let state = head.checkpoint_state();
    let mut text = String::new();
    line(&mut text, "origin", head.origin);
    line(&mut text, "size", head.size);
    line(&mut text, "chain", hex::encode(&head.chain_hash));
    line(&mut text, "newest", time(head.receipt_time_unix_nano));
    line(&mut text, "signing", signing(state));
    line(&mut text, "server", format_args!("sigillod {}, process {}", status.version, status.pid));
    line(&mut text, "since", time(status.started_unix_nano));
    let (free, reserve) = (status.free_bytes, status.reserve_bytes);
    line(&mut text, "disk", format_args!("{free} bytes free, {reserve} of them kept in reserve"));
    if free < reserve {
        line(&mut text, "", "below the reserve: no records are taken until there is room");
    }
    text
}

/// How the newest checkpoints stand.
fn signing(state: CheckpointState) -> &'static str {
    match state {
        CheckpointState::Met => "checkpoints meet the trust file's policy",
        CheckpointState::Unmet => {
            "no newer checkpoint meets the trust file's policy, or none is signed: see the server's log"
        }
        CheckpointState::Stale => "NO CHECKPOINT HAS MET THE TRUST FILE'S POLICY for ten minutes: see the server's log",
        CheckpointState::None | CheckpointState::Unspecified => "no checkpoints are signed",
    }
}
