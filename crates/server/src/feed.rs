//! From a thread that reads the journal to a stream of answers: in pieces, bounded, and with an end for readers that take nothing.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::reads::Ended;

/// Pieces that may wait to be sent.
const PIECES: usize = 2;
/// A piece is handed on when it has so many bytes, or so many answers.
const PIECE_BYTES: usize = 128 << 10;
const PIECE_ANSWERS: usize = 256;

/// How long a reader may take to hear why its stream ends when its connection is to be closed.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The end into which answers are put. Its methods block unless they say otherwise.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    sender: mpsc::Sender<Vec<Result<T, Status>>>,
    piece: Vec<Result<T, Status>>,
    bytes: usize,
    stall: Duration,
    closing: CancellationToken,
    runtime: Handle,
}

/// A feed and what comes out of it. The feed gives up on a reader that takes nothing for `stall`, whose
/// connection it then closes by `closing`; and it ends when `closing` is set.
pub(crate) fn feed<T: Send + 'static>(stall: Duration, closing: CancellationToken) -> (Feed<T>, Answers<T>) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let feed = Feed { sender, piece: Vec::new(), bytes: 0, stall, closing, runtime: Handle::current() };
    (feed, Box::pin(ReceiverStream::new(pieces).flat_map(stream::iter)))
}

impl<T> Feed<T> {
    /// Adds an answer of about so many bytes.
    pub(crate) fn put(&mut self, answer: T, bytes: usize) -> Result<(), Ended> {
        self.piece.push(Ok(answer));
        self.bytes += bytes;
        if self.bytes >= PIECE_BYTES || self.piece.len() >= PIECE_ANSWERS { self.flush() } else { Ok(()) }
    }

    /// Hands on what was put, and says whether anybody is still there to take it.
    pub(crate) fn flush(&mut self) -> Result<(), Ended> {
        if self.closing.is_cancelled() {
            return Err(Ended::ServerStopping);
        }
        if self.piece.is_empty() {
            return if self.sender.is_closed() { Err(Ended::ReaderGone) } else { Ok(()) };
        }
        let piece = std::mem::take(&mut self.piece);
        self.bytes = 0;
        match self.sender.try_send(piece) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Ended::ReaderGone),
            Err(mpsc::error::TrySendError::Full(piece)) => self.runtime.block_on(async {
                tokio::select! {
                    () = self.closing.cancelled() => Err(Ended::ServerStopping),
                    sent = self.sender.send_timeout(piece, self.stall) => sent.map_err(|error| match error {
                        mpsc::error::SendTimeoutError::Closed(_) => Ended::ReaderGone,
                        mpsc::error::SendTimeoutError::Timeout(_) => {
                            // What the transport holds can't be sent, so the stream alone would never end.
                            self.closing.cancel();
                            Ended::ReaderStalled
                        }
                    }),
                }
            }),
        }
    }

    /// Ends the stream with an error, behind what was put. Does not block; waits for a reader that is slow.
    pub(crate) async fn fail(mut self, status: Status) {
        self.piece.push(Err(status));
        let patience = if self.closing.is_cancelled() { LAST_WORD } else { self.stall };
        // A reader that is gone needs no status.
        let _ = self.sender.send_timeout(self.piece, patience).await;
    }

    /// Becomes ready when the reader is gone.
    pub(crate) async fn gone(&self) {
        self.sender.closed().await;
    }
}
