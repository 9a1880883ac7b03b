//! `sigillo verify`: recomputes every commitment and every link of the journal.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sigillo_client::{ClientError, Code};
use sigillo_journal::verify::{VerifyError, verify_meeting};
use sigillo_model::{
    audit::{Fault, Finding, Walker},
    ids::{ChainHash, Origin},
    state::JournalState,
};
use sigillo_proto::{
    head::head_origin,
    v1::{self, walk_response::Message},
};

use super::head::chain_hash;
use crate::{
    failure::{EXIT_ALTERED, Failure},
    global::GlobalArgs,
    output::{Format, Sink, escape::escape, json_line},
};

/// Verify the journal: recompute every commitment and every link
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every record is read, its commitment computed anew, and linked to the one before; in the end the chain value must be that of
the head. Over the wire the server is never believed when it says that all is well, only when it says that it finds what it
holds altered. That the head is the one that others have seen, you show with a head that you noted earlier (sigillo head):
--expect-size and --expect-chain, always together.

Exit codes:
  0  intact
  1  altered; the first record that does not fit is named
  3  no connection, or the journal can't be read to its end, which says nothing about it
  4  the server refused

Examples:
  sigillo verify
  sigillo verify --expect-size 48210 --expect-chain 5c3f…
  sigillo verify --db /var/lib/sigillo        (the server must be stopped)
  sigillo verify -o json")]
pub(crate) struct VerifyArgs {
    /// A local data folder instead of a server; the server that uses it must be stopped
    #[arg(long, value_name = "DIR")]
    db: Option<PathBuf>,
    /// The size that `sigillo head` showed earlier; needs --expect-chain
    #[arg(long, value_name = "COUNT", requires = "expect_chain")]
    expect_size: Option<u64>,
    /// The chain value that it showed with that size, 64 hexadecimal digits; needs --expect-size
    #[arg(long, value_name = "HEX", requires = "expect_size", value_parser = ChainHash::from_hex)]
    expect_chain: Option<ChainHash>,
    /// Why you read: a case, a ticket, a sentence. Kept in the journal, as is every read
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// An intact journal.
struct Intact {
    origin: Origin,
    records: u64,
    bytes: u64,
    chain: ChainHash,
}

/// Why there is no verdict "intact".
enum Stopped {
    Altered(Finding),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

pub(crate) async fn run(args: VerifyArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let noted = args.expect_size.zip(args.expect_chain);
    let started = Instant::now();
    let bar = bar();
    let result = match &args.db {
        Some(dir) => tokio::task::block_in_place(|| local(dir, noted, &bar)),
        None => remote(global, args.reason, noted, &bar).await,
    };
    bar.finish_and_clear();
    let (code, answer) = match result {
        Ok(intact) => (ExitCode::SUCCESS, tell_intact(&intact, started.elapsed(), global.output)),
        Err(Stopped::Altered(finding)) => (ExitCode::from(EXIT_ALTERED), tell_altered(&finding, global.output)),
        Err(Stopped::Failed(failure)) => return Err(failure),
    };
    let mut sink = Sink::plain(false);
    // The verdict is in the exit code too: who does not listen to the words still gets it.
    match sink.write(&answer).and_then(|()| sink.finish()) {
        Err(failure) if failure.exit_code().is_some() => Err(failure),
        _ => Ok(code),
    }
}

fn local(dir: &Path, noted: Option<(u64, ChainHash)>, bar: &ProgressBar) -> Result<Intact, Stopped> {
    let progress = |progress: sigillo_journal::verify::Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.records);
    };
    match verify_meeting(dir, noted, progress) {
        Ok(report) => Ok(Intact {
            origin: report.origin,
            records: report.records,
            bytes: report.raw_bytes,
            chain: report.head.chain,
        }),
        Err(VerifyError::Altered(finding)) => Err(Stopped::Altered(finding)),
        Err(VerifyError::Unreadable(what)) => Err(Stopped::Failed(Failure::Unreadable(what))),
    }
}

async fn remote(
    global: &GlobalArgs,
    reason: String,
    noted: Option<(u64, ChainHash)>,
    bar: &ProgressBar,
) -> Result<Intact, Stopped> {
    let (connection, guard) = global.connect_guarded().await?;
    let first = connection.head().await?;
    let mut responses = connection.walk(v1::WalkRequest { from: 0, to: 0, reason }).await?;
    let Some(Message::Start(start)) = responses.next().await?.and_then(|response| response.message) else {
        return Err(unreadable("the server did not begin its walk with a start"));
    };
    let head = start.head.unwrap_or_default();
    let (size, chain) = (head.size, chain_hash(&head)?);
    if start.from != 0 || head.origin != first.origin {
        return Err(unreadable("the server walks another journal, or not from its first record"));
    }
    let origin = head_origin(&head).map_err(|error| unreadable(&error.to_string()))?;
    // The head that the server gave a moment ago must be met on the way, as must the one that somebody noted.
    let mut walker = Walker::whole(JournalState::genesis(origin.clone())).meeting(first.size, chain_hash(&first)?);
    if let Some((size, chain)) = noted {
        walker = walker.meeting(size, chain);
    }
    bar.set_length(size);
    let mut bytes = 0;
    loop {
        let Some(response) = responses.next().await.map_err(|error| stopped(error, walker.state().size))? else {
            break;
        };
        match response.message {
            Some(Message::Entry(entry)) => {
                let step = tokio::task::block_in_place(|| walker.step(&entry));
                bytes += step.map_err(Stopped::Altered)?.raw_bytes;
                bar.set_position(walker.state().size);
            }
            Some(Message::End(_)) => {
                walker.check_head(size, chain).map_err(Stopped::Altered)?;
                // Last: where a journal was altered is worth more than that it does not continue what is remembered.
                if let Some(guard) = guard {
                    guard.look(&connection).await?;
                }
                return Ok(Intact { origin, records: size, bytes, chain });
            }
            Some(Message::Start(_)) | None => return Err(unreadable("the server's walk has a part that is not known")),
        }
    }
    let at = walker.state().size;
    Err(unreadable(&format!("the server's walk was cut off after {at} of {size} records, which were in order")))
}

/// A server that finds its own journal altered says so instead of sending what it can't vouch for: then the records before
/// `verified` are in order, and the server's words name the place.
fn stopped(error: ClientError, verified: u64) -> Stopped {
    match error {
        ClientError::Refused { code: Code::DataLoss, message } => {
            let fault = Fault::Derived(format!("the server reports: {message}"));
            Stopped::Altered(Finding { from: verified, to: verified, fault })
        }
        other => other.into(),
    }
}

fn unreadable(what: &str) -> Stopped {
    Stopped::Failed(Failure::Unreadable(what.to_owned()))
}

/// On standard error, and only if that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = "{bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn tell_intact(intact: &Intact, took: Duration, format: Format) -> Vec<u8> {
    let Intact { origin, records, bytes, chain } = intact;
    let seconds = took.as_secs_f64();
    match format {
        Format::Json => json_line(&json!({
            "verdict": "intact",
            "origin": origin.as_str(),
            "records": records,
            "bytes": bytes,
            "seconds": (seconds * 1_000.0).round() / 1_000.0,
            "chain_hash": chain.to_string(),
        })),
        Format::Text => {
            let origin = escape(origin.as_str());
            format!("intact: {records} records, {bytes} bytes, {seconds:.2} s\norigin  {origin}\nchain   {chain}\n")
                .into_bytes()
        }
    }
}

fn tell_altered(finding: &Finding, format: Format) -> Vec<u8> {
    match format {
        Format::Json => json_line(&json!({
            "verdict": "altered",
            "first_record": finding.from,
            "end": finding.to,
            "fault": finding.fault.to_string(),
        })),
        Format::Text => format!("altered: {}\n", escape(finding.to_string())).into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use sigillo_journal::{Head, Journal, Options, Submission, TenantRun};
    use sigillo_model::{
        batch::{self, Batch},
        block::{BlockBuilder, Inflater},
        class::Class,
        envelope::Flags,
        ids::{BatchSecret, Epoch, ReceiptTime, SourceId, SourceSeq, TenantId},
        record::RecordRef,
    };

    use super::*;

    /// Two batches of three records; the heads after each.
    async fn fill(journal: &Journal) -> [Head; 2] {
        let source = SourceId::from_name("a");
        let mut place = (SourceSeq::new(0), journal.epoch_opening(source, Epoch::new(1)));
        let mut heads = Vec::new();
        for _ in 0..2 {
            let mut builder = BlockBuilder::default();
            for content in [b"one".as_slice(), b"two", b"three"] {
                builder.push(RecordRef { content: Some(content), ..RecordRef::default() }).unwrap();
            }
            let secret = BatchSecret::new([7; 32]);
            let batch = Batch::seal(&mut builder, source, Epoch::new(1), place.0, place.1, secret, 1).unwrap();
            place = (batch.end(), batch.hash);
            let commitments = batch::commitments(&batch.secret, &batch.open(&mut Inflater::default()).unwrap());
            let tenant = TenantId::from_name("provider");
            let runs =
                vec![TenantRun { tenant, retention: Class::Admin.retention(), flags: Flags::default(), records: 3 }];
            let (class, received) = (Class::Admin.id(), ReceiptTime::new(1));
            journal.submit(Submission { source, class, batch, commitments, runs, received }).await.unwrap();
            heads.push(journal.head());
        }
        heads.try_into().unwrap()
    }

    fn fault(result: Result<Intact, Stopped>) -> Option<Fault> {
        match result {
            Err(Stopped::Altered(finding)) => Some(finding.fault),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_local_journal_is_held_against_a_head_noted_earlier() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let bar = ProgressBar::hidden();
        let options = Options::new(dir, Origin::new("verify.test").unwrap());
        let journal = Journal::open(&options).unwrap().journal;
        let [first, second] = fill(&journal).await;
        assert!(
            matches!(local(dir, None, &bar), Err(Stopped::Failed(Failure::Unreadable(what))) if what.contains("in use"))
        );
        journal.close().await.unwrap();

        for head in [first, second] {
            let intact = local(dir, Some((head.size, head.chain)), &bar);
            assert!(matches!(intact, Ok(Intact { records: 6, chain, .. }) if chain == second.chain));
        }
        let found = |size, chain| match fault(local(dir, Some((size, chain)), &bar)) {
            Some(Fault::Noted { found, .. }) => found,
            other => panic!("{other:?}"),
        };
        // Another value at that size; a size that was never a head's; more records than there are.
        assert_eq!(found(first.size, second.chain), Some(first.chain));
        assert_eq!(found(4, first.chain), None);
        assert_eq!(found(7, second.chain), None);
    }

    #[tokio::test]
    async fn where_there_is_no_journal_there_is_no_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = local(folder.path(), None, &ProgressBar::hidden());
        assert!(matches!(verdict, Err(Stopped::Failed(Failure::Unreadable(_)))));
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn verdicts_are_told() {
        let intact = Intact {
            origin: Origin::new("log.example/1").unwrap(),
            records: 12,
            bytes: 3_400,
            chain: ChainHash::new([0xab; 32]),
        };
        let took = Duration::from_millis(1_500);
        let chain = "ab".repeat(32);
        assert_eq!(
            text(tell_intact(&intact, took, Format::Text)),
            format!("intact: 12 records, 3400 bytes, 1.50 s\norigin  log.example/1\nchain   {chain}\n")
        );
        assert_eq!(
            text(tell_intact(&intact, took, Format::Json)),
            format!(
                "{{\"verdict\":\"intact\",\"origin\":\"log.example/1\",\"records\":12,\"bytes\":3400,\"seconds\":1.5,\
                 \"chain_hash\":\"{chain}\"}}\n"
            )
        );
        let finding = Finding { from: 5, to: 10, fault: Fault::ChainHash };
        let told = text(tell_altered(&finding, Format::Text));
        assert!(told.starts_with("altered: records 5 to 9: the records or their envelopes"), "{told}");
        let told = text(tell_altered(&finding, Format::Json));
        assert!(told.starts_with("{\"verdict\":\"altered\",\"first_record\":5,\"end\":10,"), "{told}");
    }
}
