//! The agent at work: from sources through the engine to the journal.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sd_notify::NotifyState;
use sigillo_client::{
    ClientError, Guard,
    spooled::{Chunk as Spooled, Engine, Loss, Options},
    unix_nanos,
};
use sigillo_model::ids::Epoch;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    AGENT, AgentError, Config, FileSettings,
    declare::{self, Declarer},
    feed::Feeder,
    receipts::Receipts,
    record::Maker,
    scrub::Scrubber,
    source::{Feed, Marks, audit, file, journald, socket, stdin},
    state::StateDir,
    status::{Board, Status},
};

/// Chunks that sources may hand over before one is taken.
const CHUNKS: usize = 4;
/// How often receipts are written down while more come.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked which of them a checkpoint has covered, when none come.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a stop waits for the last acks.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// How long the agent works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is stopped, or its only source, standard input, ends.
    Follow,
    /// Until what is there now is acknowledged.
    Once,
}

/// Ships until everything is shipped or `stop` is cancelled. A stop waits up to 10 s for the last acks; what is not acknowledged by then
/// waits in the spool.
pub async fn run(config: Config, mode: Mode, stop: CancellationToken) -> Result<(), AgentError> {
    let state_dir = Arc::new(StateDir::open(&config.state_dir)?);
    state_dir.check_not_paused()?;
    let result = ship(config, mode, stop, Arc::clone(&state_dir)).await;
    if let Err(AgentError::Client(error @ ClientError::Misconduct { .. })) = &result {
        error!("shipping pauses until a person acts: {error}");
        state_dir.pause(error)?;
    }
    result
}

async fn ship(config: Config, mode: Mode, stop: CancellationToken, state_dir: Arc<StateDir>) -> Result<(), AgentError> {
    let maker = maker(&config)?;
    let receipts = Receipts::new(state_dir.path());
    let guard = guard(&config, &receipts)?;
    let receipts = Arc::new(Mutex::new(receipts));
    let import = state_dir.load()?;
    let mut options = options(&config, mode, &maker, &state_dir);
    options.guard.clone_from(&guard);
    options.import = ((*import.marks()).clone(), Epoch::new(import.epoch));
    let (kept, fresh) = (Arc::clone(&receipts), Arc::new(Notify::new()));
    let came = Arc::clone(&fresh);
    options.on_receipt = Some(Arc::new(move |welcome, receipt| {
        kept.lock().unwrap_or_else(PoisonError::into_inner).take(welcome, receipt);
        came.notify_one();
    }));
    let mut engine = Engine::start(options).await?;

    let (chunks_end, chunks) = mpsc::channel(CHUNKS);
    let board = Arc::new(Board::default());
    let mut sources = spawn_sources(&config, &engine.marks(), mode, &maker, &chunks_end, &board);
    drop(chunks_end);
    let status = Status::serve(state_dir.path(), engine.progress(), Arc::clone(&board), &config)?;
    // We are at work even while the server is away.
    let _ = sd_notify::notify(&[NotifyState::Ready]);

    let declarer = Declarer::new(&maker);
    let started = Spooled { records: vec![declarer.started(unix_nanos())], ..Spooled::default() };
    let feeder = Feeder::new(engine.pusher(), declarer.clone(), config.limits.cpu_percent);
    let mut feeder = tokio::spawn(feeder.run(started, chunks));
    // An agent that has nothing to do sleeps.
    let due = async || {
        let _ = timeout(LOOK_EVERY, fresh.notified()).await;
        sleep(SAVE_EVERY).await;
    };
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(true),
            error = engine.ended() => break Err(error),
            _ = &mut feeder => break Ok(false),
            () = due() => {
                save(&receipts, guard.as_ref()).await;
                if import.is_there() && engine.progress().borrow().synced.0.get() > 0 {
                    state_dir.imported();
                }
            }
        }
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let drained = match ended {
        Ok(stopped) => {
            feeder.abort();
            let reason = if stopped { "stopped" } else { "all sources have ended" };
            let last = Spooled { records: vec![declarer.stopped(reason, unix_nanos())], ..Spooled::default() };
            drain(engine, last, reason, &stop).await
        }
        Err(error) => Err(error.into()),
    };
    // Also after an error: what the journal has signed is kept.
    save(&receipts, guard.as_ref()).await;
    drop(status);
    let waiting = drained?;
    if stop.is_cancelled() {
        return match (waiting, mode) {
            (0, _) => Ok(()),
            (waiting, Mode::Once) => Err(AgentError::Unacknowledged(waiting)),
            (waiting, Mode::Follow) => {
                info!(records = waiting, "stopped; what is not acknowledged waits in the spool");
                Ok(())
            }
        };
    }
    while let Some(ended) = sources.join_next().await {
        ended.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// Says that we stop, and waits for the last acks; once we are told to stop, not for long. How many records wait then.
async fn drain(engine: Engine, last: Spooled, reason: &str, stop: &CancellationToken) -> Result<u64, AgentError> {
    let patience = async {
        stop.cancelled().await;
        sleep(STOP_WAIT).await;
    };
    let pusher = engine.pusher();
    tokio::select! {
        // A spool that is full, or not there yet, takes it no more; then the journal hears of the stop by the goodbye only.
        _ = pusher.push(last) => {}
        () = sleep(SAVE_EVERY) => {}
    }
    Ok(engine.drain(reason, patience).await?)
}

fn options(config: &Config, mode: Mode, maker: &Maker, state_dir: &StateDir) -> Options {
    let declarer = Declarer::new(maker);
    let declare = move |loss: &Loss| {
        let Loss { stream, reason, from, to, records, bytes } = loss;
        let loss = declare::Loss { stream, reason, from, to, lines: *records, bytes: *bytes };
        declarer.loss(&loss, unix_nanos())
    };
    let quarantine = state_dir.path().join("quarantine");
    Options {
        max_records: config.batch.max_records,
        max_bytes: config.batch.max_bytes,
        sync_every: config.batch.max_delay(),
        resident: mode == Mode::Follow,
        bandwidth_bytes_s: config.limits.bandwidth_bytes_s,
        cpu_percent: config.limits.cpu_percent,
        refusals_are_final: mode == Mode::Once,
        ..Options::new(
            config.server.clone(),
            config.spool.options(state_dir.path()),
            quarantine,
            AGENT,
            Arc::new(declare),
        )
    }
}

/// Writes receipts down, and which of them no checkpoint has covered yet.
async fn save(receipts: &Mutex<Receipts>, guard: Option<&Arc<Guard>>) {
    let unsaved = receipts.lock().unwrap_or_else(PoisonError::into_inner).unsaved(guard.map(AsRef::as_ref));
    let Some(unsaved) = unsaved else { return };
    let written = tokio::task::spawn_blocking(move || unsaved.write()).await;
    if let Ok(Err(error)) = written {
        // They prove to others what the journal took; that it took it, the spool remembers.
        error!(%error, "receipts can't be kept: free space, or correct the directory's rights");
    }
}

/// What the server is held to, if there is a trust file.
fn guard(config: &Config, receipts: &Receipts) -> Result<Option<Arc<Guard>>, AgentError> {
    let Some(trust) = &config.server.trust else {
        warn!("there is no trust file (`server.trust`): checkpoints and receipts of the server are not verified");
        return Ok(None);
    };
    let dir = config.server.remember.as_ref().unwrap_or(&config.state_dir);
    let guard = Guard::open(trust, dir, Duration::from_secs(config.checkpoint_grace_s))?;
    guard.hold(receipts.open()?);
    Ok(Some(Arc::new(guard)))
}

/// What all sources make their records with.
pub(crate) fn maker(config: &Config) -> Result<Maker, AgentError> {
    let wrong = |what| AgentError::Config { path: PathBuf::from("agent.toml"), what };
    let scrubber = Scrubber::new(&config.scrub).map_err(wrong)?;
    Ok(Maker::new(&config.host, &config.tenant, Arc::new(scrubber)))
}

fn spawn_sources(
    config: &Config,
    marks: &Marks,
    mode: Mode,
    maker: &Maker,
    chunks: &mpsc::Sender<crate::source::Chunk>,
    board: &Board,
) -> JoinSet<Result<(), AgentError>> {
    let mut sources = JoinSet::new();
    let feed = Feed::new(chunks.clone());
    if !config.files.is_empty() {
        let table = |file: &FileSettings| (file.clone(), maker.clone(), board.meter(&file.name()));
        sources.spawn(file::follow(config.files.iter().map(table).collect(), Arc::clone(marks), mode, feed.clone()));
    }
    for settings in &config.journald {
        let (maker, meter) = (maker.of("journald"), board.meter(&settings.name()));
        sources.spawn(journald::follow(settings.clone(), maker, Arc::clone(marks), mode, feed.clone(), meter));
    }
    for settings in &config.audit {
        let (maker, marks, meter) = (maker.clone(), Arc::clone(marks), board.meter(&settings.name()));
        sources.spawn(audit::follow(settings.clone(), maker, marks, mode, feed.clone(), meter));
    }
    for settings in &config.sockets {
        let (maker, meter) = (maker.of("socket"), board.meter(&format!("socket {}", settings.path.display())));
        sources.spawn(socket::follow(settings.clone(), maker, mode, feed.clone(), meter));
    }
    if config.reads_stdin() {
        sources.spawn(stdin::follow(maker.of("stdin"), feed, board.meter("stdin")));
    }
    sources
}

#[cfg(test)]
mod tests {
    use std::{fs, io, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn every_table_is_counted_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let sources = "[[file]]\npath = 'a.log'\n[[file]]\nglob = '*.txt'\n[[audit]]\npath = 'one'\n[[audit]]\npath = 'two'\n\
            [[journald]]\nunits = ['a.service', 'b']\ndirectory = 'none'\n[[journald]]\ndirectory = 'none'\n\
            [[socket]]\npath = 's1'\n[[socket]]\npath = 's2'\n";
        let text =
            format!("state_dir = 'state'\n[server]\nurl = 'https://a'\nca = 'c'\ncert = 'c'\nkey = 'k'\n{sources}");
        fs::write(dir.path().join("agent.toml"), text).unwrap();
        let config = Config::load(&dir.path().join("agent.toml")).unwrap();
        let (chunks, _taker) = mpsc::channel(1);
        let board = Board::default();
        let _sources =
            spawn_sources(&config, &Marks::default(), Mode::Follow, &maker(&config).unwrap(), &chunks, &board);
        let folder = dir.path().display();
        let mut expected = [
            format!("{folder}/a.log"),
            format!("{folder}/*.txt"),
            format!("audit {folder}/one"),
            format!("audit {folder}/two"),
            format!("journald a.service,b in {folder}/none"),
            format!("journald in {folder}/none"),
            format!("socket {folder}/s1"),
            format!("socket {folder}/s2"),
        ];
        expected.sort();
        assert_eq!(board.names(), expected);
    }

    #[tokio::test]
    async fn an_agent_that_could_not_remember_ships_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let config = format!(
            "state_dir = \"state\"\n[server]\nurl = \"https://{}\"\nca = \"ca\"\ncert = \"cert\"\nkey = \"key\"\n\
             [[file]]\npath = \"{}\"\n",
            listener.local_addr().unwrap(),
            dir.path().join("log").display()
        );
        fs::write(dir.path().join("agent.toml"), config).unwrap();
        // Where the spool would be something stands in the way, also for root.
        fs::create_dir_all(dir.path().join("state")).unwrap();
        fs::write(dir.path().join("state/spool"), "").unwrap();
        let config = Config::load(&dir.path().join("agent.toml")).unwrap();
        let error = run(config, Mode::Once, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, AgentError::Client(ClientError::Spool(_))), "{error}");
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "it has not even connected");
    }
}
