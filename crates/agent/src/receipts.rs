//! The receipts that the agent keeps, as text: what the journal has signed for what this machine sent.
//!
//! `receipts` and, once it has been rotated, `receipts.1` hold the last ones; `receipts.open` holds, of each epoch, the newest
//! that no checkpoint which meets the policy has covered yet, for as long as that takes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sigillo_client::{Guard, files::replace};
use sigillo_model::{
    ids::{Origin, SourceId},
    receipt::SignedReceipt,
};
use sigillo_proto::{receipt::signed, v1};

use crate::AgentError;

/// Bytes of `receipts` from which on it is rotated.
const ROTATE_AT_BYTES: u64 = 4 << 20;
/// Bytes of `receipts.open` that are read at most.
const OPEN_MAX_BYTES: u64 = 16 << 20;

const FILE: &str = "receipts";
const OLDER: &str = "receipts.1";
const OPEN: &str = "receipts.open";

/// Receipts on their way into the files of a state directory.
#[derive(Debug)]
pub(crate) struct Receipts {
    dir: PathBuf,
    unsaved: String,
    /// What was written last of those that nothing has covered.
    open: String,
}

impl Receipts {
    /// Those of this state directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), unsaved: String::new(), open: String::new() }
    }

    /// The newest of each epoch that nothing had covered when the agent stopped.
    pub(crate) fn open(&self) -> Result<Vec<SignedReceipt>, AgentError> {
        let path = self.dir.join(OPEN);
        let wrong = |what: String| AgentError::State {
            path: path.clone(),
            what: format!(
                "{what}; move it away to go on without: those receipts are not held against the journal then"
            ),
        };
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Ok(metadata) if metadata.len() > OPEN_MAX_BYTES => return Err(wrong("is too long".into())),
            _ => fs::read_to_string(&path).map_err(|error| wrong(format!("can't be read: {error}")))?,
        };
        let (mut receipts, mut rest) = (Vec::new(), text.as_str());
        while !rest.is_empty() {
            let (receipt, after) = SignedReceipt::read(rest).map_err(|error| wrong(format!("is damaged: {error}")))?;
            receipts.push(receipt);
            rest = after;
        }
        Ok(receipts)
    }

    /// Takes a receipt of the journal that gave this welcome. One that is not signed is nothing to keep.
    pub(crate) fn take(&mut self, welcome: &v1::Welcome, receipt: &v1::Receipt) {
        let origin = Origin::new(welcome.origin.as_str()).ok();
        let signed = origin
            .zip(SourceId::from_slice(&welcome.source))
            .and_then(|(origin, source)| signed(receipt, &origin, source).ok().flatten());
        if let Some(signed) = signed {
            self.unsaved.push_str(&signed.to_text());
        }
    }

    /// What is to be written now, if there is anything; [`Unsaved::write`] does it.
    pub(crate) fn unsaved(&mut self, guard: Option<&Guard>) -> Option<Unsaved> {
        let open: Option<String> = guard.map(|guard| guard.uncovered().iter().map(SignedReceipt::to_text).collect());
        let open = open.filter(|open| *open != self.open);
        if self.unsaved.is_empty() && open.is_none() {
            return None;
        }
        if let Some(open) = &open {
            self.open.clone_from(open);
        }
        Some(Unsaved { dir: self.dir.clone(), new: std::mem::take(&mut self.unsaved), open })
    }
}

/// Receipts that are to be written.
#[derive(Debug)]
pub(crate) struct Unsaved {
    dir: PathBuf,
    new: String,
    open: Option<String>,
}

impl Unsaved {
    /// Writes them, durably.
    pub(crate) fn write(&self) -> io::Result<()> {
        if !self.new.is_empty() {
            let path = self.dir.join(FILE);
            if fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= ROTATE_AT_BYTES) {
                fs::rename(&path, self.dir.join(OLDER))?;
            }
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            file.write_all(self.new.as_bytes())?;
            file.sync_data()?;
            File::open(&self.dir)?.sync_all()?;
        }
        match &self.open {
            Some(open) => replace(&self.dir.join(OPEN), open.as_bytes()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../../tests/golden/v2/receipt/receipt.txt");

    fn message(epoch: u64) -> (v1::Welcome, v1::Receipt) {
        let golden = SignedReceipt::parse(GOLDEN).unwrap();
        let source = SourceId::from_name("web-1").as_bytes().to_vec().into();
        let welcome = v1::Welcome { origin: golden.origin.as_str().into(), source, ..v1::Welcome::default() };
        let receipt = v1::Receipt {
            epoch,
            count: 1,
            chain_hash: vec![1; 32].into(),
            batch_hash: vec![2; 32].into(),
            frame_note: golden.note.into(),
            ..v1::Receipt::default()
        };
        (welcome, receipt)
    }

    #[test]
    fn receipts_are_kept_in_bounded_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut receipts = Receipts::new(dir.path());
        for epoch in 0..30_000 {
            let (welcome, receipt) = message(epoch);
            receipts.take(&welcome, &receipt);
            if epoch % 1_000 == 0 {
                receipts.unsaved(None).unwrap().write().unwrap();
            }
        }
        receipts.unsaved(None).unwrap().write().unwrap();
        let (welcome, unsigned) = message(1);
        receipts.take(&welcome, &v1::Receipt { frame_note: Vec::new().into(), ..unsigned });
        assert!(receipts.unsaved(None).is_none());
        let text =
            fs::read_to_string(dir.path().join(OLDER)).unwrap() + &fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.len() < 12 << 20, "{}", text.len());
        let (mut rest, mut last) = (text.as_str(), None);
        while !rest.is_empty() {
            let (receipt, after) = SignedReceipt::read(rest).unwrap();
            (last, rest) = (Some(receipt.receipt.epoch.get()), after);
        }
        assert_eq!(last, Some(29_999));
    }

    #[test]
    fn open_receipts_are_read_again_and_not_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let receipts = Receipts::new(dir.path());
        assert!(receipts.open().unwrap().is_empty());
        let write = |text: String| Unsaved { dir: dir.path().to_owned(), new: String::new(), open: Some(text) }.write();
        write(GOLDEN.repeat(3)).unwrap();
        assert_eq!(receipts.open().unwrap().len(), 3);
        write(GOLDEN.replacen("v1", "v9", 1)).unwrap();
        assert!(receipts.open().unwrap_err().to_string().contains(OPEN));
    }
}
