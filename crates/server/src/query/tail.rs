//! Following the journal: the last few records that match, then what becomes durable.

use std::{sync::Arc, time::Duration};

use prost::Message;
use sigillo_model::roles::Action;
use sigillo_proto::v1::{self, SearchResponse};
use sigillo_query::{Filter, Hit, Order, Search, Step};
use tokio::time::{Instant, interval_at};
use tonic::Status;

use super::{Names, Shared, unreadable};
use crate::{
    feed::Feed,
    identity::Peer,
    own,
    reads::{Ended, Read},
};

/// Most records that are shown from before.
const LINES_MAX: u32 = 10_000;
/// Bytes of such records; older ones are left out then.
const LINES_MAX_BYTES: usize = 32 << 20;
/// A tail gives account of itself so often.
const ACCOUNT_EVERY: Duration = Duration::from_secs(3_600);

/// Checks how many records from before are asked for.
pub(super) fn check_lines(lines: u32) -> Result<(), Status> {
    if lines <= LINES_MAX {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("a tail shows at most {LINES_MAX} records from before: search for more")))
}

/// A tail under way.
pub(super) struct Follower {
    shared: Arc<Shared>,
    peer: Peer,
    /// Taken along by the thread that reads.
    work: Work,
    /// First sequence that has not been looked at.
    next: u64,
}

struct Work {
    filter: Filter,
    read: Read,
    feed: Feed<SearchResponse>,
    names: Names,
}

impl Follower {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: Peer,
        filter: Filter,
        read: Read,
        feed: Feed<SearchResponse>,
        names: Names,
        next: u64,
    ) -> Self {
        Self { shared, peer, work: Work { filter, read, feed, names }, next }
    }

    pub(super) async fn run(self, lines: u32) {
        let Self { shared, peer, mut work, mut next } = self;
        let mut heads = shared.journal.watch();
        let mut account = interval_at(Instant::now() + ACCOUNT_EVERY, ACCOUNT_EVERY);
        let reader = shared.journal.reader();
        let mut ended = Ok(());
        if lines > 0 {
            let before = Search::new(reader.clone(), work.filter.clone(), Order::NewestFirst, 0..next);
            (work, ended) = on_thread(work, move |work| work.show_last(before, lines)).await;
        }
        while ended.is_ok() {
            // Marks the head as seen before it is read, so that none is missed.
            let size = heads.borrow_and_update().size;
            if size > next {
                if shared.identities.reader(&peer, Action::Tail).is_err() {
                    ended = Err(Ended::StandingLost);
                    break;
                }
                let new = Search::new(reader.clone(), work.filter.clone(), Order::OldestFirst, next..size);
                (work, ended) = on_thread(work, move |work| work.show_new(new)).await;
                next = size;
                continue;
            }
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { ended = Err(Ended::ServerStopping) },
                () = peer.closing.cancelled() => ended = Err(Ended::ServerStopping),
                () = work.feed.gone() => ended = Err(Ended::ReaderGone),
                _ = account.tick() => work.read.progress().await,
            }
        }
        let ended = ended.err().unwrap_or(Ended::Complete);
        tracing::debug!(?ended, "a tail ends");
        work.read.close(&ended).await;
        if let Some(status) = ended.status() {
            work.feed.fail(status).await;
        }
    }
}

/// Reads on a thread that may block.
async fn on_thread(
    mut work: Work,
    run: impl FnOnce(&mut Work) -> Result<(), Ended> + Send + 'static,
) -> (Work, Result<(), Ended>) {
    let span = tracing::Span::current();
    let task = tokio::task::spawn_blocking(move || {
        let ended = span.in_scope(|| run(&mut work));
        (work, ended)
    });
    match task.await {
        Ok(done) => done,
        // Only a fault in the program gets here; its opening without a closing counts as everything.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Work {
    fn show_last(&mut self, mut search: Search, lines: u32) -> Result<(), Ended> {
        let mut last = Vec::new();
        let mut bytes = 0;
        while last.len() < lines as usize && bytes < LINES_MAX_BYTES {
            match search.next().map_err(unreadable)? {
                Some(Step::Match(hit)) => {
                    bytes += hit.record.as_ref().length();
                    last.push(hit);
                }
                // Also notices that the reader is gone.
                Some(Step::Scanned { .. }) => self.feed.flush()?,
                None => break,
            }
        }
        self.read.scanned += search.scanned();
        last.into_iter().rev().try_for_each(|hit| self.show(hit))?;
        self.feed.flush()
    }

    fn show_new(&mut self, mut search: Search) -> Result<(), Ended> {
        while let Some(step) = search.next().map_err(unreadable)? {
            match step {
                Step::Match(hit) if self.is_own(&hit) => {}
                Step::Match(hit) => self.show(hit)?,
                Step::Scanned { .. } => self.feed.flush()?,
            }
        }
        self.read.scanned += search.scanned();
        self.feed.flush()
    }

    fn show(&mut self, hit: Hit) -> Result<(), Ended> {
        self.read.sends(&hit.envelope, &hit.record);
        let (answer, bytes) = self.names.answer(hit);
        self.feed.put(answer, bytes)
    }

    /// Whether the record is this tail's own account of itself, which it does not show.
    fn is_own(&self, hit: &Hit) -> bool {
        if hit.envelope.source != own::source() {
            return false;
        }
        let core = hit.record.core.as_deref().and_then(|core| v1::CorePart::decode(core).ok());
        let target = core.and_then(|core| core.target);
        target.is_some_and(|target| target.r#type == "read" && target.id == self.read.id())
    }
}
