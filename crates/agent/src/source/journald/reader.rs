//! Entries into records, and what is missing between them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{
    line::{LINE_MAX_BYTES, Piece, split_message},
    source::journald::{
        export::Entry,
        numbers::{Cursor, Mark},
    },
    stamp::Stamp,
};

/// journald's own messages (`sd-messages.h`): it dropped messages of a unit that sent too many, or missed some of the kernel's.
const DROPPED: &str = "a596d6fe7bfa4994828e72309e95d61e";
const MISSED: &str = "e9bf28e6e834481bb6f48f548ad13606";
/// How old an entry must be so that no other can still be on its way into the journal before it.
const SETTLED_NS: u64 = 10_000_000_000;

/// What is to be made of an entry, or of a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This was read before.
    Nothing,
    /// Records of these pieces, after a declaration of what is missing before them.
    Pieces(Vec<Piece>, Option<Missing>),
    /// Something seems to be missing, and may only have come late: it must be read again from the mark on.
    Again,
}

/// Entries that are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) reason: Cow<'static, str>,
    /// The place before, as far as it is known.
    pub(super) from: String,
    /// The place after.
    pub(super) to: String,
    /// How many; 0 if that can't be known.
    pub(super) lines: u64,
}

/// Follows entries by their cursors.
#[derive(Debug, Default)]
pub(super) struct Follower {
    pub(super) mark: Mark,
    /// What the first entry must be, if reading went on at a mark.
    resumed: Option<Cursor>,
    /// Bytes of the present entry's message that were read before.
    skip: u64,
    /// An entry before which something seemed to be missing already.
    suspected: Option<Cursor>,
}

impl Follower {
    pub(super) fn new(mark: Option<Mark>) -> Self {
        Self { mark: mark.unwrap_or_default(), ..Self::default() }
    }

    /// Reading begins, or begins again, at the mark.
    pub(super) fn begin(&mut self) {
        (self.resumed, self.skip) = (Cursor::parse(&self.mark.cursor), 0);
    }

    /// Takes an entry, or a part of one.
    pub(super) fn take(&mut self, entry: &Entry, observed: u64) -> Found {
        let cursor = std::str::from_utf8(&entry.cursor).ok().and_then(Cursor::parse);
        let Some(cursor) = cursor else {
            // No place to remember, and nothing to compare: the entry all the same.
            return Found::Pieces(pieces(entry), None);
        };
        let mut missing = None;
        if entry.given == 0 {
            match self.before(&cursor, entry, observed) {
                Ok(found) => missing = found,
                Err(()) => return Found::Again,
            }
        }
        let end = entry.given + entry.message.as_ref().map_or(0, |message| message.len() as u64);
        let is_new = self.skip == 0 || end > self.skip;
        if entry.whole {
            self.skip = 0;
        }
        if !is_new {
            return Found::Nothing;
        }
        self.mark.advance(&cursor, (!entry.whole).then_some(end));
        Found::Pieces(pieces(entry), missing)
    }

    /// What is missing before an entry.
    fn before(&mut self, cursor: &Cursor, entry: &Entry, observed: u64) -> Result<Option<Missing>, ()> {
        if let Some(resumed) = self.resumed.take() {
            if resumed.is_same_entry(cursor) {
                self.skip = self.mark.part.unwrap_or(u64::MAX);
                return Ok(None);
            }
            if self.mark.part.is_none() && self.mark.is_next(cursor) {
                return Ok(None);
            }
            let numbers = self.mark.missing_before(cursor);
            return Ok(Some(Missing {
                reason: "the place at which reading of the systemd journal stopped is no longer there".into(),
                from: resumed.text,
                to: cursor.text.clone(),
                lines: numbers.map_or(0, |(first, last)| last - first + 1),
            }));
        }
        let Some((first, last)) = self.mark.missing_before(cursor) else { return Ok(None) };
        let is_settled = entry.time_unix_nano().saturating_add(SETTLED_NS) < observed;
        if !is_settled && self.suspected.as_ref() != Some(cursor) {
            self.suspected = Some(cursor.clone());
            return Err(());
        }
        self.suspected = None;
        Ok(Some(Missing {
            reason: "the systemd journal's counter has a gap".into(),
            from: format!("s={:032x};i={first:x}", cursor.sequence),
            to: format!("s={:032x};i={last:x}", cursor.sequence),
            lines: last - first + 1,
        }))
    }
}

/// What journald itself, or the kernel's audit, says that it has dropped. Nobody else can: journald sets the transport.
pub(super) fn dropped(entry: &Entry) -> Option<Missing> {
    let missing = |reason, lines| {
        let to = String::from_utf8_lossy(&entry.cursor).into_owned();
        Some(Missing { reason, from: String::new(), to, lines })
    };
    let message = entry.message.as_ref().and_then(|message| std::str::from_utf8(message).ok()).unwrap_or_default();
    let reason = match (entry.text("_TRANSPORT"), entry.text("MESSAGE_ID")) {
        ("driver", DROPPED) => "journald dropped messages of a unit that sent more than its rate limit allows",
        ("driver", MISSED) => "journald missed messages of the kernel",
        // The number counts from boot on, so what is new of it is not known here.
        ("kernel", _) if message.starts_with("audit: audit_lost=") => {
            let number = message.split(['=', ' ']).nth(2).unwrap_or_default();
            return missing(format!("the kernel's audit has lost {number} events since boot").into(), 0);
        }
        _ => return None,
    };
    let number = entry.text("N_DROPPED").parse().ok();
    let lines = number.or_else(|| message.split(' ').find_map(|word| word.parse().ok()));
    missing(reason.into(), lines.unwrap_or_default())
}

/// What an entry says of itself.
pub(super) fn stamp(entry: &Entry) -> Stamp<'_> {
    let number = |name| entry.text(name).parse::<u8>().ok();
    let program = [entry.text("SYSLOG_IDENTIFIER"), entry.text("_COMM")];
    Stamp {
        event_time_unix_nano: entry.time_unix_nano(),
        priority: number("PRIORITY").filter(|priority| *priority <= 7),
        host: entry.text("_HOSTNAME"),
        program: program.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
        process_id: entry.text("_PID").parse().unwrap_or_default(),
        stream: entry.text("_SYSTEMD_UNIT"),
    }
}

/// The entry's message, or the part of it, in pieces that fit records.
fn pieces(entry: &Entry) -> Vec<Piece> {
    let original: Bytes = entry.original();
    let mut pieces = split_message(&original);
    if entry.given == 0 && entry.whole {
        return pieces;
    }
    let before = u32::try_from(entry.given / LINE_MAX_BYTES as u64).unwrap_or(u32::MAX);
    let count = pieces.len();
    for (index, piece) in (0..).zip(&mut pieces) {
        let last = entry.whole && index as usize + 1 == count;
        piece.fragment = Some(sigillo_proto::v1::Fragment { index: before.saturating_add(index), last });
    }
    pieces
}
