//! The register itself: pure, with time passed in.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sigillo_model::ids::SourceId;
use sigillo_proto::v1::{self, RefusalKind};

use super::{
    declared::{self, Declared},
    rhythm::Rhythm,
};

/// A source that means to stay connected is missed after so long. It sends a heartbeat every 10 s.
pub(super) const RESIDENT_SILENCE: Duration = Duration::from_secs(20);
/// After a start, and when the server has sent it away, such a source has so long to come back: senders wait up to 20 s between attempts.
const RETURN_WITHIN: Duration = Duration::from_secs(30);
/// A source that is configured is missed if it is not heard once within so long: time enough to set it up.
const FIRST_WITHIN: Duration = Duration::from_secs(24 * 3_600);
/// Statements about its clock that are remembered of a source.
const SKEWS: usize = 8;
/// Longest name of a program, characters.
const AGENT_MAX: usize = 128;
/// Longest reason of a goodbye, characters.
const GOODBYE_MAX: usize = 1_024;

/// When something is, by both clocks that matter here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// What was listened in all: decides about silence.
    pub(super) listened: Duration,
    /// The server's clock, nanoseconds since 1970: for people.
    pub(super) wall_ns: u64,
}

/// What is known of one source. What is not stored is so since the start of this server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    /// What it says that it is.
    pub(super) agent: String,
    /// When it was heard first.
    pub(super) first_seen_ns: u64,
    /// When it was heard last.
    pub(super) last_seen_ns: u64,
    /// The same as listened time; before it was heard at all, when it was known to be configured.
    heard: Duration,
    /// Sessions that it has begun.
    pub(super) sessions: u64,
    /// It has said that it stays connected, and its rhythm is no other one yet.
    pub(super) resident: bool,
    rhythm: Rhythm,
    /// What it said last when it announced that it stops.
    pub(super) goodbye: Option<String>,
    silence: Option<Silence>,
    /// What it said last of itself.
    pub(super) told: Told,
    /// What it has declared lost.
    pub(super) declared: Declared,
    /// When it did so last, nanoseconds since 1970.
    pub(super) last_loss_ns: u64,
    /// Refusals by kind.
    pub(super) refusals: Refusals,
    #[serde(skip)]
    skews_ns: VecDeque<i64>,
    /// Its open streams,
    #[serde(skip)]
    pub(super) streams: u32,
    /// and on how many of these a message of it is being handled: as long as it is the server that lets it wait, it is not silent.
    #[serde(skip)]
    busy: u32,
    /// The server has sent it away, to come back until then.
    #[serde(skip)]
    away_until: Duration,
}

/// A silence that is reported.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Silence {
    /// When it was heard last before, as listened time,
    heard: Duration,
    /// and when again, if it was.
    ended: Option<Duration>,
}

/// What a source says of itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// When, nanoseconds since 1970 by the server's clock; 0 = never.
    pub(super) at_ns: u64,
    /// Records that wait there.
    pub(super) waiting: u64,
    /// Age of the oldest of them, by its own clock.
    pub(super) lag: Duration,
}

/// How often batches and heads were refused.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Refusals {
    pub(super) gaps: u64,
    pub(super) forks: u64,
    pub(super) stale_epochs: u64,
    pub(super) invalid_batches: u64,
    pub(super) invalid_heads: u64,
}

/// What is to be made known of a source.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) source: SourceId,
    /// How it stands.
    pub(super) entry: Entry,
    /// For how long it is silent, or was.
    pub(super) quiet: Duration,
    /// How long it may be; `None` when it is heard again.
    pub(super) allowed: Option<Duration>,
}

impl Entry {
    /// A message of the source has come.
    fn heard(&mut self, now: Now) {
        self.heard = self.heard.max(now.listened);
        self.last_seen_ns = now.wall_ns;
        if let Some(silence) = &mut self.silence {
            silence.ended.get_or_insert(now.listened);
        }
    }

    /// The source has told its clock.
    fn clock(&mut self, now: Now, source_ns: u64) {
        if source_ns == 0 {
            return;
        }
        let skew = i128::from(source_ns) - i128::from(now.wall_ns);
        self.skews_ns.push_back(i64::try_from(skew).unwrap_or(if skew < 0 { i64::MIN } else { i64::MAX }));
        if self.skews_ns.len() > SKEWS {
            self.skews_ns.pop_front();
        }
    }

    /// Its clock less the server's, nanoseconds. The way here makes a clock look slow, so the greatest statement is nearest to the truth.
    pub(super) fn skew_ns(&self) -> i64 {
        self.skews_ns.iter().copied().max().unwrap_or(0)
    }

    /// How long it may be silent.
    pub(super) fn allowed(&self) -> Option<Duration> {
        match self.sessions {
            0 => Some(FIRST_WITHIN),
            _ if self.resident => Some(RESIDENT_SILENCE),
            _ => self.rhythm.allowed(),
        }
    }

    /// What is expected of it, in words.
    pub(super) fn expected(&self) -> &'static str {
        match self.sessions {
            0 => "never heard",
            _ if self.resident => "stays connected",
            _ => "own",
        }
    }

    /// Whether it is reported as silent.
    pub(super) fn is_silent(&self) -> bool {
        self.silence.is_some_and(|silence| silence.ended.is_none())
    }

    /// For how long it is silent, and how long it may be, if that is too long.
    fn too_quiet(&self, now: Duration, started: Duration) -> Option<(Duration, Duration)> {
        let allowed = self.allowed()?;
        let quiet = now.saturating_sub(self.heard);
        // After a start everybody needs time to come back.
        let grace = self.rhythm.longest().filter(|_| !self.resident).unwrap_or(RETURN_WITHIN);
        let waited = now.saturating_sub(started) >= grace || self.heard >= started;
        let free = self.busy == 0 && now >= self.away_until;
        (free && waited && quiet >= allowed).then_some((quiet, allowed))
    }
}

/// All configured sources, by id. No others are heard: they have no certificate.
#[derive(Debug)]
pub(super) struct Register {
    started: Duration,
    entries: HashMap<SourceId, Entry>,
}

impl Register {
    /// Goes on from what was known, at a start of the server.
    pub(super) fn new(entries: HashMap<SourceId, Entry>, started: Duration) -> Self {
        Self { started, entries }
    }

    /// What is known of a source.
    pub(super) fn get(&self, source: SourceId) -> Option<&Entry> {
        self.entries.get(&source)
    }

    /// Everything that is known.
    pub(super) fn entries(&self) -> &HashMap<SourceId, Entry> {
        &self.entries
    }

    /// Just these are configured from now on: forgets all others, and waits for those that are new.
    pub(super) fn configure(&mut self, configured: &HashSet<SourceId>, now: Duration) {
        self.entries.retain(|source, _| configured.contains(source));
        for source in configured {
            self.entries.entry(*source).or_insert_with(|| Entry { heard: now, ..Entry::default() });
        }
    }

    /// A stream of the source begins.
    pub(super) fn begins(&mut self, source: SourceId, now: Now, hello: &v1::Hello) {
        let entry = self.entries.entry(source).or_default();
        if entry.sessions == 0 {
            entry.first_seen_ns = now.wall_ns;
        }
        if hello.resident {
            entry.rhythm = Rhythm::default();
            entry.resident = true;
        } else if entry.streams == 0 {
            // Once it has stayed connected it is held to that, until it is heard now and then for long enough.
            let pause = (entry.sessions > 0).then(|| now.listened.saturating_sub(entry.heard));
            entry.rhythm.begins(now.listened, pause);
            entry.resident &= entry.rhythm.allowed().is_none();
        }
        entry.agent = cut(&hello.agent, AGENT_MAX);
        entry.goodbye = None;
        entry.away_until = Duration::ZERO;
        entry.sessions += 1;
        entry.streams += 1;
        entry.clock(now, hello.clock_unix_nano);
        entry.heard(now);
    }

    /// A message of the source has come, and is handled from now on.
    pub(super) fn takes(&mut self, source: SourceId, now: Now) {
        if let Some(entry) = self.entries.get_mut(&source) {
            entry.busy += 1;
            entry.heard(now);
        }
    }

    /// It has been handled.
    pub(super) fn took(&mut self, source: SourceId, now: Now) {
        if let Some(entry) = self.entries.get_mut(&source) {
            entry.busy = entry.busy.saturating_sub(1);
            entry.heard(now);
        }
    }

    /// The source says how it stands.
    pub(super) fn heartbeat(&mut self, source: SourceId, now: Now, heartbeat: &v1::Heartbeat) {
        let Some(entry) = self.entries.get_mut(&source) else { return };
        entry.clock(now, heartbeat.clock_unix_nano);
        let waits = heartbeat.waiting_records > 0 && heartbeat.oldest_unix_nano > 0;
        let lag_ns = if waits { heartbeat.clock_unix_nano.saturating_sub(heartbeat.oldest_unix_nano) } else { 0 };
        let (waiting, lag) = (heartbeat.waiting_records, Duration::from_nanos(lag_ns));
        entry.told = Told { at_ns: now.wall_ns, waiting, lag };
    }

    /// The source announces that it stops.
    pub(super) fn goodbye(&mut self, source: SourceId, reason: &str) {
        if let Some(entry) = self.entries.get_mut(&source) {
            entry.goodbye = Some(cut(reason, GOODBYE_MAX));
        }
    }

    /// The server sends the source away for now: its disk is full, its clock is in doubt, it stops.
    pub(super) fn sends_away(&mut self, source: SourceId, now: Now) {
        if let Some(entry) = self.entries.get_mut(&source) {
            entry.away_until = now.listened.saturating_add(RETURN_WITHIN);
        }
    }

    /// A stream of the source has ended.
    pub(super) fn ends(&mut self, source: SourceId) {
        if let Some(entry) = self.entries.get_mut(&source) {
            entry.streams = entry.streams.saturating_sub(1);
        }
    }

    /// A batch in which the source declares this is durable, for the first time.
    pub(super) fn declares(&mut self, source: SourceId, now: Now, declared: Declared) {
        let Some(entry) = self.entries.get_mut(&source) else { return };
        if declared.losses > 0 {
            entry.last_loss_ns = now.wall_ns;
        }
        let sum = &mut entry.declared;
        sum.losses = sum.losses.saturating_add(declared.losses);
        sum.lines = sum.lines.saturating_add(declared.lines);
        sum.bytes = sum.bytes.saturating_add(declared.bytes);
        if declared.stopped {
            entry.goodbye.get_or_insert_with(|| declared::STOPPED.to_owned());
        }
    }

    /// Something of the source was refused.
    pub(super) fn refused(&mut self, source: SourceId, kind: RefusalKind) {
        let Some(Entry { refusals, .. }) = self.entries.get_mut(&source) else { return };
        match kind {
            RefusalKind::Gap => refusals.gaps += 1,
            RefusalKind::Fork => refusals.forks += 1,
            RefusalKind::StaleEpoch => refusals.stale_epochs += 1,
            RefusalKind::Head => refusals.invalid_heads += 1,
            RefusalKind::Invalid | RefusalKind::Unspecified => refusals.invalid_batches += 1,
        }
    }

    /// Looks who is silent and who is heard again. Each is told once.
    pub(super) fn look(&mut self, now: Duration) -> Vec<Report> {
        let started = self.started;
        let mut reports = Vec::new();
        for (source, entry) in &mut self.entries {
            let mut report = |entry: &Entry, quiet, allowed| {
                reports.push(Report { source: *source, entry: entry.clone(), quiet, allowed });
            };
            if let Some(Silence { heard, ended: Some(ended) }) = entry.silence {
                entry.silence = None;
                report(entry, ended.saturating_sub(heard), None);
            }
            if entry.silence.is_none()
                && let Some((quiet, allowed)) = entry.too_quiet(now, started)
            {
                entry.silence = Some(Silence { heard: entry.heard, ended: None });
                report(entry, quiet, Some(allowed));
            }
        }
        reports
    }
}

/// A sender's text, not longer than is wanted.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests;
