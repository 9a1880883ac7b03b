//! The thread that owns the spool.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use sigillo_model::{
    block::BlockBuilder,
    ids::{BatchHash, Epoch, NodeHash, SourceSeq},
    tree,
};
use sigillo_spool::{Identity, Reader, Spool, SpoolError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    Chunk, Loss, Pushed, RECORD_OVERHEAD_BYTES, Shared,
    offer::{Fate, Offer},
    tally::Tally,
};
use crate::{ClientError, session::unix_nanos};

/// A head is signed when the spool owes one, or this long after the last one when there is news, or at the latest after so long.
const HEAD_NEWS: Duration = Duration::from_secs(5);
const HEAD_IDLE: Duration = Duration::from_secs(60);
/// Chunks that are taken one after the other before the clock is looked at.
const TOGETHER: usize = 16;
/// Marks that change with one batch: far fewer than a spool takes at once.
const MARKS_TOGETHER: usize = 1_024;
/// A full spool, or disk, is tried again after so long, if nothing was acknowledged before.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// What the link asks for.
pub(super) enum Command {
    /// Makes the spool.
    Create {
        identity: Identity,
        epoch: Epoch,
        before: Option<BatchHash>,
        /// Of one that is there and can't be read.
        losses: Vec<Loss>,
        reply: oneshot::Sender<Reader>,
    },
    /// The key that must sign the first head newer than a time.
    Key { after: u64, reply: oneshot::Sender<[u8; 32]> },
    /// Makes batches of a new epoch of everything from a place on.
    Rechain(Rechain),
    /// The class of the source syncs every chunk at once.
    Urgent(bool),
    /// Heads must be newer than this.
    HeadsAfter(u64),
    /// Everything below this number of the newest epoch is acknowledged.
    Acknowledged(SourceSeq),
    /// What is below this may go.
    Release { epoch: Epoch, next: SourceSeq, head_time: u64 },
    /// Takes nothing more than what waits, syncs and signs it.
    Drain { reason: String, reply: oneshot::Sender<()> },
}

/// Makes batches of a new epoch.
pub(super) struct Rechain {
    pub(super) identity: Identity,
    pub(super) epoch: Epoch,
    pub(super) before: Option<BatchHash>,
    pub(super) from: (Epoch, SourceSeq),
    /// The oldest batch is left out: it was set aside.
    pub(super) skip_first: bool,
    /// To be declared.
    pub(super) losses: Vec<Loss>,
    pub(super) reply: oneshot::Sender<()>,
}

/// What is synced.
#[derive(Debug, Clone)]
pub(super) struct Stand {
    /// Whose it is; `None` as long as there is no spool.
    pub(super) identity: Option<Identity>,
    pub(super) epoch: Epoch,
    /// The first number of the epoch that is still there.
    pub(super) first: SourceSeq,
    pub(super) next: SourceSeq,
    /// Hash of the last batch, or the epoch's opening.
    pub(super) hash: BatchHash,
    /// Time of the newest head.
    pub(super) head_time: u64,
    /// Nothing more will come, for this reason.
    pub(super) ending: Option<Arc<str>>,
}

impl Default for Stand {
    fn default() -> Self {
        Self {
            identity: None,
            epoch: Epoch::new(0),
            first: SourceSeq::new(0),
            next: SourceSeq::new(0),
            hash: BatchHash::new([0; 32]),
            head_time: 0,
            ending: None,
        }
    }
}

impl Stand {
    /// Of a spool of which everything is synced.
    pub(super) fn of(spool: &Spool) -> Self {
        let state = spool.state();
        Self {
            epoch: state.epoch,
            first: state.first_retained,
            next: state.synced,
            hash: state.head,
            head_time: state.head_time_ns,
            identity: Some(state.identity),
            ending: None,
        }
    }
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    spool: Option<Spool>,
    /// `None`: nothing more will come.
    chunks: Option<mpsc::Receiver<Pushed>>,
    commands: mpsc::UnboundedReceiver<Command>,
    stand: watch::Sender<Stand>,
    builder: BlockBuilder,
    /// The newest of each key.
    marks: BTreeMap<Arc<str>, Bytes>,
    /// Was taken when the spool was full.
    left: Option<Pushed>,
    /// Losses were declared before everything from here on goes on in another epoch, which it could not yet.
    declared: Option<(Epoch, SourceSeq)>,
    /// The spool takes nothing before what is intact of it was carried over.
    damaged: bool,
    /// When the oldest record was taken that is not synced, and by the wall clock.
    oldest: Option<(Instant, u64)>,
    /// Batches were appended and not synced.
    unsynced: bool,
    /// Everything is.
    urgent: bool,
    /// The spool took no more; when it is tried again.
    full: Option<Instant>,
    /// Records that were pushed and taken.
    pushed: u64,
    /// Of those, the ones that are in batches.
    batched: u64,
    tally: Tally,
    last_head: Instant,
    heads_after: u64,
    /// We end, for this reason, once everything is taken.
    draining: Option<(Arc<str>, oneshot::Sender<()>)>,
    ending: Option<Arc<str>>,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        spool: Option<Spool>,
        damaged: bool,
        chunks: mpsc::Receiver<Pushed>,
        commands: mpsc::UnboundedReceiver<Command>,
        stand: watch::Sender<Stand>,
    ) -> Self {
        Self {
            shared,
            spool,
            chunks: Some(chunks),
            commands,
            stand,
            builder: BlockBuilder::default(),
            marks: BTreeMap::new(),
            left: None,
            declared: None,
            damaged,
            oldest: None,
            unsynced: false,
            urgent: false,
            full: None,
            pushed: 0,
            batched: 0,
            tally: Tally::default(),
            last_head: Instant::now(),
            heads_after: 0,
            draining: None,
            ending: None,
        }
    }

    /// Works until everybody else is gone, or the spool fails.
    pub(super) async fn run(mut self) -> Result<(), ClientError> {
        if let Some(state) = self.spool.as_ref().map(Spool::state) {
            self.tally.append(state.next.get().saturating_sub(state.first_retained.get()), 0, state.oldest_ns);
            self.publish();
            // What an earlier life has left without one.
            if state.unattested > 0 && !self.damaged {
                self.attest()?;
            }
        }
        loop {
            let due = self.due();
            let takes = self.chunks.is_some() && self.spool.is_some() && !self.damaged && self.full.is_none();
            let next = async { Some(self.chunks.as_mut()?.recv().await) };
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command)?,
                    None => return Ok(()),
                },
                () = at(due) => {}
                chunk = next, if takes => match chunk.flatten() {
                    Some(chunk) => self.take_with_others(chunk)?,
                    None => self.chunks = None,
                },
            }
            self.keep_up(Instant::now())?;
            self.end_if_done()?;
        }
    }

    /// When something must be done.
    fn due(&self) -> Option<Instant> {
        self.spool.as_ref().filter(|_| !self.damaged)?;
        if let Some(retry) = self.full {
            return Some(retry);
        }
        let sync = self.oldest.map(|(since, _)| since + self.shared.options.sync_every);
        let head = self.ending.is_none().then(|| self.head_at());
        sync.into_iter().chain(head).min()
    }

    fn head_at(&self) -> Instant {
        let has_news = self.spool.as_ref().is_some_and(|spool| spool.state().unattested > 0);
        self.last_head + if has_news { HEAD_NEWS } else { HEAD_IDLE }
    }

    fn keep_up(&mut self, now: Instant) -> Result<(), ClientError> {
        if self.spool.is_none() || self.damaged || self.full.is_some_and(|retry| now < retry) {
            return Ok(());
        }
        let was_full = self.full.take().is_some();
        if let Some(chunk) = self.left.take() {
            self.take(chunk)?;
        }
        let sync_every = self.shared.options.sync_every;
        let is_due = self.oldest.is_some_and(|(since, _)| now >= since + sync_every);
        if is_due {
            self.sync()?;
        }
        // Also when the spool is full: only what a head covers can go.
        if self.ending.is_none() && now >= self.head_at() {
            self.attest()?;
        }
        if was_full && self.full.is_none() {
            info!("the spool takes records again");
            self.shared.progress.send_modify(|progress| progress.full = false);
        }
        Ok(())
    }

    /// One sync for all that wait.
    fn take_with_others(&mut self, chunk: Pushed) -> Result<(), ClientError> {
        self.take(chunk)?;
        for _ in 0..TOGETHER {
            if self.full.is_some() {
                break;
            }
            let Some(chunk) = self.chunks.as_mut().and_then(|chunks| chunks.try_recv().ok()) else { break };
            self.take(chunk)?;
        }
        Ok(())
    }

    fn take(&mut self, pushed: Pushed) -> Result<(), ClientError> {
        let Pushed { chunk, offer } = pushed;
        if let Some(offer) = offer {
            return self.take_alone(chunk, offer);
        }
        let options = &self.shared.options;
        let (max_records, max_bytes) = (options.max_records, options.max_bytes);
        let bytes: usize = chunk.records.iter().map(|record| record.as_ref().length() + RECORD_OVERHEAD_BYTES).sum();
        let (records_then, bytes_then) = (self.builder.count() + chunk.records.len(), self.builder.bytes() + bytes);
        if self.builder.count() > 0 && (records_then > max_records || bytes_then > max_bytes) && !self.cut()? {
            self.left = Some(Pushed { chunk, offer: None });
            return Ok(());
        }
        for record in &chunk.records {
            self.builder.push(record.as_ref())?;
        }
        self.pushed += chunk.records.len() as u64;
        self.marks.extend(chunk.mark);
        if self.builder.count() > 0 || !self.marks.is_empty() {
            let oldest = self.oldest.get_or_insert_with(|| (Instant::now(), unix_nanos()));
            if chunk.urgent || self.urgent {
                // As if it had waited its time; whatever else waits goes with it.
                oldest.0 = oldest.0.checked_sub(self.shared.options.sync_every).unwrap_or(oldest.0);
            }
        }
        if self.builder.count() >= max_records
            || self.builder.bytes() >= max_bytes
            || self.marks.len() >= MARKS_TOGETHER
        {
            self.cut()?;
        }
        Ok(())
    }

    /// Makes a batch of a chunk that was offered, or refuses it.
    fn take_alone(&mut self, chunk: Chunk, offer: Arc<Offer>) -> Result<(), ClientError> {
        // What came before goes before.
        if !self.cut()? {
            self.left = Some(Pushed { chunk, offer: Some(offer) });
            return Ok(());
        }
        self.pushed += chunk.records.len() as u64;
        self.batched = self.pushed;
        if !offer.take() {
            return Ok(());
        }
        let oldest = self.oldest.get_or_insert_with(|| (Instant::now(), unix_nanos()));
        oldest.0 = oldest.0.checked_sub(self.shared.options.sync_every).unwrap_or(oldest.0);
        for record in &chunk.records {
            self.builder.push(record.as_ref())?;
        }
        self.marks.extend(chunk.mark);
        let place = self.spool.as_ref().map(Spool::state).map(|state| (state.epoch, state.next));
        let full = match (self.append(), place) {
            (Ok(()), Some((epoch, first))) => {
                offer.settle(Fate::Kept(epoch, first));
                false
            }
            (Err(SpoolError::Full(reason)), _) => {
                // Nothing of it was written; its sender is told once what came before it is synced.
                self.builder = BlockBuilder::default();
                self.marks.clear();
                offer.settle(Fate::Full(reason));
                true
            }
            (Ok(()), None) => false,
            (Err(error), _) => return Err(error.into()),
        };
        if self.shared.progress.borrow().full != full {
            if full {
                warn!("the spool is full: what is offered is refused until the journal has acknowledged something");
            } else {
                info!("the spool takes records again");
            }
            self.shared.progress.send_modify(|progress| progress.full = full);
        }
        Ok(())
    }

    /// Makes a batch of what was taken, and signs if a head is owed; `false` when the spool is full.
    fn cut(&mut self) -> Result<bool, ClientError> {
        if self.seal()? && self.spool.as_ref().is_some_and(Spool::owes_head) {
            self.attest()?;
        }
        Ok(self.full.is_none())
    }

    /// Makes a batch of what was taken; `false` when the spool is full.
    fn seal(&mut self) -> Result<bool, ClientError> {
        match self.append() {
            Ok(()) => Ok(true),
            Err(error) if error.is_full() => {
                self.is_full();
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn append(&mut self) -> Result<(), SpoolError> {
        let records = self.builder.count() as u64;
        let has_news = records > 0 || !self.marks.is_empty();
        let Some(spool) = self.spool.as_mut().filter(|_| has_news) else { return Ok(()) };
        let marks: Vec<_> = self.marks.iter().map(|(key, value)| (Arc::clone(key), value.clone())).collect();
        spool.append(&mut self.builder, &marks)?;
        self.marks.clear();
        let since = self.oldest.map_or_else(unix_nanos, |(_, since)| since);
        if records > 0 {
            self.tally.append(records, self.pushed, since);
        }
        self.batched = self.pushed;
        self.unsynced = true;
        Ok(())
    }

    fn is_full(&mut self) {
        self.full = Some(Instant::now() + FULL_RETRY);
        if !self.shared.progress.borrow().full {
            warn!("the spool is full: nothing more is read until the journal has acknowledged something");
            self.shared.progress.send_modify(|progress| progress.full = true);
        }
    }

    /// Syncs everything that was taken, or as much of it as there was room for.
    fn sync(&mut self) -> Result<(), ClientError> {
        let is_whole = self.cut()?;
        self.sync_batches()?;
        if is_whole {
            self.oldest = None;
        }
        Ok(())
    }

    /// Syncs what was appended.
    fn sync_batches(&mut self) -> Result<(), ClientError> {
        if let Some(spool) = self.spool.as_mut().filter(|_| self.unsynced) {
            spool.sync()?;
        }
        self.is_synced();
        Ok(())
    }

    /// Signs a head over everything that was taken, or as much of it as there was room for.
    fn attest(&mut self) -> Result<(), ClientError> {
        let is_whole = self.full.is_none() && self.seal()?;
        let (time, seen) = self.head_says();
        let Some(spool) = self.spool.as_mut() else { return Ok(()) };
        if spool.state().next.get() == 0 {
            // There is nothing to sign yet.
            self.last_head = Instant::now();
            return Ok(());
        }
        match spool.attest(time, seen) {
            Ok(()) => {
                self.last_head = Instant::now();
                self.is_synced();
                if is_whole {
                    self.oldest = None;
                }
                Ok(())
            }
            Err(error) if error.is_full() => {
                self.is_full();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The time of a head that is signed now, and what we have seen of the journal.
    fn head_says(&self) -> (u64, (u64, NodeHash)) {
        let seen = self.shared.options.guard.as_ref().and_then(|guard| guard.seen());
        (unix_nanos().max(self.heads_after.saturating_add(1)), seen.unwrap_or_else(|| (0, tree::empty())))
    }

    fn is_synced(&mut self) {
        self.unsynced = false;
        self.publish();
    }

    /// Tells all others how far the spool is synced. Everything that was appended is.
    fn publish(&self) {
        let Some(spool) = &self.spool else { return };
        let stand = Stand { ending: self.ending.clone(), ..Stand::of(spool) };
        self.shared.progress.send_modify(|progress| {
            progress.synced = (stand.epoch, stand.next);
            progress.synced_records = self.batched;
            progress.spool_bytes = spool.state().bytes;
        });
        self.tell_tally();
        self.stand.send_replace(stand);
    }

    fn tell_tally(&self) {
        self.shared.progress.send_modify(|progress| {
            progress.waiting_records = self.tally.records();
            progress.oldest_ns = self.tally.oldest_ns();
            progress.acknowledged_records = self.tally.settled();
        });
    }

    fn obey(&mut self, command: Command) -> Result<(), ClientError> {
        match command {
            Command::Create { identity, epoch, before, losses, reply } => {
                let options = &self.shared.options;
                if !losses.is_empty() {
                    let aside = sigillo_spool::set_aside(&options.spool)?;
                    error!(to = %aside.display(), "the spool of which nothing can be read was moved away");
                }
                let marks = options.import.0.clone();
                let spool = Spool::create(&options.spool, identity, epoch, before, marks)?;
                info!(dir = %options.spool.dir.display(), %epoch, "the spool was made");
                let _ = reply.send(spool.reader());
                self.spool = Some(spool);
                self.declare(&losses)?;
                self.sync()?;
            }
            Command::Key { after, reply } => {
                if let Some(spool) = &self.spool {
                    let _ = reply.send(spool.key_after(after)?);
                }
            }
            Command::Rechain(rechain) => self.rechain(rechain)?,
            Command::Urgent(urgent) => self.urgent = urgent,
            Command::HeadsAfter(time) => self.heads_after = self.heads_after.max(time),
            Command::Acknowledged(next) => {
                let Some(state) = self.spool.as_ref().map(Spool::state) else { return Ok(()) };
                self.tally.waits(state.next.get().saturating_sub(next.get()));
                self.tell_tally();
            }
            Command::Release { epoch, next, head_time } => {
                let Some(spool) = self.spool.as_mut() else { return Ok(()) };
                if let Err(error) = spool.release(epoch, next, head_time) {
                    error!(%error, "what was acknowledged can't be removed from the spool");
                }
                let first = spool.state().first_retained;
                if self.stand.borrow().first != first {
                    self.sync_batches()?;
                }
                // There may be room now.
                self.full = self.full.map(|_| Instant::now());
            }
            Command::Drain { reason, reply } => {
                self.chunks.iter_mut().for_each(mpsc::Receiver::close);
                self.draining = Some((reason.into(), reply));
            }
        }
        Ok(())
    }

    fn rechain(&mut self, rechain: Rechain) -> Result<(), ClientError> {
        if !self.damaged {
            self.sync()?;
        }
        let Rechain { identity, epoch, before, from, skip_first, losses, reply } = rechain;
        let why = losses.first().map(|loss| loss.reason.clone()).unwrap_or_default();
        let refused = self.tally.first_pushed().filter(|_| skip_first).map(|ordinal| (ordinal, why));
        if self.declared != Some(from) {
            self.declare(&losses)?;
            self.declared = Some(from);
        }
        // Before what they are about is gone: after a crash between the two they are declared again, never left out.
        if !self.damaged {
            self.sync()?;
        }
        let heads = self.head_says();
        let Some(spool) = self.spool.as_mut() else { return Ok(()) };
        let rechained = match spool.rechain(identity, epoch, before, from, skip_first, heads) {
            Ok(rechained) => rechained,
            Err(error) if error.is_full() => {
                self.is_full();
                // Nobody is told that it was done, so it will be asked for again.
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        (self.damaged, self.declared) = (false, None);
        let waiting = spool.state().next.get();
        if let Some((ordinal, why)) = refused {
            self.shared.is_refused(ordinal, why);
        }
        info!(%epoch, records = waiting, "what is not acknowledged goes on in a new epoch");
        self.tally.waits(waiting);
        if !rechained.damage.findings.is_empty() {
            self.declare(&Loss::of(&rechained.damage))?;
        }
        self.attest()?;
        self.sync_batches()?;
        let _ = reply.send(());
        Ok(())
    }

    fn declare(&mut self, losses: &[Loss]) -> Result<(), ClientError> {
        for loss in losses {
            error!(from = loss.from, to = loss.to, reason = loss.reason, "records are lost; that is declared");
            let record = (self.shared.options.declare)(loss);
            self.builder.push(record.as_ref())?;
            self.oldest.get_or_insert_with(|| (Instant::now(), unix_nanos()));
            self.shared.progress.send_modify(|progress| progress.losses += 1);
        }
        Ok(())
    }

    /// Signs all that was taken, once nothing more will come and everything has found room.
    fn end_if_done(&mut self) -> Result<(), ClientError> {
        let is_ready = self.spool.is_some() && !self.damaged && self.full.is_none() && self.left.is_none();
        if !is_ready || self.chunks.is_some() || self.draining.is_none() {
            return Ok(());
        }
        self.sync()?;
        if self.full.is_none() {
            self.attest()?;
            if let Some((reason, reply)) = self.draining.take() {
                self.ending = Some(reason);
                self.publish();
                let _ = reply.send(());
            }
        }
        Ok(())
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
