//! Checkpoints that were accepted, one file each: all that an auditor needs to notice later that something was rewritten.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sigillo_client::files;
use sigillo_model::audit::Judged;

use crate::failure::Failure;

/// Files that are kept at most.
const FILES_MAX: usize = 64;
/// Of these, so many newest ones are left alone.
const NEWEST: usize = 16;
const EXTENSION: &str = ".checkpoint";
/// Digits of a size in a file's name, so that names sort by it.
const DIGITS: usize = 20;

/// A folder of accepted checkpoints.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    dir: PathBuf,
}

impl Memory {
    /// The folder, made if it is not there.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir)
            .map_err(|error| Failure::Usage(format!("folder {} can't be made: {error}", dir.display())))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The files, the smallest size first.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        Ok(self.sizes()?.into_iter().map(|size| self.path(size)).collect())
    }

    /// Remembers a checkpoint, and forgets some of the older ones if there are too many.
    pub(super) fn keep(&self, judged: &Judged) -> Result<(), Failure> {
        let (path, bytes) = (self.path(judged.checkpoint.size), judged.note.to_bytes());
        if fs::read(&path).is_ok_and(|known| known == bytes) {
            return Ok(());
        }
        files::replace(&path, &bytes)?;
        let mut sizes = self.sizes()?;
        let mut removed = false;
        while let Some(index) = superfluous(&sizes) {
            fs::remove_file(self.path(sizes.remove(index)))?;
            removed = true;
        }
        if removed {
            files::sync_folder(&self.dir.join("any"))?;
        }
        Ok(())
    }

    fn path(&self, size: u64) -> PathBuf {
        self.dir.join(format!("{size:0DIGITS$}{EXTENSION}"))
    }

    fn sizes(&self) -> io::Result<Vec<u64>> {
        let mut sizes = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(EXTENSION));
            sizes.extend(digits.filter(|digits| digits.len() == DIGITS).and_then(|digits| digits.parse::<u64>().ok()));
        }
        sizes.sort_unstable();
        Ok(sizes)
    }
}

/// Which of these ascending sizes to forget: so that the gaps grow with the distance from the newest. Never the first.
fn superfluous(sizes: &[u64]) -> Option<usize> {
    if sizes.len() <= FILES_MAX {
        return None;
    }
    let newest = *sizes.last()?;
    // The gap that would be left, in proportion to how far back it lies.
    let cost = |index: usize| {
        let (before, here, after) = (sizes.get(index - 1)?, sizes.get(index)?, sizes.get(index + 1)?);
        Some((u128::from(after - before) << 32) / u128::from(newest - here + 1))
    };
    (1..sizes.len() - NEWEST).min_by_key(|index| cost(*index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_grow_with_age_and_the_first_stays() {
        let mut sizes = Vec::new();
        for size in 1..=100_000_u64 {
            sizes.push(size);
            if let Some(index) = superfluous(&sizes) {
                sizes.remove(index);
            }
        }
        assert_eq!((sizes.len(), sizes[0]), (FILES_MAX, 1));
        assert_eq!(sizes[FILES_MAX - NEWEST..], (100_001 - NEWEST as u64..=100_000).collect::<Vec<_>>());
        // No stretch is forgotten: a gap is never larger than the way from its end to the newest, but for the first few.
        for pair in sizes.windows(2) {
            assert!(pair[1] - pair[0] <= (100_000 - pair[0]) / 2 + 1, "{pair:?} in {sizes:?}");
        }
    }
}
