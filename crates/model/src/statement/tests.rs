use proptest::prelude::*;

use super::*;
use crate::note::SigningKey;

fn origin() -> Origin {
    Origin::new("journal.example/2026").unwrap()
}

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap()
}

fn erasure() -> Act {
    let parts = Gone::part(Part::Core).with(Gone::part(Part::Content));
    Act::Erase(Erasure { basis: "GDPR 17, case 12".into(), targets: vec![(3, Gone::RECORD), (9, parts)] })
}

fn signed(act: &Act, keys: &[&SigningKey]) -> Vec<u8> {
    let text = Order::text(&origin(), act);
    let signatures = keys.iter().map(|key| key.sign(&text).unwrap()).collect();
    Note::new(text, signatures).unwrap().to_bytes()
}

#[test]
fn orders_are_read_back() {
    let (ada, ben) = (key("ada", 1), key("ben", 2));
    for act in [erasure(), Act::Keep(Retention { class: RetentionId::new(3), keep_s: 86_400 })] {
        let bytes = signed(&act, &[&ada, &ben]);
        let Some(Ok(Statement::Order(order))) = Statement::parse(&bytes, &origin()) else { panic!("{act:?}") };
        assert_eq!(order.act, act);
        assert_eq!(order.note().to_bytes(), bytes);
        let officers = [ben.verifier().clone(), ada.verifier().clone()];
        assert_eq!(order.check(&officers), Ok((1, 0)));
        assert_eq!(order.check_form(), Ok(()));
    }
}

#[test]
fn two_different_officers_must_sign() {
    let (ada, ben, eve) = (key("ada", 1), key("ben", 2), key("eve", 3));
    let officers = [ada.verifier().clone(), ben.verifier().clone()];
    let check = |keys: &[&SigningKey]| Order::parse(&signed(&erasure(), keys), &origin()).unwrap().check(&officers);
    assert_eq!(check(&[&ada]), Err(StatementError::Officers(1)));
    assert_eq!(check(&[&ada, &ada]), Err(StatementError::Officers(1)));
    assert_eq!(check(&[&ada, &eve]), Err(StatementError::Officers(1)));
    assert_eq!(check(&[&eve]), Err(StatementError::Note(NoteError::NoKnownKey)));
    assert_eq!(check(&[&eve, &ben, &ada]), Ok((1, 0)));
    // One key under two names is one officer.
    let twin = key("ben", 1);
    let officers = [ada.verifier().clone(), twin.verifier().clone()];
    let order = Order::parse(&signed(&erasure(), &[&ada, &twin]), &origin()).unwrap();
    assert_eq!(order.check(&officers), Err(StatementError::Officers(1)));
    // A signature taken from another text.
    let mut note = Note::parse(&signed(&erasure(), &[&ada])).unwrap();
    let other = Note::parse(&signed(&Act::Keep(Retention { class: RetentionId::new(1), keep_s: 1 }), &[&ben])).unwrap();
    note.add(other.signatures()[0].clone()).unwrap();
    let officers = [ada.verifier().clone(), ben.verifier().clone()];
    let order = Order::parse(&note.to_bytes(), &origin()).unwrap();
    assert!(matches!(order.check(&officers), Err(StatementError::Note(NoteError::WrongSignature(_)))));
}

#[test]
fn texts_have_one_form() {
    let text = |lines: &str| parse_act(&lines.replace('|', "\n"), &origin());
    assert!(text("sigillo erasure v1|journal.example/2026|why|1 record|2 core,personal|").is_ok());
    let bad = [
        "sigillo erasure v1|journal.example/2026|why|",
        "sigillo erasure v1|journal.example/2026||1 record|",
        "sigillo erasure v1|journal.example/2026|why|1 record",
        "sigillo erasure v1|journal.example/2026|why|2 record|1 record|",
        "sigillo erasure v1|journal.example/2026|why|1 record|1 core|",
        "sigillo erasure v1|journal.example/2026|why|01 record|",
        "sigillo erasure v1|journal.example/2026|why|1 core,personal,content|",
        "sigillo erasure v1|journal.example/2026|why|1 personal,core|",
        "sigillo erasure v1|journal.example/2026|why|1 core,core|",
        "sigillo erasure v1|journal.example/2026|why|1 |",
        "sigillo erasure v1|journal.example/2025|why|1 record|",
        "sigillo erasure v2|journal.example/2026|why|1 record|",
        "sigillo retention v1|journal.example/2026|3|10||",
        "sigillo retention v1|journal.example/2026|65536|10|",
        "sigillo retention v1|journal.example/2026|3|99999999999|",
    ];
    for bad in bad {
        assert!(text(bad).is_err(), "{bad}");
    }
    let purge = Purge { from: 3, to: 9, class: RetentionId::new(2), retention: 40 };
    let bytes = purge.text(&origin());
    assert_eq!(Statement::parse(bytes.as_bytes(), &origin()), Some(Ok(Statement::Purge(purge))));
    for bad in
        [bytes.replace('9', "3"), bytes.replace("40\n", "40"), bytes.clone() + "\n", bytes.replace("2026", "2027")]
    {
        assert!(Statement::parse(bad.as_bytes(), &origin()).unwrap().is_err(), "{bad}");
    }
    assert_eq!(Statement::parse(b"sigillo counters v1\n", &origin()), Some(Ok(Statement::Other)));
    assert_eq!(Statement::parse(b"Sigillo erasure v1\n", &origin()), None);
}

#[test]
fn due_is_counted_from_the_end_of_a_minute() {
    let retention = Retention { class: RetentionId::new(1), keep_s: 10 };
    let at = |seconds: u64| ReceiptTime::new(seconds * 1_000_000_000);
    assert!(!retention.is_due(at(61), at(129)));
    assert!(retention.is_due(at(61), at(130)));
    assert!(retention.is_due(ReceiptTime::new(119_999_999_999), at(130)));
    assert!(!retention.is_due(at(120), at(130)));
    assert!(!retention.is_due(at(0), at(5)));
}

#[test]
fn the_original_is_found() {
    // Field 1, length 2; field 5, a number; field 7, 4 bytes; field 3 twice.
    let content = [&[0x0a, 2, 8, 1, 0x28, 0x96, 1, 0x3d, 1, 2, 3, 4, 0x1a, 1, b'x', 0x1a, 3][..], b"abc"].concat();
    assert_eq!(original(&content), Some(&b"abc"[..]));
    assert_eq!(original(&content[..content.len() - 1]), None);
    assert_eq!(original(&[]), None);
    assert!(is_statement(&[&[0x1a, 8][..], b"sigillo "].concat()));
    assert!(!is_statement(&[&[0x12, 8][..], b"sigillo "].concat()));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, text: String) {
        let _ = original(&bytes);
        let _ = Statement::parse(&bytes, &origin());
        let _ = Statement::parse(format!("sigillo purge v1\njournal.example/2026\n{text}").as_bytes(), &origin());
        let _ = parse_act(&format!("sigillo erasure v1\njournal.example/2026\nwhy\n{text}"), &origin());
        let _ = parse_parts(&text);
    }
}
