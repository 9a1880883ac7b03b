//! Random writes, rotations, looks and restarts against a model: every line comes once and in order, or its loss is declared.

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

use super::*;
use crate::source::file::{content::FileId, mark::Mark, print::Fit};

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// So many lines, each padded to so many bytes.
    Lines(u8, u16),
    /// Half a line; the next act but a rotation by truncation ends it.
    Part,
    Rename,
    CopyTruncate,
    Truncate,
    Remove,
    /// Compresses what was rotated last.
    Compress,
    /// The agent looks once, takes so many chunks.
    Look(u8),
    /// Time passes.
    Wait,
    /// The agent is killed, perhaps before what it handed over last was kept.
    Kill(bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..30u8, prop_oneof![4 => 0..20u16, 1 => 0..2_000u16]).prop_map(|(count, pad)| Act::Lines(count, pad)),
        1 => Just(Act::Part),
        3 => Just(Act::Rename),
        2 => Just(Act::CopyTruncate),
        1 => Just(Act::Truncate),
        1 => Just(Act::Remove),
        2 => Just(Act::Compress),
        6 => (0..4u8).prop_map(Act::Look),
        2 => Just(Act::Wait),
        2 => any::<bool>().prop_map(Act::Kill),
    ]
}

/// The writer, and what it knows.
struct Writer {
    next: u32,
    is_inside: bool,
    /// Lines that stand in files that are gone for good.
    destroyed: Vec<u32>,
    /// Those of them of which the agent can't know: nothing of their file was read.
    unknown: Vec<u32>,
    /// `log` holds something new since the agent looked last.
    is_fresh: bool,
    /// Lines in `log`.
    current: Vec<u32>,
}

impl Writer {
    fn line(&mut self, agent: &Agent, pad: u16) {
        let (number, pad) = (self.next, "x".repeat(pad.into()));
        agent.append("log", format!("{number} {pad}\n").as_bytes());
        self.current.push(number);
        self.next += 1;
    }

    /// Moves the rotated files one number up.
    fn make_room(agent: &Agent) {
        let mut number = 1;
        while [format!("log.{number}"), format!("log.{number}.gz")].iter().any(|name| agent.path(name).exists()) {
            number += 1;
        }
        for number in (1..number).rev() {
            for end in ["", ".gz"] {
                let (old, new) = (format!("log.{number}{end}"), format!("log.{}{end}", number + 1));
                if agent.path(&old).exists() {
                    fs::rename(agent.path(&old), agent.path(&new)).unwrap();
                }
            }
        }
    }

    fn destroy(&mut self, agent: &Agent) {
        let id = FileId::of(&fs::metadata(agent.path("log")).unwrap());
        let mut marks = agent.marks.values().filter_map(|bytes| Mark::parse(bytes));
        let bytes = fs::read(agent.path("log")).unwrap();
        let is_read = |mark: Mark| mark.id.is(&id) && mark.offset > 0 && mark.head.fits(&bytes) == Fit::Same;
        if self.is_fresh || !marks.any(is_read) {
            self.unknown.extend(&self.current);
        }
        self.destroyed.append(&mut self.current);
        self.is_fresh = true;
    }

    fn act(&mut self, agent: &mut Agent, act: Act) {
        // A line that was begun is ended before anything else is written or moved.
        if self.is_inside && !matches!(act, Act::Look(_) | Act::Wait | Act::Kill(_)) {
            agent.append("log", b"end\n");
            self.is_inside = false;
        }
        match act {
            Act::Lines(count, pad) => (0..count).for_each(|_| self.line(agent, pad)),
            Act::Part => {
                agent.append("log", format!("{} ", self.next).as_bytes());
                self.current.push(self.next);
                self.next += 1;
                self.is_inside = true;
            }
            Act::Rename | Act::CopyTruncate if agent.path("log").exists() => {
                Self::make_room(agent);
                if matches!(act, Act::Rename) {
                    agent.run("mv log log.1");
                } else {
                    agent.run("cp log log.1; empty log");
                }
                self.current.clear();
                self.is_fresh = true;
            }
            Act::Truncate if agent.path("log").exists() => {
                self.destroy(agent);
                agent.run("empty log");
            }
            Act::Remove if agent.path("log").exists() => {
                self.destroy(agent);
                agent.run("rm log");
            }
            Act::Compress if agent.path("log.1").exists() => agent.run("gz log.1"),
            _ => {}
        }
    }
}

fn number(line: &str) -> Option<u32> {
    line.split(' ').next().unwrap().parse().ok()
}

fn run(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut agent = Agent::new();
    let mut writer = Writer {
        next: 0,
        is_inside: false,
        destroyed: Vec::new(),
        unknown: Vec::new(),
        is_fresh: true,
        current: Vec::new(),
    };
    let mut came: Vec<String> = Vec::new();
    agent.run("line log.1 history; look .");
    Agent::tick();
    for act in acts {
        if matches!(act, Act::Look(_) | Act::Kill(_)) {
            Agent::tick();
        }
        writer.act(&mut agent, *act);
        match act {
            Act::Look(chunks) => {
                writer.is_fresh = false;
                for chunk in (0..=*chunks).map_while(|_| agent.next()) {
                    came.extend(chunk.records.iter().map(shown));
                }
            }
            Act::Wait => agent.now += Duration::from_secs(3),
            Act::Kill(is_lost) => {
                let marks = agent.marks.clone();
                let chunk = agent.next().filter(|_| !is_lost);
                match chunk {
                    Some(chunk) => came.extend(chunk.records.iter().map(shown)),
                    None => agent.marks = marks,
                }
                agent.restart();
            }
            _ => {}
        }
    }
    writer.act(&mut agent, Act::Lines(1, 0));
    for _ in 0..acts.len() + 2 {
        came.extend(agent.read_long());
    }
    let losses = came.iter().filter(|line| line.starts_with("lost:")).count();
    let numbers: Vec<u32> = came.iter().filter_map(|line| number(line)).collect();
    prop_assert!(numbers.is_sorted_by(|a, b| a < b), "order or doubles: {numbers:?}");
    prop_assert!(!came.contains(&"history ".to_owned()) && !came.contains(&"history".to_owned()));
    let missing: Vec<u32> = (0..writer.next).filter(|number| numbers.binary_search(number).is_err()).collect();
    prop_assert!(
        missing.iter().all(|number| writer.destroyed.contains(number)),
        "missing though their files were there: {missing:?}, destroyed {:?}",
        writer.destroyed
    );
    let missing: Vec<u32> = missing.into_iter().filter(|number| !writer.unknown.contains(number)).collect();
    prop_assert!(missing.is_empty() || losses > 0, "lost without a word: {missing:?}");
    Ok(())
}

#[test]
fn every_line_comes_once_and_in_order_or_its_loss_is_declared() {
    let seed = std::env::var("SIGILLO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    let cases = std::env::var("SIGILLO_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let acts = prop::collection::vec(act(), 1..60);
    if let Err(error) = TestRunner::new(config).run(&acts, |acts| run(&acts)) {
        panic!("seed {seed}: {error}");
    }
}
