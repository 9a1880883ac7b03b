//! A shipper's outbox: batches that are nowhere else.

use std::future::pending;

use sigillo_proto::v1::{self, RefusalKind, append_request};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    Options, Settled,
    window::{Draft, Window},
};
use crate::{
    ClientError,
    link::{Outbox, hello_asking},
    session::unix_nanos,
};

/// The window, fed with drafts, telling what becomes of them.
pub(super) struct Memory {
    agent: String,
    window_bytes: usize,
    window: Window,
    drafts: mpsc::Receiver<Draft>,
    reports: mpsc::Sender<Result<Settled, ClientError>>,
    /// The refusal that ended the last stream, of the oldest batch; decided on when the server has said where it stands.
    refusal: Option<v1::Refusal>,
}

impl Memory {
    pub(super) fn new(
        options: &Options,
        window: Window,
        drafts: mpsc::Receiver<Draft>,
        reports: mpsc::Sender<Result<Settled, ClientError>>,
    ) -> Self {
        let (agent, window_bytes) = (options.agent.clone(), options.window_bytes);
        Self { agent, window_bytes, window, drafts, reports, refusal: None }
    }

    async fn settle_refusal(&mut self, refusal: v1::Refusal, welcome: &v1::Welcome) -> Result<(), ClientError> {
        if !self.window.is_opening_stale(welcome)? {
            if refusal.kind() == RefusalKind::Fork {
                return Err(ClientError::Fork(refusal.message));
            }
            if let Some(settled) = self.window.refuse_oldest(refusal.message) {
                self.report(settled).await;
            }
        }
        self.window.reopen(welcome, unix_nanos())
    }

    async fn report(&self, settled: Settled) {
        // A caller that is gone ends the link.
        let _ = self.reports.send(Ok(settled)).await;
    }
}

impl Outbox for Memory {
    fn hello(&self) -> v1::Hello {
        match self.refusal {
            // Our epoch is given up: ask.
            Some(_) => hello_asking(&self.agent),
            None => self.window.hello(&self.agent, unix_nanos()),
        }
    }

    fn heartbeat(&self) -> v1::Heartbeat {
        self.window.heartbeat(unix_nanos())
    }

    async fn resume(&mut self, welcome: &v1::Welcome) -> Result<(), ClientError> {
        match self.refusal.take() {
            Some(refusal) => self.settle_refusal(refusal, welcome).await,
            None => self.window.resume(welcome, unix_nanos()),
        }
    }

    async fn more(&mut self) -> Result<bool, ClientError> {
        if self.window.bytes() >= self.window_bytes {
            return pending().await;
        }
        let Some(draft) = self.drafts.recv().await else { return Ok(false) };
        self.window.seal(draft)?;
        Ok(true)
    }

    fn waits(&self) -> bool {
        self.window.bytes() > 0
    }

    fn may_send(&self, credit: u64) -> bool {
        self.window.may_send(credit)
    }

    fn send(&mut self) -> Result<Option<(append_request::Message, u64)>, ClientError> {
        let sent = self.window.send();
        Ok(sent.map(|(batch, bytes)| {
            debug!(first = batch.first, count = batch.count, "sending a batch");
            (append_request::Message::Batch(batch), bytes)
        }))
    }

    fn rewind(&mut self) -> Result<(), ClientError> {
        self.window.rewind();
        Ok(())
    }

    async fn acknowledge(&mut self, ack: v1::Ack) -> Result<bool, ClientError> {
        let Some(settled) = self.window.acknowledge(ack)? else { return Ok(false) };
        self.report(settled).await;
        Ok(true)
    }

    fn refused(&mut self, refusal: v1::Refusal) -> Result<(), ClientError> {
        let v1::Refusal { expected_epoch, expected_sequence: expected, .. } = refusal;
        match refusal.kind() {
            RefusalKind::Gap if self.window.holds(expected_epoch, expected) => Ok(()),
            RefusalKind::Gap => Err(ClientError::Gap { expected_epoch, expected, message: refusal.message }),
            RefusalKind::StaleEpoch => Err(ClientError::StaleEpoch(refusal.message)),
            RefusalKind::Invalid | RefusalKind::Fork if self.window.is_oldest(&refusal) => {
                self.refusal = Some(refusal);
                Ok(())
            }
            // A refusal of a head is not about ours, we send none: another sender uses our certificate.
            RefusalKind::Fork | RefusalKind::Head => Err(ClientError::Fork(refusal.message)),
            // Of a batch whose predecessors are not acknowledged, or of a kind that we don't know: the oldest goes first
            // next time, and what is wrong with it will be said then.
            RefusalKind::Invalid | RefusalKind::Unspecified => Ok(()),
        }
    }
}
