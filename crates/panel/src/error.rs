//! What can go wrong, and whether an activity was written then.

use sigillo_client::ClientError;

/// Why a panel can't be opened, or an activity was not written.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// The activity breaks a rule. Nothing was written.
    #[error("the activity can't be written: {0}")]
    Activity(String),
    /// The journal has never been reached with this folder, so that nobody knows yet to whom the activity would be sealed.
    #[error(
        "nothing was written: the journal has never been reached with this folder, and nothing can be queued before its first \
         answer: {0}"
    )]
    NotMet(String),
    /// The queue on the disk is full.
    #[error(
        "nothing was written: the journal can't be reached, and the queue is full ({0}). Free space, or raise `max_bytes`"
    )]
    Full(String),
    /// The queue did not take it within the panel's patience.
    #[error("nothing was written: the queue did not take it in time: {0}")]
    Busy(String),
    /// The journal will never take it. It is set aside in the folder `refused`, and a record in the journal says so.
    #[error("the journal refuses the activity for ever: {0}")]
    Refused(String),
    /// The panel has stopped, after an error or for `close`.
    #[error("nothing was written: the panel has stopped: {0}")]
    Stopped(String),
    /// The disk failed in the middle: it may be in the queue or not. Open the panel anew; what is in the queue is sent then.
    #[error("the queue failed while the activity was written, and it may be kept or not: {0}")]
    Unknown(String),
    /// The folder, the endpoint or the trust file can't be used.
    #[error(transparent)]
    Client(#[from] ClientError),
}
