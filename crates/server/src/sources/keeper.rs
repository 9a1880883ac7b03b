//! Looks each second who is silent, makes it known, and keeps the file.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use metrics::Gauge;
use sigillo_model::ids::SourceId;
use sigillo_proto::v1;
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Sources, file,
    register::{Entry, Report},
};
use crate::{
    config::Settings,
    identity::{Directory, Identities},
    own::{Event, Own},
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Own records that wait for a journal that takes none. The oldest go first: the newer ones say how it is.
const WAITING_MAX: usize = 65_536;

/// The task.
pub(crate) struct Keeper {
    sources: Arc<Sources>,
    identities: Arc<Identities>,
    own: Own,
    path: PathBuf,
    gauges: HashMap<SourceId, Gauges>,
    /// Records that are not durable yet.
    waiting: Vec<Event>,
}

impl Keeper {
    /// Looks after `sources`.
    pub(crate) fn new(settings: &Settings, sources: &Arc<Sources>, identities: &Arc<Identities>, own: &Own) -> Self {
        Self {
            sources: Arc::clone(sources),
            identities: Arc::clone(identities),
            own: own.clone(),
            path: file::path(&settings.data_dir),
            gauges: HashMap::new(),
            waiting: Vec::new(),
        }
    }

    /// Ends when the server begins to stop: who leaves from then on was sent away. The file is to be written once more after that.
    pub(crate) async fn run(mut self, closing: CancellationToken) -> Self {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saved = Instant::now();
        loop {
            tokio::select! {
                () = closing.cancelled() => return self,
                _ = look.tick() => {}
            }
            let news = self.look();
            self.record().await;
            // At once, so that who was reported is not reported again after a crash.
            if news || saved.elapsed() >= SAVE_EVERY {
                self.save().await;
                saved = Instant::now();
            }
        }
    }

    /// Makes known who is silent and who is heard again; returns whether somebody is.
    fn look(&mut self) -> bool {
        let directory = self.identities.directory();
        let reports = self.sources.with(|register, now| register.look(now.listened));
        for report in &reports {
            if let Some(name) = directory.source_name(report.source) {
                self.waiting.push(tell(name, report));
            }
        }
        let excess = self.waiting.len().saturating_sub(WAITING_MAX);
        self.waiting.drain(..excess);
        self.measure(&directory);
        !reports.is_empty()
    }

    /// Writes what waits to the journal. What it does not take waits on.
    async fn record(&mut self) {
        let outcomes = join_all(self.waiting.iter().map(|event| self.own.record(event.clone()))).await;
        let mut outcomes = outcomes.into_iter();
        self.waiting.retain(|_| match outcomes.next() {
            Some(Err(error)) => {
                tracing::error!(%error, "a source's silence could not be recorded; it is tried again");
                true
            }
            _ => false,
        });
    }

    /// Writes the file.
    pub(crate) async fn save(&self) {
        let directory = self.identities.directory();
        let text = self.sources.with(|register, now| {
            let named =
                register.entries().iter().filter_map(|(source, entry)| Some((directory.source_name(*source)?, entry)));
            file::text(named, now.listened)
        });
        let path = self.path.clone();
        if let Err(error) = spawn_blocking(move || file::write(&path, &text)).await {
            tracing::warn!(%error, "the register of sources could not be written");
        }
    }

    /// Renews the figures of every configured source, and of no other.
    fn measure(&mut self, directory: &Directory) {
        self.gauges.retain(|source, gauges| {
            let stays = directory.source_name(*source).is_some();
            if !stays {
                gauges.set(&Entry::default());
            }
            stays
        });
        let gauges = &mut self.gauges;
        self.sources.with(|register, _| {
            for source in directory.sources() {
                let gauges = gauges.entry(source.id).or_insert_with(|| Gauges::new(&source.name));
                match register.get(source.id) {
                    Some(entry) => gauges.set(entry),
                    None => gauges.set(&Entry::default()),
                }
            }
        });
    }
}

/// Logs a report, and makes it a record.
fn tell(name: &str, report: &Report) -> Event {
    let Report { entry, quiet, allowed, .. } = report;
    let (agent, goodbye) = (&entry.agent, entry.goodbye.as_deref());
    let seconds = quiet.as_secs();
    let Some(allowed) = allowed else {
        tracing::info!(source = name, seconds, ?agent, "a silent source is heard");
        return Event::new("source.heard")
            .target("source", name)
            .body(format!("source {name} is heard, after {seconds} s of silence"))
            .number("silent_ns", quiet.as_nanos());
    };
    tracing::warn!(
        source = name,
        seconds,
        allowed_seconds = allowed.as_secs(),
        ?agent,
        streams = entry.streams,
        goodbye,
        "a source is silent"
    );
    let more = match goodbye {
        Some(_) => "; it had announced that it stops",
        None if entry.sessions == 0 => "; it has never been heard since it was configured",
        None => "",
    };
    let event = Event::new("source.silent")
        .warning()
        .outcome(v1::Outcome::Failure)
        .target("source", name)
        .body(format!("source {name} has not been heard for {seconds} s{more}"))
        .number("silent_ns", quiet.as_nanos())
        .number("allowed_ns", allowed.as_nanos())
        .text("rhythm", entry.expected())
        .number("last_seen_unix_nano", entry.last_seen_ns)
        .number("streams", entry.streams)
        .number("waiting_records", entry.told.waiting)
        .text("agent", agent.as_str());
    goodbye.map_or(event.clone(), |goodbye| event.text("goodbye", goodbye))
}

/// The figures of one source.
struct Gauges {
    silent: Gauge,
    streams: Gauge,
    last_seen: Gauge,
    waiting: Gauge,
    lag: Gauge,
    skew: Gauge,
    losses: Gauge,
    lost_lines: Gauge,
    gaps: Gauge,
    forks: Gauge,
}

impl Gauges {
    fn new(name: &str) -> Self {
        let gauge = |figure: &'static str| metrics::gauge!(figure, "source" => name.to_owned());
        Self {
            silent: gauge("sigillo_source_silent"),
            streams: gauge("sigillo_source_streams"),
            last_seen: gauge("sigillo_source_last_seen_seconds"),
            waiting: gauge("sigillo_source_waiting_records"),
            lag: gauge("sigillo_source_lag_seconds"),
            skew: gauge("sigillo_source_skew_seconds"),
            losses: gauge("sigillo_source_declared_losses"),
            lost_lines: gauge("sigillo_source_lost_lines"),
            gaps: gauge("sigillo_source_gaps"),
            forks: gauge("sigillo_source_forks"),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; exact up to 2^53")]
    fn set(&self, entry: &Entry) {
        self.silent.set(f64::from(u8::from(entry.is_silent())));
        self.streams.set(entry.streams);
        self.last_seen.set(Duration::from_nanos(entry.last_seen_ns).as_secs_f64());
        self.waiting.set(entry.told.waiting as f64);
        self.lag.set(entry.told.lag.as_secs_f64());
        self.skew.set(entry.skew_ns() as f64 / 1e9);
        self.losses.set(entry.declared.losses as f64);
        self.lost_lines.set(entry.declared.lines as f64);
        self.gaps.set(entry.refusals.gaps as f64);
        self.forks.set(entry.refusals.forks as f64);
    }
}
