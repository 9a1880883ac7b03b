//! Files that are rotated while they are looked at: nothing stands still between two steps of a look.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Rotations of a run.
const ROTATIONS: u32 = 150;
/// Lines written between two of them; together more than what may be some other file's by chance.
const LINES: u32 = 20;
/// More than there will be.
const KEPT: u32 = 200;

/// Writes lines and rotates, as a program and logrotate would.
fn write_and_rotate(dir: &std::path::Path) {
    let (path, mut next) = (|name: &str| dir.join(name), 0);
    for rotation in 0..ROTATIONS {
        let mut log = OpenOptions::new().append(true).create(true).open(path("log")).unwrap();
        for _ in 0..LINES {
            writeln!(log, "{next} {}", "x".repeat(40)).unwrap();
            next += 1;
        }
        Agent::tick();
        for number in (1..KEPT).rev() {
            for end in ["", ".gz"] {
                let _ = fs::rename(path(&format!("log.{number}{end}")), path(&format!("log.{}{end}", number + 1)));
            }
        }
        if rotation % 3 == 2 {
            fs::copy(path("log"), path("log.1")).unwrap();
            log.set_len(0).unwrap();
            continue;
        }
        fs::rename(path("log"), path("log.1")).unwrap();
        drop(OpenOptions::new().append(true).create(true).open(path("log")).unwrap());
        if rotation % 3 == 1 {
            pack(&path("log.1"));
            fs::remove_file(path("log.1")).unwrap();
        }
    }
}

#[test]
fn every_line_comes_once_and_in_order_however_names_change_meanwhile() {
    for restarts in [false, true] {
        let mut agent = Agent::new();
        agent.run("line log -; look .");
        let over = AtomicBool::new(false);
        let (mut found, mut looks) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            let dir = agent.dir.path().to_owned();
            scope.spawn(|| {
                let dir = dir;
                write_and_rotate(&dir);
                over.store(true, Ordering::Relaxed);
            });
            while !over.load(Ordering::Relaxed) {
                found.extend(agent.read());
                agent.now += Duration::from_secs(3);
                looks += 1;
                if restarts && looks % 4 == 0 {
                    agent.restart();
                }
            }
        });
        agent.run("line log -");
        for _ in 0..ROTATIONS {
            found.extend(agent.read_long());
        }
        let numbers: Vec<String> = found.iter().filter_map(|line| Some(line.split_once(" x")?.0.to_owned())).collect();
        let expected: Vec<String> = (0..ROTATIONS * LINES).map(|number| number.to_string()).collect();
        let wrong = numbers.iter().zip(&expected).position(|(found, expected)| found != expected);
        let wrong = wrong.unwrap_or(numbers.len().min(expected.len()));
        assert!(
            numbers == expected,
            "restarts {restarts}: after {wrong} of {}: {:?}",
            expected.len(),
            &numbers[wrong.saturating_sub(3)..numbers.len().min(wrong + 5)]
        );
    }
}
