//! A program that writes numbered acts to the agent's socket.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Name in each act's message.
pub(super) const NAME: &str = "acts";
/// Acts on their way without an answer.
const WINDOW: usize = 8;
/// Wait before the next attempt to connect.
const RETRY: Duration = Duration::from_millis(20);
/// Longest wait for an answer; who has no room does not answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Pause between two rows of acts.
const PAUSE: Duration = Duration::from_millis(5);

/// Writes acts while a load lasts. Each number is sent once, whatever becomes of it.
#[derive(Debug)]
pub(super) struct Acts {
    path: PathBuf,
    next: u64,
    /// Numbers that were answered: the agent said that they survive.
    kept: HashSet<u64>,
}

impl Acts {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), next: 0, kept: HashSet::new() }
    }

    /// Connects and writes, again and again, until told to stop.
    pub(super) fn write_until(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            // The agent is dead or too busy: what had no answer is nobody's to count on.
            let _ = self.session(stop);
            thread::sleep(RETRY);
        }
    }

    fn session(&mut self, stop: &AtomicBool) -> Result<()> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        while !stop.load(Ordering::Relaxed) {
            let numbers = self.next..self.next + WINDOW as u64;
            self.next = numbers.end;
            let mut lines = String::new();
            for number in numbers.clone() {
                let message = format!("{NAME} {number:010} by a program");
                lines.push_str(&json!({"action": "drill.act", "session": "drill", "message": message}).to_string());
                lines.push('\n');
            }
            stream.write_all(lines.as_bytes())?;
            for number in numbers {
                let mut answer = String::new();
                answers.read_line(&mut answer)?;
                let answer: Value = serde_json::from_str(&answer).context("an answer that is no JSON")?;
                if answer["ok"] == true {
                    self.kept.insert(number);
                }
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The numbers that were answered since this was asked last.
    pub(super) fn take_kept(&mut self) -> HashSet<u64> {
        std::mem::take(&mut self.kept)
    }
}
