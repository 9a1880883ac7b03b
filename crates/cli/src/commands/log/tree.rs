//! The mirrored tree on disk: read where it ends, grown by verified entries.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sigillo_model::{
    checkpoint::Checkpoint,
    ids::NodeHash,
    tile::{TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath},
    tree::{self, Frontier, RootBuilder},
};

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// Something does not lead to the root that was signed.
    #[error("{0}")]
    Altered(String),
    /// A file can't be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A folder of tiles.
pub(super) struct MirrorTree {
    dir: PathBuf,
    frontier: Frontier,
    /// The rightmost tile of each level while it is not full: its index and its hashes.
    open: BTreeMap<u8, (u64, Vec<NodeHash>)>,
    /// The rightmost bundle while it is not full.
    entries: Vec<u8>,
}

impl MirrorTree {
    /// The tree that the folder holds, which must be that of the checkpoint in it.
    pub(super) fn open(dir: &Path, checkpoint: &Checkpoint) -> Result<Self, TreeError> {
        fs::create_dir_all(dir)?;
        let stored = Stored { dir, size: checkpoint.size };
        let frontier = Frontier::rebuild(checkpoint.size, |height, index| stored.subtree(height, index))?;
        if frontier.root() != checkpoint.root {
            return Err(TreeError::Altered(format!(
                "the tiles in {} do not lead to the root of the checkpoint there: remove the folder and mirror anew",
                dir.display()
            )));
        }
        let mut open = BTreeMap::new();
        for level in 0..=63 {
            let count = TileKind::Hashes(level).count(checkpoint.size);
            if count == 0 {
                break;
            }
            if !count.is_multiple_of(u64::from(TILE_WIDTH)) {
                let index = count / u64::from(TILE_WIDTH);
                open.insert(level, (index, stored.tile(level, index)?));
            }
        }
        let partial = TilePath::within(TileKind::Entries, checkpoint.size / u64::from(TILE_WIDTH), checkpoint.size);
        let entries = match partial {
            Some(path) => stored.read(&path)?,
            None => Vec::new(),
        };
        Ok(Self { dir: dir.to_owned(), frontier, open, entries })
    }

    /// Number of entries.
    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Adds what is new in a bundle; it must begin with the entries of it that are here already.
    pub(super) fn add(&mut self, path: &TilePath, bundle: &[u8]) -> Result<(), TreeError> {
        let there = usize::try_from(self.size() % u64::from(TILE_WIDTH)).unwrap_or(0);
        let entries = split(bundle)
            .filter(|entries| entries.len() == usize::from(path.width))
            .ok_or_else(|| TreeError::Altered(format!("{path} does not hold {} entries", path.width)))?;
        if !bundle.starts_with(&self.entries) {
            return Err(TreeError::Altered(format!("{path} begins with other entries than those mirrored before")));
        }
        for entry in entries.iter().skip(there) {
            let mut completed = vec![(0, self.frontier.size(), tree::leaf(entry))];
            let leaf = tree::leaf(entry);
            self.frontier.push(leaf, |level, index, hash| completed.push((level, index, hash)));
            for (level, index, hash) in completed {
                self.put(level, index, hash)?;
            }
        }
        self.entries = bundle.to_vec();
        if path.width == TILE_WIDTH {
            self.write(path, bundle)?;
            self.entries.clear();
        }
        Ok(())
    }

    /// Adds a hash to its tile, which is written when it is full.
    fn put(&mut self, level: u8, index: u64, hash: NodeHash) -> Result<(), TreeError> {
        let (tile, hashes) = self.open.entry(level).or_insert_with(|| (index / u64::from(TILE_WIDTH), Vec::new()));
        hashes.push(hash);
        if hashes.len() == usize::from(TILE_WIDTH) {
            let path = TilePath { kind: TileKind::Hashes(level), index: *tile, width: TILE_WIDTH };
            let bytes = bytes(hashes);
            self.open.remove(&level);
            self.write(&path, &bytes)?;
        }
        Ok(())
    }

    /// Writes the partial tiles of the checkpoint's size, once all leads to its root; and makes all of it durable.
    pub(super) fn finish(self, checkpoint: &Checkpoint) -> Result<(), TreeError> {
        if self.frontier.root() != checkpoint.root {
            return Err(TreeError::Altered(format!(
                "the entries do not lead to the root of the checkpoint of {} records: they were altered, or it is of another \
                 history than the one mirrored before",
                checkpoint.size
            )));
        }
        for (level, (index, hashes)) in &self.open {
            let width = u16::try_from(hashes.len()).unwrap_or(TILE_WIDTH);
            self.write(&TilePath { kind: TileKind::Hashes(*level), index: *index, width }, &bytes(hashes))?;
        }
        let size = checkpoint.size;
        if let Some(path) = TilePath::within(TileKind::Entries, size / u64::from(TILE_WIDTH), size) {
            self.write(&path, &self.entries)?;
        }
        rustix::fs::syncfs(File::open(&self.dir)?).map_err(io::Error::from)?;
        Ok(())
    }

    fn write(&self, path: &TilePath, bytes: &[u8]) -> Result<(), TreeError> {
        let file = self.dir.join(path.to_string());
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let next = file.with_extension("next");
        fs::write(&next, bytes)?;
        fs::rename(&next, &file)?;
        if path.width == TILE_WIDTH {
            // Whoever needs a partial one finds it at the beginning of the full one.
            let partial = TilePath { width: 1, ..*path };
            let partial = self.dir.join(partial.to_string());
            if let Some(folder) = partial.parent()
                && let Err(error) = fs::remove_dir_all(folder)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Replaces a file in one step, and makes it durable.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, bytes)?;
    File::open(&next)?.sync_all()?;
    fs::rename(&next, path)?;
    File::open(path.parent().ok_or_else(|| io::Error::other("the file has no folder"))?)?.sync_all()
}

fn bytes(hashes: &[NodeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// The entries of a bundle: each a length of two bytes and so many bytes.
fn split(mut bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bundle = rest;
    }
    bundle.is_empty().then_some(entries)
}

/// What lies in the folder, of a tree of `size` leaves.
struct Stored<'a> {
    dir: &'a Path,
    size: u64,
}

impl Stored<'_> {
    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, TreeError> {
        let level = u8::try_from(height / TILE_HEIGHT).unwrap_or(u8::MAX);
        let first = index << (height % TILE_HEIGHT);
        let place = usize::try_from(first % u64::from(TILE_WIDTH)).unwrap_or(0);
        let mut root = RootBuilder::default();
        let tile = self.tile(level, first / u64::from(TILE_WIDTH))?;
        tile.iter().skip(place).take(1 << (height % TILE_HEIGHT)).for_each(|hash| root.push(*hash));
        Ok(root.root())
    }

    fn tile(&self, level: u8, index: u64) -> Result<Vec<NodeHash>, TreeError> {
        let missing = || TreeError::Altered(format!("a tree of {} records has no such tile", self.size));
        let path = TilePath::within(TileKind::Hashes(level), index, self.size).ok_or_else(missing)?;
        let bytes = self.read(&path)?;
        if bytes.len() != usize::from(path.width) * 32 {
            return Err(TreeError::Altered(format!("{path} in the folder has the wrong length")));
        }
        Ok(bytes.chunks(32).filter_map(NodeHash::from_slice).collect())
    }

    fn read(&self, path: &TilePath) -> Result<Vec<u8>, TreeError> {
        let full = TilePath { width: TILE_WIDTH, ..*path };
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => TreeError::Altered(format!(
                "{path} is missing in {}: remove the folder and mirror anew",
                self.dir.display()
            )),
            _ => error.into(),
        };
        match fs::read(self.dir.join(path.to_string())) {
            // A run that did not come to its end has filled the tile. What it adds is not vouched for; its beginning is that of the
            // partial one, or no tile could have been added to it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.width < TILE_WIDTH => {
                let bytes = fs::read(self.dir.join(full.to_string())).map_err(missing)?;
                beginning(path, bytes).ok_or_else(|| TreeError::Altered(format!("{full} in the folder is cut off")))
            }
            read => read.map_err(missing),
        }
    }
}

/// The beginning of a full tile: as many hashes or entries as `path` has.
fn beginning(path: &TilePath, mut full: Vec<u8>) -> Option<Vec<u8>> {
    let width = usize::from(path.width);
    let length = match path.kind {
        TileKind::Hashes(_) => width * 32,
        TileKind::Entries => split(&full)?.get(..width)?.iter().map(|entry| 2 + entry.len()).sum(),
    };
    (length <= full.len()).then(|| full.truncate(length))?;
    Some(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Vec<u8> {
        index.to_be_bytes().repeat(4)
    }

    /// The bundle of this index in a log of `size` entries; from entry `other` on they are others.
    fn bundle(index: u64, size: u64, other: u64) -> (TilePath, Vec<u8>) {
        let path = TilePath::within(TileKind::Entries, index, size).unwrap();
        let first = index * u64::from(TILE_WIDTH);
        let mut bytes = Vec::new();
        for index in first..first + u64::from(path.width) {
            bytes.extend(32_u16.to_be_bytes());
            bytes.extend(entry(if index < other { index } else { index + 1_000_000 }));
        }
        (path, bytes)
    }

    fn checkpoint(size: u64) -> Checkpoint {
        let mut root = RootBuilder::default();
        (0..size).for_each(|index| root.push(tree::leaf(&entry(index))));
        Checkpoint { origin: "log.example/1".into(), size, root: root.root() }
    }

    /// Grows the mirror of `old` to `size` as the command does.
    fn grow(dir: &Path, old: u64, size: u64, other: u64) -> Result<(), TreeError> {
        let mut tree = MirrorTree::open(dir, &checkpoint(old))?;
        assert_eq!(tree.size(), old);
        while tree.size() < size {
            let (path, bytes) = bundle(tree.size() / u64::from(TILE_WIDTH), size, other);
            tree.add(&path, &bytes)?;
        }
        tree.finish(&checkpoint(size))
    }

    #[test]
    fn a_log_that_lied_once_does_not_spoil_the_mirror() {
        let (dir, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        grow(dir.path(), 0, 300, u64::MAX).unwrap();
        for other in [301, 512, 600] {
            assert!(matches!(grow(dir.path(), 300, 700, other), Err(TreeError::Altered(_))), "{other}");
        }
        assert!(matches!(grow(dir.path(), 300, 700, 299), Err(TreeError::Altered(_))));
        grow(dir.path(), 300, 700, u64::MAX).unwrap();
        grow(whole.path(), 0, 700, u64::MAX).unwrap();
        for kind in [TileKind::Hashes(0), TileKind::Hashes(1), TileKind::Entries] {
            for path in (0..3).filter_map(|index| TilePath::within(kind, index, 700)) {
                let read = |dir: &Path| fs::read(dir.join(path.to_string())).unwrap();
                assert!(read(dir.path()) == read(whole.path()), "{path}");
            }
        }
    }

    #[test]
    fn bundles_of_other_numbers_or_lengths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes) = bundle(0, 5, u64::MAX);
        let mut tree = MirrorTree::open(dir.path(), &checkpoint(0)).unwrap();
        let longer = [bytes.as_slice(), &bytes[..34]].concat();
        for bad in [&bytes[..bytes.len() - 1], &bytes[..bytes.len() - 34], &longer, b"", b"\xff\xff"] {
            assert!(matches!(tree.add(&path, bad), Err(TreeError::Altered(_))));
        }
        tree.add(&path, &bytes).unwrap();
        tree.finish(&checkpoint(5)).unwrap();
    }
}
