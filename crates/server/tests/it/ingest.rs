//! Appending: receipts, repetitions, gaps, forks, tenants, losses, streams that are cut.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use sigillo_model::{
    envelope::{Envelope, Flags},
    ids::TenantId,
    record::Record,
};
use sigillo_proto::v1::{self, RefusalKind, append_request::Message as Request, append_response::Message as Answer};
use sigillo_server::{
    clock::{Clock, Moment},
    config::{SpeaksFor, SpeaksForWord, TenantTable},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tonic::Code;

use crate::support::{Append, Chain, Fixture, SOON, attribute, body, connect, line, noise, with_core};

/// A receipt without its signature.
fn words(receipt: v1::Receipt) -> v1::Receipt {
    v1::Receipt { frame_index: 0, frame_path: Bytes::new(), frame_note: Bytes::new(), ..receipt }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_get_receipts_in_order_and_the_same_ones_again() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let first = chain.seal(&[line("one"), line("two")]);
    let second = chain.seal(&[line("three")]);

    let mut stream = server.append("agent").await;
    assert_eq!((stream.welcome.epoch, stream.welcome.next_sequence), (0, 0));
    assert_eq!(stream.welcome.class, "service");
    stream.send(Request::Batch(first.clone())).await;
    stream.send(Request::Batch(second.clone())).await;
    let mut receipts = Vec::new();
    for next in [2, 3] {
        let Ok(Some(Answer::Ack(ack))) = stream.answer().await else { panic!("no ack") };
        assert_eq!((ack.epoch, ack.next_sequence), (1, next));
        receipts.push(ack.receipt.unwrap());
    }
    assert_eq!((receipts[0].first, receipts[0].count, receipts[1].first), (0, 2, 2));
    assert!(receipts[1].sequence >= receipts[0].sequence + 2);

    let mut again = server.append("agent").await;
    assert_eq!((again.welcome.epoch, again.welcome.next_sequence), (1, 3));
    assert_eq!(again.welcome.head, second.hash);
    // The same words; each frame has a signature of its own.
    assert_eq!(words(again.receipt(first).await), words(receipts[0].clone()));
    assert_eq!(words(again.receipt(second).await), words(receipts[1].clone()));
    let words: Vec<String> = server.of_source("dev-agent").await.iter().map(body).collect();
    assert_eq!(words, ["one", "two", "three"]);
    assert_eq!(server.events("source.epoch_opened").await.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_on_is_refused_with_what_was_expected() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let begin = chain.clone();
    server.append("agent").await.receipt(chain.seal(&[line("one"), line("two")])).await;

    let mut ahead = chain.clone();
    ahead.seal(&[line("never sent")]);
    let gap = server.append("agent").await.refusal(ahead.seal(&[line("four")])).await;
    assert_eq!((gap.kind(), gap.expected_epoch, gap.expected_sequence), (RefusalKind::Gap, 1, 2));

    let fork = server.append("agent").await.refusal(begin.clone().seal(&[line("one"), line("other")])).await;
    assert_eq!((fork.kind(), fork.expected_epoch, fork.expected_sequence), (RefusalKind::Fork, 1, 2));
    let alarms = server.events("source.fork").await;
    assert_eq!(alarms.len(), 1);
    assert_eq!(attribute(&alarms[0], "expected_sequence"), "2");

    let mut newer = Chain::epoch("dev-agent", 9, Some(chain.head));
    server.append("agent").await.receipt(newer.seal(&[line("anew")])).await;
    let stale = server.append("agent").await.refusal(chain.seal(&[line("three")])).await;
    assert_eq!((stale.kind(), stale.expected_epoch, stale.expected_sequence), (RefusalKind::StaleEpoch, 9, 1));

    let words: Vec<String> = server.of_source("dev-agent").await.iter().map(body).collect();
    assert_eq!(words, ["one", "two", "anew"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fork_goes_unrecorded_however_much_a_source_does_wrong() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let begin = chain.clone();
    server.append("agent").await.receipt(chain.seal(&[line("one")])).await;
    // Cheap, and more than get records of their own.
    let invalid = 20;
    for _ in 0..invalid {
        let batch = v1::Batch { count: 0, ..chain.clone().seal(&[line("two")]) };
        assert_eq!(server.append("agent").await.refusal(batch).await.kind(), RefusalKind::Invalid);
    }
    // They have turns of their own; who uses these up, too, is held back.
    let mut forks = Vec::new();
    loop {
        let batch = begin.clone().seal(&[line(&format!("other {}", forks.len()))]);
        forks.push(hex::encode(&batch.hash));
        let mut stream = server.append("agent").await;
        stream.send(Request::Batch(batch)).await;
        match stream.answer().await.unwrap() {
            Some(Answer::Refusal(refusal)) => assert_eq!(refusal.kind(), RefusalKind::Fork),
            Some(Answer::Throttle(_)) => break,
            other => panic!("{other:?}"),
        }
        assert!(forks.len() < 1_000, "somebody fills the journal with alarms");
    }
    assert!(forks.len() > 10, "{} forks", forks.len());
    // It does not come again. What waits becomes a record all the same, and counts what was left out before it.
    let last = Instant::now();
    loop {
        let alarms = server.events("source.fork").await;
        let recorded: Vec<_> = alarms.iter().map(|alarm| attribute(alarm, "batch_hash")).collect();
        let refused = server.events("source.refused").await;
        let left_out = refused.iter().map(|alarm| attribute(alarm, "left_out_before").parse::<usize>().unwrap());
        let counted = refused.len() + left_out.sum::<usize>();
        assert!(refused.len() < invalid, "somebody fills the journal with refusals");
        if recorded == forks && counted == invalid {
            break;
        }
        assert!(last.elapsed() < SOON, "{} of {} forks, {counted} of {invalid}", recorded.len(), forks.len());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_to_the_tenant_that_the_grant_allows() {
    let server = Fixture::start_with(|config| {
        config.open_tenants = false;
        config.tenants = vec![TenantTable { name: "acme".into() }, TenantTable { name: "bolt".into() }];
        config.sources[0].speaks_for = SpeaksFor::List(vec!["acme".into()]);
        config.sources[1].speaks_for = SpeaksFor::Word(SpeaksForWord::All);
        config.sources[2].speaks_for = SpeaksFor::Word(SpeaksForWord::None);
        config.sources[2].home = "bolt".into();
    })
    .await;
    let claims = ["", "acme", "acme", "bolt", "nobody"];
    let records: Vec<Record> = claims
        .iter()
        .map(|tenant| with_core(tenant, v1::CorePart { tenant: (*tenant).into(), ..Default::default() }))
        .collect();
    let expected = [
        (
            "agent",
            "dev-agent",
            [("provider", false), ("acme", false), ("acme", false), ("provider", true), ("provider", true)],
        ),
        (
            "panel",
            "dev-panel",
            [("provider", false), ("acme", false), ("acme", false), ("bolt", false), ("provider", true)],
        ),
        ("admin", "dev-admin-host", [("bolt", false), ("bolt", true), ("bolt", true), ("bolt", false), ("bolt", true)]),
    ];
    for (file, source, tenants) in expected {
        server.append(file).await.receipt(Chain::new(source).seal(&records)).await;
        let found = server.of_source(source).await;
        assert_eq!(found.len(), tenants.len());
        for (record, (tenant, refused)) in found.iter().zip(tenants) {
            let envelope = Envelope::from_bytes(&record.envelope).unwrap();
            let claim = body(record);
            assert_eq!(record.tenant, tenant, "{source} claims {claim:?}");
            assert_eq!(envelope.tenant, TenantId::from_name(tenant), "{source} claims {claim:?}");
            assert_eq!(envelope.flags.contains(Flags::TENANT_REFUSED), refused, "{source} claims {claim:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_bytes_are_kept_as_they_came() {
    let server = Fixture::start().await;
    let odd =
        Record { core: Some(vec![0xff; 30].into()), personal: None, content: Some(vec![0x0a, 0x05, 0xfe].into()) };
    server.append("agent").await.receipt(Chain::new("dev-agent").seal(std::slice::from_ref(&odd))).await;
    let found = server.of_source("dev-agent").await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].core, &found[0].personal, &found[0].content), (&odd.core, &odd.personal, &odd.content));
    server.stop().await;
}

/// Forwards to the server, but no more than so many bytes of what the client says.
async fn cut_after(server: std::net::SocketAddr, bytes: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut allowed = tokio::io::AsyncReadExt::take(&mut from_client, bytes as u64);
        tokio::io::copy(&mut allowed, &mut to_server).await.unwrap();
        to_server.shutdown().await.unwrap();
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_leaves_nothing_half_written() {
    let server = Fixture::start().await;
    let proxy = cut_after(server.address, 1 << 20).await;
    let mut chain = Chain::new("dev-agent");
    let small = chain.seal(&[line("whole")]);
    let content = |_| Record { content: Some(noise(1 << 20)), ..Record::default() };
    let large = chain.seal(&(0..4).map(content).collect::<Vec<_>>());

    let channel = connect(proxy, server.dir.path(), Some("agent")).await.unwrap();
    let mut stream = Append::open(channel).await.unwrap();
    stream.receipt(small).await;
    stream.send(Request::Batch(large.clone())).await;
    assert!(stream.answer().await.is_err(), "the connection was cut");

    let mut stream = server.append("agent").await;
    assert_eq!(stream.welcome.next_sequence, 1);
    assert_eq!(server.of_source("dev-agent").await.len(), 1);
    assert_eq!(stream.receipt(large).await.count, 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_takes_no_answers_is_held_back_and_cut_off() {
    let server = Fixture::start_with(|config| {
        config.limits.stall_timeout_s = 1;
        config.limits.drain_timeout_s = 1;
    })
    .await;
    let stream = server.append("agent").await;
    let mut chain = Chain::new("dev-agent");
    let mut sent = 0;
    loop {
        let batch = chain.seal(&[line("x")]);
        let message = v1::AppendRequest { message: Some(Request::Batch(batch)) };
        // The transport takes no more once the server has ended the stream.
        if stream.sender.send(message).await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent < 100_000, "answers that nobody takes pile up without end");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_taken_under_a_time_that_nobody_confirmed() {
    const START: u64 = 1_800_000_000_000_000_000;
    let wall = Arc::new(AtomicU64::new(START));
    let read = Arc::clone(&wall);
    let clock = Clock::reading(move || Moment { wall_ns: read.load(Ordering::Relaxed), uptime_ns: 0 });
    let server = Fixture::start_in(tempfile::tempdir().unwrap(), |_| {}, clock).await;
    let mut chain = Chain::new("dev-agent");
    let receipt = server.append("agent").await.receipt(chain.seal(&[line("before")])).await;
    assert_eq!(receipt.receipt_time_unix_nano, START);

    let later = START + 60_000_000_000;
    wall.store(later, Ordering::Relaxed);
    let batch = chain.seal(&[line("after")]);
    let mut stream = server.append("agent").await;
    stream.send(Request::Batch(batch.clone())).await;
    let Ok(Some(Answer::Throttle(throttle))) = stream.answer().await else { panic!("no throttle") };
    assert!(throttle.reason.contains("SIGUSR1"), "{}", throttle.reason);
    assert_eq!(stream.answer().await.unwrap_err().code(), Code::Unavailable);

    // Reads go on. The alarm stands in the journal before the confirmation does.
    server.controls.confirm_clock.notify_one();
    let confirmed = loop {
        let states = server.events("clock.state").await;
        if states.len() == 2 {
            break states;
        }
    };
    assert_eq!(attribute(&confirmed[1], "confirmed_step_ns"), "60000000000");
    assert_eq!(attribute(&server.events("clock.stepped").await[0], "by_ns"), "60000000000");
    let receipt = server.append("agent").await.receipt(batch).await;
    assert_eq!(receipt.receipt_time_unix_nano, later);
    server.stop().await;
}
