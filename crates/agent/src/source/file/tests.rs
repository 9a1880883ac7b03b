//! The follower driven step by step, on real files: time is passed in, and a stop is the loss of everything but the marks.

mod campaign;
mod races;
mod rotations;
mod ways;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sigillo_proto::{record::Fields, v1::any_value::Value};
use tempfile::TempDir;

use super::{follower::Follower, settings::FileSettings};
use crate::{
    record::Maker,
    run::Mode,
    scrub::Scrubber,
    source::{CHUNK_BYTES, CHUNK_RECORDS, Chunk, watch::Watch},
};

/// Longer than anything is waited for, but for a file that was moved away.
const LONG: Duration = Duration::from_secs(60);

/// An agent and its folder of logs.
struct Agent {
    dir: TempDir,
    tables: Vec<FileSettings>,
    follower: Follower,
    marks: BTreeMap<Arc<str>, Bytes>,
    now: Duration,
    /// Begins anew after each chunk.
    is_restless: bool,
}

impl Agent {
    /// Follows `log`.
    fn new() -> Self {
        Self::with(vec![FileSettings::of_path("log")])
    }

    fn with(mut tables: Vec<FileSettings>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for table in &mut tables {
            table.resolve(dir.path());
            table.validate().unwrap();
        }
        let marks = BTreeMap::new();
        let follower = follower(&tables, &marks);
        Self { dir, tables, follower, marks, now: Duration::ZERO, is_restless: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap().write_all(bytes).unwrap();
    }

    /// Carries out lines of `VERB FILE [ARGUMENT]`, separated by semicolons.
    fn run(&mut self, script: &str) {
        for step in script.split(';').map(str::trim).filter(|step| !step.is_empty()) {
            let mut words = step.splitn(3, ' ');
            let (verb, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            let (path, other) = (self.path(name), self.path(rest));
            match verb {
                // Writes a line; part of one.
                "line" => self.append(name, format!("{rest}\n").as_bytes()),
                "part" => self.append(name, rest.as_bytes()),
                "long" => self.append(name, format!("{}\n", rest.repeat(300)).as_bytes()),
                "mv" => fs::rename(path, other).unwrap(),
                "cp" => drop(fs::copy(path, other).unwrap()),
                "rm" => fs::remove_file(path).unwrap(),
                "empty" => drop(OpenOptions::new().write(true).truncate(true).create(true).open(path).unwrap()),
                "mkdir" => fs::create_dir(path).unwrap(),
                "link" => std::os::unix::fs::symlink(rest, path).unwrap(),
                "hard" => fs::hard_link(other, path).unwrap(),
                // Writes on at a place, as a writer does that keeps it.
                "at" => {
                    let (place, text) = rest.split_once(' ').unwrap();
                    let file = OpenOptions::new().write(true).open(path).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(
                        &file,
                        format!("{text}\n").as_bytes(),
                        place.parse().unwrap(),
                    )
                    .unwrap();
                }
                // Compresses, and leaves the file where it is or not.
                "gz" | "pack" => {
                    pack(&path);
                    if verb == "gz" {
                        fs::remove_file(path).unwrap();
                    }
                }
                // Keeps so many bytes, and puts others behind them.
                "spoil" => {
                    let mut bytes = fs::read(&path).unwrap();
                    bytes.truncate(rest.parse().unwrap());
                    bytes.extend([0xff; 9]);
                    fs::write(path, bytes).unwrap();
                }
                // The agent looks, at all files.
                "look" => drop(self.read()),
                _ => panic!("{step}"),
            }
        }
    }

    /// Lets the clock of the file system go on, so that what is made later looks later: it steps every 4 ms or so.
    fn tick() {
        std::thread::sleep(Duration::from_millis(6));
    }

    /// Forgets everything but the marks.
    fn restart(&mut self) {
        self.follower = follower(&self.tables, &self.marks);
    }

    fn next(&mut self) -> Option<Chunk> {
        let mut watch = Watch::none();
        self.follower.look(self.now, &mut watch).unwrap();
        for key in self.follower.keys().collect::<Vec<_>>() {
            while let Some(chunk) = self.follower.next(&key, self.now, &mut watch).unwrap() {
                assert!(chunk.records.len() <= CHUNK_RECORDS);
                let bytes: usize = chunk.records.iter().map(|record| record.as_ref().length()).sum();
                assert!(bytes <= CHUNK_BYTES || chunk.records.len() == 1);
                let mark = chunk.mark.clone().unwrap();
                assert!(mark.len() <= 4_096);
                if mark.is_empty() {
                    self.marks.remove(&chunk.key);
                } else {
                    self.marks.insert(Arc::clone(&chunk.key), mark);
                }
                if self.is_restless {
                    self.restart();
                }
                if !chunk.records.is_empty() {
                    return Some(chunk);
                }
                if self.is_restless {
                    return self.next();
                }
            }
        }
        None
    }

    /// Everything that comes without waiting.
    fn read(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).flat_map(|chunk| chunk.records).map(|record| shown(&record)).collect()
    }

    /// Everything that comes, also after some time.
    fn read_long(&mut self) -> Vec<String> {
        let mut found = self.read();
        // As often as there may be files that are waited for.
        for _ in 0..4 {
            self.now += LONG;
            found.extend(self.read());
        }
        found
    }
}

/// Compresses as `gzip` does, with the time of the last writing.
fn pack(path: &Path) {
    let written = fs::metadata(path).unwrap().modified().unwrap();
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let mut packed = GzEncoder::new(fs::File::create(name).unwrap(), Compression::fast());
    packed.write_all(&fs::read(path).unwrap()).unwrap();
    packed.finish().unwrap().set_modified(written).unwrap();
}

fn maker() -> Maker {
    Maker::new("h", "", Arc::new(Scrubber::new(&[]).unwrap()))
}

fn follower(tables: &[FileSettings], marks: &BTreeMap<Arc<str>, Bytes>) -> Follower {
    let tables = tables.iter().map(|table| (table.clone(), maker(), Arc::default())).collect();
    Follower::new(tables, &Arc::new(marks.clone()), Mode::Follow)
}

/// The line; a declared loss as `lost:FROM-TO:` and the last word but one of its reason.
fn shown(record: &sigillo_model::record::Record) -> String {
    let fields = Fields::decode(record.as_ref());
    let (core, content) = (fields.core.unwrap(), fields.content.unwrap());
    if core.event_name != "agent.loss" {
        return String::from_utf8_lossy(&content.original).into_owned();
    }
    let value = |key: &str| {
        let found = content.attributes.iter().find(|attribute| attribute.key == key);
        match found.and_then(|attribute| attribute.value.clone()?.value) {
            Some(Value::StringValue(text)) => text,
            _ => String::new(),
        }
    };
    format!("lost:{}-{}", value("from"), value("to"))
}
