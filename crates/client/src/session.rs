//! One stream of batches and the answers to them.

use std::time::{SystemTime, UNIX_EPOCH};

use sigillo_proto::v1::{self, append_request, append_response, ingest_client::IngestClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::{ClientError, Responses, error::plain, tls::Peer};

/// Version of the protocol that this client speaks.
pub const PROTOCOL: u32 = 1;

/// Messages between us and the transport, which has its own bound in bytes.
const QUEUED_MESSAGES: usize = 2;

/// A stream on which the server has welcomed us.
#[derive(Debug)]
pub struct AppendSession {
    /// What the server knows of us, and its limits.
    pub welcome: v1::Welcome,
    /// Takes what we send.
    pub sender: AppendSender,
    /// Gives what the server answers.
    pub receiver: AppendReceiver,
}

/// The way to the server. Dropped with all its clones, it tells the server that no more will come.
#[derive(Debug, Clone)]
pub struct AppendSender {
    messages: mpsc::Sender<v1::AppendRequest>,
    peer: Peer,
}

/// The way from the server.
#[derive(Debug)]
pub struct AppendReceiver {
    messages: Responses<v1::AppendResponse>,
}

impl AppendSession {
    pub(crate) async fn open(
        mut client: IngestClient<Channel>,
        peer: &Peer,
        hello: v1::Hello,
    ) -> Result<Self, ClientError> {
        let (messages, queue) = mpsc::channel(QUEUED_MESSAGES);
        let sender = AppendSender { messages, peer: peer.clone() };
        sender.send(append_request::Message::Hello(hello)).await?;
        let answer = client.append(ReceiverStream::new(queue)).await;
        let stream = answer.map_err(|status| ClientError::from_status(peer, &status))?.into_inner();
        let mut messages = Responses::new(stream, peer);
        let first = messages.next().await?.and_then(|response| response.message);
        let Some(append_response::Message::Welcome(welcome)) = first else {
            return Err(ClientError::Protocol("the first answer of a stream must be a welcome".into()));
        };
        Ok(Self { welcome, sender, receiver: AppendReceiver { messages } })
    }

    /// Sends a batch, a heartbeat or a loss; see [`AppendSender::send`].
    pub async fn send(&self, message: append_request::Message) -> Result<(), ClientError> {
        self.sender.send(message).await
    }

    /// The next answer; see [`AppendReceiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<append_response::Message>, ClientError> {
        self.receiver.recv().await
    }
}

impl AppendSender {
    /// Sends a batch, a heartbeat or a loss, when there is room. An error says that the stream has ended; why, the receiver
    /// knows.
    pub async fn send(&self, message: append_request::Message) -> Result<(), ClientError> {
        self.reserve().await?.send(v1::AppendRequest { message: Some(message) });
        Ok(())
    }

    /// Sends a message that may as well be left out when there is no room now.
    pub(crate) fn send_if_room(&self, message: append_request::Message) {
        let _ = self.messages.try_send(v1::AppendRequest { message: Some(message) });
    }

    /// Waits for room for one message. Loses nothing when it is cancelled.
    pub(crate) async fn reserve(&self) -> Result<mpsc::OwnedPermit<v1::AppendRequest>, ClientError> {
        let ended =
            |_| ClientError::Unreachable { url: self.peer.url.to_string(), what: "the stream has ended".into() };
        self.messages.clone().reserve_owned().await.map_err(ended)
    }
}

impl AppendReceiver {
    /// The next answer: an ack, a throttle, a drain or a refusal; `None` when the server has ended the stream. Loses
    /// nothing when it is cancelled.
    pub async fn recv(&mut self) -> Result<Option<append_response::Message>, ClientError> {
        let Some(response) = self.messages.next().await? else { return Ok(None) };
        match response.message {
            Some(append_response::Message::Welcome(_)) => {
                Err(ClientError::Protocol("a second welcome on one stream".into()))
            }
            None => Err(ClientError::Protocol("an answer of a kind that this program does not know".into())),
            // Their words end in logs, errors and on terminals.
            Some(append_response::Message::Throttle(throttle)) => {
                let reason = plain(&throttle.reason);
                Ok(Some(append_response::Message::Throttle(v1::Throttle { reason, ..throttle })))
            }
            Some(append_response::Message::Refusal(refusal)) => {
                let message = plain(&refusal.message);
                Ok(Some(append_response::Message::Refusal(v1::Refusal { message, ..refusal })))
            }
            message => Ok(message),
        }
    }
}

/// The clock of this machine, nanoseconds since 1970-01-01T00:00:00Z; 0 before that.
pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
