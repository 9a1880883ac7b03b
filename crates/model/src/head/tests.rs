use super::{
    statement::{KEYS_MAX, KeyLine, SourceKey, SourceKeys},
    *,
};
use crate::tree;

fn origin() -> Origin {
    Origin::new("journal.example.net/2026").unwrap()
}

fn head(next_key: [u8; 32]) -> SignedHead {
    SignedHead {
        origin: origin(),
        source: SourceId::from_name("web-1"),
        epoch: Epoch::new(7),
        next: SourceSeq::new(90),
        batch_hash: BatchHash::new([0xab; 32]),
        time_ns: 1_764_000_000_000_000_001,
        seen: (0, tree::empty()),
        next_key,
    }
}

#[test]
fn each_head_is_signed_by_the_key_that_the_one_before_announced() {
    let first = HeadKey::from_seed([1; 32]);
    let mut key = first.clone();
    let mut announced = first.public();
    for _ in 0..3 {
        let next = key.clone().ratchet();
        let bytes = head(next.public()).sign(&key).unwrap().into_bytes();
        let (read, note) = SignedHead::parse(&bytes).unwrap();
        assert_eq!(read, head(next.public()));
        assert_eq!(read.verify(&note, &announced), Ok(()));
        assert!(read.verify(&note, &next.public()).is_err(), "not by the key that it announces");
        announced = read.next_key;
        key = next;
    }
    assert_ne!(key, first);
    assert_eq!(format!("{key:?}"), "HeadKey(..)");
}

#[test]
fn a_head_has_one_form_and_one_signature() {
    let key = HeadKey::from_seed([1; 32]);
    let text = head(key.clone().ratchet().public()).sign(&key).unwrap();
    let (read, note) = SignedHead::parse(text.as_bytes()).unwrap();
    let signature = text.lines().last().unwrap();
    let stranger = text.clone() + &signature.replace("head-", "heed-") + "\n";
    let renamed = text.replace("head-", "heed-");
    let twice = text.clone() + signature + "\n";
    for bad in [stranger, renamed, twice, text.replace("abab", "ABAB"), text.replace("\n7 90\n", "\n7 090\n")] {
        assert!(SignedHead::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let long = text.replace("journal.example.net", &"x".repeat(HEAD_MAX_BYTES));
    assert!(matches!(SignedHead::parse(long.as_bytes()), Err(HeadError::TooLong(_))));
    let other = SignedHead { next: SourceSeq::new(91), ..read };
    assert_eq!(other.verify(&note, &key.public()), Err(HeadError::Line(1)));
    // The longest that there can be is taken.
    let (long, most) = (Origin::new("x".repeat(255)).unwrap(), u64::MAX);
    let (epoch, next) = (Epoch::new(most), SourceSeq::new(most));
    let longest = SignedHead { origin: long, epoch, next, time_ns: most, seen: (most, tree::empty()), ..other };
    assert!(SignedHead::parse(longest.sign(&key).unwrap().as_bytes()).is_ok());
}

#[test]
fn statements_of_keys_have_one_form() {
    let origin = origin();
    let source = SourceId::from_name("web-1");
    let registered = SourceKey { source, key: [5; 32] };
    let text = registered.text(&origin);
    assert_eq!(SourceKey::parse(&text, &origin), Ok(registered));
    for bad in [text.clone() + "x", text.to_uppercase(), text[..text.len() - 1].to_owned(), text.replace("v1", "v2")] {
        assert!(SourceKey::parse(&bad, &origin).is_err(), "{bad}");
    }
    assert!(SourceKey::parse(&text, &Origin::new("another").unwrap()).is_err());

    let line = |number: u16| KeyLine { source: SourceId::from_name(&number.to_string()), key: [6; 32], time_ns: 3 };
    let keys = SourceKeys::new((0..3).map(line).collect()).unwrap();
    let text = keys.text(&origin);
    assert_eq!(SourceKeys::parse(&text, &origin), Ok(keys));
    let lines: Vec<&str> = text.lines().collect();
    let swapped = [lines[0], lines[1], lines[3], lines[2], lines[4], ""].join("\n");
    let twice = [lines[0], lines[1], lines[2], lines[2], ""].join("\n");
    for bad in [swapped, twice, text.replace(" 3\n", " 03\n"), text.replace(" 3\n", " 3 \n")] {
        assert!(SourceKeys::parse(&bad, &origin).is_err(), "{bad}");
    }
    assert!(SourceKeys::new((0..=4_096).map(line).collect()).is_none());
    let most = SourceKeys::new((0..4_096).map(line).collect()).unwrap();
    assert_eq!(most.lines().len(), KEYS_MAX);
    assert!(SourceKeys::parse(&most.text(&origin), &origin).is_ok());
}
