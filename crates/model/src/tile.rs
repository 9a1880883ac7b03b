//! Tiles: how the tree and its entries are cut into files, as the C2SP specification tlog-tiles lays them out.

use std::fmt;

use crate::text;

/// Levels of the tree between one level of tiles and the next.
pub const TILE_HEIGHT: u32 = 8;
/// Hashes of a full tile.
pub const TILE_WIDTH: u16 = 256;
/// The greatest level that a path may name.
const LEVEL_MAX: u8 = 63;
/// Bytes of a path at most: seven groups of digits, a level and a width.
const PATH_MAX_BYTES: usize = 64;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of the tree; at level L each is the root of 256^L leaves.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

impl TileKind {
    /// How many hashes (or entries) of this kind a tree of `size` leaves has.
    pub fn count(self, size: u64) -> u64 {
        match self {
            Self::Hashes(level) => size.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0),
            Self::Entries => size,
        }
    }
}

/// Names a tile: `tile/<level or entries>/<index>[.p/<width>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    /// What it holds.
    pub kind: TileKind,
    /// Its place among its kind.
    pub index: u64,
    /// How many hashes or entries it holds: 1 to 256; fewer than 256 make a *partial* tile.
    pub width: u16,
}

impl TilePath {
    /// The tile of this kind and index as a tree of `size` leaves has it; `None` if it has none.
    pub fn within(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let first = index.checked_mul(u64::from(TILE_WIDTH))?;
        let width = kind.count(size).checked_sub(first).filter(|width| *width > 0)?;
        let width = u16::try_from(width).unwrap_or(TILE_WIDTH).min(TILE_WIDTH);
        Some(Self { kind, index, width })
    }

    /// Reads a path; only the spelling that [`fmt::Display`] writes is taken.
    pub fn parse(path: &str) -> Option<Self> {
        if path.len() > PATH_MAX_BYTES {
            return None;
        }
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(
                text::decimal(level).and_then(|level| u8::try_from(level).ok()).filter(|level| *level <= LEVEL_MAX)?,
            ),
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((index, width)) => (index, u16::try_from(text::decimal(width)?).ok()?),
        };
        let mut number = 0_u64;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            number = number.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Self { kind, index: number, width };
        (1..=TILE_WIDTH).contains(&width).then_some(tile).filter(|tile| tile.to_string() == path)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1_000];
        let mut rest = self.index / 1_000;
        while rest > 0 {
            groups.push(rest % 1_000);
            rest /= 1_000;
        }
        for (place, group) in groups.iter().enumerate().rev() {
            if place > 0 { write!(f, "x{group:03}/")? } else { write!(f, "{group:03}")? }
        }
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = TilePath { kind: TileKind::Hashes(0), index: 1_234_067, width: 256 };
        assert_eq!(tile.to_string(), "tile/0/x001/x234/067");
        let tile = TilePath { kind: TileKind::Entries, index: 5, width: 112 };
        assert_eq!(tile.to_string(), "tile/entries/005.p/112");
    }

    #[test]
    fn a_size_has_the_tiles_that_the_specification_counts() {
        let width = |kind, index| TilePath::within(kind, index, 70_000).map(|tile| tile.width);
        assert_eq!(width(TileKind::Hashes(0), 272), Some(256));
        assert_eq!(width(TileKind::Hashes(0), 273), Some(112));
        assert_eq!(width(TileKind::Hashes(0), 274), None);
        assert_eq!((width(TileKind::Hashes(1), 0), width(TileKind::Hashes(1), 1)), (Some(256), Some(17)));
        assert_eq!((width(TileKind::Hashes(2), 0), width(TileKind::Hashes(2), 1)), (Some(1), None));
        assert_eq!(width(TileKind::Hashes(3), 0), None);
        assert_eq!(width(TileKind::Entries, 273), Some(112));
        let of_256 = |level| TilePath::within(TileKind::Hashes(level), 0, 256).map(|tile| tile.width);
        assert_eq!((of_256(0), of_256(1), of_256(2)), (Some(256), Some(1), None));
        assert_eq!(TilePath::within(TileKind::Hashes(63), 0, u64::MAX), None);
        assert_eq!(TilePath::within(TileKind::Hashes(0), u64::MAX, u64::MAX), None);
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in [
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/x000/001",
            "tile/0/001/x002",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/x001/",
            "tile/0/+01",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000/",
            "/tile/0/000",
            "tile/entry/000",
            "tile/0/../000",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(TilePath::parse(bad), None, "{bad}");
        }
        assert!(TilePath::parse("tile/0/x018/x446/x744/x073/x709/x551/615.p/255").is_some());
    }

    proptest! {
        #[test]
        fn paths_are_read_as_written(level in 0_u8..=64, index: u64, shift in 0_u32..64, width in 1_u16..=256) {
            let kind = if level == 64 { TileKind::Entries } else { TileKind::Hashes(level) };
            let tile = TilePath { kind, index: index >> shift, width };
            prop_assert_eq!(TilePath::parse(&tile.to_string()), Some(tile));
        }

        #[test]
        fn no_path_breaks_the_reader(path in "tile/(entries|[0-9]{1,3})/[x0-9/.p]{0,50}") {
            if let Some(tile) = TilePath::parse(&path) {
                prop_assert_eq!(tile.to_string(), path);
            }
        }
    }
}
