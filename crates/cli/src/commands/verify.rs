//! `sigillo verify`: recomputes every commitment and every link of the journal, and holds it against what others know of it.

mod cosign;
mod disk;
mod follow;
mod memory;
mod service;
mod state;
mod tell;
mod views;
mod walk;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Zoned;
use sigillo_http::Roots;
use sigillo_journal::verify::Demands;
use sigillo_model::{
    audit::{Trust, Walker},
    ids::ChainHash,
    policy::Policy,
    verdict::{self, Outcome, Verdict},
};
use sigillo_query::when;

use self::{
    cosign::Cosigner,
    memory::Memory,
    views::Views,
    walk::{Stopped, Walked},
};
use crate::{
    failure::{EXIT_ALTERED, Failure},
    global::GlobalArgs,
    output::Sink,
};

/// Verify the journal: recompute every commitment and every link
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every record is read, its commitment computed anew, and linked to the one before; in the end the chain value must be that of
the head. Over the wire the server is never believed when it says that all is well, only when it says that it finds what it
holds altered.

That shows that the journal fits itself. Whoever owns the disk and the log's key can write all of it anew so that it fits again;
against that stands what others hold:
  --policy         the trust file: who signs for the log, which witnesses must cosign, whose orders are lawful. Had from somebody
                   whom you trust, never from the server. With it the checkpoints that the journal keeps must be met too
  --remembered     a checkpoint that you, an agent or another auditor saw earlier; --remember keeps those that are accepted
  --witness-view   what a witness cosigned last. Over the wire the witnesses of the trust file are asked by themselves
A signed root that the records don't give means that they were rewritten, between the last checkpoint that was met and that one.
A checkpoint of more records than there are, or a newest quorum older than ten minutes, means that this is not the newest state.

For ever: sigillo verify --follow --state DIR --policy FILE walks what is new, every minute, and ends with the verdict's code
when something was altered.

Exit codes:
  0  intact
  1  altered; the first record that does not fit is named
  3  no connection, or the journal can't be read to its end, which says nothing about it
  4  the server refused
  5  stale: in order as far as it goes, but not the newest state
  6  intact, but no checkpoint has the quorum that the trust file asks for

Examples:
  sigillo verify --policy trust.txt --remember ~/checkpoints
  sigillo verify --db /backup/sigillo --policy trust.txt --now '2026-11-20 03:00'   (the server must be stopped)
  sigillo verify --db /var/lib/sigillo --policy trust.txt --witness-view witness.note
  sigillo verify --policy trust.txt --cosign auditor.key --out cosigned.note
  sigillo verify --expect-size 48210 --expect-chain 5c3f…      (from an earlier sigillo head)")]
pub(crate) struct VerifyArgs {
    /// A local data folder instead of a server; the server that uses it must be stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["follow", "state"])]
    db: Option<PathBuf>,
    /// The size that `sigillo head` showed earlier; needs --expect-chain
    #[arg(long, value_name = "COUNT", requires = "expect_chain", conflicts_with = "state")]
    expect_size: Option<u64>,
    /// The chain value that it showed with that size, 64 hexadecimal digits; needs --expect-size
    #[arg(long, value_name = "HEX", requires = "expect_size", value_parser = ChainHash::from_hex)]
    expect_chain: Option<ChainHash>,
    /// Why you read: a case, a ticket, a sentence. Kept in the journal, as is every read
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// The trust file, instead of the configured one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A checkpoint that was seen earlier: a note, or the file in which an agent remembers it. May be repeated
    #[arg(long, value_name = "FILE")]
    remembered: Vec<PathBuf>,
    /// Keep accepted checkpoints in this folder, 64 at most, and hold the journal to all that are there
    #[arg(long, value_name = "DIR")]
    remember: Option<PathBuf>,
    /// What a witness cosigned last: a file, or the address of the witness (https://…). May be repeated
    #[arg(long, value_name = "FILE|URL")]
    witness_view: Vec<String>,
    /// Don't ask the trust file's witnesses
    #[arg(long)]
    no_witness_view: bool,
    /// PEM file with the authorities from which the witnesses' certificates come
    #[arg(long, value_name = "FILE")]
    witness_ca: Option<PathBuf>,
    /// Judge how new the journal is as of this time, for copies of an earlier day
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "follow")]
    now: Option<u64>,
    /// Add your signature as an auditor, by this key, to the newest checkpoint of an intact journal that ends with a counters record,
    /// for `sigillo evidence --complete --checkpoint`; else to the newest
    #[arg(long, value_name = "FILE", requires = "out")]
    cosign: Option<PathBuf>,
    /// Where to write the checkpoint with your signature
    #[arg(long, value_name = "FILE", requires = "cosign")]
    out: Option<PathBuf>,
    /// Keep in this folder how far the journal was walked, and walk on from there
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    follow: FollowArgs,
}

#[derive(Debug, Args)]
struct FollowArgs {
    /// Go on for ever, as a service; ends when something was altered
    #[arg(long, requires = "state")]
    follow: bool,
    /// Show metrics for Prometheus here: host:port
    #[arg(long, value_name = "ADDR", requires = "follow")]
    metrics: Option<SocketAddr>,
    /// Seconds between two looks; each that finds something new is a recorded read
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// Seconds for which the journal may be stale, or unreachable beyond that, before this ends with code 5
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    grace: u64,
}

/// A point in time, seconds since 1970.
fn time(text: &str) -> Result<u64, when::WhenError> {
    when::parse(text, &Zoned::now()).map(|nanoseconds| nanoseconds / 1_000_000_000)
}

/// By this machine's clock, seconds since 1970.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a journal is judged by: the trust file, and where others' checkpoints are had.
struct Judge {
    policy: Policy,
    origin: String,
    views: Views,
    cosigner: Option<Cosigner>,
}

impl Judge {
    fn new(args: &VerifyArgs, policy: Option<&Path>) -> Result<Option<Self>, Failure> {
        let cosigner = match (&args.cosign, &args.out) {
            (Some(key), Some(out)) => Some(Cosigner::load(key, out)?),
            _ => None,
        };
        let Some(path) = policy else {
            let needs = [
                (!args.remembered.is_empty(), "--remembered"),
                (args.remember.is_some(), "--remember"),
                (!args.witness_view.is_empty(), "--witness-view"),
                (args.cosign.is_some(), "--cosign"),
                (args.state.is_some(), "--state"),
            ];
            return match needs.iter().find(|(given, _)| *given) {
                Some((_, option)) => Err(Failure::Usage(format!("{option} needs a trust file: --policy FILE"))),
                None => Ok(None),
            };
        };
        let (policy, origin) = views::policy(path)?;
        let memory = args.remember.as_deref().map(Memory::open).transpose()?;
        let roots = match &args.witness_ca {
            Some(path) => Some(Roots::load(path).map_err(|error| Failure::Usage(format!("--witness-ca: {error}")))?),
            None => None,
        };
        let mut views = Views::new(&origin, &args.remembered, memory);
        for place in &args.witness_view {
            views.look_at(place, roots.as_ref())?;
        }
        if args.db.is_none() && !args.no_witness_view {
            views.ask_witnesses(&policy, roots.as_ref())?;
        }
        Ok(Some(Self { policy, origin, views, cosigner }))
    }

    /// Judges what was walked, and remembers and cosigns what is accepted. `remarks` come first.
    fn judge(&mut self, walked: &mut Walked, now: u64, remarks: Vec<String>) -> Result<Outcome, Failure> {
        let trust = walked.trust.get_or_insert_with(|| Trust::new(self.policy.clone()));
        if walked.origin.as_str() != self.origin {
            let (found, expected) = (&walked.origin, &self.origin);
            return Err(Failure::Usage(format!("this is the journal {found}, the trust file is for {expected}")));
        }
        for remark in remarks {
            trust.remark(remark);
        }
        let mut outcome = verdict::judge(trust, walked.records, now);
        let is_accepted = matches!(outcome.verdict, Verdict::Intact | Verdict::Stale(verdict::Stale::Old { .. }));
        if let Some(unusable) = trust.unusable()
            && !matches!(outcome.verdict, Verdict::Altered(_))
        {
            return Err(Failure::Unreadable(format!("{unusable}. Nothing is said about the journal")));
        }
        if let (true, Some(accepted), Some(memory)) = (is_accepted, &outcome.accepted, self.views.memory()) {
            memory.keep(accepted)?;
        }
        if let (Verdict::Intact, Some(cosigner)) = (&outcome.verdict, &mut self.cosigner) {
            let none = "the journal is intact, but there is no checkpoint that meets the trust file, so there is nothing to cosign";
            let (judged, what) = match (trust.counted(), &outcome.accepted) {
                (Some(counted), _) => {
                    (counted, "which ends with a counters record: `sigillo evidence --complete` takes it")
                }
                (None, Some(accepted)) => (
                    accepted,
                    "which does not end with a counters record, so it shows of no run that it is whole: cosign again in a minute",
                ),
                (None, None) => return Err(Failure::Unreadable(none.into())),
            };
            cosigner.cosign(judged)?;
            let cosigned = format!("you have cosigned the checkpoint of {} records, {what}", judged.checkpoint.size);
            outcome.remarks.push(cosigned);
        }
        Ok(outcome)
    }
}

pub(crate) async fn run(args: VerifyArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let configured = match (&args.policy, &global.trust, &args.db) {
        (Some(path), ..) | (None, Some(path), _) => Some(path.clone()),
        (None, None, Some(_)) => None,
        (None, None, None) => global.trust()?,
    };
    let judge = Judge::new(&args, configured.as_deref())?;
    let (code, answer) = match (judge, &args.state) {
        (Some(judge), Some(state)) => {
            return follow::run(follow::Options::new(&args, state.clone()), judge, global).await;
        }
        (judge, _) => look(&args, global, judge).await?,
    };
    say(&answer)?;
    Ok(ExitCode::from(code))
}

/// Walks once, from the first record. The code to end with, and what to say.
async fn look(args: &VerifyArgs, global: &GlobalArgs, judge: Option<Judge>) -> Result<(u8, Vec<u8>), Failure> {
    let (started, bar) = (Instant::now(), bar());
    let result = once(args, global, judge, &bar).await;
    bar.finish_and_clear();
    match result {
        Ok((walked, outcome)) => {
            Ok((tell::code(&outcome.verdict), tell::outcome(&walked, &outcome, started.elapsed(), global.output)))
        }
        Err(Stopped::Altered(finding)) => Ok((EXIT_ALTERED, tell::altered(&finding, &[], global.output))),
        Err(Stopped::Failed(failure)) => Err(failure),
    }
}

/// Tells the verdict. It is in the exit code too: who does not listen to the words still gets it.
fn say(answer: &[u8]) -> Result<(), Failure> {
    let mut sink = Sink::plain(false);
    match sink.write(answer).and_then(|()| sink.finish()) {
        Err(failure) if failure.exit_code().is_some() => Err(failure),
        _ => Ok(()),
    }
}

async fn once(
    args: &VerifyArgs,
    global: &GlobalArgs,
    mut judge: Option<Judge>,
    bar: &ProgressBar,
) -> Result<(Walked, Outcome), Stopped> {
    let noted = args.expect_size.zip(args.expect_chain);
    let mut had = match &mut judge {
        Some(judge) => judge.views.gather().await?,
        None => views::Had::default(),
    };
    let trust = judge.as_ref().map(|judge| Trust::new(judge.policy.clone()));
    let (mut walked, now) = if let Some(dir) = &args.db {
        if let Some(judge) = &judge {
            had.shown.extend(views::published(dir, &judge.origin));
        }
        let demands = Demands { noted, trust, shown: had.shown, ..Demands::default() };
        let now = args.now.unwrap_or_else(unix_now);
        (tokio::task::block_in_place(|| walk::local(dir, demands, bar))?, now)
    } else {
        let (connection, guard) = global.connect_guarded().await?;
        if let Some(judge) = &judge {
            had.shown.extend(views::of_account(guard.as_deref(), &judge.origin));
            // Before the head is asked for: the journal then holds all that they cover.
            let (shown, missing) = walk::served(&connection, &judge.origin).await?;
            had.shown.extend(shown);
            had.missing.extend(missing);
        }
        let now = args.now.unwrap_or_else(unix_now);
        let mut walker = walk::first(&connection.head().await?)?;
        if let Some((size, chain)) = noted {
            walker = walker.meeting(size, chain);
        }
        if let Some(trust) = trust {
            walker = walker.held_to(trust);
        }
        walk::expect(&connection, &mut walker, had.shown).await?;
        let progress = |walker: &Walker, total: u64| {
            bar.set_length(total);
            bar.set_position(walker.state().size);
            Ok(())
        };
        let bytes = walk::explained(&connection, &mut walker, &args.reason, progress).await?;
        if judge.as_ref().is_some_and(|judge| judge.cosigner.is_some()) {
            walk::counted(&connection, &mut walker).await?;
        }
        // Last: where a journal was altered is worth more than that it does not continue what is remembered.
        if let (Some(guard), None) = (guard, &judge) {
            guard.look(&connection).await?;
        }
        (walk::walked(&walker, bytes), now)
    };
    let outcome = match &mut judge {
        Some(judge) => judge.judge(&mut walked, now, had.missing)?,
        None => Outcome { verdict: Verdict::Intact, accepted: None, remarks: Vec::new() },
    };
    Ok((walked, outcome))
}

/// On standard error, and only if that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = "{bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests;
