//! Wiring: everything is put together here, by the program and by tests alike.

use std::{
    fs::{self, DirBuilder, File},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use sigillo_journal::{Journal, Opened, Options};
use sigillo_model::{limits::MESSAGE_MAX_BYTES, note::SigningKey};
use sigillo_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        audit_server::AuditServer, ingest_server::IngestServer, log_server::LogServer, query_server::QueryServer,
        sources_server::SourcesServer,
    },
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use crate::{
    accept::{self, Accept},
    audit::AuditService,
    clock::Clock,
    config::{ClassNames, Settings},
    control::{self, ControlService, ControlSocket},
    error::ServerError,
    files,
    health::Health,
    identity::Identities,
    ingest::{
        grpc::{self, IngestService},
        heads::{self, Heads},
        pace::Pace,
    },
    log,
    own::{Event, Own},
    query::{self, QueryService},
    reads::Reads,
    register, restored,
    sources::{Keeper, Sources, SourcesService},
    telemetry,
    tls::Tls,
};

/// How often the clock is checked while nothing arrives, and figures are renewed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A request other than a batch is small.
const REQUEST_MAX_BYTES: usize = 256 << 10;

/// Sockets that are listened on.
#[derive(Debug)]
pub struct Listeners {
    grpc: TcpListener,
    metrics: TcpListener,
    publish: Option<TcpListener>,
}

impl Listeners {
    /// Binds the configured addresses.
    pub async fn bind(settings: &Settings) -> Result<Self, ServerError> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
        };
        let publish = match settings.checkpoint.as_ref().and_then(|checkpoint| checkpoint.publish_listen) {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { grpc: bind(settings.listen).await?, metrics: bind(settings.metrics_listen).await?, publish })
    }

    /// Where gRPC is really listened on.
    pub fn grpc(&self) -> Result<SocketAddr, ServerError> {
        self.grpc.local_addr().map_err(ServerError::file("the gRPC listener"))
    }

    /// Where the metrics really are.
    pub fn metrics(&self) -> Result<SocketAddr, ServerError> {
        self.metrics.local_addr().map_err(ServerError::file("the metrics listener"))
    }

    /// Where checkpoint and tiles are really published, if they are.
    pub fn publish(&self) -> Result<Option<SocketAddr>, ServerError> {
        let address = self.publish.as_ref().map(TcpListener::local_addr).transpose();
        address.map_err(ServerError::file("the listener for published resources"))
    }
}

/// Checks what a start would read besides the configuration itself.
pub fn check(settings: &Settings) -> Result<(), ServerError> {
    telemetry::filter(&settings.log)?;
    log::prepare(settings)?;
    Tls::load(settings.tls.clone()).map(drop)
}

/// What the outside asks of a running server.
#[derive(Debug, Clone, Default)]
pub struct Controls {
    /// Stop: finish what was taken, then end.
    pub shutdown: CancellationToken,
    /// Read certificates, sources, readers and tenants again.
    pub reload: Arc<Notify>,
    /// The clock is right: take its step as confirmed.
    pub confirm_clock: Arc<Notify>,
}

/// Runs a server until it is asked to stop. Returns once everything that was taken is durable and the journal is closed.
pub async fn run(
    mut settings: Settings,
    listeners: Listeners,
    clock: Clock,
    controls: Controls,
) -> Result<(), ServerError> {
    files::fit(&mut settings.limits);
    let tls = Arc::new(Tls::load(settings.tls.clone())?);
    let metrics = telemetry::metrics()?;
    let prepared = log::prepare(&settings)?;
    let (opened, known, history) = open(&settings, prepared.as_ref().map(log::Prepared::receipt_key)).await?;
    let journal = opened.journal.clone();
    let start =
        Start { settings, listeners, clock: Arc::new(clock), controls, tls, metrics, prepared, opened, known, history };
    let served = serve(start).await;
    // After a failure, too: until it is closed, the journal's threads are in the middle of something.
    let closed = journal.close().await.map_err(ServerError::Close);
    served.and(closed)?;
    tracing::info!("stopped");
    Ok(())
}

/// What a server starts with.
struct Start {
    settings: Settings,
    listeners: Listeners,
    clock: Arc<Clock>,
    controls: Controls,
    tls: Arc<Tls>,
    metrics: PrometheusHandle,
    prepared: Option<log::Prepared>,
    opened: Opened,
    known: ClassNames,
    history: heads::History,
}

/// Serves until the server is asked to stop. Everything that was taken is with the journal then.
async fn serve(start: Start) -> Result<(), ServerError> {
    let Start { settings, listeners, clock, controls, tls, metrics, prepared, opened, known, history } = start;
    let journal = opened.journal.clone();
    let own = Own::start(journal.clone(), Arc::clone(&clock), &host());
    record_start(&own, &settings, &opened, &clock, &known).await?;

    let identities = Arc::new(Identities::new(&settings, own.clone()));
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health::start(reporter);
    let tasks = TaskTracker::new();
    let (log, checkpointer) = log::start(prepared, &settings, &journal, &own, &health).await?;
    let control = control(&settings, &journal, &own, &log, &clock);
    let control_socket = ControlSocket::bind(&settings.data_dir).map_err(ServerError::file(&settings.data_dir))?;
    let resources = log::Resources::new(Arc::clone(&log), journal.reader());
    let sources = Arc::new(Sources::open(&settings, Arc::clone(&clock)));
    let ingest = Arc::new(grpc::Shared {
        journal: journal.clone(),
        identities: Arc::clone(&identities),
        own: own.clone(),
        pace: Pace::default(),
        heads: Heads::new(journal.clone(), own.clone(), history),
        clock: Arc::clone(&clock),
        health: health.clone(),
        limits: settings.limits,
        inflight: Arc::new(Semaphore::new(settings.limits.inflight_bytes)),
        tasks: tasks.clone(),
        log: resources.clone(),
        sources: Arc::clone(&sources),
        streams: grpc::Streams::default(),
    });
    let reading = Arc::new(query::Shared {
        journal: journal.clone(),
        identities: Arc::clone(&identities),
        reads: Reads::new(own.clone(), Arc::clone(&identities), settings.limits.reads),
        limits: settings.limits,
        tasks: tasks.clone(),
        log: Arc::clone(&log),
    });
    let log_service = log::LogService::new(resources.clone(), Arc::clone(&identities));
    let sources_service = SourcesService::new(Arc::clone(&sources), Arc::clone(&identities), journal.clone());
    // If the last start and this one have read much, the next one need not.
    ingest.heads.attend().await;
    let routes = Routes::new(health_service)
        .add_service(reflection()?)
        .add_service(
            IngestServer::new(IngestService::new(Arc::clone(&ingest))).max_decoding_message_size(MESSAGE_MAX_BYTES),
        )
        .add_service(
            QueryServer::new(QueryService::new(Arc::clone(&reading))).max_decoding_message_size(REQUEST_MAX_BYTES),
        )
        .add_service(LogServer::new(log_service).max_decoding_message_size(REQUEST_MAX_BYTES))
        .add_service(SourcesServer::new(sources_service).max_decoding_message_size(REQUEST_MAX_BYTES))
        .add_service(AuditServer::new(AuditService::new(reading)).max_decoding_message_size(REQUEST_MAX_BYTES))
        .prepare();

    let (grpc, scraped, published) = (listeners.grpc()?, listeners.metrics()?, listeners.publish()?);
    write_addresses(&settings.data_dir, grpc, scraped, published)?;
    let closing = CancellationToken::new();
    let accept = Accept { tls: Arc::clone(&tls), routes, limits: settings.limits, closing: closing.clone() };
    let accepting = tokio::spawn(accept::serve(listeners.grpc, accept));
    let controlling = tokio::spawn(control_socket.serve(control, closing.clone()));
    let collecting = tokio::spawn(telemetry::serve(listeners.metrics, metrics, closing.clone()));
    let keeping = tokio::spawn(Keeper::new(&settings, &sources, &identities, &own).run(closing.clone()));
    let signing = checkpointer.map(|checkpointer| tokio::spawn(checkpointer.run(closing.clone())));
    let publishing = listeners.publish.map(|listener| {
        let plain = published.is_some_and(|address| address.ip().is_loopback());
        let tls = (!plain).then(|| Arc::clone(&tls));
        tokio::spawn(log::publish(listener, tls, resources, closing.clone()))
    });
    tracing::info!(listen = %grpc, metrics = %scraped, origin = %settings.origin, "listening");
    notify(&[sd_notify::NotifyState::Ready]);

    let attend = Attend {
        settings: &settings,
        known,
        tls: &tls,
        clock: &clock,
        own: &own,
        identities: &identities,
        sources: &sources,
        ingest: &ingest,
    };
    tokio::select! {
        () = controls.shutdown.cancelled() => {}
        () = attend.run(&journal, &controls) => {}
        () = tls.follow() => {}
        () = watchdog() => {}
    }

    tracing::info!("stopping: what was taken is finished");
    notify(&[sd_notify::NotifyState::Stopping]);
    health.draining();
    closing.cancel();
    drain(settings.limits.drain_timeout, &tasks, accepting).await;
    keeping.await?.save().await;
    collecting.await?;
    for task in [signing, publishing].into_iter().flatten() {
        task.await?;
    }
    controlling.await?;
    ingest.ended().await;
    let head = journal.head();
    own.note(Event::new("journal.stopped").body("the server stops").number("size", head.size)).await;
    Ok(())
}

/// Waits until all streams have ended, and the loop that accepts them, but no longer than this.
async fn drain(within: Duration, tasks: &TaskTracker, accepting: JoinHandle<()>) {
    tasks.close();
    let drained = timeout(within, async {
        tasks.wait().await;
        let _ = accepting.await;
    });
    if drained.await.is_err() {
        tracing::warn!("streams did not end in time: cut");
    }
}

fn control(
    settings: &Settings,
    journal: &Journal,
    own: &Own,
    log: &Arc<log::Log>,
    clock: &Arc<Clock>,
) -> ControlService {
    ControlService::new(control::Shared {
        journal: journal.clone(),
        own: own.clone(),
        log: Arc::clone(log),
        clock: Arc::clone(clock),
        data_dir: settings.data_dir.clone(),
        reserve_bytes: settings.reserve_bytes,
        started_ns: clock.believed().get(),
    })
}

/// Opens the journal, reads its register of classes, which the configuration must not contradict, and the keys of signed heads.
async fn open(
    settings: &Settings,
    receipt_key: Option<Arc<SigningKey>>,
) -> Result<(Opened, ClassNames, heads::History), ServerError> {
    let options = Options {
        reserve_bytes: settings.reserve_bytes,
        queue_bytes: settings.limits.queue_bytes,
        receipt_key,
        ..Options::new(&settings.data_dir, settings.origin.clone())
    };
    let configured = settings.classes.clone();
    tokio::task::spawn_blocking(move || {
        make_private(&options.dir)?;
        let opened = Journal::open(&options)?;
        let reader = opened.journal.reader();
        let known = register::read(&reader).and_then(|known| register::merge(&configured, known));
        match known.and_then(|known| Ok((known, heads::read(&reader)?))) {
            Ok((known, history)) => Ok((opened, known, history)),
            Err(error) => {
                // Refused, but in good order.
                Handle::current().block_on(opened.journal.close()).map_err(ServerError::Close)?;
                Err(error)
            }
        }
    })
    .await?
}

/// Makes the journal's folder for this account only, if it is not there; one that is there keeps the rights it was given.
pub(crate) fn make_private(dir: &Path) -> Result<(), ServerError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(ServerError::file(dir))?;
    // The journal makes its own files durable; the name of its folder, which is new, is made so here.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(ServerError::file(parent))
}

/// A start that can't be recorded does not take place.
async fn record_start(
    own: &Own,
    settings: &Settings,
    opened: &Opened,
    clock: &Clock,
    known: &ClassNames,
) -> Result<(), ServerError> {
    let head = opened.journal.head();
    let started = Event::new("journal.started")
        .body(format!("the server starts with a journal of {} records", head.size))
        .text("version", env!("CARGO_PKG_VERSION"))
        .text("origin", settings.origin.as_str())
        .number("size", head.size)
        .number("verified_records", opened.verified_records);
    let started = match opened.journal.origin().predecessor() {
        Some(note) => started.text("predecessor_note_sha256", note.to_string()),
        None => started,
    };
    own.record(started).await?;
    if opened.unclean {
        tracing::warn!(verified = opened.verified_records, "the last stop was not a clean one");
        let unclean = Event::new("journal.unclean_stop")
            .warning()
            .body("the last server to hold this journal did not close it; its newest records were verified again")
            .number("verified_records", opened.verified_records);
        own.record(unclean).await?;
    }
    restored::record(own, &settings.data_dir).await?;
    let now = clock.believed();
    let behind_ns = head.receipt_time.get().saturating_sub(now.get());
    let mut state = Event::new("clock.state")
        .body("the server's clock at the start")
        .number("unix_nano", now.get())
        .number("behind_newest_record_ns", behind_ns);
    if behind_ns > 0 {
        tracing::warn!(
            behind_ns,
            "the clock is behind the newest record: receipt times stand still until it has caught up"
        );
        state = state.warning();
    }
    own.record(state).await?;
    own.record(register::loaded(settings, known)).await?;
    Ok(())
}

/// What is looked after while the server runs.
struct Attend<'a> {
    settings: &'a Settings,
    known: ClassNames,
    tls: &'a Tls,
    clock: &'a Clock,
    own: &'a Own,
    identities: &'a Identities,
    sources: &'a Sources,
    ingest: &'a grpc::Shared,
}

impl Attend<'_> {
    /// Never ends.
    async fn run(mut self, journal: &Journal, controls: &Controls) {
        let mut look = interval(LOOK_EVERY);
        let mut alarmed = false;
        loop {
            tokio::select! {
                _ = look.tick() => {
                    metrics::gauge!("sigillo_journal_records").set(precise(journal.head().size));
                    alarmed = self.look_at_clock(alarmed).await;
                    self.ingest.note_due().await;
                }
                () = controls.confirm_clock.notified() => {
                    // A step that nobody was told of yet is recorded before it is confirmed.
                    self.look_at_clock(alarmed).await;
                    self.confirm_clock().await;
                    alarmed = false;
                }
                () = controls.reload.notified() => {
                    self.tls.reload();
                    self.reload().await;
                }
            }
        }
    }

    async fn look_at_clock(&self, alarmed: bool) -> bool {
        let Err(stepped) = self.clock.now() else { return false };
        if !alarmed {
            tracing::error!(
                by_ns = stepped.by_ns,
                "the clock was stepped: no records are taken until it is right and somebody confirms it with SIGUSR1"
            );
            metrics::gauge!("sigillo_clock_stepped").set(1);
            let event = Event::new("clock.stepped")
                .warning()
                .body("the server's clock was stepped; records are refused until somebody confirms it")
                .number("by_ns", stepped.by_ns);
            self.own.note(event).await;
        }
        true
    }

    async fn confirm_clock(&self) {
        let Some(stepped) = self.clock.confirm() else { return tracing::info!("the clock needs no confirmation") };
        tracing::warn!(by_ns = stepped.by_ns, "the clock's step was confirmed");
        metrics::gauge!("sigillo_clock_stepped").set(0);
        let event = Event::new("clock.state")
            .body("the step of the server's clock was confirmed")
            .number("unix_nano", self.clock.believed().get())
            .number("confirmed_step_ns", stepped.by_ns);
        self.own.note(event).await;
    }

    /// Sources, readers and tenants come into effect; everything else needs a restart.
    async fn reload(&mut self) {
        let loaded = Settings::load(&self.settings.path)
            .map_err(ServerError::from)
            .and_then(|new| Ok((register::merge(&new.classes, self.known.clone())?, new)));
        let (known, new) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                return tracing::error!(%error, "the configuration was not read again; the one in effect stays");
            }
        };
        if let Err(error) = self.own.record(register::loaded(&new, &known)).await {
            return tracing::error!(%error, "the configuration could not be recorded; the one in effect stays");
        }
        self.known = known;
        self.identities.replace(&new);
        self.sources.configure(&new);
        tracing::info!("sources, readers and tenants were read again; other changes need a restart");
    }
}

/// Tells the service manager that the server lives, as often as it asks to be told. Never ends.
async fn watchdog() {
    let Some(within) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut tick = interval((within / 2).max(Duration::from_millis(1)));
    loop {
        tick.tick().await;
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    ServerError,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ServerError::Telemetry(format!("reflection: {error}")))
}

/// Puts the addresses where those find them who started the server on a free port; whole or not at all.
fn write_addresses(
    dir: &Path,
    listen: SocketAddr,
    metrics: SocketAddr,
    publish: Option<SocketAddr>,
) -> Result<(), ServerError> {
    let path = dir.join("addresses.toml");
    let new = dir.join("addresses.toml.new");
    let publish = publish.map_or_else(String::new, |publish| format!("publish = \"{publish}\"\n"));
    let text = format!("listen = \"{listen}\"\nmetrics = \"{metrics}\"\n{publish}");
    fs::write(&new, text).map_err(ServerError::file(&new))?;
    fs::rename(&new, &path).map_err(ServerError::file(&path))
}

/// The machine's name, for own records.
fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// Exact up to 2^53 records.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; exact up to 2^53 records")]
fn precise(number: u64) -> f64 {
    number as f64
}
