//! Sessions of a source, and its signed heads.

use bytes::Bytes;
use sigillo_model::{
    envelope::Envelope,
    head::{HeadKey, SignedHead},
    ids::{Origin, SourceId, SourceSeq},
    statement, tree,
};
use sigillo_proto::{
    record::Fields,
    v1::{self, RefusalKind, append_request::Message as Request, append_response::Message as Answer},
};
use sigillo_server::clock::Clock;
use tonic::Code;

use crate::support::{Append, Chain, Fixture, ORIGIN, attribute, line, noise};

/// A session that goes on with an epoch, as agents open it.
async fn session(server: &Fixture, name: &str, epoch: u64) -> Append {
    let hello = v1::Hello { epoch, ..v1::Hello::default() };
    Append::saying(server.channel(name).await, hello).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_ends_the_older_ones_of_its_source() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let mut asking = server.append("agent").await;
    let mut older = session(&server, "agent", 1).await;
    let mut other = session(&server, "panel", 1).await;
    older.receipt(chain.seal(&[line("one")])).await;
    // Who only asks ends nobody; a session ends everything before it.
    server.append("agent").await;
    older.receipt(chain.seal(&[line("two")])).await;
    let mut newer = session(&server, "agent", 1).await;
    assert_eq!(newer.welcome.next_sequence, 2);
    for ended in [&mut older, &mut asking] {
        let status = ended.answer().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "a newer session of this source has begun"));
    }
    newer.receipt(chain.seal(&[line("three")])).await;
    other.receipt(Chain::new("dev-panel").seal(&[line("of another source")])).await;
    server.stop().await;
}

/// What signs a source's heads.
struct Signer {
    key: HeadKey,
    time_ns: u64,
}

impl Signer {
    fn new(seed: u8) -> Self {
        Self { key: HeadKey::from_seed([seed; 32]), time_ns: 1_000 }
    }

    fn register(&self, reason: &str) -> Request {
        let public_key = self.key.public().to_vec().into();
        Request::HeadKey(v1::HeadKey { public_key, reason: reason.into() })
    }

    /// What the next head over this chain says.
    fn head(&self, chain: &Chain) -> SignedHead {
        SignedHead {
            origin: Origin::new(ORIGIN).unwrap(),
            source: chain.source,
            epoch: chain.epoch,
            next: chain.next,
            batch_hash: chain.head,
            time_ns: self.time_ns + 1,
            seen: (0, tree::empty()),
            next_key: self.key.clone().ratchet().public(),
        }
    }

    /// Signs it, and moves on.
    fn sign(&mut self, chain: &Chain) -> Bytes {
        let note = self.head(chain).sign(&self.key).unwrap();
        self.key = self.key.clone().ratchet();
        self.time_ns += 1;
        note.into()
    }
}

fn head(note: impl Into<Bytes>) -> Request {
    Request::Head(v1::SignedHead { note: note.into() })
}

impl Append {
    /// Waits for an acknowledgement that carries no receipt.
    async fn head_ack(&mut self) -> (u64, u64, u64) {
        match self.answer().await {
            Ok(Some(Answer::Ack(v1::Ack { epoch, next_sequence, receipt: None, head_time_unix_nano }))) => {
                (epoch, next_sequence, head_time_unix_nano)
            }
            other => panic!("no ack of a head but {other:?}"),
        }
    }

    /// Waits for the refusal of a head, with which the stream ends.
    async fn head_refusal(mut self) -> v1::Refusal {
        let refusal = match self.answer().await {
            Ok(Some(Answer::Refusal(refusal))) => refusal,
            other => panic!("no refusal but {other:?}"),
        };
        assert_eq!(refusal.kind(), RefusalKind::Head, "{refusal:?}");
        assert!(self.answer().await.is_err(), "the stream ends after a refusal");
        refusal
    }
}

fn severity(event: &Fields) -> u32 {
    event.core.as_ref().unwrap().severity_number
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_become_records_and_the_server_knows_the_next_key() {
    let server = Fixture::start().await;
    let (mut chain, mut signer) = (Chain::new("dev-agent"), Signer::new(1));
    let mut stream = session(&server, "agent", 1).await;
    assert!(stream.welcome.head_key.is_empty() && stream.welcome.head_time_unix_nano == 0);
    // All without waiting: each is taken after what came before it. The first covers an epoch in which nothing has come yet.
    stream.send(signer.register("")).await;
    let mut notes = vec![signer.sign(&chain)];
    stream.send(head(notes[0].clone())).await;
    stream.send(Request::Batch(chain.seal(&[line("one"), line("two")]))).await;
    notes.push(signer.sign(&chain));
    stream.send(head(notes[1].clone())).await;
    // Nothing came since.
    notes.push(signer.sign(&chain));
    stream.send(head(notes[2].clone())).await;
    assert_eq!(stream.head_ack().await, (0, 0, 1_001));
    let Ok(Some(Answer::Ack(ack))) = stream.answer().await else { panic!("no ack") };
    assert_eq!((ack.next_sequence, ack.receipt.is_some(), ack.head_time_unix_nano), (2, true, 1_001));
    assert_eq!(stream.head_ack().await, (1, 2, 1_002));
    assert_eq!(stream.head_ack().await, (1, 2, 1_003));

    // An acknowledgement was lost: the same again, which is not recorded again.
    let mut stream = session(&server, "agent", 1).await;
    assert_eq!(stream.welcome.head_key, signer.key.public().to_vec());
    assert_eq!(stream.welcome.head_time_unix_nano, 1_003);
    stream.send(head(notes[1].clone())).await;
    assert_eq!(stream.head_ack().await, (1, 2, 1_003));
    notes.push(signer.sign(&chain));
    stream.send(head(notes[3].clone())).await;
    assert_eq!(stream.head_ack().await, (1, 2, 1_004));

    let recorded = server.events("source.head").await;
    let originals = recorded.iter().map(|event| event.content.as_ref().unwrap().original.clone());
    assert_eq!(originals.collect::<Vec<_>>(), notes);
    assert_eq!(recorded[1].core.as_ref().unwrap().target.as_ref().unwrap().id, "dev-agent");
    assert_eq!((attribute(&recorded[1], "epoch"), attribute(&recorded[1], "next_sequence")), ("1".into(), "2".into()));
    let keys = server.events("source.key").await;
    assert_eq!((keys.len(), severity(&keys[0])), (1, 9));
    assert_eq!(attribute(&keys[0], "public_key"), hex::encode(Signer::new(1).key.public()));
    // What came behind the key stands behind it.
    let registered = v1::Filter { actions: vec!["source.key".into()], ..Default::default() };
    let at = |record: &v1::ResultRecord| Envelope::from_bytes(&record.envelope).unwrap().seq;
    assert!(at(&server.search(registered).await[0]) < at(&server.of_source("dev-agent").await[0]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_says_something_wrong_is_an_alarm() {
    let server = Fixture::start().await;
    let (mut chain, mut signer) = (Chain::new("dev-agent"), Signer::new(1));
    let mut stream = session(&server, "agent", 1).await;
    stream.send(signer.register("")).await;
    stream.receipt(chain.seal(&[line("one")])).await;
    let behind = chain.clone();
    stream.receipt(chain.seal(&[line("two")])).await;
    stream.send(head(signer.sign(&chain))).await;
    assert_eq!(stream.head_ack().await, (1, 2, 1_001));

    let (mut ahead, mut other_hash) = (chain.clone(), chain.clone());
    ahead.seal(&[line("never sent")]);
    other_hash.head = behind.head;
    let middle = Chain { next: SourceSeq::new(3), ..chain.clone() };
    let stranger = Chain { source: SourceId::from_name("dev-panel"), ..chain.clone() };
    let elsewhere = SignedHead { origin: Origin::new("elsewhere").unwrap(), ..signer.head(&chain) };
    let sign = |head: SignedHead| head.sign(&signer.key).unwrap();
    let mut altered = sign(signer.head(&chain)).into_bytes();
    altered.truncate(altered.len() - 2);
    let cases: [(&str, Bytes); 9] = [
        ("signature", signer.head(&chain).sign(&Signer::new(2).key).unwrap().into()),
        ("next", sign(signer.head(&ahead)).into()),
        ("next", sign(signer.head(&middle)).into()),
        ("next", sign(signer.head(&behind)).into()),
        ("batch_hash", sign(signer.head(&other_hash)).into()),
        ("source", sign(signer.head(&stranger)).into()),
        ("origin", sign(elsewhere).into()),
        ("form", altered.into()),
        ("form", noise(1 << 20)),
    ];
    for (differs, note) in &cases {
        let stream = session(&server, "agent", 1).await;
        stream.send(head(note.clone())).await;
        let refusal = stream.head_refusal().await;
        assert_eq!((refusal.expected_epoch, refusal.expected_sequence), (1, 2), "{differs}");
    }
    let stream = session(&server, "panel", 1).await;
    stream.send(head(Signer::new(1).sign(&Chain::new("dev-panel")))).await;
    stream.head_refusal().await;

    let alarms = server.events("source.head_invalid").await;
    let differ: Vec<String> = alarms.iter().map(|alarm| attribute(alarm, "differs")).collect();
    let expected: Vec<&str> = cases.iter().map(|(differs, _)| *differs).chain(["no_key"]).collect();
    assert_eq!(differ, expected);
    for alarm in &alarms[..cases.len()] {
        assert_eq!(severity(alarm), 13);
        let range = ["from_epoch", "from_sequence", "to_epoch", "to_sequence"].map(|key| attribute(alarm, key));
        assert_eq!(range, ["1", "2", "1", "2"]);
        assert!(attribute(alarm, "note").len() <= 4_096);
    }
    // None of it counts.
    let mut stream = session(&server, "agent", 1).await;
    stream.send(head(signer.sign(&chain))).await;
    assert_eq!(stream.head_ack().await, (1, 2, 1_002));
    assert_eq!(server.events("source.head").await.len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_were_on_their_way_when_batches_after_them_became_durable_are_taken() {
    let server = Fixture::start().await;
    let (mut chain, mut signer) = (Chain::new("dev-agent"), Signer::new(1));
    let mut notes = vec![signer.sign(&chain)];
    let mut stream = session(&server, "agent", 1).await;
    stream.send(Signer::new(1).register("")).await;
    for text in ["one", "two", "three"] {
        stream.receipt(chain.seal(&[line(text), line("and more")])).await;
        notes.push(signer.sign(&chain));
    }
    let mut newer = Chain::epoch("dev-agent", 9, Some(chain.head));
    notes.push(signer.sign(&newer));
    stream.receipt(newer.seal(&[line("four")])).await;
    notes.push(signer.sign(&newer));
    drop(stream);
    let mut stream = session(&server, "agent", 9).await;
    for (time, note) in (1_001..).zip(&notes) {
        stream.send(head(note.clone())).await;
        assert_eq!(stream.head_ack().await, (9, 1, time));
    }
    assert_eq!(server.events("source.head").await.len(), 6);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_head_announced_is_an_alarm_and_counts_from_there() {
    let server = Fixture::start().await;
    let (mut chain, mut lost) = (Chain::new("dev-agent"), Signer::new(1));
    let mut stream = session(&server, "agent", 1).await;
    stream.send(lost.register("")).await;
    stream.receipt(chain.seal(&[line("one")])).await;
    lost.time_ns = 2_000;
    stream.send(head(lost.sign(&chain))).await;
    assert_eq!(stream.head_ack().await.2, 2_001);
    // The one that is expected is no news.
    stream.send(lost.register("again")).await;
    let announced = lost.key.public();

    let mut signer = Signer::new(2);
    let mut stream = session(&server, "agent", 1).await;
    stream.send(signer.register("the spool was lost")).await;
    // Its clock may be behind that of the one before.
    stream.send(head(signer.sign(&chain))).await;
    assert_eq!(stream.head_ack().await.2, 1_001);
    let keys = server.events("source.key").await;
    assert_eq!((keys.len(), severity(&keys[1])), (2, 13));
    assert_eq!(attribute(&keys[1], "reason"), "the spool was lost");
    assert_eq!(attribute(&keys[1], "previous"), hex::encode(announced));
    stream.send(head(lost.sign(&chain))).await;
    stream.head_refusal().await;

    let stream = session(&server, "agent", 1).await;
    assert_eq!(stream.welcome.head_key, signer.key.public().to_vec());
    stream.send(Request::HeadKey(v1::HeadKey { public_key: vec![0; 32].into(), reason: String::new() })).await;
    let mut answers = stream.answers;
    assert_eq!(answers.message().await.unwrap_err().code(), Code::InvalidArgument);
    // More keys than a burst are held back, and none is left out.
    let mut registered = 2;
    for seed in 3..30 {
        let mut stream = session(&server, "agent", 1).await;
        stream.send(Signer::new(seed).register("")).await;
        // The stream may have ended.
        let message = v1::AppendRequest { message: Some(head(Signer::new(seed).sign(&chain))) };
        let _ = stream.sender.send(message).await;
        match stream.answer().await {
            Ok(Some(Answer::Ack(_))) => registered += 1,
            Ok(Some(Answer::Throttle(_))) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(registered < 29, "somebody fills the journal with keys");
    assert_eq!(server.events("source.key").await.len(), registered);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_key_may_not_leave_its_heads_out() {
    let server = Fixture::start().await;
    let (mut chain, mut signer) = (Chain::new("dev-agent"), Signer::new(1));
    let mut stream = session(&server, "agent", 1).await;
    stream.send(signer.register("")).await;
    for _ in 0..2 {
        for _ in 0..256 {
            stream.receipt(chain.seal(&[line("covered")])).await;
        }
        stream.send(head(signer.sign(&chain))).await;
        stream.head_ack().await;
    }
    for number in 0..257 {
        // Also over several streams; what is repeated counts once.
        if number % 100 == 0 {
            stream = session(&server, "agent", 1).await;
        }
        let batch = chain.seal(&[line("bare")]);
        stream.receipt(batch.clone()).await;
        if number == 7 {
            stream.receipt(batch).await;
        }
    }
    stream.head_refusal().await;
    let alarms = server.events("source.head_missing").await;
    assert_eq!((alarms.len(), attribute(&alarms[0], "batches")), (1, "257".into()));
    let range = ["from_sequence", "to_sequence"].map(|key| attribute(&alarms[0], key));
    assert_eq!((range, severity(&alarms[0])), (["512".into(), "769".into()], 13));
    // The head that was missing is enough to go on.
    let mut stream = session(&server, "agent", 1).await;
    stream.send(head(signer.sign(&chain))).await;
    stream.head_ack().await;
    stream.receipt(chain.seal(&[line("covered")])).await;
    // Who has no key owes none.
    let (mut bare, mut stream) = (Chain::new("dev-panel"), server.append("panel").await);
    for _ in 0..257 {
        stream.receipt(bare.seal(&[line("bare")])).await;
    }
    stream.receipt(bare.seal(&[line("bare")])).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_the_keys_and_heads_are_statements() {
    let server = Fixture::start().await;
    let (mut chain, mut signer, mut panel) = (Chain::new("dev-agent"), Signer::new(1), Signer::new(2));
    let mut stream = session(&server, "agent", 1).await;
    stream.send(signer.register("")).await;
    stream.receipt(chain.seal(&[line("one")])).await;
    stream.send(head(signer.sign(&chain))).await;
    stream.head_ack().await;
    let mut other = session(&server, "panel", 1).await;
    other.send(panel.register("")).await;
    other.receipt(Chain::new("dev-panel").seal(&[line("one")])).await;
    let server = Fixture::start_in(server.stop().await, |_| {}, Clock::default()).await;

    let mut stream = session(&server, "agent", 1).await;
    assert_eq!(stream.welcome.head_key, signer.key.public().to_vec());
    assert_eq!(stream.welcome.head_time_unix_nano, 1_001);
    stream.receipt(chain.seal(&[line("two")])).await;
    stream.send(head(signer.sign(&chain))).await;
    assert_eq!(stream.head_ack().await, (1, 2, 1_002));
    let mut other = session(&server, "panel", 1).await;
    assert_eq!(other.welcome.head_key, panel.key.public().to_vec());
    let mut chain = Chain::new("dev-panel");
    chain.seal(&[line("one")]);
    other.send(head(panel.sign(&chain))).await;
    assert_eq!(other.head_ack().await, (1, 1, 1_001));

    // Never erased, never purged.
    for name in ["source.key", "source.head"] {
        let filter = v1::Filter { actions: vec![name.into()], ..Default::default() };
        let found = server.search(filter).await;
        assert!(!found.is_empty());
        for record in found {
            let envelope = Envelope::from_bytes(&record.envelope).unwrap();
            assert!(statement::may_be_statement(envelope.class, envelope.source));
            assert!(statement::is_statement(&record.content.unwrap()));
        }
    }
    server.stop().await;
}
