//! The Sources service: the register, for those who may see it.

use std::sync::Arc;

use sigillo_journal::Journal;
use sigillo_model::roles::Action;
use sigillo_proto::v1::{ListSourcesRequest, ListSourcesResponse, SourceStatus, sources_server::Sources as Service};
use tonic::{Request, Response, Status};

use super::{Sources, register::Entry};
use crate::{
    config::SourceSettings,
    identity::{Identities, Peer},
};

/// The service.
#[derive(Debug)]
pub(crate) struct SourcesService {
    sources: Arc<Sources>,
    identities: Arc<Identities>,
    journal: Journal,
}

impl SourcesService {
    /// Serves what `sources` knows.
    pub(crate) fn new(sources: Arc<Sources>, identities: Arc<Identities>, journal: Journal) -> Self {
        Self { sources, identities, journal }
    }

    fn status(&self, source: &SourceSettings, entry: &Entry) -> SourceStatus {
        let state = self.journal.source(source.id);
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        SourceStatus {
            name: source.name.clone(),
            source: source.id.as_bytes().to_vec().into(),
            class: source.class_name.clone(),
            agent: entry.agent.clone(),
            first_seen_unix_nano: entry.first_seen_ns,
            last_seen_unix_nano: entry.last_seen_ns,
            streams: entry.streams,
            sessions: entry.sessions,
            resident: entry.resident,
            allowed_silence_nano: entry.allowed().map_or(0, nanos),
            silent: entry.is_silent(),
            goodbye: entry.goodbye.clone().unwrap_or_default(),
            epoch: state.map_or(0, |state| state.epoch.get()),
            next_sequence: state.map_or(0, |state| state.next.get()),
            told_unix_nano: entry.told.at_ns,
            waiting_records: entry.told.waiting,
            lag_nano: nanos(entry.told.lag),
            skew_nano: entry.skew_ns(),
            losses: entry.declared.losses,
            lost_lines: entry.declared.lines,
            lost_bytes: entry.declared.bytes,
            last_loss_unix_nano: entry.last_loss_ns,
            gaps: entry.refusals.gaps,
            forks: entry.refusals.forks,
            stale_epochs: entry.refusals.stale_epochs,
            invalid_batches: entry.refusals.invalid_batches,
            invalid_heads: entry.refusals.invalid_heads,
        }
    }
}

#[tonic::async_trait]
impl Service for SourcesService {
    async fn list(&self, request: Request<ListSourcesRequest>) -> Result<Response<ListSourcesResponse>, Status> {
        let peer = Peer::of(&request)?;
        self.identities.check(&peer, Action::Sources)?;
        let silent_only = request.into_inner().silent_only;
        let directory = self.identities.directory();
        let never = Entry::default();
        let (mut sources, server_time_unix_nano) = self.sources.with(|register, now| {
            let all = directory.sources().iter().map(|source| (source, register.get(source.id).unwrap_or(&never)));
            let wanted = all.filter(|(_, entry)| !silent_only || entry.is_silent());
            (wanted.map(|(source, entry)| self.status(source, entry)).collect::<Vec<_>>(), now.wall_ns)
        });
        sources.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Response::new(ListSourcesResponse { sources, server_time_unix_nano }))
    }
}
