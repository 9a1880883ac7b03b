//! Reading: what is found, and that every read is itself on record.

use prost::Message;
use sha2::{Digest, Sha256};
use sigillo_model::{
    audit::Walker,
    ids::{ChainHash, Origin},
    record::Record,
    state::JournalState,
};
use sigillo_proto::v1::{self, search_response, walk_response};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::support::{Chain, Fixture, ORIGIN, SOON, attribute, body, fields, line, results};

async fn filled(records: usize) -> (Fixture, Chain) {
    // Without checkpoints, whose counters are a record that comes at no particular time.
    let server = Fixture::start_with(|config| config.checkpoint = None).await;
    let mut chain = Chain::new("dev-agent");
    let lines: Vec<Record> = (0..records).map(|n| line(&format!("line {n}"))).collect();
    let mut stream = server.append("agent").await;
    for batch in lines.chunks(7) {
        stream.receipt(chain.seal(batch)).await;
    }
    (server, chain)
}

fn of_agent() -> v1::Filter {
    v1::Filter { sources: vec!["dev-agent".into()], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_recorded_with_who_why_what_and_what_came_of_it() {
    let (server, _) = filled(20).await;
    let filter = v1::Filter { contains: b"line 1".as_slice().into(), ..Default::default() };
    let request = v1::SearchRequest { filter: Some(filter), reason: "case 4711".into(), ..Default::default() };
    let answers = server.query().await.search(request).await.unwrap().into_inner();
    let (found, done) = results(answers).await;
    let done = done.unwrap();
    assert_eq!((found.len(), done.matched, done.cursor.len()), (11, 11, 0));

    let opened = server.events("read.opened").await.remove(0);
    assert_eq!(attribute(&opened, "reason"), "case 4711");
    assert_eq!(attribute(&opened, "filter"), r#"{"contains":"line 1"}"#);
    assert_eq!(attribute(&opened, "read"), "search");
    let personal = opened.personal.unwrap();
    assert_eq!(personal.actor.unwrap().id, "dev-investigator");
    assert_eq!(personal.client_address, "127.0.0.1");

    let closed = server.events("read.closed").await.remove(0);
    assert_eq!(closed.core.as_ref().unwrap().target, opened.core.unwrap().target);
    assert_eq!((attribute(&closed, "ended"), attribute(&closed, "matched")), ("complete".into(), "11".into()));
    assert_eq!(attribute(&closed, "snapshot_size"), done.snapshot_size.to_string());
    let mut digest = Sha256::new();
    for result in &found {
        digest.update(&result.envelope);
        for part in [&result.core, &result.personal, &result.content] {
            digest.update([u8::from(part.is_some())]);
            if let Some(bytes) = part {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            }
        }
    }
    assert_eq!(attribute(&closed, "results_sha256"), hex::encode(digest.finalize()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_neither_skip_nor_repeat() {
    let (server, mut chain) = filled(50).await;
    for newest_first in [false, true] {
        let mut words = Vec::new();
        let mut cursor = Vec::new();
        loop {
            let request = v1::SearchRequest {
                filter: Some(of_agent()),
                limit: 8,
                newest_first,
                cursor: cursor.into(),
                ..Default::default()
            };
            let answers = server.query().await.search(request).await.unwrap().into_inner();
            let (found, done) = results(answers).await;
            words.extend(found.iter().map(body));
            // What comes between two pages is not of this search.
            server.append("agent").await.receipt(chain.seal(&[line("between")])).await;
            let done = done.unwrap();
            if done.cursor.is_empty() {
                break;
            }
            cursor = done.cursor.to_vec();
        }
        if newest_first {
            words.reverse();
            words.truncate(50);
        }
        let expected: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        assert_eq!(words, expected);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_search_is_refused() {
    let (server, _) = filled(20).await;
    let mut query = server.query().await;
    let request = v1::SearchRequest { filter: Some(of_agent()), limit: 3, ..Default::default() };
    let (_, done) = results(query.search(request.clone()).await.unwrap().into_inner()).await;
    let request = v1::SearchRequest { cursor: done.unwrap().cursor, ..request };
    let others = [
        v1::SearchRequest { newest_first: true, ..request.clone() },
        v1::SearchRequest { filter: None, ..request.clone() },
        v1::SearchRequest { cursor: request.cursor.slice(1..), ..request.clone() },
    ];
    for other in others {
        assert_eq!(query.search(other).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(query.search(request).await.is_ok());
    let unknown = v1::Filter { classes: vec!["vpn".into()], ..Default::default() };
    let request = v1::SearchRequest { filter: Some(unknown), ..Default::default() };
    assert_eq!(query.search(request).await.unwrap_err().message(), "there is no class \"vpn\"");
    server.stop().await;
}

async fn next(answers: &mut Streaming<v1::SearchResponse>) -> v1::ResultRecord {
    loop {
        let answer = timeout(SOON, answers.message()).await.expect("a record").unwrap().unwrap();
        if let Some(search_response::Message::Record(record)) = answer.message {
            return record;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_shows_the_last_and_then_what_comes_but_not_itself() {
    let (server, mut chain) = filled(10).await;
    let request = v1::TailRequest { filter: None, reason: "watch".into(), lines: 2 };
    let mut answers = server.query().await.tail(request).await.unwrap().into_inner();
    assert_eq!(body(&next(&mut answers).await), "line 8");
    assert_eq!(body(&next(&mut answers).await), "line 9");
    let mut stream = server.append("agent").await;
    for word in ["new one", "new two"] {
        stream.receipt(chain.seal(&[line(word)])).await;
        assert_eq!(body(&next(&mut answers).await), word, "not a record of the tail itself");
    }
    // Another's reads are shown.
    server.of_source("dev-agent").await;
    let shown = fields(&next(&mut answers).await);
    assert_eq!(
        (shown.core.as_ref().unwrap().event_name.as_str(), attribute(&shown, "read")),
        ("read.opened", "search".into())
    );
    server.stop().await;
}

/// Follows the ends of reads, so that they can be awaited.
async fn ends(server: &Fixture) -> Streaming<v1::SearchResponse> {
    let filter = v1::Filter { actions: vec!["read.closed".into()], ..Default::default() };
    let request = v1::TailRequest { filter: Some(filter), ..Default::default() };
    server.query().await.tail(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_or_never_reads_is_on_record() {
    let server = Fixture::start_with(|config| config.limits.stall_timeout_s = 1).await;
    let mut chain = Chain::new("dev-agent");
    let mut stream = server.append("agent").await;
    // More than all buffers on the way hold.
    let large = line(&"x".repeat(1_000_000));
    for _ in 0..6 {
        stream.receipt(chain.seal(&vec![large.clone(); 8])).await;
    }
    let mut ends = ends(&server).await;
    let request = v1::SearchRequest { filter: Some(of_agent()), ..Default::default() };
    let unread = server.query().await.search(request.clone()).await.unwrap();
    assert_eq!(attribute(&fields(&next(&mut ends).await), "ended"), "reader stalled");
    drop(unread);
    drop(server.query().await.search(request).await.unwrap());
    assert_eq!(attribute(&fields(&next(&mut ends).await), "ended"), "reader gone");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_reads_and_no_more() {
    let server = Fixture::start_with(|config| config.limits.reads = 1).await;
    let _tail = ends(&server).await;
    let status = server.query().await.search(v1::SearchRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let reason = v1::SearchRequest { reason: "r".repeat(4_097), ..Default::default() };
    assert_eq!(server.query().await.search(reason).await.unwrap_err().code(), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_gives_everything_to_verify_the_head() {
    let (server, _) = filled(30).await;
    let request = v1::WalkRequest { reason: "audit".into(), ..Default::default() };
    let mut answers = server.audit().await.walk(request).await.unwrap().into_inner();
    let Some(walk_response::Message::Start(start)) = answers.message().await.unwrap().unwrap().message else {
        panic!("a walk begins with its start")
    };
    let head = start.head.unwrap();
    let mut walker = Walker::whole(JournalState::genesis(Origin::new(ORIGIN).unwrap()));
    let mut digest = Sha256::new();
    let end = loop {
        match answers.message().await.unwrap().unwrap().message.unwrap() {
            walk_response::Message::Entry(entry) => {
                walker.step(&entry).unwrap();
                digest.update((entry.len() as u64).to_be_bytes());
                digest.update(&entry);
            }
            walk_response::Message::End(end) => break end,
            walk_response::Message::Start(_) => panic!("a second start"),
        }
    };
    walker.check_head(head.size, ChainHash::new(head.chain_hash.as_ref().try_into().unwrap())).unwrap();
    assert_eq!(end.records, head.size);
    let closed = server.events("read.closed").await.remove(0);
    assert_eq!(attribute(&closed, "results_sha256"), hex::encode(digest.finalize()));
    assert!(closed.encode().as_ref().core.is_some_and(|core| v1::CorePart::decode(core).is_ok()));

    let beyond = v1::WalkRequest { from: 0, to: head.size + 1_000, ..Default::default() };
    assert_eq!(server.audit().await.walk(beyond).await.unwrap_err().code(), Code::OutOfRange);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_cancelled_while_it_is_opened_is_closed_all_the_same() {
    const READS: usize = 40;
    let server = Fixture::start().await;
    for turn in 0..READS {
        let mut query = server.query().await;
        let read = tokio::spawn(async move { query.search(v1::SearchRequest::default()).await.map(drop) });
        // A little later each time, so that some are in the middle of it.
        for _ in 0..turn * 20 {
            tokio::task::yield_now().await;
        }
        read.abort();
    }
    // These searches are reads as well, and each is closed before its answer ends.
    timeout(SOON, async {
        loop {
            let opened = server.events("read.opened").await.len();
            let closed = server.events("read.closed").await.len();
            // The second search finds the first one's opening closed.
            if opened > 0 && closed == opened + 1 {
                break;
            }
        }
    })
    .await
    .expect("every opening gets its closing");
    server.stop().await;
}
