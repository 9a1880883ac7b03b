//! The power-loss shim, tried on a small program: this test binary itself, started again under the shim to act one
//! scene, at the end of which it is killed. Full disks and clock steps on programs of the system.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
};

use sigillo_testkit::{
    machine::{Machine, Shims},
    powerloss::{self, Cut, Shim},
};
use tempfile::TempDir;

const SCENE: &str = "SIGILLO_POWERLOSS_SCENE";

struct Stage {
    shim: Shim,
    directory: PathBuf,
    log: PathBuf,
    _temp: TempDir,
}

impl Stage {
    fn set() -> Self {
        let temp = TempDir::new().unwrap();
        let directory = temp.path().join("watched");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("old"), "0123456789").unwrap();
        fs::write(directory.join("other"), "other").unwrap();
        let log = temp.path().join("log");
        powerloss::begin(&directory, &log).unwrap();
        Self { shim: Shim::build(temp.path()).unwrap(), directory, log, _temp: temp }
    }

    fn act(&self, scene: &str, lie: bool) {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["acts_when_told", "--exact", "--nocapture"])
            .env(SCENE, scene)
            .current_dir(&self.directory)
            .envs(self.shim.environment(&self.directory, &self.log, lie))
            .output()
            .unwrap();
        assert_eq!(run.status.signal(), Some(9), "{scene}: {}", String::from_utf8_lossy(&run.stderr));
    }

    fn cut(&self) -> Cut {
        powerloss::cut(&self.directory, &self.log).unwrap()
    }

    /// Acts a scene, cuts, and compares every file.
    fn leaves(scene: &str, expected: &[(&str, &str)]) {
        let stage = Self::set();
        stage.act(scene, false);
        stage.cut();
        stage.holds(scene, expected);
    }

    fn holds(&self, scene: &str, expected: &[(&str, &str)]) {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let name = path.strip_prefix(&self.directory).unwrap().display().to_string();
                    found.push((name, fs::read_to_string(path).unwrap()));
                }
            }
        }
        found.sort();
        let expected: Vec<(String, String)> = expected.iter().map(|(n, c)| ((*n).into(), (*c).into())).collect();
        assert_eq!(found, expected, "{scene}");
    }
}

const BEFORE: [(&str, &str); 2] = [("old", "0123456789"), ("other", "other")];

#[test]
fn what_was_not_synced_is_gone() {
    for scene in ["append", "overwrite", "truncate", "open-truncate", "append-mode", "duplicate"] {
        Stage::leaves(scene, &BEFORE);
    }
}

#[test]
fn what_was_synced_stays() {
    Stage::leaves("append fsync", &[("old", "0123456789abc"), ("other", "other")]);
    Stage::leaves("overwrite fdatasync", &[("old", "01abc56789"), ("other", "other")]);
    Stage::leaves("truncate fsync", &[("old", "0123"), ("other", "other")]);
    Stage::leaves("open-truncate fsync", &[("old", ""), ("other", "other")]);
    Stage::leaves("duplicate fsync", &[("old", "0123456789abc"), ("other", "other")]);
    Stage::leaves("o-dsync", &[("old", "0123456789abc"), ("other", "other")]);
}

#[test]
fn what_follows_a_sync_is_gone_and_the_synced_comes_back() {
    Stage::leaves("append fsync overwrite", &[("old", "0123456789abc"), ("other", "other")]);
    Stage::leaves("append fsync truncate append overwrite", &[("old", "0123456789abc"), ("other", "other")]);
    Stage::leaves("overwrite fsync overwrite-again truncate", &[("old", "01abc56789"), ("other", "other")]);
}

#[test]
fn entries_need_their_directory_synced() {
    for scene in [
        "create fsync-new",
        "rename",
        "rename-over",
        "unlink",
        "link",
        "subdirectory",
        "create fsync-new rename-new",
        "unlink create-again",
        "sync-directory unlink-other create rename-over",
        "subdirectory sync-subdirectory",
    ] {
        Stage::leaves(scene, &BEFORE);
    }
    let new = [("new", "new"), ("old", "0123456789"), ("other", "other")];
    Stage::leaves("create fsync-new sync-directory", &new);
    Stage::leaves("create fsync-new sync-directory unlink", &new);
    Stage::leaves("create sync-directory", &[("new", ""), ("old", "0123456789"), ("other", "other")]);
    Stage::leaves("rename sync-directory", &[("moved", "0123456789"), ("other", "other")]);
    Stage::leaves("rename-over sync-directory", &[("other", "0123456789")]);
    Stage::leaves("unlink sync-directory", &[("other", "other")]);
    Stage::leaves(
        "subdirectory sync-subdirectory sync-directory",
        &[("old", "0123456789"), ("other", "other"), ("sub/file", "")],
    );
}

#[test]
fn a_log_goes_on_through_a_restart_without_loss_of_power() {
    let stage = Stage::set();
    stage.act("append unlink-other", false);
    stage.act("overwrite", false);
    stage.act("create fsync-new", false);
    let cut = stage.cut();
    assert_eq!(cut.entries, 2);
    stage.holds("three processes", &BEFORE);
}

#[test]
fn with_syncing_switched_off_nothing_stays() {
    let stage = Stage::set();
    stage.act("append fsync create fsync-new sync-directory", true);
    stage.act("punch", true);
    let cut = stage.cut();
    assert_eq!((cut.files, cut.bytes, cut.entries), (2, 6, 1));
    stage.holds("lie", &BEFORE);
}

#[test]
fn a_file_made_past_the_shim_is_noticed() {
    let stage = Stage::set();
    fs::write(stage.directory.join("smuggled"), "").unwrap();
    let error = powerloss::cut(&stage.directory, &stage.log).unwrap_err();
    assert!(error.to_string().contains("past the shim"), "{error}");
}

#[test]
fn a_disk_may_be_full_and_a_clock_may_step() {
    let temp = TempDir::new().unwrap();
    let watched = temp.path().join("watched");
    let mut machine =
        Machine::new(&Shims::build(temp.path()).unwrap(), temp.path(), "machine", &watched, false).unwrap();
    let run = |machine: &Machine, program: &str, arguments: &[&str]| {
        let output =
            Command::new(program).args(arguments).current_dir(&watched).envs(machine.environment()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let write = |machine: &Machine| run(machine, "dd", &["if=/dev/zero", "of=file", "bs=100", "count=10"]);
    assert!(write(&machine).0);
    machine.set_room(Some(250)).unwrap();
    let (done, _, said) = write(&machine);
    assert!(!done && said.contains("No space left"), "{said}");
    assert_eq!(fs::metadata(watched.join("file")).unwrap().len(), 250, "what fits is written");
    machine.set_room(None).unwrap();
    assert!(write(&machine).0);

    let year = |machine: &Machine| run(machine, "date", &["-u", "+%Y"]).1.trim().parse::<i32>().unwrap();
    let now = year(&machine);
    let ten_years_ns = 10 * 366 * 86_400 * 1_000_000_000_i64;
    machine.step_clock(-ten_years_ns).unwrap();
    assert!((now - 11..=now - 10).contains(&year(&machine)));
    machine.step_clock(ten_years_ns).unwrap();
    assert_eq!(year(&machine), now);
}

/// Not a test by itself: the small program that the others start under the shim. Its scene is a list of steps.
#[test]
fn acts_when_told() {
    let Ok(scene) = std::env::var(SCENE) else { return };
    let mut file = OpenOptions::new().read(true).write(true).open("old").unwrap();
    scene.split(' ').for_each(|step| act(step, &mut file));
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

fn act(step: &str, file: &mut File) {
    let sync_directory = |path: &str| File::open(path).unwrap().sync_all().unwrap();
    match step {
        "append" => {
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(b"abc").unwrap();
        }
        "append-mode" => OpenOptions::new().append(true).open("old").unwrap().write_all(b"abc").unwrap(),
        "o-dsync" => {
            use std::os::unix::fs::OpenOptionsExt;
            let dsync = i32::try_from(rustix::fs::OFlags::DSYNC.bits()).unwrap();
            OpenOptions::new().append(true).custom_flags(dsync).open("old").unwrap().write_all(b"abc").unwrap();
        }
        "duplicate" => {
            *file = {
                let mut copy = file.try_clone().unwrap();
                copy.seek(SeekFrom::End(0)).unwrap();
                copy.write_all(b"abc").unwrap();
                copy
            }
        }
        "overwrite" => file.write_all_at(b"abc", 2).unwrap(),
        "overwrite-again" => file.write_all_at(b"defghi", 1).unwrap(),
        "truncate" => file.set_len(4).unwrap(),
        "open-truncate" => *file = File::create("old").unwrap(),
        "punch" => punch(),
        "fsync" => file.sync_all().unwrap(),
        "fdatasync" => file.sync_data().unwrap(),
        "create" => File::create("new").unwrap().write_all(b"new").unwrap(),
        "fsync-new" => File::open("new").unwrap().sync_all().unwrap(),
        "rename-new" => fs::rename("new", "newer").unwrap(),
        "rename" => fs::rename("old", "moved").unwrap(),
        "rename-over" => fs::rename("old", "other").unwrap(),
        "unlink" => fs::remove_file(if Path::new("new").exists() { "new" } else { "old" }).unwrap(),
        "unlink-other" => fs::remove_file("other").unwrap(),
        "create-again" => fs::write("old", "another").unwrap(),
        "link" => fs::hard_link("old", "linked").unwrap(),
        "subdirectory" => {
            fs::create_dir("sub").unwrap();
            File::create("sub/file").unwrap();
        }
        "sync-directory" => sync_directory("."),
        "sync-subdirectory" => sync_directory("sub"),
        other => panic!("unknown step {other}"),
    }
}

/// Zeroes a range and syncs, through libc (rustix makes bare system calls, which the shim can't see).
fn punch() {
    let done = Command::new("fallocate").args(["--punch-hole", "-o", "2", "-l", "3", "old"]).status().unwrap();
    assert!(done.success());
}
