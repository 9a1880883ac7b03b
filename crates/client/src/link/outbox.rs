//! What a link sends.

use sigillo_proto::v1::{self, append_request};

use crate::ClientError;

/// Holds what is to be sent until it is acknowledged, and knows how to go on after a cut or a refusal.
pub(crate) trait Outbox: Send {
    /// How we introduce ourselves on the next stream.
    fn hello(&self) -> v1::Hello;

    /// What waits here, for the server.
    fn heartbeat(&self) -> v1::Heartbeat;

    /// Goes on on a new stream, from where the server stands.
    fn resume(&mut self, welcome: &v1::Welcome) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Waits until there is more to send; `false` when everything is acknowledged and nothing more will come. Loses nothing when it is
    /// cancelled.
    fn more(&mut self) -> impl Future<Output = Result<bool, ClientError>> + Send;

    /// Whether something is held that is not acknowledged.
    fn waits(&self) -> bool;

    /// Whether something may be sent while at most `credit` bytes are under way; one message may always be.
    fn may_send(&self, credit: u64) -> bool;

    /// The next message, which counts as sent from now on, and its bytes.
    fn send(&mut self) -> Result<Option<(append_request::Message, u64)>, ClientError>;

    /// Nothing counts as sent: what is not acknowledged is sent again, as it is.
    fn rewind(&mut self) -> Result<(), ClientError>;

    /// Lets go of what the server has acknowledged; whether the ack said anything new.
    fn acknowledge(&mut self, ack: v1::Ack) -> impl Future<Output = Result<bool, ClientError>> + Send;

    /// Takes note of a refusal, which the next [`Self::resume`] settles. An error if no new stream mends it.
    fn refused(&mut self, refusal: v1::Refusal) -> Result<(), ClientError>;

    /// Receipts were held against a checkpoint.
    fn checked(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    /// What is said last, when nothing more will come.
    fn farewell(&mut self) -> Option<append_request::Message> {
        None
    }

    /// The server has welcomed us.
    fn connected(&mut self, _welcome: &v1::Welcome) {}

    /// There is no stream.
    fn disconnected(&mut self) {}

    /// This is why nothing goes on.
    fn hindered(&mut self, _trouble: &str) {}
}
