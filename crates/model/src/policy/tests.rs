use std::fmt::Write as _;

use proptest::prelude::*;

use super::{parse::Fault, *};
use crate::{
    note::{KeyKind, SigningKey},
    tree,
};

fn key(name: &str, kind: KeyKind, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, kind, &[seed; 32]).unwrap()
}

fn log() -> SigningKey {
    key("example.com/log", KeyKind::Log, 100)
}

fn witness(number: u8) -> SigningKey {
    key(&format!("w{number}.example"), KeyKind::Cosigner, number)
}

/// The lines of a log and of witnesses w1 to w`count`, then these.
fn file(count: u8, more: &str) -> String {
    let mut out = format!("log {}\n", log().verifier());
    for number in 1..=count {
        writeln!(out, "witness w{number} {}", witness(number).verifier()).unwrap();
    }
    out + more
}

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text.as_bytes())
}

fn fault(text: &str) -> Fault {
    match parse(text) {
        Err(PolicyError::Line { fault, .. }) => fault,
        other => panic!("{text}: {other:?}"),
    }
}

/// A checkpoint that the log has signed, and each of these witnesses at a time.
fn note(cosigned: &[(u8, u64)]) -> Note {
    let text = Checkpoint { origin: "example.com/log".into(), size: 5, root: tree::leaf(b"x") }.text();
    let mut note = Note::new(text.clone(), vec![log().sign(&text).unwrap()]).unwrap();
    for (number, time) in cosigned {
        note.add(witness(*number).cosign(&text, *time).unwrap()).unwrap();
    }
    note
}

/// Two of three of one operator and one of three of another, as in the specification's example.
const GROUPS: &str = "\
    group X-witnesses 2 w1 w2 w3\n\
    \n\
    # the others\n\
    \tgroup  Y-witnesses\tany w4 w5 w6 \n\
    group X-and-Y all X-witnesses Y-witnesses\n\
    quorum X-and-Y\n";

#[test]
fn a_quorum_of_groups_is_counted() {
    let policy = parse(&file(6, GROUPS)).unwrap();
    let judge = |cosigned: &[(u8, u64)]| {
        let note = note(cosigned);
        let judgement = policy.check(&note).unwrap();
        assert_eq!(judgement.cosignatures.len(), cosigned.len());
        assert_eq!((judgement.checkpoint.size, judgement.log.name()), (5, "example.com/log"));
        (judgement.quorum, judgement.quorum_time)
    };
    assert_eq!(judge(&[]), (false, None));
    assert_eq!(judge(&[(1, 10), (2, 10), (3, 10)]), (false, None));
    assert_eq!(judge(&[(1, 10), (4, 10), (5, 10), (6, 10)]), (false, None));
    assert_eq!(judge(&[(1, 10), (2, 20), (4, 30)]), (true, Some(10)));
    assert_eq!(judge(&[(1, 10), (2, 20), (3, 30), (4, 40)]), (true, Some(20)));
    assert_eq!(judge(&[(3, 30), (2, 20), (5, 7), (1, 10), (4, 15)]), (true, Some(15)));
    // A witness that signed twice counts once, at its latest time.
    assert_eq!(judge(&[(1, 10), (1, 50), (4, 60)]), (false, None));
    assert_eq!(judge(&[(1, 10), (1, 50), (2, 40), (4, 60)]), (true, Some(40)));
}

#[test]
fn a_single_witness_and_none() {
    let one = parse(&file(2, "quorum w2\n")).unwrap();
    assert!(!one.check(&note(&[(1, 5)])).unwrap().quorum);
    assert_eq!(one.check(&note(&[(2, 5)])).unwrap().quorum_time, Some(5));
    let unwitnessed = parse(&file(1, "quorum none\n")).unwrap();
    let note = note(&[(1, 5)]);
    let judgement = unwitnessed.check(&note).unwrap();
    assert_eq!((judgement.quorum, judgement.quorum_time, judgement.cosignatures.len()), (true, None, 1));
    assert!(!unwitnessed.asks_for_witnesses() && one.asks_for_witnesses());
}

#[test]
fn strangers_do_not_count_and_forgeries_spoil() {
    let policy = parse(&file(1, "quorum w1\n")).unwrap();
    assert!(!policy.check(&note(&[(2, 5), (3, 5)])).unwrap().quorum);

    let forged = note(&[(1, 5)]).to_string().replace("\n5\n", "\n6\n");
    assert!(matches!(policy.check(&Note::parse(forged.as_bytes()).unwrap()), Err(JudgementError::Note(_))));
    // Only the witness has signed.
    let text = note(&[]).text().to_owned();
    let alone = Note::new(text.clone(), vec![witness(1).cosign(&text, 5).unwrap()]).unwrap();
    assert!(matches!(policy.check(&alone), Err(JudgementError::NotTheLog(_))));
    // A log of the file speaks for its own origin only.
    let other = Checkpoint { origin: "example.com/other".into(), size: 5, root: tree::leaf(b"x") }.text();
    let other = Note::new(other.clone(), vec![log().sign(&other).unwrap()]).unwrap();
    assert!(matches!(policy.check(&other), Err(JudgementError::NotTheLog(_))));
    let extended = format!("{text}more\n");
    let extended = Note::new(extended.clone(), vec![log().sign(&extended).unwrap()]).unwrap();
    assert!(matches!(policy.check(&extended), Err(JudgementError::Checkpoint(CheckpointError::Extension))));
}

#[test]
fn auditors_are_named_beside_the_quorum() {
    let auditor = key("auditor.example", KeyKind::Auditor, 50);
    let policy = parse(&file(1, &format!("quorum w1\nauditor {}\n", auditor.verifier()))).unwrap();
    let mut note = note(&[]);
    note.add(auditor.cosign(note.text(), 77).unwrap()).unwrap();
    let judgement = policy.check(&note).unwrap();
    assert!(!judgement.quorum);
    assert_eq!(judgement.auditors, [(auditor.verifier(), 77)]);
}

#[test]
fn written_as_read() {
    let plain = |name: &str, seed| key(name, KeyKind::Log, seed).verifier().to_string();
    let more = format!(
        "recovery {}\nreceipt {}\nofficer {}\nofficer {}\nexporter {}\nauditor {}\ntsa {}\n",
        plain("recovery", 60),
        plain("receipt", 61),
        plain("o1", 62),
        plain("o2", 63),
        plain("exporter", 64),
        key("auditor", KeyKind::Auditor, 65).verifier(),
        "ab".repeat(32),
    );
    let url = format!("log {} https://example.com/log/\n", key("second", KeyKind::Log, 101).verifier());
    let text = file(6, &(url + GROUPS + &more));
    let policy = parse(&text).unwrap();
    assert_eq!(policy.officers().len(), 2);
    assert_eq!(policy.logs()[1].url.as_ref().and_then(Word::as_str), Some("https://example.com/log/"));
    assert_eq!(policy.authorities(), [[0xab; 32]]);
    let written = policy.to_bytes();
    assert_eq!(Policy::parse(&written), Ok(policy));
    assert_eq!(String::from_utf8(written).unwrap().lines().count(), 19);
}

#[test]
fn names_are_octets() {
    let mut text = b"witness caf\xe9 ".to_vec();
    text.extend(witness(1).verifier().to_string().bytes());
    text.extend(b" https://ex\xe4mple/\n# \xff\nquorum caf\xe9\n");
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.witnesses()[0].name.as_str(), None);
    assert_eq!(Policy::parse(&policy.to_bytes()), Ok(policy));
    // Another spelling is another name.
    let latin = String::from_utf8_lossy(&text).into_owned();
    assert!(Policy::parse(latin.replacen("quorum caf\u{fffd}", "quorum cafe", 1).as_bytes()).is_err());
}

#[test]
fn faulty_lines_are_named() {
    let expect = |text: &str, expected: fn(&Fault) -> bool| {
        let fault = fault(&file(3, text));
        assert!(expected(&fault), "{text:?}: {fault:?}");
    };
    expect("quorum w4\n", |fault| matches!(fault, Fault::Undefined(_)));
    expect("quorum none\nquorum none\n", |fault| matches!(fault, Fault::SecondQuorum));
    expect("quorum g\ngroup g any w1\n", |fault| matches!(fault, Fault::Undefined(_)));
    expect("group g any g\n", |fault| matches!(fault, Fault::Undefined(_)));
    expect("group g any none\n", |fault| matches!(fault, Fault::Undefined(_)));
    expect("group g any w1 w1\n", |fault| matches!(fault, Fault::Member(_)));
    expect("group g any w1\ngroup h any w2 w1\n", |fault| matches!(fault, Fault::Member(_)));
    expect("group w1 any w2\n", |fault| matches!(fault, Fault::Taken(_)));
    expect("group none any w2\n", |fault| matches!(fault, Fault::Taken(_)));
    for threshold in ["0", "3", "01", "-1", "some", "99999999999999999999"] {
        expect(&format!("group g {threshold} w1 w2\n"), |fault| matches!(fault, Fault::Threshold));
    }
    expect("group g any\n", |fault| matches!(fault, Fault::Threshold));
    expect("group g\n", |fault| matches!(fault, Fault::Words(_)));
    expect("quorum none none\n", |fault| matches!(fault, Fault::Words(_)));
    expect("quorum none\r\n", |fault| matches!(fault, Fault::Control));
    expect("# \u{1}\n", |fault| matches!(fault, Fault::Control));
    expect("Quorum none\n", |fault| matches!(fault, Fault::Keyword));
    expect("log\n", |fault| matches!(fault, Fault::Words(_)));
    expect("log x+y+z\n", |fault| matches!(fault, Fault::Key(_)));
    expect("tsa AB\n", |fault| matches!(fault, Fault::Hash));
    expect(&format!("tsa {}\n", "AB".repeat(32)), |fault| matches!(fault, Fault::Hash));
    // The same public key, under other names.
    let twice = format!("witness again {}\n", key("other.example", KeyKind::Cosigner, 1).verifier());
    expect(&twice, |fault| matches!(fault, Fault::Duplicate(_)));
    let twice = format!("log {}\n", key("other.example", KeyKind::Log, 100).verifier());
    expect(&twice, |fault| matches!(fault, Fault::Duplicate(_)));
    // Keys of the wrong kind.
    for line in [
        format!("log {}\n", witness(9).verifier()),
        format!("witness x {}\n", key("x", KeyKind::Log, 9).verifier()),
        format!("witness x {}\n", key("x", KeyKind::Auditor, 9).verifier()),
        format!("auditor {}\n", witness(9).verifier()),
        format!("officer {}\n", witness(9).verifier()),
    ] {
        expect(&line, |fault| matches!(fault, Fault::Kind { .. }));
    }
    assert_eq!(parse(&file(1, "")), Err(PolicyError::NoQuorum));
    assert_eq!(parse(""), Err(PolicyError::NoQuorum));
    assert_eq!(parse("quorum none"), Err(PolicyError::CutOff));
    assert_eq!(parse(&"#".repeat(POLICY_MAX_BYTES + 1)), Err(PolicyError::TooLong(POLICY_MAX_BYTES + 1)));
    assert!(parse("quorum none\n").is_ok());
}

#[test]
fn at_least_32_of_each_are_taken() {
    let mut text = String::new();
    for number in 1..=200 {
        writeln!(text, "log {}", key(&format!("l{number}"), KeyKind::Log, number).verifier()).unwrap();
        writeln!(text, "witness w{number} {}", witness(number).verifier()).unwrap();
        let below = if number == 1 { String::new() } else { format!(" g{}", number - 1) };
        writeln!(text, "group g{number} any w{number}{below}").unwrap();
    }
    text += "quorum g200\n";
    let policy = parse(&text).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len(), policy.groups.len()), (200, 200, 200));
    // Through two hundred groups, without recursion.
    assert!(policy.is_quorum(&[(0, 5)], 0) && !policy.is_quorum(&[(0, 5)], 6));
}

proptest! {
    #[test]
    fn what_is_read_is_written_alike(cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut bytes = file(6, GROUPS).into_bytes();
        for (at, byte) in cuts {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(policy) = Policy::parse(&bytes) {
            prop_assert_eq!(Policy::parse(&policy.to_bytes()), Ok(policy));
        }
    }
}
