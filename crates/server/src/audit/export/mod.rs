//! Export: records with their proofs, as the beginning of an evidence file.
//!
//! First it is chosen which records go in (`choose`), for a whole run, which checkpoint shows its end (`counters`), and which heads their
//! sources have signed over them (`heads`); then
//! their entries are read once more, in order, and written (`pack`).

mod choose;
mod counters;
mod given;
mod heads;
mod pack;

use std::{sync::Arc, time::SystemTime};

use sigillo_journal::{ReadError, Reader};
use sigillo_model::{
    audit::{Fault, Finding},
    entry::Entry,
    evidence::{About, WriteError},
    ids::{Origin, SourceId, TenantId},
    policy::Policy,
    record::{PART_BITS, Part},
    roles::Action,
    statement::counters::CounterKey,
};
use sigillo_proto::v1::{
    ExportEnd, ExportRequest, ExportResponse, export_request::Complete, export_response::Message as Answer,
};
use sigillo_query::Filter;
use tokio::runtime::Handle;
use tonic::Status;

use crate::{
    feed::{Answers, Feed, feed},
    identity::Peer,
    query::{Shared, filter, unreadable},
    reads::{Ended, Read},
};
use counters::End;
use given::{Given, given};

/// Bytes of an answer that holds no data, about.
const ANSWER_BYTES: usize = 64;
/// Records of one file at most: a longer range is exported in parts.
const RECORDS_MAX: usize = 8_000_000;
/// Notes that a request may ask for.
const NOTES_MAX: usize = 64;

/// What is asked for.
#[derive(Debug)]
struct Wish {
    filter: Filter,
    /// One bit for each part that is shown.
    parts: u8,
    /// Whose whole run, with the name.
    run: Option<(CounterKey, String)>,
    /// SHA-256 of notes that must be in the file.
    notes: Vec<[u8; 32]>,
}

/// Why an export does not come to its end.
#[derive(Debug)]
enum Stop {
    /// The read ends.
    Ended(Ended),
    /// The reader is told why.
    Refused(Status),
}

impl From<Ended> for Stop {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Ended(unreadable(error))
    }
}

/// What is found of a whole entry that is not what it was.
fn altered(entry: &Entry<'_>, fault: Fault) -> ReadError {
    ReadError::Altered(Finding { from: entry.seq.get(), to: entry.end(), fault })
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        Self::Refused(Status::out_of_range(format!("{error}: ask for less")))
    }
}

/// Checks a request, records that it begins, and answers it.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    peer: &Peer,
    request: ExportRequest,
) -> Result<Answers<ExportResponse>, Status> {
    let reader = shared.identities.reader(peer, Action::Export)?;
    let wire = request.filter.unwrap_or_default();
    let account = filter::account(&wire);
    let run = run(request.complete)?;
    let wish = Wish {
        filter: filter::filter(&wire, &shared.identities.directory())?,
        parts: parts(&request.parts)?,
        notes: notes(&request.notes)?,
        run,
    };
    let Some(trust) = shared.log.trust().cloned() else {
        return Err(Status::failed_precondition(
            "this server signs no checkpoints, so nothing can be proved: configure [checkpoint]",
        ));
    };
    let given = given(&request.checkpoint, &trust, shared.journal.origin())?;
    let newest = shared.log.served().or_else(|| shared.log.newest());
    let newest = newest.ok_or_else(|| Status::failed_precondition("there is no checkpoint yet: try in a second"))?;
    let query = describe(&account, &wish);
    let head = shared.journal.head();
    let read = shared
        .reads
        .open(&reader, peer, Action::Export, &request.reason, head, |event| event.text("filter", &query))
        .await?;
    let (feed, answers) = feed(shared.limits.stall_timeout, peer.closing.clone());
    let origin = shared.journal.origin().clone();
    let about = About {
        time: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
        who: reader.name.clone(),
        why: request.reason,
        query,
        from: 0,
        to: given.as_ref().map_or(newest.size, |given| given.size),
        origin: origin.clone(),
    };
    let span = tracing::info_span!("export", reader = %reader.name, read = read.id());
    let journal = shared.journal.reader();
    let end = End { size: newest.size, note: newest.note.to_vec(), proof: None };
    let export = Export { wish, about, trust, given, end, journal, origin, read, feed };
    shared.tasks.spawn_blocking(move || span.in_scope(|| export.run()));
    Ok(answers)
}

fn run(complete: Option<Complete>) -> Result<Option<(CounterKey, String)>, Status> {
    let (name, key) = match complete {
        None => return Ok(None),
        Some(Complete::Source(name)) => (name.clone(), CounterKey::Source(SourceId::from_name(&name))),
        Some(Complete::Tenant(name)) => (name.clone(), CounterKey::Tenant(TenantId::from_name(&name))),
    };
    sigillo_model::ids::check_name(&name).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(Some((key, name)))
}

fn parts(names: &[String]) -> Result<u8, Status> {
    if names.is_empty() {
        return Ok(PART_BITS);
    }
    names.iter().try_fold(0, |bits, name| {
        let part = Part::ALL.into_iter().find(|part| part.name() == name);
        let part = part.ok_or_else(|| Status::invalid_argument("the parts are core, personal and content"))?;
        Ok(bits | 1 << part.number())
    })
}

fn notes(hashes: &[impl AsRef<[u8]>]) -> Result<Vec<[u8; 32]>, Status> {
    if hashes.len() > NOTES_MAX {
        return Err(Status::invalid_argument(format!("at most {NOTES_MAX} notes can be asked for")));
    }
    let wrong = || Status::invalid_argument("a note is asked for by SHA-256: 32 bytes");
    hashes.iter().map(|hash| hash.as_ref().try_into().map_err(|_| wrong())).collect()
}

/// The question in words, for the record of the read and for the file.
fn describe(filter: &str, wish: &Wish) -> String {
    let mut text = filter.to_owned();
    if wish.parts != PART_BITS {
        let names: Vec<&str> =
            Part::ALL.into_iter().filter(|part| wish.parts >> part.number() & 1 == 1).map(Part::name).collect();
        text = format!("{text}, only the parts {}", names.join(", "));
    }
    match &wish.run {
        None => text,
        Some((CounterKey::Source(_), name)) => format!("{text}, the whole run of source {name}"),
        Some((CounterKey::Tenant(_), name)) => format!("{text}, the whole run of tenant {name}"),
    }
}

struct Export {
    wish: Wish,
    about: About,
    trust: Policy,
    /// The checkpoint that was asked for.
    given: Option<Given>,
    end: End,
    journal: Reader,
    origin: Origin,
    read: Read,
    feed: Feed<ExportResponse>,
}

impl Export {
    fn run(mut self) {
        let stopped = self.steps().and_then(|records| {
            self.feed.flush()?;
            Ok(records)
        });
        let ended = match &stopped {
            Ok(_) => Ended::Complete,
            Err(Stop::Ended(ended)) => ended.clone(),
            Err(Stop::Refused(_)) => Ended::Failed,
        };
        let Self { read, mut feed, .. } = self;
        // Before the end is told, so that who saw the end can rely on the closing.
        Handle::current().block_on(read.close(&ended));
        match stopped {
            Ok(records) => {
                let answer = ExportResponse { message: Some(Answer::End(ExportEnd { records })) };
                // A reader that goes away now has had everything but this.
                let _ = feed.put(answer, ANSWER_BYTES).and_then(|()| feed.flush());
            }
            Err(Stop::Refused(status)) => Handle::current().block_on(feed.fail(status)),
            Err(Stop::Ended(ended)) => {
                if let Some(status) = ended.status() {
                    Handle::current().block_on(feed.fail(status));
                }
            }
        }
    }

    fn steps(&mut self) -> Result<u64, Stop> {
        if let Some(given) = self.given.take() {
            self.end = given.meet(&self.journal)?;
            if let Some((key, _)) = &self.wish.run {
                self.end = counters::at(&self.journal, &self.origin, key, Some(&self.end))?;
            }
        } else if let Some((key, _)) = &self.wish.run {
            self.end = counters::at(&self.journal, &self.origin, key, None)?;
        }
        self.about.to = self.end.size;
        let mut chosen = choose::choose(self)?;
        let heads = heads::heads(self, &mut chosen)?;
        choose::tidy(&mut chosen);
        self.read.scanned = self.end.size;
        pack::pack(self, &chosen, &heads)
    }

    /// Hands on what was written.
    fn give(&mut self, data: Vec<u8>) -> Result<(), Ended> {
        let length = data.len();
        if length == 0 {
            Ok(())
        } else {
            self.feed.put(ExportResponse { message: Some(Answer::Data(data.into())) }, length)
        }
    }
}
