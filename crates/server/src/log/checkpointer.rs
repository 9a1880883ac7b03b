//! The task that signs checkpoints and has them cosigned.
//!
//! While there is news a checkpoint is signed each interval. One at a time is offered to all witnesses; once the policy is met,
//! or all have answered, or time is up, the newest is. Cosignatures that come later still count.

mod start;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use sigillo_journal::{Journal, ReadError};
use sigillo_model::{
    note::{Note, Signature, SigningKey},
    policy::Policy,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    counters,
    shelf::Shelf,
    signed::{Signed, SignedError, TreeHead},
    state::{Log, Published, unix_now},
    witness_health::WitnessHealth,
    witnesses::{Offer, Outcome},
};
use crate::{
    health::Health,
    own::{Event, Own},
};

/// Cosigned checkpoints that may still get late cosignatures.
const ROUNDS_MAX: usize = 8;
/// An idle log has its newest checkpoint cosigned again so often: a quorum is then never older than 5 minutes.
const COSIGN_AGAIN_AFTER: Duration = Duration::from_secs(120);
/// Counters are recorded, and a checkpoint is kept for ever, so often at most.
const MINUTE: Duration = Duration::from_secs(60);
/// The policy is called unmet so long after a witness should have answered.
const GRACE: Duration = Duration::from_secs(1);

/// What a checkpointer works with.
pub(crate) struct Parts {
    /// What everybody sees.
    pub(crate) log: Arc<Log>,
    /// The journal.
    pub(crate) journal: Journal,
    /// Where own records go.
    pub(crate) own: Own,
    /// What the world is told.
    pub(crate) health: Health,
    /// The log's key.
    pub(crate) key: SigningKey,
    /// What was signed last.
    pub(crate) signed: Signed,
    /// Where the newest checkpoint is kept.
    pub(crate) shelf: Shelf,
    /// Between two checkpoints.
    pub(crate) interval: Duration,
    /// A witness must have answered within this.
    pub(crate) witness_timeout: Duration,
    /// The links to the witnesses of the trust file that have an address, with their places in it.
    pub(crate) links: Vec<(usize, sigillo_http::Link)>,
}

/// Why signing stops.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// Something contradicts what was signed before.
    #[error("{0}")]
    Refused(String),
    /// The journal can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file `signed` can't be used.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// A task has failed.
    #[error(transparent)]
    Task(#[from] JoinError),
}

/// A checkpoint that witnesses were asked to cosign.
#[derive(Debug)]
struct Round {
    head: TreeHead,
    note: Note,
    cosignatures: BTreeMap<usize, Signature>,
    /// The first offer of it: cosignatures of later ones say less about when it existed.
    first_offer: u64,
    /// It ends with a counters record.
    counters: bool,
    /// Cosignatures that the kept note has.
    kept: Option<usize>,
}

/// The offer that is under way.
#[derive(Debug)]
struct Open {
    number: u64,
    size: u64,
    since: Instant,
    answers: usize,
    met: bool,
}

pub(crate) struct Checkpointer {
    parts: Parts,
    trust: Policy,
    offers: watch::Sender<Option<Arc<Offer>>>,
    outcomes: mpsc::Receiver<Outcome>,
    outcomes_sender: mpsc::Sender<Outcome>,
    witnesses: BTreeMap<usize, WitnessHealth>,
    rounds: VecDeque<Round>,
    /// The newest that was signed, and whether it ends with counters.
    newest: Option<(TreeHead, Note, bool)>,
    open: Option<Open>,
    offered: u64,
    /// Since when what was signed or offered again waits for its quorum.
    waiting: Option<Instant>,
    counters: counters::Counters,
    kept_at: Option<Instant>,
}

impl Checkpointer {
    /// A checkpointer for the log of `parts`, by this trust file.
    pub(crate) fn new(parts: Parts, trust: Policy) -> Self {
        let (outcomes_sender, outcomes) = mpsc::channel(64);
        let name =
            |index: usize| trust.witnesses().get(index).map_or_else(String::new, |witness| witness.name.to_string());
        let witnesses = parts.links.iter().map(|(index, _)| (*index, WitnessHealth::new(name(*index)))).collect();
        Self {
            parts,
            trust,
            offers: watch::Sender::new(None),
            outcomes,
            outcomes_sender,
            witnesses,
            rounds: VecDeque::new(),
            newest: None,
            open: None,
            offered: 0,
            waiting: None,
            counters: counters::Counters::default(),
            kept_at: None,
        }
    }

    /// Signs until the server stops.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        let work = async {
            if let Err(stop) = self.work().await {
                self.refuse(&stop).await;
            }
            // What is published stays so; nothing new is signed until somebody has looked and started the server again.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = work => {}
        }
    }

    async fn work(&mut self) -> Result<(), Stop> {
        // First: what was published stays so, whatever is found now.
        self.serve_kept().await?;
        let base = self.base().await?;
        self.greet(base).await?;
        let mut tick = interval(self.parts.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.tick().await?,
                Some(outcome) = self.outcomes.recv() => self.take(outcome).await?,
            }
        }
    }

    async fn tick(&mut self) -> Result<(), Stop> {
        let last = self.newest.as_ref().map_or(0, |(head, ..)| head.size);
        let head = self.parts.journal.head();
        if head.size > last {
            let (head, counters) = self.news(TreeHead { size: head.size, root: head.root }).await?;
            self.sign(head, counters).await?;
        }
        if self.may_offer() {
            self.offer().await;
        }
        self.look_at_policy().await;
        Ok(())
    }

    /// What to sign next: the newest, or, once a minute, the state that a counters record speaks of.
    async fn news(&mut self, head: TreeHead) -> Result<(TreeHead, bool), Stop> {
        if !self.counters.due(head.size, MINUTE) {
            return Ok((head, false));
        }
        match self.counters.record(&self.parts.own).await {
            Ok(size) => {
                let reader = self.parts.journal.reader();
                let root = spawn_blocking(move || reader.root_at(size)).await??;
                Ok((TreeHead { size, root }, true))
            }
            Err(error) => {
                tracing::error!(%error, "the counters could not be recorded: the checkpoint comes without them");
                Ok((head, false))
            }
        }
    }

    /// Signs, once it is durable that this was signed. False if that can't be written now.
    async fn sign(&mut self, head: TreeHead, counters: bool) -> Result<bool, Stop> {
        let origin = self.parts.journal.origin().as_str().to_owned();
        let (mut signed, key) = (self.parts.signed.clone(), self.parts.key.clone());
        let made = spawn_blocking(move || {
            signed.advance(head)?;
            let checkpoint = sigillo_model::checkpoint::Checkpoint { origin, size: head.size, root: head.root };
            let text = checkpoint.text();
            let note = key.sign(&text).and_then(|signature| Note::new(text, vec![signature]));
            Ok::<_, SignedError>((signed, note))
        });
        let (signed, note) = match made.await? {
            Err(error @ SignedError::File { .. }) => {
                // A full disk passes; nothing was signed.
                tracing::error!(%error, "no checkpoint is signed");
                return Ok(false);
            }
            made => made?,
        };
        self.parts.signed = signed;
        let note = note.map_err(|error| Stop::Refused(error.to_string()))?;
        let newest = published(&note, head, false, None);
        self.parts.log.update(|standing| standing.newest = Some(newest));
        metrics::gauge!("sigillo_checkpoint_signed_size").set(precise(head.size));
        self.newest = Some((head, note, counters));
        self.waiting.get_or_insert_with(Instant::now);
        Ok(true)
    }

    /// Whether the witnesses are to be asked for something now.
    fn may_offer(&self) -> bool {
        let (Some(open), Some((newest, ..))) = (&self.open, &self.newest) else { return true };
        let age = open.since.elapsed();
        let done = open.met || open.answers >= self.witnesses.len() || age > self.parts.witness_timeout;
        (done && newest.size > open.size) || age > COSIGN_AGAIN_AFTER
    }

    /// Offers the newest checkpoint to all witnesses.
    async fn offer(&mut self) {
        let Some((head, note, counters)) = self.newest.clone() else { return };
        self.offered += 1;
        let number = self.offered;
        if self.rounds.back().is_none_or(|round| round.head != head) {
            if self.rounds.len() >= ROUNDS_MAX {
                self.rounds.pop_front();
            }
            let cosignatures = BTreeMap::new();
            let (note, first_offer) = (note.clone(), number);
            // The first offer repeats what an earlier server signed, and kept if it was to be: with times closer to its making.
            let kept = (number == 1).then_some(usize::MAX);
            self.rounds.push_back(Round { head, note, cosignatures, first_offer, counters, kept });
        }
        self.waiting.get_or_insert_with(Instant::now);
        self.open = Some(Open { number, size: head.size, since: Instant::now(), answers: 0, met: false });
        let offer = Arc::new(Offer { number, head, note });
        self.offers.send_replace(Some(Arc::clone(&offer)));
        // A policy that asks for no witness is met already.
        self.settle(&offer).await;
    }

    /// What a witness has answered.
    async fn take(&mut self, outcome: Outcome) -> Result<(), Stop> {
        let Outcome { witness, offer, result } = outcome;
        if let Some(open) = self.open.as_mut().filter(|open| open.number == offer.number) {
            open.answers += 1;
        }
        let Some(health) = self.witnesses.get_mut(&witness) else { return Ok(()) };
        let event = match &result {
            Ok(_) => health.cosigned(),
            Err(failure) => health.failed(failure),
        };
        let diverged = match &result {
            Err(failure) if failure.is_divergence() && !health.greeted => Some(format!(
                "the witness {} contradicts this log: {failure}. Bring back the newest database and the file `signed`; if the \
                 witness is wrong, take it out of the trust file; then start again",
                health.name()
            )),
            _ => None,
        };
        if let Some(event) = event {
            self.parts.own.note(event).await;
        }
        if let Some(reason) = diverged {
            return Err(Stop::Refused(reason));
        }
        if let Ok((cosignature, _)) = result {
            self.add(witness, &offer, cosignature).await;
        }
        Ok(())
    }

    /// Adds a cosignature, and publishes what meets the policy.
    async fn add(&mut self, witness: usize, offer: &Offer, cosignature: Signature) {
        let Some(round) = self.rounds.iter_mut().find(|round| round.head == offer.head) else { return };
        round.cosignatures.insert(witness, cosignature);
        self.settle(offer).await;
    }

    /// Judges the checkpoint of an offer, and publishes it if it meets the policy.
    async fn settle(&mut self, offer: &Offer) {
        let Some(round) = self.rounds.iter_mut().find(|round| round.head == offer.head) else { return };
        let Some(published) = judge(&self.trust, round) else { return };
        let (size, quorum) = (round.head.size, published.quorum);
        let earliest = offer.number == round.first_offer;
        let due = round.counters || self.kept_at.is_none_or(|at| at.elapsed() >= MINUTE);
        let more = round.kept.map_or(due, |kept| round.cosignatures.len() > kept);
        let keep = quorum && earliest && more && size > 0;
        if keep {
            round.kept = Some(round.cosignatures.len());
            self.kept_at = Some(Instant::now());
        }
        let served = quorum.then(|| published.clone());
        let note = Arc::clone(&published.note);
        self.parts.log.update(|standing| {
            if standing.newest.as_ref().is_some_and(|newest| newest.size == size) {
                standing.newest = Some(published);
            }
            if let Some(served) = served
                && standing.served.as_ref().is_none_or(|before| before.size <= size)
            {
                standing.served = Some(served);
            }
        });
        if !quorum {
            return;
        }
        self.rounds.retain(|round| round.head.size >= size);
        if let Some(open) = self.open.as_mut().filter(|open| open.number == offer.number) {
            open.met = true;
        }
        let newest = self.newest.as_ref().map_or(0, |(head, ..)| head.size);
        self.waiting = (size < newest).then(Instant::now);
        metrics::gauge!("sigillo_checkpoint_published_size").set(precise(size));
        let place = self.parts.shelf.clone();
        let on_shelf = Arc::clone(&note);
        match spawn_blocking(move || place.write(&on_shelf)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the newest checkpoint could not be put beside the database"),
            Err(error) => tracing::error!(%error, "the newest checkpoint could not be put beside the database"),
        }
        if keep && let Err(error) = self.parts.journal.keep_checkpoint(size, note.to_vec()).await {
            tracing::error!(%error, "a checkpoint could not be kept");
        }
    }

    /// Says once that the policy is not met, and once that it is again.
    async fn look_at_policy(&mut self) {
        let late = self.waiting.is_some_and(|since| since.elapsed() > self.parts.witness_timeout + GRACE);
        let standing = self.parts.log.watch().borrow().clone();
        let time = standing.served.as_ref().and_then(|served| served.quorum_time);
        if let Some(time) = time {
            metrics::gauge!("sigillo_checkpoint_quorum_age_seconds").set(precise(unix_now().saturating_sub(time)));
        }
        let since = match (late, standing.unmet_since) {
            (true, None) => Some(unix_now()),
            (false, Some(_)) => None,
            _ => return,
        };
        metrics::gauge!("sigillo_checkpoint_unmet_since_seconds").set(precise(since.unwrap_or(0)));
        self.parts.log.update(|standing| standing.unmet_since = since);
        let event = if since.is_some() {
            tracing::error!("the newest checkpoints are not cosigned as the policy asks; records are taken as before");
            Event::new("checkpoint.unmet").warning().body(
                "the newest checkpoints are not cosigned as the policy of witnesses asks; records are taken as before",
            )
        } else {
            tracing::info!("the newest checkpoint is cosigned as the policy asks");
            Event::new("checkpoint.met").body("the newest checkpoint is cosigned again as the policy of witnesses asks")
        };
        let size = standing.served.map_or(0, |served| served.size);
        self.parts.own.note(event.number("published_size", size)).await;
    }

    /// Signs nothing more.
    async fn refuse(&mut self, stop: &Stop) {
        let reason = stop.to_string();
        tracing::error!(reason, "NO MORE CHECKPOINTS ARE SIGNED; records are taken as before");
        metrics::gauge!("sigillo_checkpoint_refused").set(1);
        self.parts.health.no_checkpoints();
        self.parts.log.update(|standing| standing.refusal = Some(reason.as_str().into()));
        let event = Event::new("checkpoint.refused")
            .warning()
            .outcome(sigillo_proto::v1::Outcome::Failure)
            .body(format!("no more checkpoints are signed: {reason}"));
        self.parts.own.note(event).await;
    }
}

/// What a round amounts to under the policy.
fn judge(trust: &Policy, round: &Round) -> Option<Published> {
    let mut note = round.note.clone();
    for cosignature in round.cosignatures.values() {
        note.add(cosignature.clone()).ok()?;
    }
    // Our own signature is known to hold, and each cosignature was checked when it came.
    let judgement = trust.check(&note).ok()?;
    Some(published(&note, round.head, judgement.quorum, judgement.quorum_time))
}

fn published(note: &Note, head: TreeHead, quorum: bool, quorum_time: Option<u64>) -> Published {
    Published { note: note.to_bytes().into(), size: head.size, root: head.root, quorum, quorum_time }
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; exact up to 2^53")]
fn precise(number: u64) -> f64 {
    number as f64
}
