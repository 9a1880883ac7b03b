//! `sigillo evidence`: takes records out with their proofs, as a file that proves them offline.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use sigillo_client::Responses;
use sigillo_model::{
    evidence::{Nodes, RecordView, Seal, Tools, Watch, Writer},
    ids::{NodeHash, Origin},
    note::{Note, SigningKey},
    policy::Policy,
    record_proof::RecordLink,
};
use sigillo_proto::v1::{self, export_request::Complete, export_response::Message};
use sigillo_verify::{
    FORMAT_PAGE, command,
    show::{escape::safe_json, fields::rfc3339, verdict as show},
    token,
    verdict::{self, EXIT_PROVED, Verdict},
};

use crate::{
    failure::{Failure, tell},
    filter::FilterArgs,
    global::GlobalArgs,
    output::{Format, Sink},
};

/// Bytes of a time-stamp token or a key file at most.
const SMALL_FILE_BYTES: u64 = 1 << 20;

/// Take records out as a file that proves them offline
#[derive(Debug, Args)]
#[command(after_long_help = "\
The file is verified before anything is said; sigillo-verify verifies it anywhere, without network and server.

With --complete, the whole run of one --source or one --tenant goes into the file, and a proof of where it ends: what the other
options don't let through goes in as commitments only, so that nothing of it can be read and nothing can be left out.

An auditor who has walked the journal makes that proof his own: sigillo verify --cosign KEY --out cosigned.note, and here
--checkpoint cosigned.note. Without it the verdict is \"complete by the provider's word\".

A time stamp is made of the published checkpoint, when it is published and not when evidence is needed:
  openssl ts -query -data checkpoint -sha256 -cert -out request.tsq

Examples:
  sigillo evidence 'Failed password' --host web-1 --since yesterday --reason 'case 2026-81' --out case.sigillo
  sigillo evidence --complete --tenant acme --action server.delete --reason 'case 2026-81' --out case.sigillo
  sigillo evidence --complete --tenant acme --checkpoint cosigned.note --reason 'case 2026-81' --out case.sigillo")]
pub(crate) struct EvidenceArgs {
    /// The file to write; there may be none of this name yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The whole run of one --source or --tenant, so that it shows that nothing is left out
    #[arg(long)]
    complete: bool,
    /// Parts that are shown; of the others only hashes are given [default: all]
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    parts: Vec<PartName>,
    /// Key that signs the file, as `sigillo key new --kind exporter` makes it
    #[arg(long, value_name = "FILE")]
    exporter_key: Option<PathBuf>,
    /// Time-stamp token (RFC 3161) over a published checkpoint
    #[arg(long, value_name = "FILE")]
    tsa_token: Vec<PathBuf>,
    /// Trust file by which the file is verified [default: the server's, as it is in the file]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Checkpoint against which the file is made, as `sigillo verify --cosign` writes it: its auditor's signature goes into the file. May
    /// be repeated, for several auditors of one checkpoint
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// A part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PartName {
    /// When, what, on what, with what outcome, where
    Core,
    /// Who
    Personal,
    /// The words themselves
    Content,
}

impl PartName {
    fn name(self) -> String {
        match self {
            Self::Core => "core",
            Self::Personal => "personal",
            Self::Content => "content",
        }
        .to_owned()
    }
}

struct Token {
    name: String,
    bytes: Vec<u8>,
}

pub(crate) async fn run(args: EvidenceArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let policy = args.policy.as_deref().map(command::read_policy).transpose().map_err(Failure::Usage)?;
    let key = args.exporter_key.as_deref().map(read_key).transpose()?;
    let tokens = args.tsa_token.iter().map(|path| read_token(path)).collect::<Result<Vec<_>, _>>()?;
    let imprints = tokens.iter().map(|token| {
        let imprint = token::imprint(&token.bytes);
        imprint.map_err(|error| Failure::Usage(format!("the time-stamp token {}: {error}", token.name)))
    });
    let notes = imprints.map(|imprint| Ok(imprint?.to_vec().into())).collect::<Result<Vec<_>, Failure>>()?;
    let (filter, reason) = args.filter.into_parts();
    let complete = args.complete.then(|| complete(&filter)).transpose()?;
    let parts = args.parts.iter().map(|part| part.name()).collect();
    let checkpoint = checkpoint(&args.checkpoint)?.map(|note| note.to_bytes().into()).unwrap_or_default();
    let request = v1::ExportRequest { filter: Some(filter), reason, parts, complete, notes, checkpoint };
    if args.out.exists() {
        return Err(Failure::Usage(format!("{} exists: name another file", args.out.display())));
    }
    let connection = global.connect().await?;
    let head = connection.head().await?.size;
    let mut responses = connection.export(request).await?;
    let unfinished = unfinished(&args.out);
    let made = make(&mut responses, &unfinished, &tokens, key.as_ref(), policy).await;
    let (verdict, last) = match made.and_then(|made| {
        put(&unfinished, &args.out)?;
        Ok(made)
    }) {
        Ok(made) => made,
        Err(failure) => {
            // Nothing that looks like evidence stays behind.
            let _ = fs::remove_file(&unfinished);
            return Err(failure);
        }
    };
    let mut sink = Sink::plain(false);
    match global.output {
        Format::Json => sink.write(format!("{}\n", safe_json(&show::json(&verdict, show::clock()))).as_bytes())?,
        Format::Text => {
            let text = show::text(&verdict, show::clock());
            sink.write(format!("{}: written and verified\n\n{text}", args.out.display()).as_bytes())?;
        }
    }
    sink.finish()?;
    if args.policy.is_none() {
        tell(
            "verified by the server's own trust file only: whoever relies on it verifies by one of their own (--policy)",
        );
    }
    if args.complete && args.checkpoint.is_empty() {
        tell_reach(verdict.report.checkpoint.size, head, last.time);
    }
    let code = verdict.exit_code();
    if code != EXIT_PROVED {
        tell("the file was written, and does not prove all that it might: see above");
    }
    Ok(ExitCode::from(code))
}

/// Notes when the last record of a file was received.
#[derive(Debug, Default)]
struct Last {
    time: u64,
}

impl Nodes for Last {
    fn node(&mut self, _: u64, _: u64, _: &NodeHash) {}
}

impl Watch for Last {
    fn record(&mut self, record: &RecordView<'_>, _: &RecordLink) {
        self.time = record.envelope.receipt_time.get();
    }
}

/// How far a whole run reaches, if the journal, which had `head` records before, reaches further. Its last record, received at `time`,
/// is the counters record.
fn tell_reach(size: u64, head: u64, time: u64) {
    if let Some(after) = head.checked_sub(size).filter(|after| *after > 0) {
        tell(&format!(
            "whole up to record {}, received {}: the newest counters record under a checkpoint. The journal had {after} records more, which \
             a file can show to be whole once the next counters record stands, at most a minute later",
            size.saturating_sub(1),
            rfc3339(time, &TimeZone::UTC),
        ));
    }
}

/// Whose whole run: that of the one source or tenant that the filter names. It is then no condition any more.
fn complete(filter: &v1::Filter) -> Result<Complete, Failure> {
    match (filter.sources.as_slice(), filter.tenants.as_slice()) {
        ([source], _) => Ok(Complete::Source(source.clone())),
        ([], [tenant]) => Ok(Complete::Tenant(tenant.clone())),
        _ => Err(Failure::Usage("--complete goes with one --source or one --tenant".into())),
    }
}

/// The checkpoint that the file is to be made against, with the signatures of all its notes.
fn checkpoint(paths: &[PathBuf]) -> Result<Option<Note>, Failure> {
    let mut joined: Option<Note> = None;
    for path in paths {
        let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("--checkpoint {}: {what}", path.display()));
        let note = Note::parse(&read_small(path, "the checkpoint")?).map_err(|error| wrong(&error))?;
        let Some(known) = &mut joined else {
            joined = Some(note);
            continue;
        };
        if known.text() != note.text() {
            return Err(wrong(
                &"it is not the checkpoint of the note before: auditors who are to be named together cosign the same one",
            ));
        }
        for signature in note.signatures() {
            if !known.signatures().contains(signature) {
                known.add(signature.clone()).map_err(|error| wrong(&error))?;
            }
        }
    }
    Ok(joined)
}

fn read_small(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SMALL_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(Failure::Usage(format!("{what} {} can't be read: {error}", path.display()))),
        Ok(_) if bytes.len() as u64 > SMALL_FILE_BYTES => {
            Err(Failure::Usage(format!("{} is too long for {what}", path.display())))
        }
        Ok(_) => Ok(bytes),
    }
}

fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let bytes = read_small(path, "the exporter's key")?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::Usage(format!("{} is no key", path.display())))?;
    SigningKey::parse(text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn read_token(path: &Path) -> Result<Token, Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    Ok(Token { name, bytes: read_small(path, "the time-stamp token")? })
}

/// Beside the file, so that it can take its name in one step.
fn unfinished(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    out.with_file_name(name)
}

/// Writes the whole file under its unfinished name, and verifies it.
async fn make(
    responses: &mut Responses<v1::ExportResponse>,
    path: &Path,
    tokens: &[Token],
    key: Option<&SigningKey>,
    policy: Option<Policy>,
) -> Result<(Verdict, Last), Failure> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Failure::Unreadable(format!("{} can't be written: {error}", path.display())))?;
    let mut seal = Seal::default();
    let mut origin = None;
    loop {
        match responses.next().await?.map(|response| response.message) {
            Some(Some(Message::Data(data))) => {
                origin = match origin {
                    None => Some(origin_of(&data)?),
                    known => known,
                };
                seal.update(&data);
                file.write_all(&data)?;
            }
            Some(Some(Message::End(_))) => break,
            Some(None) => (),
            None => return Err(Failure::Unreadable("the evidence was cut off before its end: try again".into())),
        }
    }
    let origin = origin.ok_or_else(|| Failure::Unreadable("the server sent no evidence".into()))?;
    let wrong = |error: sigillo_model::evidence::WriteError| Failure::Usage(error.to_string());
    let mut writer = Writer::resume_after_records();
    for token in tokens {
        writer.token(&token.name, &token.bytes).map_err(wrong)?;
    }
    let tools = Tools { format_page: Sha256::digest(FORMAT_PAGE).into(), verifier: verifier_hash() };
    writer.tools(&tools).map_err(wrong)?;
    let attached = writer.take();
    seal.update(&attached);
    let text = seal.text(&origin);
    let end = match key {
        None => text.into_bytes(),
        Some(key) => {
            let wrong = |error: sigillo_model::note::NoteError| Failure::Usage(format!("the exporter's key: {error}"));
            let signature = key.sign(&text).map_err(wrong)?;
            Note::new(text, vec![signature]).map_err(wrong)?.to_bytes()
        }
    };
    writer.end(&end).map_err(wrong)?;
    file.write_all(&attached)?;
    file.write_all(&writer.take())?;
    file.sync_all()?;
    let policy = match policy {
        Some(policy) => policy,
        None => own_policy(path)?,
    };
    let mut last = Last::default();
    let verdict = verdict::verify(BufReader::new(File::open(path)?), &policy, &mut last);
    let wrong = |error| Failure::Unreadable(format!("the server's evidence proves nothing: {error}"));
    Ok((verdict.map_err(wrong)?, last))
}

/// The origin that a file begins with.
fn origin_of(data: &[u8]) -> Result<Origin, Failure> {
    let origin = sigillo_model::evidence::peek_origin(data);
    origin.ok_or_else(|| Failure::Unreadable("what the server sent does not begin as evidence does".into()))
}

/// The trust file that stands in the file: the server's.
fn own_policy(path: &Path) -> Result<Policy, Failure> {
    let trust = sigillo_verify::read::trust(BufReader::new(File::open(path)?));
    let trust = trust.map_err(|error| Failure::Unreadable(format!("the server's evidence: {error}")))?;
    Policy::parse(&trust).map_err(|error| Failure::Unreadable(format!("the server's trust file: {error}")))
}

/// SHA-256 of the verifier that stands beside this program; zeros if there is none.
fn verifier_hash() -> [u8; 32] {
    let verifier = env::current_exe().ok().and_then(|program| fs::read(program.with_file_name("sigillo-verify")).ok());
    verifier.map_or([0; 32], |bytes| Sha256::digest(bytes).into())
}

/// Gives the file its name in one step, unless there is one of that name.
fn put(unfinished: &Path, out: &Path) -> Result<(), Failure> {
    fs::hard_link(unfinished, out)
        .map_err(|error| Failure::Unreadable(format!("{} can't be written: {error}", out.display())))?;
    fs::remove_file(unfinished)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(folder)?.sync_all()?)
}
