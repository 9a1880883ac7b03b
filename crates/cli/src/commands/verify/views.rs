//! What others hold against the journal: the trust file, remembered checkpoints, the witnesses' views.

use std::{path::Path, time::Duration};

use sha2::{Digest, Sha256};
use sigillo_client::Guard;
use sigillo_http::{Link, Roots, Url};
use sigillo_model::{
    audit::{Holder, Shown},
    note::{NOTE_MAX_BYTES, Note},
    policy::{POLICY_MAX_BYTES, Policy},
};

use super::{disk, memory::Memory};
use crate::failure::Failure;

/// Most time for a witness's answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a sender's file of its remembered checkpoint begins with; the note follows an empty line.
const REMEMBERED: &[u8] = b"sigillo remembered v1\n";
/// Bytes of the lines before the note in such a file.
const REMEMBERED_LINES: usize = 64;

/// Reads a trust file, which names one journal; its origin.
pub(super) fn policy(path: &Path) -> Result<(Policy, String), Failure> {
    let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("trust file {}: {what}", path.display()));
    let bytes = disk::read(path, POLICY_MAX_BYTES).map_err(|error| wrong(&error))?;
    let policy = Policy::parse(&bytes).map_err(|error| wrong(&error))?;
    let origin = match policy.logs() {
        [] => return Err(wrong(&"it names no log: add the `log` line that the journal's operator gives")),
        [first, more @ ..] if more.iter().all(|log| log.key.name() == first.key.name()) => first.key.name().to_owned(),
        _ => return Err(wrong(&"it names several logs: give each journal a trust file of its own")),
    };
    Ok((policy, origin))
}

/// Reads a checkpoint from a file: a note as it was published, or what `sigillo-agent` remembers.
pub(super) fn from_file(path: &Path, by: Holder, origin: &str) -> Result<Shown, Failure> {
    let wrong = |what: &dyn std::fmt::Display| {
        Failure::Unreadable(format!("the checkpoint {} can't be used: {what}", path.display()))
    };
    let bytes = disk::read(path, NOTE_MAX_BYTES + REMEMBERED_LINES).map_err(|error| wrong(&error))?;
    let note = match bytes.strip_prefix(REMEMBERED) {
        // Of a damaged note no signature holds.
        Some(rest) => {
            let start = rest.windows(2).position(|pair| pair == b"\n\n").map_or(rest.len(), |at| at + 2);
            rest.get(start..).unwrap_or_default()
        }
        None => &bytes,
    };
    read(note, by, origin).map_err(|what| wrong(&what))
}

/// Reads a note that states something about this journal.
pub(super) fn read(bytes: &[u8], by: Holder, origin: &str) -> Result<Shown, String> {
    let note = Note::parse(bytes).map_err(|error| error.to_string())?;
    let shown = Shown::new(note, by).map_err(|error| error.to_string())?;
    let of = &shown.checkpoint().origin;
    if of == origin { Ok(shown) } else { Err(format!("it is of the log {of}, the trust file is for {origin}")) }
}

/// The checkpoint that this account remembers of the journal of a connection.
pub(super) fn of_account(guard: Option<&Guard>, origin: &str) -> Option<Shown> {
    read(&guard?.remembered(), Holder::Remembered("of this account".to_owned()), origin).ok()
}

/// Where checkpoints that others hold are to be had.
#[derive(Debug)]
pub(super) struct Views {
    origin: String,
    remembered: Vec<std::path::PathBuf>,
    memory: Option<Memory>,
    places: Vec<(Holder, Place)>,
}

#[derive(Debug)]
enum Place {
    File(std::path::PathBuf),
    /// A connection, and what to get there.
    Link(Box<Link>, String),
}

/// What was had.
#[derive(Debug, Default)]
pub(super) struct Had {
    pub(super) shown: Vec<Shown>,
    /// Views that were not had, and why.
    pub(super) missing: Vec<String>,
}

impl Views {
    /// Remembered checkpoints: single files, and those of a memory.
    pub(super) fn new(origin: &str, remembered: &[std::path::PathBuf], memory: Option<Memory>) -> Self {
        Self { origin: origin.to_owned(), remembered: remembered.to_vec(), memory, places: Vec::new() }
    }

    /// Asks each witness of the trust file that has an address, too.
    pub(super) fn ask_witnesses(&mut self, policy: &Policy, roots: Option<&Roots>) -> Result<(), Failure> {
        for witness in policy.witnesses() {
            let Some(url) = witness.url.as_ref() else { continue };
            self.ask(Holder::Witness(witness.name.to_string()), &url.to_string(), roots)?;
        }
        Ok(())
    }

    /// Looks into a witness's view, too: the address of a witness's prefix, or a file.
    pub(super) fn look_at(&mut self, place: &str, roots: Option<&Roots>) -> Result<(), Failure> {
        if place.contains("://") {
            return self.ask(Holder::View(place.to_owned()), place, roots);
        }
        self.places.push((Holder::View(place.to_owned()), Place::File(place.into())));
        Ok(())
    }

    fn ask(&mut self, by: Holder, url: &str, roots: Option<&Roots>) -> Result<(), Failure> {
        let usage = |error: sigillo_http::HttpError| {
            Failure::Usage(format!(
                "{by}: {error}. Name authorities with --witness-ca, or leave witnesses out with --no-witness-view"
            ))
        };
        let link = Url::parse(url).and_then(|url| Link::new(url, roots.cloned(), PATIENCE)).map_err(usage)?;
        // The read side of the witness: its newest checkpoint of a log, by the hash of the log's origin.
        let resource = format!("checkpoint/{}", hex::encode(Sha256::digest(&self.origin)));
        self.places.push((by, Place::Link(Box::new(link), resource)));
        Ok(())
    }

    /// The accepted checkpoints' memory.
    pub(super) fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    /// Reads what is remembered and asks for all views. A witness that gives none is told about; a file that can't be read ends it.
    pub(super) async fn gather(&mut self) -> Result<Had, Failure> {
        let mut had = Had::default();
        for path in &self.remembered {
            had.shown.push(from_file(path, Holder::Remembered(path.display().to_string()), &self.origin)?);
        }
        if let Some(memory) = &self.memory {
            for path in memory.files()? {
                had.shown.push(from_file(&path, Holder::Remembered(path.display().to_string()), &self.origin)?);
            }
        }
        for (by, place) in &mut self.places {
            match place {
                Place::File(path) => had.shown.push(from_file(path, by.clone(), &self.origin)?),
                Place::Link(link, resource) => match view(link, resource, by, &self.origin).await {
                    Ok(shown) => had.shown.push(shown),
                    Err(what) => had.missing.push(format!("{by} was not had: {what}")),
                },
            }
        }
        Ok(had)
    }
}

async fn view(link: &mut Link, resource: &str, by: &Holder, origin: &str) -> Result<Shown, String> {
    let answer = link.get(resource, NOTE_MAX_BYTES).await.map_err(|error| error.to_string())?;
    match answer.status {
        200 => read(&answer.body, by.clone(), origin),
        404 => Err("it knows no checkpoint of this log".to_owned()),
        status => Err(format!("it answers with status {status}")),
    }
}

/// The checkpoint that the server published last, as it lies beside a database. It is derived: if it can't be read it says nothing.
pub(super) fn published(dir: &Path, origin: &str) -> Option<Shown> {
    let bytes = disk::read(&dir.join("checkpoint"), NOTE_MAX_BYTES).ok()?;
    read(&bytes, Holder::Server, origin).ok()
}
