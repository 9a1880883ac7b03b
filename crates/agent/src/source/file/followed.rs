//! A path that is followed through all files that have its name one after the other.

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
use tracing::{info, warn};

use super::{
    content::{self, Content, FileId},
    cut::{End, Rule, cut},
    done::Done,
    generation::{Generation, Step},
    loss::{Loss, Reason},
    mark::{self, Mark},
    print::Fit,
    siblings::{Found, Sibling, compare, find, newest, siblings},
};
use crate::{
    line::Piece,
    record::Maker,
    source::{Chunk, Meter},
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
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() && !(look.taken)(&FileId::of(&metadata)) => metadata,
            Err(error) if !content::is_absent(&error) => return Err(error),
            _ => {
                let since = *self.absent_since.get_or_insert(look.now);
                if let Some(mark) = self.remembered.clone()
                    && look.now.saturating_sub(since) >= patience.absent
                {
                    self.resume(&mark, None, look)?;
                    self.remembered = None;
                }
                if self.generations.is_empty() && self.remembered.is_none() && self.absent_began.is_none() {
                    self.absent_began = Some(newest(&found_beside(&self.path)?));
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
            self.push(back);
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

    /// Opens a file that was never read, or under another name.
    fn begin(
        &mut self,
        (mut content, id): (Content, FileId),
        look: &Look<'_>,
        buffer: &mut BytesMut,
    ) -> io::Result<()> {
        let real = fs::canonicalize(&self.path)?;
        let all = siblings(&real)?;
        if let Some(began) = self.absent_began.take() {
            // They came and went between two looks.
            let newer = after(Some(began), &all);
            self.push_unread(&real, &all, &newer, look, Some(id))?;
        }
        let began = newest(&all);
        let generation = match look.done.of(&id) {
            Some(mark) if compare(&mut content, mark)? == Fit::Same => {
                Generation::new(content, mark.clone(), real, look.now)
            }
            _ => {
                let mut generation = Generation::unread(content, id, &real, Some(began), look.now);
                if self.from_end {
                    generation.skip_to_end(buffer)?;
                }
                generation
            }
        };
        self.push(generation);
        // So that an agent after us knows what was there before.
        self.marked = true;
        Ok(())
    }

    /// Finds what was read the last time, and all that came after it.
    fn resume(&mut self, mark: &Mark, mut current: Option<(Content, FileId)>, look: &Look<'_>) -> io::Result<()> {
        let is_same = current.as_ref().is_some_and(|(_, id)| id.is(&mark.id));
        if let Some((content, id)) = &mut current
            && (is_same && !is_shorter(content, mark)? || mark.is_certain())
            && compare(content, mark)? == Fit::Same
        {
            let real = fs::canonicalize(&self.path)?;
            let mark = Mark { id: *id, ..mark.clone() };
            self.push(Generation::new(
                current.take().map(|(content, _)| content).ok_or(io::ErrorKind::NotFound)?,
                mark,
                real,
                look.now,
            ));
            return Ok(());
        }
        let real = mark.real.clone().or_else(|| fs::canonicalize(&self.path).ok()).unwrap_or_else(|| self.path.clone());
        // Where a symbolic link has led.
        let moved = if is_same || real == self.path { None } else { content::open(&real)? };
        if let Some((file, metadata)) = moved
            && FileId::of(&metadata).is(&mark.id)
            && !(look.taken)(&mark.id)
        {
            let mut generation = Generation::new(Content::Plain(file), mark.clone(), real.clone(), look.now);
            if compare(&mut generation.content, mark)? == Fit::Same {
                generation.superseded = Some(look.now);
                self.push(generation);
                self.push_current(current, &siblings(&real)?, look.now)?;
                return Ok(());
            }
        }
        let all = found_beside(&real)?;
        let newer: Vec<usize> = match find(mark, &all, is_same)? {
            Found::Whole(index, content, id) => {
                info!(path = %self.path.display(), "file was rotated while the agent was away; reading the old one to its end");
                let mut generation = Generation::new(content, Mark { id, ..mark.clone() }, real.clone(), look.now);
                generation.superseded = Some(look.now);
                self.push(generation);
                (index + 1..all.len()).collect()
            }
            Found::Less(index) => {
                self.declare(mark.offset, None, Reason::TruncatedWhileAway);
                (index + 1..all.len()).collect()
            }
            Found::Nowhere => {
                let newer = after(mark.began, &all);
                // What nothing was read of may be one of the newer ones.
                if mark.offset > 0 || mark.seen > 0 && newer.is_empty() {
                    let reason = if is_same { Reason::TruncatedWhileAway } else { Reason::GoneWhileAway };
                    self.declare(mark.offset, Some(mark.seen).filter(|seen| *seen > mark.offset), reason);
                }
                newer
            }
        };
        self.push_unread(&real, &all, &newer, look, current.as_ref().map(|(_, id)| *id))?;
        self.push_current(current, &all, look.now)?;
        if self.generations.is_empty() {
            self.absent_began = Some(newest(&all));
        }
        Ok(())
    }

    /// Another file has the name: reads what was there in between, and then that one.
    fn rotated(&mut self, current: (Content, FileId), look: &Look<'_>) -> io::Result<()> {
        let Some(last) = self.generations.back_mut() else { return Ok(()) };
        info!(path = %self.path.display(), "file was replaced; reading the new one when the old one is read");
        let (mark, real) = (last.mark.clone(), last.real.clone());
        let is_truncated = compare(&mut last.content, &mark)? != Fit::Same;
        let all = found_beside(&real)?;
        let is_earlier = if is_truncated { before(last, &all)? } else { earlier(last, &all)? };
        last.superseded.get_or_insert(look.now);
        let own = packed([&*last], &all)?.pop();
        let packed = packed(&self.generations, &all)?;
        let place = match all.iter().position(|sibling| sibling.id.is(&mark.id)) {
            Some(index) => Some(index),
            // Compressed since, or removed.
            None if own.is_some() => own,
            None if is_truncated => match find(&mark, &all, true)? {
                Found::Whole(index, ..) | Found::Less(index) => Some(index),
                Found::Nowhere => None,
            },
            None => None,
        };
        let mut newer = place.map_or_else(|| after(mark.began, &all), |index| (index + 1..all.len()).collect());
        let same =
            self.generations.back().map(|last| copies(last, &all, &newer, false)).transpose()?.unwrap_or_default();
        newer.retain(|index| ![&is_earlier, &packed, &same].iter().any(|known| known.contains(index)));
        self.push_unread(&real, &all, &newer, look, Some(current.1))?;
        self.push_current(Some(current), &all, look.now)
    }

    /// The file that is being read holds something else: looks for a copy of what it held, and reads it anew.
    fn truncated(&mut self, now: Duration, done: &Done) -> io::Result<()> {
        let Some(front) = self.generations.front() else { return Ok(()) };
        let all = found_beside(&front.real)?;
        let found = if front.mark.offset == 0 { Found::Nowhere } else { find(&front.mark, &all, true)? };
        let packed = packed(&self.generations, &all)?;
        let has_name = self.has_name();
        let Some(old) = self.generations.pop_front() else { return Ok(()) };
        info!(path = %self.path.display(), "file was truncated; reading it from its beginning");
        let others = std::mem::take(&mut self.generations);
        let mut newer: Vec<usize> = match found {
            Found::Whole(index, content, id) => {
                let mut copy = Generation::new(content, Mark { id, ..old.mark.clone() }, old.real.clone(), now);
                copy.superseded = Some(Duration::ZERO);
                self.push(copy);
                (index + 1..all.len()).collect()
            }
            found => {
                self.take_partial(&old);
                let from = old.mark.offset + old.partial.len() as u64;
                self.declare(from, Some(old.seen).filter(|seen| *seen > from), Reason::Truncated);
                match found {
                    Found::Less(index) => (index + 1..all.len()).collect(),
                    _ => after(old.mark.began, &all),
                }
            }
        };
        newer.retain(|index| !packed.contains(index));
        let before = if has_name { (0..all.len()).collect() } else { before(&old, &all)? };
        newer.retain(|index| before.contains(index));
        let began = newest(before.iter().filter_map(|index| all.get(*index)));
        let is_other = |id: &FileId| others.iter().any(|other| other.mark.id.is(id));
        let look = Look { now, done, taken: &is_other };
        self.push_unread(&old.real, &all, &newer, &look, Some(old.mark.id))?;
        let mut again = Generation::unread(old.content, old.mark.id, &old.real, Some(began), now);
        (again.superseded, again.watch) = (old.superseded, old.watch);
        again.glimpse()?;
        self.push(again);
        self.generations.extend(others);
        Ok(())
    }

    /// A file of which nothing was read can't be seen to hold something else now. But there are copies then that were not there before.
    fn find_copies_of_unread(&mut self, now: Duration, done: &Done) -> io::Result<()> {
        let Some(front) = self.generations.front() else { return Ok(()) };
        let is_empty = |metadata: fs::Metadata| metadata.len() == 0;
        let has_name = self.has_name();
        let is_untouched = has_name && front.partial.is_empty() && front.metadata()?.is_none_or(is_empty);
        if front.mark.offset > 0 || front.is_rotated || is_untouched {
            return Ok(());
        }
        let (mark, real) = (front.mark.clone(), front.real.clone());
        let all = found_beside(&real)?;
        // What has lost its name may be compressed beside it, and others may have come after it.
        let mut newer = if has_name { after(mark.began, &all) } else { earlier(front, &all)? };
        if has_name {
            let same = copies(front, &all, &newer, true)?;
            newer.retain(|index| !same.contains(index));
        }
        let packed = packed(&self.generations, &all)?;
        newer.retain(|index| !packed.contains(index));
        if newer.is_empty() {
            return Ok(());
        }
        let began = if has_name { newest(&all) } else { newest(newer.iter().filter_map(|index| all.get(*index))) };
        let others = std::mem::take(&mut self.generations);
        let is_other = |id: &FileId| others.iter().any(|other| other.mark.id.is(id));
        let found = self.push_unread(&real, &all, &newer, &Look { now, done, taken: &is_other }, None);
        let has_found = !self.generations.is_empty();
        self.generations.extend(others);
        if has_found && let Some(front) = self.generations.iter_mut().find(|generation| generation.mark.id == mark.id) {
            (front.partial, front.mark.began) = (bytes::Bytes::new(), front.mark.began.max(Some(began)));
        }
        found
    }

    /// Whether the oldest file still has the name.
    fn has_name(&self) -> bool {
        let is_there = |front: &Generation| front.superseded.is_none() && self.absent_since.is_none();
        self.generations.len() == 1 && self.generations.front().is_some_and(is_there)
    }

    /// Opens generations that nobody has read, oldest first.
    fn push_unread(
        &mut self,
        real: &Path,
        all: &[Sibling],
        newer: &[usize],
        look: &Look<'_>,
        current: Option<FileId>,
    ) -> io::Result<()> {
        let older = all.iter().enumerate().filter(|(index, _)| !newer.contains(index)).map(|(_, sibling)| sibling);
        let mut began = newest(older);
        for sibling in newer.iter().filter_map(|index| all.get(*index)).filter(|sibling| sibling.is_generation()) {
            let is_current = current.is_some_and(|current| current.is(&sibling.id));
            if is_current || (look.taken)(&sibling.id) || self.has(&sibling.id) || look.done.of(&sibling.id).is_some() {
                continue;
            }
            if let Some((content, id)) = sibling.open()? {
                info!(path = %sibling.path.display(), "reading a file that was rotated unseen");
                let mut generation = Generation::unread(content, id, real, Some(began), look.now);
                (generation.superseded, generation.is_rotated) = (Some(look.now), true);
                self.push(generation);
            }
            began = began.max(newest([sibling]));
        }
        Ok(())
    }

    fn push_current(&mut self, current: Option<(Content, FileId)>, all: &[Sibling], now: Duration) -> io::Result<()> {
        if let Some((content, id)) = current {
            let real = fs::canonicalize(&self.path)?;
            let mut generation = Generation::unread(content, id, &real, Some(newest(all)), now);
            generation.glimpse()?;
            self.push(generation);
        }
        Ok(())
    }

    fn push(&mut self, mut generation: Generation) {
        generation.mark.real = Some(&generation.real).filter(|real| **real != self.path && self.is_link()).cloned();
        self.generations.push_back(generation);
    }

    fn is_link(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_symlink())
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
            self.find_copies_of_unread(now, done)?;
            let closing = self.is_closing(now, patience)?;
            let is_last = self.generations.len() == 1;
            let Some(front) = self.generations.front_mut() else {
                return Ok(self.next_late(buffer, now, patience, done));
            };
            let before = front.mark.offset;
            let end = if closing { End::Final } else { End::Open };
            let step = front.step(&self.maker, &self.rule, end, buffer, now);
            match step {
                Ok(Step::Records(records)) => {
                    let (lines, bytes) = (records.len() as u64, front.mark.offset - before);
                    self.meter.read(lines, bytes, unix_nanos());
                    return Ok(Some(self.chunk(records)));
                }
                Ok(Step::Changed) => self.truncated(now, done)?,
                Ok(Step::Nothing) if closing && !(is_last && patience.to_the_end) => self.close(done),
                Ok(Step::Nothing) => return Ok(self.next_late(buffer, now, patience, done)),
                Err(error) if front.content.plain().is_none() => {
                    warn!(path = %front.real.display(), %error, "compressed file is damaged");
                    let from = front.mark.offset;
                    self.close(done);
                    self.declare(from, None, Reason::Damaged);
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

    /// What was written to files that had been read to their end. It is remembered with the place in the one that is read now: an agent after
    /// us does not look there again, so nothing comes twice.
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

    /// The unfinished line of a file that no longer has it.
    fn take_partial(&mut self, old: &Generation) {
        let (mut pieces, mut rest) = (old.mark.pieces, old.partial.clone());
        while let Some(found) = cut(&rest, &mut pieces, &self.rule, End::Final) {
            let (bytes, consumed) = (rest.slice(found.range), found.next as u64);
            self.pending.push(self.maker.line(Piece { bytes, fragment: found.fragment, consumed }, unix_nanos()));
            rest = rest.slice(found.next..);
        }
    }

    fn declare(&mut self, from: u64, to: Option<u64>, reason: Reason) {
        let loss = Loss { from, to, reason };
        warn!(path = %self.path.display(), from, to, "lines may be lost: {}", reason.words());
        self.meter.missing(0);
        self.pending.push(loss.record(&self.maker, &self.path));
    }

    fn chunk(&self, records: Vec<Record>) -> Chunk {
        let seen = |front: &Generation| Some(front.seen).filter(|seen| *seen > front.mark.offset).unwrap_or_default();
        let mark = match (self.generations.front(), self.absent_began) {
            (Some(front), _) => Some(Mark { seen: seen(front), ..front.mark.clone() }),
            (None, Some(began)) if self.is_named => Some(Mark::absent(began)),
            (None, _) => None,
        };
        let mark = mark.map(|mark| mark.to_bytes());
        Chunk::new(&self.key, records, Some(mark.unwrap_or_default()))
    }
}

/// Whether a file of which little was read holds less than was seen of it.
fn is_shorter(content: &Content, mark: &Mark) -> io::Result<bool> {
    let length = content.plain().map(fs::File::metadata).transpose()?.map_or(0, |metadata| metadata.len());
    Ok(!mark.is_certain() && length < mark.seen)
}

/// Siblings that were made after the reading of a file began.
fn after(began: Option<u64>, all: &[Sibling]) -> Vec<usize> {
    let is_after = |sibling: &Sibling| began.is_some_and(|began| sibling.is_after(began));
    all.iter().enumerate().filter(|(_, sibling)| is_after(sibling)).map(|(index, _)| index).collect()
}

/// Siblings that are copies of what an open file held before, if nothing of it was read.
fn earlier(generation: &Generation, all: &[Sibling]) -> io::Result<Vec<usize>> {
    if generation.mark.offset > 0 || generation.is_rotated {
        return Ok(Vec::new());
    }
    let (after, packed) = (after(generation.mark.began, all), packed([generation], all)?);
    let mut before = before(generation, all)?;
    before.retain(|index| after.contains(index) && !packed.contains(index));
    Ok(before)
}

/// Siblings that were made before the last writing to an open file.
fn before(generation: &Generation, all: &[Sibling]) -> io::Result<Vec<usize>> {
    let mut before = Vec::new();
    for (index, sibling) in all.iter().enumerate() {
        if sibling.is_earlier_than(&generation.content)? {
            before.push(index);
        }
    }
    Ok(before)
}

/// Siblings that are compressed forms of open files.
fn packed<'a>(open: impl IntoIterator<Item = &'a Generation>, all: &[Sibling]) -> io::Result<Vec<usize>> {
    let mut packed = Vec::new();
    for generation in open {
        for (index, sibling) in all.iter().enumerate() {
            if !packed.contains(&index) && sibling.is_packed_form_of(&generation.content)? {
                packed.push(index);
            }
        }
    }
    Ok(packed)
}

/// Those of some siblings that are copies of an open file.
fn copies(generation: &Generation, all: &[Sibling], some: &[usize], is_held: bool) -> io::Result<Vec<usize>> {
    let mut copies = Vec::new();
    for index in some {
        let Some(sibling) = all.get(*index) else { continue };
        if sibling.is_copy_of(&generation.content, is_held)? {
            copies.push(*index);
        }
    }
    Ok(copies)
}

/// Siblings, if there is a folder.
fn found_beside(path: &Path) -> io::Result<Vec<Sibling>> {
    match siblings(path) {
        Err(error) if content::is_absent(&error) => Ok(Vec::new()),
        all => all,
    }
}

/// Whether a path leads to a file through a symbolic link.
pub(super) fn is_symlink(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}
