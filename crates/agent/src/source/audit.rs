//! The kernel's audit log.
//!
//! Lines of one event become one record: its lines, joined by line ends (`joiner`). Every event takes the next number of the kernel's
//! counter, so what is missing is seen, and declared (`serials`). What is remembered is where the oldest event begins that was not
//! handed over, and which younger ones were.
//!
//! One thread reads a log. The kernel wakes it; every few seconds it looks by itself.

mod joiner;
mod line;
mod log;
mod serials;
mod settings;

use std::{
    io::{self, PipeReader, pipe},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sigillo_client::unix_nanos;
use tokio::sync::oneshot;
use tracing::warn;

pub use settings::AuditSettings;

use crate::{
    AgentError, Profile,
    declare::{Declarer, Loss},
    line::{LINE_MAX_BYTES, Piece, Splitter},
    record::Maker,
    run::Mode,
    source::{
        Chunk, Feed, Gathered, Marks, Meter,
        audit::{
            joiner::{Event, Joiner},
            line::{EventId, parse},
            log::{Log, Place, Read},
            serials::{Missing, Serials},
        },
        watch::{Watch, pause},
    },
    stamp::Stamp,
};

const READ_BYTES: usize = 128 << 10;
/// What the greatest event needs in a chunk, with declarations before it.
const EVENT_ROOM: (usize, usize) = (16, 384 << 10);
/// How often a log is looked at without notice; and where the kernel gives none, or an event is not whole.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_OFTEN_EVERY: Duration = Duration::from_millis(250);
/// After something was read: auditd writes every line by itself, those that come in this time are read together.
const PAUSE: Duration = Duration::from_millis(20);
/// Wait after an error.
const RETRY: Duration = Duration::from_secs(5);
const VERSION: u32 = 1;

/// How far the log was read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mark {
    v: u32,
    /// Where the oldest event begins that was not handed over.
    place: Place,
    /// Events that were handed over and whose lines go on behind that place: time, serial, and where they end, counted from the
    /// beginning of the place's file on.
    done: Vec<(u64, u64, u64)>,
    serials: Serials,
}

/// Follows the log for ever, or to its present end.
pub(crate) async fn follow(
    settings: AuditSettings,
    maker: Maker,
    marks: Marks,
    mode: Mode,
    feed: Feed,
    meter: Arc<Meter>,
) -> Result<(), AgentError> {
    let name = settings.path.display().to_string();
    let key: Arc<str> = Arc::from(format!("audit {name}"));
    let mark = marks.get(&key).and_then(|bytes| serde_json::from_slice::<Mark>(bytes).ok());
    let reader = Reader::new(settings, &maker, key, mark.filter(|mark| mark.v == VERSION), meter);
    let failed = |source| AgentError::Source { name: name.clone(), source };
    // Ends when this future does.
    let (stop, _stopping) = pipe().map_err(failed)?;
    let (done_end, done) = oneshot::channel();
    let path = name.clone();
    let work = move || {
        // Nobody waits for an answer any more when the agent stops.
        let _ = done_end.send(work(reader, &path, mode, &feed, &stop));
    };
    thread::Builder::new().name("audit".into()).spawn(work).map_err(failed)?;
    done.await.unwrap_or_else(|_| Err(failed(io::Error::other("the thread that reads the audit log has ended"))))
}

fn work(mut reader: Reader, name: &str, mode: Mode, feed: &Feed, stop: &PipeReader) -> Result<(), AgentError> {
    let notices = if mode == Mode::Once { None } else { Watch::new().ok() };
    let mut watch = notices.unwrap_or_else(Watch::none);
    let mut has_worked = false;
    loop {
        // What changes from here on is read now or wakes us.
        watch.changes();
        match reader.read(mode == Mode::Once) {
            Ok((chunks, went_on)) => {
                reader.meter.set_error(None);
                // Told before the chunks are handed over, which may take long.
                reader.meter.lag_bytes.store(if went_on { reader.log.lag() } else { 0 }, Relaxed);
                has_worked |= went_on;
                for chunk in chunks {
                    if !feed.hand_over_blocking(chunk) {
                        return Ok(());
                    }
                }
                if went_on || reader.log.watch(&mut watch) {
                    continue;
                }
                if mode == Mode::Once {
                    return Ok(());
                }
                let often = reader.log.is_blind() || reader.joiner.oldest().is_some();
                let every = if often { LOOK_OFTEN_EVERY } else { LOOK_EVERY };
                let goes_on =
                    if std::mem::take(&mut has_worked) { pause(stop, PAUSE) } else { watch.wait(stop, every) };
                if !goes_on {
                    return Ok(());
                }
            }
            Err(source) if mode == Mode::Once => return Err(AgentError::Source { name: name.to_owned(), source }),
            Err(error) => {
                warn!(path = name, %error, "the audit log can't be read; trying again");
                reader.meter.set_error(Some(error.to_string()));
                if !pause(stop, RETRY) {
                    return Ok(());
                }
            }
        }
    }
}

struct Reader {
    log: Log,
    splitter: Splitter,
    /// Where the line begins that is not whole.
    at: u64,
    joiner: Joiner,
    serials: Serials,
    done: Vec<(EventId, u64)>,
    gathered: Gathered,
    maker: Maker,
    declarer: Declarer,
    stream: String,
    meter: Arc<Meter>,
    buffer: Vec<u8>,
    is_begun: bool,
}

impl Reader {
    fn new(settings: AuditSettings, maker: &Maker, key: Arc<str>, mark: Option<Mark>, meter: Arc<Meter>) -> Self {
        let stream = settings.path.to_string_lossy().into_owned();
        let resume = mark.as_ref().map(|mark| mark.place.clone());
        let Mark { done, serials, .. } = mark.unwrap_or_default();
        let done = done.into_iter().map(|(time_ms, serial, end)| (EventId { time_ms, serial }, end)).collect();
        Self {
            log: Log::new(settings.path, resume),
            splitter: Splitter::new(LINE_MAX_BYTES, 0),
            at: 0,
            joiner: Joiner::default(),
            serials,
            done,
            gathered: Gathered::new(key),
            maker: maker.of(&stream).with_profile(Profile::Audit),
            declarer: Declarer::new(maker),
            stream,
            meter,
            buffer: vec![0; READ_BYTES],
            is_begun: false,
        }
    }

    /// Reads once. Also says whether something was read; if nothing was, `to_end` ends what is unfinished.
    fn read(&mut self, to_end: bool) -> io::Result<(Vec<Chunk>, bool)> {
        let before = self.log.place();
        let read = self.log.read(&mut self.buffer)?;
        if !self.is_begun && (read != Read::Nothing || self.log.place() != before) {
            self.begin(&read);
        }
        let now = Instant::now();
        if let Read::Bytes(count) = read {
            self.splitter.push(self.buffer.get(..count).unwrap_or_default());
        }
        while let Some(piece) = self.splitter.next_piece() {
            self.line(&piece, now);
        }
        if read == Read::EndOfFile || to_end && read == Read::Nothing {
            // Its end will never come.
            if let Some(piece) = self.splitter.finish() {
                self.line(&piece, now);
            }
        }
        let is_end = to_end && read == Read::Nothing;
        let mut chunks = Vec::new();
        loop {
            if !self.gathered.has_room(EVENT_ROOM.0, EVENT_ROOM.1) {
                chunks.extend(self.chunk());
            }
            let Some(event) = self.joiner.next_event(now, is_end) else { break };
            self.take(event);
        }
        chunks.extend(self.chunk());
        Ok((chunks, read != Read::Nothing))
    }

    /// Reading has begun, where it stopped or elsewhere.
    fn begin(&mut self, read: &Read) {
        self.is_begun = true;
        let count = if let Read::Bytes(count) = read { *count as u64 } else { 0 };
        self.at = self.log.place() - count;
        if self.log.moved {
            self.serials.moved();
            self.done.clear();
        }
    }

    fn line(&mut self, piece: &Piece, now: Instant) {
        let begin = self.at;
        self.at += piece.consumed;
        let id = parse(&piece.bytes).map(|line| line.event);
        let was_handed_over = |(done, end): &(EventId, u64)| Some(*done) == id && self.at <= *end;
        if !self.done.iter().any(was_handed_over) {
            self.joiner.push(&piece.bytes, (begin, self.at), now);
        }
    }

    fn take(&mut self, event: Event) {
        let observed = unix_nanos();
        if let Some(id) = event.id {
            self.done.push((id, event.end));
            if !event.is_of_auditd {
                for missing in self.serials.note(id) {
                    self.declare(missing, observed);
                }
            }
        }
        let time = event.id.map_or(0, |id| id.time_ms.saturating_mul(1_000_000));
        let stamp = Stamp { event_time_unix_nano: time, program: "audit", ..Stamp::default() };
        let lines = u64::from(event.lines());
        let bytes: Bytes = event.into_text();
        self.meter.read(lines, bytes.len() as u64, observed);
        let piece = Piece { consumed: bytes.len() as u64, bytes, fragment: None };
        self.gathered.push(self.maker.message(piece, stamp, observed));
    }

    fn declare(&mut self, (first, last): Missing, observed: u64) {
        let (reason, from, to, lines) = match (first, last) {
            (0, 0) => {
                let reason =
                    "the place at which reading of the audit log stopped is gone, and its counter has begun anew";
                (reason, String::new(), String::new(), None)
            }
            _ => ("the audit log's serials have a gap", first.to_string(), last.to_string(), Some(last - first + 1)),
        };
        warn!(path = self.stream, from, to, "{reason}");
        self.meter.missing(lines.unwrap_or_default());
        let loss = Loss { stream: &self.stream, reason, from: &from, to: &to, lines, bytes: None };
        self.gathered.push(self.declarer.loss(&loss, observed));
    }

    /// What was gathered, with what is to be remembered of it.
    fn chunk(&mut self) -> Option<Chunk> {
        let place = self.joiner.oldest().unwrap_or(self.at);
        self.done.retain(|(_, end)| *end > place);
        let (remembered, begin) = self.log.remember(place);
        let done = self.done.iter().map(|(id, end)| (id.time_ms, id.serial, end.saturating_sub(begin))).collect();
        let mark = Mark { v: VERSION, place: remembered, done, serials: self.serials.clone() };
        // Numbers and texts only: this can't fail.
        self.gathered.take(Some(serde_json::to_vec(&mark).unwrap_or_default().into()))
    }
}

#[cfg(test)]
mod tests;
