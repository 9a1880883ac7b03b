//! A shipper against a server that cuts, waits, drains and refuses.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use sigillo_client::{
    ClientError, Connection,
    ship::{Options, Outcome, Shipper},
};
use sigillo_model::{
    ids::{BatchHash, Epoch, SourceSeq},
    record::Record,
};
use sigillo_proto::v1::{self, RefusalKind};

use crate::server::{Act, TestServer};

fn record(number: usize) -> Record {
    Record { content: Some(format!("line {number}").into()), ..Record::default() }
}

fn lines(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("line {number}").into_bytes()).collect()
}

async fn shipper(server: &TestServer, max_records: usize) -> Shipper {
    let connection = Connection::open(&server.endpoint).await.unwrap();
    Shipper::start(&connection, Options { max_records, ..Options::new("test 1") }).await.unwrap()
}

async fn push(shipper: &mut Shipper, numbers: std::ops::Range<usize>) {
    for number in numbers {
        shipper.push(&record(number)).await.unwrap();
    }
}

/// Ships ten lines in five batches through the script, and gives the server afterwards.
async fn ship_ten(script: &[Act]) -> (TestServer, Vec<v1::Receipt>) {
    let server = TestServer::start(script.iter().copied()).await;
    let mut shipper = shipper(&server, 2).await;
    push(&mut shipper, 0..10).await;
    let receipts = shipper.flush().await.unwrap();
    assert_eq!(shipper.waiting(), 0);
    let closing = Instant::now();
    shipper.close().await;
    assert!(closing.elapsed() < Duration::from_secs(3), "a stream that has ended is not waited for");
    assert_eq!(server.shared().durable, lines(10));
    (server, receipts)
}

#[tokio::test]
async fn records_arrive_in_order_with_receipts() {
    let (server, receipts) = ship_ten(&[]).await;
    let shown: Vec<_> = receipts.iter().map(|receipt| (receipt.first, receipt.count, receipt.sequence)).collect();
    assert_eq!(shown, [(0, 2, 0), (2, 2, 2), (4, 2, 4), (6, 2, 6), (8, 2, 8)]);
    assert_eq!(server.shared().hellos[0].epoch, 0, "the first hello asks");
}

#[tokio::test]
async fn what_was_cut_is_sent_again_unchanged() {
    let (server, receipts) = ship_ten(&[Act::Take, Act::Lose, Act::Take, Act::TakeSilently]).await;
    assert_eq!(receipts.iter().map(|receipt| receipt.count).sum::<u32>(), 10);
    let shared = server.shared();
    let mut again = 0;
    for (index, batch) in shared.arrived.iter().enumerate() {
        for other in shared.arrived.iter().skip(index + 1).filter(|other| other.first == batch.first) {
            assert_eq!(batch, other);
            again += 1;
        }
    }
    assert!(again >= 2, "{again} batches came twice");
    let later = shared.hellos.last().unwrap();
    assert_eq!((later.epoch, shared.hellos.len()), (shared.epoch.get(), 3));
    assert!(later.first_retained >= 2 && later.head.len() == 32, "{later:?}");
}

#[tokio::test]
async fn a_throttle_is_obeyed() {
    let server = TestServer::start([Act::Take, Act::Throttle { wait_ms: 300 }]).await;
    let mut shipper = shipper(&server, 2).await;
    push(&mut shipper, 0..2).await;
    shipper.flush().await.unwrap();
    let before = Instant::now();
    push(&mut shipper, 2..4).await;
    shipper.flush().await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));
    let shared = server.shared();
    assert_eq!(shared.durable, lines(4));
    assert_eq!((shared.arrived.len(), shared.hellos.len()), (3, 1), "sent again on the same stream");
}

#[tokio::test]
async fn a_throttle_is_obeyed_when_the_stream_then_ends_with_an_error() {
    let before = Instant::now();
    let (server, _) = ship_ten(&[Act::Take, Act::ThrottleAndEnd { wait_ms: 900 }]).await;
    assert!(before.elapsed() >= Duration::from_millis(900));
    assert_eq!(server.shared().hellos.len(), 2);
}

#[tokio::test]
async fn a_draining_server_is_left_and_found_again() {
    let before = Instant::now();
    let (server, _) = ship_ten(&[Act::Take, Act::Drain { reconnect_ms: 400 }]).await;
    assert!(before.elapsed() >= Duration::from_millis(400));
    assert_eq!(server.shared().hellos.len(), 2);
}

#[tokio::test]
async fn a_refused_batch_is_given_back_and_the_others_go_on_in_a_new_epoch() {
    let server = TestServer::start([Act::Take, Act::Refuse(RefusalKind::Invalid)]).await;
    let mut shipper = shipper(&server, 2).await;
    push(&mut shipper, 0..6).await;
    shipper.cut().await.unwrap();
    let mut outcomes = Vec::new();
    while shipper.waiting() > 0 {
        outcomes.push(shipper.settled().await.unwrap());
    }
    assert_eq!(outcomes.iter().map(|settled| settled.records).collect::<Vec<_>>(), [2, 2, 2]);
    let Outcome::Refused { batch, message } = &outcomes[1].outcome else { panic!("{outcomes:?}") };
    assert_eq!((batch.first, batch.count, message.as_str()), (2, 2, "because"));
    let Outcome::Durable(receipt) = &outcomes[2].outcome else { panic!("{outcomes:?}") };
    assert!(receipt.epoch > batch.epoch && receipt.first == 0, "{receipt:?}");
    let expected: Vec<_> = [0, 1, 4, 5].map(|number| format!("line {number}").into_bytes()).into();
    assert_eq!(server.shared().durable, expected);
}

#[tokio::test]
async fn a_flush_names_the_refused_batch() {
    let server = TestServer::start([Act::Refuse(RefusalKind::Invalid)]).await;
    let mut shipper = shipper(&server, 2).await;
    push(&mut shipper, 0..1).await;
    let error = shipper.flush().await.unwrap_err();
    assert!(matches!(&error, ClientError::InvalidBatch { first: 0, count: 1, message, .. } if message == "because"));
}

#[tokio::test]
async fn forks_gaps_and_stale_epochs_stop_the_shipper_and_say_why() {
    for (kind, word) in [
        (RefusalKind::Fork, "two senders"),
        (RefusalKind::StaleEpoch, "newer epoch"),
        (RefusalKind::Gap, "does not hold any more"),
    ] {
        let server = TestServer::start([Act::Take, Act::Refuse(kind)]).await;
        let mut shipper = shipper(&server, 2).await;
        push(&mut shipper, 0..2).await;
        shipper.flush().await.unwrap();
        if kind == RefusalKind::Gap {
            // It has forgotten what it acknowledged.
            server.shared().next = SourceSeq::new(1);
        }
        push(&mut shipper, 2..4).await;
        let error = shipper.flush().await.unwrap_err().to_string();
        assert!(error.contains(word), "{kind:?}: {error}");
        assert!(matches!(shipper.flush().await, Err(ClientError::Stopped)));
    }
}

#[tokio::test]
async fn a_gap_that_we_can_fill_is_filled() {
    let (server, _) = ship_ten(&[Act::Take, Act::Take, Act::Refuse(RefusalKind::Gap)]).await;
    assert_eq!(server.shared().hellos.len(), 2);
}

#[tokio::test]
async fn an_epoch_continues_the_chain_of_the_one_before() {
    let server = TestServer::start([]).await;
    // The test server recomputes the opening value from what it knows; a wrong one is refused as a fork.
    let mut epochs = Vec::new();
    for number in 0..3 {
        let mut shipper = shipper(&server, 2).await;
        push(&mut shipper, number..number + 1).await;
        epochs.push(shipper.flush().await.unwrap()[0].epoch);
        shipper.close().await;
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    assert_eq!(server.shared().durable, lines(3));
}

#[tokio::test]
async fn an_epoch_is_greater_than_any_known_even_with_a_clock_set_back() {
    let server = TestServer::start([]).await;
    let future = u64::MAX / 2;
    server.shared().epoch = Epoch::new(future);
    server.shared().head = Some(BatchHash::new([7; 32]));
    let connection = Connection::open(&server.endpoint).await.unwrap();
    let options = Options { after: Epoch::new(future + 5), ..Options::new("test 1") };
    let mut shipper = Shipper::start(&connection, options).await.unwrap();
    push(&mut shipper, 0..1).await;
    assert_eq!(shipper.flush().await.unwrap()[0].epoch, future + 6);
}

#[tokio::test]
async fn an_opening_that_was_overtaken_is_made_anew_without_losing_records() {
    let (server, _) = ship_ten(&[Act::Overtaken]).await;
    let shared = server.shared();
    let epochs: Vec<_> = shared.arrived.iter().map(|batch| batch.epoch).collect();
    assert!(epochs.first() < epochs.last(), "{epochs:?}");
}

#[tokio::test]
async fn pushing_waits_while_too_much_is_under_way() {
    // Nothing is acknowledged for a while.
    let server = TestServer::start([Act::Throttle { wait_ms: 1_000 }]).await;
    let connection = Connection::open(&server.endpoint).await.unwrap();
    let options = Options { max_records: 1, window_bytes: 1, ..Options::new("test 1") };
    let mut shipper = Shipper::start(&connection, options).await.unwrap();
    let mut pushed = 0;
    let waits = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            shipper.push(&record(pushed)).await.unwrap();
            pushed += 1;
        }
    });
    assert!(waits.await.is_err());
    // One in the window, one that waits for it, one being built.
    assert_eq!((pushed, shipper.waiting()), (3, 3));
    push(&mut shipper, 3..5).await;
    assert_eq!(shipper.flush().await.unwrap().len(), 5);
    assert_eq!(server.shared().durable, lines(5));
}

#[tokio::test]
async fn a_small_credit_still_lets_one_batch_pass() {
    let server = TestServer::start([]).await;
    server.shared().credit_bytes = 1;
    let mut shipper = shipper(&server, 2).await;
    push(&mut shipper, 0..10).await;
    shipper.flush().await.unwrap();
    assert_eq!(server.shared().durable, lines(10));
}

#[tokio::test]
async fn a_shipper_can_give_up() {
    let server = TestServer::start([Act::Lose]).await;
    let connection = Connection::open(&server.endpoint).await.unwrap();
    let options = Options { give_up_after: Some(Duration::from_secs(1)), ..Options::new("test 1") };
    let mut shipper = Shipper::start(&connection, options).await.unwrap();
    std::fs::remove_file(&server.endpoint.ca).unwrap();
    push(&mut shipper, 0..1).await;
    let error = shipper.flush().await.unwrap_err();
    assert!(matches!(&error, ClientError::GaveUp { reason, .. } if reason.contains("ca file")), "{error}");
}

#[tokio::test]
async fn connecting_again_and_again_is_no_reason_to_go_on_waiting() {
    static NOTICES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let server = TestServer::start([Act::ThrottleAndEnd { wait_ms: 100 }; 100]).await;
    let connection = Connection::open(&server.endpoint).await.unwrap();
    let options = Options {
        give_up_after: Some(Duration::from_secs(2)),
        notice: Some(|text| NOTICES.lock().unwrap().push(text.to_owned())),
        ..Options::new("test 1")
    };
    let mut shipper = Shipper::start(&connection, options).await.unwrap();
    push(&mut shipper, 0..1).await;
    let before = Instant::now();
    let error = shipper.flush().await.unwrap_err();
    assert!((2..4).contains(&before.elapsed().as_secs()));
    let reason = "the server asks us to wait: too \\u{1b}[31mmuch";
    assert!(matches!(&error, ClientError::GaveUp { reason: said, .. } if said == reason), "{error:?}");
    assert!(server.shared().hellos.len() > 2);
    assert_eq!(*NOTICES.lock().unwrap(), [reason], "told once, and without control characters");
}
