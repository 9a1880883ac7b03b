//! `sigillo append`: writes records, and prints the journal's receipt once they are durable.

use std::{
    fs,
    io::{self, BufRead},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use clap::{Args, ValueEnum};
use serde_json::json;
use sigillo_client::ship::{self, Outcome, Shipper};
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value::Value},
};
use sigillo_verify::show::severity;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep_until, timeout},
};

use crate::{
    failure::{Failure, tell},
    global::GlobalArgs,
    output::{Format, Sink, json_line},
    receipts::Keeper,
};

/// Bytes of a line beyond which it becomes several records, numbered parts; well below what a record may have.
const PART_MAX_BYTES: usize = 256 << 10;
/// Lines read ahead of the connection.
const LINES_AHEAD: usize = 64;

/// Write records: one act, or each line of standard input
#[derive(Debug, Args)]
#[command(after_long_help = "\
Ends when everything is durable, and prints where in the journal it stands and the chain value after it.
Gives up when nothing becomes durable for --timeout seconds, and says what the server said last.
With a trust file nothing is sent to a server that shows an older checkpoint than the one remembered, or none: after 3 s this
ends with code 5 and a file misconduct-*.txt.

One certificate, one sender: a second one, another append or an agent, that works at the same time with the same
certificate opens a newer epoch of the source, and the journal takes nothing more of the older one, which then ends with an
error. Give each its own certificate.

Examples:
  sigillo append --message 'key rotated' --action key.rotate --actor alice --target key:backup-2 --outcome success
  dmesg | sigillo append --host web-1 --event-name kernel.log
  sigillo append --message 'restore asked by phone' --actor staff-7 --impersonator u-4711 --tenant acme")]
pub(crate) struct AppendArgs {
    /// The words; without it each line of standard input becomes a record
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What was done, a dotted verb such as server.reboot
    #[arg(long, value_name = "VERB", default_value = "")]
    action: String,
    /// Id of who did it
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Id of who acted in the actor's name
    #[arg(long, value_name = "ID")]
    impersonator: Option<String>,
    /// What it was done to
    #[arg(long, value_name = "TYPE:ID", value_parser = target)]
    target: Option<v1::Target>,
    /// How it ended
    #[arg(long, value_enum, value_name = "OUTCOME")]
    outcome: Option<OutcomeArg>,
    /// Tenant concerned, if the source may speak for it [default: the source's home tenant]
    #[arg(long, value_name = "NAME", default_value = "")]
    tenant: String,
    /// Severity: trace, debug, info, notice, warn, error, crit, alert, fatal, or 1 to 24
    #[arg(long, value_name = "LEVEL", value_parser = severity::parse)]
    severity: Option<u32>,
    /// Machine on which it happened [default: this one]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Name of the kind of event, such as sshd.login
    #[arg(long, value_name = "NAME", default_value = "")]
    event_name: String,
    /// Session in which it was done
    #[arg(long, value_name = "ID", default_value = "")]
    session: String,
    /// Address from which it was done
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    client_address: String,
    /// Keeps the journal's signed receipts: in a folder, a file each; else all in this file, which is added to
    #[arg(long, value_name = "DIR|FILE")]
    receipts: Option<PathBuf>,
    /// Gives up when nothing was made durable for so long. What was sent may still become durable
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutcomeArg {
    Success,
    Failure,
    Denied,
    Started,
}

pub(crate) async fn run(args: AppendArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let patience = Duration::from_secs(args.timeout);
    let receipts = args.receipts.clone();
    let template = Template::new(args);
    // Said before anything is sent; lines of standard input add nothing that these limits are about.
    template.fields(0).check_limits().map_err(|error| Failure::Usage(error.to_string()))?;
    let options = |guard| ship::Options {
        guard,
        give_up_after: Some(patience),
        // Whoever waits for us wants to know.
        refusals_are_final: true,
        notice: Some(tell),
        ..ship::Options::new(concat!("sigillo ", env!("CARGO_PKG_VERSION")))
    };
    let start = async {
        let (connection, guard) = global.connect_guarded().await?;
        Ok::<_, Failure>(Shipper::start(&connection, options(guard)).await?)
    };
    let silent = |_| Failure::Unreadable(format!("the server has not answered for {} s", patience.as_secs()));
    let mut shipper = timeout(patience, Box::pin(start)).await.map_err(silent)??;
    let keeper = receipts.map(|path| Keeper::open(&path, shipper.welcome())).transpose()?;
    let mut summary = Summary { keeper, ..Summary::default() };
    if template.message.is_some() {
        shipper.push(&template.fields(now()).encode()).await?;
    } else {
        push_lines(&mut shipper, &template, &mut summary).await?;
    }
    for receipt in shipper.flush().await? {
        summary.take(receipt)?;
    }
    shipper.close().await;

    let mut sink = Sink::plain(false);
    sink.write(&summary.tell(global.output))?;
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Pushes each line of standard input. Lines that come slowly are sent after a moment, not only when a batch is full.
async fn push_lines(shipper: &mut Shipper, template: &Template, summary: &mut Summary) -> Result<(), Failure> {
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    let reading = thread::spawn(move || {
        read_lines(io::stdin().lock(), PART_MAX_BYTES, |line| sender.blocking_send(line).is_ok())
    });
    loop {
        let deadline = shipper.deadline();
        let waiting = shipper.waiting() > 0;
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => shipper.push(&template.with_line(now(), line).encode()).await?,
                None => break,
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => shipper.cut().await?,
            settled = shipper.settled(), if waiting => match settled?.outcome {
                Outcome::Durable(receipt) => summary.take(receipt)?,
                Outcome::Refused { message, .. } => return Err(Failure::Refused(message)),
            },
        }
    }
    reading.join().map_err(|_| Failure::Unreadable("standard input could not be read".into()))??;
    Ok(())
}

/// What all records of one call have in common.
struct Template {
    core: v1::CorePart,
    personal: Option<v1::PersonalPart>,
    message: Option<String>,
}

impl Template {
    fn new(args: AppendArgs) -> Self {
        let outcome = args.outcome.map_or(v1::Outcome::Unspecified, |outcome| match outcome {
            OutcomeArg::Success => v1::Outcome::Success,
            OutcomeArg::Failure => v1::Outcome::Failure,
            OutcomeArg::Denied => v1::Outcome::Denied,
            OutcomeArg::Started => v1::Outcome::Started,
        });
        let core = v1::CorePart {
            severity_number: args.severity.unwrap_or(0),
            event_name: args.event_name,
            action: args.action,
            target: args.target,
            outcome: outcome.into(),
            host: args.host.unwrap_or_else(this_host),
            tenant: args.tenant,
            ..Default::default()
        };
        let actor = |id: String| v1::Actor { id, ..Default::default() };
        let personal = v1::PersonalPart {
            actor: args.actor.map(actor),
            impersonator: args.impersonator.map(actor),
            client_address: args.client_address,
            session: args.session,
            ..Default::default()
        };
        let personal = (personal != v1::PersonalPart::default()).then_some(personal);
        Self { core, personal, message: args.message }
    }

    /// The act itself.
    fn fields(&self, now: u64) -> Fields {
        let body = self.message.clone().map(|text| v1::AnyValue { value: Some(Value::StringValue(text)) });
        let core = v1::CorePart { event_time_unix_nano: now, observed_time_unix_nano: now, ..self.core.clone() };
        let content = body.map(|body| v1::ContentPart { body: Some(body), ..Default::default() });
        Fields { core: Some(core), personal: self.personal.clone(), content, unreadable: Vec::new() }
    }

    /// A line that was read: when it happened is not known.
    fn with_line(&self, now: u64, line: Line) -> Fields {
        let core = v1::CorePart { observed_time_unix_nano: now, ..self.core.clone() };
        let content = v1::ContentPart { original: line.bytes.into(), fragment: line.fragment, ..Default::default() };
        Fields { core: Some(core), personal: self.personal.clone(), content: Some(content), unreadable: Vec::new() }
    }
}

/// One line, or a part of one that is too long.
#[derive(Debug, PartialEq)]
struct Line {
    bytes: Vec<u8>,
    fragment: Option<v1::Fragment>,
}

/// Hands on each line without its end, in parts of at most `part_bytes`, until `take` wants no more.
fn read_lines(mut input: impl BufRead, part_bytes: usize, mut take: impl FnMut(Line) -> bool) -> io::Result<()> {
    let (mut bytes, mut index) = (Vec::new(), 0);
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            if !bytes.is_empty() || index > 0 {
                take(Line { bytes, fragment: (index > 0).then_some(v1::Fragment { index, last: true }) });
            }
            return Ok(());
        }
        let room = available.get(..part_bytes - bytes.len()).unwrap_or(available);
        let (piece, used, ended) = match room.iter().position(|byte| *byte == b'\n') {
            Some(end) => (room.get(..end).unwrap_or(room), end + 1, true),
            None => (room, room.len(), false),
        };
        bytes.extend_from_slice(piece);
        input.consume(used);
        if ended || bytes.len() == part_bytes {
            // A line that ends just where a part does ends with an empty part: only its end shows that nothing follows.
            let fragment = (index > 0 || !ended).then_some(v1::Fragment { index, last: ended });
            if !take(Line { bytes: std::mem::take(&mut bytes), fragment }) {
                return Ok(());
            }
            index = if ended { 0 } else { index + 1 };
        }
    }
}

/// What the receipts of one call say together.
#[derive(Debug, Default)]
struct Summary {
    keeper: Option<Keeper>,
    records: u64,
    first: Option<u64>,
    last: Option<v1::Receipt>,
}

impl Summary {
    fn take(&mut self, receipt: v1::Receipt) -> Result<(), Failure> {
        if let Some(keeper) = &self.keeper {
            keeper.keep(&receipt)?;
        }
        self.records += u64::from(receipt.count);
        self.first.get_or_insert(receipt.sequence);
        self.last = Some(receipt);
        Ok(())
    }

    fn tell(&self, format: Format) -> Vec<u8> {
        let (Some(first), Some(last)) = (self.first, &self.last) else {
            return match format {
                Format::Json => json_line(&json!({ "records": 0 })),
                Format::Text => b"nothing to append\n".to_vec(),
            };
        };
        let Self { records, .. } = self;
        let end = last.sequence + u64::from(last.count).saturating_sub(1);
        let chain = hex::encode(&last.chain_hash);
        // Batches of other sources may stand between ours.
        let interleaved = end - first + 1 != *records;
        match format {
            Format::Json => json_line(&json!({
                "records": records,
                "first_sequence": first,
                "last_sequence": end,
                "contiguous": !interleaved,
                "chain_hash": chain,
                "epoch": last.epoch,
            })),
            Format::Text => {
                let (noun, verb) = if *records == 1 { ("record", "is") } else { ("records", "are") };
                let range =
                    if first == end { format!("sequence {first}") } else { format!("sequences {first} to {end}") };
                let among = if interleaved { ", among those of others" } else { "" };
                format!("{records} {noun} {verb} durable: {range}{among}\nchain value {chain}\n").into_bytes()
            }
        }
    }
}

fn target(text: &str) -> Result<v1::Target, String> {
    match text.split_once(':') {
        Some((kind, id)) if !kind.is_empty() && !id.is_empty() => {
            Ok(v1::Target { r#type: kind.to_owned(), id: id.to_owned() })
        }
        _ => Err("expected TYPE:ID, for example server:web-1".to_owned()),
    }
}

fn this_host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    fn lines(input: &[u8], part_bytes: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        // A small buffer, so that lines run over its end.
        let input = BufReader::with_capacity(3, input);
        read_lines(input, part_bytes, |line| {
            lines.push(line);
            true
        })
        .unwrap();
        lines
    }

    fn line(bytes: &[u8], fragment: Option<(u32, bool)>) -> Line {
        Line { bytes: bytes.to_vec(), fragment: fragment.map(|(index, last)| v1::Fragment { index, last }) }
    }

    #[test]
    fn lines_are_cut_at_their_ends_and_long_ones_into_parts() {
        assert_eq!(lines(b"", 8), []);
        assert_eq!(lines(b"one\n\ntwo", 8), [line(b"one", None), line(b"", None), line(b"two", None)]);
        let parts = [line(b"12345678", Some((0, false))), line(b"9", Some((1, true))), line(b"x", None)];
        assert_eq!(lines(b"123456789\nx\n", 8), parts);
        let parts = [line(b"12345678", Some((0, false))), line(b"", Some((1, true)))];
        assert_eq!(lines(b"12345678", 8), parts);
        assert_eq!(lines(b"12345678\n", 8), parts);
    }

    proptest! {
        #[test]
        fn no_byte_of_a_line_is_lost(input in "[ab\n]{0,60}", part_bytes in 1_usize..9) {
            let mut joined = Vec::new();
            for line in lines(input.as_bytes(), part_bytes) {
                prop_assert!(line.bytes.len() <= part_bytes);
                joined.extend(&line.bytes);
                if line.fragment.is_none_or(|fragment| fragment.last) {
                    joined.push(b'\n');
                }
            }
            let ended = input.is_empty() || input.ends_with('\n');
            let expected = if ended { input.clone() } else { format!("{input}\n") };
            prop_assert_eq!(String::from_utf8(joined).unwrap(), expected);
        }
    }

    fn receipt(sequence: u64, count: u32) -> v1::Receipt {
        v1::Receipt { epoch: 7, sequence, count, chain_hash: vec![0xcd; 32].into(), ..Default::default() }
    }

    #[test]
    fn receipts_are_told_together() {
        let told = |receipts: &[v1::Receipt], format| {
            let mut summary = Summary::default();
            for receipt in receipts {
                summary.take(receipt.clone()).unwrap();
            }
            String::from_utf8(summary.tell(format)).unwrap()
        };
        let chain = "cd".repeat(32);
        let one = told(&[receipt(41, 1)], Format::Text);
        assert_eq!(one, format!("1 record is durable: sequence 41\nchain value {chain}\n"));
        let both = told(&[receipt(10, 5), receipt(15, 2)], Format::Text);
        assert_eq!(both, format!("7 records are durable: sequences 10 to 16\nchain value {chain}\n"));
        let among = told(&[receipt(10, 5), receipt(20, 2)], Format::Json);
        let expected = format!(
            "{{\"records\":7,\"first_sequence\":10,\"last_sequence\":21,\"contiguous\":false,\"chain_hash\":\"{chain}\",\
             \"epoch\":7}}\n"
        );
        assert_eq!(among, expected);
        assert_eq!(told(&[], Format::Text), "nothing to append\n");
    }

    #[test]
    fn targets_have_two_parts() {
        assert_eq!(
            target("server:web:1").map(|target| (target.r#type, target.id)),
            Ok(("server".into(), "web:1".into()))
        );
        for bad in ["", "server", ":x", "server:"] {
            assert!(target(bad).is_err(), "{bad:?}");
        }
    }
}
