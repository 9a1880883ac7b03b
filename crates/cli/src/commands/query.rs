//! `sigillo query`: searches what the journal holds now.

use std::process::ExitCode;

use clap::Args;
use sigillo_client::Responses;
use sigillo_proto::v1::{self, search_response::Message};

use crate::{
    commands::head,
    failure::{Failure, tell},
    filter::FilterArgs,
    global::GlobalArgs,
    output::{Sink, Style},
};

/// Search the journal
#[derive(Debug, Args)]
#[command(after_long_help = "\
A line shows when it happened (by its source's clock, else when it was read or received), where, which program, what, and
who did what to what when the record says so. -v shows everything, -o json everything exactly. Control characters in
records are shown as \\x1b and the like.

Examples:
  sigillo query 'Failed password' --since -2h
  sigillo query --actor u-4711 --since yesterday --until today --reason 'case 2026-81'
  sigillo query --class panel --action server.delete --target server:4711 -r -n 20
  sigillo query --host web-1 --severity error --since '2026-11-23 12:00' -o json | jq -r .original")]
pub(crate) struct QueryArgs {
    /// At most so many records [default: all]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The newest first
    #[arg(short, long)]
    reverse: bool,
    /// Go on after an earlier answer, which printed this; with the same filter and order. Its times hold on
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    cursor: Option<Cursor>,
    /// All fields of each record, not only its line
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

/// Opaque bytes of the server, in hexadecimal.
#[derive(Debug, Clone)]
struct Cursor(Vec<u8>);

fn cursor(text: &str) -> Result<Cursor, hex::FromHexError> {
    hex::decode(text).map(Cursor)
}

pub(crate) async fn run(args: QueryArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let style = Style::new(global, args.verbose);
    let (filter, reason) = args.filter.into_parts();
    let request = v1::SearchRequest {
        filter: Some(filter),
        reason,
        limit: args.limit.unwrap_or(0),
        newest_first: args.reverse,
        cursor: args.cursor.map(|cursor| cursor.0).unwrap_or_default().into(),
    };
    let mut responses = global.connect().await?.search(request).await?;
    let mut sink = Sink::paged(global);
    let paged = sink.is_paged();
    let shown = tokio::select! {
        shown = show(&mut responses, &mut sink, &style) => shown,
        // While a pager runs, an interrupt ends the search and leaves the pager; else it ends us as usual.
        _ = tokio::signal::ctrl_c(), if paged => Ok(None),
    };
    // The pager is left to the user also when the search failed half way.
    // A pager that never ran shows in writing as one that was left, so its own word counts first.
    sink.finish()?;
    let done = shown?;
    if let Some(warning) = done.as_ref().and_then(|done| head::warning(done.checkpoint_state())) {
        tell(warning);
    }
    if let Some(done) = done.filter(|done| !done.cursor.is_empty()) {
        tell(&format!("there is more, go on with --cursor {}", hex::encode(&done.cursor)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows an answer to its end.
async fn show(
    responses: &mut Responses<v1::SearchResponse>,
    sink: &mut Sink,
    style: &Style,
) -> Result<Option<v1::Done>, Failure> {
    while let Some(response) = responses.next().await? {
        match response.message {
            Some(Message::Record(record)) => sink.write(&style.record(&record)?)?,
            Some(Message::Done(done)) => return Ok(Some(done)),
            Some(Message::Progress(_)) | None => {}
        }
    }
    Err(Failure::Unreadable("the answer was cut off before its end: there may be more".into()))
}
