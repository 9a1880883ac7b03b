//! `sigillod backup`.

use std::path::{self, PathBuf};

use clap::Args;
use sigillo_proto::v1::{BackupDone, BackupProgress, BackupRequest, BackupStage, backup_response::Message as Answer};

use super::{Config, Failure, client, line, meter::Meter, time};

/// Of `sigillod backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
The running server copies its journal as it stands at one moment, while it goes on taking
records, verifies every record and every link of the copy, and only then gives the folder its
name: a backup that exists is whole. It holds no private keys; back those up apart from it.
Files are shared with the database by hard links where the disk is the same one, so copy the
folder elsewhere: a backup on the same disk goes with it. Ctrl-C ends the waiting, not the
backup.

Exit codes:
  0  written and verified; the figures are on standard output
  1  the copy is not intact, so the journal isn't either: `sigillo verify` names the place
  2  the command line or the configuration makes no sense
  3  no server runs, no room, or the disk fails; there is no backup
  4  refused: the folder is not empty, can't be written by the server, or you are neither root nor its account

Examples:
  sudo sigillod backup --to /var/backups/sigillo/$(date +%F)
  sigillod backup --config sigillo-dev/sigillod.toml --to /tmp/backup")]
pub struct BackupArgs {
    /// A folder that is empty or does not exist; the server's account must be able to write beside it
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn run(args: BackupArgs) -> Result<String, Failure> {
    let settings = args.config.load()?;
    // The server has another current folder.
    let to = path::absolute(&args.to).map_err(|error| Failure::Usage(format!("{}: {error}", args.to.display())))?;
    let Some(to) = to.to_str() else {
        return Err(Failure::Usage(format!("{}: give a path in UTF-8", to.display())));
    };
    let mut client = client::connect(&settings.data_dir).await?;
    let mut answers = client.backup(BackupRequest { to: to.to_owned() }).await?.into_inner();
    let mut meter = Meter::new();
    let cut_off = || {
        Failure::Unreadable(
            "the server stopped before it was done: a backup under its name is whole, one that ends in .partial is not"
                .to_owned(),
        )
    };
    loop {
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(Answer::Progress(BackupProgress { stage, done, total })) => {
                let verifying = stage == i32::from(BackupStage::Verifying);
                meter.show(if verifying { "verifying records" } else { "copying bytes" }, done, total);
            }
            Some(Answer::Done(done)) => return Ok(told(to, done)),
            None => return Err(cut_off()),
        }
    }
}

fn told(to: &str, done: BackupDone) -> String {
    let head = done.head.unwrap_or_default();
    let mut text = String::new();
    line(&mut text, "backup", to);
    line(&mut text, "origin", head.origin);
    line(&mut text, "size", head.size);
    line(&mut text, "chain", hex::encode(&head.chain_hash));
    line(&mut text, "time", time(done.time_unix_nano));
    let shared = match done.linked_bytes {
        0 => String::new(),
        bytes => format!("; {bytes} are shared with the database on the same disk: copy the folder elsewhere"),
    };
    line(&mut text, "files", format_args!("{}, {} bytes{shared}", done.files, done.bytes));
    let (size, entries, raw) = (head.size, done.entries, done.raw_bytes);
    line(&mut text, "verified", format_args!("intact: {size} records in {entries} batches, {raw} bytes"));
    text
}
