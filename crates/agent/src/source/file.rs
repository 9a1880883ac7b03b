//! Files that grow, are renamed, copied, truncated, compressed, removed and made anew.
//!
//! One thread reads all files, a chunk of each in turn, so that a busy one does not hold up the others and the memory for
//! reading is there once. Between two chunks nothing of a file is kept but its mark: an unfinished line is read again when there is
//! more of it. The kernel wakes the thread; once a second (more rarely with many files) it looks by itself.
//!
//! A path is followed through its *generations*, the files that had its name one after the other, oldest first; the mark says which
//! one is being read. A file is known by its inode and time of birth, and by its bytes: the first ones and those before the
//! place where reading goes on. What was moved, copied or compressed is found by them beside its old name. What can't be noticed: a
//! file that was truncated and has grown again past our place with the same bytes at both places.
//!
//! A renamed file stays open for some minutes after it was read, since its writer may go on in it; what comes there late is read by this
//! agent only, not by one after it. Where bytes can't tell a copy from a new file with the same beginning, it is taken for a copy: no line
//! comes twice.

mod content;
mod cut;
mod done;
mod followed;
mod follower;
mod generation;
mod loss;
mod mark;
mod names;
mod print;
mod settings;
mod siblings;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, PipeReader, pipe},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::oneshot;

pub(crate) use self::mark::import;
pub use self::settings::{Begin, FileSettings, Multiline};
use self::{
    follower::Follower,
    names::{FILES_MAX, Names},
};
use super::watch::{Watch, pause};
use crate::{
    AgentError,
    record::Maker,
    run::Mode,
    source::{Feed, Marks, Meter},
};

/// After everything was read: lines that come in this time are read together.
const PAUSE: Duration = Duration::from_millis(2);
/// How often everything is looked at without notice, at least and at most; in between so many times what a look takes.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const LOOK_COSTS: u32 = 4_000;
/// How often, where the kernel gives no notice; or a hundred times what a look takes.
const LOOK_BLINDLY_EVERY: Duration = Duration::from_millis(200);
/// Files that may be open: every file has one, and two for some moments after its rotation.
const OPEN_MAX: u64 = 4 * FILES_MAX as u64;

/// Follows files for ever, or to their present end. Each table comes with what makes its records, and what counts them.
pub(crate) async fn follow(
    tables: Vec<(FileSettings, Maker, Arc<Meter>)>,
    marks: Marks,
    mode: Mode,
    feed: Feed,
) -> Result<(), AgentError> {
    let failed = |source| AgentError::Source { name: "files".into(), source };
    // Ends when this future does.
    let (stop, _stopping) = pipe().map_err(failed)?;
    let (done_end, done) = oneshot::channel();
    allow_open_files();
    let work = move || {
        let follower = Follower::new(tables, &marks, mode);
        // Nobody waits for an answer any more when the agent stops.
        let _ = done_end.send(work(follower, mode, &feed, &stop));
    };
    thread::Builder::new().name("files".into()).spawn(work).map_err(failed)?;
    done.await.unwrap_or_else(|_| Err(failed(io::Error::other("the thread that reads files has ended"))))
}

fn work(mut follower: Follower, mode: Mode, feed: &Feed, stop: &PipeReader) -> Result<(), AgentError> {
    let began = Instant::now();
    let notices = if mode == Mode::Once { None } else { Watch::new().ok() };
    let mut watch = notices.unwrap_or_else(Watch::none);
    let mut dirty = BTreeSet::new();
    let mut due: BTreeMap<Arc<str>, Duration> = BTreeMap::new();
    let (mut look_at, mut not_before, mut has_worked) = (Duration::ZERO, Duration::ZERO, false);
    loop {
        let changes = watch.changes();
        dirty.extend(changes.files);
        let now = began.elapsed();
        if changes.names {
            look_at = look_at.min(not_before);
        }
        if now >= look_at {
            let is_blind = follower.look(now, &mut watch)?;
            dirty.extend(follower.keys());
            let cost = began.elapsed().saturating_sub(now);
            let (least, most) = LOOK_EVERY;
            let every = if is_blind { LOOK_BLINDLY_EVERY.max(100 * cost) } else { (LOOK_COSTS * cost).max(least) };
            (look_at, not_before) = (now + every.min(most), now + 20 * cost);
        }
        due.retain(|key, at| {
            let is_due = *at <= now;
            if is_due {
                dirty.insert(Arc::clone(key));
            }
            !is_due
        });
        let mut has_read = false;
        for key in dirty.clone() {
            if let Some(chunk) = follower.next(&key, now, &mut watch)? {
                if !feed.hand_over_blocking(chunk) {
                    return Ok(());
                }
                has_read = true;
                continue;
            }
            if let Some(at) = follower.due(&key).filter(|at| *at > now) {
                due.insert(Arc::clone(&key), at);
            }
            dirty.remove(&key);
        }
        if has_read {
            has_worked = true;
            continue;
        }
        if mode == Mode::Once {
            return Ok(());
        }
        if std::mem::take(&mut has_worked) && !pause(stop, PAUSE) {
            return Ok(());
        }
        let next = due.values().copied().min().map_or(look_at, |at| at.min(look_at));
        if !watch.wait(stop, next.saturating_sub(began.elapsed())) {
            return Ok(());
        }
    }
}

/// What a table names now.
pub(crate) fn found(settings: &FileSettings) -> Vec<PathBuf> {
    names::expand(&[Names::new(settings)], |_| false).0.into_iter().map(|(path, _)| path).collect()
}

/// Raises the number of files that may be open as far as is allowed: each followed one is held open.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_MAX).min(OPEN_MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        // With fewer, fewer files are read at once; each that can't be opened is reported.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}
