//! The systemd journal, read through `journalctl --output=export`.
//!
//! All entries are read, also where those of some units are wanted only. What is remembered is the cursor of the entry that was read last, and the last number of each sequence (`numbers`). Reading goes
//! on *at* that entry, which must come first then: if another one does, the journal was cut back meanwhile, and that is declared. So
//! is a gap in the numbers. Before a fresh gap is believed the journal is read once more from the mark on: of entries that are written
//! to two files at the same time a reader may see the later one first, and then steps over the earlier one.

mod export;
mod numbers;
mod reader;
mod settings;
mod units;

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use sigillo_client::{Backoff, unix_nanos};
use tokio::{
    io::AsyncReadExt,
    process::Command,
    time::{sleep, timeout},
};
use tracing::{info, warn};

pub use settings::JournaldSettings;

use crate::{
    AgentError,
    declare::{Declarer, Loss},
    line::LINE_MAX_BYTES,
    record::Maker,
    run::Mode,
    source::{
        Chunk, Feed, Gathered, Marks, Meter,
        journald::{
            export::{Entry, FIELDS, Parser, UNIT_FIELDS},
            numbers::Mark,
            reader::{Follower, Found, Missing, dropped, stamp},
            units::Units,
        },
    },
};

const READ_BYTES: usize = 256 << 10;
/// Everything was read when nothing comes for so long.
const AT_END_AFTER: Duration = Duration::from_secs(1);
/// How often it is handed over how far was read, when nothing of it is passed on.
const REMEMBER_EVERY: Duration = Duration::from_secs(30);
/// What records of an entry have beside its message, at most, with a declaration.
const RECORD_MORE_BYTES: usize = 64 << 10;

/// Follows the journal for ever, or to its present end.
pub(crate) async fn follow(
    settings: JournaldSettings,
    maker: Maker,
    marks: Marks,
    mode: Mode,
    feed: Feed,
    meter: Arc<Meter>,
) -> Result<(), AgentError> {
    let key: Arc<str> = Arc::from(settings.key());
    let mark = marks.get(&key).and_then(|bytes| Mark::parse(bytes));
    let failed = |source| AgentError::Source { name: "the systemd journal".into(), source };
    let units = Units::new(&settings.units).map_err(|error| failed(io::Error::other(error)))?;
    let declarer = Declarer::new(&maker);
    let maker = maker.with_profile(settings.profile);
    let mut reading = Reading {
        settings,
        units,
        is_chosen: true,
        maker,
        declarer,
        gathered: Gathered::new(Arc::clone(&key)),
        key,
        remembered: None,
        follower: Follower::new(mark),
        mode,
        feed,
        meter,
    };
    let mut backoff = Backoff::default();
    loop {
        let before = reading.follower.mark.cursor.clone();
        let error = match reading.run().await {
            Ok(Ended::Wanted) => return Ok(()),
            Ok(Ended::Again) => continue,
            Ok(Ended::Itself(status)) if mode == Mode::Once && status.success() => return Ok(()),
            Ok(Ended::Itself(status)) => io::Error::other(format!("journalctl ended: {status}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warn!("there is no journalctl on this machine: the systemd journal is not read");
                reading.meter.set_error(Some("there is no journalctl on this machine".into()));
                return Ok(());
            }
            Err(error) => error,
        };
        reading.meter.set_error(Some(error.to_string()));
        if mode == Mode::Once {
            return Err(failed(error));
        }
        if before != reading.follower.mark.cursor {
            backoff.reset();
        }
        let wait: Duration = backoff.next_wait();
        warn!(%error, wait_ms = wait.as_millis(), "the systemd journal can't be read; trying again");
        sleep(wait).await;
    }
}

enum Ended {
    /// Nobody takes records any more.
    Wanted,
    /// It is to be read from the mark on.
    Again,
    Itself(ExitStatus),
}

struct Reading {
    settings: JournaldSettings,
    units: Units,
    /// Whether the present entry is passed on.
    is_chosen: bool,
    maker: Maker,
    declarer: Declarer,
    gathered: Gathered,
    key: Arc<str>,
    /// When it was handed over last how far was read.
    remembered: Option<Instant>,
    follower: Follower,
    mode: Mode,
    feed: Feed,
    meter: Arc<Meter>,
}

impl Reading {
    /// Runs journalctl once.
    async fn run(&mut self) -> io::Result<Ended> {
        let mut child = self.command().stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        info!(units = self.settings.units.join(","), "reading the systemd journal");
        let mut output = child.stdout.take().ok_or_else(|| io::Error::other("journalctl has no output"))?;
        let mut parser = Parser::default();
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        self.follower.begin();
        loop {
            buffer.clear();
            buffer.reserve(READ_BYTES);
            let read = if self.meter.is_at_end() {
                output.read_buf(&mut buffer).await?
            } else {
                // journalctl may itself take some time.
                let Ok(read) = timeout(AT_END_AFTER, output.read_buf(&mut buffer)).await else {
                    self.meter.read_up_to(0);
                    continue;
                };
                read?
            };
            if read == 0 {
                return child.wait().await.map(Ended::Itself);
            }
            self.meter.set_error(None);
            parser.push(&buffer);
            let observed = unix_nanos();
            let mut again = false;
            while let Some(entry) = parser.next_entry()? {
                let bytes = entry.message.as_ref().map_or(0, bytes::Bytes::len);
                if !self.gathered.has_room(bytes / LINE_MAX_BYTES + 3, bytes + RECORD_MORE_BYTES) && !self.flush().await
                {
                    return Ok(Ended::Wanted);
                }
                again = !self.take(&entry, observed);
                if again {
                    break;
                }
            }
            if !self.flush().await {
                return Ok(Ended::Wanted);
            }
            if again {
                return Ok(Ended::Again);
            }
        }
    }
}

impl Reading {
    fn command(&self) -> Command {
        let mut command = Command::new("journalctl");
        let more = if self.settings.units.is_empty() { &[][..] } else { &UNIT_FIELDS };
        let fields = [&FIELDS, more].concat().join(",");
        command.args(["--output=export", "--no-pager", "--quiet"]).arg(format!("--output-fields={fields}"));
        if self.mode == Mode::Follow {
            // Since systemd 250 following means the present boot only, --boot=all or not; together with --merge it still means all.
            command.args(["--follow", "--no-tail", "--merge"]);
        }
        command.args(self.settings.place());
        if !self.follower.mark.cursor.is_empty() {
            command.arg(format!("--cursor={}", self.follower.mark.cursor));
        }
        command
    }

    /// Takes an entry; false if reading must go back to the mark.
    fn take(&mut self, entry: &Entry, observed: u64) -> bool {
        if entry.given == 0 {
            self.is_chosen = self.units.has(entry);
        }
        let (pieces, missing) = match self.follower.take(entry, observed) {
            Found::Nothing => return true,
            Found::Again => return false,
            Found::Pieces(pieces, missing) => (pieces, missing),
        };
        for missing in missing.into_iter().chain(dropped(entry)) {
            self.declare(&missing, observed);
        }
        self.meter.read_up_to(entry.time_unix_nano().max(1));
        if !self.is_chosen {
            return true;
        }
        let bytes = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        self.meter.read(u64::from(entry.given == 0), bytes, observed);
        for piece in pieces {
            self.gathered.push(self.maker.message(piece, stamp(entry), observed));
        }
        true
    }

    fn declare(&mut self, missing: &Missing, observed: u64) {
        let Missing { reason, from, to, lines } = missing;
        warn!(from, to, entries = lines, "{reason}");
        self.meter.missing(*lines);
        let lines = (*lines > 0).then_some(*lines);
        let loss = Loss { stream: "journald", reason, from, to, lines, bytes: None };
        self.gathered.push(self.declarer.loss(&loss, observed));
    }

    /// Hands over what was gathered; false when nobody takes it any more.
    async fn flush(&mut self) -> bool {
        let mark = self.follower.mark.to_bytes();
        let chunk = self.gathered.take(Some(mark.clone())).or_else(|| {
            // Of units that are silent for long: else the place would be gone one day, and be missed.
            let is_due = self.remembered.is_none_or(|remembered| remembered.elapsed() >= REMEMBER_EVERY);
            is_due.then(|| Chunk::new(&self.key, Vec::new(), Some(mark)))
        });
        let Some(chunk) = chunk else { return true };
        self.remembered = Some(Instant::now());
        self.feed.hand_over(chunk).await
    }
}

#[cfg(test)]
mod tests;
