//! Walking a journal, on the disk or over the wire.

use std::path::Path;

use indicatif::ProgressBar;
use sigillo_client::{ClientError, Code, Connection};
use sigillo_journal::verify::{Demands, VerifyError, verify_demanding};
use sigillo_model::{
    audit::{Fault, Finding, Holder, Removed, Shown, Trust, Walker},
    ids::{ChainHash, NodeHash, Origin},
    proof::verify_consistency,
    state::JournalState,
};
use sigillo_proto::{
    head::head_origin,
    receipt::hashes,
    v1::{self, walk_response::Message},
};

use super::views;
use crate::{commands::head::chain_hash, failure::Failure};

/// A journal whose records are in order.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) origin: Origin,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) chain: ChainHash,
    pub(super) root: NodeHash,
    pub(super) trust: Option<Trust>,
    /// What is gone, and lawfully so.
    pub(super) removed: Removed,
}

/// Why a walk did not come to a good end.
#[derive(Debug)]
pub(super) enum Stopped {
    Altered(Finding),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Walks a journal whose server is stopped.
pub(super) fn local(dir: &Path, demands: Demands, bar: &ProgressBar) -> Result<Walked, Stopped> {
    let progress = |progress: sigillo_journal::verify::Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.records);
    };
    match verify_demanding(dir, demands, progress) {
        Ok(report) => Ok(Walked {
            origin: report.origin,
            records: report.records,
            bytes: report.raw_bytes,
            chain: report.head.chain,
            root: report.head.root,
            trust: report.trust,
            removed: report.removed,
        }),
        Err(VerifyError::Altered(finding)) => Err(Stopped::Altered(finding)),
        Err(VerifyError::Unreadable(what)) => Err(Stopped::Failed(Failure::Unreadable(what))),
    }
}

/// The checkpoints that the server shows: the newest that it signed, and the newest that is cosigned as its policy asks.
pub(super) async fn served(connection: &Connection, origin: &str) -> Result<(Vec<Shown>, Vec<String>), Failure> {
    let (mut shown, mut missing) = (Vec::new(), Vec::new());
    for checkpoint in
        [connection.newest_checkpoint().await?, connection.served_checkpoint().await?].into_iter().flatten()
    {
        match views::read(&checkpoint.note, Holder::Server, origin) {
            Ok(note) => shown.push(note),
            Err(what) => missing.push(format!("the checkpoint that the server shows can't be read: {what}")),
        }
    }
    Ok((shown, missing))
}

/// Walks on from where `walker` stands to the server's head of now. `state` on a new walk is genesis.
pub(super) async fn on(
    connection: &Connection,
    walker: &mut Walker,
    reason: &str,
    mut step: impl FnMut(&Walker, u64) -> Result<(), Failure>,
) -> Result<u64, Stopped> {
    let from = walker.state().size;
    let mut responses = connection.walk(v1::WalkRequest { from, to: 0, reason: reason.to_owned() }).await?;
    let Some(Message::Start(start)) = responses.next().await?.and_then(|response| response.message) else {
        return Err(unreadable("the server did not begin its walk with a start"));
    };
    let head = start.head.unwrap_or_default();
    let (size, chain) = (head.size, chain_hash(&head)?);
    if start.from != from || head.origin != walker.state().origin.as_str() {
        return Err(unreadable("the server walks another journal, or not from the record that was asked for"));
    }
    let mut bytes = 0;
    loop {
        let Some(response) = responses.next().await.map_err(|error| stopped(error, walker.state().size))? else {
            break;
        };
        match response.message {
            Some(Message::Entry(entry)) => {
                let stepped = tokio::task::block_in_place(|| walker.step(&entry));
                bytes += stepped.map_err(Stopped::Altered)?.raw_bytes;
                step(walker, size)?;
            }
            Some(Message::End(_)) => {
                walker.check_head(size, chain).map_err(Stopped::Altered)?;
                return Ok(bytes);
            }
            Some(Message::Start(_)) | None => return Err(unreadable("the server's walk has a part that is not known")),
        }
    }
    let at = walker.state().size;
    Err(unreadable(&format!("the server's walk was cut off after {at} of {size} records, which were in order")))
}

/// As [`on`], and until all that is gone is explained: what explains it may stand after the head at which the walk began.
pub(super) async fn explained(
    connection: &Connection,
    walker: &mut Walker,
    reason: &str,
    mut step: impl FnMut(&Walker, u64) -> Result<(), Failure>,
) -> Result<u64, Stopped> {
    let mut bytes = on(connection, walker, reason, &mut step).await?;
    if walker.removed().is_err() {
        bytes += on(connection, walker, reason, &mut step).await?;
    }
    walker.removed().map_err(Stopped::Altered)?;
    Ok(bytes)
}

/// Demands the checkpoints that others hold; of those whose sizes were walked before, the server must prove that they are the beginning
/// of what was walked.
pub(super) async fn expect(connection: &Connection, walker: &mut Walker, shown: Vec<Shown>) -> Result<(), Stopped> {
    shown.into_iter().try_for_each(|shown| walker.expect(shown)).map_err(Stopped::Altered)?;
    let (size, root) = (walker.state().size, walker.state().tree.root());
    let behind = walker.trust_mut().map(Trust::take_behind).unwrap_or_default();
    for shown in behind {
        let old = shown.checkpoint().clone();
        let (is_signed, proved) = walker.trust().map_or((false, 0), |trust| (trust.is_signed(&shown), trust.proved()));
        // Of what the log has not signed it need prove nothing.
        if old.size > 0 && is_signed {
            let proof = connection.consistency(old.size, size).await?;
            let proof = hashes(&proof.hashes).unwrap_or_default();
            if let Err(error) = verify_consistency(old.size, &old.root, size, &root, &proof) {
                let what = format!(
                    "{}, for {} records with root {}, is not the beginning of what was walked: the server's proof fails ({error})",
                    shown.by(),
                    old.size,
                    old.root
                );
                return Err(Stopped::Altered(Finding {
                    from: proved.min(old.size),
                    to: old.size,
                    fault: Fault::Derived(what),
                }));
            }
        }
        if let Some(trust) = walker.trust_mut() {
            trust.proved_behind(shown).map_err(Stopped::Altered)?;
        }
    }
    Ok(())
}

/// Has the newest checkpoint that the server keeps and that ends with a counters record, among those that were walked, and holds it
/// against the walk: an auditor's signature under it shows that runs are whole.
pub(super) async fn counted(connection: &Connection, walker: &mut Walker) -> Result<(), Stopped> {
    let Some(trust) = walker.trust() else { return Ok(()) };
    let (origin, known) =
        (walker.state().origin.as_str().to_owned(), trust.counted().map(|judged| judged.checkpoint.size));
    let sizes: Vec<u64> = trust.after_counters().take_while(|size| known.is_none_or(|known| known < *size)).collect();
    for size in sizes {
        let Some(kept) = connection.kept_checkpoint(size).await?.filter(|kept| kept.size == size) else { continue };
        let Ok(shown) = views::read(&kept.note, Holder::Server, &origin) else { continue };
        expect(connection, walker, vec![shown]).await?;
        if walker.trust().and_then(Trust::counted).is_some_and(|judged| judged.checkpoint.size == size) {
            break;
        }
    }
    Ok(())
}

/// A walker at the beginning of the journal of a connection.
pub(super) fn first(head: &v1::Head) -> Result<Walker, Failure> {
    // The head that the server gave must be met on the way.
    Ok(Walker::whole(genesis(head)?).meeting(head.size, chain_hash(head)?))
}

/// The state before the first record of the journal of a head.
pub(super) fn genesis(head: &v1::Head) -> Result<JournalState, Failure> {
    let origin = head_origin(head).map_err(|error| Failure::Unreadable(error.to_string()))?;
    Ok(JournalState::genesis(origin))
}

/// What a walker has come to.
pub(super) fn walked(walker: &Walker, bytes: u64) -> Walked {
    let state = walker.state();
    Walked {
        origin: state.origin.clone(),
        records: state.size,
        bytes,
        chain: state.chain,
        root: state.tree.root(),
        trust: walker.trust().cloned(),
        // Asked for before: nothing is gone without an explanation.
        removed: walker.removed().cloned().unwrap_or_default(),
    }
}

/// A server that finds its own journal altered says so instead of sending what it can't vouch for: then the records before
/// `verified` are in order, and the server's words name the place.
fn stopped(error: ClientError, verified: u64) -> Stopped {
    match error {
        ClientError::Refused { code: Code::DataLoss, message } => {
            let fault = Fault::Derived(format!("the server reports: {message}"));
            Stopped::Altered(Finding { from: verified, to: verified, fault })
        }
        other => other.into(),
    }
}

fn unreadable(what: &str) -> Stopped {
    Stopped::Failed(Failure::Unreadable(what.to_owned()))
}
