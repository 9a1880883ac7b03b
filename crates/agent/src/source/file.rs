//! A file that grows, is renamed and made anew, or is copied and truncated.
//!
//! A file is known by its device, inode and first bytes: a new file may get the inode of a deleted one, and a truncated one
//! may have grown past the place at which we stood. What can't be noticed: a file that was rotated twice between two looks
//! (the one between is lost), and a truncated one that grew again with the very same first bytes.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use sigillo_client::unix_nanos;
use sigillo_model::record::Record;
use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use crate::{
    AgentError,
    line::{LINE_MAX_BYTES, Piece, Splitter},
    record::Maker,
    run::Mode,
    source::{Chunk, Feed, Mark, Marks},
    state::FilePlace,
};

const READ_BYTES: usize = 256 << 10;
/// Bytes by which a file is recognized.
const BEGINNING_BYTES: usize = 64;
/// How often a file is looked at that has nothing new.
const POLL: Duration = Duration::from_millis(200);
/// How long a renamed file is read on: its writer learns of the renaming later than we do.
const GRACE: Duration = Duration::from_secs(2);
/// Wait after an error.
const RETRY: Duration = Duration::from_secs(5);

/// By what a file is recognized.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct FileId {
    dev: u64,
    inode: u64,
    beginning: Vec<u8>,
}

type Item = (Record, Option<Mark>);

impl FileId {
    /// As it is remembered.
    fn place(&self, offset: u64, pieces: u32) -> FilePlace {
        let Self { dev, inode, beginning } = self;
        FilePlace { dev: *dev, inode: *inode, offset, pieces, beginning: hex::encode(beginning) }
    }

    fn is_inode_of(&self, metadata: &Metadata) -> bool {
        (self.dev, self.inode) == (metadata.dev(), metadata.ino())
    }
}

/// Follows a file for ever, or to its present end.
pub(crate) async fn follow(
    path: PathBuf,
    maker: Maker,
    marks: Marks,
    mode: Mode,
    feed: Feed,
) -> Result<(), AgentError> {
    let key = Arc::from(path.to_string_lossy());
    let place = marks.get(&key).and_then(|mark| match serde_json::from_slice(mark) {
        Ok(Mark::File(place)) => Some(place),
        _ => None,
    });
    let grace = if mode == Mode::Once { Duration::ZERO } else { GRACE };
    let mut follower = Follower::new(path, maker, place, grace);
    loop {
        let read = spawn_blocking(move || {
            let mut items = follower.read();
            if mode == Mode::Once && items.as_ref().is_ok_and(Vec::is_empty) {
                items = Ok(follower.finish());
            }
            (follower, items)
        });
        let Ok((back, items)) = read.await else { return Ok(()) };
        follower = back;
        let failed = |source| AgentError::Source { name: follower.path.display().to_string(), source };
        let wait = match items {
            Ok(items) if items.is_empty() && mode == Mode::Once => return Ok(()),
            Ok(items) if items.is_empty() => POLL,
            Ok(items) => {
                for chunk in Chunk::cut(&key, items) {
                    if !feed.hand_over(chunk).await {
                        return Ok(());
                    }
                }
                continue;
            }
            Err(error) if mode == Mode::Once => return Err(failed(error)),
            Err(error) => {
                warn!(path = %follower.path.display(), %error, "file can't be read; trying again");
                RETRY
            }
        };
        sleep(wait).await;
    }
}

/// A file being followed.
#[derive(Debug)]
struct Follower {
    path: PathBuf,
    maker: Maker,
    place: Option<FilePlace>,
    grace: Duration,
    open: Option<Open>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    file: File,
    id: Arc<FileId>,
    /// Bytes read.
    read: u64,
    /// Bytes that were handed over as lines.
    done: u64,
    splitter: Splitter,
    /// Since when the path leads to another file.
    superseded: Option<Instant>,
}

impl Follower {
    fn new(path: PathBuf, maker: Maker, place: Option<FilePlace>, grace: Duration) -> Self {
        Self { path, maker, place, grace, open: None, buffer: vec![0; READ_BYTES] }
    }

    /// The next lines; none when there are none now.
    fn read(&mut self) -> io::Result<Vec<Item>> {
        loop {
            if self.open.is_none() {
                self.open = self.find()?;
            }
            let Some(open) = &mut self.open else { return Ok(Vec::new()) };
            if !open.is_same_content()? {
                info!(path = %self.path.display(), "file was truncated; reading it from its beginning");
                let rest = open.truncated();
                if !rest.is_empty() {
                    return Ok(items(&self.maker, rest));
                }
            }
            let count = open.file.read_at(&mut self.buffer, open.read)?;
            if count > 0 {
                let pieces = open.take(self.buffer.get(..count).unwrap_or_default());
                if pieces.is_empty() {
                    continue;
                }
                return Ok(items(&self.maker, pieces));
            }
            match open.successor(&self.path, self.grace)? {
                None => return Ok(Vec::new()),
                Some(next) => {
                    info!(path = %self.path.display(), "file was replaced; reading the new one");
                    let rest = open.rest();
                    *open = next;
                    if !rest.is_empty() {
                        return Ok(items(&self.maker, rest));
                    }
                }
            }
        }
    }

    /// What is left without a line end.
    fn finish(&mut self) -> Vec<Item> {
        self.open.as_mut().map(|open| items(&self.maker, open.rest())).unwrap_or_default()
    }

    /// The file to begin with: the one that we stood in, wherever it was renamed to, or else the one of that name.
    fn find(&mut self) -> io::Result<Option<Open>> {
        let current = match File::open(&self.path) {
            Ok(file) => Open::new(file, None)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Forgotten only when it was used: an error that passes must neither lose lines nor read them twice.
        let Some(place) = self.place.clone() else { return Ok(Some(current)) };
        if (place.dev, place.inode) == (current.id.dev, current.id.inode) {
            let resumed = Open::new(current.file.try_clone()?, Some(&place))?;
            if resumed.is_same_content()? {
                self.place = None;
                return Ok(Some(resumed));
            }
        } else if let Some(resumed) = renamed(&self.path, &place)? {
            info!(path = %self.path.display(), "file was rotated while the agent was away; reading the old one to its end");
            self.place = None;
            return Ok(Some(resumed));
        }
        warn!(
            path = %self.path.display(), offset = place.offset,
            "the file that was being read is gone: lines at its end may be lost; reading the new one from its beginning"
        );
        self.place = None;
        Ok(Some(current))
    }
}

impl Open {
    fn new(file: File, place: Option<&FilePlace>) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (offset, pieces) = place.map_or((0, 0), |place| (place.offset, place.pieces));
        let mut beginning = place.and_then(|place| hex::decode(&place.beginning).ok()).unwrap_or_default();
        // Of what will be read again, the beginning is learned again: it grows only where reading goes on.
        beginning.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(Self {
            file,
            id: Arc::new(FileId { dev: metadata.dev(), inode: metadata.ino(), beginning }),
            read: offset,
            done: offset,
            splitter: Splitter::new(LINE_MAX_BYTES, pieces),
            superseded: None,
        })
    }

    /// Whether the file still holds what we have read of it, as far as can be told cheaply.
    fn is_same_content(&self) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.read {
            return Ok(false);
        }
        let mut bytes = [0; BEGINNING_BYTES];
        let Some(bytes) = bytes.get_mut(..self.id.beginning.len()) else { return Ok(false) };
        match self.file.read_exact_at(bytes, 0) {
            Ok(()) => Ok(*bytes == *self.id.beginning),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins anew after a truncation; gives what was left without a line end.
    fn truncated(&mut self) -> Vec<(Piece, Mark)> {
        let rest = self.splitter.finish();
        (self.read, self.done) = (0, 0);
        self.id = Arc::new(FileId { beginning: Vec::new(), ..*self.id });
        rest.map(|piece| (piece, self.mark())).into_iter().collect()
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<(Piece, Mark)> {
        self.superseded = None;
        let known = self.id.beginning.len();
        if known < BEGINNING_BYTES && self.read == known as u64 {
            let mut beginning = self.id.beginning.clone();
            beginning.extend(bytes.iter().take(BEGINNING_BYTES - known));
            self.id = Arc::new(FileId { beginning, ..*self.id });
        }
        self.read += bytes.len() as u64;
        self.splitter.push(bytes);
        let mut pieces = Vec::new();
        while let Some(piece) = self.splitter.next_piece() {
            self.done += piece.consumed;
            pieces.push((piece, self.mark()));
        }
        pieces
    }

    fn rest(&mut self) -> Vec<(Piece, Mark)> {
        let piece = self.splitter.finish();
        self.done = self.read;
        piece.map(|piece| (piece, self.mark())).into_iter().collect()
    }

    /// The file that has taken this one's name, once this one has had its time.
    fn successor(&mut self, path: &Path, grace: Duration) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            // Renamed, and nothing there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.id.is_inode_of(&file.metadata()?) {
            self.superseded = None;
            return Ok(None);
        }
        if self.superseded.get_or_insert_with(Instant::now).elapsed() < grace {
            return Ok(None);
        }
        Self::new(file, None).map(Some)
    }

    fn mark(&self) -> Mark {
        Mark::File(self.id.place(self.done, self.splitter.pieces()))
    }
}

fn items(maker: &Maker, pieces: Vec<(Piece, Mark)>) -> Vec<Item> {
    let observed = unix_nanos();
    pieces.into_iter().map(|(piece, mark)| (maker.line(piece, observed), Some(mark))).collect()
}

/// The file of `place` under another name beside `path`, as log rotation leaves it.
fn renamed(path: &Path, place: &FilePlace) -> io::Result<Option<Open>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    for entry in fs::read_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            continue;
        }
        // Removed since it was listed.
        let Ok(metadata) = entry.metadata() else { continue };
        if (metadata.dev(), metadata.ino()) == (place.dev, place.inode) {
            let open = Open::new(File::open(entry.path())?, Some(place))?;
            return Ok(open.is_same_content()?.then_some(open));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
