//! The real logs that this machine has.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::{self, Write},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Larger files are left out: this is a demo.
const FILE_MAX_BYTES: u64 = 64 << 20;
/// Files at most, the largest first.
const FILES_MAX: usize = 24;
/// Directories below `/var/log` are looked into so deep.
const DEPTH: usize = 2;
/// Not lines of text, or compressed.
const BINARY: [&str; 9] = ["wtmp", "btmp", "lastlog", "faillog", "tallylog", "gz", "xz", "zst", "bz2"];
/// Where a machine without a single line in `/var/log` still keeps real records of what was done to it.
const ELSEWHERE: [&str; 3] = ["/var/lib/dpkg/status", "/lib/apk/db/installed", "/etc/passwd"];

/// Logs to ship.
pub(super) struct Logs {
    files: Vec<LogFile>,
    /// What lies beside them and is not shipped. `None`: they are files of another kind, named one by one.
    left_out: Option<Vec<PathBuf>>,
    journald: bool,
    sample: Sample,
}

struct LogFile {
    path: PathBuf,
    lines: u64,
    bytes: u64,
}

/// A line of one of the files, and a word of it that few other lines have.
pub(super) struct Sample {
    pub(super) file: PathBuf,
    pub(super) line: String,
    pub(super) word: String,
}

impl Logs {
    /// Looks for readable, non-empty text files in `/var/log`, and for a systemd journal.
    pub(super) fn of_this_machine() -> Result<Self> {
        let mut paths = Vec::new();
        collect(Path::new("/var/log"), DEPTH, &mut paths);
        let mut read = read_all(&paths);
        let has_logs = !read.is_empty();
        if !has_logs {
            println!("This machine has no readable log file in /var/log: other files of its own stand in.");
            read = read_all(&ELSEWHERE.map(PathBuf::from));
        }
        // What a log was rotated to belongs to that log.
        let names: HashSet<PathBuf> = read.iter().map(|(path, _)| path.clone()).collect();
        read.retain(|(path, _)| !is_rotated(path, &names));
        read.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
        read.truncate(FILES_MAX);
        ensure!(!read.is_empty(), "this machine has no log file that can be read: nothing to show");
        let sample = choose(&read).context("no line of this machine's logs is fit to be searched for")?;
        let files: Vec<LogFile> = read
            .into_iter()
            .map(|(path, bytes)| LogFile { path, lines: lines(&bytes).count() as u64, bytes: bytes.len() as u64 })
            .collect();
        paths.retain(|path| files.iter().all(|file| file.path != *path));
        Ok(Self { files, left_out: has_logs.then_some(paths), journald: has_journald(), sample })
    }

    /// Lines in the files.
    pub(super) fn lines(&self) -> u64 {
        self.files.iter().map(|file| file.lines).sum()
    }

    /// Bytes of the files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What will be searched for.
    pub(super) fn sample(&self) -> &Sample {
        &self.sample
    }

    /// The tables that make an agent read them.
    pub(super) fn to_config(&self) -> Result<String> {
        let mut text = String::new();
        let mut folders: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
        for file in &self.files {
            if self.left_out.is_none() {
                // A JSON string without control characters is a TOML string.
                let path = Value::from(file.path.to_str().context("a file's name is not UTF-8")?);
                writeln!(text, "[[file]]\npath = {path}\n")?;
            } else if let Some(folder) = file.path.parent() {
                folders.entry(folder).or_default();
            }
        }
        for path in self.left_out.iter().flatten() {
            if let Some(left_out) = path.parent().and_then(|folder| folders.get_mut(folder)) {
                left_out.push(path);
            }
        }
        for (folder, left_out) in folders {
            let glob = Value::from(pattern(folder).context("a folder's name is not UTF-8")? + "/*");
            // What is no text matches nothing.
            let exclude: Value = left_out.into_iter().filter_map(pattern).map(Value::from).collect();
            writeln!(text, "[[file]]\nglob = {glob}\nexclude = {exclude}\n")?;
        }
        if self.journald {
            text += "[[journald]]\nunits = []\n";
        }
        Ok(text)
    }
}

impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "  {:>8} lines {:>10} bytes  {}", file.lines, file.bytes, file.path.display())?;
        }
        let journald = if self.journald { "and the systemd journal" } else { "and no systemd journal" };
        writeln!(f, "  {journald}")
    }
}

fn collect(dir: &Path, depth: usize, into: &mut Vec<PathBuf>) {
    // A directory that may not be read holds nothing for us.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => collect(&path, depth - 1, into),
            Ok(kind) if !kind.is_dir() => into.push(path),
            _ => {}
        }
    }
}

/// A path as a pattern that means only itself.
fn pattern(path: &Path) -> Option<String> {
    let is_special = |letter| matches!(letter, '*' | '?' | '[' | ']');
    let escaped = |letter| if is_special(letter) { format!("[{letter}]") } else { letter.to_string() };
    Some(path.to_str()?.chars().map(escaped).collect())
}

/// Whether another name stands before what rotation adds: `.1`, `-20261123`.
fn is_rotated(path: &Path, names: &HashSet<PathBuf>) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut ends = name.char_indices().filter(|(_, letter)| matches!(letter, '.' | '-')).map(|(end, _)| end);
    ends.any(|end| end > 0 && names.contains(&path.with_file_name(&name[..end])))
}

fn read_all(paths: &[PathBuf]) -> Vec<(PathBuf, Vec<u8>)> {
    let readable = paths.iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A symbolic link leads to what is listed elsewhere, or to what is no log of this machine.
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        is_file && path.to_str().is_some() && !BINARY.contains(&name.rsplit('.').next().unwrap_or_default())
    });
    readable.filter_map(|path| Some((path.clone(), read(path)?))).collect()
}

/// The file's whole lines, if it is text.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    let text = !bytes.is_empty() && bytes.len() as u64 <= FILE_MAX_BYTES && !bytes.contains(&0);
    text.then_some(bytes)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// The line with the rarest long word, among those that print as they are.
fn choose(files: &[(PathBuf, Vec<u8>)]) -> Option<Sample> {
    let texts = || {
        files.iter().flat_map(|(path, bytes)| {
            lines(bytes).filter_map(move |line| Some((path, std::str::from_utf8(line).ok()?)))
        })
    };
    let mut seen: HashMap<&str, u32> = HashMap::new();
    texts().flat_map(|(_, line)| words(line)).for_each(|word| *seen.entry(word).or_default() += 1);
    let fit = |line: &str| (20..160).contains(&line.len()) && line.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let candidates =
        texts().filter(|(_, line)| fit(line)).flat_map(|(path, line)| words(line).map(move |word| (path, line, word)));
    let (file, line, word) = candidates.min_by_key(|(_, _, word)| seen.get(word))?;
    Some(Sample { file: file.clone(), line: line.to_owned(), word: word.to_owned() })
}

/// Words worth searching for: six letters or more.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| (6..=32).contains(&word.len()))
}

fn has_journald() -> bool {
    let output = Command::new("journalctl").args(["-q", "-n", "1", "-o", "cat"]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_was_rotated_to_belongs_to_it() {
        let names = ["/a/syslog", "/a/b-1.log"].map(PathBuf::from).into();
        let is_rotated = |path: &str| is_rotated(Path::new(path), &names);
        assert!(is_rotated("/a/syslog.1") && is_rotated("/a/syslog-20261123") && is_rotated("/a/b-1.log.2"));
        assert!(!is_rotated("/a/syslog") && !is_rotated("/a/b-1.log") && !is_rotated("/syslog.1"));
        assert_eq!(pattern(Path::new("/a/[x]*?")).as_deref(), Some("/a/[[]x[]][*][?]"));
    }

    #[test]
    fn the_rarest_word_is_searched_for() {
        let text =
            b"2026-11-23 install common package\n2026-11-23 install common libsodium\n\x07 unprintable zzzzzzz\n";
        let sample = choose(&[(PathBuf::from("/a"), text.to_vec())]).unwrap();
        // `package` and `libsodium` are both there once; the first stays.
        assert_eq!((sample.word.as_str(), sample.line.as_str()), ("package", "2026-11-23 install common package"));
        assert!(choose(&[(PathBuf::from("/a"), b"short\n".to_vec())]).is_none());
    }
}
