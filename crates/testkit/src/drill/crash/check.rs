//! Walks a journal over the wire and compares it with what its senders know.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use sigillo_client::{Connection, Endpoint};
use sigillo_model::{
    audit::Walker,
    entry::Entry,
    ids::{ChainHash, Origin},
    state::JournalState,
};
use sigillo_proto::v1::{self, walk_response::Message};

use super::source::Source;
use crate::{config, server::Server};

/// How somebody configured by [`config::write`] reaches the server.
pub(super) fn endpoint(server: &Server, dir: &Path, name: &str) -> Endpoint {
    Endpoint {
        url: format!("https://{}", server.listen()),
        ca: dir.join("ca.pem"),
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        name: None,
        trust: None,
        remember: None,
    }
}

/// Recomputes every commitment and link, shows every entry to its sender, and returns how many records there were.
pub(super) async fn walk(server: &Server, dir: &Path, sources: &mut [Source]) -> Result<u64> {
    let connection = Connection::open(&endpoint(server, dir, config::READER)).await?;
    let reason = "crash drill".to_owned();
    let mut responses = connection.walk(v1::WalkRequest { from: 0, to: 0, reason }).await?;
    let first = responses.next().await?.and_then(|response| response.message);
    let Some(Message::Start(start)) = first else { bail!("the walk did not begin with a start") };
    let head = start.head.context("the start has no head")?;
    let chain = ChainHash::from_slice(&head.chain_hash).context("the head's chain value is not one")?;
    let mut walker = Walker::whole(JournalState::genesis(Origin::new(head.origin)?));
    sources.iter_mut().for_each(Source::begin_walk);
    loop {
        match responses.next().await?.and_then(|response| response.message) {
            Some(Message::Entry(bytes)) => {
                walker.step(&bytes).map_err(|finding| anyhow!("the chain does not verify: {finding}"))?;
                let entry = Entry::decode(&bytes)?;
                if let Some(source) = sources.iter_mut().find(|source| source.id() == entry.source) {
                    source.meet(&entry).with_context(|| format!("source {}", source.name()))?;
                }
            }
            Some(Message::End(_)) => break,
            other => bail!("the walk was cut off by {other:?}"),
        }
    }
    walker.check_head(head.size, chain)?;
    ensure!(walker.state().size == head.size, "the head promises {} records", head.size);
    sources.iter().try_for_each(Source::end_walk)?;
    Ok(head.size)
}
