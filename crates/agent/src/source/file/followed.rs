//! A path that is followed through all files that have its name one after the other.

mod changes;

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use sigillo_client::unix_nanos;
use sigillo_model::record::Record;
use tracing::warn;

use super::{
    content::{self, Content, FileId},
    cut::{End, Rule, cut},
    done::Done,
    generation::{Generation, Step},
    loss::{Loss, Reason},
    mark::{self, Mark},
    print::HEAD_BYTES,
    siblings::newest,
};
use crate::{
    line::Piece,
    record::Maker,
    source::{
        Chunk, Meter,
        renames::{is_absent, steady},
    },
};

/// Files of one name that are open at once. More are opened when the oldest was read.
const GENERATIONS_MAX: usize = 64;
/// Renamed files that are held open when they were read.
const LATE_MAX: usize = 2;

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For lines in a file that has lost its name: its writer learns of that later than we do.
    pub(super) grace: Duration,
    /// For a file that is not there, but was the last time: its disk may not be mounted yet.
    pub(super) absent: Duration,
    /// For another file of the name, when this one still exists under another name.
    pub(super) moved: Duration,
    /// For more in a renamed file that was read to its end.
    pub(super) late: Duration,
    /// Whether what has no end is taken when everything else was.
    pub(super) to_the_end: bool,
}

/// What is known when names are looked at.
pub(super) struct Look<'a> {
    pub(super) now: Duration,
    pub(super) done: &'a Done,
    /// Files that are read under other names.
    pub(super) taken: &'a dyn Fn(&FileId) -> bool,
}

/// Where reading begins.
#[derive(Debug)]
pub(super) struct Begins {
    /// Where an agent before us stood.
    pub(super) remembered: Option<Mark>,
    /// Otherwise at the end, or else at the beginning.
    pub(super) from_end: bool,
    /// Whether the path is waited for also when nothing has it.
    pub(super) is_named: bool,
}

#[derive(Debug)]
pub(super) struct Followed {
    pub(super) path: PathBuf,
    pub(super) key: Arc<str>,
    maker: Maker,
    pub(super) meter: Arc<Meter>,
    rule: Arc<Rule>,
    /// Oldest first; the last one has the name, or had it last.
    generations: VecDeque<Generation>,
    /// Read to their end, and still open: their writers may not have learned that they were renamed.
    late: VecDeque<Generation>,
    /// Where it was left by an agent before us, until the file was looked for.
    remembered: Option<Mark>,
    from_end: bool,
    is_named: bool,
    absent_since: Option<Duration>,
    /// The greatest time of what was called like a generation while there was nothing of the name.
    absent_began: Option<u64>,
    /// Records that come before all others.
    pending: Vec<Record>,
    /// The mark has changed otherwise than by reading.
    marked: bool,
    /// Numbers of watches that are of no use any more.
    pub(super) unwatched: Vec<i32>,
}

impl Followed {
    pub(super) fn new(path: PathBuf, maker: Maker, meter: Arc<Meter>, rule: Arc<Rule>, begins: Begins) -> Self {
        Self {
            key: Arc::from(mark::key(&path)),
            path,
            maker,
            meter,
            rule,
            generations: VecDeque::new(),
            late: VecDeque::new(),
            remembered: begins.remembered,
            from_end: begins.from_end,
            is_named: begins.is_named,
            absent_since: None,
            absent_began: None,
            pending: Vec::new(),
            marked: false,
            unwatched: Vec::new(),
        }
    }

    pub(super) fn generations(&mut self) -> impl Iterator<Item = &mut Generation> {
        self.generations.iter_mut()
    }

    pub(super) fn has(&self, id: &FileId) -> bool {
        self.generations.iter().any(|generation| generation.mark.id.is(id))
    }

    /// Leaves renamed files to those who read them under their new names.
    pub(super) fn give_up(&mut self, is_read: impl Fn(&FileId) -> bool) {
        // Their watch stays: the kernel has one for each file, and it goes over to them.
        self.late.retain(|late| !is_read(&late.mark.id));
    }

    /// Bytes that are there and were not read.
    pub(super) fn lag_bytes(&self) -> u64 {
        let lag = |generation: &Generation| {
            let length = generation.metadata().ok().flatten().map_or(0, |metadata| metadata.len());
            length.saturating_sub(generation.mark.offset)
        };
        self.generations.iter().map(lag).sum()
    }

    pub(super) fn is_remembered(&self) -> bool {
        self.remembered.is_some()
    }

    /// Whether there is nothing to read, nor to hand over, nor to look for, since so long.
    pub(super) fn is_idle(&self, now: Duration, wait: Duration) -> bool {
        let has_nothing = self.generations.is_empty() && self.remembered.is_none() && self.pending.is_empty();
        has_nothing
            && !self.marked
            && self.late.is_empty()
            && self.absent_since.is_some_and(|since| now.saturating_sub(since) >= wait)
    }

    /// When something is due without anything being written.
    pub(super) fn due(&self, patience: &Patience) -> Option<Duration> {
        let front = self.generations.front()?;
        let superseded = front.superseded.filter(|_| self.generations.len() > 1).map(|since| since + patience.grace);
        let quiet = front.quiet_at().filter(|_| self.rule.joins());
        superseded.into_iter().chain(quiet).min()
    }

    /// Looks which file has the name.
    pub(super) fn refresh(&mut self, look: &Look<'_>, patience: &Patience, buffer: &mut BytesMut) -> io::Result<()> {
        steady(|| self.look(look, patience, buffer))
    }

    fn look(&mut self, look: &Look<'_>, patience: &Patience, buffer: &mut BytesMut) -> io::Result<()> {
        // Those that wait until the oldest is read.
        let is_unread = |waiting: &&mut Generation| waiting.mark.offset == 0 && !waiting.is_rotated;
        for waiting in self.generations.iter_mut().skip(1).filter(is_unread) {
            waiting.glimpse()?;
        }
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() && !(look.taken)(&FileId::of(&metadata)) => metadata,
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {
                let since = *self.absent_since.get_or_insert(look.now);
                if let Some(mark) = self.remembered.clone()
                    && look.now.saturating_sub(since) >= patience.absent
                {
                    self.resume(&mark, None, look)?;
                    self.remembered = None;
                }
                if self.generations.is_empty() && self.remembered.is_none() && self.absent_began.is_none() {
                    self.absent_began = Some(newest(&changes::found_beside(&self.path)?));
                    self.marked = self.is_named;
                }
                return Ok(());
            }
        };
        self.absent_since = None;
        if let Some(last) = self.generations.back_mut().filter(|last| last.mark.id.is(&FileId::of(&metadata))) {
            last.superseded = None;
            return Ok(());
        }
        // Gone or moved between two calls: the next look will tell.
        let Some((file, metadata)) = content::open(&self.path)? else { return Ok(()) };
        let id = FileId::of(&metadata);
        if self.has(&id) || self.generations.len() >= GENERATIONS_MAX {
            return Ok(());
        }
        if let Some(mut back) =
            self.late.iter().position(|late| late.mark.id.is(&id)).and_then(|at| self.late.remove(at))
        {
            // Renamed, and back again.
            (back.superseded, back.is_rotated) = (None, false);
            if let Some(last) = self.generations.back_mut() {
                last.superseded.get_or_insert(look.now);
            }
            self.add([back]);
            return Ok(());
        }
        let current = (Content::Plain(file), id);
        if let Some(mark) = self.remembered.clone() {
            self.resume(&mark, Some(current), look)?;
            self.remembered = None;
        } else if self.generations.is_empty() {
            self.begin(current, look, buffer)?;
        } else {
            self.rotated(current, look)?;
        }
        Ok(())
    }

    /// What is next; `None` when there is nothing now.
    pub(super) fn next(
        &mut self,
        buffer: &mut BytesMut,
        now: Duration,
        patience: &Patience,
        done: &mut Done,
    ) -> io::Result<Option<Chunk>> {
        loop {
            if !self.pending.is_empty() || self.marked {
                self.marked = false;
                let records = std::mem::take(&mut self.pending);
                return Ok(Some(self.chunk(records)));
            }
            // Seen before copies are looked for: what is cut to nothing after that is noticed when it is read.
            if let Some(front) = self.generations.front_mut().filter(|front| front.is_unseen()) {
                front.glimpse()?;
            }
            steady(|| self.find_copies_of_unread(now, done))?;
            let closing = self.is_closing(now, patience)?;
            let is_last = self.generations.len() == 1;
            let Some(front) = self.generations.front_mut() else {
                return Ok(self.next_late(buffer, now, patience, done));
            };
            let before = front.mark.offset;
            let end = if closing { End::Final } else { End::Open };
            let step = if front.is_unseen() {
                Ok(Step::Nothing)
            } else {
                front.step(&self.maker, &self.rule, end, buffer, now)
            };
            match step {
                Ok(Step::Records(records)) => {
                    let (lines, bytes) = (records.len() as u64, front.mark.offset - before);
                    self.meter.read(lines, bytes, unix_nanos());
                    return Ok(Some(self.chunk(records)));
                }
                Ok(Step::Changed) => steady(|| self.truncated(now, done))?,
                Ok(Step::Nothing) if closing && !(is_last && patience.to_the_end) => self.close(done),
                Ok(Step::Nothing) => return Ok(self.next_late(buffer, now, patience, done)),
                Err(error) if front.content.plain().is_none() => {
                    warn!(path = %front.real.display(), %error, "compressed file is damaged");
                    let from = front.mark.offset;
                    self.close(done);
                    self.declare(from, Reason::Damaged);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing more is expected in the oldest file.
    fn is_closing(&self, now: Duration, patience: &Patience) -> io::Result<bool> {
        let Some(front) = self.generations.front() else { return Ok(false) };
        let waited = |since: Option<Duration>, wait| since.is_some_and(|since| now.saturating_sub(since) >= wait);
        let is_packed = front.content.plain().is_none();
        if let Some(next) = self.generations.get(1) {
            // A writer that was not told goes on in the old file for ever, and the new one stays empty.
            let goes_on = self.generations.len() > 2 || next.metadata()?.is_none_or(|next| next.len() > 0);
            return Ok(is_packed || goes_on && waited(front.superseded, patience.grace));
        }
        let is_deleted = front.metadata()?.is_some_and(|metadata| metadata.nlink() == 0);
        let wait = if is_deleted { patience.grace } else { patience.moved };
        Ok(patience.to_the_end || waited(self.absent_since, wait))
    }

    fn close(&mut self, done: &mut Done) {
        let Some(old) = self.generations.pop_front() else { return };
        // What is written to it late does not make it a new generation.
        let written = old.metadata().ok().flatten().map_or(0, |metadata| content::written(&metadata));
        if let Some(next) = self.generations.front_mut() {
            next.mark.began = next.mark.began.map(|began| began.max(written));
        } else {
            self.marked = true;
            self.absent_began = old.mark.began.map(|began| began.max(written));
        }
        done.add(old.mark.clone());
        if old.content.plain().is_some() {
            self.late.push_back(old);
        } else {
            self.unwatched.extend(old.watch);
        }
        if self.late.len() > LATE_MAX {
            self.unwatched.extend(self.late.pop_front().and_then(|oldest| oldest.watch));
        }
    }

    /// What was written to files that had been read to their end. It is remembered with the place in the one that is read now.
    fn next_late(
        &mut self,
        buffer: &mut BytesMut,
        now: Duration,
        patience: &Patience,
        done: &mut Done,
    ) -> Option<Chunk> {
        for index in 0..self.late.len() {
            let late = self.late.get_mut(index)?;
            let is_over = late.is_quiet(now, patience.late);
            let (before, end) = (late.mark.offset, if is_over { End::Final } else { End::Open });
            match late.step(&self.maker, &self.rule, end, buffer, now) {
                Ok(Step::Records(records)) => {
                    done.add(late.mark.clone());
                    self.meter.read(records.len() as u64, late.mark.offset - before, unix_nanos());
                    return Some(self.chunk(records));
                }
                Ok(Step::Nothing) if !is_over => {}
                // Over, or used for something else, or unreadable.
                _ => {
                    self.unwatched.extend(self.late.remove(index).and_then(|late| late.watch));
                    // The others have their turn at the next look.
                    return None;
                }
            }
        }
        None
    }

    /// What was seen behind the place in a file that no longer has it; how many bytes that is.
    fn take_partial(&mut self, old: &Generation) -> u64 {
        let (mut pieces, mut rest) = (old.mark.pieces, old.partial.clone());
        // A glimpse ends where it likes, and what it cuts is no line.
        let end = if old.mark.offset == 0 && rest.len() == HEAD_BYTES { End::Open } else { End::Final };
        while let Some(found) = cut(&rest, &mut pieces, &self.rule, end) {
            let (bytes, consumed) = (rest.slice(found.range), found.next as u64);
            self.pending.push(self.maker.line(Piece { bytes, fragment: found.fragment, consumed }, unix_nanos()));
            rest = rest.slice(found.next..);
        }
        (old.partial.len() - rest.len()) as u64
    }

    fn declare(&mut self, from: u64, reason: Reason) {
        let loss = Loss { from, reason };
        warn!(path = %self.path.display(), from, "lines may be lost: {}", reason.words());
        self.meter.missing(0);
        self.pending.push(loss.record(&self.maker, &self.path));
    }

    fn chunk(&self, records: Vec<Record>) -> Chunk {
        let seen = |front: &Generation| Some(front.seen).filter(|seen| *seen > front.mark.offset).unwrap_or_default();
        let mark = match (self.generations.front(), self.absent_began) {
            (Some(front), _) => Some(Mark { seen: seen(front), late: self.late_marks(), ..front.mark.clone() }),
            (None, Some(began)) if self.is_named => Some(Mark { late: self.late_marks(), ..Mark::absent(began) }),
            (None, _) => None,
        };
        let mark = mark.map(|mark| mark.to_bytes());
        Chunk::new(&self.key, records, Some(mark.unwrap_or_default()))
    }

    fn late_marks(&self) -> Vec<Mark> {
        self.late.iter().map(|late| Mark { real: None, ..late.mark.clone() }).collect()
    }
}

/// Whether a path leads to a file through a symbolic link.
pub(super) fn is_symlink(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}
