//! Holds a server to what it has said: the newest checkpoint is remembered and every later one must continue it, every receipt
//! must be signed, and what a receipt says must be in the tree of a later checkpoint.
//!
//! What does not hold is written down as a file that anybody can check, and the work with the server ends.

mod evidence;
mod memory;
mod pending;

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use sigillo_model::{
    checkpoint::Checkpoint,
    ids::{ChainHash, Epoch, NodeHash, Origin, SourceId, SourceSeq},
    misconduct::{Misconduct, continues},
    note::{Note, VerifierKey},
    policy::Policy,
    receipt::{Held, SignedReceipt},
};
use sigillo_proto::{receipt, v1};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use self::{evidence::write_down, memory::Memory, pending::Pending};
use crate::{ClientError, Connection, error::plain};

/// How soon a server is asked again that shows an older checkpoint than the one remembered.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Trust in one journal, and what is remembered of it.
#[derive(Debug)]
pub struct Guard {
    policy: Policy,
    receipt_keys: Vec<VerifierKey>,
    origin: String,
    dir: PathBuf,
    memory: Memory,
    grace: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    remembered: Option<Remembered>,
    behind: Option<Behind>,
    pending: Pending,
    /// Records of ours below this are proved to be covered by a checkpoint that meets the policy.
    covered: Option<(Epoch, SourceSeq)>,
    /// A checkpoint came since the receipts were last held against one.
    unchecked: bool,
}

/// The newest checkpoint that was shown and in order.
#[derive(Debug, Clone)]
struct Remembered {
    note: String,
    checkpoint: Checkpoint,
    quorum: bool,
}

/// The server shows less than is remembered.
#[derive(Debug)]
struct Behind {
    since: Instant,
    shown: Option<String>,
}

impl Guard {
    /// Reads the trust file, and what `dir` remembers of its journal. A server that shows an older checkpoint than the one remembered,
    /// or none, has `grace` to catch up, and is sent nothing until then.
    pub fn open(trust: &Path, dir: &Path, grace: Duration) -> Result<Self, ClientError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| ClientError::File {
            setting: "remember",
            path: dir.to_owned(),
            what: format!("can't be made: {error}"),
        })?;
        let wrong = |what: String| ClientError::File { setting: "trust", path: trust.to_owned(), what };
        let bytes = fs::read(trust).map_err(|error| wrong(format!("can't be read: {error}")))?;
        let policy = Policy::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
        let origin = policy.logs().first().map(|log| log.key.name().to_owned());
        let origin =
            origin.ok_or_else(|| wrong("names no log: add the `log` line that the journal's operator gives".into()))?;
        if policy.logs().iter().any(|log| log.key.name() != origin) {
            return Err(wrong("names several logs: give each journal a trust file of its own".into()));
        }
        let receipt_keys = policy.receipts().to_vec();
        let memory = Memory::new(dir, &origin);
        let mut state = State::default();
        if let Some(note) = memory.load()? {
            let path = memory.path().to_owned();
            let (checkpoint, quorum) = judge(&policy, &note).map_err(|what| ClientError::Remembered { path, what })?;
            state.remembered = Some(Remembered { note, checkpoint, quorum });
        }
        Ok(Self { policy, receipt_keys, origin, dir: dir.to_owned(), memory, grace, state: Mutex::new(state) })
    }

    /// The remembered checkpoint, for a hello; empty if there is none.
    pub fn remembered(&self) -> Bytes {
        self.state().remembered.as_ref().map(|remembered| remembered.note.clone().into()).unwrap_or_default()
    }

    /// Takes receipts that were kept from an earlier life. One that the trust file's keys don't bear out (any more) is nothing to hold
    /// against anybody, and is left out.
    pub fn hold(&self, receipts: impl IntoIterator<Item = SignedReceipt>) {
        let mut state = self.state();
        for receipt in receipts {
            match receipt.verify(&self.receipt_keys) {
                Ok(()) => state.pending.push(receipt),
                Err(error) => warn!(%error, epoch = %receipt.receipt.epoch, "a receipt that was kept is left out"),
            }
        }
    }

    /// The newest receipt of each epoch that no checkpoint which meets the policy has covered yet: to be kept.
    pub fn uncovered(&self) -> Vec<SignedReceipt> {
        self.state().pending.newest()
    }

    /// Up to where a checkpoint that meets the policy has been proved to cover what was acknowledged, since this guard was opened. What
    /// was acknowledged in earlier epochs is covered, too.
    pub fn covered(&self) -> Option<(Epoch, SourceSeq)> {
        self.state().covered
    }

    /// Whether receipts are verified and held against checkpoints: the trust file names a key for them.
    pub fn checks_receipts(&self) -> bool {
        !self.receipt_keys.is_empty()
    }

    /// Size and root of the newest checkpoint that is remembered.
    pub fn seen(&self) -> Option<(u64, NodeHash)> {
        self.state().remembered.as_ref().map(|remembered| (remembered.checkpoint.size, remembered.checkpoint.root))
    }

    /// Checks a receipt before what it acknowledges is let go. Without a receipt key in the trust file there is nothing to check.
    pub(crate) fn check_receipt(&self, welcome: &v1::Welcome, message: &v1::Receipt) -> Result<(), ClientError> {
        if self.receipt_keys.is_empty() {
            return Ok(());
        }
        let checked = self.signed_receipt(welcome, message).map_err(|what| ClientError::Receipt {
            epoch: message.epoch,
            first: message.first,
            what,
        })?;
        self.state().pending.push(checked);
        Ok(())
    }

    fn signed_receipt(&self, welcome: &v1::Welcome, message: &v1::Receipt) -> Result<SignedReceipt, String> {
        let origin = Origin::new(welcome.origin.as_str()).map_err(|error| error.to_string())?;
        let source = SourceId::from_slice(&welcome.source).ok_or("the welcome names no source")?;
        let signed = receipt::signed(message, &origin, source).map_err(|error| error.to_string())?;
        let signed = signed.ok_or("it is not signed, though the trust file names a key for receipts")?;
        signed.verify(&self.receipt_keys).map_err(|error| plain(&error.to_string()))?;
        Ok(signed)
    }

    /// Holds a welcome to what is remembered.
    pub(crate) fn welcome(&self, welcome: &v1::Welcome) -> Result<(), ClientError> {
        if welcome.origin != self.origin {
            return Err(ClientError::Checkpoint(format!(
                "journal {} answers, the trust file is for {}",
                plain(&welcome.origin),
                self.origin
            )));
        }
        self.shown(&welcome.checkpoint, &welcome.consistency)
    }

    /// Holds a checkpoint that came with its proof to what is remembered, and remembers it.
    pub(crate) fn shown<B: AsRef<[u8]>>(&self, note: &[u8], proof: &[B]) -> Result<(), ClientError> {
        let mut state = self.state();
        if note.is_empty() {
            self.is_behind(&mut state, None);
            return Ok(());
        }
        let unusable = |what: String| ClientError::Checkpoint(plain(&what));
        let note = std::str::from_utf8(note).map_err(|error| unusable(error.to_string()))?;
        let (checkpoint, quorum) = judge(&self.policy, note).map_err(unusable)?;
        // What is no list of hashes is no proof; kept as far as it goes.
        let proof: Vec<NodeHash> = receipt::hashes(proof).unwrap_or_default();
        if let Some(remembered) = &state.remembered {
            let old = &remembered.checkpoint;
            let pair = || (remembered.note.clone(), note.to_owned());
            if checkpoint.size < old.size {
                self.is_behind(&mut state, Some(note));
                return Ok(());
            }
            if checkpoint.size == old.size && checkpoint.root != old.root {
                let (remembered, shown) = pair();
                return Err(self.caught(&Misconduct::TwoRoots { remembered, shown }));
            }
            if checkpoint.size > old.size
                && let Err(error) = continues(old, &checkpoint, &proof)
            {
                error!(old_size = old.size, new_size = checkpoint.size, %error, "the proof of consistency fails");
                let (remembered, shown) = pair();
                return Err(self.caught(&Misconduct::NotContinued { remembered, shown, proof }));
            }
            if checkpoint.size == old.size && (remembered.quorum || !quorum) {
                state.behind = None;
                return Ok(());
            }
        }
        if let Err(error) = self.memory.keep(note) {
            // It is remembered as long as we live, and written with the next one.
            error!(path = %self.memory.path().display(), %error, "the newest checkpoint can't be kept");
        }
        if state.behind.take().is_some() {
            info!(size = checkpoint.size, "the server's checkpoint has caught up");
        }
        state.remembered = Some(Remembered { note: note.to_owned(), checkpoint, quorum });
        state.unchecked = true;
        Ok(())
    }

    /// Whether the server showed less than is remembered when it was heard last. Then it is sent nothing: what it took could stand on
    /// a history that is gone.
    pub(crate) fn shows_less(&self) -> bool {
        self.state().behind.is_some()
    }

    /// Waits until a server that shows less than is remembered is to be asked again; an error once its grace has ended.
    pub(crate) async fn bear(&self) -> Result<(), ClientError> {
        let since = self.state().behind.as_ref().map(|behind| behind.since);
        let (Some(since), now) = (since, Instant::now()) else { return Ok(()) };
        let deadline = since + self.grace;
        if now >= deadline {
            return Err(self.overdue());
        }
        sleep_until(deadline.min(now + LOOK_AGAIN)).await;
        Ok(())
    }

    fn overdue(&self) -> ClientError {
        let (remembered, shown) = {
            let state = self.state();
            let remembered = state.remembered.as_ref().map(|remembered| remembered.note.clone());
            (remembered.unwrap_or_default(), state.behind.as_ref().and_then(|behind| behind.shown.clone()))
        };
        self.caught(&Misconduct::RolledBack { remembered, shown })
    }

    /// Begins the grace of a server that shows less than is remembered, or goes on with it.
    fn is_behind(&self, state: &mut State, shown: Option<&str>) {
        let Some(remembered) = state.remembered.as_ref().map(|remembered| remembered.checkpoint.size) else { return };
        let shown = shown.map(ToOwned::to_owned);
        if let Some(behind) = &mut state.behind {
            behind.shown = shown;
        } else {
            let size =
                shown.as_deref().and_then(|note| judge(&self.policy, note).ok()).map(|(checkpoint, _)| checkpoint.size);
            warn!(
                remembered,
                shown = size,
                "the server shows an older checkpoint than the one remembered, or none; it is waited for"
            );
            state.behind = Some(Behind { since: Instant::now(), shown });
        }
    }

    /// Asks a server for its newest checkpoint and holds it to what is remembered: for commands that open no stream of batches.
    pub async fn look(&self, connection: &Connection) -> Result<(), ClientError> {
        loop {
            let shown = connection.newest_checkpoint().await?;
            let old = self.state().remembered.as_ref().map_or(0, |remembered| remembered.checkpoint.size);
            let proof = match &shown {
                Some(shown) if old > 0 && shown.size > old => connection.consistency(old, shown.size).await?.hashes,
                _ => Vec::new(),
            };
            self.shown(&shown.map(|shown| shown.note).unwrap_or_default(), &proof)?;
            if !self.shows_less() {
                return Ok(());
            }
            self.bear().await?;
        }
    }

    /// Whether receipts are to be held against the newest checkpoint.
    pub(crate) fn has_due(&self) -> bool {
        let state = self.state();
        let size = state.remembered.as_ref().map_or(0, |remembered| remembered.checkpoint.size);
        state.unchecked && !state.pending.due(size).is_empty()
    }

    /// Holds the newest receipts that the newest checkpoint covers against it. A server that can't or won't prove is asked again with
    /// the next checkpoint.
    pub(crate) async fn check_due(&self, connection: &Connection) -> Result<(), ClientError> {
        let Some((remembered, due)) = self.take_due() else { return Ok(()) };
        let size = remembered.checkpoint.size;
        let result = self.check_against(connection, &remembered, due).await;
        // Only now: a check that is dropped half way, with its stream, is made again on the next one.
        let mut state = self.state();
        state.unchecked &= state.remembered.as_ref().is_none_or(|newest| newest.checkpoint.size != size);
        result
    }

    async fn check_against(
        &self,
        connection: &Connection,
        remembered: &Remembered,
        due: Vec<SignedReceipt>,
    ) -> Result<(), ClientError> {
        let size = remembered.checkpoint.size;
        for receipt in due {
            let Some(last) = receipt.receipt.last() else { continue };
            match connection.inclusion(last.get(), size).await {
                Ok(answer) => self.check_inclusion(remembered, receipt, &answer)?,
                Err(error) => {
                    warn!(%error, sequence = last.get(), size, "the server does not prove that it holds what its receipt says");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn take_due(&self) -> Option<(Remembered, Vec<SignedReceipt>)> {
        let state = self.state();
        let remembered = state.remembered.clone()?;
        let due = state.pending.due(remembered.checkpoint.size);
        Some((remembered, due))
    }

    fn check_inclusion(
        &self,
        remembered: &Remembered,
        receipt: SignedReceipt,
        answer: &v1::Proof,
    ) -> Result<(), ClientError> {
        let Remembered { note, checkpoint, quorum } = remembered;
        let proof: Vec<NodeHash> = receipt::hashes(&answer.hashes).unwrap_or_default();
        let entry = ChainHash::from_slice(&answer.entry).unwrap_or(receipt.receipt.chain);
        match receipt.against(checkpoint, &entry, &proof) {
            Ok(Held::Kept) => {
                if *quorum {
                    let end = receipt.receipt.first.checked_add(receipt.receipt.count.into());
                    let mut state = self.state();
                    state.covered = state.covered.max(end.map(|end| (receipt.receipt.epoch, end)));
                    state.pending.proved(&receipt);
                }
                Ok(())
            }
            Ok(Held::Contradicted) => {
                let checkpoint = note.clone();
                Err(self.caught(&Misconduct::ReceiptContradicted {
                    receipt: Box::new(receipt),
                    checkpoint,
                    entry,
                    proof,
                }))
            }
            Err(error) => {
                error!(%error, size = checkpoint.size, "the server's proof that it holds what its receipt says is not valid");
                Ok(())
            }
        }
    }

    /// Writes misconduct down and shouts.
    fn caught(&self, misconduct: &Misconduct) -> ClientError {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let evidence = match write_down(&self.dir, seconds, misconduct) {
            Ok(path) => Some(path),
            Err(error) => {
                let text = misconduct.to_text(seconds);
                error!(dir = %self.dir.display(), %error, evidence = text, "the misconduct can't be written down");
                None
            }
        };
        let file = evidence.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        error!(origin = self.origin, evidence = file, "{misconduct}");
        ClientError::Misconduct {
            what: misconduct.to_string(),
            stale: matches!(misconduct, Misconduct::RolledBack { .. }),
            evidence,
            remembered: self.memory.path().to_owned(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The checkpoint of a note that the trust file's log has signed, and whether its quorum is met.
fn judge(policy: &Policy, note: &str) -> Result<(Checkpoint, bool), String> {
    let note = Note::parse(note.as_bytes()).map_err(|error| error.to_string())?;
    let judgement = policy.check(&note).map_err(|error| error.to_string())?;
    Ok((judgement.checkpoint, judgement.quorum))
}
