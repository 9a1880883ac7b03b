//! A sender that checks nothing: what it is given goes out as it is.

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use sigillo_client::{AppendSession, ClientError, Connection, Endpoint, PROTOCOL, unix_nanos};
use sigillo_proto::v1::{self, append_request, append_response::Message as Answer};

use super::{
    image::{Item, item},
    story::Story,
};

/// What goes over one stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    /// A key that is said first, and why.
    pub(super) key: Option<([u8; 32], String)>,
    pub(super) items: Vec<Item>,
}

/// What the server said to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivered {
    /// Why it took no more, if so.
    pub(super) refusal: Option<String>,
    /// Time of the newest head that was acknowledged.
    pub(super) head_time_ns: u64,
}

/// Sends everything over one stream and waits for all answers.
pub(super) async fn send(endpoint: &Endpoint, message: &Message, without_heads: bool) -> Result<Delivered> {
    deliver(open(endpoint, message).await?, message, without_heads, usize::MAX).await
}

/// Sends what an honest sender would, over streams that break off and begin again somewhat earlier than where the last one came to.
pub(super) async fn send_with_repetitions(
    endpoint: &Endpoint,
    story: &Story,
    without_heads: bool,
    seed: u64,
) -> Result<Delivered> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut items: Vec<Item> = story.frames.iter().filter_map(item).collect();
    let mut end = story.end;
    if random.random_bool(0.5) {
        // The machine goes on, with its own key.
        items.push(story.sign(&story.stolen_key(), &mut end)?.0);
    }
    let mut from = story.sent;
    for broken in [0, 1, 2].choose(&mut random).map_or(0..0, |count| 0..*count) {
        let message = Message { key: None, items: items.get(from..).unwrap_or_default().to_vec() };
        let after = random.random_range(0..=message.items.len());
        let delivered = deliver(open(endpoint, &message).await?, &message, without_heads, after).await?;
        ensure!(delivered.refusal.is_none(), "broken stream {broken} is refused: {:?}", delivered.refusal);
        // Some of it again, or all; never behind what may be missing.
        from = random.random_range(0..=from);
    }
    let message = Message { key: None, items: items.get(from..).unwrap_or_default().to_vec() };
    send(endpoint, &message, without_heads).await
}

async fn open(endpoint: &Endpoint, message: &Message) -> Result<AppendSession> {
    let batch = message.items.iter().find_map(|item| if let Item::Batch(batch) = item { Some(batch) } else { None });
    let hello = v1::Hello {
        protocol: PROTOCOL,
        agent: "sigillo-drill".into(),
        epoch: batch.map_or(1, |batch| batch.epoch.get()),
        first_retained: batch.map_or(0, |batch| batch.first.get()),
        clock_unix_nano: unix_nanos(),
        ..v1::Hello::default()
    };
    Ok(Connection::open(endpoint).await?.append(hello).await?)
}

/// Sends so many items; whoever breaks off does not wait for the answers.
async fn deliver(session: AppendSession, message: &Message, without_heads: bool, items: usize) -> Result<Delivered> {
    let AppendSession { sender, mut receiver, .. } = session;
    let mut messages = Vec::new();
    if let (Some((key, reason)), false) = (&message.key, without_heads) {
        let key = v1::HeadKey { public_key: key.to_vec().into(), reason: reason.clone() };
        messages.push(append_request::Message::HeadKey(key));
    }
    for item in message.items.iter().take(items) {
        match item {
            Item::Batch(batch) => messages.push(append_request::Message::Batch(batch.into())),
            Item::Head(_) if without_heads => {}
            Item::Head(note) => messages.push(append_request::Message::Head(v1::SignedHead { note: note.clone() })),
        }
    }
    let sending = async move {
        for message in messages {
            // It has ended; why, the answers say.
            if sender.send(message).await.is_err() {
                break;
            }
        }
    };
    if items <= message.items.len() {
        sending.await;
        return Ok(Delivered::default());
    }
    let answers = async {
        let mut delivered = Delivered::default();
        loop {
            match receiver.recv().await {
                Ok(None) => return Ok(delivered),
                Ok(Some(Answer::Ack(ack))) => {
                    delivered.head_time_ns = delivered.head_time_ns.max(ack.head_time_unix_nano);
                }
                Ok(Some(Answer::Refusal(refusal))) => {
                    delivered.refusal = Some(format!("{:?}: {}", refusal.kind(), refusal.message));
                }
                Ok(Some(Answer::News(_))) => {}
                Ok(Some(other)) => bail!("an unexpected answer: {other:?}"),
                // How a stream ends after a refusal; one that can't be read is refused without words.
                Err(ClientError::Refused { code, message, .. }) => {
                    delivered.refusal.get_or_insert_with(|| format!("{code:?}: {message}"));
                    return Ok(delivered);
                }
                Err(error) => return Err(error).context("waiting for answers"),
            }
        }
    };
    let ((), delivered) = tokio::join!(sending, answers);
    delivered
}
