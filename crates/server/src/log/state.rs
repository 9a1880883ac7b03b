//! What the rest of the server may know of the log: the newest checkpoints, and how they stand.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use sigillo_model::{ids::NodeHash, note::SigningKey, policy::Policy};
use sigillo_proto::v1::CheckpointState;
use tokio::sync::watch;

/// A quorum older than this is stale: whoever needs to know where the log stands *now* can't take it for an answer.
const STALE_AFTER_S: u64 = 600;

/// A checkpoint that was signed.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// The note, with the cosignatures there are.
    pub(crate) note: Arc<[u8]>,
    /// Number of records.
    pub(crate) size: u64,
    /// Root over them.
    pub(crate) root: NodeHash,
    /// The cosignatures meet the policy.
    pub(crate) quorum: bool,
    /// The time that the quorum vouches for, seconds since 1970.
    pub(crate) quorum_time: Option<u64>,
}

/// Everything that changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// The newest that was signed.
    pub(crate) newest: Option<Published>,
    /// The newest that meets the policy: what is published.
    pub(crate) served: Option<Published>,
    /// Since when the policy is not met, seconds since 1970.
    pub(crate) unmet_since: Option<u64>,
    /// Why nothing is signed any more.
    pub(crate) refusal: Option<Arc<str>>,
}

/// The log, as everybody sees it. Shared.
#[derive(Debug)]
pub(crate) struct Log {
    keys: Option<Keys>,
    standing: watch::Sender<Standing>,
}

#[derive(Debug)]
struct Keys {
    trust: Policy,
    receipt: SigningKey,
}

impl Log {
    /// A log with this trust file, which signs receipts with `receipt`.
    pub(crate) fn new(trust: Policy, receipt: SigningKey) -> Self {
        Self { keys: Some(Keys { trust, receipt }), standing: watch::Sender::default() }
    }

    /// A server without checkpoints.
    pub(crate) fn disabled() -> Self {
        Self { keys: None, standing: watch::Sender::default() }
    }

    /// The newest checkpoint that was signed.
    pub(crate) fn newest(&self) -> Option<Published> {
        self.standing.borrow().newest.clone()
    }

    /// The newest checkpoint that meets the policy.
    pub(crate) fn served(&self) -> Option<Published> {
        self.standing.borrow().served.clone()
    }

    /// Size of the newest checkpoint that meets the policy; nothing beyond it is published.
    pub(crate) fn served_size(&self) -> u64 {
        self.standing.borrow().served.as_ref().map_or(0, |served| served.size)
    }

    /// Changes with each checkpoint, each cosignature, and with the state.
    pub(crate) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The trust file in effect.
    pub(crate) fn trust(&self) -> Option<&Policy> {
        self.keys.as_ref().map(|keys| &keys.trust)
    }

    /// The key that signs receipts.
    pub(crate) fn receipt_key(&self) -> Option<&SigningKey> {
        self.keys.as_ref().map(|keys| &keys.receipt)
    }

    /// How the log stands now.
    pub(crate) fn state(&self) -> CheckpointState {
        self.standing.borrow().state(unix_now())
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(change);
    }
}

impl Standing {
    fn state(&self, now: u64) -> CheckpointState {
        let Some(served) = &self.served else {
            return match self.unmet_since {
                Some(since) if now.saturating_sub(since) > STALE_AFTER_S => CheckpointState::Stale,
                _ if self.newest.is_none() && self.refusal.is_none() => CheckpointState::None,
                _ => CheckpointState::Unmet,
            };
        };
        if served.quorum_time.is_some_and(|time| now.saturating_sub(time) > STALE_AFTER_S) {
            CheckpointState::Stale
        } else if self.unmet_since.is_some() || self.refusal.is_some() {
            CheckpointState::Unmet
        } else {
            CheckpointState::Met
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(quorum_time: Option<u64>) -> Published {
        Published { note: Arc::from([]), size: 1, root: NodeHash::new([0; 32]), quorum: true, quorum_time }
    }

    #[test]
    fn a_state_says_how_fresh_the_quorum_is() {
        let mut standing = Standing::default();
        assert_eq!(standing.state(5_000), CheckpointState::None);
        standing.newest = Some(published(None));
        assert_eq!(standing.state(5_000), CheckpointState::Unmet);
        standing.unmet_since = Some(4_000);
        assert_eq!(standing.state(5_000), CheckpointState::Stale);
        standing.unmet_since = None;
        standing.served = Some(published(Some(4_400)));
        assert_eq!(standing.state(5_000), CheckpointState::Met);
        assert_eq!(standing.state(5_001), CheckpointState::Stale);
        standing.unmet_since = Some(4_990);
        assert_eq!(standing.state(5_000), CheckpointState::Unmet);
        // Nobody vouches for a time when the policy asks for no witness.
        standing.served = Some(published(None));
        standing.unmet_since = None;
        assert_eq!(standing.state(5_000), CheckpointState::Met);
        standing.refusal = Some("another history".into());
        assert_eq!(standing.state(5_000), CheckpointState::Unmet);
    }
}
