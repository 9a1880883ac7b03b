//! Before anything new is signed: what was signed last, whether the journal still holds it, and what the witnesses know.

use sigillo_model::note::Note;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::{Checkpointer, GRACE, Stop};
use crate::{
    log::{judge_kept, signed::TreeHead, witnesses::Witness},
    own::Event,
};

impl Checkpointer {
    /// What was signed last, which the journal must still hold.
    pub(super) async fn base(&mut self) -> Result<TreeHead, Stop> {
        let reader = self.parts.journal.reader();
        let kept = spawn_blocking(move || reader.newest_checkpoint()).await??;
        let base = match (self.parts.signed.last(), kept) {
            (Some(last), _) => last,
            (None, None) => TreeHead { size: 0, root: sigillo_model::tree::empty() },
            (None, Some(kept)) => {
                let checkpoint =
                    Note::parse(&kept.note).ok().and_then(|note| Some(self.trust.check(&note).ok()?.checkpoint));
                let Some(checkpoint) = checkpoint else {
                    return Err(Stop::Refused(
                        "the file `signed` is missing, and the newest checkpoint in the journal is not one of this log: bring \
                         the file back"
                            .into(),
                    ));
                };
                let event = Event::new("checkpoint.signed_missing")
                    .warning()
                    .body(
                        "the file that says what was signed last is missing: the newest checkpoint that the journal keeps is \
                         taken instead, and the witnesses are asked",
                    )
                    .number("size", checkpoint.size);
                self.parts.own.note(event).await;
                TreeHead { size: checkpoint.size, root: checkpoint.root }
            }
        };
        let head = self.parts.journal.head();
        if head.size < base.size {
            return Err(Stop::Refused(format!(
                "the journal holds {} records, but a checkpoint of {} was signed: this is the database of an earlier day. Bring \
                 back the newest one; if the records are lost, this origin ends, and a successor names it in its genesis",
                head.size, base.size
            )));
        }
        let reader = self.parts.journal.reader();
        let root = spawn_blocking(move || reader.root_at(base.size)).await??;
        if root != base.root {
            return Err(Stop::Refused(format!(
                "the journal's root at size {} is {root}, but {} was signed: this is another history. Keep the database as it \
                 is, and find out who made it",
                base.size, base.root
            )));
        }
        Ok(base)
    }

    /// Goes on publishing what was published before the start.
    pub(super) async fn serve_kept(&mut self) -> Result<(), Stop> {
        let place = self.parts.shelf.clone();
        let on_shelf = spawn_blocking(move || place.read()).await?;
        let reader = self.parts.journal.reader();
        let bytes = match on_shelf {
            Some(bytes) => Some(bytes),
            None => spawn_blocking(move || reader.newest_checkpoint()).await??.map(|kept| kept.note),
        };
        let Some(served) = bytes.and_then(|bytes| judge_kept(&self.trust, &bytes)) else { return Ok(()) };
        let (reader, size) = (self.parts.journal.reader(), served.size);
        if size > self.parts.journal.head().size {
            return Ok(());
        }
        // A journal of another history must not serve it. One that can't be read must: it was signed, and who asks would take its
        // absence for a rollback.
        let is_another = spawn_blocking(move || reader.root_at(size)).await?.is_ok_and(|root| root != served.root);
        if !is_another {
            self.parts.log.update(|standing| {
                standing.newest.get_or_insert_with(|| served.clone());
                standing.served = Some(served);
            });
        }
        Ok(())
    }

    /// Asks every witness what it knows, before anything new is signed.
    pub(super) async fn greet(&mut self, base: TreeHead) -> Result<(), Stop> {
        let missing = self.parts.signed.last().is_none() && base.size > 0;
        while !self.sign(base, false).await? {
            sleep(GRACE).await;
        }
        for (index, link) in std::mem::take(&mut self.parts.links) {
            let Some(witness) = self.trust.witnesses().get(index) else { continue };
            let witness = Witness::new(index, witness.key.clone(), link, self.parts.journal.reader(), base.size);
            tokio::spawn(witness.run(self.offers.subscribe(), self.outcomes_sender.clone()));
        }
        self.offer().await;
        let deadline = Instant::now() + self.parts.witness_timeout + GRACE;
        // Without the file that says what was signed, only the witnesses know: then a quorum of them must have answered.
        let unsure = missing && self.trust.asks_for_witnesses();
        while self.open.as_ref().is_some_and(|open| open.answers < self.witnesses.len() || (unsure && !open.met)) {
            match timeout_at(Instant::now() + GRACE, self.outcomes.recv()).await {
                Ok(Some(outcome)) => self.take(outcome).await?,
                Ok(None) => break,
                Err(_) if !unsure && Instant::now() > deadline => break,
                Err(_) => self.look_at_policy().await,
            }
        }
        Ok(())
    }
}
