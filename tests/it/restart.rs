//! What survives the end of a server.

use std::fs;

use sigillo_client::{Connection, PROTOCOL};
use sigillo_model::record::Record;
use sigillo_proto::v1::{self, append_request, append_response::Message};
use sigillo_testkit::{
    batches::BatchChain,
    config::{self, READER, Source},
    database::Database,
    records::records,
    server::{Server, ServerCommand},
};

use crate::support::{Dev, ship_file, sigillo_json, sigillo_ok};

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let lines: Vec<String> = (0..1_200).map(|n| format!("before the kill {n}")).collect();
    let lines = lines.join("\n") + "\n";
    dev.ship("app.log", lines.as_bytes());
    let head = sigillo_json(dir, &["head"]).remove(0);

    let killed = dev.server.kill().unwrap();
    assert!(!killed.status.success());
    let server = killed.command.start().unwrap();
    let found = sigillo_json(dir, &["query", "before the kill", "--source", "dev-agent", "--reason", "test"]);
    let originals: Vec<_> = found.iter().map(|record| record["original"].as_str().unwrap().to_owned()).collect();
    assert_eq!(originals, lines.lines().collect::<Vec<_>>());
    let (size, chain) = (head["size"].to_string(), head["chain_hash"].as_str().unwrap());
    sigillo_ok(dir, &["verify", "--expect-size", &size, "--expect-chain", chain, "--reason", "test"]);
    let events = sigillo_json(dir, &["query", "--class", "journal", "--reason", "test"]);
    let count = |name: &str| events.iter().filter(|record| record["event_name"] == name).count();
    assert_eq!((count("journal.unclean_stop"), count("journal.stopped")), (1, 0), "{events:?}");

    // The agent goes on where it was.
    fs::write(dir.join("app.log"), format!("{lines}after the kill\n")).unwrap();
    ship_file(dir, "app.log");
    assert_eq!(sigillo_json(dir, &["query", "the kill", "--source", "dev-agent", "--reason", "test"]).len(), 1_201);
    drop(server);
}

#[test]
fn a_clean_stop_is_recorded_and_a_second_server_is_refused() {
    let dev = Dev::start();
    let refused = dev.server.command().start_refused().unwrap();
    assert!(!refused.success());
    let url = format!("https://{}", dev.server.listen());
    sigillo_ok(dev.dir.path(), &["--server", &url, "head"]);
    let stopped = dev.server.stop().unwrap();
    assert!(stopped.status.success(), "{}", stopped.command.log_tail());
    let server = stopped.command.start().unwrap();
    let events = sigillo_json(dev.dir.path(), &["query", "--class", "journal", "--reason", "test"]);
    let count = |name: &str| events.iter().filter(|record| record["event_name"] == name).count();
    assert_eq!((count("journal.stopped"), count("journal.unclean_stop"), count("journal.started")), (1, 0, 2));
    drop(server);
}

#[test]
fn a_database_of_another_version_is_refused_and_left_alone() {
    let dev = Dev::start();
    let stopped = dev.server.stop().unwrap();
    let set_format = |format: &[u8]| {
        let database = Database::open(&stopped.command.data_dir()).unwrap();
        database.put("meta", b"format", format).unwrap();
        database.close().unwrap();
    };
    set_format(b"sigillo journal 3");
    assert!(!stopped.command.start_refused().unwrap().success());
    let log = stopped.command.log_tail();
    assert!(log.contains("sigillo journal 3"), "the log names the version: {log}");
    set_format(b"sigillo journal 2");
    assert!(stopped.command.start().is_ok(), "nothing was harmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_drains_what_it_took() {
    let (dir, server) = one_source();
    let connection = Connection::open(&server.endpoint("source")).await.unwrap();
    let hello = v1::Hello { protocol: PROTOCOL, agent: "test 1".into(), epoch: 1, ..v1::Hello::default() };
    let mut session = connection.append(hello).await.unwrap();
    let mut chain = BatchChain::new(&config::origin().unwrap(), "source", 1);
    let mut records = records(1);
    let mut acknowledged = 0;
    for number in 0..40 {
        let batch: Vec<Record> = records.by_ref().take(100).collect();
        let batch = chain.seal(&batch).unwrap();
        session.send(append_request::Message::Batch((&batch).into())).await.unwrap();
        if number == 20 {
            server.terminate().unwrap();
            break;
        }
    }
    let mut drained = false;
    while let Some(answer) = session.recv().await.unwrap() {
        match answer {
            Message::Ack(ack) => acknowledged = ack.next_sequence,
            Message::Drain(_) => drained = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(drained, "a server that stops says so");
    let stopped = server.stop().unwrap();
    assert!(stopped.status.success(), "{}", stopped.command.log_tail());

    let server = stopped.command.start().unwrap();
    let connection = Connection::open(&server.endpoint("source")).await.unwrap();
    let hello = v1::Hello { protocol: PROTOCOL, agent: "test 1".into(), epoch: 0, ..v1::Hello::default() };
    let welcome = connection.append(hello).await.unwrap().welcome;
    assert!(welcome.next_sequence >= acknowledged && acknowledged > 0, "{acknowledged} then {welcome:?}");
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_again_gets_the_same_receipt() {
    let (dir, server) = one_source();
    let mut chain = BatchChain::new(&config::origin().unwrap(), "source", 1);
    let batch = chain.seal(&records(1).take(50).collect::<Vec<_>>()).unwrap();
    let receipt = send_one(&server, &batch).await;
    let stopped = server.kill().unwrap();
    let server = stopped.command.start().unwrap();
    assert_eq!(send_one(&server, &batch).await, receipt);
    let reader = Connection::open(&server.endpoint(READER)).await.unwrap();
    let filter = v1::Filter { sources: vec!["source".into()], ..v1::Filter::default() };
    let request = v1::SearchRequest { filter: Some(filter), reason: "test".into(), ..v1::SearchRequest::default() };
    let mut answers = reader.search(request).await.unwrap();
    let mut found = 0;
    while let Some(answer) = answers.next().await.unwrap() {
        found += u32::from(matches!(answer.message, Some(v1::search_response::Message::Record(_))));
    }
    assert_eq!(found, 50, "each record once");
    drop(dir);
}

async fn send_one(server: &Server, batch: &sigillo_model::batch::Batch) -> v1::Receipt {
    let connection = Connection::open(&server.endpoint("source")).await.unwrap();
    let hello = v1::Hello { protocol: PROTOCOL, agent: "test 1".into(), epoch: 1, ..v1::Hello::default() };
    let mut session = connection.append(hello).await.unwrap();
    session.send(append_request::Message::Batch(batch.into())).await.unwrap();
    match session.recv().await.unwrap() {
        Some(Message::Ack(ack)) => ack.receipt.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn one_source() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    config::write(dir.path(), &[Source { name: "source".into(), class: "service" }]).unwrap();
    let server = ServerCommand::configured(dir.path()).start().unwrap();
    (dir, server)
}
