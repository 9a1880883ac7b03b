use std::{fs::OpenOptions, io::Write};

use sigillo_proto::record::Fields;
use tempfile::TempDir;

use super::*;
use crate::scrub::Scrubber;

struct Case {
    dir: TempDir,
    follower: Follower,
}

fn maker() -> Maker {
    Maker::new("h", "", Arc::new(Scrubber::new(&[]).unwrap())).of("/log")
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let follower = Follower::new(dir.path().join("log"), maker(), None, Duration::ZERO);
        Self { dir, follower }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn read_items(&mut self) -> Vec<(String, Mark)> {
        let mut all = Vec::new();
        loop {
            let items = self.follower.read().unwrap();
            if items.is_empty() {
                return all;
            }
            all.extend(items.into_iter().map(|item| {
                let content = Fields::decode(item.0.as_ref()).content.unwrap();
                (String::from_utf8(content.original.to_vec()).unwrap(), item.1.unwrap())
            }));
        }
    }

    fn read(&mut self) -> Vec<String> {
        self.read_items().into_iter().map(|(line, _)| line).collect()
    }

    /// Another agent that begins where the mark says.
    fn restart(&mut self, mark: &Mark) {
        let Mark::File(place) = mark else { panic!("{mark:?}") };
        self.follower = Follower::new(self.path("log"), maker(), Some(place.clone()), Duration::ZERO);
    }
}

#[test]
fn growth_is_followed_and_an_unfinished_line_waits() {
    let mut case = Case::new();
    assert!(case.read().is_empty(), "a file that does not exist yet is waited for");
    case.write("log", "one\ntw");
    assert_eq!(case.read(), ["one"]);
    case.write("log", "o\nthree");
    assert_eq!(case.read(), ["two"]);
    assert_eq!(case.follower.finish().len(), 1);
    assert!(case.follower.finish().is_empty());
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_the_new_one() {
    let mut case = Case::new();
    case.write("log", "one\n");
    assert_eq!(case.read(), ["one"]);
    fs::rename(case.path("log"), case.path("log.1")).unwrap();
    case.write("log.1", "late\nunfinished");
    case.write("log", "new\n");
    assert_eq!(case.read(), ["late", "unfinished", "new"]);
}

#[test]
fn a_truncated_file_is_read_anew_even_when_it_has_grown_past_our_place() {
    let mut case = Case::new();
    case.write("log", "first one\npart");
    assert_eq!(case.read(), ["first one"]);
    fs::write(case.path("log"), "x\n").unwrap();
    assert_eq!(case.read(), ["part", "x"]);
    fs::write(case.path("log"), "another and much longer one\n").unwrap();
    assert_eq!(case.read(), ["another and much longer one"]);
}

#[test]
fn a_restart_goes_on_where_it_stopped() {
    let mut case = Case::new();
    case.write("log", "one\ntwo\nthree\n");
    let items = case.read_items();
    case.restart(&items[1].1);
    assert_eq!(case.read(), ["three"]);
    // Rotated while away.
    fs::rename(case.path("log"), case.path("log.1")).unwrap();
    case.write("log", "new\n");
    case.restart(&items[0].1);
    assert_eq!(case.read(), ["two", "three", "new"]);
    // Gone while away; the new file may have the same inode.
    fs::remove_file(case.path("log.1")).unwrap();
    case.restart(&items[0].1);
    assert_eq!(case.read(), ["new"]);
}

#[test]
fn after_a_restart_within_its_first_bytes_a_file_is_still_recognized_by_all_of_them() {
    let mut case = Case::new();
    case.write("log", "one\npart");
    let items = case.read_items();
    case.restart(&items[0].1);
    case.write("log", "\n");
    assert_eq!(case.read(), ["part"]);
    assert_eq!(case.follower.open.as_ref().unwrap().id.beginning, b"one\npart\n");
}

#[test]
fn a_restart_inside_a_long_line_goes_on_numbering_its_pieces() {
    let mut case = Case::new();
    let line = "x".repeat(LINE_MAX_BYTES * 2 + 5);
    case.write("log", &format!("{line}\n"));
    let items = case.read_items();
    assert_eq!(items.len(), 3);
    case.restart(&items[0].1);
    let rest = case.follower.read().unwrap();
    let fragments: Vec<_> = rest
        .iter()
        .map(|item| Fields::decode(item.0.as_ref()).content.unwrap().fragment.map(|f| (f.index, f.last)))
        .chain(
            case.follower
                .read()
                .unwrap()
                .iter()
                .map(|item| Fields::decode(item.0.as_ref()).content.unwrap().fragment.map(|f| (f.index, f.last))),
        )
        .collect();
    assert_eq!(fragments, [Some((1, false)), Some((2, true))]);
}

#[test]
fn the_bytes_of_a_line_arrive_unchanged() {
    let mut case = Case::new();
    fs::write(case.path("log"), b"\xff\x00\x1b[31m\r\n").unwrap();
    let items = case.follower.read().unwrap();
    let content = Fields::decode(items[0].0.as_ref()).content.unwrap();
    assert_eq!(*content.original, *b"\xff\x00\x1b[31m\r");
}
