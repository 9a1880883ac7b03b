//! The Query service: searches and tails, each of them recorded.

mod cursor;
pub(crate) mod filter;
mod tail;

use std::sync::Arc;

use sigillo_journal::{Head, Journal, ReadError};
use sigillo_model::{ids::SourceId, roles::Action};
use sigillo_proto::v1::{
    self, SearchRequest, SearchResponse, TailRequest, query_server::Query, search_response::Message as Answer,
};
use sigillo_query::{Hit, Search, Step};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::{
    config::Limits,
    feed::{Answers, Feed, feed},
    identity::{Directory, Identities, Peer},
    log::Log,
    reads::{Ended, Read, Reads},
};
use cursor::{Cursor, filter_mark, times, with_times};

/// Bytes of an answer besides the parts of its record, about.
const ANSWER_BYTES: usize = 192;

/// The service.
#[derive(Debug)]
pub(crate) struct QueryService {
    shared: Arc<Shared>,
}

/// What all reads share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What is read.
    pub(crate) journal: Journal,
    /// Who is who.
    pub(crate) identities: Arc<Identities>,
    /// Records reads.
    pub(crate) reads: Reads,
    /// Bounds.
    pub(crate) limits: Limits,
    /// Tasks that a stop waits for.
    pub(crate) tasks: TaskTracker,
    /// How the checkpoints stand.
    pub(crate) log: Arc<Log>,
}

impl QueryService {
    /// Serves searches and tails.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Query for QueryService {
    type SearchStream = Answers<SearchResponse>;
    type TailStream = Answers<SearchResponse>;

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let peer = Peer::of(&request)?;
        let request = request.into_inner();
        let shared = &self.shared;
        let reader = shared.identities.reader(&peer, Action::Search)?;
        let directory = shared.identities.directory();
        let wire = request.filter.unwrap_or_default();
        // Taken before the opening is written: a search does not find itself.
        let head = shared.journal.head();
        let cursor = start(&request.cursor, &wire, request.newest_first, head)?;
        let wire = with_times(wire, cursor.times);
        let filter = filter::filter(&wire, &directory)?;
        let limit = request.limit;
        let read = shared
            .reads
            .open(&reader, &peer, Action::Search, &request.reason, head, |event| {
                event
                    .text("filter", filter::account(&wire))
                    .number("limit", limit)
                    .text("order", if cursor.newest_first { "newest first" } else { "oldest first" })
                    .number("from", cursor.remaining.start)
                    .number("to", cursor.remaining.end)
            })
            .await?;
        let (feed, answers) = feed(shared.limits.stall_timeout, peer.closing.clone());
        let search = Search::new(shared.journal.reader(), filter, cursor.order(), cursor.remaining.clone());
        let names = Names { directory, identities: Arc::clone(&shared.identities) };
        let span = tracing::info_span!("search", reader = %reader.name, read = read.id());
        let log = Arc::clone(&shared.log);
        shared.tasks.spawn_blocking(move || {
            span.in_scope(|| Searching { search, read, feed, names, cursor, limit, log }.run());
        });
        Ok(Response::new(answers))
    }

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let peer = Peer::of(&request)?;
        let request = request.into_inner();
        let shared = &self.shared;
        let reader = shared.identities.reader(&peer, Action::Tail)?;
        let directory = shared.identities.directory();
        let wire = request.filter.unwrap_or_default();
        let filter = filter::filter(&wire, &directory)?;
        tail::check_lines(request.lines)?;
        let head = shared.journal.head();
        let lines = request.lines;
        let read = shared
            .reads
            .open(&reader, &peer, Action::Tail, &request.reason, head, |event| {
                event.text("filter", filter::account(&wire)).number("lines", lines)
            })
            .await?;
        let (feed, answers) = feed(shared.limits.stall_timeout, peer.closing.clone());
        let names = Names { directory, identities: Arc::clone(&shared.identities) };
        let span = tracing::info_span!("tail", reader = %reader.name, read = read.id());
        let follower = tail::Follower::new(Arc::clone(shared), peer, filter, read, feed, names, head.size);
        shared.tasks.spawn(follower.run(lines).instrument(span));
        Ok(Response::new(answers))
    }
}

/// Where a search begins: at the cursor's place, or at the whole journal.
fn start(bytes: &[u8], filter: &v1::Filter, newest_first: bool, head: Head) -> Result<Cursor, Status> {
    let mark = filter_mark(filter);
    if bytes.is_empty() {
        let (remaining, times) = (0..head.size, times(filter));
        return Ok(Cursor { newest_first, remaining, snapshot: head.size, filter: mark, times });
    }
    let fits =
        |cursor: &Cursor| cursor.newest_first == newest_first && cursor.filter == mark && cursor.snapshot <= head.size;
    Cursor::decode(bytes).filter(fits).ok_or_else(|| {
        Status::invalid_argument(
            "this cursor does not belong to this search: give it back unchanged, with the same filter and order",
        )
    })
}

/// The names behind the ids of a result.
struct Names {
    directory: Arc<Directory>,
    identities: Arc<Identities>,
}

impl Names {
    fn answer(&self, hit: Hit) -> (SearchResponse, usize) {
        let Hit { envelope, record, gone } = hit;
        let bytes = ANSWER_BYTES + record.as_ref().length();
        let source = |source: SourceId| self.directory.source_name(source).unwrap_or_default().to_owned();
        let result = v1::ResultRecord {
            envelope: envelope.to_bytes().to_vec().into(),
            core: record.core,
            personal: record.personal,
            content: record.content,
            class: self.directory.class_name(envelope.class).unwrap_or_default().to_owned(),
            source: source(envelope.source),
            tenant: self.identities.tenant_name(envelope.tenant).unwrap_or_default(),
            gone: gone.bits().into(),
        };
        (SearchResponse { message: Some(Answer::Record(result)) }, bytes)
    }
}

struct Searching {
    search: Search,
    read: Read,
    feed: Feed<SearchResponse>,
    names: Names,
    cursor: Cursor,
    limit: u64,
    log: Arc<Log>,
}

impl Searching {
    fn run(mut self) {
        let ended = self.steps().and_then(|ended| self.feed.flush().map(|()| ended)).unwrap_or_else(|ended| ended);
        self.read.scanned = self.search.scanned();
        let Self { search, read, mut feed, cursor, log, .. } = self;
        let (matched, scanned) = (read.matched, read.scanned);
        // Before the end is told, so that who saw the end can rely on the closing.
        Handle::current().block_on(read.close(&ended));
        if let Some(status) = ended.status() {
            return Handle::current().block_on(feed.fail(status));
        }
        let remaining = search.remaining();
        let snapshot = cursor.snapshot;
        let more = ended == Ended::Limit && !remaining.is_empty();
        let cursor = if more { Cursor { remaining, ..cursor }.encode() } else { vec![] };
        let checkpoint_state = log.state().into();
        let done = v1::Done { cursor: cursor.into(), snapshot_size: snapshot, matched, scanned, checkpoint_state };
        let answer = SearchResponse { message: Some(Answer::Done(done)) };
        // A reader that goes away now has had everything but this.
        let _ = feed.put(answer, ANSWER_BYTES).and_then(|()| feed.flush());
    }

    fn steps(&mut self) -> Result<Ended, Ended> {
        while let Some(step) = self.search.next().map_err(unreadable)? {
            match step {
                Step::Match(hit) => {
                    self.read.sends(&hit.envelope, &hit.record);
                    let (answer, bytes) = self.names.answer(hit);
                    self.feed.put(answer, bytes)?;
                    if self.read.matched == self.limit {
                        return Ok(Ended::Limit);
                    }
                }
                Step::Scanned { scanned, total } => {
                    let progress = v1::Progress { scanned, total };
                    self.feed.put(SearchResponse { message: Some(Answer::Progress(progress)) }, ANSWER_BYTES)?;
                    self.feed.flush()?;
                }
            }
        }
        Ok(Ended::Complete)
    }
}

/// Says in the server's log what is wrong with the journal.
pub(crate) fn unreadable(error: ReadError) -> Ended {
    tracing::error!(%error, "the journal could not be read");
    match error {
        ReadError::Altered(finding) => Ended::Altered(Box::new(finding)),
        ReadError::Store(_) | ReadError::Beyond { .. } => Ended::Failed,
    }
}
