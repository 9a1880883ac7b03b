//! What to do when a name leads to another file, or a file to other bytes.

use std::{fs, io, path::Path, time::Duration};

use bytes::BytesMut;
use tracing::info;

use super::{Followed, Look};
use crate::source::file::{
    content::{self, Content, FileId},
    done::Done,
    generation::Generation,
    loss::Reason,
    mark::Mark,
    print::Fit,
    siblings::{Found, Sibling, compare, find, newest, siblings},
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
    pub(super) fn resume(
        &mut self,
        mark: &Mark,
        mut current: Option<(Content, FileId)>,
        look: &Look<'_>,
    ) -> io::Result<()> {
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
                self.declare(mark.offset, Reason::TruncatedWhileAway);
                (index + 1..all.len()).collect()
            }
            Found::Nowhere => {
                let newer = after(mark.began, &all);
                // What nothing was read of may be one of the newer ones.
                if mark.offset > 0 || mark.seen > 0 && newer.is_empty() {
                    let reason = if is_same { Reason::TruncatedWhileAway } else { Reason::GoneWhileAway };
                    // What was seen of it says nothing of its end: it may have grown since.
                    self.declare(mark.offset, reason);
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
    pub(super) fn rotated(&mut self, current: (Content, FileId), look: &Look<'_>) -> io::Result<()> {
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
    pub(super) fn truncated(&mut self, now: Duration, done: &Done) -> io::Result<()> {
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
                self.declare(from, Reason::Truncated);
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
    pub(super) fn find_copies_of_unread(&mut self, now: Duration, done: &Done) -> io::Result<()> {
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

    pub(super) fn push(&mut self, mut generation: Generation) {
        generation.mark.real = Some(&generation.real).filter(|real| **real != self.path && self.is_link()).cloned();
        self.generations.push_back(generation);
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
pub(super) fn found_beside(path: &Path) -> io::Result<Vec<Sibling>> {
    match siblings(path) {
        Err(error) if content::is_absent(&error) => Ok(Vec::new()),
        all => all,
    }
}
