//! What is beyond a limit, or not what it says: each refused with a clear word, nothing of it written.

use sigillo_model::{block, limits::MESSAGE_MAX_BYTES, record::Record};
use sigillo_proto::{
    record::Fields,
    v1::{self, RefusalKind, any_value::Value, append_request::Message as Request, ingest_client::IngestClient},
};
use tonic::Code;

use crate::support::{Append, Chain, Fixture, line, noise, with_core};

fn with_content(content: v1::ContentPart) -> Record {
    Fields { content: Some(content), ..Fields::default() }.encode()
}

fn nested(levels: usize) -> v1::AnyValue {
    (1..levels).fold(v1::AnyValue { value: Some(Value::IntValue(1)) }, |inner, _| v1::AnyValue {
        value: Some(Value::ArrayValue(v1::ArrayValue { values: vec![inner] })),
    })
}

/// A good record, then this one.
fn second(record: Record) -> v1::Batch {
    Chain::new("dev-agent").seal(&[line("good"), record])
}

/// A good batch, spoilt.
fn spoilt(spoil: impl FnOnce(&mut v1::Batch)) -> v1::Batch {
    let mut batch = Chain::new("dev-agent").seal(&[line("good")]);
    spoil(&mut batch);
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_has_its_word_and_nothing_is_written() {
    let server = Fixture::start().await;
    let long_host = v1::CorePart { host: "h".repeat(4_097), ..Default::default() };
    let long_key = v1::KeyValue { key: "k".repeat(4_097), value: None };
    let pair = v1::KeyValue { key: "k".into(), value: None };
    let bomb = block::compress(&vec![0; 64 << 20], 1);
    let empty_block = [1, 0, 0, 0, 0];
    let cases: Vec<(&str, v1::Batch, &str)> = vec![
        ("field", second(with_core("x", long_host)), "record 1 of the batch: field host has 4097 bytes, at most 4096"),
        (
            "key",
            second(with_content(v1::ContentPart { attributes: vec![long_key], ..Default::default() })),
            "field attribute key has 4097 bytes",
        ),
        (
            "attributes",
            second(with_content(v1::ContentPart { attributes: vec![pair; 1_025], ..Default::default() })),
            "more than 1024 attributes, nested ones included: send fewer",
        ),
        (
            "nesting",
            second(with_content(v1::ContentPart { body: Some(nested(17)), ..Default::default() })),
            "nested more than 16 levels deep: flatten them",
        ),
        (
            "empty batch",
            spoilt(|batch| {
                batch.count = 0;
                batch.block = block::compress(&empty_block, 1).into();
                batch.block_bytes = 5;
            }),
            "0 records, 1 to 16384 are taken",
        ),
        (
            "count beyond all limits",
            spoilt(|batch| batch.count = u32::MAX),
            "states 4294967295 records, 1 to 16384 are taken",
        ),
        ("count", spoilt(|batch| batch.count = 2), "the batch states 2 records, its block holds 1"),
        ("bomb that hides", spoilt(|batch| batch.block = bomb.clone().into()), "not one zstd frame that holds"),
        (
            "bomb that tells",
            spoilt(|batch| {
                batch.block = bomb.clone().into();
                batch.block_bytes = 64 << 20;
            }),
            "at most 8388608 are taken: cut smaller batches",
        ),
        ("length", spoilt(|batch| batch.block_bytes = 1 << 40), "at most 8388608 are taken: cut smaller batches"),
        ("no zstd", spoilt(|batch| batch.block = noise(100)), "not one zstd frame that holds"),
        ("hash", spoilt(|batch| batch.hash = vec![0; 32].into()), "hash does not follow from its content"),
        ("short hash", spoilt(|batch| batch.hash = vec![0; 31].into()), "field hash of the message must have 32 bytes"),
        ("secret", spoilt(|batch| batch.secret = vec![].into()), "field secret of the message must have 32 bytes"),
        ("numbers", spoilt(|batch| batch.first = u64::MAX), "run past the end of 64-bit numbers"),
    ];
    let number = cases.len();
    for (name, batch, expected) in cases {
        let (epoch, first) = (batch.epoch, batch.first);
        let refusal = server.append("agent").await.refusal(batch).await;
        assert_eq!((refusal.kind(), refusal.epoch, refusal.first), (RefusalKind::Invalid, epoch, first), "{name}");
        assert!(refusal.message.contains(expected), "{name}: {}", refusal.message);
    }
    assert_eq!(server.of_source("dev-agent").await.len(), 0);
    // A burst of ten, then as many as seconds went by.
    let recorded = server.events("source.refused").await.len();
    assert!((10..=number).contains(&recorded), "{recorded} records");
    let mut stream = server.append("agent").await;
    assert_eq!((stream.welcome.epoch, stream.welcome.next_sequence), (0, 0));
    stream.receipt(Chain::new("dev-agent").seal(&[line("good")])).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_share_is_held_neither_by_a_stated_count_nor_by_a_sender_that_takes_no_answers() {
    const BATCHES: u64 = 200;
    let server = Fixture::start().await;
    // So small a window that the answers to most of these batches can't leave the server.
    let mut narrow = Append::open(server.narrow_channel("panel").await).await.unwrap();
    let mut chain = Chain::new("dev-panel");
    for _ in 0..BATCHES {
        narrow.send(Request::Batch(chain.seal(&[line("unread")]))).await;
    }
    while server.of_source("dev-panel").await.len() as u64 != BATCHES {}

    let mut stream = server.append("admin").await;
    let mut other = Chain::new("dev-admin-host");
    for _ in 0..10 {
        let refusal = server.append("agent").await.refusal(spoilt(|batch| batch.count = u32::MAX)).await;
        assert_eq!(refusal.kind(), RefusalKind::Invalid);
        stream.receipt(other.seal(&[line("goes on")])).await;
    }
    for _ in 0..BATCHES {
        assert!(matches!(narrow.answer().await, Ok(Some(v1::append_response::Message::Ack(_)))));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_good_before_what_is_not_keeps_its_receipt() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let good = chain.seal(&[line("good")]);
    let mut bad = chain.seal(&[line("bad")]);
    bad.hash = vec![0; 32].into();
    let mut stream = server.append("agent").await;
    stream.send(Request::Batch(good)).await;
    stream.send(Request::Batch(bad)).await;
    assert!(matches!(stream.answer().await, Ok(Some(v1::append_response::Message::Ack(_)))));
    assert!(matches!(stream.answer().await, Ok(Some(v1::append_response::Message::Refusal(_)))));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_make_no_sense_end_the_stream_with_a_reason() {
    let server = Fixture::start().await;
    let oversized = spoilt(|batch| batch.block = noise(MESSAGE_MAX_BYTES));
    let hello = v1::Hello { protocol: 1, ..Default::default() };
    let cases = [
        (Some(Request::Batch(oversized)), Code::OutOfRange, "the limit is: 8519680 bytes"),
        (Some(Request::Hello(hello)), Code::FailedPrecondition, "Hello is sent once"),
        (None, Code::InvalidArgument, "of a kind that this server does not know"),
    ];
    for (message, code, expected) in cases {
        let mut stream = server.append("agent").await;
        stream.sender.send(v1::AppendRequest { message }).await.unwrap();
        let status = stream.answer().await.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().contains(expected), "{status:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_a_hello_of_a_known_protocol() {
    let server = Fixture::start().await;
    let first = |message| async {
        let requests = tokio_stream::iter([v1::AppendRequest { message: Some(message) }]);
        let mut client = v1::ingest_client::IngestClient::new(server.channel("agent").await);
        let mut answers = client.append(requests).await.unwrap().into_inner();
        answers.message().await.unwrap_err()
    };
    let status = first(Request::Heartbeat(v1::Heartbeat::default())).await;
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "the first message must be Hello"));
    let status = first(Request::Hello(v1::Hello { protocol: 2, ..Default::default() })).await;
    assert!(status.message().contains("this server speaks 1"), "{status:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_has_so_many_streams_and_no_more() {
    let server = Fixture::start_with(|config| config.limits.streams_per_source = 2).await;
    let first = server.append("agent").await;
    let _second = server.append("agent").await;
    let channel = server.channel("agent").await;
    let Err(status) = Append::open(channel.clone()).await else { panic!("a third stream") };
    assert_eq!(status.code(), Code::ResourceExhausted);
    // Another source has streams of its own; and one that ended makes room.
    server.append("panel").await;
    drop(first.sender);
    let mut answers = first.answers;
    assert!(answers.message().await.unwrap().is_none());
    drop(answers);
    let mut opened = Append::open(channel.clone()).await;
    while opened.is_err() {
        tokio::task::yield_now().await;
        opened = Append::open(channel.clone()).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_hang_do_not_keep_out_the_session_that_ends_them() {
    let server = Fixture::start_with(|config| config.limits.streams_per_source = 2).await;
    let mut hang = [server.append("agent").await, server.append("agent").await];
    let Err(status) = Append::open(server.channel("agent").await).await else { panic!("a third stream") };
    assert_eq!(status.code(), Code::ResourceExhausted);
    let hello = v1::Hello { epoch: 1, ..v1::Hello::default() };
    let mut session = Append::saying(server.channel("agent").await, hello).await.unwrap();
    for stream in &mut hang {
        assert_eq!(stream.answer().await.unwrap_err().code(), Code::Aborted);
    }
    session.receipt(Chain::new("dev-agent").seal(&[line("it goes on")])).await;
    // Streams on which nothing is said are bounded, too.
    let mut client = IngestClient::new(server.channel("agent").await);
    let mut silent = Vec::new();
    let status = loop {
        match client.append(tokio_stream::pending::<v1::AppendRequest>()).await {
            Ok(stream) => silent.push(stream),
            Err(status) => break status,
        }
        assert!(silent.len() < 10, "anybody may open as many as he likes");
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    server.stop().await;
}
