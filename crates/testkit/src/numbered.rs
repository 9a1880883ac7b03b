//! Log files with numbered lines, written and rotated as programs and logrotate do it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};

use crate::records::records;

/// How a file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rotation {
    /// Renamed; the writer opens a new file.
    Rename,
    /// Renamed; the writer goes on in the renamed file for a while before it opens a new one.
    RenameLate,
    /// Renamed and compressed at once.
    Compress,
    /// Copied, then cut to nothing; the writer goes on in it.
    CopyTruncate,
    /// Cut to nothing without a copy: what nobody has read is gone.
    Truncate,
    /// Removed; the writer makes a new file. What nobody has read is gone.
    Remove,
    /// Another file is renamed over it. What nobody has read is gone.
    Replace,
}

impl Rotation {
    /// Those that keep every line somewhere.
    pub const KEEPING: [Self; 4] = [Self::Rename, Self::RenameLate, Self::Compress, Self::CopyTruncate];
    /// Those after which a line may be nowhere.
    pub const LOSING: [Self; 3] = [Self::Truncate, Self::Remove, Self::Replace];
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of the files that had the path, from 0; a file that was cut to nothing counts as a new one.
    pub generation: u32,
    /// Offset of its first byte there.
    pub from: u64,
    /// Offset after its line's end.
    pub to: u64,
}

/// A log file with numbered lines: `NAME NUMBER` and words as a hosting provider's machines write them.
#[derive(Debug)]
pub struct NumberedLog {
    name: String,
    path: PathBuf,
    file: File,
    generation: u32,
    /// How each generation ended.
    ends: Vec<Rotation>,
    offset: u64,
    /// Number of the first line of `places`.
    first: u64,
    places: VecDeque<Place>,
    words: Vec<Vec<u8>>,
    random: ChaCha12Rng,
    buffer: Vec<u8>,
}

/// Different endings of lines.
const WORDS: usize = 500;
/// Rotated files that are kept.
const KEPT: u32 = 200;

impl NumberedLog {
    /// Makes the file `NAME.log` in `dir`.
    pub fn new(dir: &Path, name: &str, seed: u64) -> Result<Self> {
        let path = dir.join(format!("{name}.log"));
        let words = records(seed).take(WORDS).map(|record| original(&record)).collect();
        let random = ChaCha12Rng::seed_from_u64(seed);
        let file = open(&path)?;
        let (generation, offset, first) = (0, 0, 0);
        let (name, places, buffer) = (name.to_owned(), VecDeque::new(), Vec::new());
        let ends = Vec::new();
        Ok(Self { name, path, file, generation, ends, offset, first, places, words, random, buffer })
    }

    /// The name in each line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How a generation of the file ended; `None` if it has not.
    pub fn end_of(&self, generation: u32) -> Option<Rotation> {
        self.ends.get(generation as usize).copied()
    }

    /// The number that the next line gets.
    pub fn next(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Where a line was written; `None` if it was not, or is forgotten.
    pub fn place(&self, number: u64) -> Option<Place> {
        let index = number.checked_sub(self.first)?;
        self.places.get(usize::try_from(index).ok()?).copied()
    }

    /// Forgets the places of lines below this number, and removes files that were rotated long ago.
    pub fn forget(&mut self, below: u64) -> Result<()> {
        let count = usize::try_from(below.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.places.len());
        self.places.drain(..count);
        self.first += count as u64;
        for number in 1..=KEPT {
            for path in [self.rotated(number), self.compressed(number)] {
                crate::daemon::remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// Writes so many lines at once.
    pub fn write(&mut self, lines: u64) -> Result<()> {
        self.buffer.clear();
        for _ in 0..lines {
            let begun = self.buffer.len();
            write!(self.buffer, "{} {:010} ", self.name, self.next())?;
            let words = self.words.get(self.random.random_range(0..self.words.len())).context("no words")?;
            self.buffer.extend_from_slice(words);
            self.buffer.push(b'\n');
            let from = self.offset + begun as u64;
            let to = self.offset + self.buffer.len() as u64;
            self.places.push_back(Place { generation: self.generation, from, to });
        }
        self.file.write_all(&self.buffer)?;
        self.offset += self.buffer.len() as u64;
        Ok(())
    }

    /// Rotates the file.
    pub fn rotate(&mut self, how: Rotation) -> Result<()> {
        self.ends.push(how);
        match how {
            Rotation::Rename => {
                self.rename()?;
                self.begin_anew()
            }
            Rotation::RenameLate => {
                self.rename()?;
                let late = self.random.random_range(1..=30);
                self.write(late)?;
                self.begin_anew()
            }
            Rotation::Compress => {
                self.rename()?;
                self.begin_anew()?;
                let done = Command::new("gzip").arg("--fast").arg(self.rotated(1)).status().context("gzip")?;
                ensure!(done.success(), "gzip ended with {done}");
                Ok(())
            }
            Rotation::CopyTruncate => {
                self.make_room()?;
                fs::copy(&self.path, self.rotated(1))?;
                self.truncate()
            }
            Rotation::Truncate => self.truncate(),
            Rotation::Remove => {
                fs::remove_file(&self.path)?;
                self.begin_anew()
            }
            Rotation::Replace => {
                let beside = self.path.with_extension("new");
                drop(open(&beside)?);
                fs::rename(&beside, &self.path)?;
                self.begin_anew()
            }
        }
    }

    fn rename(&mut self) -> Result<()> {
        self.make_room()?;
        Ok(fs::rename(&self.path, self.rotated(1))?)
    }

    /// Renames what was rotated before, so that the first place is free.
    fn make_room(&self) -> Result<()> {
        let last = (1..KEPT).take_while(|number| self.rotated(*number).exists() || self.compressed(*number).exists());
        for number in last.collect::<Vec<_>>().into_iter().rev() {
            for name in [Self::rotated, Self::compressed] {
                if name(self, number).exists() {
                    fs::rename(name(self, number), name(self, number + 1))?;
                }
            }
        }
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<()> {
        self.file = open(&self.path)?;
        (self.generation, self.offset) = (self.generation + 1, 0);
        Ok(())
    }

    fn truncate(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        (self.generation, self.offset) = (self.generation + 1, 0);
        Ok(())
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    fn compressed(&self, number: u32) -> PathBuf {
        let mut name = self.rotated(number).into_os_string();
        name.push(".gz");
        name.into()
    }
}

/// Name and number of a line.
pub fn parse(line: &[u8]) -> Option<(&str, u64)> {
    let mut words = line.splitn(3, |byte| *byte == b' ').map(std::str::from_utf8);
    let (name, number) = (words.next()?.ok()?, words.next()?.ok()?);
    Some((name, number.parse().ok()?))
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.with_context(|| format!("{} can't be opened", path.display()))
}

fn original(record: &sigillo_model::record::Record) -> Vec<u8> {
    let content = sigillo_proto::record::Fields::decode(record.as_ref()).content.unwrap_or_default();
    content.original.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeping_rotations_keep_every_line_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = NumberedLog::new(dir.path(), "app", 1).unwrap();
        for how in Rotation::KEEPING.into_iter().chain(Rotation::KEEPING) {
            log.write(20).unwrap();
            log.rotate(how).unwrap();
        }
        log.write(5).unwrap();
        let mut numbers = Vec::new();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let output = Command::new("zcat").arg("-f").arg(entry.unwrap().path()).output().unwrap();
            numbers.extend(output.stdout.split(|b| *b == b'\n').filter_map(parse).map(|(_, number)| number));
        }
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..log.next()), "{numbers:?}");
        let text = fs::read(log.path()).unwrap();
        let place = log.place(log.next() - 2).unwrap();
        let (from, to) = (usize::try_from(place.from).unwrap(), usize::try_from(place.to).unwrap());
        assert_eq!(parse(&text[from..to]), Some(("app", log.next() - 2)));
    }
}
