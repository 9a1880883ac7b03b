//! Start, stop, and what is read again in between.

use std::{fs, os::unix::fs::PermissionsExt};

use sigillo_proto::v1::append_response::Message as Answer;
use sigillo_server::{clock::Clock, config::ClassTable, dev};

use crate::support::{Chain, Fixture, attribute, body, configure, connect, line};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_was_taken_and_is_on_record() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let mut stream = server.append("agent").await;
    stream.receipt(chain.seal(&[line("taken")])).await;
    server.controls.shutdown.cancel();
    let Ok(Some(Answer::Drain(drain))) = stream.answer().await else { panic!("no drain") };
    assert!(drain.reconnect_ms > 0);
    assert!(matches!(stream.answer().await, Ok(None)), "the stream ends well");
    let dir = server.stop().await;

    let server = Fixture::start_in(dir, |_| {}, Clock::default()).await;
    assert_eq!(server.of_source("dev-agent").await.iter().map(body).collect::<Vec<_>>(), ["taken"]);
    assert_eq!(server.events("journal.started").await.len(), 2);
    assert_eq!(server.events("journal.stopped").await.len(), 1);
    assert_eq!(server.events("journal.unclean_stop").await.len(), 0);
    assert_eq!(server.events("clock.state").await.len(), 2);
    let loaded = server.events("config.loaded").await;
    assert_eq!(attribute(&loaded[0], "config_sha256").len(), 64);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_in_the_same_folder_changes_nothing_there() {
    let server = Fixture::start().await;
    // Answers only when it has started.
    server.append("agent").await;
    let path = server.dir.path().join("sigillod.toml");
    let before = fs::read_to_string(&path).unwrap();
    let other = "127.0.0.1:1".parse().unwrap();
    let error = dev::prepare(server.dir.path(), other, other).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_are_nobody_elses_to_read() {
    let server = Fixture::start().await;
    server.append("agent").await;
    let mode = fs::metadata(server.dir.path().join("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_a_class_keeps_its_name_for_ever() {
    let class = |name: &str| vec![ClassTable { name: name.into(), number: 300, retention: None }];
    let dir = Fixture::start_with(|config| config.classes = class("vpn")).await.stop().await;
    // Also when a configuration in between did not know it.
    let dir = Fixture::start_in(dir, |_| {}, Clock::default()).await.stop().await;
    let error = Fixture::start_in(dir, |config| config.classes = class("doors"), Clock::default()).await.fails().await;
    assert!(error.to_string().contains("\"doors\" has number 300, which the journal knows as \"vpn\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again() {
    let server = Fixture::start().await;
    let other = tempfile::tempdir().unwrap();
    configure(other.path(), |_| {});
    assert!(connect(server.address, other.path(), Some("agent")).await.is_err());
    for file in ["server.pem", "server.key", "ca.pem"] {
        fs::copy(other.path().join(file), server.dir.path().join(file)).unwrap();
    }
    server.controls.reload.notify_one();
    while connect(server.address, other.path(), Some("agent")).await.is_err() {}
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_and_nothing_else() {
    let server = Fixture::start().await;
    server.append("agent").await.receipt(Chain::new("dev-agent").seal(&[line("counted")])).await;
    let metrics = server.scrape("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("sigillo_ingest_records_total"), "{metrics}");
    assert!(server.scrape("/").await.starts_with("HTTP/1.1 404"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_written_for_those_who_asked_for_free_ports() {
    let server = Fixture::start().await;
    // Answers only when it has started.
    server.append("agent").await;
    let text = fs::read_to_string(server.dir.path().join("data/addresses.toml")).unwrap();
    let (listen, metrics, publish) = (server.address, server.metrics, server.published.unwrap());
    assert_eq!(text, format!("listen = \"{listen}\"\nmetrics = \"{metrics}\"\npublish = \"{publish}\"\n"));
    server.stop().await;
}
