//! A machine as its processes see it, for one directory: the power fails, the disk is full, the wall clock steps. Other directories and
//! other processes are left alone.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::powerloss::{self, Cut, Shim, compile};

const CLOCK_SOURCE: &str = include_str!("../powerloss/clock.c");

/// The compiled libraries.
#[derive(Debug, Clone)]
pub struct Shims {
    disk: Shim,
    clock: PathBuf,
}

impl Shims {
    /// Compiles them with `cc` into `directory`.
    pub fn build(directory: &Path) -> Result<Self> {
        Ok(Self { disk: Shim::build(directory)?, clock: compile(directory, "clock", CLOCK_SOURCE)? })
    }
}

/// A machine with one directory on its disk.
#[derive(Debug)]
pub struct Machine {
    watched: PathBuf,
    log: PathBuf,
    room: File,
    clock: File,
    offset_ns: i64,
    environment: Vec<(&'static str, OsString)>,
}

impl Machine {
    /// A machine whose disk holds `watched`, made if need be. Its own files are in `dir`, a directory of the same file system outside of
    /// that one, and begin with `name`. With `lie`, syncing is switched off behind the backs of its processes.
    pub fn new(shims: &Shims, dir: &Path, name: &str, watched: &Path, lie: bool) -> Result<Self> {
        fs::create_dir_all(watched)?;
        let log = dir.join(format!("{name}.disk"));
        powerloss::begin(watched, &log)?;
        let number = |what: &str, value: i64| -> Result<(PathBuf, File)> {
            let path = dir.join(format!("{name}.{what}"));
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
            file.write_all_at(&value.to_ne_bytes(), 0)?;
            Ok((path, file))
        };
        let (room_path, room) = number("room", -1)?;
        let (clock_path, clock) = number("clock", 0)?;
        let mut environment = shims.disk.environment(watched, &log, lie);
        environment.retain(|(name, _)| *name != "LD_PRELOAD");
        let mut libraries = shims.disk.library().as_os_str().to_owned();
        libraries.push(":");
        libraries.push(&shims.clock);
        environment.push(("LD_PRELOAD", libraries));
        environment.push(("SIGILLO_POWERLOSS_ROOM", room_path.into()));
        environment.push(("SIGILLO_CLOCK", clock_path.into()));
        Ok(Self { watched: watched.to_owned(), log, room, clock, offset_ns: 0, environment })
    }

    /// What its processes must find in their environment.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, OsString)> + use<'_> {
        self.environment.iter().cloned()
    }

    /// Throws away what was not synced. Its processes are dead.
    pub fn cut_power(&self) -> Result<Cut> {
        let cut = powerloss::cut(&self.watched, &self.log)?;
        powerloss::begin(&self.watched, &self.log)?;
        Ok(cut)
    }

    /// Leaves room for so many bytes on its disk from now on; `None`: for any number.
    pub fn set_room(&self, bytes: Option<u32>) -> Result<()> {
        Ok(self.room.write_all_at(&bytes.map_or(-1, i64::from).to_ne_bytes(), 0)?)
    }

    /// Steps its wall clock.
    pub fn step_clock(&mut self, by_ns: i64) -> Result<()> {
        self.offset_ns += by_ns;
        Ok(self.clock.write_all_at(&self.offset_ns.to_ne_bytes(), 0)?)
    }
}
