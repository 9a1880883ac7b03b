//! A log as it is published: a folder of tiles under a checkpoint.

use std::{fs, path::Path};

use sigillo_model::{
    proof::Subtrees as _,
    tile::{TileKind, TilePath},
};

use crate::support::Log;

impl Log {
    /// Writes checkpoint and tiles of the log at this size.
    pub(crate) fn publish(&self, dir: &Path, size: u64) {
        let write = |path: &str, bytes: &[u8]| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("checkpoint", &self.request(size, size).checkpoint.to_bytes());
        for level in 0_u8.. {
            let kind = TileKind::Hashes(level);
            if kind.count(size) == 0 {
                break;
            }
            for tile in tiles(kind, size) {
                let hashes = places(tile).map(|place| self.subtree(8 * u32::from(level), place).unwrap());
                let bytes: Vec<u8> = hashes.flat_map(|hash| *hash.as_bytes()).collect();
                write(&tile.to_string(), &bytes);
            }
        }
        for tile in tiles(TileKind::Entries, size) {
            let entries = places(tile).map(|place| self.entry(place));
            let bytes: Vec<u8> = entries
                .flat_map(|entry| [&u16::try_from(entry.len()).unwrap().to_be_bytes(), &*entry].concat())
                .collect();
            write(&tile.to_string(), &bytes);
        }
    }
}

fn tiles(kind: TileKind, size: u64) -> impl Iterator<Item = TilePath> {
    (0..).map_while(move |index| TilePath::within(kind, index, size))
}

/// The places of its hashes or entries among their kind.
fn places(tile: TilePath) -> std::ops::Range<u64> {
    tile.index * 256..tile.index * 256 + u64::from(tile.width)
}
