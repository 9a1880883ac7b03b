//! Lines into events. Events come out in the order of their first lines, each whole as far as that can be known: lines of several
//! events may be mixed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::line::{EventId, Line, parse};

/// Most bytes and lines of an event; what comes after them is a record of its own.
const EVENT_MAX_BYTES: usize = 64 << 10;
const EVENT_MAX_LINES: u32 = 64;
/// How long after its newest line an event is waited for, by the clock, and by the times of events that come after it.
const WAIT: Duration = Duration::from_secs(2);
const WAIT_MS: u64 = 2_000;
/// Events that are waited for, or wait for older ones.
const EVENTS_MAX: usize = 48;

/// Lines of one event, or a line that belongs to none.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: Option<EventId>,
    /// Whether auditd speaks of itself.
    pub(super) is_of_auditd: bool,
    /// The lines, joined by line ends.
    text: BytesMut,
    lines: u32,
    /// Where the first line begins, and the last one ends.
    pub(super) begin: u64,
    pub(super) end: u64,
    ended: bool,
    newest_line: Instant,
}

impl Event {
    pub(super) fn lines(&self) -> u32 {
        self.lines
    }

    /// The lines.
    pub(super) fn into_text(self) -> Bytes {
        self.text.freeze()
    }
}

/// Events that are not out yet.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    events: VecDeque<Event>,
    newest_ms: u64,
}

impl Joiner {
    /// Adds a line that stands between two places.
    pub(super) fn push(&mut self, line: &[u8], (begin, end): (u64, u64), now: Instant) {
        let parsed = parse(line);
        let is_of_auditd = parsed.is_some_and(|line| line.is_of_auditd());
        let id = parsed.map(|line| line.event);
        self.newest_ms = self.newest_ms.max(id.map_or(0, |id| id.time_ms));
        let ends = parsed.as_ref().is_none_or(Line::ends);
        let mut waiting = self.events.iter_mut().filter(|event| !event.ended && event.id == id && id.is_some());
        if let Some(event) = waiting.next() {
            event.text.extend_from_slice(b"\n");
            event.text.extend_from_slice(line);
            event.lines += 1;
            (event.end, event.newest_line) = (end, now);
            event.ended = ends || event.lines >= EVENT_MAX_LINES || event.text.len() >= EVENT_MAX_BYTES;
            return;
        }
        let text = BytesMut::from(line);
        self.events.push_back(Event { id, is_of_auditd, text, lines: 1, begin, end, ended: ends, newest_line: now });
    }

    /// The oldest event, once nothing more of it is expected. `at_end`: of any.
    pub(super) fn next_event(&mut self, now: Instant, at_end: bool) -> Option<Event> {
        let oldest = self.events.front()?;
        let time_ms = oldest.id.map_or(0, |id| id.time_ms);
        let is_due = at_end
            || oldest.ended
            || self.events.len() > EVENTS_MAX
            || time_ms.saturating_add(WAIT_MS) < self.newest_ms
            || now.saturating_duration_since(oldest.newest_line) >= WAIT;
        if is_due { self.events.pop_front() } else { None }
    }

    /// Where the oldest event begins that is not out.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.events.front().map(|event| event.begin)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(kind: &str, time_ms: u64, serial: u64) -> String {
        format!("type={kind} msg=audit({}.{:03}:{serial}): x={kind}", time_ms / 1_000, time_ms % 1_000)
    }

    struct Case {
        joiner: Joiner,
        now: Instant,
        at: u64,
    }

    impl Case {
        fn new() -> Self {
            Self { joiner: Joiner::default(), now: Instant::now(), at: 0 }
        }

        fn push(&mut self, line: &str) {
            let begin = self.at;
            self.at += line.len() as u64 + 1;
            self.joiner.push(line.as_bytes(), (begin, self.at), self.now);
        }

        /// Serials and numbers of lines.
        fn events(&mut self) -> Vec<(u64, u32)> {
            std::iter::from_fn(|| self.joiner.next_event(self.now, false))
                .map(|event| (event.id.map_or(0, |id| id.serial), event.lines()))
                .collect()
        }
    }

    #[test]
    fn lines_of_an_event_are_one_and_mixed_events_are_told_apart() {
        let mut case = Case::new();
        for (kind, serial) in [("SYSCALL", 1), ("SYSCALL", 2), ("PATH", 1), ("CWD", 2), ("PROCTITLE", 2)] {
            case.push(&line(kind, 5, serial));
        }
        // The younger one is whole, and waits for the older one.
        assert_eq!((case.events(), case.joiner.oldest()), (vec![], Some(0)));
        case.push(&line("PROCTITLE", 5, 1));
        case.push(&line("USER_LOGIN", 5, 3));
        case.push("no audit line");
        case.push(&line("LOGIN", 5, 4));
        assert_eq!(case.events(), [(1, 3), (2, 3), (3, 1), (0, 1)]);
        case.push(&line("EOE", 5, 4));
        assert_eq!((case.events(), case.joiner.oldest()), (vec![(4, 2)], None));
    }

    #[test]
    fn text_is_kept_byte_for_byte() {
        let mut joiner = Joiner::default();
        let lines = [&b"type=SYSCALL msg=audit(1.000:7): a=\xff\x1dARCH=x"[..], b"type=EOE msg=audit(1.000:7): "];
        for line in lines {
            joiner.push(line, (0, 1), Instant::now());
        }
        assert_eq!(joiner.next_event(Instant::now(), false).unwrap().into_text(), lines.join(&b'\n'));
    }

    #[test]
    fn an_event_without_end_is_waited_for_and_not_for_ever() {
        let mut case = Case::new();
        case.push(&line("AVC", 5, 1));
        assert_eq!(case.events(), []);
        case.now += WAIT;
        assert_eq!(case.events(), [(1, 1)]);
        // In an old log its successors' times tell.
        case.push(&line("AVC", 5, 2));
        case.push(&line("USER_LOGIN", 2_006, 3));
        assert_eq!(case.events(), [(2, 1), (3, 1)]);
        case.push(&line("AVC", 2_006, 4));
        assert!(case.joiner.next_event(case.now, true).is_some());
    }

    #[test]
    fn events_have_bounds() {
        let mut case = Case::new();
        for _ in 0..100 {
            case.push(&line("PATH", 5, 1));
        }
        assert_eq!(case.events(), [(1, 64)]);
        case.push(&line("EOE", 5, 1));
        assert_eq!(case.events(), [(1, 37)]);
        case.push(&format!("{}{}", line("EXECVE", 5, 2), "a".repeat(70_000)));
        case.push(&line("EXECVE", 5, 2));
        case.push(&line("EXECVE", 5, 2));
        assert_eq!(case.events(), [(2, 2)]);
        let mut case = Case::new();
        for serial in 0..1_000 {
            case.push(&line("AVC", 5, serial));
            case.events();
        }
        assert!(case.joiner.events.len() <= EVENTS_MAX);
    }

    proptest! {
        #[test]
        fn every_line_comes_out_once(kinds in proptest::collection::vec((0_usize..6, 1_u64..5), 0..200)) {
            let mut case = Case::new();
            let names = ["SYSCALL", "PATH", "CWD", "PROCTITLE", "EOE", "USER_LOGIN"];
            let mut count = 0;
            for (kind, serial) in &kinds {
                case.push(&line(names[*kind], 5, *serial));
                count += case.events().iter().map(|(_, lines)| *lines as usize).sum::<usize>();
            }
            while let Some(event) = case.joiner.next_event(case.now, true) {
                count += event.lines() as usize;
            }
            prop_assert_eq!(count, kinds.len());
        }
    }
}
