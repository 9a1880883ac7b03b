//! What is lawful, done through the journal itself. A verifier must call all of it intact.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha12Rng;
use sigillo_journal::{Journal, Options, restore};
use sigillo_model::{
    class::Class,
    entry::Gone,
    ids::ReceiptTime,
    note::SigningKey,
    record::Part,
    rotation::Rotation,
    statement::{Act, Erasure},
};

use super::{
    super::image::copy_linked,
    disk,
    image::{Image, SECOND_NS, grow, origin, state},
    keys::signed_by,
};
use crate::database::Database;

/// What is done to a copy of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Untouched,
    Compacted,
    Reopened,
    Erased,
    Purged,
    Rotated,
    Restored,
    Grown,
}

pub(super) const CONTROLS: [(&str, Control); 8] = [
    ("untouched", Control::Untouched),
    ("compacted", Control::Compacted),
    ("opened and closed", Control::Reopened),
    ("erased by two officers' order", Control::Erased),
    ("purged when due", Control::Purged),
    ("the log's key changed by the recovery key", Control::Rotated),
    ("backed up and restored", Control::Restored),
    ("grown under new checkpoints", Control::Grown),
];

impl Control {
    /// Does it in `dir`.
    pub(super) fn act(self, image: &Image, dir: &Path, random: &mut ChaCha12Rng) -> Result<()> {
        copy_linked(&image.dir, dir, None)?;
        match self {
            Self::Untouched => return Ok(()),
            Self::Compacted => {
                let db = Database::open(dir)?;
                db.compact()?;
                return db.close();
            }
            Self::Reopened | Self::Erased | Self::Purged | Self::Rotated | Self::Restored | Self::Grown => {}
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let journal = Journal::open(&Options::new(dir, origin()?))?.journal;
            let mut open = Open { image, dir, journal: &journal, random };
            match self {
                Self::Erased => open.erase().await?,
                Self::Purged => open.purge().await?,
                Self::Rotated => open.rotate().await?,
                Self::Grown => open.grow(&image.keys.log).await?,
                Self::Restored => open.back_up()?,
                Self::Untouched | Self::Compacted | Self::Reopened => {}
            }
            Ok::<_, anyhow::Error>(journal.close().await?)
        })?;
        if self == Self::Restored { restore_in_place(dir) } else { Ok(()) }
    }
}

/// An open copy.
struct Open<'a> {
    image: &'a Image,
    dir: &'a Path,
    journal: &'a Journal,
    random: &'a mut ChaCha12Rng,
}

impl Open<'_> {
    fn next_time(&self) -> ReceiptTime {
        ReceiptTime::new(self.journal.head().receipt_time.get() + SECOND_NS)
    }

    async fn state(&mut self, text: Vec<u8>) -> Result<u64> {
        state(self.journal, text, self.next_time(), self.random.random()).await
    }

    async fn removed(&self, statement: u64) -> Result<()> {
        let report = self.journal.removal(statement).await?.context("nothing is remembered of this removal")?;
        ensure!(report.records > 0, "nothing was removed");
        Ok(())
    }

    async fn erase(&mut self) -> Result<()> {
        let pieces: Vec<usize> = (0..self.image.pieces.len()).filter(|at| !self.image.pieces[*at].is_own()).collect();
        let count = self.random.random_range(1..6);
        let mut targets = Vec::new();
        for at in pieces.choose_multiple(self.random, count) {
            let index = self.random.random_range(0..self.image.pieces[*at].len());
            let gone = if self.random.random() { Gone::RECORD } else { Gone::part(Part::Content) };
            targets.push((self.image.starts[*at] + index, gone));
        }
        targets.sort_unstable_by_key(|(seq, _)| *seq);
        let act = Act::Erase(Erasure { basis: "request of a customer".to_owned(), targets });
        let statement = self.state(self.image.keys.lawful_order(&act)?).await?;
        self.removed(statement).await
    }

    async fn purge(&mut self) -> Result<()> {
        let class = Class::Service.retention();
        let purge = self.journal.reader().plan_purge(class, self.next_time())?.context("nothing is due")?;
        let statement = self.state(purge.text(self.journal.origin()).into_bytes()).await?;
        self.removed(statement).await
    }

    /// More records, and a checkpoint that this key and a witness sign.
    async fn grow(&mut self, log: &SigningKey) -> Result<()> {
        for _ in 0..self.random.random_range(1..20) {
            grow(self.journal, self.random, self.next_time()).await?;
        }
        let keys = &self.image.keys;
        let head = self.journal.head();
        let text = keys.checkpoint(head.size, head.root);
        let mut note = signed_by(log, &text)?;
        note.add(keys.witness.cosign(&text, self.image.now)?)?;
        self.journal.keep_checkpoint(head.size, note.to_bytes()).await?;
        disk::publish(self.dir, &keys.origin, head.size, &head.root, &note)
    }

    async fn rotate(&mut self) -> Result<()> {
        let keys = &self.image.keys;
        let size = self.journal.head().size;
        let rotation = Rotation { origin: keys.origin.clone(), size, key: keys.next_log.verifier().clone() };
        self.state(signed_by(&keys.recovery, &rotation.text())?.to_bytes()).await?;
        self.grow(&keys.next_log).await
    }

    fn back_up(&self) -> Result<()> {
        self.journal.backup(&self.dir.with_extension("backup"), self.next_time().get(), |_| ())?;
        Ok(())
    }
}

/// Loses the journal, and restores it from its backup.
fn restore_in_place(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir)?;
    let backup = dir.with_extension("backup");
    let verified = restore::verify_backup(&backup, |_| ())?;
    let plan = restore::plan(verified, dir, &origin()?)?;
    plan.restore(None, ReceiptTime::new(0), "drill", ("restored", b"by the drill\n"), |_| ())?;
    Ok(fs::remove_dir_all(backup)?)
}
