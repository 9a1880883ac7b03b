//! The Control service: what the machine's own administrator asks of a running server, over a Unix socket in its data folder. One
//! file an act; each is an own record, with the account that the kernel vouches for.

mod account;
mod backup;
mod removal;
mod socket;

use std::sync::Arc;

use rustix::fs::statvfs;
use sigillo_journal::Journal;
use sigillo_proto::v1::{
    BackupRequest, BackupResponse, ExecuteRequest, PurgeRequest, RemovalResponse, StatusRequest, StatusResponse,
    control_server::Control,
};
use std::path::PathBuf;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub(crate) use self::{
    account::Caller,
    socket::{ControlSocket, reach},
};
use crate::{audit::head_message, clock::Clock, log::Log, own::Own};

/// What every act needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) own: Own,
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) data_dir: PathBuf,
    pub(crate) reserve_bytes: u64,
    /// When the server started, nanoseconds since 1970 UTC.
    pub(crate) started_ns: u64,
}

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct ControlService {
    shared: Arc<Shared>,
}

impl ControlService {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type BackupStream = ReceiverStream<Result<BackupResponse, Status>>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Caller::of(&request)?;
        let shared = &self.shared;
        let disk = statvfs(&shared.data_dir).map_err(|error| Status::internal(format!("the disk: {error}")))?;
        Ok(Response::new(StatusResponse {
            head: Some(head_message(&shared.journal, &shared.log, shared.journal.head())),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_unix_nano: shared.started_ns,
            free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            reserve_bytes: shared.reserve_bytes,
        }))
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let caller = Caller::of(&request)?;
        backup::begin(Arc::clone(&self.shared), caller, request.into_inner().to).await.map(Response::new)
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<RemovalResponse>, Status> {
        let caller = Caller::of(&request)?;
        removal::execute(&self.shared, &caller, &request.into_inner().order).await.map(Response::new)
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Result<Response<RemovalResponse>, Status> {
        let caller = Caller::of(&request)?;
        removal::purge(&self.shared, &caller, request.into_inner().retention_class).await.map(Response::new)
    }
}
