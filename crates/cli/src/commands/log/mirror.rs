//! `sigillo log mirror`: the published tree, as files that any web server can publish.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::json;
use sigillo_client::Connection;
use sigillo_http::{Link, Roots, Url};
use sigillo_model::{
    checkpoint::Checkpoint,
    note::{NOTE_MAX_BYTES, Note},
    policy::{POLICY_MAX_BYTES, Policy},
    tile::{TILE_WIDTH, TileKind, TilePath},
    tree,
};
use sigillo_proto::v1;

use super::tree::{MirrorTree, TreeError};
use crate::{
    failure::{EXIT_ALTERED, EXIT_STALE, EXIT_UNMET, Failure, tell},
    global::GlobalArgs,
    output::{Format, Sink, json_line},
};

/// Most time for one resource.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a bundle of entries at most: 256 entries of the greatest length.
const BUNDLE_MAX_BYTES: usize = 256 * (2 + 65_535);
const CHECKPOINT: &str = "checkpoint";

/// Write the published tree into a folder: checkpoint, tiles, entries
///
/// Verifies as it goes: the checkpoint by the trust file, what was mirrored before by the checkpoint mirrored then, and every new
/// entry and tile by the root of the new one. Only what is new is fetched. The checkpoint is replaced last, so that the folder can
/// be published at any time.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0  the folder holds the tree of the newest checkpoint
  1  the log, or the folder, was altered: what it shows does not continue what it showed
  2  the command line, the trust file or the configuration is wrong
  3  something can't be read or written
  5  the log shows an older checkpoint than the folder has
  6  the checkpoint is genuine, but not cosigned as the trust file asks

Examples:
  sigillo log mirror --to /srv/www/log --policy trust.txt
  sigillo log mirror --to /srv/www/log --policy trust.txt --url https://log.example.net --url-ca ca.pem")]
pub(crate) struct MirrorArgs {
    /// Folder to write; made if it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Trust file: keys of log and witnesses, quorum
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Where the log is published, instead of asking the configured server
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// PEM file with the authorities that the certificate of --url may come from
    #[arg(long, value_name = "FILE", requires = "url")]
    url_ca: Option<PathBuf>,
}

pub(crate) async fn run(args: MirrorArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let policy = read_policy(&args.policy)?;
    let mut source = Source::open(&args, global).await?;
    let bytes = source.checkpoint().await?;
    let judged = |bytes: &[u8]| -> Result<(Checkpoint, bool), String> {
        let note = Note::parse(bytes).map_err(|error| error.to_string())?;
        let judgement = policy.check(&note).map_err(|error| error.to_string())?;
        Ok((judgement.checkpoint, judgement.quorum))
    };
    let (new, quorum) = match judged(&bytes) {
        Ok(judged) => judged,
        Err(problem) => return Ok(altered(&format!("the log's checkpoint: {problem}"))),
    };
    if !quorum {
        tell("the log's checkpoint is not cosigned as the trust file asks: nothing was mirrored");
        return Ok(ExitCode::from(EXIT_UNMET));
    }
    let old = match fs::read(args.to.join(CHECKPOINT)) {
        Ok(bytes) => match judged(&bytes) {
            Ok((old, _)) => old,
            Err(problem) => return Ok(altered(&format!("the checkpoint in {}: {problem}", args.to.display()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Checkpoint { origin: new.origin.clone(), size: 0, root: tree::empty() }
        }
        Err(error) => return Err(error.into()),
    };
    if old.origin != new.origin {
        return Err(Failure::Usage(format!(
            "{} mirrors the log {}, this is {}: give another folder",
            args.to.display(),
            old.origin,
            new.origin
        )));
    }
    if new.size < old.size {
        let (new, old) = (new.size, old.size);
        tell(&format!("the log shows a checkpoint of {new} records, older than that of {old} in the folder"));
        return Ok(ExitCode::from(EXIT_STALE));
    }
    match mirror(&args.to, &mut source, &old, &new, &bytes).await {
        Ok(()) => report(&new, new.size - old.size, global.output),
        Err(Stop::Altered(problem)) => Ok(altered(&problem)),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

fn altered(problem: &str) -> ExitCode {
    tell(&format!("ALTERED: {problem}"));
    ExitCode::from(EXIT_ALTERED)
}

fn report(new: &Checkpoint, added: u64, output: Format) -> Result<ExitCode, Failure> {
    let mut sink = Sink::plain(false);
    sink.write(&match output {
        Format::Json => json_line(&json!({
            "origin": new.origin, "size": new.size, "root": new.root.to_string(), "added": added,
        })),
        Format::Text => format!("mirrored: {added} new of {} records, root {}\n", new.size, new.root).into_bytes(),
    })?;
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

enum Stop {
    Altered(String),
    Failed(Failure),
}

impl From<TreeError> for Stop {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Altered(problem) => Self::Altered(problem),
            TreeError::Io(error) => Self::Failed(error.into()),
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn mirror(
    dir: &Path,
    source: &mut Source,
    old: &Checkpoint,
    new: &Checkpoint,
    checkpoint: &[u8],
) -> Result<(), Stop> {
    let mut tree = MirrorTree::open(dir, old)?;
    while tree.size() < new.size {
        let index = tree.size() / u64::from(TILE_WIDTH);
        let path = TilePath::within(TileKind::Entries, index, new.size)
            .ok_or_else(|| Stop::Altered(format!("a tree of {} records can't be cut into tiles", new.size)))?;
        let bundle = source.tile(&path).await?;
        tree.add(&path, &bundle)?;
    }
    tree.finish(new)?;
    let pending = dir.join(CHECKPOINT);
    super::tree::replace(&pending, checkpoint).map_err(TreeError::Io)?;
    Ok(())
}

fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let wrong = |what: String| Failure::Usage(format!("trust file {}: {what}", path.display()));
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() > POLICY_MAX_BYTES {
        return Err(wrong(format!("it has {} bytes; at most {POLICY_MAX_BYTES} are read", bytes.len())));
    }
    Policy::parse(&bytes).map_err(|error| wrong(error.to_string()))
}

/// Where the log is read.
enum Source {
    Http(Box<Link>),
    Server(Box<Connection>),
}

impl Source {
    async fn open(args: &MirrorArgs, global: &GlobalArgs) -> Result<Self, Failure> {
        let Some(url) = &args.url else { return Ok(Self::Server(Box::new(global.connect().await?))) };
        let usage = |error: sigillo_http::HttpError| Failure::Usage(error.to_string());
        let roots = args.url_ca.as_deref().map(Roots::load).transpose().map_err(usage)?;
        Ok(Self::Http(Box::new(Link::new(Url::parse(url).map_err(usage)?, roots, TIMEOUT).map_err(usage)?)))
    }

    async fn checkpoint(&mut self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Http(link) => get(link, CHECKPOINT, NOTE_MAX_BYTES).await,
            Self::Server(connection) => {
                Ok(connection.checkpoint(v1::GetCheckpointRequest::default()).await?.note.to_vec())
            }
        }
    }

    async fn tile(&mut self, path: &TilePath) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Http(link) => get(link, &path.to_string(), BUNDLE_MAX_BYTES).await,
            Self::Server(connection) => Ok(connection.tile(path.to_string()).await?.content.to_vec()),
        }
    }
}

async fn get(link: &mut Link, resource: &str, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let answer = link.get(resource, max_bytes).await.map_err(|error| Failure::Unreadable(error.to_string()))?;
    match answer.status {
        200 => Ok(answer.body.to_vec()),
        status => Err(Failure::Unreadable(format!("{}/{resource}: status {status}", link.url()))),
    }
}
