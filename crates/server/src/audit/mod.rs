//! The Audit service: the head, and walks over stored entries.

mod export;

use std::{ops::Range, sync::Arc};

use sigillo_journal::{Direction, Head, Journal, Reader};
use sigillo_model::roles::Action;
use sigillo_proto::v1::{
    self, ExportRequest, ExportResponse, GetHeadRequest, WalkRequest, WalkResponse, audit_server::Audit,
    walk_response::Message as Answer,
};
use tokio::runtime::Handle;
use tonic::{Request, Response, Status};

use crate::{
    feed::{Answers, Feed, feed},
    identity::Peer,
    log::Log,
    query::{Shared, unreadable},
    reads::{Ended, Read},
};

/// Bytes of an answer that holds no entry, about.
const ANSWER_BYTES: usize = 128;

/// The service.
#[derive(Debug)]
pub(crate) struct AuditService {
    shared: Arc<Shared>,
}

impl AuditService {
    /// Serves heads and walks.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn head(&self, head: Head) -> v1::Head {
        head_message(&self.shared.journal, &self.shared.log, head)
    }
}

/// A head as it is told to others.
pub(crate) fn head_message(journal: &Journal, log: &Log, head: Head) -> v1::Head {
    v1::Head {
        origin: journal.origin().as_str().into(),
        size: head.size,
        chain_hash: head.chain.as_bytes().to_vec().into(),
        receipt_time_unix_nano: head.receipt_time.get(),
        checkpoint_state: log.state().into(),
        predecessor: journal.origin().predecessor().map_or_else(Vec::new, |note| note.as_bytes().to_vec()).into(),
    }
}

#[tonic::async_trait]
impl Audit for AuditService {
    type WalkStream = Answers<WalkResponse>;
    type ExportStream = Answers<ExportResponse>;

    async fn get_head(&self, request: Request<GetHeadRequest>) -> Result<Response<v1::Head>, Status> {
        let peer = Peer::of(&request)?;
        self.shared.identities.check(&peer, Action::Head)?;
        Ok(Response::new(self.head(self.shared.journal.head())))
    }

    async fn walk(&self, request: Request<WalkRequest>) -> Result<Response<Self::WalkStream>, Status> {
        let peer = Peer::of(&request)?;
        let WalkRequest { from, to, reason } = request.into_inner();
        let shared = &self.shared;
        let reader = shared.identities.reader(&peer, Action::Walk)?;
        let head = shared.journal.head();
        let end = if to == 0 { head.size } else { to };
        if from > end || end > head.size {
            let size = head.size;
            return Err(Status::out_of_range(format!(
                "the journal holds sequences 0 to {size} (exclusive): ask within"
            )));
        }
        let read = shared
            .reads
            .open(&reader, &peer, Action::Walk, &reason, head, |event| event.number("from", from).number("to", end))
            .await?;
        let (feed, answers) = feed(shared.limits.stall_timeout, peer.closing.clone());
        let span = tracing::info_span!("walk", reader = %reader.name, read = read.id());
        let start = self.head(head);
        let journal = shared.journal.reader();
        shared
            .tasks
            .spawn_blocking(move || span.in_scope(|| Walk { read, feed, entries: 0 }.run(&journal, start, from..end)));
        Ok(Response::new(answers))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let peer = Peer::of(&request)?;
        let answers = export::begin(&self.shared, &peer, request.into_inner()).await?;
        Ok(Response::new(answers))
    }
}

struct Walk {
    read: Read,
    feed: Feed<WalkResponse>,
    entries: u64,
}

impl Walk {
    fn run(mut self, journal: &Reader, head: v1::Head, range: Range<u64>) {
        let ended = self.steps(journal, head, range).and_then(|()| self.feed.flush()).err().unwrap_or(Ended::Complete);
        let Self { read, mut feed, entries } = self;
        let records = read.matched;
        Handle::current().block_on(read.close(&ended));
        if let Some(status) = ended.status() {
            return Handle::current().block_on(feed.fail(status));
        }
        let end = WalkResponse { message: Some(Answer::End(v1::WalkEnd { entries, records })) };
        // A reader that goes away now has had everything but this.
        let _ = feed.put(end, ANSWER_BYTES).and_then(|()| feed.flush());
    }

    fn steps(&mut self, journal: &Reader, head: v1::Head, range: Range<u64>) -> Result<(), Ended> {
        let mut head = Some(head);
        // The range is cut at entries, so the first sequence to come is known with the first entry only.
        let mut start = |feed: &mut Feed<WalkResponse>, from| match head.take() {
            Some(head) => {
                let start = v1::WalkStart { head: Some(head), from };
                feed.put(WalkResponse { message: Some(Answer::Start(start)) }, ANSWER_BYTES)
            }
            None => Ok(()),
        };
        let end = range.end;
        for stored in journal.entries(range, Direction::Forward) {
            let stored = stored.map_err(unreadable)?;
            let entry = stored.entry().map_err(unreadable)?;
            start(&mut self.feed, entry.seq.get())?;
            self.read.sends_entry(stored.bytes(), entry.count, entry.tenants.iter().map(|(tenant, _)| *tenant));
            self.entries += 1;
            let bytes = stored.bytes().to_vec();
            let length = bytes.len();
            self.feed.put(WalkResponse { message: Some(Answer::Entry(bytes.into())) }, length)?;
        }
        start(&mut self.feed, end)
    }
}
