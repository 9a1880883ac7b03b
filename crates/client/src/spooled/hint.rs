//! What was acknowledged, in a file beside the spool. The journal itself knows better, as long as it is the same one: this is for the
//! day on which another one takes its place, which must not get again what the old one has. It is not synced: an older one, or none,
//! makes records come twice then, and is good enough.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sigillo_model::ids::{Epoch, SourceSeq};
use sigillo_spool::Identity;
use tracing::debug;

const HEADER: &str = "sigillo acknowledged v1";
/// How often it is written.
const EVERY: Duration = Duration::from_secs(1);
/// Bytes of a file that is read.
const MAX_BYTES: u64 = 1_024;

pub(super) struct Hint {
    path: PathBuf,
    written: Option<Instant>,
}

impl Hint {
    /// Of the spool in this folder.
    pub(super) fn new(spool: &Path) -> Self {
        Self { path: spool.with_extension("acknowledged"), written: None }
    }

    /// What was acknowledged of this epoch of this source, if that is known.
    pub(super) fn load(&self, identity: &Identity, epoch: Epoch) -> Option<SourceSeq> {
        fs::metadata(&self.path).ok().filter(|file| file.len() <= MAX_BYTES)?;
        let text = fs::read_to_string(&self.path).ok()?;
        let next = text.lines().nth(3)?.parse().ok().map(SourceSeq::new)?;
        (text == content(identity, epoch, next)).then_some(next)
    }

    /// Writes it, if that was not done just now, or if it must be.
    pub(super) fn keep(&mut self, identity: &Identity, epoch: Epoch, next: SourceSeq, must: bool) {
        if !must && self.written.is_some_and(|written| written.elapsed() < EVERY) {
            return;
        }
        self.written = Some(Instant::now());
        let new = self.path.with_extension("acknowledged.new");
        let write = || fs::write(&new, content(identity, epoch, next)).and_then(|()| fs::rename(&new, &self.path));
        if let Err(error) = write() {
            debug!(path = %self.path.display(), %error, "can't be written");
        }
    }
}

fn content(identity: &Identity, epoch: Epoch, next: SourceSeq) -> String {
    format!("{HEADER}\n{} {}\n{epoch}\n{next}\n", identity.origin, identity.source)
}

#[cfg(test)]
mod tests {
    use sigillo_model::ids::{Origin, SourceId};

    use super::*;

    #[test]
    fn only_what_it_says_of_this_epoch_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut hint = Hint::new(&dir.path().join("spool"));
        let of = |source| Identity { origin: Origin::new("a").unwrap(), source: SourceId::from_name(source) };
        assert_eq!(hint.load(&of("x"), Epoch::new(7)), None);
        hint.keep(&of("x"), Epoch::new(7), SourceSeq::new(9), false);
        hint.keep(&of("x"), Epoch::new(7), SourceSeq::new(10), false);
        assert_eq!(hint.load(&of("x"), Epoch::new(7)), Some(SourceSeq::new(9)), "not every time");
        hint.keep(&of("x"), Epoch::new(7), SourceSeq::new(11), true);
        assert_eq!(hint.load(&of("x"), Epoch::new(7)), Some(SourceSeq::new(11)));
        assert_eq!(hint.load(&of("y"), Epoch::new(7)), None);
        assert_eq!(hint.load(&of("x"), Epoch::new(8)), None);
        fs::write(dir.path().join("spool.acknowledged"), "sigillo acknowledged v1\n\n\n9").unwrap();
        assert_eq!(hint.load(&of("x"), Epoch::new(7)), None);
    }
}
