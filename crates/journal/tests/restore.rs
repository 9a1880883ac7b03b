//! Orders that came after a backup are not undone by restoring it.

use sigillo_journal::{Direction, Journal, Options, Submission, TenantRun, restore, verify};
use sigillo_model::{
    batch::{self, Batch},
    block::{BlockBuilder, Inflater},
    class::Class,
    entry::Gone,
    envelope::Flags,
    ids::{BatchSecret, Epoch, Origin, ReceiptTime, RetentionId, SourceId, SourceSeq, TenantId},
    note::{KeyKind, Note, SigningKey},
    record::RecordRef,
    statement::{self, Act, Erasure, Order, Retention},
};

/// A journal's own records and a service's, each batch in an epoch of its own.
async fn submit(journal: &Journal, class: Class, source: SourceId, contents: &[Vec<u8>]) {
    let mut builder = BlockBuilder::default();
    for content in contents {
        builder.push(RecordRef { content: Some(content), ..RecordRef::default() }).unwrap();
    }
    let epoch = Epoch::new(journal.source(source).map_or(1, |state| state.epoch.get() + 1));
    let (first, previous) = (SourceSeq::new(0), journal.epoch_opening(source, epoch));
    let batch = Batch::seal(&mut builder, source, epoch, first, previous, BatchSecret::new([1; 32]), 1).unwrap();
    let commitments = batch::commitments(&batch.secret, &batch.open(&mut Inflater::default()).unwrap());
    let records = u32::try_from(contents.len()).unwrap();
    let tenant = TenantId::from_name("provider");
    let runs = vec![TenantRun { tenant, retention: class.retention(), flags: Flags::default(), records }];
    let received = ReceiptTime::new(1);
    journal.submit(Submission { source, class: class.id(), batch, commitments, runs, received }).await.unwrap();
}

/// A record's content part that holds this order in `original`, signed by two officers.
fn order(origin: &Origin, act: &Act) -> Vec<u8> {
    let text = Order::text(origin, act);
    let sign = |name, seed| SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap().sign(&text).unwrap();
    let note = Note::new(text.clone(), vec![sign("one", 1), sign("two", 2)]).unwrap().to_bytes();
    let mut content = vec![0x1a];
    let mut length = note.len();
    while length >= 0x80 {
        content.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    content.push(u8::try_from(length).unwrap());
    content.extend(note);
    content
}

#[tokio::test]
async fn orders_that_came_after_the_backup_are_given_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (data, saved) = (folder.path().join("data"), folder.path().join("saved"));
    let origin = Origin::new("restore.example").unwrap();
    let journal = Journal::open(&Options::new(&data, origin.clone())).unwrap().journal;
    submit(&journal, Class::Service, SourceId::from_name("web-1"), &[b"kept".into(), b"erased".into()]).await;
    journal.backup(&saved, 7, |_| ()).unwrap();

    submit(&journal, Class::Service, SourceId::from_name("web-1"), &[b"lost".into()]).await;
    let erase = |targets: &[u64]| {
        let targets = targets.iter().map(|seq| (*seq, Gone::RECORD)).collect();
        order(&origin, &Act::Erase(Erasure { basis: "case 1".to_owned(), targets }))
    };
    let keep = Act::Keep(Retention { class: RetentionId::new(3), keep_s: 600 });
    let given = [erase(&[1]), order(&origin, &keep), erase(&[2]), erase(&[0, 2])];
    submit(&journal, Class::Journal, statement::journal_source(), &given).await;
    // Whoever else says so gives no order.
    submit(&journal, Class::Service, SourceId::from_name("web-1"), &[erase(&[0])]).await;
    journal.close().await.unwrap();

    let restored = tokio::task::spawn_blocking({
        let (data, saved, origin) = (data.clone(), saved.clone(), origin.clone());
        move || {
            let verified = restore::verify_backup(&saved, |_| ()).unwrap();
            let plan = restore::plan(verified, &data, &origin).unwrap();
            let loss = plan.loss().unwrap().clone();
            assert_eq!((loss.records, loss.replayed_orders, loss.remarks.len()), (6, 2, 1), "{loss:?}");
            assert!(loss.remarks[0].contains("record 6"), "the one that names a lost record and another: {loss:?}");
            plan.restore(Some(6), ReceiptTime::new(9), "now", ("restored", b"note"), |_| ()).unwrap()
        }
    })
    .await
    .unwrap();

    assert_eq!(restored.size, 4, "two records and two orders");
    assert_eq!(verify::verify(&data, |_| ()).unwrap().records, 4);
    let journal = Journal::open(&Options::new(&data, origin)).unwrap().journal;
    for stored in journal.reader().entries(0..2, Direction::Forward) {
        let stored = stored.unwrap();
        let gone: Vec<_> = (0..2).map(|index| stored.entry().unwrap().gone(index)).collect();
        assert_eq!(gone, [Gone::NOTHING, Gone::RECORD], "what was erased since did not come back");
    }
    let mut orders = Vec::new();
    for stored in journal.reader().entries(2..u64::MAX, Direction::Forward) {
        let stored = stored.unwrap();
        let entry = stored.entry().unwrap();
        let mut inflater = Inflater::default();
        let block = entry.block(&mut inflater).unwrap();
        orders.extend(block.records().map(|record| record.content.unwrap().to_vec()));
    }
    assert_eq!(orders, given[..2], "word for word, and in order");
}
