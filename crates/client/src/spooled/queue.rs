//! The engine's outbox: reads back what is synced, sends it, and knows what is under way.

use std::{collections::VecDeque, future::pending, sync::Arc};

use sigillo_model::{
    batch::epoch_opening,
    head::SignedHead,
    ids::{BatchHash, Epoch, Origin, SourceId, SourceSeq},
};
use sigillo_proto::v1::{self, RefusalKind, append_request};
use sigillo_spool::{Damage, Frame, Identity, Reader, SpoolError};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, warn};

use super::{
    Hold, Loss, Shared,
    hint::Hint,
    keeper::{Command, Rechain, Stand},
    quarantine,
    resume::{Course, course},
};
use crate::{
    ClientError,
    error::plain,
    link::{Outbox, hello_asking},
    session::{PROTOCOL, unix_nanos},
};

/// Bytes under way at most, whatever the server would take: they are held in memory.
const FLIGHT_MAX_BYTES: u64 = 4 << 20;
/// Bytes that a message takes besides its block, about.
const MESSAGE_OVERHEAD_BYTES: u64 = 256;
/// Why another key than the announced one signs, unless something else is known.
const KEY_REASON: &str = "the spool was made anew, copied or brought back from an earlier state";

/// A batch under way.
struct Sent {
    first: SourceSeq,
    count: u32,
    end: SourceSeq,
    hash: BatchHash,
    bytes: u64,
}

/// A head under way, or the newest that is acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct SentHead {
    time: u64,
    next: SourceSeq,
}

/// A message that was read back, and what it is.
struct Read {
    message: append_request::Message,
    bytes: u64,
    sent: Result<Sent, SentHead>,
}

pub(super) struct Queue {
    shared: Arc<Shared>,
    keeper: mpsc::UnboundedSender<Command>,
    stand: watch::Receiver<Stand>,
    reader: Option<Reader>,
    /// Of a spool that was damaged: to be declared, when what is intact goes on in a new epoch.
    damage: Option<Damage>,
    welcome: v1::Welcome,
    /// What is acknowledged of the present epoch.
    acknowledged: SourceSeq,
    /// Its newest head that is acknowledged.
    head: SentHead,
    /// How far was read back.
    read: (SourceSeq, u64),
    /// Was read back and can't be sent yet.
    waiting: Option<Read>,
    /// There is no room for it before the next ack.
    blocked: bool,
    batches: VecDeque<Sent>,
    heads: VecDeque<SentHead>,
    bytes: u64,
    /// To be sent first.
    head_key: Option<v1::HeadKey>,
    /// Why the next key is another one than announced.
    key_reason: String,
    /// The refusal that ended the last stream.
    refusal: Option<v1::Refusal>,
    /// The journal has moved on without us: no heads.
    probing: bool,
    /// What is acknowledged and not covered is sent once more, for its receipts.
    asks_receipts: bool,
    /// What was acknowledged, beside the spool; and what it said at the start.
    hint: Hint,
    hinted: SourceSeq,
}

impl Queue {
    pub(super) fn new(
        shared: Arc<Shared>,
        keeper: mpsc::UnboundedSender<Command>,
        stand: watch::Receiver<Stand>,
        reader: Option<Reader>,
        damage: Option<Damage>,
    ) -> Self {
        let dir = shared.options.spool.dir.clone();
        let mut queue = Self {
            shared,
            keeper,
            stand,
            reader,
            damage,
            welcome: v1::Welcome::default(),
            acknowledged: SourceSeq::new(0),
            head: SentHead::default(),
            read: (SourceSeq::new(0), 0),
            waiting: None,
            blocked: false,
            batches: VecDeque::new(),
            heads: VecDeque::new(),
            bytes: 0,
            head_key: None,
            key_reason: String::new(),
            refusal: None,
            probing: false,
            asks_receipts: true,
            hint: Hint::new(&dir),
            hinted: SourceSeq::new(0),
        };
        // Of another journal than the present one nobody else could tell.
        let stand = queue.stand.borrow().clone();
        if let Some(next) = stand.identity.and_then(|identity| queue.hint.load(&identity, stand.epoch)) {
            queue.hinted = next;
        }
        queue
    }

    fn command(&self, command: Command) {
        // A thread that has ended has told why.
        let _ = self.keeper.send(command);
    }

    /// Asks the thread and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply));
        answer.await.map_err(|_| ClientError::Stopped)
    }

    /// Whether something is synced that was not read back.
    fn has_unread(&self) -> bool {
        let stand = self.stand.borrow();
        self.read.0 < stand.next || (self.read.1 < stand.head_time && !self.probing)
    }

    /// Whether everything that will ever come is acknowledged.
    fn is_done(&self) -> bool {
        let stand = self.stand.borrow();
        let heads = self.probing || self.head.time >= stand.head_time;
        stand.ending.is_some() && self.acknowledged >= stand.next && heads
    }

    /// Reads the next frame back.
    fn read(&mut self) -> Result<Option<Read>, ClientError> {
        if let Some(key) = self.head_key.take() {
            let message = append_request::Message::HeadKey(key);
            return Ok(Some(Read { message, bytes: 0, sent: Err(SentHead::default()) }));
        }
        let Some(reader) = &mut self.reader else { return Ok(None) };
        loop {
            match reader.next()? {
                Some(Frame::Batch(batch)) => {
                    self.read.0 = batch.end();
                    let bytes = batch.compressed.len() as u64 + MESSAGE_OVERHEAD_BYTES;
                    let (first, count, end, hash) = (batch.first, batch.count, batch.end(), batch.hash);
                    let message = append_request::Message::Batch(v1::Batch::from(&batch));
                    return Ok(Some(Read { message, bytes, sent: Ok(Sent { first, count, end, hash, bytes }) }));
                }
                Some(Frame::Head { time_ns, .. }) if self.probing => self.read.1 = time_ns,
                Some(Frame::Head { note, time_ns }) => {
                    self.read.1 = time_ns;
                    let (bytes, head) = (note.len() as u64 + MESSAGE_OVERHEAD_BYTES, head_of(&note, time_ns));
                    let message = append_request::Message::Head(v1::SignedHead { note });
                    return Ok(Some(Read { message, bytes, sent: Err(head) }));
                }
                None => {
                    let stand = self.stand.borrow();
                    self.read = (stand.next, stand.head_time);
                    return Ok(None);
                }
            }
        }
    }

    /// Reads back from a place on, and nothing counts as sent.
    fn seek(&mut self, from: SourceSeq) -> Result<(), ClientError> {
        (self.waiting, self.blocked, self.bytes) = (None, false, 0);
        self.batches.clear();
        self.heads.clear();
        let (epoch, first) = {
            let stand = self.stand.borrow();
            (stand.epoch, stand.first)
        };
        let time = self.head.time;
        let Some(reader) = &mut self.reader else { return Ok(()) };
        reader.seek(epoch, from, time)?;
        let mut start = from;
        if let Some(Frame::Head { note, time_ns }) = reader.next()? {
            let next = head_of(&note, time_ns).next;
            if next < from {
                // It is taken only right after what it covers, so that is sent once more.
                reader.seek(epoch, first, u64::MAX)?;
                while let Some(Frame::Batch(batch)) = reader.next()? {
                    if batch.end() >= next {
                        start = batch.first;
                        break;
                    }
                }
            }
        }
        reader.seek(epoch, start, time)?;
        self.read = (start, time);
        Ok(())
    }

    /// Whether what is acknowledged waits for a checkpoint.
    fn holds(&self) -> bool {
        let options = &self.shared.options;
        options.hold == Hold::UntilCheckpoint
            && is_held(&self.welcome.class)
            && options.guard.as_ref().is_some_and(|guard| guard.checks_receipts())
    }

    /// Lets go of what needs not be kept.
    fn release(&self) {
        // A head that is not acknowledged is sent again after what it covers.
        let mut next = self.acknowledged.min(self.head.next);
        let epoch = self.stand.borrow().epoch;
        if self.holds() {
            let covered = self.shared.options.guard.as_ref().and_then(|guard| guard.covered());
            next = match covered {
                Some((covered, until)) if covered == epoch => next.min(until),
                _ => return,
            };
        }
        self.command(Command::Release { epoch, next, head_time: self.head.time });
    }

    /// Writes down what is acknowledged, now and then or `now`.
    fn remember(&mut self, now: bool) {
        let stand = self.stand.borrow();
        if let Some(identity) = &stand.identity {
            self.hint.keep(identity, stand.epoch, self.acknowledged, now);
        }
    }

    /// Goes on in a new epoch of this journal, with everything from a place on.
    async fn anew(&mut self, from: SourceSeq, skip_first: bool, losses: Vec<Loss>) -> Result<(), ClientError> {
        let identity = identity(&self.welcome)?;
        let known = Epoch::new(self.welcome.epoch);
        let (ours, own) = {
            let stand = self.stand.borrow();
            (stand.epoch, stand.identity.as_ref() == Some(&identity))
        };
        let epoch = new_epoch(known.max(ours))?;
        let before = last_hash(&self.welcome)?;
        if own {
            self.key_reason = format!("what was not acknowledged of epoch {ours} goes on in epoch {epoch}");
        }
        self.ask(|reply| {
            Command::Rechain(Rechain { identity, epoch, before, from: (ours, from), skip_first, losses, reply })
        })
        .await?;
        self.acknowledged = SourceSeq::new(0);
        self.head = SentHead { time: self.welcome.head_time_unix_nano, next: SourceSeq::new(0) };
        self.probing = false;
        self.stand.mark_unchanged();
        Ok(())
    }

    /// Sees to the refusal that ended the last stream; whether that changed anything.
    async fn settle(&mut self, refusal: v1::Refusal) -> Result<bool, ClientError> {
        let (epoch, first) = {
            let stand = self.stand.borrow();
            (stand.epoch, stand.first)
        };
        let from = self.acknowledged.max(first);
        let is_oldest = (refusal.epoch, refusal.first) == (epoch.get(), from.get());
        match refusal.kind() {
            RefusalKind::Invalid if is_oldest && !self.is_opening_stale()? => {
                let loss = self.set_aside(epoch, from, &refusal.message)?;
                self.shared.progress.send_modify(|progress| progress.refused_batches += 1);
                self.anew(from, true, vec![loss]).await?;
                Ok(true)
            }
            RefusalKind::Fork | RefusalKind::StaleEpoch | RefusalKind::Head => {
                error!(
                    kind = refusal.kind().as_str_name(), said = refusal.message, %epoch, %from,
                    "the journal does not go on with this epoch: beginning a new one with what is not acknowledged"
                );
                self.anew(from, false, Vec::new()).await?;
                Ok(true)
            }
            // Where to go on, the welcome says. Of a batch whose predecessors are not acknowledged: the oldest goes first next time, and
            // what is wrong with it will be said then.
            _ => Ok(false),
        }
    }

    /// Whether our epoch was opened on something that is not the journal's state any more, so that our first batch can't be taken.
    fn is_opening_stale(&mut self) -> Result<bool, ClientError> {
        let (epoch, first) = {
            let stand = self.stand.borrow();
            (stand.epoch, stand.first)
        };
        if first.get() > 0 || self.welcome.epoch >= epoch.get() {
            return Ok(false);
        }
        let Some(reader) = &mut self.reader else { return Ok(false) };
        reader.seek(epoch, first, u64::MAX)?;
        let Some(Frame::Batch(batch)) = reader.next()? else { return Ok(false) };
        let Identity { origin, source } = identity(&self.welcome)?;
        Ok(batch.previous != epoch_opening(&origin, source, epoch, last_hash(&self.welcome)?))
    }

    /// Whether our chain has the journal's value at the journal's place, or was opened on what it shows.
    fn fits(&mut self) -> Result<bool, ClientError> {
        let next = SourceSeq::new(self.welcome.next_sequence);
        let (epoch, end, hash) = {
            let stand = self.stand.borrow();
            (stand.epoch, stand.next, stand.hash)
        };
        if self.welcome.epoch != epoch.get() {
            return Ok(!self.is_opening_stale()?);
        }
        let theirs = last_hash(&self.welcome)?;
        if next == end {
            return Ok(theirs == Some(hash));
        }
        let Some(reader) = &mut self.reader else { return Ok(true) };
        let frame = reader.seek(epoch, next, u64::MAX).and_then(|()| reader.next());
        match frame {
            Ok(Some(Frame::Batch(batch))) => Ok(theirs == Some(batch.previous)),
            Ok(_) => Ok(true),
            Err(SpoolError::NotHere { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the oldest batch in a file, and says that it is lost to the journal.
    fn set_aside(&mut self, epoch: Epoch, from: SourceSeq, why: &str) -> Result<Loss, ClientError> {
        let batch = match &mut self.reader {
            Some(reader) => {
                reader.seek(epoch, from, u64::MAX)?;
                reader.next()?
            }
            None => None,
        };
        let Some(Frame::Batch(batch)) = batch else { return Err(ClientError::Stopped) };
        let path = quarantine::keep(&self.shared.options.quarantine, &batch, why)?;
        error!(records = batch.count, file = %path.display(), said = why, "the server refused records; they are set aside");
        Ok(Loss {
            stream: "spool".into(),
            reason: format!("the journal refuses them for ever: {why}; they are kept in {}", path.display()),
            from: format!("{epoch}:{from}"),
            to: format!("{epoch}:{}", batch.end()),
            records: Some(batch.count.into()),
            bytes: Some(batch.block_bytes.into()),
        })
    }

    /// Makes the spool, for whom the server says that we are.
    async fn create(&mut self) -> Result<(), ClientError> {
        let identity = identity(&self.welcome)?;
        let epoch = new_epoch(Epoch::new(self.welcome.epoch).max(self.shared.options.import.1))?;
        let before = last_hash(&self.welcome)?;
        let losses = self.damage.as_ref().map(Loss::of).unwrap_or_default();
        let reader = self.ask(|reply| Command::Create { identity, epoch, before, losses, reply }).await?;
        (self.reader, self.damage) = (Some(reader), None);
        Ok(())
    }

    /// Whether the welcome is of another journal than the spool's, or knows us as another source, and may be gone on with.
    fn is_other_journal(&self) -> Result<bool, ClientError> {
        let identity = identity(&self.welcome)?;
        let Some(ours) = self.stand.borrow().identity.clone().filter(|ours| *ours != identity) else {
            return Ok(false);
        };
        if self.shared.options.guard.is_some() && ours.origin != identity.origin {
            // The guard has let it pass: it is the journal of the trust file.
            warn!(
                from = %ours.origin, to = %identity.origin,
                "the trust file names another journal than that of the spool: what is not acknowledged goes to the new one"
            );
            return Ok(true);
        }
        Err(ClientError::OtherJournal {
            spool: format!("{} as {}", ours.origin, ours.source),
            server: format!("{} as {}", identity.origin, identity.source),
            dir: self.shared.options.spool.dir.clone(),
        })
    }

    /// Decides where to go on, and does what that needs.
    async fn go_on(&mut self) -> Result<(), ClientError> {
        if self.reader.is_none() {
            return self.create().await;
        }
        let first = self.stand.borrow().first;
        if self.is_other_journal()? {
            let next = self.stand.borrow().next;
            let from = self.acknowledged.max(self.hinted).clamp(first, next);
            return self.anew(from, false, Vec::new()).await;
        }
        if let Some(damage) = self.damage.clone() {
            let same = self.welcome.epoch == self.stand.borrow().epoch.get();
            let from = SourceSeq::new(if same { self.welcome.next_sequence } else { 0 }).max(first);
            self.anew(from, false, Loss::of(&damage)).await?;
            self.damage = None;
            return Ok(());
        }
        if let Some(refusal) = self.refusal.take() {
            let settled = self.settle(refusal.clone()).await;
            // What could not be settled is settled next time.
            self.refusal = settled.is_err().then_some(refusal);
            if settled? {
                return Ok(());
            }
        }
        let fits = self.fits()?;
        let stand = self.stand.borrow().clone();
        let place = (Epoch::new(self.welcome.epoch), SourceSeq::new(self.welcome.next_sequence));
        match course(&stand, self.acknowledged, place, fits) {
            Course::GoOn(from) => {
                if from < self.acknowledged {
                    error!(acknowledged = %self.acknowledged, %from, "the journal has forgotten records that it had acknowledged");
                }
                self.probing = false;
                self.acknowledged = from;
                self.head.time = self.welcome.head_time_unix_nano;
            }
            Course::Probe(from) => {
                warn!(
                    ours = %stand.epoch, theirs = self.welcome.epoch, next = self.welcome.next_sequence,
                    "the journal has more of this source than we have sent: another sender uses our certificate, or our state was \
                     brought back from an earlier one; asking what it has of ours"
                );
                self.probing = true;
                self.acknowledged = from;
            }
            Course::Anew { from, lost } => {
                let loss = (lost > 0).then(|| Loss {
                    stream: "spool".into(),
                    reason: "the journal does not have records any more that it had acknowledged".into(),
                    from: format!("{}:{}", stand.epoch, from.get() - lost),
                    to: format!("{}:{from}", stand.epoch),
                    records: Some(lost),
                    bytes: None,
                });
                self.anew(from, false, loss.into_iter().collect()).await?;
            }
        }
        Ok(())
    }
}

impl Outbox for Queue {
    fn hello(&self) -> v1::Hello {
        let stand = self.stand.borrow();
        let resident = self.shared.options.resident;
        let agent = &self.shared.options.agent;
        // Of an epoch that is given up, or of none, we ask.
        if stand.identity.is_none() || self.refusal.is_some() {
            return v1::Hello { resident, ..hello_asking(agent) };
        }
        v1::Hello {
            protocol: PROTOCOL,
            agent: agent.clone(),
            epoch: stand.epoch.get(),
            first_retained: stand.first.get(),
            next_sequence: stand.next.get(),
            head: if stand.next.get() == 0 { Vec::new() } else { stand.hash.as_bytes().to_vec() }.into(),
            clock_unix_nano: unix_nanos(),
            resident,
            ..v1::Hello::default()
        }
    }

    fn heartbeat(&self) -> v1::Heartbeat {
        let progress = self.shared.progress.borrow();
        v1::Heartbeat {
            waiting_records: progress.waiting_records,
            oldest_unix_nano: progress.oldest_ns,
            clock_unix_nano: unix_nanos(),
        }
    }

    async fn resume(&mut self, welcome: &v1::Welcome) -> Result<(), ClientError> {
        self.welcome = welcome.clone();
        self.key_reason.clear();
        self.go_on().await?;
        self.command(Command::Acknowledged(self.acknowledged));
        self.command(Command::Urgent(is_held(&welcome.class)));
        self.command(Command::HeadsAfter(welcome.head_time_unix_nano));
        let time = welcome.head_time_unix_nano;
        let key = self.ask(|reply| Command::Key { after: time, reply }).await?;
        self.head_key = (*welcome.head_key != key && !self.probing).then(|| {
            let reason = match () {
                () if welcome.head_key.is_empty() => "",
                () if self.key_reason.is_empty() => KEY_REASON,
                () => &self.key_reason,
            };
            v1::HeadKey { public_key: key.to_vec().into(), reason: reason.to_owned() }
        });
        let first = self.stand.borrow().first;
        let asks = std::mem::take(&mut self.asks_receipts) && self.holds();
        self.seek(if asks { first } else { self.acknowledged })
    }

    async fn more(&mut self) -> Result<bool, ClientError> {
        if self.is_done() {
            return Ok(false);
        }
        match self.stand.changed().await {
            Ok(()) => Ok(true),
            // The thread has ended, and with it soon the link.
            Err(_) => pending().await,
        }
    }

    fn waits(&self) -> bool {
        self.acknowledged < self.stand.borrow().next
    }

    fn may_send(&self, credit: u64) -> bool {
        if self.head_key.is_some() {
            return true;
        }
        let room = self.bytes < credit.min(FLIGHT_MAX_BYTES);
        !self.blocked && (self.waiting.is_some() || self.has_unread()) && (room || self.batches.is_empty())
    }

    fn send(&mut self) -> Result<Option<(append_request::Message, u64)>, ClientError> {
        let read = match self.waiting.take() {
            Some(read) => Some(read),
            None => self.read()?,
        };
        let Some(read) = read else { return Ok(None) };
        let credit = self.welcome.credit_bytes.min(FLIGHT_MAX_BYTES);
        if !self.batches.is_empty() && self.bytes + read.bytes > credit {
            self.waiting = Some(read);
            self.blocked = true;
            return Ok(None);
        }
        match read.sent {
            Ok(sent) => {
                debug!(first = %sent.first, count = sent.count, "sending a batch");
                self.bytes += sent.bytes;
                self.batches.push_back(sent);
            }
            Err(head) if head.time > 0 => self.heads.push_back(head),
            Err(_) => {}
        }
        Ok(Some((read.message, read.bytes)))
    }

    fn rewind(&mut self) -> Result<(), ClientError> {
        self.seek(self.acknowledged)
    }

    async fn acknowledge(&mut self, ack: v1::Ack) -> Result<bool, ClientError> {
        let wrong = |what: &str| Err(ClientError::Protocol(format!("an ack {what}")));
        let mut news = false;
        if ack.head_time_unix_nano > self.head.time {
            while let Some(head) = self.heads.front().copied().filter(|head| head.time <= ack.head_time_unix_nano) {
                self.head = head;
                self.heads.pop_front();
                news = true;
            }
        }
        if let Some(receipt) = ack.receipt {
            let epoch = self.stand.borrow().epoch.get();
            let place = self.batches.iter().position(|sent| ack.epoch == epoch && sent.end.get() == ack.next_sequence);
            let Some(place) = place else { return wrong("covers something that was not sent") };
            let is_for = self.batches.get(place).is_some_and(|sent| {
                (receipt.epoch, receipt.first, receipt.count) == (epoch, sent.first.get(), sent.count)
                    && *receipt.batch_hash == *sent.hash.as_bytes()
            });
            if !is_for {
                return wrong("has a receipt for something else than its batch");
            }
            for sent in self.batches.drain(..=place) {
                self.bytes -= sent.bytes;
                self.acknowledged = self.acknowledged.max(sent.end);
            }
            self.blocked = false;
            if let Some(on_receipt) = &self.shared.options.on_receipt {
                on_receipt(&self.welcome, &receipt);
            }
            self.command(Command::Acknowledged(self.acknowledged));
            self.remember(false);
            news = true;
        }
        if news {
            let epoch = self.stand.borrow().epoch;
            self.shared.progress.send_modify(|progress| {
                progress.acknowledged = (epoch, self.acknowledged);
                progress.last_ack_ns = unix_nanos();
                progress.error.clear();
            });
            self.release();
        }
        Ok(news)
    }

    fn refused(&mut self, refusal: v1::Refusal) -> Result<(), ClientError> {
        self.refusal = Some(refusal);
        Ok(())
    }

    fn checked(&mut self) -> Result<(), ClientError> {
        self.release();
        Ok(())
    }

    fn farewell(&mut self) -> Option<append_request::Message> {
        self.remember(true);
        let reason = self.stand.borrow().ending.clone()?;
        Some(append_request::Message::Goodbye(v1::Goodbye { reason: reason.as_ref().to_owned() }))
    }

    fn connected(&mut self, welcome: &v1::Welcome) {
        self.shared.progress.send_modify(|progress| {
            progress.connected = true;
            progress.error.clear();
            progress.class.clone_from(&welcome.class);
            progress.origin.clone_from(&welcome.origin);
            let skew = i128::from(welcome.server_time_unix_nano) - i128::from(unix_nanos());
            progress.skew_ns = i64::try_from(skew).unwrap_or_default();
        });
    }

    fn disconnected(&mut self) {
        self.shared.progress.send_modify(|progress| progress.connected = false);
    }

    fn hindered(&mut self, trouble: &str) {
        self.shared.progress.send_modify(|progress| trouble.clone_into(&mut progress.error));
    }
}

/// Classes whose records are synced at once, and held until a checkpoint covers them.
fn is_held(class: &str) -> bool {
    matches!(class, "panel" | "admin")
}

/// What a head of our own spool says; it was checked when it was read.
fn head_of(note: &[u8], time: u64) -> SentHead {
    let next = SignedHead::parse(note).map_or(SourceSeq::new(0), |(head, _)| head.next);
    SentHead { time, next }
}

/// For whom the server takes us.
fn identity(welcome: &v1::Welcome) -> Result<Identity, ClientError> {
    let protocol = |what: &str| ClientError::Protocol(plain(&format!("the welcome's {what}")));
    let origin = Origin::new(welcome.origin.as_str()).map_err(|error| protocol(&error.to_string()))?;
    let source = SourceId::from_slice(&welcome.source).ok_or_else(|| protocol("source has not 16 bytes"))?;
    Ok(Identity { origin, source })
}

/// Where the chain of our newest epoch ends in the journal.
fn last_hash(welcome: &v1::Welcome) -> Result<Option<BatchHash>, ClientError> {
    if welcome.epoch == 0 {
        return Ok(None);
    }
    let wrong = || ClientError::Protocol("the welcome's head has not 32 bytes".into());
    BatchHash::from_slice(&welcome.head).map(Some).ok_or_else(wrong)
}

/// The time of now, and greater than any epoch before, even when the clock was set back.
fn new_epoch(after: Epoch) -> Result<Epoch, ClientError> {
    let least =
        after.get().checked_add(1).ok_or_else(|| ClientError::Protocol("epochs have come to their end".into()))?;
    Ok(Epoch::new(unix_nanos().max(least)))
}
