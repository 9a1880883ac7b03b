//! What to do when a name leads to another file, or a file to other bytes.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::BytesMut;
use tracing::info;

use super::{Followed, Look};
use crate::source::{
    file::{
        content::{self, Content, FileId},
        done::Done,
        generation::Generation,
        loss::Reason,
        mark::Mark,
        print::Fit,
        siblings::{Found, Sibling, compare, find, newest, siblings},
    },
    renames::is_absent,
};

impl Followed {
    /// Opens a file that was never read, or under another name.
    pub(super) fn begin(
        &mut self,
        (mut content, id): (Content, FileId),
        look: &Look<'_>,
        buffer: &mut BytesMut,
    ) -> io::Result<()> {
        let real = fs::canonicalize(&self.path)?;
        let all = siblings(&real)?;
        // They came and went between two looks.
        let newer = self.absent_began.map_or_else(Vec::new, |began| after(Some(began), &all));
        let found = match look.done.of(&id) {
            Some(mark) if compare(&mut content, mark)? == Fit::Same => {
                let mut found = self.unread(&real, &all, &newer, look, Some(id))?;
                found.push(Generation::new(content, mark.clone(), real, look.now));
                found
            }
            _ => {
                let mut found = self.unread_and_current(&real, &all, newer, Some((content, id)), look)?;
                if let Some(last) = found.last_mut().filter(|_| self.from_end) {
                    last.skip_to_end(buffer)?;
                }
                found
            }
        };
        self.absent_began = None;
        self.add(found);
        // So that an agent after us knows what was there before.
        self.marked = true;
        Ok(())
    }

    /// Finds what was read the last time, and all that came after it.
    pub(super) fn resume(
        &mut self,
        mark: &Mark,
        mut current: Option<(Content, FileId)>,
        look: &Look<'_>,
    ) -> io::Result<()> {
        self.late = self.late_of(mark, current.as_ref().map(|(_, id)| *id), look)?;
        let mark = &Mark { late: Vec::new(), ..mark.clone() };
        let is_same = current.as_ref().is_some_and(|(_, id)| id.is(&mark.id));
        if let Some((content, id)) = &mut current
            && (is_same && !is_shorter(content, mark)? || mark.is_certain())
            && compare(content, mark)? == Fit::Same
        {
            let (mark, real) = (Mark { id: *id, ..mark.clone() }, fs::canonicalize(&self.path)?);
            self.add(current.take().map(|(content, _)| Generation::new(content, mark, real, look.now)));
            return Ok(());
        }
        let real = self.real_of(mark);
        // Where a symbolic link has led.
        let moved = if is_same || real == self.path { None } else { content::open(&real)? };
        if let Some((file, metadata)) = moved
            && FileId::of(&metadata).is(&mark.id)
            && !(look.taken)(&mark.id)
        {
            let mut generation = Generation::new(Content::Plain(file), mark.clone(), real.clone(), look.now);
            if compare(&mut generation.content, mark)? == Fit::Same {
                generation.superseded = Some(look.now);
                let new = self.unread_and_current(&real, &siblings(&real)?, Vec::new(), current, look)?;
                self.add([generation].into_iter().chain(new));
                return Ok(());
            }
        }
        let all = found_beside(&real)?;
        let (old, loss, newer): (_, _, Vec<usize>) = match find(mark, &all, is_same)? {
            Found::Whole(index, content, id) => {
                let mut old = Generation::new(content, Mark { id, ..mark.clone() }, real.clone(), look.now);
                old.superseded = Some(look.now);
                (Some(old), None, (index + 1..all.len()).collect())
            }
            Found::Less(index) => (None, Some(Reason::TruncatedWhileAway), (index + 1..all.len()).collect()),
            Found::Nowhere => {
                // It may hold something else since, and have lost its name then.
                let own = all.iter().position(|sibling| sibling.id.is(&mark.id)).unwrap_or(all.len());
                let mut newer = after(mark.began, &all);
                newer.retain(|index| *index < own);
                newer.extend(own..all.len());
                // What nothing was read of may be one of the newer ones.
                let is_lost = mark.offset > 0 || mark.seen > 0 && newer.is_empty();
                let reason = if is_same { Reason::TruncatedWhileAway } else { Reason::GoneWhileAway };
                // What was seen of it says nothing of its end: it may have grown since.
                (None, is_lost.then_some(reason), newer)
            }
        };
        let new = self.unread_and_current(&real, &all, newer, current, look)?;
        if old.is_some() {
            info!(path = %self.path.display(), "file was rotated while the agent was away; reading the old one to its end");
        }
        if let Some(reason) = loss {
            self.declare(mark.offset, reason);
        }
        self.add(old.into_iter().chain(new));
        if self.generations.is_empty() {
            self.absent_began = Some(newest(&all));
        }
        Ok(())
    }

    /// Renamed files whose writers may not have learned of that before an agent before us ended.
    fn late_of(&self, mark: &Mark, current: Option<FileId>, look: &Look<'_>) -> io::Result<VecDeque<Generation>> {
        let (real, mut found) = (self.real_of(mark), VecDeque::new());
        let all = if mark.late.is_empty() { Vec::new() } else { found_beside(&real)? };
        for late in &mark.late {
            let is_elsewhere = current.is_some_and(|id| id.is(&late.id)) || (look.taken)(&late.id);
            let sibling = all.iter().find(|sibling| sibling.id.is(&late.id) && !is_elsewhere);
            let Some((mut content, _)) = sibling.map(Sibling::open).transpose()? else { continue };
            if compare(&mut content, late)? == Fit::Same {
                found.push_back(Generation::new(content, late.clone(), real.clone(), look.now));
            }
        }
        Ok(found)
    }

    /// Where a file is or was.
    fn real_of(&self, mark: &Mark) -> PathBuf {
        mark.real.clone().or_else(|| fs::canonicalize(&self.path).ok()).unwrap_or_else(|| self.path.clone())
    }

    /// Another file has the name: reads what was there in between, and then that one.
    pub(super) fn rotated(&mut self, current: (Content, FileId), look: &Look<'_>) -> io::Result<()> {
        let Some(last) = self.generations.back_mut() else { return Ok(()) };
        let (mark, real) = (last.mark.clone(), last.real.clone());
        let is_truncated = compare(&mut last.content, &mark)? != Fit::Same;
        let all = found_beside(&real)?;
        let earlier = if is_truncated { before(last, &all)? } else { earlier(last, &all)? };
        last.superseded.get_or_insert(look.now);
        let own = own_place(&last.content, &mark.id, &all)?;
        let packed = packed(self.contents(), &all)?;
        let place = match own {
            None if is_truncated => match find(&mark, &all, true)? {
                Found::Whole(index, ..) | Found::Less(index) => Some(index),
                Found::Nowhere => None,
            },
            own => own,
        };
        let mut newer = place.map_or_else(|| after(mark.began, &all), |index| (index + 1..all.len()).collect());
        let same = self
            .generations
            .back()
            .map(|last| copies(&last.content, &all, &newer, false))
            .transpose()?
            .unwrap_or_default();
        newer.retain(|index| ![&earlier, &packed, &same].iter().any(|known| known.contains(index)));
        let new = self.unread_and_current(&real, &all, newer, Some(current), look)?;
        info!(path = %self.path.display(), "file was replaced; reading the new one when the old one is read");
        self.add(new);
        Ok(())
    }

    /// The file that is being read holds something else: looks for a copy of what it held, and reads it anew.
    pub(super) fn truncated(&mut self, now: Duration, done: &Done) -> io::Result<()> {
        let Some(front) = self.generations.front() else { return Ok(()) };
        let all = found_beside(&front.real)?;
        let found = if front.mark.offset == 0 { Found::Nowhere } else { find(&front.mark, &all, true)? };
        let packed = packed(self.contents(), &all)?;
        let has_name = self.has_name() && own_place(&front.content, &front.mark.id, &all)?.is_none();
        let (copy, mut is_less, mut newer): (_, _, Vec<usize>) = match found {
            Found::Whole(index, content, id) => {
                let mut copy = Generation::new(content, Mark { id, ..front.mark.clone() }, front.real.clone(), now);
                copy.superseded = Some(Duration::ZERO);
                (Some(copy), false, (index + 1..all.len()).collect())
            }
            Found::Less(index) => (None, true, (index + 1..all.len()).collect()),
            Found::Nowhere => (None, true, after(front.mark.began, &all)),
        };
        newer.retain(|index| !packed.contains(index));
        let before = if has_name { (0..all.len()).collect() } else { before(front, &all)? };
        // Copied already, and not yet cut to nothing.
        let same = if has_name { copies(&front.content, &all, &newer, true)? } else { Vec::new() };
        newer.retain(|index| before.contains(index) && !same.contains(index));
        let before = before.iter().filter(|index| !same.contains(index)).filter_map(|index| all.get(*index));
        let began = newest(before);
        let look = Look { now, done, taken: &|_| false };
        let mut unread = self.unread(&front.real, &all, &newer, &look, None)?;
        for copy in &mut unread {
            // Nothing was read yet of what was seen, and it is all there.
            is_less &= front.mark.offset > 0 || !copy.content.begins_with(&front.partial)?;
        }
        let Some(old) = self.generations.pop_front() else { return Ok(()) };
        info!(path = %self.path.display(), "file was truncated; reading it from its beginning");
        if is_less {
            let taken = self.take_partial(&old);
            self.declare(old.mark.offset + taken, Reason::Truncated);
        }
        let mut again = Generation::unread(old.content, old.mark.id, &old.real, Some(began), now);
        (again.superseded, again.watch) = (old.superseded, old.watch);
        let glimpsed = again.glimpse();
        self.add_before(copy.into_iter().chain(unread).chain([again]));
        glimpsed
    }

    /// A file of which nothing was read can't be seen to hold something else now. But there are copies then that were not there before.
    pub(super) fn find_copies_of_unread(&mut self, now: Duration, done: &Done) -> io::Result<()> {
        let Some(front) = self.generations.front() else { return Ok(()) };
        let is_empty = |metadata: fs::Metadata| metadata.len() == 0;
        let mut has_name = self.has_name();
        let is_untouched = has_name && front.partial.is_empty() && front.metadata()?.is_none_or(is_empty);
        if front.mark.offset > 0 || front.is_rotated || is_untouched {
            return Ok(());
        }
        let (mark, real) = (front.mark.clone(), front.real.clone());
        let all = found_beside(&real)?;
        has_name &= own_place(&front.content, &front.mark.id, &all)?.is_none();
        // What has lost its name may be compressed beside it, and others may have come after it.
        let mut newer = if has_name { after(mark.began, &all) } else { earlier(front, &all)? };
        let same = if has_name { copies(&front.content, &all, &newer, true)? } else { Vec::new() };
        newer.retain(|index| !same.contains(index));
        let packed = packed(self.contents(), &all)?;
        newer.retain(|index| !packed.contains(index));
        if newer.is_empty() {
            return Ok(());
        }
        let before =
            if has_name { without(&same, &all) } else { newer.iter().filter_map(|index| all.get(*index)).collect() };
        let began = newest(before);
        let found = self.unread(&real, &all, &newer, &Look { now, done, taken: &|_| false }, None)?;
        if let Some(front) = self.generations.front_mut().filter(|_| !found.is_empty()) {
            (front.partial, front.seen) = (bytes::Bytes::new(), 0);
            front.mark.began = front.mark.began.max(Some(began));
        }
        self.add_before(found);
        Ok(())
    }

    fn contents(&self) -> impl Iterator<Item = &Content> {
        self.generations.iter().map(|generation| &generation.content)
    }

    /// Whether the oldest file still has the name.
    fn has_name(&self) -> bool {
        let is_there = |front: &Generation| front.superseded.is_none() && self.absent_since.is_none();
        self.generations.len() == 1 && self.generations.front().is_some_and(is_there)
    }

    /// Generations that nobody has read, oldest first, and what has the name now.
    fn unread_and_current(
        &self,
        real: &Path,
        all: &[Sibling],
        mut newer: Vec<usize>,
        current: Option<(Content, FileId)>,
        look: &Look<'_>,
    ) -> io::Result<Vec<Generation>> {
        let Some((content, id)) = current else { return self.unread(real, all, &newer, look, None) };
        // Renamed since it was opened: the next look finds what has come after it.
        let all = own_place(&content, &id, all)?.and_then(|own| all.get(..own)).unwrap_or(all);
        newer.retain(|index| *index < all.len());
        // Copied already, and not yet cut to nothing: it is read where it is.
        let same = copies(&content, all, &newer, true)?;
        newer.retain(|index| !same.contains(index));
        let mut found = self.unread(real, all, &newer, look, Some(id))?;
        let (path, began) = (fs::canonicalize(&self.path)?, newest(without(&same, all)));
        let mut generation = Generation::unread(content, id, &path, Some(began), look.now);
        generation.glimpse()?;
        found.push(generation);
        Ok(found)
    }

    /// Generations that nobody has read, oldest first.
    fn unread(
        &self,
        real: &Path,
        all: &[Sibling],
        newer: &[usize],
        look: &Look<'_>,
        current: Option<FileId>,
    ) -> io::Result<Vec<Generation>> {
        let mut found = Vec::new();
        let mut began = newest(without(newer, all));
        for sibling in newer.iter().filter_map(|index| all.get(*index)).filter(|sibling| sibling.is_generation()) {
            let is_current = current.is_some_and(|current| current.is(&sibling.id));
            let is_known = self.has(&sibling.id) || self.late.iter().any(|late| late.mark.id.is(&sibling.id));
            if is_current || is_known || (look.taken)(&sibling.id) || look.done.of(&sibling.id).is_some() {
                continue;
            }
            let (content, id) = sibling.open()?;
            let mut generation = Generation::unread(content, id, real, Some(began), look.now);
            (generation.superseded, generation.is_rotated) = (Some(look.now), true);
            found.push(generation);
            began = began.max(newest([sibling]));
        }
        Ok(found)
    }

    /// Takes files to be read after those that are read.
    pub(super) fn add(&mut self, found: impl IntoIterator<Item = Generation>) {
        for mut generation in found {
            if generation.is_rotated {
                info!(path = %self.path.display(), "reading a file that was rotated unseen");
            }
            generation.mark.real = Some(&generation.real).filter(|real| **real != self.path && self.is_link()).cloned();
            self.generations.push_back(generation);
        }
    }

    /// Takes files to be read before those that are read.
    fn add_before(&mut self, found: impl IntoIterator<Item = Generation>) {
        let others = std::mem::take(&mut self.generations);
        self.add(found);
        self.generations.extend(others);
    }

    fn is_link(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_symlink())
    }
}

/// Whether a file of which little was read holds less than was seen of it.
fn is_shorter(content: &Content, mark: &Mark) -> io::Result<bool> {
    let length = content.plain().map(fs::File::metadata).transpose()?.map_or(0, |metadata| metadata.len());
    Ok(!mark.is_certain() && length < mark.seen)
}

/// Siblings but some.
fn without<'a>(some: &[usize], all: &'a [Sibling]) -> Vec<&'a Sibling> {
    all.iter().enumerate().filter(|(index, _)| !some.contains(index)).map(|(_, sibling)| sibling).collect()
}

/// Siblings that were made after the reading of a file began.
fn after(began: Option<u64>, all: &[Sibling]) -> Vec<usize> {
    let is_after = |sibling: &Sibling| began.is_some_and(|began| sibling.is_after(began));
    all.iter().enumerate().filter(|(_, sibling)| is_after(sibling)).map(|(index, _)| index).collect()
}

/// Siblings that are copies of what an open file held before, if nothing of it was read; or its own compressed form, which callers know.
fn earlier(generation: &Generation, all: &[Sibling]) -> io::Result<Vec<usize>> {
    if generation.mark.offset > 0 || generation.is_rotated {
        return Ok(Vec::new());
    }
    let after = after(generation.mark.began, all);
    let mut before = before(generation, all)?;
    before.retain(|index| after.contains(index));
    Ok(before)
}

/// Siblings that were made before the last writing to an open file.
fn before(generation: &Generation, all: &[Sibling]) -> io::Result<Vec<usize>> {
    let mut before = Vec::new();
    let own = own_place(&generation.content, &generation.mark.id, all)?.unwrap_or(all.len());
    for (index, sibling) in all.iter().enumerate().take(own) {
        if sibling.is_earlier_than(&generation.content)? {
            before.push(index);
        }
    }
    Ok(before)
}

/// Where an open file stands among siblings, if it was renamed. What came before it is before it there, compressed or not.
fn own_place(open: &Content, id: &FileId, all: &[Sibling]) -> io::Result<Option<usize>> {
    match all.iter().position(|sibling| sibling.id.is(id)) {
        None => Ok(packed([open], all)?.pop()),
        own => Ok(own),
    }
}

/// Siblings that are compressed forms of open files.
fn packed<'a>(open: impl IntoIterator<Item = &'a Content>, all: &[Sibling]) -> io::Result<Vec<usize>> {
    let mut packed = Vec::new();
    for content in open {
        for (index, sibling) in all.iter().enumerate() {
            if !packed.contains(&index) && sibling.is_packed_form_of(content)? {
                packed.push(index);
            }
        }
    }
    Ok(packed)
}

/// Those of some siblings that are copies of an open file.
fn copies(open: &Content, all: &[Sibling], some: &[usize], is_held: bool) -> io::Result<Vec<usize>> {
    let mut copies = Vec::new();
    for index in some {
        let Some(sibling) = all.get(*index) else { continue };
        if sibling.is_copy_of(open, is_held)? {
            copies.push(*index);
        }
    }
    Ok(copies)
}

/// Siblings, if there is a folder.
pub(super) fn found_beside(path: &Path) -> io::Result<Vec<Sibling>> {
    match siblings(path) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        all => all,
    }
}
