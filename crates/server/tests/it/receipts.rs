//! Signed receipts, and what senders are told of checkpoints.

use std::fs;

use bytes::Bytes;
use sigillo_model::{
    checkpoint::Checkpoint,
    ids::{NodeHash, Origin, SourceId},
    misconduct::continues,
    note::Note,
    policy::Policy,
    receipt::{Held, SignedReceipt},
};
use sigillo_proto::{
    receipt::{hashes, signed},
    v1::{self, append_request::Message as Request, append_response::Message as Answer},
};
use sigillo_server::config::Config;
use tokio::time::{sleep, timeout};

use crate::support::{Append, Chain, Fixture, ORIGIN, SOON, line};

fn hasty(config: &mut Config) {
    config.checkpoint.as_mut().unwrap().interval_ms = 20;
}

impl Fixture {
    fn trust(&self) -> Policy {
        Policy::parse(&fs::read(self.dir.path().join("trust.txt")).unwrap()).unwrap()
    }

    fn judge(&self, note: &[u8]) -> Checkpoint {
        self.trust().check(&Note::parse(note).unwrap()).unwrap().checkpoint
    }

    /// The newest checkpoint, once it covers this record.
    async fn covering(&self, sequence: u64) -> (Bytes, Checkpoint) {
        timeout(SOON, async {
            loop {
                let request = v1::GetCheckpointRequest { newest_signed: true, ..Default::default() };
                match self.log().await.get_checkpoint(request).await {
                    Ok(answer) if answer.get_ref().size > sequence => {
                        let note = answer.into_inner().note;
                        return (note.clone(), self.judge(&note));
                    }
                    _ => sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        })
        .await
        .expect("a checkpoint")
    }
}

fn assembled(receipt: &v1::Receipt) -> SignedReceipt {
    let source = SourceId::from_name("dev-agent");
    signed(receipt, &Origin::new(ORIGIN).unwrap(), source).unwrap().expect("a signature")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receipt_is_signed_and_in_the_tree() {
    let server = Fixture::start_with(hasty).await;
    let mut chain = Chain::new("dev-agent");
    let mut stream = server.append("agent").await;
    let batches: Vec<v1::Batch> = (0..200).map(|number| chain.seal(&[line(&number.to_string()), line("b")])).collect();
    let (sender, sent) = (stream.sender.clone(), batches.clone());
    let sending = tokio::spawn(async move {
        for batch in sent {
            sender.send(v1::AppendRequest { message: Some(Request::Batch(batch)) }).await.unwrap();
        }
    });
    let keys = server.trust().receipts().to_vec();
    let mut receipts = Vec::new();
    for batch in &batches {
        let Ok(Some(Answer::Ack(ack))) = stream.answer().await else { panic!("no ack") };
        let receipt = assembled(&ack.receipt.unwrap());
        assert_eq!(receipt.verify(&keys), Ok(()));
        assert_eq!(receipt.receipt.batch.as_bytes(), &*batch.hash);
        receipts.push(receipt);
    }
    sending.await.unwrap();
    let frames: std::collections::BTreeSet<&str> = receipts.iter().map(|receipt| receipt.note.as_str()).collect();
    assert!(frames.len() < receipts.len(), "one signature a frame, not a batch");

    // Again: other frames, the same words.
    let mut again = server.append("agent").await;
    for (batch, first) in batches.into_iter().zip(&receipts).step_by(50) {
        let repeated = assembled(&again.receipt(batch).await);
        assert_eq!((repeated.verify(&keys), repeated.receipt), (Ok(()), first.receipt));
    }

    let last = receipts.last().unwrap().receipt.last().unwrap().get();
    let (_, checkpoint) = server.covering(last).await;
    let mut log = server.log().await;
    for receipt in receipts.iter().step_by(40) {
        let request =
            v1::GetInclusionRequest { sequence: receipt.receipt.last().unwrap().get(), size: checkpoint.size };
        let answer = log.get_inclusion(request).await.unwrap().into_inner();
        let entry = sigillo_model::ids::ChainHash::from_slice(&answer.entry).unwrap();
        let held = receipt.against(&checkpoint, &entry, &hashes(&answer.hashes).unwrap());
        assert_eq!(held, Ok(Held::Kept));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_key_signs_nothing() {
    let server = Fixture::start_with(|config| config.checkpoint = None).await;
    let mut stream = server.append("agent").await;
    assert!(stream.welcome.checkpoint.is_empty() && stream.welcome.consistency.is_empty());
    let receipt = stream.receipt(Chain::new("dev-agent").seal(&[line("one")])).await;
    assert!(receipt.frame_note.is_empty() && receipt.frame_path.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_are_told_of_checkpoints_that_continue_what_they_remember() {
    let server = Fixture::start_with(hasty).await;
    let mut chain = Chain::new("dev-agent");
    let receipt = server.append("agent").await.receipt(chain.seal(&[line("one")])).await;
    let (remembered, old) = server.covering(receipt.sequence).await;

    let receipt = server.append("agent").await.receipt(chain.seal(&[line("two"), line("three")])).await;
    server.covering(receipt.sequence + 1).await;
    let stream = Append::remembering(server.channel("agent").await, remembered.clone()).await.unwrap();
    let shown = server.judge(&stream.welcome.checkpoint);
    assert!(shown.size > old.size);
    assert_eq!(continues(&old, &shown, &proof(&stream.welcome.consistency)), Ok(()));
    drop(stream);

    // Who remembers nothing needs no proof; what is not a note of ours counts for nothing.
    for other in [Bytes::new(), Bytes::from_static(b"no note"), remembered.slice(..remembered.len() - 9)] {
        let stream = Append::remembering(server.channel("agent").await, other).await.unwrap();
        assert!(stream.welcome.consistency.is_empty());
        server.judge(&stream.welcome.checkpoint);
    }

    // News on the open stream, from what the welcome told.
    let mut stream = Append::remembering(server.channel("agent").await, remembered).await.unwrap();
    let told = server.judge(&stream.welcome.checkpoint);
    stream.receipt(chain.seal(&[line("four")])).await;
    let news = stream.news().await;
    let newer = server.judge(&news.checkpoint);
    assert!(newer.size > told.size);
    assert_eq!(continues(&told, &newer, &proof(&news.consistency)), Ok(()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_remembers_more_than_there_is_gets_no_proof_and_no_crash() {
    let server = Fixture::start_with(hasty).await;
    let (_, newest) = server.covering(0).await;
    let text = Checkpoint { size: newest.size + 1_000_000, ..newest }.text();
    let key = sigillo_model::note::SigningKey::from_seed("x", sigillo_model::note::KeyKind::Log, &[1; 32]).unwrap();
    let note = Note::new(text.clone(), vec![key.sign(&text).unwrap()]).unwrap().to_bytes();
    let mut stream = Append::remembering(server.channel("agent").await, note.into()).await.unwrap();
    assert!(stream.welcome.consistency.is_empty() && !stream.welcome.checkpoint.is_empty());
    stream.receipt(Chain::new("dev-agent").seal(&[line("one")])).await;
    server.stop().await;
}

fn proof(hashes_sent: &[Bytes]) -> Vec<NodeHash> {
    hashes(hashes_sent).unwrap()
}
