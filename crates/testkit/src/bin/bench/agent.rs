//! `agent`: a file of lines through a real agent to a real server: what it costs the agent, and how long a line takes.
//!
//! A line counts as acknowledged when a tail of the journal shows it: that is after the same sync after which the server answers the
//! agent, and one way over the wire later.

mod lines;
mod rsyslog;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use sigillo_client::{Connection, Responses};
use sigillo_model::record::RecordRef;
use sigillo_proto::{
    record::Fields,
    v1::{self, search_response::Message},
};
use sigillo_testkit::{
    agent::{Agent, AgentCommand},
    config::{self, READER},
    process::running_with_children,
    server::{Server, ServerCommand},
};
use tokio::{runtime::Runtime, time::timeout};

use self::lines::{LINE_BYTES, Lines};
use crate::figures::{Against, Figures};

/// Lines of the file that is shipped at full speed.
const FULL_LINES: u64 = 2_000_000;
const SOURCE: &str = "host";
/// A tenth of the rate that is asked for, bytes a second.
const TENTH_BYTES_S: u64 = 8 << 20;
const TENTH_DURING: Duration = Duration::from_secs(20);
/// Lines are written so often at that rate.
const TICK: Duration = Duration::from_millis(1);
/// Of so many lines one is timed.
const PROBE_EVERY: u64 = 37;
/// Long enough for what is looked at every 30 s.
const IDLE_DURING: Duration = Duration::from_secs(60);
/// The agent has settled after so long.
const SETTLE: Duration = Duration::from_secs(3);
/// Percent of a core, for the agent that is held to it.
const SHARE_PERCENT: f64 = 10.0;
const SHARE_DURING: Duration = Duration::from_secs(20);
/// Threads that wait for work have ended after so long, so that those which are counted stay.
const SETTLE_IDLE: Duration = Duration::from_secs(15);
/// Files of the agent that reads from all kinds of sources.
const IDLE_FILES: usize = 200;
/// Longest wait for what should come soon.
const COME_MAX: Duration = Duration::from_secs(120);
const MIB: f64 = 1_048_576.0;

/// What only probes hold.
const PROBE: &str = "sigillo-probe";

pub(crate) fn measure(runtime: &Runtime, dir: &Path, figures: &mut Figures) -> Result<()> {
    fs::create_dir_all(dir)?;
    // Programs are told the place from where they stand.
    let dir = dir.canonicalize()?;
    let file = dir.join("full.log");
    Lines::new(1).write(File::create(&file)?, FULL_LINES)?;
    let raw = FULL_LINES as f64 * LINE_BYTES as f64;
    full(runtime, &dir.join("full"), &file, raw, figures)?;
    share(&dir.join("share"), &file, figures)?;
    match rsyslog::cpu(&dir, &file, FULL_LINES)? {
        Some(cpu) => {
            figures.put("rsyslog_cpu_ms_per_mb", cpu.as_secs_f64() * 1e3 / (raw / 1e6), Against::Nothing);
        }
        None => eprintln!("SKIPPED: rsyslog_cpu_ms_per_mb: rsyslogd is not installed"),
    }
    tenth(runtime, &dir.join("tenth"), figures)?;
    all_idle(&dir.join("idle"), figures)?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// As fast as it goes: from the start of the agent until the last line is durable.
fn full(runtime: &Runtime, dir: &Path, file: &Path, raw: f64, figures: &mut Figures) -> Result<()> {
    let server = start_server(dir)?;
    let begun = Instant::now();
    let agent = start_agent(dir, &server, file)?;
    runtime.block_on(async {
        let reader = Connection::open(&server.endpoint(READER)).await?;
        let deadline = Instant::now() + COME_MAX;
        while reader.head().await?.size < FULL_LINES {
            ensure!(Instant::now() < deadline, "not all lines are shipped after {COME_MAX:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    })?;
    let elapsed = begun.elapsed().as_secs_f64();
    let (status, usage) = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    server.stop()?;
    let cpu = usage.cpu.as_secs_f64();
    figures.put("lines", FULL_LINES as f64, Against::Nothing);
    figures.put("mib_per_core_s", raw / MIB / cpu, Against::AtLeast(80.0));
    figures.put("mib_s", raw / MIB / elapsed, Against::Nothing);
    figures.put("spooled_per_raw", usage.written_bytes as f64 / raw, Against::Nothing);
    figures.put("peak_rss_mib", usage.peak_rss_bytes as f64 / MIB, Against::AtMost(50.0));
    figures.put("agent_cpu_ms_per_mb", cpu * 1e3 / (raw / 1e6), Against::Nothing);
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// What an agent uses that has more to do than it may.
fn share(dir: &Path, file: &Path, figures: &mut Figures) -> Result<()> {
    let server = start_server(dir)?;
    let tables = format!("[limits]\ncpu_percent = {SHARE_PERCENT}\n[[file]]\npath = \"{}\"\n", file.display());
    let agent = AgentCommand::new(dir, server.listen(), SOURCE, true, &tables)?.start()?;
    thread::sleep(SETTLE);
    let (begun, before) = (Instant::now(), agent.usage()?.cpu);
    thread::sleep(SHARE_DURING);
    let used = agent.usage()?.cpu.saturating_sub(before).as_secs_f64();
    // It sleeps between pieces of work, so it is held on average.
    figures.put(
        "share_cpu_percent",
        used / begun.elapsed().as_secs_f64() * 100.0,
        Against::AtMost(SHARE_PERCENT * 1.1),
    );
    agent.kill()?;
    server.stop()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// At a tenth of the rate: from a line's writing to its ack; and what the agent uses when nothing is written.
fn tenth(runtime: &Runtime, dir: &Path, figures: &mut Figures) -> Result<()> {
    let server = start_server(dir)?;
    let file = dir.join("tenth.log");
    let log = File::create(&file)?;
    let agent = start_agent(dir, &server, &file)?;
    let reader = runtime.block_on(Connection::open(&server.endpoint(READER)))?;
    let filter = v1::Filter { contains: PROBE.into(), sources: vec![SOURCE.into()], ..v1::Filter::default() };
    let request = v1::TailRequest { filter: Some(filter), reason: "bench".into(), ..v1::TailRequest::default() };
    let tail = runtime.block_on(reader.tail(request))?;
    thread::sleep(SETTLE);
    let lines = TENTH_BYTES_S * TENTH_DURING.as_secs() / LINE_BYTES as u64;
    let before = agent.usage()?.cpu;
    let seen = runtime.spawn(watch(tail, lines / PROBE_EVERY));
    write_at_rate(&log, lines)?;
    let mut latencies = runtime.block_on(async { timeout(COME_MAX, seen).await })???;
    let used = agent.usage()?.cpu.saturating_sub(before).as_secs_f64();
    figures.put("ack_p50_ms", percentile(&mut latencies, 50), Against::Nothing);
    figures.put("ack_p99_ms", percentile(&mut latencies, 99), Against::AtMost(50.0));
    figures.put("tenth_cpu_percent", used / TENTH_DURING.as_secs_f64() * 100.0, Against::Nothing);
    figures.put("idle_cpu_percent", idle(&agent)?, Against::AtMost(0.1));
    let (status, _) = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    server.stop()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// What an agent with sources of all kinds, and the journalctl that it runs, use when nothing is written.
fn all_idle(dir: &Path, figures: &mut Figures) -> Result<()> {
    let server = start_server(dir)?;
    let (logs, audit) = (dir.join("logs"), dir.join("audit.log"));
    fs::create_dir_all(&logs)?;
    for number in 0..IDLE_FILES {
        Lines::new(number as u64).write(File::create(logs.join(format!("{number}.log")))?, 1)?;
    }
    fs::write(&audit, "type=USER_LOGIN msg=audit(1700000000.123:456): pid=1 uid=0 msg='op=login res=success'\n")?;
    let tables = format!(
        "[[file]]\nglob = \"{}/*.log\"\n[[audit]]\npath = \"{}\"\n[[socket]]\npath = \"socket\"\n[[journald]]\n",
        logs.display(),
        audit.display()
    );
    let agent = AgentCommand::new(dir, server.listen(), SOURCE, true, &tables)?.start()?;
    figures.put("idle_all_cpu_percent", idle(&agent)?, Against::AtMost(0.1));
    let (status, _) = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    server.stop()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn idle(agent: &Agent) -> Result<f64> {
    thread::sleep(SETTLE_IDLE);
    let (begun, before) = (Instant::now(), running_with_children(agent.pid())?);
    thread::sleep(IDLE_DURING);
    let used = running_with_children(agent.pid())?.saturating_sub(before);
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}

fn start_server(dir: &Path) -> Result<Server> {
    fs::create_dir_all(dir)?;
    config::write(dir, &[config::Source { name: SOURCE.into(), class: "service" }])?;
    ServerCommand::configured(dir).start()
}

fn start_agent(dir: &Path, server: &Server, file: &Path) -> Result<Agent> {
    let table = format!("[[file]]\npath = \"{}\"\n", file.display());
    AgentCommand::new(dir, server.listen(), SOURCE, true, &table)?.start()
}

/// Writes lines evenly; each probe says when it was written.
fn write_at_rate(mut log: &File, lines: u64) -> Result<()> {
    let mut source = Lines::new(2);
    let begun = Instant::now();
    let mut written = 0;
    let mut burst = Vec::new();
    while written < lines {
        let micros = u64::try_from(begun.elapsed().as_micros())?;
        let due = (micros * (TENTH_BYTES_S / LINE_BYTES as u64) / 1_000_000).min(lines);
        burst.clear();
        for number in written..due {
            if number.is_multiple_of(PROBE_EVERY) {
                source.probe(&mut burst, &format!("{PROBE} {} ", monotonic_ns()));
            } else {
                source.line(&mut burst);
            }
        }
        log.write_all(&burst)?;
        written = due;
        thread::sleep(TICK);
    }
    Ok(())
}

/// Milliseconds from the writing of each probe until it was seen.
async fn watch(mut tail: Responses<v1::SearchResponse>, probes: u64) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    while (latencies.len() as u64) < probes {
        let Some(Message::Record(record)) = tail.next().await?.context("the tail has ended")?.message else { continue };
        let now = monotonic_ns();
        let content = record.content.context("a record without content")?;
        let parts = RecordRef { core: None, personal: None, content: Some(&content) };
        let original = Fields::decode(parts).content.unwrap_or_default().original;
        let line = String::from_utf8_lossy(&original);
        let mut words = line.split(' ').skip_while(|word| *word != PROBE).skip(1);
        let stamp: u64 =
            words.next().and_then(|word| word.parse().ok()).with_context(|| format!("not a probe: {line}"))?;
        latencies.push((now - stamp) as f64 / 1e6);
    }
    Ok(latencies)
}

fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
