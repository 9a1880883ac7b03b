//! The Log service: what is published, for those who are connected already.

use sigillo_journal::ReadError;
use sigillo_model::roles::Action;
use sigillo_proto::v1::{
    self, GetCheckpointRequest, GetConsistencyRequest, GetInclusionRequest, GetTileRequest, WatchCheckpointsRequest,
    log_server::Log as Service,
};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    resources::{ResourceError, Resources},
    state::{Published, Standing},
};
use crate::{
    identity::{Identities, Peer},
    log::Log,
};

/// The service.
#[derive(Debug)]
pub(crate) struct LogService {
    resources: Resources,
    identities: Arc<Identities>,
}

impl LogService {
    /// Serves what `resources` has to whoever may know the head.
    pub(crate) fn new(resources: Resources, identities: Arc<Identities>) -> Self {
        Self { resources, identities }
    }

    fn check<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let peer = Peer::of(request)?;
        self.identities.check(&peer, Action::Head)?;
        Ok(peer)
    }

    fn log(&self) -> &Log {
        self.resources.log()
    }

    /// The first kept checkpoint of at least this size, or the newest published one if none is kept that far.
    async fn at_or_after(&self, size: u64) -> Result<Option<v1::Checkpoint>, Status> {
        let reader = self.resources.reader().clone();
        let kept = tokio::task::spawn_blocking(move || reader.checkpoint_at_or_after(size)).await;
        let kept = kept
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| unreadable(&ResourceError::Read(error)))?;
        let judged = kept.and_then(|kept| super::judge_kept(self.log().trust()?, &kept.note));
        let state = self.log().state();
        let newest = || self.log().served().filter(|served| served.size >= size);
        Ok(judged.or_else(newest).map(|published| message(&published, state)))
    }
}

#[tonic::async_trait]
impl Service for LogService {
    type WatchCheckpointsStream = ReceiverStream<Result<v1::Checkpoint, Status>>;

    async fn get_checkpoint(&self, request: Request<GetCheckpointRequest>) -> Result<Response<v1::Checkpoint>, Status> {
        self.check(&request)?;
        let GetCheckpointRequest { newest_signed, at_or_after } = request.into_inner();
        let state = self.log().state();
        let found = match (at_or_after, newest_signed) {
            (0, true) => self.log().newest().map(|newest| message(&newest, state)),
            (0, false) => self.log().served().map(|served| message(&served, state)),
            (size, _) => self.at_or_after(size).await?,
        };
        found.map(Response::new).ok_or_else(|| Status::not_found("there is no such checkpoint yet: ask again later"))
    }

    async fn watch_checkpoints(
        &self,
        request: Request<WatchCheckpointsRequest>,
    ) -> Result<Response<Self::WatchCheckpointsStream>, Status> {
        let peer = self.check(&request)?;
        let signed = request.into_inner().newest_signed;
        let (sender, receiver) = mpsc::channel(1);
        let mut standing = self.log().watch();
        let resources = self.resources.clone();
        tokio::spawn(async move {
            let follow = async {
                let mut last = None;
                loop {
                    let next = next(&mut standing, signed);
                    if let Some(next) = next.filter(|next| last.as_ref() != Some(&next.note)) {
                        last = Some(Arc::clone(&next.note));
                        let message = message(&next, resources.log().state());
                        if sender.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                    if standing.changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = peer.closing.cancelled() => {}
                () = sender.closed() => {}
                () = follow => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_inclusion(&self, request: Request<GetInclusionRequest>) -> Result<Response<v1::Proof>, Status> {
        self.check(&request)?;
        let GetInclusionRequest { sequence, size } = request.into_inner();
        let (entry, proof) = self.resources.inclusion(sequence, size).await.map_err(|error| unreadable(&error))?;
        Ok(Response::new(v1::Proof { entry: entry.as_bytes().to_vec().into(), ..hashes(&proof) }))
    }

    async fn get_consistency(&self, request: Request<GetConsistencyRequest>) -> Result<Response<v1::Proof>, Status> {
        self.check(&request)?;
        let GetConsistencyRequest { old_size, new_size } = request.into_inner();
        let proof = self.resources.consistency(old_size, new_size).await.map_err(|error| unreadable(&error))?;
        Ok(Response::new(hashes(&proof)))
    }

    async fn get_tile(&self, request: Request<GetTileRequest>) -> Result<Response<v1::Tile>, Status> {
        self.check(&request)?;
        let tile = self.resources.tile(&request.into_inner().path).await.map_err(|error| unreadable(&error))?;
        Ok(Response::new(v1::Tile { content: tile.into() }))
    }
}

fn next(standing: &mut watch::Receiver<Standing>, signed: bool) -> Option<Published> {
    let standing = standing.borrow_and_update();
    if signed { standing.newest.clone() } else { standing.served.clone() }
}

fn message(published: &Published, state: v1::CheckpointState) -> v1::Checkpoint {
    v1::Checkpoint {
        note: published.note.to_vec().into(),
        size: published.size,
        root: published.root.as_bytes().to_vec().into(),
        quorum: published.quorum,
        quorum_time_unix: published.quorum_time.unwrap_or(0),
        state: state.into(),
    }
}

fn hashes(proof: &[sigillo_model::ids::NodeHash]) -> v1::Proof {
    v1::Proof { hashes: proof.iter().map(|hash| hash.as_bytes().to_vec().into()).collect(), ..v1::Proof::default() }
}

fn unreadable(error: &ResourceError) -> Status {
    match error {
        ResourceError::NotFound => Status::not_found(error.to_string()),
        ResourceError::Read(ReadError::Beyond { .. }) => Status::out_of_range(error.to_string()),
        ResourceError::Read(_) | ResourceError::Task(_) => Status::internal(error.to_string()),
    }
}
