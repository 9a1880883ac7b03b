//! The verdict over a journal that was walked whole: what a trust file, the checkpoints that are remembered or shown, and the time say
//! about it.

use crate::audit::{Finding, Holder, Judged, Trust};

/// A newest quorum older than this is stale, never intact. Seconds.
pub const STALE_AFTER_S: u64 = 600;
/// A quorum's time may be so far ahead of the verifier's clock. Seconds.
const AHEAD_MAX_S: u64 = 300;

/// What is to be thought of a journal whose records are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing contradicts it, and it is as new as it should be.
    Intact,
    /// As [`Verdict::Intact`], but no checkpoint has the cosignatures that the trust file asks for.
    Unmet,
    /// What was walked is in order, and it is not the newest that there is, or can't be shown to be.
    Stale(Stale),
    /// It is not what was signed.
    Altered(Finding),
}

/// How a journal is not the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stale {
    /// Somebody holds a signed checkpoint of more records than there are.
    Shorter {
        /// Records that were walked.
        have: u64,
        /// Records that there were once.
        known: u64,
        /// Who holds the checkpoint.
        by: Holder,
    },
    /// The newest quorum vouches for a time that is too long ago, or in the future.
    Old {
        /// Records that were walked.
        have: u64,
        /// Records of the newest checkpoint with a quorum.
        known: u64,
        /// For which the quorum vouches, seconds since 1970.
        time: u64,
        /// The verifier's clock.
        now: u64,
    },
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shorter { have, known, by } => write!(
                f,
                "the journal has {have} records, but {by} shows that there were {known}: an older state was put in its place, or this \
                 is a copy of an earlier day"
            ),
            Self::Old { time, now, .. } if time > now => write!(
                f,
                "the newest quorum is of a time {} s ahead of this clock: one of the clocks is wrong, so that nothing can be said \
                 about how new the journal is",
                time - now
            ),
            Self::Old { known, time, now, .. } => write!(
                f,
                "the newest quorum of witnesses, for {known} records, is {} s old; after {STALE_AFTER_S} s nobody but the provider \
                 vouches that these are all records",
                now - time
            ),
        }
    }
}

/// A verdict, and what a person should know with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The checkpoint to remember: the greatest that meets the policy, if any.
    pub accepted: Option<Judged>,
    /// Reasons and remarks, a sentence each.
    pub remarks: Vec<String>,
}

/// Judges a journal after a walk over `walked` records that found nothing. `now`: seconds since 1970.
pub fn judge(trust: &mut Trust, walked: u64, now: u64) -> Outcome {
    let beyond = trust.beyond();
    let mut remarks = trust.remarks().to_vec();
    let accepted = trust.cosigned().cloned();
    let verdict = match beyond {
        Err(finding) => Verdict::Altered(finding),
        Ok(Some((known, by))) => Verdict::Stale(Stale::Shorter { have: walked, known, by }),
        Ok(None) => age(trust, walked, now),
    };
    remarks.extend(coverage(trust, walked));
    Outcome { verdict, accepted, remarks }
}

fn age(trust: &Trust, walked: u64, now: u64) -> Verdict {
    let Some(cosigned) = trust.cosigned() else {
        return if trust.policy().asks_for_witnesses() { Verdict::Unmet } else { Verdict::Intact };
    };
    match trust.quorum_time() {
        Some(time) if now > time.saturating_add(STALE_AFTER_S) || time > now.saturating_add(AHEAD_MAX_S) => {
            Verdict::Stale(Stale::Old { have: walked, known: cosigned.checkpoint.size, time, now })
        }
        _ => Verdict::Intact,
    }
}

/// How far checkpoints cover what was walked.
fn coverage(trust: &Trust, walked: u64) -> Vec<String> {
    let size = |judged: Option<&Judged>| judged.map_or(0, |judged| judged.checkpoint.size);
    let (signed, cosigned) = (size(trust.newest()), size(trust.cosigned()));
    let mut told = Vec::new();
    if trust.newest().is_none() {
        told.push(
            "no checkpoint covers the records: that nobody has written all of them anew rests on the provider's word"
                .to_owned(),
        );
    } else if signed < walked {
        told.push(format!("records from {signed} on are not yet under a checkpoint"));
    }
    if cosigned < signed && trust.policy().asks_for_witnesses() {
        let from =
            if cosigned == 0 { "no record is".to_owned() } else { format!("records from {cosigned} on are not") };
        told.push(format!("{from} under a checkpoint with the quorum that the trust file asks for"));
    }
    told
}
