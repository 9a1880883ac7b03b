//! The transparency log: checkpoints, witnesses, published resources.

mod checkpointer;
mod counters;
pub(crate) mod keys;
mod publish;
mod resources;
mod rotation;
mod service;
mod shelf;
mod signed;
mod state;
mod witness_health;
mod witnesses;

use std::{fs, sync::Arc};

use sigillo_http::{HttpError, Link, Roots, Url};
use sigillo_journal::Journal;
use sigillo_model::{
    ids::Origin,
    note::{Note, SigningKey},
    policy::{POLICY_MAX_BYTES, Policy},
};

pub(crate) use publish::serve as publish;
pub(crate) use resources::Resources;
pub(crate) use service::LogService;
pub(crate) use signed::write as replace;
pub(crate) use state::{Log, Published};

use crate::{
    config::{CheckpointSettings, Settings},
    error::ServerError,
    health::Health,
    own::Own,
};
use checkpointer::{Checkpointer, Parts};
use shelf::Shelf;
use signed::Signed;

/// Everything that a start needs of the log, read and checked before the journal is opened.
pub(crate) struct Prepared {
    settings: CheckpointSettings,
    key: SigningKey,
    receipt: SigningKey,
    trust: Policy,
    links: Vec<(usize, Link)>,
}

impl Prepared {
    /// The key that signs receipts, for the journal's writer.
    pub(crate) fn receipt_key(&self) -> Arc<SigningKey> {
        Arc::new(self.receipt.clone())
    }
}

/// Name of the key that signs receipts.
pub(crate) fn receipt_name(origin: &Origin) -> String {
    format!("{origin}/receipts")
}

/// Reads keys and trust file; nothing without `[checkpoint]`.
pub(crate) fn prepare(settings: &Settings) -> Result<Option<Prepared>, ServerError> {
    let Some(checkpoint) = settings.checkpoint.clone() else { return Ok(None) };
    let key = keys::load(&checkpoint.key, settings.origin.as_str())?;
    let receipt = keys::load(&checkpoint.receipt_key, &receipt_name(&settings.origin))?;
    let trust = trust(&checkpoint)?;
    let unfit = |problem: String| ServerError::Trust { path: checkpoint.trust.clone(), problem };
    if !trust.receipts().contains(receipt.verifier()) {
        return Err(unfit(format!(
            "it does not name the key that would sign receipts: add the line `receipt {}`",
            receipt.verifier()
        )));
    }
    let links = links(&trust, &checkpoint).map_err(|error| unfit(error.to_string()))?;
    if trust.asks_for_witnesses() && links.is_empty() {
        return Err(unfit("its quorum asks for witnesses, but no witness line ends with an address".into()));
    }
    Ok(Some(Prepared { settings: checkpoint, key, receipt, trust, links }))
}

fn trust(checkpoint: &CheckpointSettings) -> Result<Policy, ServerError> {
    let path = &checkpoint.trust;
    let unfit = |problem: String| ServerError::Trust { path: path.clone(), problem };
    let length = fs::metadata(path).map_err(ServerError::file(path))?.len();
    if length > POLICY_MAX_BYTES as u64 {
        return Err(unfit(format!("it has {length} bytes; at most {POLICY_MAX_BYTES} are read")));
    }
    Policy::parse(&fs::read(path).map_err(ServerError::file(path))?).map_err(|error| unfit(error.to_string()))
}

/// The witnesses that have an address, with their places in the trust file.
fn links(trust: &Policy, checkpoint: &CheckpointSettings) -> Result<Vec<(usize, Link)>, HttpError> {
    let roots = checkpoint.witness_ca.as_deref().map(Roots::load).transpose()?;
    let mut links = Vec::new();
    for (index, witness) in trust.witnesses().iter().enumerate() {
        let Some(url) = &witness.url else { continue };
        let url = Url::parse(&url.to_string())?;
        links.push((index, Link::new(url, roots.clone(), checkpoint.witness_timeout)?));
    }
    Ok(links)
}

/// The log of a server: what everybody sees, and the task that signs, if anything is to be signed.
pub(crate) async fn start(
    prepared: Option<Prepared>,
    settings: &Settings,
    journal: &Journal,
    own: &Own,
    health: &Health,
) -> Result<(Arc<Log>, Option<Checkpointer>), ServerError> {
    let Some(prepared) = prepared else { return Ok((Arc::new(Log::disabled()), None)) };
    let Prepared { settings: checkpoint, key, receipt, trust, links } = prepared;
    let (path, files) = (&checkpoint.trust, &checkpoint.rotations);
    let trust = rotation::admit(trust, path, files, key.verifier(), journal.reader(), own).await?;
    let signed = Signed::open(&settings.data_dir, settings.origin.clone())
        .map_err(|error| ServerError::Signed(error.to_string()))?;
    let log = Arc::new(Log::new(trust.clone(), receipt));
    if let Some(receipts) = log.receipt_key().map(SigningKey::verifier) {
        tracing::info!(log = %key.verifier(), %receipts, witnesses = links.len(), "checkpoints are signed");
    }
    let parts = Parts {
        log: Arc::clone(&log),
        journal: journal.clone(),
        own: own.clone(),
        health: health.clone(),
        key,
        signed,
        shelf: Shelf::new(&settings.data_dir),
        interval: checkpoint.interval,
        witness_timeout: checkpoint.witness_timeout,
        links,
    };
    Ok((log, Some(Checkpointer::new(parts, trust))))
}

/// A note that was kept, if it is one of this log and meets the policy.
fn judge_kept(trust: &Policy, bytes: &[u8]) -> Option<Published> {
    let note = Note::parse(bytes).ok()?;
    let judgement = trust.check(&note).ok().filter(|judgement| judgement.quorum)?;
    Some(Published {
        note: bytes.into(),
        size: judgement.checkpoint.size,
        root: judgement.checkpoint.root,
        quorum: true,
        quorum_time: judgement.quorum_time,
    })
}
