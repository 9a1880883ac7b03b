//! Calls of the transparency log: checkpoints, proofs, tiles.

use sigillo_proto::v1::{self, log_client::LogClient};
use tonic::transport::Channel;

use crate::{ClientError, Connection, connection::Responses};

impl Connection {
    /// A checkpoint: the newest that meets the policy, unless the request says otherwise.
    pub async fn checkpoint(&self, request: v1::GetCheckpointRequest) -> Result<v1::Checkpoint, ClientError> {
        self.answer(self.log().get_checkpoint(request).await)
    }

    /// The newest checkpoint that was signed, whether witnesses have cosigned it or not; `None` if there is none, or the server
    /// does not know what that is.
    pub async fn newest_checkpoint(&self) -> Result<Option<v1::Checkpoint>, ClientError> {
        self.checkpoint_if_any(v1::GetCheckpointRequest { newest_signed: true, ..Default::default() }).await
    }

    /// The newest checkpoint that meets the server's policy; `None` as above.
    pub async fn served_checkpoint(&self) -> Result<Option<v1::Checkpoint>, ClientError> {
        self.checkpoint_if_any(v1::GetCheckpointRequest::default()).await
    }

    /// The first kept checkpoint of at least this size that meets the server's policy; `None` as above.
    pub async fn kept_checkpoint(&self, at_or_after: u64) -> Result<Option<v1::Checkpoint>, ClientError> {
        self.checkpoint_if_any(v1::GetCheckpointRequest { at_or_after, ..Default::default() }).await
    }

    async fn checkpoint_if_any(
        &self,
        request: v1::GetCheckpointRequest,
    ) -> Result<Option<v1::Checkpoint>, ClientError> {
        match self.log().get_checkpoint(request).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if matches!(status.code(), tonic::Code::NotFound | tonic::Code::Unimplemented) => Ok(None),
            Err(status) => Err(self.error(&status)),
        }
    }

    /// The newest checkpoint and each one after it.
    pub async fn watch_checkpoints(
        &self,
        request: v1::WatchCheckpointsRequest,
    ) -> Result<Responses<v1::Checkpoint>, ClientError> {
        self.answers(self.log().watch_checkpoints(request).await)
    }

    /// Proof that a record is in the tree of a size.
    pub async fn inclusion(&self, sequence: u64, size: u64) -> Result<v1::Proof, ClientError> {
        self.answer(self.log().get_inclusion(v1::GetInclusionRequest { sequence, size }).await)
    }

    /// Proof that the tree of a size is the beginning of that of a greater one.
    pub async fn consistency(&self, old_size: u64, new_size: u64) -> Result<v1::Proof, ClientError> {
        self.answer(self.log().get_consistency(v1::GetConsistencyRequest { old_size, new_size }).await)
    }

    /// A published resource, by its path: `tile/0/x001/234`.
    pub async fn tile(&self, path: String) -> Result<v1::Tile, ClientError> {
        self.answer(self.log().get_tile(v1::GetTileRequest { path }).await)
    }

    fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel.clone())
    }

    fn answer<T>(&self, answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, ClientError> {
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }
}
