//! The register of sources.

use sigillo_proto::v1::{self, sources_client::SourcesClient};

use crate::{ClientError, Connection, connection::ANSWER_MAX_BYTES};

impl Connection {
    /// How the server's sources stand, by name.
    pub async fn sources(&self, request: v1::ListSourcesRequest) -> Result<v1::ListSourcesResponse, ClientError> {
        let mut client = SourcesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES);
        let answer = client.list(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }
}
