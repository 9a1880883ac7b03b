//! What is said to one witness, by the protocol `c2sp.org/tlog-witness`. Whatever it answers, or doesn't, concerns no other.

use std::{sync::Arc, time::Duration};

use sigillo_http::{Answer, HttpError, Link};
use sigillo_journal::Reader;
use sigillo_model::{
    add_checkpoint::{AddCheckpoint, PROOF_MAX_HASHES, SIZE_CONTENT_TYPE},
    ids::NodeHash,
    note::{Note, Signature, VerifierKey},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{signed::TreeHead, state::unix_now};

/// Most bytes of an answer: 64 signature lines.
const ANSWER_MAX_BYTES: usize = 16 << 10;
/// How often a witness may name another size before it is taken for one that never agrees.
const TRIES: u32 = 3;
/// How far a witness's clock may be from ours. A cosignature from the future would never become stale.
const CLOCK_OFF_MAX_S: u64 = 300;
/// The first pause after a failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A checkpoint that is offered to every witness.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Grows with each offer, also with those of the same checkpoint.
    pub(crate) number: u64,
    /// What it states.
    pub(crate) head: TreeHead,
    /// Text and our signature.
    pub(crate) note: Note,
}

/// Why there is no cosignature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// No answer, or not a whole one.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It does not take what it was sent.
    #[error("it answers with status {status}: {meaning}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What that says by the protocol.
        meaning: &'static str,
    },
    /// It knows a greater size of this log than was ever signed.
    #[error("it says that it knows this log at size {size}, which was never signed here")]
    Ahead {
        /// Which.
        size: u64,
    },
    /// It knows another root at a size.
    #[error("it says that it knows another history of this log up to size {size}")]
    OtherHistory {
        /// Which.
        size: u64,
    },
    /// It names one size after the other.
    #[error("it names another size each time that it is asked")]
    Restless,
    /// What it sent as a cosignature is none of its.
    #[error("its cosignature does not hold: {0}")]
    Signature(String),
    /// Its clock is wrong, or ours.
    #[error(
        "its cosignature is of {time} (seconds since 1970), which differs from this server's clock by more than 5 minutes"
    )]
    Clock {
        /// The time.
        time: u64,
    },
    /// The proof that it needs can't be made.
    #[error("the proof for it can't be made: {0}")]
    Proof(String),
}

impl Failure {
    /// Whether the witness and this log can't both be right about the history.
    pub(crate) fn is_divergence(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::OtherHistory { .. })
    }

    /// Whether it only was not there.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Http(HttpError::Connect { .. } | HttpError::Timeout { .. } | HttpError::Broken { .. }))
    }

    /// A word for metrics and records.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Http(HttpError::TooLarge { .. }) => "too large an answer",
            Self::Http(_) => "no answer",
            Self::Refused { .. } => "refused",
            Self::Ahead { .. } => "ahead",
            Self::OtherHistory { .. } => "another history",
            Self::Restless => "never agrees",
            Self::Signature(_) => "bad cosignature",
            Self::Clock { .. } => "clock",
            Self::Proof(_) => "no proof",
        }
    }
}

/// What became of an offer.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Index of the witness in the trust file.
    pub(crate) witness: usize,
    /// Which offer.
    pub(crate) offer: Arc<Offer>,
    /// The cosignature and its time, or why there is none.
    pub(crate) result: Result<(Signature, u64), Failure>,
}

/// One witness.
#[derive(Debug)]
pub(crate) struct Witness {
    index: usize,
    key: VerifierKey,
    link: Link,
    reader: Reader,
    /// The size that it cosigned last, as far as we know.
    known: u64,
}

impl Witness {
    /// The witness behind `link`, which probably cosigned size `known` last.
    pub(crate) fn new(index: usize, key: VerifierKey, link: Link, reader: Reader, known: u64) -> Self {
        Self { index, key, link, reader, known }
    }

    /// Submits each offer, or the newest of those that came meanwhile; after a failure the same again, later. Ends when
    /// nobody offers or listens any more.
    pub(crate) async fn run(
        mut self,
        mut offers: watch::Receiver<Option<Arc<Offer>>>,
        outcomes: mpsc::Sender<Outcome>,
    ) {
        let mut pause = None;
        loop {
            let offer = offers.borrow_and_update().clone();
            if let Some(offer) = offer {
                let result = self.submit(&offer).await;
                pause = match &result {
                    Ok(_) => None,
                    Err(_) => Some(pause.map_or(PAUSE_MIN, |pause: Duration| (pause * 2).min(PAUSE_MAX))),
                };
                if outcomes.send(Outcome { witness: self.index, offer, result }).await.is_err() {
                    return;
                }
            }
            match pause {
                Some(pause) => sleep(pause).await,
                None => {
                    if offers.changed().await.is_err() {
                        return;
                    }
                }
            }
            if offers.has_changed().is_err() {
                return;
            }
        }
    }

    async fn submit(&mut self, offer: &Offer) -> Result<(Signature, u64), Failure> {
        let size = offer.head.size;
        for _ in 0..TRIES {
            let old = self.known;
            if old > size {
                return Err(Failure::Ahead { size: old });
            }
            let proof = self.proof(old, size).await?;
            let request = AddCheckpoint { old_size: old, proof, checkpoint: offer.note.clone() };
            let answer = self.link.post("add-checkpoint", request.to_string().into(), ANSWER_MAX_BYTES).await?;
            match answer.status {
                200 => {
                    let cosignature = cosignature(&self.key, &offer.note, &answer.body, unix_now())?;
                    self.known = size;
                    return Ok(cosignature);
                }
                409 => match conflict(&answer) {
                    // It names the size that was sent, or none although the sizes are the same: then the roots differ.
                    Some(named) if named == old => return Err(Failure::OtherHistory { size: old }),
                    None if old == size => return Err(Failure::OtherHistory { size: old }),
                    Some(named) => self.known = named,
                    None => return Err(Failure::Refused { status: 409, meaning: "it names no size" }),
                },
                422 if old > 0 => return Err(Failure::OtherHistory { size: old }),
                status => return Err(Failure::Refused { status, meaning: meaning(status) }),
            }
            if self.known > size {
                let named = self.known;
                // What it says is asked again next time, not taken as known.
                self.known = old;
                return Err(Failure::Ahead { size: named });
            }
        }
        Err(Failure::Restless)
    }

    async fn proof(&self, old: u64, size: u64) -> Result<Vec<NodeHash>, Failure> {
        if old == 0 || old == size {
            return Ok(Vec::new());
        }
        let reader = self.reader.clone();
        let made = tokio::task::spawn_blocking(move || reader.consistency(old, size)).await;
        let unmade = |error: &dyn ToString| Failure::Proof(error.to_string());
        let proof = made.map_err(|error| unmade(&error))?.map_err(|error| unmade(&error))?;
        if proof.len() > PROOF_MAX_HASHES {
            return Err(Failure::Proof(format!("it has {} hashes", proof.len())));
        }
        Ok(proof)
    }
}

/// The cosignature that `key` made, among the lines of an answer.
fn cosignature(key: &VerifierKey, note: &Note, body: &[u8], now: u64) -> Result<(Signature, u64), Failure> {
    let wrong = |what: &dyn ToString| Failure::Signature(what.to_string());
    let text = std::str::from_utf8(body).map_err(|error| wrong(&error))?;
    let lines = text.lines().map(|line| Signature::parse(line).ok_or_else(|| wrong(&"a line is not a signature")));
    let signatures = lines.collect::<Result<Vec<_>, _>>()?;
    let cosigned = Note::new(note.text(), signatures).map_err(|error| wrong(&error))?;
    let verified = cosigned.verify(std::slice::from_ref(key)).map_err(|error| wrong(&error))?;
    let time = verified.first().and_then(|verified| verified.time).ok_or_else(|| wrong(&"it carries no time"))?;
    let is_its = |signature: &&Signature| signature.name() == key.name() && signature.id() == key.id();
    let signature = cosigned.signatures().iter().find(is_its).ok_or_else(|| wrong(&"it is not there"))?;
    if now.abs_diff(time) > CLOCK_OFF_MAX_S {
        return Err(Failure::Clock { time });
    }
    Ok((signature.clone(), time))
}

/// The size that a witness names.
fn conflict(answer: &Answer) -> Option<u64> {
    let kind = answer.content_type.as_deref()?;
    if kind.split(';').next()?.trim() != SIZE_CONTENT_TYPE {
        return None;
    }
    let text = std::str::from_utf8(&answer.body).ok()?;
    let digits = text.strip_suffix('\n').unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "it finds the request malformed",
        403 => "it knows another key of this log",
        404 => "it does not know this log: its operator must add the log's key",
        422 => "it does not take the proof",
        429 | 503 => "it has too much to do",
        _ => "the protocol does not know it",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sigillo_model::note::{KeyKind, SigningKey};

    use super::*;

    fn key(name: &str, kind: KeyKind, seed: u8) -> SigningKey {
        SigningKey::from_seed(name, kind, &[seed; 32]).unwrap()
    }

    fn note() -> Note {
        let log = key("log.example", KeyKind::Log, 1);
        let text = "log.example\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        Note::new(text, vec![log.sign(text).unwrap()]).unwrap()
    }

    #[test]
    fn a_cosignature_is_taken_from_the_right_key_and_time_only() {
        let (note, witness) = (note(), key("w.example", KeyKind::Cosigner, 2));
        let lines = witness.cosign(note.text(), 1_000).unwrap().to_string();
        let of = |body: &str, now| cosignature(witness.verifier(), &note, body.as_bytes(), now);
        assert_eq!(of(&lines, 1_300).unwrap().1, 1_000);
        // Beside that of another key, which is none of our business.
        let other = key("w2.example", KeyKind::Cosigner, 3);
        let both = format!("{}{lines}", other.cosign(note.text(), 1_000).unwrap());
        assert_eq!(of(&both, 700).unwrap().1, 1_000);
        for now in [1_301, 699] {
            assert_eq!(of(&lines, now).unwrap_err(), Failure::Clock { time: 1_000 });
        }
        let forged = key("w.example", KeyKind::Cosigner, 2).cosign("another text\n", 1_000).unwrap().to_string();
        let stranger = other.cosign(note.text(), 1_000).unwrap().to_string();
        for bad in [&forged, &stranger, "", "nonsense\n", "\u{2014} w.example AAAA\n", &lines[..lines.len() - 9]] {
            assert!(matches!(of(bad, 1_000), Err(Failure::Signature(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_size_is_read_only_where_it_is_said_to_be_one() {
        let answer = |kind: Option<&str>, body: &str| Answer {
            status: 409,
            content_type: kind.map(str::to_owned),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        assert_eq!(conflict(&answer(Some("text/x.tlog.size"), "42\n")), Some(42));
        assert_eq!(conflict(&answer(Some("text/x.tlog.size; charset=utf-8"), "0")), Some(0));
        for (kind, body) in [
            (Some("text/plain"), "42\n"),
            (None, "42\n"),
            (Some("text/x.tlog.size"), "-1\n"),
            (Some("text/x.tlog.size"), ""),
            (Some("text/x.tlog.size"), "99999999999999999999\n"),
        ] {
            assert_eq!(conflict(&answer(kind, body)), None, "{kind:?} {body:?}");
        }
    }
}
