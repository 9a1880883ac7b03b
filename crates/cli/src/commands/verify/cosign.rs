//! The auditor's own signature under a checkpoint: it has walked every record.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use sigillo_client::files;
use sigillo_model::{
    audit::Judged,
    note::{KeyKind, Note, SigningKey},
};

use crate::failure::Failure;

/// Bytes of a key's file at most.
const KEY_MAX_BYTES: u64 = 4_096;

/// The auditor's key, and where the note goes.
#[derive(Debug)]
pub(super) struct Cosigner {
    key: SigningKey,
    out: PathBuf,
    /// Of the checkpoint that was cosigned last.
    done: Option<String>,
}

impl Cosigner {
    /// Loads the key. A file that others may read is refused.
    pub(super) fn load(path: &Path, out: &Path) -> Result<Self, Failure> {
        let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("auditor's key {}: {what}", path.display()));
        let mode = fs::metadata(path).map_err(|error| wrong(&error))?.mode();
        if mode & 0o077 != 0 {
            let what = format!(
                "others may read or write it (mode {:o}): run `chmod 600` on it, or make a new one",
                mode & 0o777
            );
            return Err(wrong(&what));
        }
        let mut text = zeroize::Zeroizing::new(String::new());
        let file = File::open(path).map_err(|error| wrong(&error))?;
        file.take(KEY_MAX_BYTES).read_to_string(&mut text).map_err(|error| wrong(&error))?;
        let key = SigningKey::parse(text.trim_end_matches('\n')).map_err(|error| wrong(&error))?;
        if key.verifier().kind() != KeyKind::Auditor {
            let what = format!(
                "it is a {} key: make an auditor's with `sigillo key new --kind auditor`, and have it added to the trust file",
                key.verifier().kind()
            );
            return Err(wrong(&what));
        }
        Ok(Self { key, out: out.to_owned(), done: None })
    }

    /// Adds the signature to a checkpoint that was walked whole, and writes the note. Does nothing if it was the last one already.
    pub(super) fn cosign(&mut self, judged: &Judged) -> Result<(), Failure> {
        if self.done.as_deref() == Some(judged.note.text()) {
            return Ok(());
        }
        let cannot =
            |error: &dyn std::fmt::Display| Failure::Unreadable(format!("the checkpoint can't be cosigned: {error}"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| cannot(&error))?.as_secs();
        let text = judged.note.text();
        let signature = self.key.cosign(text, now).map_err(|error| cannot(&error))?;
        let verifier = self.key.verifier();
        let is_mine = |name: &str, id| name == verifier.name() && id == verifier.id();
        let others = judged.note.signatures().iter().filter(|other| !is_mine(other.name(), other.id()));
        let signatures = others.cloned().chain([signature]).collect();
        let note = Note::new(text, signatures).map_err(|error| cannot(&error))?;
        files::replace(&self.out, &note.to_bytes())?;
        self.done = Some(text.to_owned());
        Ok(())
    }
}
