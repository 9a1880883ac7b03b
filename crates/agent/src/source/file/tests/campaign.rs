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
    /// The agent looks after so many steps of it.
    Rename(u8),
    /// Renamed, and so many lines more are written before there is a new file.
    RenameLate(u8),
    CopyTruncate(u8),
    Truncate,
    Remove,
    /// Compresses what was rotated last.
    Compress(u8),
    /// The agent looks once, takes so many chunks.
    Look(u8),
    /// Time passes.
    Wait,
    /// The agent is killed, and what it handed over last, so many chunks of it, was not kept.
    Kill(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..30u8, prop_oneof![4 => 0..20u16, 1 => 0..2_000u16]).prop_map(|(count, pad)| Act::Lines(count, pad)),
        1 => Just(Act::Part),
        3 => (0..12u8).prop_map(Act::Rename),
        1 => (1..4u8).prop_map(Act::RenameLate),
        3 => (0..12u8).prop_map(Act::CopyTruncate),
        1 => Just(Act::Truncate),
        1 => Just(Act::Remove),
        2 => (0..4u8).prop_map(Act::Compress),
        6 => (0..4u8).prop_map(Act::Look),
        2 => Just(Act::Wait),
        2 => (0..6u8).prop_map(Act::Kill),
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
    /// Files that were destroyed since the agent was killed last.
    destroyed_since: Vec<Destroyed>,
    /// `log` holds something new since the agent looked last.
    is_fresh: bool,
    /// Lines in `log`.
    current: Vec<u32>,
}

/// A file that is gone for good.
struct Destroyed {
    id: FileId,
    bytes: Vec<u8>,
    lines: Vec<u32>,
}

impl Destroyed {
    /// Whether the agent remembers that it read something of it.
    fn is_read(&self, agent: &Agent) -> bool {
        let is_read = |mark: Mark| mark.id.is(&self.id) && mark.offset > 0 && mark.head.fits(&self.bytes) == Fit::Same;
        agent.marks.values().filter_map(|bytes| Mark::parse(bytes)).any(is_read)
    }
}

impl Writer {
    fn line(&mut self, agent: &Agent, pad: u16) {
        let (number, pad) = (self.next, "x".repeat(pad.into()));
        agent.append("log", format!("{number} {pad}\n").as_bytes());
        self.current.push(number);
        self.next += 1;
    }

    /// The steps that move the rotated files one number up.
    fn make_room(agent: &Agent) -> Vec<String> {
        let is_there = |name: &str| agent.path(name).exists();
        let names =
            |number: u32| ["", ".gz"].map(|end| (format!("log.{number}{end}"), format!("log.{}{end}", number + 1)));
        let last = (1..).take_while(|number| names(*number).iter().any(|(name, _)| is_there(name)));
        let all = last.collect::<Vec<_>>().into_iter().rev().flat_map(names).filter(|(old, _)| is_there(old));
        all.map(|(old, new)| format!("mv {old} {new}")).collect()
    }

    fn destroy(&mut self, agent: &Agent) {
        let id = FileId::of(&fs::metadata(agent.path("log")).unwrap());
        let lines = std::mem::take(&mut self.current);
        self.destroyed.extend(&lines);
        let file = Destroyed { id, bytes: fs::read(agent.path("log")).unwrap(), lines };
        if self.is_fresh || !file.is_read(agent) {
            self.unknown.extend(&file.lines);
        }
        self.destroyed_since.push(file);
        self.is_fresh = true;
    }

    /// The agent has forgotten the last chunks, and perhaps with them what it read of files that are gone.
    fn forgotten(&mut self, agent: &Agent) {
        for file in self.destroyed_since.drain(..).filter(|file| !file.is_read(agent)) {
            self.unknown.extend(file.lines);
        }
    }

    /// Carries out the steps. The agent looks in the middle, after so many of them.
    fn rotate(agent: &mut Agent, steps: &[String], look_after: u8, came: &mut Came) {
        for (index, step) in steps.iter().enumerate() {
            if index == usize::from(look_after) {
                Agent::tick();
                came.look(agent, 1);
            }
            agent.run(step);
        }
    }

    fn act(&mut self, agent: &mut Agent, act: Act, came: &mut Came) {
        // A line that was begun is ended before anything else is written or moved.
        if self.is_inside && !matches!(act, Act::Look(_) | Act::Wait | Act::Kill(_)) {
            agent.append("log", b"end\n");
            self.is_inside = false;
            Agent::tick();
        }
        match act {
            Act::Lines(count, pad) => (0..count).for_each(|_| self.line(agent, pad)),
            Act::Part => {
                agent.append("log", format!("{} ", self.next).as_bytes());
                self.current.push(self.next);
                self.next += 1;
                self.is_inside = true;
            }
            Act::Rename(look_after) | Act::CopyTruncate(look_after) if agent.path("log").exists() => {
                let mut steps = Self::make_room(agent);
                let is_copied = matches!(act, Act::CopyTruncate(_));
                let last: &[&str] = if is_copied { &["cp log log.1", "empty log"] } else { &["mv log log.1"] };
                steps.extend(last.iter().map(ToString::to_string));
                Self::rotate(agent, &steps, look_after, came);
                self.current.clear();
                self.is_fresh = true;
            }
            Act::RenameLate(count) if agent.path("log").exists() => {
                let mut steps = Self::make_room(agent);
                steps.push("mv log log.1".to_owned());
                for _ in 0..count {
                    steps.push(format!("line log.1 {} late", self.next));
                    self.next += 1;
                }
                Self::rotate(agent, &steps, u8::MAX, came);
                agent.run("empty log");
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
            Act::Compress(look_after) if agent.path("log.1").exists() => {
                let steps = ["pack log.1", "rm log.1"].map(str::to_owned);
                Self::rotate(agent, &steps, look_after, came);
            }
            _ => {}
        }
    }
}

fn number(line: &str) -> Option<u32> {
    line.split(' ').next().unwrap().parse().ok()
}

/// What was handed over, and how far it was kept at each time.
#[derive(Default)]
struct Came {
    lines: Vec<String>,
    /// Marks after each chunk, and how many lines there were.
    kept: Vec<(BTreeMap<Arc<str>, Bytes>, usize)>,
}

impl Came {
    fn look(&mut self, agent: &mut Agent, chunks: u8) {
        for _ in 0..=chunks {
            let before = agent.marks.clone();
            let chunk = agent.next();
            if chunk.is_some() || agent.marks != before {
                self.kept.push((before, self.lines.len()));
            }
            let Some(chunk) = chunk else { break };
            self.lines.extend(chunk.records.iter().map(shown));
        }
    }

    /// The power fails, and the last so many chunks are gone.
    fn lose(&mut self, agent: &mut Agent, chunks: u8) {
        for _ in 0..chunks {
            let Some((marks, lines)) = self.kept.pop() else { break };
            agent.marks = marks;
            self.lines.truncate(lines);
        }
        // Nobody loses what was kept long ago.
        self.kept.clear();
        agent.restart();
    }
}

fn run(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut agent = Agent::new();
    let mut writer = Writer {
        next: 0,
        is_inside: false,
        destroyed: Vec::new(),
        unknown: Vec::new(),
        destroyed_since: Vec::new(),
        is_fresh: true,
        current: Vec::new(),
    };
    let mut came = Came::default();
    agent.run("line log.1 history; look .");
    Agent::tick();
    for act in acts {
        if !matches!(act, Act::Lines(..) | Act::Part | Act::Wait) {
            Agent::tick();
        }
        writer.act(&mut agent, *act, &mut came);
        match act {
            Act::Look(chunks) => {
                writer.is_fresh = false;
                came.look(&mut agent, *chunks);
            }
            Act::Wait => agent.now += Duration::from_secs(3),
            Act::Kill(chunks) => {
                came.look(&mut agent, 0);
                came.lose(&mut agent, *chunks);
                writer.forgotten(&agent);
            }
            _ => {}
        }
    }
    writer.act(&mut agent, Act::Lines(1, 0), &mut came);
    let mut came = came.lines;
    for _ in 0..acts.len() + 2 {
        came.extend(agent.read_long());
    }
    let numbers: Vec<u32> = came.iter().filter_map(|line| number(line)).collect();
    prop_assert!(numbers.is_sorted_by(|a, b| a < b), "order or doubles: {numbers:?}");
    prop_assert!(!came.contains(&"history ".to_owned()) && !came.contains(&"history".to_owned()));
    let missing: Vec<u32> = (0..writer.next).filter(|number| numbers.binary_search(number).is_err()).collect();
    prop_assert!(
        missing.iter().all(|number| writer.destroyed.contains(number)),
        "missing though their files were there: {missing:?}, destroyed {:?}",
        writer.destroyed
    );
    let is_declared = |missing: u32| {
        let from =
            came.iter().rposition(|line| number(line).is_some_and(|number| number < missing)).unwrap_or_default();
        let rest = came.iter().skip(from).take_while(|line| number(line).is_none_or(|number| number < missing));
        rest.into_iter().any(|line| line.starts_with("lost:"))
    };
    let silent: Vec<u32> =
        missing.into_iter().filter(|number| !writer.unknown.contains(number) && !is_declared(*number)).collect();
    prop_assert!(silent.is_empty(), "lost without a word: {silent:?} of {came:?}");
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
