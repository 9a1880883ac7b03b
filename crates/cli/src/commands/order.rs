//! `sigillo order`: orders of the officers, which two of them sign before the server carries them out.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use sigillo_model::{
    class::Class,
    entry::Gone,
    ids::{Origin, RetentionId},
    note::{NOTE_MAX_BYTES, Note, SigningKey},
    policy::Policy,
    statement::{self, Act, Erasure, Order, Retention},
};
use zeroize::Zeroizing;

use crate::{failure::Failure, output::Sink};

/// Bytes of a key's file at most.
const KEY_MAX_BYTES: usize = 4 << 10;
/// Bytes of a trust file at most.
const TRUST_MAX_BYTES: usize = 1 << 20;

/// Make, sign and show officers' orders: erasures, and how long records are kept
#[derive(Debug, Args)]
#[command(after_long_help = "\
An order is proposed by one officer and approved by another: `sign` adds a signature to the file. The server carries it out when
two of the officers in its trust file have signed: `sigillod order FILE` on its machine. The order itself goes into the journal, and
explains to every verifier what is gone.

A target is SEQUENCE for a whole record, or SEQUENCE:PARTS with some of core,personal,content.

Examples:
  sigillo order erase --origin journal.example.com/2026 --basis \"GDPR 17, case 12\" --key ada.key --out case12 811 812:personal
  sigillo order retention --origin journal.example.com/2026 --class service --keep 400d --key ada.key --out keep
  sigillo order show case12 --trust trust.txt
  sigillo order sign case12 --key ben.key")]
pub(crate) struct OrderArgs {
    #[command(subcommand)]
    command: OrderCommand,
}

#[derive(Debug, Subcommand)]
enum OrderCommand {
    /// Propose that records, or parts of them, are erased
    Erase {
        #[command(flatten)]
        proposal: Proposal,
        /// On what ground: the law, a case number, a sentence. One line; it stays in the journal for ever
        #[arg(long, value_name = "TEXT")]
        basis: String,
        /// What is to go: SEQUENCE or SEQUENCE:PARTS
        #[arg(required = true, value_name = "TARGET", value_parser = target)]
        targets: Vec<(u64, Gone)>,
    },
    /// Propose how long the payloads of a retention class are kept, from now on
    Retention {
        #[command(flatten)]
        proposal: Proposal,
        /// Name or number of the retention class
        #[arg(long, value_name = "CLASS", value_parser = class)]
        class: RetentionId,
        /// How long, for example 400d, 36h or 90s
        #[arg(long, value_name = "TIME", value_parser = keep)]
        keep: u64,
    },
    /// Approve an order: add a signature to its file
    Sign {
        /// The order
        file: PathBuf,
        /// Private key of the officer
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Say what an order would do, and who has signed it
    Show {
        /// The order
        file: PathBuf,
        /// Trust file, whose officers' signatures are checked
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Proposal {
    /// Origin of the journal
    #[arg(long, value_name = "ORIGIN", value_parser = |text: &str| Origin::new(text))]
    origin: Origin,
    /// Private key of the officer who proposes
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File to write; it must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: OrderArgs) -> Result<ExitCode, Failure> {
    let told = match args.command {
        OrderCommand::Erase { proposal, basis, mut targets } => {
            targets.sort_unstable_by_key(|(seq, _)| *seq);
            propose(&proposal, &Act::Erase(Erasure { basis, targets }))?
        }
        OrderCommand::Retention { proposal, class, keep } => {
            propose(&proposal, &Act::Keep(Retention { class, keep_s: keep }))?
        }
        OrderCommand::Sign { file, key } => sign(&file, &key)?,
        OrderCommand::Show { file, trust } => show(&file, trust.as_deref())?,
    };
    let mut sink = Sink::plain(false);
    sink.write(told.as_bytes())?;
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn propose(proposal: &Proposal, act: &Act) -> Result<String, Failure> {
    let text = Order::text(&proposal.origin, act);
    // Read back: what can't be read would be refused later.
    let read = statement::parse_act(&text, &proposal.origin);
    if read.as_ref() != Ok(act) {
        let what = "give each target once, a basis of one line and at most 1,024 bytes, and at most 4,096 targets";
        return Err(Failure::Usage(format!("this makes no order: {what}")));
    }
    let key = read_key(&proposal.key)?;
    let usage = |error: sigillo_model::note::NoteError| Failure::Usage(error.to_string());
    let note = Note::new(text.clone(), vec![key.sign(&text).map_err(usage)?]).map_err(usage)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(&proposal.out).map_err(|error| {
            Failure::Usage(format!("{}: {error}; an order is never replaced", proposal.out.display()))
        })?;
    file.write_all(&note.to_bytes())?;
    file.sync_all()?;
    Ok(format!("{}: proposed by {}; another officer must sign it\n", proposal.out.display(), key.verifier().name()))
}

fn sign(path: &Path, key: &Path) -> Result<String, Failure> {
    let key = read_key(key)?;
    let (_, order) = read_order(path)?;
    let mut note = order.note().clone();
    let name = key.verifier().name();
    if note.signatures().iter().any(|signature| signature.name() == name && signature.id() == key.verifier().id()) {
        return Err(Failure::Usage(format!("{name} has signed this order already: another officer must approve it")));
    }
    let usage = |error: sigillo_model::note::NoteError| Failure::Usage(error.to_string());
    let signature = key.sign(note.text()).map_err(usage)?;
    note.add(signature).map_err(usage)?;
    // Whole or not at all: a half-written order would be lost with its first signature.
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
    file.write_all(&note.to_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(format!("{}: signed by {name}\n", path.display()))
}

fn show(path: &Path, trust: Option<&Path>) -> Result<String, Failure> {
    let (origin, order) = read_order(path)?;
    let mut told = format!("journal  {origin}\n");
    // Writing to a String can't fail.
    match &order.act {
        Act::Erase(erasure) => {
            let _ = writeln!(told, "erases, on the ground of {:?}:", erasure.basis);
            for (seq, gone) in &erasure.targets {
                let _ = writeln!(told, "  {seq} {gone}");
            }
        }
        Act::Keep(retention) => {
            let _ = writeln!(told, "keeps    retention class {} for {} seconds", retention.class, retention.keep_s);
        }
    }
    for signature in order.note().signatures() {
        let _ = writeln!(told, "signed   {} (key {})", signature.name(), signature.id());
    }
    let judged = match trust {
        None => "signatures are not checked: name a trust file".to_owned(),
        Some(trust) => {
            let bytes = read(trust, TRUST_MAX_BYTES)?;
            let policy =
                Policy::parse(&bytes).map_err(|error| Failure::Usage(format!("{}: {error}", trust.display())))?;
            match order.check(policy.officers()) {
                Ok(_) => "proposed and approved: the server will carry it out".to_owned(),
                Err(error) => format!("not lawful yet: {error}"),
            }
        }
    };
    let _ = writeln!(told, "{judged}");
    Ok(told)
}

/// Reads an order, of whatever journal it says.
fn read_order(path: &Path) -> Result<(Origin, Order), Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", path.display()));
    let bytes = read(path, NOTE_MAX_BYTES)?;
    let note = Note::parse(&bytes).map_err(|error| wrong(&error))?;
    let origin = note.text().lines().nth(1).unwrap_or_default();
    let origin = Origin::new(origin).map_err(|error| wrong(&error))?;
    let order = Order::parse(&bytes, &origin).map_err(|error| wrong(&error))?;
    Ok((origin, order))
}

fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let bytes = Zeroizing::new(read(path, KEY_MAX_BYTES)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::Usage(format!("{} is no key", path.display())))?;
    SigningKey::parse(text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn read(path: &Path, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| Failure::Usage(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > max_bytes {
        return Err(Failure::Usage(format!("{} has more than {max_bytes} bytes", path.display())));
    }
    Ok(bytes)
}

fn target(text: &str) -> Result<(u64, Gone), String> {
    let (seq, parts) = text.split_once(':').unwrap_or((text, "record"));
    let seq = seq.parse().map_err(|_| "a target begins with a sequence, a number".to_owned())?;
    let parts =
        statement::parse_parts(parts).ok_or("parts are `record`, or some of core,personal,content in this order")?;
    Ok((seq, parts))
}

fn class(text: &str) -> Result<RetentionId, String> {
    if let Some(class) = Class::from_name(text) {
        return Ok(class.retention());
    }
    text.parse().map(RetentionId::new).map_err(|_| "a retention class is a number, or the name of a class".to_owned())
}

fn keep(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let parsed = number.parse::<u64>().ok().zip(seconds).and_then(|(number, seconds)| number.checked_mul(seconds));
    parsed
        .filter(|seconds| *seconds <= statement::KEEP_MAX_S)
        .ok_or_else(|| "a time is a number and s, m, h or d, at most a hundred years".to_owned())
}

#[cfg(test)]
mod tests {
    use sigillo_model::note::KeyKind;

    use super::*;

    fn key(dir: &Path, name: &str, seed: u8) -> PathBuf {
        let path = dir.join(format!("{name}.key"));
        let key = SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap();
        fs::write(&path, format!("{}\n", *key.encode())).unwrap();
        path
    }

    #[test]
    fn proposed_approved_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (ada, ben) = (key(dir.path(), "ada", 1), key(dir.path(), "ben", 2));
        let out = dir.path().join("case");
        let proposal =
            Proposal { origin: Origin::new("journal.example/1").unwrap(), key: ada.clone(), out: out.clone() };
        let targets = vec![target("7").unwrap(), target("9:core,personal").unwrap()];
        let act = Act::Erase(Erasure { basis: "case 1".into(), targets });
        propose(&proposal, &act).unwrap();
        assert!(matches!(propose(&proposal, &act), Err(Failure::Usage(_))), "not replaced");
        let officer = |path: &Path| format!("officer {}\n", read_key(path).unwrap().verifier());
        let trust = dir.path().join("trust");
        fs::write(&trust, format!("{}{}quorum none\n", officer(&ada), officer(&ben))).unwrap();
        let shown = show(&out, Some(&trust)).unwrap();
        assert!(shown.contains("  9 core,personal\n") && shown.contains("not lawful yet"), "{shown}");
        assert!(matches!(sign(&out, &ada), Err(Failure::Usage(_))), "not twice");
        sign(&out, &ben).unwrap();
        let shown = show(&out, Some(&trust)).unwrap();
        assert!(shown.ends_with("signed   ben (key ") || shown.contains("proposed and approved"), "{shown}");
    }

    #[test]
    fn arguments_have_one_meaning() {
        assert_eq!(target("5"), Ok((5, Gone::RECORD)));
        for bad in ["", "x", "5:", "5:actor", "5:personal,core", "-1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert_eq!((keep("2d"), keep("90s")), (Ok(172_800), Ok(90)));
        for bad in ["", "5", "d", "1y", "99999999d", "1.5h"] {
            assert!(keep(bad).is_err(), "{bad}");
        }
        assert_eq!((class("service"), class("256")), (Ok(RetentionId::new(3)), Ok(RetentionId::new(256))));
        assert!(class("no").is_err());
    }
}
