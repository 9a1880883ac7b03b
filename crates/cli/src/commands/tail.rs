//! `sigillo tail`: follows what reaches the journal.

use std::{
    fs::File,
    future, io,
    os::{fd::AsFd, unix::fs::FileTypeExt},
    process::ExitCode,
};

use clap::Args;
use sigillo_proto::v1::{self, search_response::Message};
use tokio::{io::Interest, net::unix::pipe};

use crate::{
    failure::Failure,
    filter::FilterArgs,
    global::GlobalArgs,
    output::{Sink, Style},
};

/// Follow what reaches the journal, until interrupted
#[derive(Debug, Args)]
#[command(after_long_help = "\
Records appear once they are durable, in the order of the journal.

Examples:
  sigillo tail
  sigillo tail --class admin --severity warn
  sigillo tail -n 50 --host web-1 'Failed password'
  sigillo tail -o json --action login | jq -r .actor.id")]
pub(crate) struct TailArgs {
    /// First show so many of the newest records that match
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    lines: u32,
    /// Follow; what this command does in any case
    #[arg(short, long)]
    follow: bool,
    /// All fields of each record, not only its line
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

pub(crate) async fn run(args: TailArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let style = Style::new(global, args.verbose);
    let (filter, reason) = args.filter.into_parts();
    let request = v1::TailRequest { filter: Some(filter), reason, lines: args.lines };
    let mut responses = global.connect().await?.tail(request).await?;
    let mut sink = Sink::plain(true);
    let gone = listener_gone();
    tokio::pin!(gone);
    loop {
        let response = tokio::select! {
            response = responses.next() => response?,
            () = &mut gone => return Ok(ExitCode::SUCCESS),
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        match response.map(|response| response.message) {
            Some(Some(Message::Record(record))) => sink.write(&style.record(&record)?)?,
            Some(Some(Message::Progress(_)) | None) => {}
            Some(Some(Message::Done(_))) | None => {
                return Err(Failure::Unreadable("the server has ended the stream: call again to go on".into()));
            }
        }
    }
}

/// Becomes ready when nobody reads our output any more (`sigillo tail | head -1`), which writing would show only with the
/// next record.
async fn listener_gone() {
    match watched_output() {
        Some(pipe) if pipe.ready(Interest::ERROR).await.is_ok() => {}
        _ => future::pending().await,
    }
}

/// Standard output, if it is a pipe. It is only watched, so it may stay a blocking one, as those who write to it want it.
fn watched_output() -> Option<pipe::Sender> {
    let output = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
    let is_pipe = output.metadata().ok()?.file_type().is_fifo();
    is_pipe.then(|| pipe::Sender::from_file_unchecked(output).ok()).flatten()
}
