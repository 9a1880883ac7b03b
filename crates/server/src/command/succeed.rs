//! `sigillod succeed`.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use sha2::{Digest, Sha256};
use sigillo_journal::{
    Journal, Options,
    restore::{self, Verified},
};
use sigillo_model::{checkpoint::Checkpoint, ids::NoteHash, note::Note};

use super::{Config, Failure, line, meter::Meter, restore::failure};
use crate::run::make_private;

/// Of `sigillod succeed`.
#[derive(Debug, Args)]
#[command(after_help = "\
When checkpoints were signed and the records that they cover are lost, a journal can't go on: whatever came next would contradict
them. It ends, and a successor begins, with a new origin and an empty data folder, both in its configuration. The successor's
genesis covers the last cosigned note of the journal that ended, so that the one leads to the other. The backup stays what it is,
an archive of what was saved: it is verified whole, and not copied.

The note is the newest of those found: in the backup, in --before, in --note. Ask a witness for its newest one.

Exit codes:
  0  begun; start the server with the new configuration
  1  the backup is altered
  2  the command line or the configuration makes no sense
  3  the backup, a note or the disk can't be read or written
  4  refused: the origin is not a new one, the data folder is not empty, or no note is found

Examples:
  sigillod succeed --from /backup/2026-11-23 --before /var/lib/sigillo --config /etc/sigillo/successor.toml
  sigillod succeed --from /backup/2026-11-23 --note newest-note.txt --config /etc/sigillo/successor.toml")]
pub struct SucceedArgs {
    /// The newest backup of the journal that ended
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The data folder of the journal that ended, where its database can still be read
    #[arg(long, value_name = "DIR")]
    before: Option<PathBuf>,
    /// A cosigned checkpoint of the journal that ended, as a witness or the published `checkpoint` gives it
    #[arg(long, value_name = "FILE")]
    note: Option<PathBuf>,
    #[command(flatten)]
    config: Config,
}

/// Most bytes of a note.
const NOTE_MAX_BYTES: u64 = 64 << 10;
/// Name of the file that keeps the note of the journal that ended.
const PREDECESSOR: &str = "predecessor";

pub(super) async fn run(args: SucceedArgs) -> Result<String, Failure> {
    let settings = args.config.load()?;
    let mut meter = Meter::new();
    let verified =
        restore::verify_backup(&args.from, |progress| meter.show_progress(progress)).map_err(failure(&settings))?;
    drop(meter);
    let dir = &settings.data_dir;
    if verified.manifest.origin.as_str() == settings.origin.as_str() {
        let what = "a successor has an origin and a data_dir of its own: name new ones in its configuration";
        return Err(Failure::Refused(format!("{} is the origin of the journal that ended: {what}", settings.origin)));
    }
    if restore::holds_journal(dir) {
        return Err(Failure::Refused(format!(
            "{}: there is a journal here: a successor begins in a new folder",
            dir.display()
        )));
    }
    let (size, note) = newest(&args, &verified)?;
    let hash = NoteHash::new(Sha256::digest(&note).into());

    let unreadable = |error: &dyn std::fmt::Display| Failure::Unreadable(error.to_string());
    make_private(dir).map_err(|error| unreadable(&error))?;
    fs::write(dir.join(PREDECESSOR), &note).map_err(|error| unreadable(&error))?;
    let opened =
        Journal::open(&Options::new(dir, settings.origin.clone().after(hash))).map_err(|error| unreadable(&error))?;
    opened.journal.close().await.map_err(|error| unreadable(&error))?;

    let mut text = String::new();
    line(&mut text, "origin", &settings.origin);
    line(
        &mut text,
        "succeeds",
        format_args!("{}, which ended after a checkpoint of {size} records", verified.manifest.origin),
    );
    line(&mut text, "note", format_args!("{hash}, kept in {}", dir.join(PREDECESSOR).display()));
    Ok(text)
}

/// The newest note that is known of the journal that ended, with its size.
fn newest(args: &SucceedArgs, verified: &Verified) -> Result<(u64, Vec<u8>), Failure> {
    let mut found = vec![kept(&verified.dir)?];
    if let Some(before) = &args.before {
        found.push(kept(before)?);
    }
    if let Some(path) = &args.note {
        found.push(Some(read(path)?));
    }
    let origin = verified.manifest.origin.as_str();
    let mut newest: Option<(u64, Vec<u8>)> = None;
    for note in found.into_iter().flatten() {
        let unusable =
            |why: String| Failure::Unreadable(format!("a note of the journal that ended can't be used: {why}"));
        let text = Note::parse(&note).map_err(|error| unusable(error.to_string()))?;
        let checkpoint = Checkpoint::parse(text.text()).map_err(|error| unusable(error.to_string()))?;
        if checkpoint.origin != origin {
            return Err(unusable(format!("it is of {}, not of {origin}", checkpoint.origin)));
        }
        if newest.as_ref().is_none_or(|(size, _)| *size < checkpoint.size) {
            newest = Some((checkpoint.size, note));
        }
    }
    newest.ok_or_else(|| {
        let what = "no cosigned checkpoint of it is in the backup: give one with --note, as a witness has it; if none was ever signed, \
                    nothing has ended, and `sigillod restore` goes on from the backup";
        Failure::Refused(format!("{origin}: {what}"))
    })
}

fn kept(dir: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let newest =
        restore::newest_checkpoint(dir).map_err(|error| Failure::Unreadable(format!("{}: {error}", dir.display())))?;
    Ok(newest.map(|kept| kept.note))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut note = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(NOTE_MAX_BYTES).read_to_end(&mut note));
    read.map_err(|error| Failure::Unreadable(format!("{}: {error}", path.display())))?;
    Ok(note)
}
