//! Keeps a stream to the server open and moves what an [`Outbox`] holds, and the acks for it, over it.

mod outbox;
mod pace;
mod renew;

use std::{pin::Pin, sync::Arc, time::Duration};

use sigillo_proto::v1::{self, append_request, append_response};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

pub(crate) use self::outbox::Outbox;
use self::{
    pace::Pace,
    renew::{Renewed, Stamps},
};
use crate::{
    AppendSender, AppendSession, Backoff, ClientError, Code, Connection, Endpoint, Guard, PROTOCOL, session::unix_nanos,
};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a stream that takes nothing more may still bring acks.
const LAST_ACKS: Duration = Duration::from_secs(30);
/// Wait after another sender with our certificate has begun a session, so that the two don't end each other all the time.
const TWIN_WAIT: Duration = Duration::from_secs(5);
/// gRPC's code of a stream that a newer session has ended.
const ABORTED: i32 = 10;
/// How long proofs that were asked for are waited for at the end.
const LAST_CHECK: Duration = Duration::from_secs(5);
/// Longest wait that a server can impose at once.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A hello that asks what the server knows of us, and opens nothing.
pub fn hello_asking(agent: &str) -> v1::Hello {
    v1::Hello { protocol: PROTOCOL, agent: agent.to_owned(), clock_unix_nano: unix_nanos(), ..Default::default() }
}

/// Opens a stream, telling what checkpoint is remembered, and holds the welcome to it. A server that shows less is asked again until it
/// has caught up or its grace is over; its streams are not used.
pub(crate) async fn open(
    connection: &Connection,
    guard: Option<&Arc<Guard>>,
    mut hello: v1::Hello,
) -> Result<AppendSession, ClientError> {
    let Some(guard) = guard else { return connection.append(hello).await };
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

/// How a link works.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Holds the server to what it has said.
    pub(crate) guard: Option<Arc<Guard>>,
    /// Gives up when something waits, or there is no connection, and nothing was acknowledged for so long.
    pub(crate) give_up_after: Option<Duration>,
    /// Gives up when the server says that we may not do this.
    pub(crate) refusals_are_final: bool,
    /// Is told why nothing goes on, once a reason.
    pub(crate) notice: Option<fn(&str)>,
    /// Bytes that are sent in a second, on average.
    pub(crate) bandwidth_bytes_s: Option<u64>,
    /// Percent of one core that the process may use; sending pauses to keep to it.
    pub(crate) cpu_percent: Option<u32>,
    /// Whether the certificate's files are looked at for newer ones.
    pub(crate) renews: bool,
}

/// Talks to the server until everything is sent and acknowledged.
pub(crate) struct Link<O> {
    endpoint: Endpoint,
    /// The newest one.
    connection: Option<Connection>,
    /// Made with newer certificates, to be used next.
    next: Option<Connection>,
    /// The certificates' files as they were when the newest connection was made.
    stamps: Stamps,
    options: Options,
    outbox: O,
    backoff: Backoff,
    pace: Pace,
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
    /// Go on over the next connection.
    Renewed,
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

impl<O: Outbox> Link<O> {
    pub(crate) fn new(endpoint: Endpoint, connection: Option<Connection>, options: Options, outbox: O) -> Self {
        Self {
            pace: Pace::new(options.bandwidth_bytes_s, options.cpu_percent, Instant::now()),
            stamps: Stamps::of(&endpoint),
            next: None,
            endpoint,
            connection,
            options,
            outbox,
            backoff: Backoff::default(),
            progress: Instant::now(),
            trouble: String::new(),
        }
    }

    /// Works until nothing more will come and everything is acknowledged, or until an error that no new connection mends. Begins with
    /// `session`, or makes a connection.
    pub(crate) async fn run(mut self, session: Option<AppendSession>) -> Result<(), ClientError> {
        let mut session = match session {
            Some(session) => session,
            None => self.connect_in_the_end(Duration::ZERO).await?,
        };
        loop {
            let wait = match self.converse(session).await {
                Ok(End::Finished) => return Ok(()),
                Ok(End::Again(wait)) => wait.max(self.backoff.next_wait()),
                Ok(End::Renewed) => Duration::ZERO,
                Err(error) if self.is_final(&error) => return Err(error),
                Err(error) => {
                    warn!(%error, "connection lost");
                    self.is_hindered(error.to_string());
                    let wait = self.backoff.next_wait();
                    if is_fenced(&error) { wait.max(TWIN_WAIT) } else { wait }
                }
            };
            session = self.reconnect(wait).await?;
            info!(url = %self.endpoint.url, "connected again");
        }
    }

    async fn reconnect(&mut self, wait: Duration) -> Result<AppendSession, ClientError> {
        if !self.outbox.waits() {
            self.progress = Instant::now();
        }
        let Some(deadline) = self.deadline() else { return self.connect_in_the_end(wait).await };
        let connected = timeout_at(deadline, self.connect_in_the_end(wait)).await;
        connected.unwrap_or_else(|_| Err(self.gave_up()))
    }

    async fn connect_in_the_end(&mut self, wait: Duration) -> Result<AppendSession, ClientError> {
        self.outbox.disconnected();
        sleep(wait).await;
        loop {
            let error = match self.connect().await {
                Ok(session) => {
                    self.outbox.connected(&session.welcome);
                    return Ok(session);
                }
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
        let hello = self.outbox.hello();
        let connection = if let Some(connection) = self.next.take() {
            connection
        } else {
            self.stamps = Stamps::of(&self.endpoint);
            Connection::open(&self.endpoint).await?
        };
        let connection = self.connection.insert(connection);
        let session = open(connection, self.options.guard.as_ref(), hello).await?;
        self.outbox.resume(&session.welcome).await?;
        Ok(session)
    }

    async fn converse(&mut self, session: AppendSession) -> Result<End, ClientError> {
        let AppendSession { welcome, sender, mut receiver } = session;
        let mut talk = Talk::new(welcome, sender);
        // Beside the stream, since they wait for other answers of the server.
        let mut check = self.check_receipts();
        let mut renewed: Option<Renewed> =
            self.options.renews.then(|| self.stamps.clone().watch(self.endpoint.clone(), &talk.welcome));
        loop {
            let open = talk.stream.is_some();
            let patience_ends = self.deadline().filter(|_| self.outbox.waits());
            let wants = open && talk.throttled_until.is_none() && self.outbox.may_send(talk.welcome.credit_bytes);
            let paced_until = self.pace.until(Instant::now()).filter(|_| wants);
            tokio::select! {
                biased;
                answer = receiver.recv() => match answer {
                    Ok(None) => {
                        if let (End::Finished, Some(check)) = (&talk.end, &mut check) {
                            // The last word on what it has shown; nobody asks later.
                            timeout(LAST_CHECK, check).await.unwrap_or(Ok(()))?;
                        }
                        return Ok(talk.end);
                    }
                    // A server that asks us to wait may end the stream with an error then; the wait counts. So does one that has
                    // nothing more to say on a stream that we have ended.
                    Err(error) if asks_to_wait(&talk.end) && !self.is_final(&error) => {
                        debug!(%error, "the server ends the stream after it asked us to wait");
                        return Ok(talk.end);
                    }
                    Err(error) => return Err(error),
                    Ok(Some(append_response::Message::Refusal(refusal))) => {
                        self.refused(refusal)?;
                        return Ok(End::Again(Duration::ZERO));
                    }
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
                    self.outbox.checked()?;
                }
                () = sleep_until(talk.give_up_at), if !open => return Ok(talk.end),
                () = sleep_until(talk.throttled_until.unwrap_or(talk.heartbeat_at)), if talk.throttled_until.is_some() => {
                    talk.throttled_until = None;
                    if open {
                        talk.end = End::Again(Duration::ZERO);
                    }
                }
                fresh = async { Some(renewed.as_mut()?.await) }, if open && renewed.is_some() => {
                    renewed = None;
                    if let Some((connection, stamps)) = fresh {
                        info!("certificates were renewed; going on over a new connection once everything is acknowledged");
                        (self.next, self.stamps) = (Some(connection), stamps);
                        talk.end = End::Renewed;
                        talk.shut();
                    }
                }
                () = sleep_until(talk.heartbeat_at), if open => {
                    talk.heartbeat_at = Instant::now() + HEARTBEAT;
                    if let Some(sender) = &talk.stream {
                        sender.send_if_room(append_request::Message::Heartbeat(self.outbox.heartbeat()));
                    }
                }
                () = sleep_until(paced_until.unwrap_or(talk.heartbeat_at)), if paced_until.is_some() => {}
                permit = async { talk.stream.as_ref()?.reserve().await.ok() }, if wants && paced_until.is_none() => {
                    let Some(permit) = permit else {
                        // The stream has ended; the receiver will say why.
                        talk.shut();
                        continue;
                    };
                    if let Some((message, bytes)) = self.outbox.send()? {
                        self.pace.sent(Instant::now(), bytes);
                        permit.send(v1::AppendRequest { message: Some(message) });
                    }
                }
                more = async {
                    let had = self.outbox.waits();
                    self.outbox.more().await.map(|more| (more, had))
                }, if open => {
                    let (more, waited) = more?;
                    if !more {
                        if let (Some(farewell), Some(sender)) = (self.outbox.farewell(), &talk.stream) {
                            let _ = sender.send(farewell).await;
                        }
                        talk.end = End::Finished;
                        talk.shut();
                        continue;
                    }
                    if !waited {
                        self.progress = Instant::now();
                    }
                }
                () = sleep_until(patience_ends.unwrap_or(talk.heartbeat_at)), if patience_ends.is_some() => {
                    return Err(self.gave_up());
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
                if self.outbox.acknowledge(ack).await? {
                    self.backoff.reset();
                    self.progress = Instant::now();
                    self.trouble.clear();
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
                self.outbox.rewind()?;
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
        let connection = self.connection.clone()?;
        Some(Box::pin(async move { guard.check_due(&connection).await }))
    }

    fn refused(&mut self, refusal: v1::Refusal) -> Result<(), ClientError> {
        warn!(
            kind = ?refusal.kind(), epoch = refusal.epoch, first = refusal.first, expected_epoch = refusal.expected_epoch,
            expected = refusal.expected_sequence, said = refusal.message, "the server refuses a batch"
        );
        self.is_hindered(format!("the server refuses a batch: {}", refusal.message));
        self.outbox.refused(refusal)
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
        self.outbox.hindered(&trouble);
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
            | ClientError::Spool(_)
            | ClientError::Record(_) => true,
            ClientError::Refused {
                code: Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition,
                ..
            }
            | ClientError::Receipt { .. }
            | ClientError::OtherJournal { .. }
            | ClientError::Checkpoint(_) => self.options.refusals_are_final,
            _ => false,
        }
    }
}

/// A newer session of this source has begun. Of our own it ends only a stream that nobody uses any more.
fn is_fenced(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: Code::Other(ABORTED), .. })
}

fn asks_to_wait(end: &End) -> bool {
    matches!(end, End::Again(wait) if !wait.is_zero())
}
