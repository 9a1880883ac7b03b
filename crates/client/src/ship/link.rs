//! Keeps a stream to the server open and moves batches and acks over it.

use std::{pin::Pin, time::Duration};

use sigillo_proto::v1::{self, RefusalKind, append_request, append_response};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::{debug, info, warn};

use super::{
    Options, Settled,
    window::{Draft, Window},
};
use crate::{AppendSender, AppendSession, Backoff, ClientError, Code, Connection, PROTOCOL, session::unix_nanos};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a stream that takes nothing more may still bring acks.
const LAST_ACKS: Duration = Duration::from_secs(30);
/// Longest wait that a server can impose at once.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A hello that asks what the server knows of us, and opens nothing.
pub fn hello_asking(agent: &str) -> v1::Hello {
    v1::Hello { protocol: PROTOCOL, agent: agent.to_owned(), clock_unix_nano: unix_nanos(), ..Default::default() }
}

/// Opens a stream, telling what checkpoint is remembered, and holds the welcome to it. A server that shows less is asked again until it
/// has caught up or its grace is over; its streams are not used.
pub(super) async fn open(
    connection: &Connection,
    options: &Options,
    mut hello: v1::Hello,
) -> Result<AppendSession, ClientError> {
    let Some(guard) = &options.guard else { return connection.append(hello).await };
    loop {
        hello.checkpoint = guard.remembered();
        let session = connection.append(hello.clone()).await?;
        guard.welcome(&session.welcome)?;
        if !guard.shows_less() {
            return Ok(session);
        }
        drop(session);
        guard.bear().await?;
    }
}

/// The part of a shipper that talks to the server.
pub(super) struct Link {
    /// The newest one.
    connection: Connection,
    options: Options,
    window: Window,
    drafts: mpsc::Receiver<Draft>,
    reports: mpsc::Sender<Result<Settled, ClientError>>,
    backoff: Backoff,
    /// The refusal that ended the last stream, of the oldest batch; decided on when the server has said where it stands.
    refusal: Option<v1::Refusal>,
    /// The last ack, or since when something waits for one.
    progress: Instant,
    /// What hindered since then.
    trouble: String,
}

/// How a stream ended, when it was not an error.
enum End {
    /// Nobody wants anything more.
    Finished,
    /// Connect anew, not before so long.
    Again(Duration),
}

/// One stream, while it lasts.
struct Talk {
    welcome: v1::Welcome,
    /// `None` once we send no more.
    stream: Option<AppendSender>,
    end: End,
    throttled_until: Option<Instant>,
    heartbeat_at: Instant,
    /// When no more acks are waited for, once we send no more.
    give_up_at: Instant,
}

impl Talk {
    fn new(welcome: v1::Welcome, sender: AppendSender) -> Self {
        let now = Instant::now();
        Self {
            welcome,
            stream: Some(sender),
            end: End::Again(Duration::ZERO),
            throttled_until: None,
            heartbeat_at: now + HEARTBEAT,
            give_up_at: now,
        }
    }

    /// Sends no more; acks are still waited for.
    fn shut(&mut self) {
        self.stream = None;
        self.give_up_at = Instant::now() + LAST_ACKS;
    }
}

/// Asks the server for proofs.
type Check = Pin<Box<dyn Future<Output = Result<(), ClientError>> + Send>>;

impl Link {
    pub(super) fn new(
        connection: Connection,
        options: Options,
        window: Window,
        drafts: mpsc::Receiver<Draft>,
        reports: mpsc::Sender<Result<Settled, ClientError>>,
    ) -> Self {
        Self {
            connection,
            options,
            window,
            drafts,
            reports,
            backoff: Backoff::default(),
            refusal: None,
            progress: Instant::now(),
            trouble: String::new(),
        }
    }

    /// Works until the caller is gone, or an error that no new connection mends.
    pub(super) async fn run(mut self, session: AppendSession) {
        let reports = self.reports.clone();
        tokio::select! {
            () = reports.closed() => {}
            ended = self.serve(session) => if let Err(error) = ended {
                // A caller that is gone needs no error.
                let _ = reports.send(Err(error)).await;
            },
        }
    }

    async fn serve(&mut self, mut session: AppendSession) -> Result<(), ClientError> {
        loop {
            let wait = match self.converse(session).await {
                Ok(End::Finished) => return Ok(()),
                Ok(End::Again(wait)) => wait,
                Err(error) if self.is_final(&error) => return Err(error),
                Err(error) => {
                    warn!(%error, "connection lost");
                    self.is_hindered(error.to_string());
                    Duration::ZERO
                }
            };
            session = self.reconnect(wait).await?;
            info!(url = %self.connection.endpoint().url, "connected again");
        }
    }

    async fn reconnect(&mut self, wait: Duration) -> Result<AppendSession, ClientError> {
        if self.window.bytes() == 0 {
            self.progress = Instant::now();
        }
        let Some(deadline) = self.deadline() else { return self.connect_in_the_end(wait).await };
        let connected = timeout_at(deadline, self.connect_in_the_end(wait)).await;
        connected.unwrap_or_else(|_| Err(self.gave_up()))
    }

    async fn connect_in_the_end(&mut self, wait: Duration) -> Result<AppendSession, ClientError> {
        sleep(wait.max(self.backoff.next_wait())).await;
        loop {
            let error = match self.connect().await {
                Ok(session) => return Ok(session),
                Err(error) if self.is_final(&error) => return Err(error),
                Err(error) => error,
            };
            let wait = self.backoff.next_wait();
            warn!(%error, wait_ms = wait.as_millis(), "no connection; trying again");
            self.is_hindered(error.to_string());
            sleep(wait).await;
        }
    }

    async fn connect(&mut self) -> Result<AppendSession, ClientError> {
        let hello = match self.refusal {
            // Our epoch is given up: ask.
            Some(_) => hello_asking(&self.options.agent),
            None => self.window.hello(&self.options.agent, unix_nanos()),
        };
        self.connection = Connection::open(self.connection.endpoint()).await?;
        let session = open(&self.connection, &self.options, hello).await?;
        match self.refusal.take() {
            Some(refusal) => self.settle_refusal(refusal, &session.welcome).await?,
            None => self.window.resume(&session.welcome, unix_nanos())?,
        }
        Ok(session)
    }

    async fn settle_refusal(&mut self, refusal: v1::Refusal, welcome: &v1::Welcome) -> Result<(), ClientError> {
        if !self.window.is_opening_stale(welcome)? {
            if refusal.kind() == RefusalKind::Fork {
                return Err(ClientError::Fork(refusal.message));
            }
            if let Some(settled) = self.window.refuse_oldest(refusal.message) {
                self.report(settled).await;
            }
        }
        self.window.reopen(welcome, unix_nanos())
    }

    async fn converse(&mut self, session: AppendSession) -> Result<End, ClientError> {
        let AppendSession { welcome, sender, mut receiver } = session;
        let mut talk = Talk::new(welcome, sender);
        // Beside the stream, since it waits for other answers of the server.
        let mut check = self.check_receipts();
        loop {
            let open = talk.stream.is_some();
            let patience_ends = self.deadline().filter(|_| self.window.bytes() > 0);
            let may_send = open && talk.throttled_until.is_none() && self.window.may_send(talk.welcome.credit_bytes);
            tokio::select! {
                biased;
                answer = receiver.recv() => match answer {
                    Ok(None) => return Ok(talk.end),
                    // A server that asks us to wait may end the stream with an error then; the wait counts.
                    Err(error) if asks_to_wait(&talk.end) && !self.is_final(&error) => {
                        debug!(%error, "the server ends the stream after it asked us to wait");
                        return Ok(talk.end);
                    }
                    Err(error) => return Err(error),
                    Ok(Some(append_response::Message::Refusal(refusal))) => return self.refused(refusal),
                    Ok(Some(answer)) => {
                        self.answered(&mut talk, answer).await?;
                        // Not a batch more, and no ack is believed, until it shows again what it has shown before.
                        if self.options.guard.as_ref().is_some_and(|guard| guard.shows_less()) {
                            return Ok(talk.end);
                        }
                        check = check.or_else(|| self.check_receipts());
                    }
                },
                checked = async { Some(check.as_mut()?.await) }, if check.is_some() => {
                    check = None;
                    checked.transpose()?;
                }
                () = sleep_until(talk.give_up_at), if !open => return Ok(talk.end),
                () = sleep_until(talk.throttled_until.unwrap_or(talk.heartbeat_at)), if talk.throttled_until.is_some() => {
                    talk.throttled_until = None;
                    if open {
                        talk.end = End::Again(Duration::ZERO);
                    }
                }
                permit = async { talk.stream.as_ref()?.reserve().await.ok() }, if may_send => {
                    let Some(permit) = permit else {
                        // The stream has ended; the receiver will say why.
                        talk.shut();
                        continue;
                    };
                    if let Some(batch) = self.window.send() {
                        debug!(first = batch.first, count = batch.count, "sending a batch");
                        permit.send(v1::AppendRequest { message: Some(append_request::Message::Batch(batch)) });
                        talk.heartbeat_at = Instant::now() + HEARTBEAT;
                    }
                }
                draft = self.drafts.recv(), if open && self.window.bytes() < self.options.window_bytes => {
                    let Some(draft) = draft else {
                        talk.end = End::Finished;
                        talk.shut();
                        continue;
                    };
                    if self.window.bytes() == 0 {
                        self.progress = Instant::now();
                    }
                    self.window.seal(draft)?;
                }
                () = sleep_until(patience_ends.unwrap_or(talk.heartbeat_at)), if patience_ends.is_some() => {
                    return Err(self.gave_up());
                }
                () = sleep_until(talk.heartbeat_at), if open => {
                    talk.heartbeat_at = Instant::now() + HEARTBEAT;
                    if let Some(sender) = &talk.stream {
                        sender.send_if_room(append_request::Message::Heartbeat(self.window.heartbeat(unix_nanos())));
                    }
                }
            }
        }
    }

    /// What an answer that does not end the stream changes.
    async fn answered(&mut self, talk: &mut Talk, answer: append_response::Message) -> Result<(), ClientError> {
        match answer {
            append_response::Message::Ack(ack) => {
                // Before the batch is let go.
                if let (Some(guard), Some(receipt)) = (&self.options.guard, &ack.receipt) {
                    guard.check_receipt(&talk.welcome, receipt)?;
                }
                if let Some(settled) = self.window.acknowledge(ack)? {
                    self.backoff.reset();
                    self.progress = Instant::now();
                    self.trouble.clear();
                    self.report(settled).await;
                }
            }
            append_response::Message::Throttle(throttle) => {
                let wait = Duration::from_millis(throttle.wait_ms.into()).min(WAIT_MAX);
                warn!(wait_ms = wait.as_millis(), reason = throttle.reason, "the server asks us to wait");
                self.is_hindered(format!("the server asks us to wait: {}", throttle.reason));
                talk.throttled_until = Some(Instant::now() + wait);
                if talk.stream.is_some() {
                    talk.end = End::Again(wait);
                }
                // The server may have dropped what was under way. What it has kept gets the same receipt again.
                self.window.rewind();
            }
            append_response::Message::Drain(drain) => {
                let wait = Duration::from_millis(drain.reconnect_ms.into()).min(WAIT_MAX);
                info!(wait_ms = wait.as_millis(), "the server stops; connecting again later");
                self.is_hindered("the server stops".into());
                talk.end = End::Again(wait);
                talk.shut();
            }
            append_response::Message::News(news) => {
                if let Some(guard) = &self.options.guard {
                    guard.shown(&news.checkpoint, &news.consistency)?;
                }
            }
            append_response::Message::Refusal(_) | append_response::Message::Welcome(_) => {}
        }
        Ok(())
    }

    /// Holds receipts against the newest checkpoint, if there is something to hold.
    fn check_receipts(&self) -> Option<Check> {
        let guard = self.options.guard.clone().filter(|guard| guard.has_due())?;
        let connection = self.connection.clone();
        Some(Box::pin(async move { guard.check_due(&connection).await }))
    }

    fn refused(&mut self, refusal: v1::Refusal) -> Result<End, ClientError> {
        let v1::Refusal { expected_epoch, expected_sequence: expected, .. } = refusal;
        warn!(
            kind = ?refusal.kind(), epoch = refusal.epoch, first = refusal.first, expected_epoch, expected,
            said = refusal.message, "the server refuses a batch"
        );
        self.is_hindered(format!("the server refuses a batch: {}", refusal.message));
        match refusal.kind() {
            RefusalKind::Gap if self.window.holds(expected_epoch, expected) => Ok(End::Again(Duration::ZERO)),
            RefusalKind::Gap => Err(ClientError::Gap { expected_epoch, expected, message: refusal.message }),
            RefusalKind::StaleEpoch => Err(ClientError::StaleEpoch(refusal.message)),
            RefusalKind::Invalid | RefusalKind::Fork if self.window.is_oldest(&refusal) => {
                self.refusal = Some(refusal);
                Ok(End::Again(Duration::ZERO))
            }
            // A refusal of a head is not about ours, we send none: another sender uses our certificate.
            RefusalKind::Fork | RefusalKind::Head => Err(ClientError::Fork(refusal.message)),
            // Of a batch whose predecessors are not acknowledged, or of a kind that we don't know: the oldest goes first
            // next time, and what is wrong with it will be said then.
            RefusalKind::Invalid | RefusalKind::Unspecified => Ok(End::Again(Duration::ZERO)),
        }
    }

    async fn report(&self, settled: Settled) {
        // A caller that is gone ends `run`.
        let _ = self.reports.send(Ok(settled)).await;
    }

    /// When the caller's patience ends.
    fn deadline(&self) -> Option<Instant> {
        self.progress.checked_add(self.options.give_up_after?)
    }

    fn gave_up(&self) -> ClientError {
        let reason = if self.trouble.is_empty() { "the server does not answer" } else { &self.trouble };
        ClientError::GaveUp { waited: self.options.give_up_after.unwrap_or_default(), reason: reason.to_owned() }
    }

    /// Remembers what hinders us, and tells it if it is something new.
    fn is_hindered(&mut self, trouble: String) {
        if let Some(notice) = self.options.notice.filter(|_| trouble != self.trouble) {
            notice(&trouble);
        }
        self.trouble = trouble;
    }

    /// Whether another connection would end in the same way.
    fn is_final(&self, error: &ClientError) -> bool {
        match error {
            ClientError::Gap { .. }
            | ClientError::Fork(_)
            | ClientError::StaleEpoch(_)
            | ClientError::GaveUp { .. }
            | ClientError::Misconduct { .. }
            | ClientError::Batch(_)
            | ClientError::Record(_) => true,
            ClientError::Refused {
                code: Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition,
                ..
            }
            | ClientError::Receipt { .. }
            | ClientError::Checkpoint(_) => self.options.refusals_are_final,
            _ => false,
        }
    }
}

fn asks_to_wait(end: &End) -> bool {
    matches!(end, End::Again(wait) if !wait.is_zero())
}
