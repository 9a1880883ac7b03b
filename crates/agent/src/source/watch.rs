//! Waking up when files or folders change.

use std::{
    collections::HashMap,
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

/// What has changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Keys of files.
    pub(crate) files: Vec<Arc<str>>,
    /// Names have come or gone, or nobody knows what has changed.
    pub(crate) names: bool,
}

/// The kernel's notices. Where it gives none (too many watches, or a file system over the network), the caller has to look by itself.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Option<OwnedFd>,
    files: HashMap<i32, Arc<str>>,
    dirs: HashMap<PathBuf, i32>,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify: Some(inotify), files: HashMap::new(), dirs: HashMap::new() })
    }

    /// Without notices.
    pub(crate) fn none() -> Self {
        Self { inotify: None, files: HashMap::new(), dirs: HashMap::new() }
    }

    /// Watches an open file under whatever name; `None` when it can't be.
    pub(crate) fn add_file(&mut self, file: &File, key: &Arc<str>) -> Option<i32> {
        let flags = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let number = inotify::add_watch(self.inotify.as_ref()?, path, flags).ok()?;
        self.files.insert(number, Arc::clone(key));
        Some(number)
    }

    pub(crate) fn remove_file(&mut self, number: i32) {
        self.files.remove(&number);
        if let Some(inotify) = &self.inotify {
            // It may be gone with its file.
            let _ = inotify::remove_watch(inotify, number);
        }
    }

    /// Watches what names come and go in a folder.
    pub(crate) fn add_dir(&mut self, path: &Path) {
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR;
        if self.dirs.contains_key(path) {
            return;
        }
        if let Some(number) = self.inotify.as_ref().and_then(|inotify| inotify::add_watch(inotify, path, flags).ok()) {
            self.dirs.insert(path.to_owned(), number);
        }
    }

    /// What has changed since the last call.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        let Some(inotify) = &self.inotify else { return changes };
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut ended = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let flags = event.events();
                    match self.files.get(&event.wd()) {
                        Some(key) => {
                            if changes.files.last() != Some(key) {
                                changes.files.push(Arc::clone(key));
                            }
                            changes.names |= !flags.contains(ReadFlags::MODIFY);
                        }
                        None => changes.names = true,
                    }
                    if flags.contains(ReadFlags::IGNORED) {
                        ended.push(event.wd());
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.files.retain(|number, _| !ended.contains(number));
        self.dirs.retain(|_, number| !ended.contains(number));
        changes
    }

    /// Waits for a change, the end of `stop`, or some time. `false` when `stop` has ended.
    pub(crate) fn wait(&self, stop: &impl AsFd, time: Duration) -> bool {
        wait([Some(stop.as_fd()), self.inotify.as_ref().map(AsFd::as_fd)], time)
    }
}

/// Waits for some time or the end of `stop`. `false` when `stop` has ended.
pub(crate) fn pause(stop: &impl AsFd, time: Duration) -> bool {
    wait([Some(stop.as_fd()), None], time)
}

fn wait(watched: [Option<BorrowedFd<'_>>; 2], time: Duration) -> bool {
    let mut polled: Vec<_> = watched.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let time = Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
    let ready = poll(&mut polled, Some(&time));
    // Interrupted: whoever asked looks again.
    ready.is_err() || polled.first().is_none_or(|stop| stop.revents().is_empty())
}
