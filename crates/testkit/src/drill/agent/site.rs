//! A journal with its server, and an agent with its files, through many faults.

use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rand::Rng;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use sigillo_client::Connection;
use sigillo_journal::verify::verify;
use tempfile::TempDir;
use tokio::{
    task::{block_in_place, spawn_blocking},
    time::sleep,
};

use super::{
    act::{Act, Side},
    acts::Acts,
    ledger::Ledger,
    load,
};
use crate::{
    agent::{Agent, AgentCommand},
    config,
    machine::{Machine, Shims},
    numbered::NumberedLog,
    server::{Server, ServerCommand},
    wire::{Flow, Wire},
};

const SOURCE: &str = "host";
/// Files that an agent reads.
const FILES: u64 = 4;
/// Lines of the logs that are shown after a failure.
const LOG_LINES: usize = 15;
/// Longest wait for everything to arrive once all is well. A sender that has failed often waits up to 30 s for its next attempt.
const ARRIVE_MAX: Duration = Duration::from_secs(90);
/// How often the journal is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Acts of a trial.
const ACTS_MAX: u32 = 8;
/// Longest pause before an act.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// A journal with its server, and an agent with its files.
pub(super) struct Site {
    pub(super) trials: u32,
    server: Option<Server>,
    agent: Option<Agent>,
    server_command: ServerCommand,
    agent_command: AgentCommand,
    server_machine: Machine,
    agent_machine: Machine,
    /// Whether the server waits for somebody to confirm its clock.
    clock_stepped: bool,
    /// Whether the disk has been full since the last start.
    server_was_full: bool,
    agent_was_full: bool,
    wire: Wire,
    logs: Vec<NumberedLog>,
    /// Taken by whoever writes.
    acts: Option<Acts>,
    ledger: Ledger,
    dir: TempDir,
}

/// How a trial went.
#[derive(Debug, Default)]
pub(super) struct Survived {
    faults: Vec<Act>,
    /// Lines, and acts that were answered.
    pub(super) written: u64,
    pub(super) found: u64,
    pub(super) declared: u64,
    pub(super) unseen: u64,
    needless: u64,
    size: u64,
    took: Duration,
}

impl Site {
    /// A fresh site. Every second one is of class panel, three of four have a trust file.
    pub(super) async fn new(shims: &Shims, row: u32, lie: bool, seed: u64) -> Result<Self> {
        let dir = TempDir::with_prefix("sigillo-agent-drill-")?;
        let path = dir.path();
        let class = if row.is_multiple_of(2) { "service" } else { "panel" };
        config::write(path, &[config::Source { name: SOURCE.into(), class }])?;
        let files = path.join("files");
        std::fs::create_dir(&files)?;
        let logs: Vec<NumberedLog> = (0..FILES)
            .map(|number| NumberedLog::new(&files, &format!("app-{number}"), seed.wrapping_add(number)))
            .collect::<Result<_>>()?;
        let tables: Vec<String> =
            logs.iter().map(|log| format!("[[file]]\npath = \"{}\"\n", log.path().display())).collect();
        let socket = path.join("socket");
        let tables = tables.concat() + &format!("[[socket]]\npath = \"{}\"\n", socket.display());
        let wire = Wire::new().await?;
        let trusts = !row.is_multiple_of(4);
        let mut agent_command = AgentCommand::new(path, wire.address(), SOURCE, trusts, &tables)?;
        let mut server_command = ServerCommand::configured(path);
        let server_machine = Machine::new(shims, path, "server", &server_command.data_dir(), lie)?;
        let agent_machine = Machine::new(shims, path, "agent", &agent_command.state_dir(), lie)?;
        for (name, value) in server_machine.environment() {
            server_command = server_command.env(name, value);
        }
        for (name, value) in agent_machine.environment() {
            agent_command = agent_command.env(name, value);
        }
        let ledger = Ledger::new(&logs)?;
        Ok(Self {
            trials: 0,
            server: None,
            agent: None,
            server_command,
            agent_command,
            server_machine,
            agent_machine,
            clock_stepped: false,
            server_was_full: false,
            agent_was_full: false,
            wire,
            logs,
            acts: Some(Acts::new(&socket)),
            ledger,
            dir,
        })
    }

    /// Lets the agent meet its files, so that it knows them from then on.
    pub(super) async fn introduce(&mut self) -> Result<()> {
        self.make_well()?;
        load::close(&mut self.logs)?;
        self.account().await.map(drop)
    }

    /// Load with faults in the middle, then everything well, then the account.
    pub(super) async fn hold(&mut self, records: u64, lie: bool, random: &mut ChaCha12Rng) -> Result<Survived> {
        let began = Instant::now();
        let before = (self.ledger.found, self.ledger.declared, self.ledger.needless, self.ledger.unseen);
        let first: u64 = self.logs.iter().map(NumberedLog::next).sum();
        let (mut logs, mut acts) = (mem::take(&mut self.logs), self.acts.take().context("somebody else writes acts")?);
        let mut load_random = ChaCha12Rng::seed_from_u64(random.random());
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let acting = spawn_blocking(move || {
            acts.write_until(&until);
            acts
        });
        let writing = spawn_blocking(move || {
            let written = load::write(&mut logs, records, &mut load_random);
            over.store(true, Ordering::Relaxed);
            (logs, written)
        });
        let mut faults: Vec<Act> = (0..random.random_range(1..=ACTS_MAX)).map(|_| Act::any(random)).collect();
        if lie {
            faults.push(Act::KillBoth { power: true });
        }
        let mut inflicted = Ok(());
        for act in &faults {
            sleep(random.random_range(Duration::ZERO..PAUSE_MAX)).await;
            inflicted = block_in_place(|| self.inflict(*act)).with_context(|| act.to_string());
            if inflicted.is_err() {
                break;
            }
        }
        let (logs, written) = writing.await?;
        self.logs = logs;
        let acts = self.acts.insert(acting.await?);
        let kept = acts.take_kept();
        let answered = kept.len() as u64;
        self.ledger.kept(kept);
        written?;
        inflicted?;
        let told = || faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.make_well().with_context(|| format!("after {}", told()))?;
        load::close(&mut self.logs)?;
        let size = self.account().await.with_context(|| format!("after {}", told()))?;
        let last: u64 = self.logs.iter().map(NumberedLog::next).sum();
        for log in &mut self.logs {
            log.forget(log.next())?;
        }
        Ok(Survived {
            written: last - first + answered,
            found: self.ledger.found - before.0,
            declared: self.ledger.declared - before.1,
            needless: self.ledger.needless - before.2,
            unseen: self.ledger.unseen - before.3,
            faults,
            size,
            took: began.elapsed(),
        })
    }

    fn inflict(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Kill { side, power } => {
                self.kill(side)?;
                if power { self.cut_power(side) } else { Ok(()) }
            }
            Act::KillBoth { power } => {
                for side in [Side::Agent, Side::Server] {
                    self.kill(side)?;
                }
                if power { self.cut_power(Side::Agent).and_then(|()| self.cut_power(Side::Server)) } else { Ok(()) }
            }
            Act::Stop(Side::Agent) => {
                if let Some(agent) = self.agent.take() {
                    agent.stop()?;
                }
                Ok(())
            }
            Act::Stop(Side::Server) => {
                if let Some(server) = self.server.take() {
                    server.stop()?;
                }
                Ok(())
            }
            Act::Start(side) => {
                let was_full = self.was_full(side);
                // Who finds a full disk may refuse to start, and is started again later.
                self.start(side).or_else(|error| if was_full { Ok(()) } else { Err(error) })
            }
            Act::StartAndKill(side, after) => {
                let was_full = self.was_full(side);
                let done = match side {
                    Side::Agent if self.agent.is_none() => self.agent_command.start_and_kill(after),
                    Side::Server if self.server.is_none() => self.server_command.start_and_kill(after),
                    _ => Ok(()),
                };
                done.or_else(|error| if was_full { Ok(()) } else { Err(error) })
            }
            Act::Link(flow) => {
                self.wire.set(flow);
                Ok(())
            }
            Act::Room(side, room) => {
                *self.was_full_mut(side) |= room.is_some();
                self.machine(side).set_room(room)
            }
            Act::Clock(Side::Agent, ms) => self.agent_machine.step_clock(ms * 1_000_000),
            Act::Clock(Side::Server, ms) => {
                self.clock_stepped = true;
                self.server_machine.step_clock(ms * 1_000_000)
            }
        }
    }

    /// Mends whatever is broken.
    fn make_well(&mut self) -> Result<()> {
        self.wire.set(Flow::Open);
        block_in_place(|| {
            for side in [Side::Agent, Side::Server] {
                self.machine(side).set_room(None)?;
                self.start_again(side)?;
            }
            if mem::take(&mut self.clock_stepped)
                && let Some(server) = &self.server
            {
                server.confirm_clock()?;
            }
            Ok(())
        })
    }

    /// Starts it if it does not run; it may have ended by itself only if its disk was full.
    fn start_again(&mut self, side: Side) -> Result<()> {
        let ended = match side {
            Side::Agent => self.agent.as_ref().map(Agent::has_ended),
            Side::Server => self.server.as_ref().map(Server::has_ended),
        };
        if ended.transpose()?.unwrap_or(false) {
            ensure!(self.was_full(side), "the {side:?} has ended by itself");
            self.kill(side)?;
        }
        *self.was_full_mut(side) = false;
        self.start(side)
    }

    fn start(&mut self, side: Side) -> Result<()> {
        match side {
            Side::Agent if self.agent.is_none() => self.agent = Some(self.agent_command.start()?),
            Side::Server if self.server.is_none() => {
                let server = self.server_command.start()?;
                self.wire.lead_to(server.listen());
                self.server = Some(server);
                self.clock_stepped = false;
            }
            _ => {}
        }
        Ok(())
    }

    fn kill(&mut self, side: Side) -> Result<()> {
        match side {
            Side::Agent => self.agent.take().map_or(Ok(()), Agent::kill),
            Side::Server => self.server.take().map_or(Ok(()), |server| server.kill().map(drop)),
        }
    }

    fn cut_power(&self, side: Side) -> Result<()> {
        self.machine(side).cut_power().map(drop)
    }

    fn machine(&self, side: Side) -> &Machine {
        if side == Side::Agent { &self.agent_machine } else { &self.server_machine }
    }

    fn was_full(&self, side: Side) -> bool {
        if side == Side::Agent { self.agent_was_full } else { self.server_was_full }
    }

    fn was_full_mut(&mut self, side: Side) -> &mut bool {
        if side == Side::Agent { &mut self.agent_was_full } else { &mut self.server_was_full }
    }

    /// Waits until everything has arrived, and holds it against what was written.
    async fn account(&mut self) -> Result<u64> {
        let deadline = Instant::now() + ARRIVE_MAX;
        loop {
            let server = self.server.as_ref().context("the server does not run")?;
            let connection = Connection::open(&server.endpoint(config::READER)).await?;
            let size = self.ledger.follow(&connection).await?;
            if self.ledger.is_complete(&self.logs) {
                self.ledger.settle(&self.logs)?;
                return Ok(size);
            }
            let agent = self.agent.as_ref().context("the agent does not run")?;
            ensure!(!agent.has_ended()?, "the agent has ended by itself");
            if Instant::now() > deadline {
                bail!("not arrived within {ARRIVE_MAX:?}: {}", self.ledger.missing(&self.logs));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Stops both in good order and verifies the database itself.
    pub(super) async fn retire(mut self) -> Result<()> {
        let size = self.account().await?;
        block_in_place(|| {
            let (status, _) = self.agent.take().context("the agent does not run")?.stop()?;
            ensure!(status.success(), "the agent stopped with {status}:\n{}", self.agent_command.log_tail());
            let stopped = self.server.take().context("the server does not run")?.stop()?;
            ensure!(stopped.status.success(), "the server stopped with {}", stopped.status);
            let report =
                verify(&self.server_command.data_dir(), |_| {}).map_err(|error| anyhow!("after the stop: {error}"))?;
            ensure!(report.records >= size, "{} records after the stop, {size} before", report.records);
            Ok(())
        })
    }

    /// The ends of both logs, indented, and where the files are, which stay.
    pub(super) fn last_words(self) -> String {
        let last = |name: &str, log: String| {
            let lines: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            format!("    the {name}'s log ends:\n      {}\n", lines.join("\n      "))
        };
        let words = last("agent", self.agent_command.log_tail()) + &last("server", self.server_command.log_tail());
        let dir = self.dir.keep();
        format!("{words}    all files are in {}", dir.display())
    }
}

impl fmt::Display for Survived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, written, found, declared, unseen, needless, size, took } = self;
        let faults = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "{written} written, {found} found, {declared} declared lost, {size} records")?;
        if *unseen > 0 {
            write!(f, ", {unseen} in files that came and went unseen")?;
        }
        if *needless > 0 {
            write!(f, ", {needless} needless declarations")?;
        }
        write!(f, ", {:.1} s: {faults}", took.as_secs_f64())
    }
}
