//! What a sender is told of checkpoints: the newest one, and that it continues the one that the sender remembers.

use std::time::Duration;

use sigillo_model::{checkpoint::Checkpoint, note::Note};
use sigillo_proto::v1::{self, CheckpointState};

use tonic::Status;

use crate::log::{Published, Resources};

/// How often a stream is told of a newer checkpoint, at most.
pub(super) const NEWS_EVERY: Duration = Duration::from_secs(3);

/// The checkpoint that a sender holds us to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    size: u64,
    quorum: bool,
}

/// A checkpoint on its way to a sender.
pub(super) struct Shown {
    pub(super) note: Vec<u8>,
    pub(super) consistency: Vec<bytes::Bytes>,
    pub(super) told: Told,
}

/// The newest checkpoint for a sender that says to remember this one.
///
/// Without the proof the sender would take us for a fork, so where none can be made the stream ends instead.
pub(super) async fn welcome(resources: &Resources, origin: &str, remembered: &[u8]) -> Result<Shown, Status> {
    let remembered = Told { size: size_of(origin, remembered), quorum: true };
    let Some(newest) = resources.log().newest() else {
        return Ok(Shown { note: Vec::new(), consistency: Vec::new(), told: remembered });
    };
    show(resources, remembered, &newest).await.ok_or_else(|| {
        Status::unavailable(
            "the journal can't show that it continues the checkpoint you remember: its operator must act",
        )
    })
}

/// What a sender that was told this much should know now.
pub(super) async fn news(resources: &Resources, told: Told) -> Option<Shown> {
    let next = next(resources, told)?;
    show(resources, told, &next).await
}

/// The newest checkpoint that meets the policy; while the policy is not met, the newest at all.
fn next(resources: &Resources, told: Told) -> Option<Published> {
    let log = resources.log();
    let is_news = |published: &Published| {
        published.size > told.size || (published.size == told.size && published.quorum && !told.quorum)
    };
    let met = log.state() == CheckpointState::Met;
    log.served().filter(is_news).or_else(|| log.newest().filter(|newest| !met && is_news(newest)))
}

async fn show(resources: &Resources, told: Told, published: &Published) -> Option<Shown> {
    let consistency = if told.size > 0 && published.size > told.size {
        let proof = resources.consistency(told.size, published.size).await;
        let proof = proof.inspect_err(|error| tracing::error!(%error, "no proof of consistency can be made")).ok()?;
        proof.iter().map(|hash| bytes::Bytes::copy_from_slice(hash.as_bytes())).collect()
    } else {
        Vec::new()
    };
    let told = if published.size >= told.size { Told { size: published.size, quorum: published.quorum } } else { told };
    Some(Shown { note: published.note.to_vec(), consistency, told })
}

/// Size of the checkpoint that a sender shows us; 0 for none, or for one of another journal. What the sender makes of our answer is its
/// own affair, so its signatures don't matter here.
fn size_of(origin: &str, note: &[u8]) -> u64 {
    let checkpoint = Note::parse(note).ok().and_then(|note| Checkpoint::parse_own(note.text()).ok());
    checkpoint.filter(|checkpoint| checkpoint.origin == origin).map_or(0, |checkpoint| checkpoint.size)
}

impl From<Shown> for v1::CheckpointNews {
    fn from(shown: Shown) -> Self {
        Self { checkpoint: shown.note.into(), consistency: shown.consistency }
    }
}
