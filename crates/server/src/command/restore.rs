//! `sigillod restore`.

use std::{collections::HashMap, path::PathBuf};

use clap::Args;
use jiff::Timestamp;
use sigillo_journal::{
    OpenError,
    restore::{self, Loss, Plan, RestoreError, Verified},
};
use sigillo_model::{
    class::Class,
    ids::{ReceiptTime, SourceId},
};

use super::{Config, Failure, line, meter::Meter, time};
use crate::{
    config::Settings,
    control::Caller,
    restored::{NOTE, Note},
};

/// Of `sigillod restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
With the server stopped. The backup is verified whole, every record, every link and every file,
before anything is touched; it must be of the journal that the configuration names. What the
journal that is there holds beyond it would be lost: that is told, and nothing is done until
--accept-loss names just that number of records. The folder that was there is renamed, never
deleted, and its `keys` are taken over; the restored one is put in its place in one step, so
that a crash leaves the one or the other. The server records the restoration when it starts.

Once a checkpoint was signed that the backup does not hold, restoring it is refused: going on
from there would make two histories of one journal, which every witness would see. Then the
journal ends, and a successor of another origin begins.

Exit codes:
  0  restored
  1  the backup is altered; the first record that does not fit is named
  2  the command line or the configuration makes no sense
  3  the backup, the configuration or what is there can't be read, or there is no room; nothing was changed
  4  refused: records would be lost, another journal, a signed checkpoint, a server that runs; nothing was changed

Examples:
  sudo systemctl stop sigillod
  sudo sigillod restore --from /var/backups/sigillo/2026-11-23
  sudo sigillod restore --from /var/backups/sigillo/2026-11-23 --accept-loss 1208")]
pub struct RestoreArgs {
    /// The folder that `sigillod backup` wrote, or a copy of it
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Restore although just this number of records is lost
    #[arg(long, value_name = "COUNT")]
    accept_loss: Option<u64>,
    #[command(flatten)]
    config: Config,
}

pub(super) fn run(args: &RestoreArgs) -> Result<String, Failure> {
    let settings = args.config.load()?;
    let from =
        args.from.canonicalize().map_err(|error| Failure::Unreadable(format!("{}: {error}", args.from.display())))?;
    let mut meter = Meter::new();
    let verified = restore::verify_backup(&from, |at| meter.show_progress(at)).map_err(failure(&settings))?;
    let mut text = told(&verified);
    let plan = restore::plan(verified, &settings.data_dir, &settings.origin).map_err(failure(&settings))?;
    tell_loss(&mut text, &plan, &settings);

    let note = note(&plan, &from).to_text().map_err(|error| Failure::Unreadable(error.to_string()))?;
    let now = Timestamp::now();
    let stamp = now.strftime("%Y%m%dT%H%M%S.%3fZ").to_string();
    let now = ReceiptTime::new(u64::try_from(now.as_nanosecond()).unwrap_or(0));
    let copying = |at| meter.show_progress(at);
    let restored =
        plan.restore(args.accept_loss, now, &stamp, (NOTE, note.as_bytes()), copying).map_err(failure(&settings))?;
    drop(meter);
    line(&mut text, "restored", format_args!("{} records, in {}", restored.size, settings.data_dir.display()));
    if let Some(aside) = restored.aside {
        line(&mut text, "before", format_args!("{}: delete it when you are sure", aside.display()));
    }
    Ok(text)
}

fn told(Verified { dir, manifest, report }: &Verified) -> String {
    let mut text = String::new();
    line(&mut text, "backup", dir.display());
    line(&mut text, "origin", &manifest.origin);
    line(&mut text, "size", manifest.size);
    line(&mut text, "chain", manifest.chain);
    line(&mut text, "time", time(manifest.time_ns));
    let (records, entries, bytes) = (report.records, report.entries, report.raw_bytes);
    line(&mut text, "verified", format_args!("intact: {records} records in {entries} batches, {bytes} bytes"));
    text
}

fn tell_loss(text: &mut String, plan: &Plan, settings: &Settings) {
    match plan.loss() {
        Some(loss) => *text += &lost(loss, settings),
        None if plan.replaces() => line(text, "lost", "nothing: the backup holds all that the journal there holds"),
        None => line(text, "lost", "not known: there is no journal there that could tell what came after the backup"),
    }
}

/// What would be lost, for people.
fn lost(loss: &Loss, settings: &Settings) -> String {
    let mut text = String::new();
    let (records, last) = (loss.records, loss.to.saturating_sub(1));
    line(&mut text, "lost", format_args!("{records} records, sequences {} to {last}", loss.from));
    if let Some((first, last)) = loss.received {
        line(&mut text, "received", format_args!("{} to {}", time(first.get()), time(last.get())));
    }
    let own = (SourceId::from_name(Class::Journal.name()), Class::Journal.name());
    let configured = settings.sources.iter().map(|source| (source.id, source.name.as_str()));
    let names: HashMap<SourceId, &str> = configured.chain([own]).collect();
    for (source, records) in &loss.sources {
        let name = names.get(source).map_or_else(|| format!("source {source}"), |name| (*name).to_owned());
        line(&mut text, "", format_args!("{records} of {name}"));
    }
    if loss.replayed_orders > 0 {
        line(
            &mut text,
            "orders",
            format_args!("{} of officers among them are given anew to the restored journal", loss.replayed_orders),
        );
    }
    for remark in &loss.remarks {
        line(&mut text, "note", remark);
    }
    text
}

fn note(plan: &Plan, from: &std::path::Path) -> Note {
    let manifest = &plan.verified().manifest;
    Note {
        account: Caller::own().name,
        from: from.display().to_string(),
        backup_unix_nano: manifest.time_ns.to_string(),
        size: manifest.size,
        lost: plan.loss().map(|loss| loss.records),
        replaced: plan.replaces(),
    }
}

/// A failure of a restore, for people.
pub(super) fn failure(settings: &Settings) -> impl Fn(RestoreError) -> Failure {
    |error| tell_failure(error, settings)
}

fn tell_failure(error: RestoreError, settings: &Settings) -> Failure {
    let message = error.to_string();
    match error {
        RestoreError::Altered(_) => Failure::Altered(message),
        RestoreError::Loss(loss, accepted) => {
            let records = loss.records;
            let accepted = accepted.map(|number| format!(" You accepted the loss of {number}, not of {records}."));
            Failure::Refused(format!(
                "records would be lost; nothing was changed.{}\n{}To restore all the same: --accept-loss {records}",
                accepted.unwrap_or_default(),
                lost(&loss, settings)
            ))
        }
        RestoreError::Origin { .. }
        | RestoreError::Fork(_)
        | RestoreError::Place(_)
        | RestoreError::Open(OpenError::InUse(_)) => Failure::Refused(message),
        RestoreError::Unreadable(_) | RestoreError::Replay(_) | RestoreError::Open(_) | RestoreError::Io { .. } => {
            Failure::Unreadable(message)
        }
    }
}
