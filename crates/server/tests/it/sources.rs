//! The register of sources, and who is reported as silent.

use std::time::{Duration, Instant};

use sigillo_proto::{
    record::Fields,
    v1::{self, any_value::Value, append_request::Message as Request},
};
use sigillo_server::clock::Clock;
use tokio::time::sleep;

use crate::support::{Append, Chain, Fixture, SOON, attribute, line};

const SECOND_NS: u64 = 1_000_000_000;

async fn resident(server: &Fixture, name: &str) -> Append {
    let hello = v1::Hello { resident: true, ..Default::default() };
    Append::saying(server.channel(name).await, hello).await.unwrap()
}

async fn status(server: &Fixture, name: &str) -> v1::SourceStatus {
    server.sources().await.into_iter().find(|source| source.name == name).unwrap()
}

/// A record with which a source declares a loss.
fn loss(lines: i64) -> sigillo_model::record::Record {
    let value = v1::AnyValue { value: Some(Value::IntValue(lines)) };
    let attributes = vec![v1::KeyValue { key: "lines".into(), value: Some(value) }];
    let core = v1::CorePart { event_name: "agent.loss".into(), ..Default::default() };
    let content = v1::ContentPart { attributes, ..Default::default() };
    Fields { core: Some(core), content: Some(content), ..Fields::default() }.encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_is_reported_within_30_s_and_its_return_is_too() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let mut cut = resident(&server, "agent").await;
    // Two that are not missed: one that goes on, and one that never said that it stays.
    let stays = resident(&server, "panel").await;
    server.append("admin").await.receipt(Chain::new("dev-admin-host").seal(&[line("once")])).await;
    cut.receipt(chain.seal(&[line("the last one")])).await;
    let last = Instant::now();
    drop(cut);

    while server.events("source.silent").await.is_empty() {
        assert!(last.elapsed() < Duration::from_secs(30), "not reported within 30 s");
        stays.send(Request::Heartbeat(v1::Heartbeat::default())).await;
        sleep(Duration::from_millis(500)).await;
    }
    assert!(last.elapsed() >= Duration::from_secs(20), "reported after {:?}", last.elapsed());
    let reported = server.events("source.silent").await;
    assert_eq!(reported.len(), 1);
    let core = reported[0].core.clone().unwrap();
    assert_eq!((core.target.unwrap().id.as_str(), core.severity_number), ("dev-agent", 13));
    assert_eq!(attribute(&reported[0], "rhythm"), "stays connected");
    assert_eq!(attribute(&reported[0], "streams"), "0");
    let silent: Vec<_> = server.sources().await.into_iter().filter(|source| source.silent).collect();
    assert_eq!((silent.len(), silent[0].name.as_str()), (1, "dev-agent"));
    let metrics = server.scrape("/metrics").await;
    assert!(metrics.contains("sigillo_source_silent{source=\"dev-agent\"} 1"), "{metrics}");
    assert!(metrics.contains("sigillo_source_silent{source=\"dev-panel\"} 0"), "{metrics}");

    let _back = resident(&server, "agent").await;
    while server.events("source.heard").await.is_empty() {}
    assert!(!status(&server, "dev-agent").await.silent);
    assert_eq!(server.events("source.silent").await.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_register_tells_how_each_source_stands_and_outlives_a_restart() {
    let server = Fixture::start().await;
    let names: Vec<_> =
        server.sources().await.into_iter().map(|source| (source.name, source.last_seen_unix_nano)).collect();
    assert_eq!(names, [("dev-admin-host".into(), 0), ("dev-agent".into(), 0), ("dev-panel".into(), 0)]);

    let mut chain = Chain::new("dev-agent");
    let begin = chain.clone();
    let mut stream = resident(&server, "agent").await;
    let batch = chain.seal(&[line("one"), loss(7), loss(5)]);
    stream.receipt(batch.clone()).await;
    // Sent again it declares nothing again.
    stream.receipt(batch).await;
    let clock_unix_nano = stream.welcome.server_time_unix_nano - 100 * SECOND_NS;
    let oldest_unix_nano = clock_unix_nano - 9 * SECOND_NS;
    let heartbeat = v1::Heartbeat { waiting_records: 3, oldest_unix_nano, clock_unix_nano };
    stream.send(Request::Heartbeat(heartbeat)).await;
    stream.send(Request::Goodbye(v1::Goodbye { reason: "SIGTERM".into() })).await;
    // Refused, so that all before it has been handled.
    stream.refusal(begin.clone().seal(&[line("other")])).await;
    assert_eq!(status(&server, "dev-agent").await.goodbye, "SIGTERM");
    let mut ahead = chain.clone();
    ahead.seal(&[line("never sent")]);
    server.append("agent").await.refusal(ahead.seal(&[line("four")])).await;

    let agent = status(&server, "dev-agent").await;
    assert_eq!((agent.agent.as_str(), agent.class.as_str(), agent.resident), ("test", "service", true));
    // A session that does not mean to stay ends neither that it is missed, nor the count of its sessions.
    assert_eq!((agent.allowed_silence_nano, agent.goodbye.as_str()), (20 * SECOND_NS, ""));
    assert_eq!((agent.epoch, agent.next_sequence), (1, 3));
    assert_eq!((agent.losses, agent.lost_lines), (2, 12));
    assert!(agent.last_loss_unix_nano >= agent.first_seen_unix_nano);
    assert_eq!((agent.waiting_records, agent.lag_nano), (3, 9 * SECOND_NS));
    let skew_s = agent.skew_nano / 1_000_000_000;
    assert!((-120..=-100).contains(&skew_s), "{skew_s} s");
    assert_eq!((agent.sessions, agent.forks, agent.gaps, agent.invalid_batches), (2, 1, 1, 0));

    let asked = Instant::now();
    loop {
        let metrics = server.scrape("/metrics").await;
        let says = |figure: &str, count: u32| metrics.contains(&format!("{figure}{{source=\"dev-agent\"}} {count}"));
        if says("sigillo_source_forks", 1) && says("sigillo_source_gaps", 1) {
            assert!(metrics.contains("sigillo_source_forks{source=\"dev-panel\"} 0"), "{metrics}");
            break;
        }
        assert!(asked.elapsed() < SOON, "{metrics}");
    }
    let dir = server.stop().await;
    let server = Fixture::start_in(dir, |_| {}, Clock::default()).await;
    let again = status(&server, "dev-agent").await;
    assert_eq!((again.sessions, again.losses, again.gaps, again.resident), (2, 2, 1, true));
    assert_eq!((again.first_seen_unix_nano, again.streams), (agent.first_seen_unix_nano, 0));
    let dir = server.stop().await;

    std::fs::write(dir.path().join("data/sources.json"), "{\"version\":1,").unwrap();
    let server = Fixture::start_in(dir, |_| {}, Clock::default()).await;
    let anew = status(&server, "dev-agent").await;
    assert_eq!((anew.sessions, anew.next_sequence), (0, 3));
    server.stop().await;
}
