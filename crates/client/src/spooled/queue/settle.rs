//! Where to go on when a stream begins, and what that takes: another epoch, another journal, a batch set aside.

use sigillo_model::{
    batch::epoch_opening,
    ids::{BatchHash, Epoch, Origin, SourceId, SourceSeq},
};
use sigillo_proto::v1::{self, RefusalKind};
use sigillo_spool::{Frame, Identity, SpoolError};
use tracing::{error, warn};

use super::{Queue, SentHead};
use crate::{
    ClientError,
    error::plain,
    session::unix_nanos,
    spooled::{
        Loss,
        keeper::{Command, Rechain},
        quarantine,
        resume::{Course, course},
    },
};

impl Queue {
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
                self.anew(from, true, vec![loss]).await?;
                self.shared.progress.send_modify(|progress| progress.refused_batches += 1);
                Ok(true)
            }
            RefusalKind::Head => match self.course()? {
                // Without the heads that were not taken, and with those that are missing. What came behind a batch that was refused
                // for want of a head is in the journal, though nobody has acknowledged it.
                Course::GoOn(next) => {
                    error!(said = refusal.message, %epoch, from = %next, "heads are not taken: beginning a new epoch and signing anew");
                    self.anew(next, false, Vec::new()).await?;
                    Ok(true)
                }
                Course::Probe(_) | Course::Anew { .. } => Ok(false),
            },
            RefusalKind::Fork | RefusalKind::StaleEpoch => {
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

    /// Where to go on, by what the welcome says.
    fn course(&mut self) -> Result<Course, ClientError> {
        let fits = self.fits()?;
        let place = (Epoch::new(self.welcome.epoch), SourceSeq::new(self.welcome.next_sequence));
        Ok(course(&self.stand.borrow(), self.acknowledged, place, fits))
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
    pub(super) async fn go_on(&mut self) -> Result<(), ClientError> {
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
        let stand = self.stand.borrow().clone();
        match self.course()? {
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
