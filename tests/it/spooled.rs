//! The engine over a spool, against the real server: signed heads when much is sent at once.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use sigillo_client::{
    Connection, Endpoint,
    spooled::{Chunk, Engine, Loss, Options, SpoolOptions},
};
use sigillo_model::record::{Record, RecordRef};
use sigillo_proto::{record::Fields, v1};
use sigillo_testkit::{
    config::{self, READER, Source},
    server::{Server, ServerCommand},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(60);

fn server() -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    config::write(dir.path(), &[Source { name: "host".into(), class: "service" }]).unwrap();
    let server = ServerCommand::configured(dir.path()).start().unwrap();
    (dir, server)
}

/// Each record becomes a batch of its own.
fn options(endpoint: Endpoint, spool: &Path) -> Options {
    let declare = |loss: &Loss| record(format!("lost {}", loss.from).into_bytes());
    let (spool, quarantine) = (SpoolOptions::new(spool), spool.with_extension("quarantine"));
    Options { max_records: 1, ..Options::new(endpoint, spool, quarantine, "test", Arc::new(declare)) }
}

fn record(content: Vec<u8>) -> Record {
    let body = v1::AnyValue { value: Some(v1::any_value::Value::BytesValue(content.into())) };
    let content = v1::ContentPart { body: Some(body), ..v1::ContentPart::default() };
    Fields { content: Some(content), ..Fields::default() }.encode()
}

fn numbered(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

async fn push(engine: &Engine, contents: impl IntoIterator<Item = Vec<u8>>) {
    for content in contents {
        let chunk = Chunk { records: vec![record(content)], ..Chunk::default() };
        timeout(SOON, engine.push(chunk)).await.unwrap().unwrap();
    }
}

async fn search(server: &Server, filter: v1::Filter) -> Vec<Fields> {
    let reader = Connection::open(&server.endpoint(READER)).await.unwrap();
    let request = v1::SearchRequest { filter: Some(filter), reason: "test".into(), ..v1::SearchRequest::default() };
    let mut answers = reader.search(request).await.unwrap();
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await.unwrap() {
        let Some(v1::search_response::Message::Record(record)) = answer.message else { continue };
        let (core, personal, content) = (record.core.as_deref(), record.personal.as_deref(), record.content.as_deref());
        found.push(Fields::decode(RecordRef { core, personal, content }));
    }
    found
}

/// How often each number came.
async fn numbers(server: &Server) -> BTreeMap<u32, u32> {
    let mut numbers = BTreeMap::new();
    for fields in search(server, v1::Filter { sources: vec!["host".into()], ..v1::Filter::default() }).await {
        let body = fields.content.and_then(|content| content.body?.value);
        let Some(v1::any_value::Value::BytesValue(bytes)) = body else { panic!("{body:?}") };
        *numbers.entry(u32::from_be_bytes(bytes.as_ref().try_into().unwrap())).or_default() += 1;
    }
    numbers
}

async fn events(server: &Server, name: &str) -> usize {
    let filter = v1::Filter { actions: vec![name.into()], classes: vec!["journal".into()], ..v1::Filter::default() };
    search(server, filter).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_in_a_new_epoch_comes_once_and_no_head_is_missed() {
    let (dir, server) = server();
    let online = || server.endpoint("host");
    // The port of nobody.
    let offline = || Endpoint { url: "https://127.0.0.1:9".into(), ..online() };
    let spool = dir.path().join("spool");
    let engine = Engine::start(options(online(), &spool)).await.unwrap();
    push(&engine, [numbered(0)]).await;
    assert_eq!(engine.drain("test", sleep(SOON)).await.unwrap(), 0);
    // Far more batches than may come without a head.
    let engine = Engine::start(options(offline(), &spool)).await.unwrap();
    push(&engine, (1..1_500).map(numbered)).await;
    // The first one is there, too: nobody has said in this life that it is acknowledged.
    assert_eq!(engine.drain("test", sleep(Duration::from_secs(3))).await.unwrap(), 1_500);
    // Another sender with the same certificate begins an epoch, so that all of it goes on in another one.
    let engine = Engine::start(options(online(), &dir.path().join("other"))).await.unwrap();
    push(&engine, [numbered(1_500)]).await;
    assert_eq!(engine.drain("test", sleep(SOON)).await.unwrap(), 0);
    let engine = Engine::start(options(online(), &spool)).await.unwrap();
    push(&engine, [numbered(1_501)]).await;
    assert_eq!(engine.drain("test", sleep(SOON)).await.unwrap(), 0);
    let (numbers, missed) = (numbers(&server).await, events(&server, "source.head_missing").await);
    let wrong: Vec<_> = (0..1_502).filter(|number| numbers.get(number) != Some(&1)).collect();
    assert!(wrong.is_empty() && missed == 0, "not there once: {wrong:?}; alarms: {missed}");
    assert_eq!(events(&server, "source.head_invalid").await, 0);
    server.stop().unwrap();
}

/// Of 20 KB a second, for longer than the server waits for a head.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes four minutes"]
async fn no_head_is_missed_over_a_slow_link() {
    let (dir, server) = server();
    let options = options(server.endpoint("host"), &dir.path().join("spool"));
    let engine = Engine::start(Options { bandwidth_bytes_s: Some(20_000), ..options }).await.unwrap();
    let mut state = 7_u64;
    let mut noise = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let contents: Vec<Vec<u8>> = (0..75).map(|_| (0..64 << 10).map(&mut noise).collect()).collect();
    push(&engine, contents).await;
    assert_eq!(engine.drain("test", sleep(5 * SOON)).await.unwrap(), 0);
    assert_eq!(events(&server, "source.head_missing").await, 0);
    assert!(events(&server, "source.head").await >= 5);
    server.stop().unwrap();
}
