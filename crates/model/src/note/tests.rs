use proptest::prelude::*;

use super::*;

/// The example of signed-note.
const SPEC_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const SPEC_NOTE: &str = "This is an example message.\n\n— example.com/foo \
    Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
/// The example of golang.org/x/mod/sumdb/note.
const GO_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const GO_LINE: &str = "— PeterNeumann \
    x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn key(name: &str, kind: KeyKind, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, kind, &[seed; 32]).unwrap()
}

#[test]
fn the_example_of_the_specification_verifies() {
    let known = [VerifierKey::parse(SPEC_KEY).unwrap()];
    let note = Note::parse(SPEC_NOTE.as_bytes()).unwrap();
    assert_eq!(note.verify(&known), Ok(vec![Verified { key: 0, time: None }]));
    assert_eq!(note.to_string(), SPEC_NOTE);
    assert_eq!(known[0].to_string(), SPEC_KEY);
}

#[test]
fn the_example_of_the_go_package_is_signed_byte_for_byte() {
    let key = SigningKey::parse(GO_PRIVATE).unwrap();
    assert_eq!(key.encode().as_str(), GO_PRIVATE);
    assert_eq!(key.verifier().to_string(), GO_KEY);
    assert_eq!(key.sign(GO_TEXT).unwrap().to_string(), GO_LINE);
}

#[test]
fn a_cosignature_covers_text_and_time() {
    let witness = key("w.example", KeyKind::Cosigner, 1);
    let line = witness.cosign("o\n1\nx\n", 1_679_315_147).unwrap();
    let note = Note::new("o\n1\nx\n", vec![line]).unwrap();
    let known = [witness.verifier().clone()];
    assert_eq!(note.verify(&known), Ok(vec![Verified { key: 0, time: Some(1_679_315_147) }]));

    let mut later = note.clone();
    later.signatures[0].bytes[7] ^= 1;
    assert_eq!(later.verify(&known), Err(NoteError::WrongSignature("w.example".into())));
    // The same key as an auditor or a log is another signer.
    for kind in [KeyKind::Auditor, KeyKind::Log] {
        let other = key("w.example", kind, 1);
        assert_ne!(other.verifier().id(), witness.verifier().id());
        assert_eq!(note.verify(&[other.verifier().clone()]), Err(NoteError::NoKnownKey));
    }
    assert!(witness.cosign("o\n", 1 << 63).is_err() && witness.sign("o\n").is_err());
    assert!(key("l", KeyKind::Log, 1).cosign("o\n", 1).is_err());
}

#[test]
fn an_auditors_signature_is_no_cosignature() {
    // Same name and, by force, the same id: only the signed text tells them apart.
    let (auditor, witness) = (key("a", KeyKind::Auditor, 1), key("a", KeyKind::Cosigner, 1));
    let mut line = auditor.cosign("o\n", 5).unwrap();
    line.id = witness.verifier().id();
    let note = Note::new("o\n", vec![line]).unwrap();
    assert_eq!(note.verify(&[witness.verifier().clone()]), Err(NoteError::WrongSignature("a".into())));
}

#[test]
fn strangers_are_ignored_even_with_a_known_name_or_id() {
    let (ours, other) = (key("ours", KeyKind::Log, 1), key("other", KeyKind::Log, 2));
    let known = [ours.verifier().clone()];
    let good = ours.sign("t\n").unwrap();
    let wrong = other.sign("t\n").unwrap();
    let same_name = Signature { name: "ours".into(), ..wrong.clone() };
    let same_id = Signature { id: ours.verifier().id(), ..wrong.clone() };
    let both = Signature { name: "ours".into(), ..same_id.clone() };
    let verify = |signatures: Vec<Signature>| Note::new("t\n", signatures).unwrap().verify(&known);

    assert_eq!(verify(vec![same_name.clone(), same_id.clone(), good.clone()]).map(|all| all.len()), Ok(1));
    assert_eq!(verify(vec![same_name, same_id, wrong]), Err(NoteError::NoKnownKey));
    // A line that claims a known key and fails spoils the note, wherever it stands.
    for signatures in [vec![both.clone(), good.clone()], vec![good.clone(), both.clone()]] {
        assert_eq!(verify(signatures), Err(NoteError::WrongSignature("ours".into())));
    }
    assert_eq!(verify(vec![good.clone(), good]).map(|all| all.len()), Ok(2));
}

#[test]
fn keys_that_cannot_be_told_apart_are_refused() {
    let (one, two) = (key("x", KeyKind::Log, 1), key("x", KeyKind::Log, 2));
    let mut second = two.verifier().clone();
    second.id = one.verifier().id();
    let note = Note::new("t\n", vec![one.sign("t\n").unwrap()]).unwrap();
    let known = [one.verifier().clone(), second];
    assert_eq!(note.verify(&known), Err(NoteError::Ambiguous("x".into())));
    let same = [one.verifier().clone(), one.verifier().clone()];
    assert!(note.verify(&same).is_ok());
}

#[test]
fn the_text_ends_before_the_last_empty_line() {
    let ours = key("k", KeyKind::Log, 1);
    let text = "one\n\n\n— k AAAAAAA=\n\nlast\n";
    let note = Note::new(text, vec![ours.sign(text).unwrap()]).unwrap();
    let read = Note::parse(&note.to_bytes()).unwrap();
    assert_eq!((read.text(), read.signatures().len()), (text, 1));
    assert!(read.verify(&[ours.verifier().clone()]).is_ok());
}

#[test]
fn up_to_64_signatures_are_taken() {
    let ours = key("k", KeyKind::Log, 1);
    let line = ours.sign("t\n").unwrap().to_string();
    let note = |count: usize| format!("t\n\n{}", line.repeat(count));
    let parsed = Note::parse(note(64).as_bytes()).unwrap();
    assert_eq!(parsed.verify(&[ours.verifier().clone()]).unwrap().len(), 64);
    assert_eq!(Note::parse(note(65).as_bytes()), Err(NoteError::TooManySignatures));
    let mut full = parsed;
    assert_eq!(full.add(ours.sign("t\n").unwrap()), Err(NoteError::TooManySignatures));
    assert_eq!(full.signatures().len(), 64);
    assert_eq!(Note::parse(&vec![b'a'; NOTE_MAX_BYTES + 1]), Err(NoteError::TooLong(NOTE_MAX_BYTES + 1)));
}

#[test]
fn other_forms_of_notes_are_refused() {
    let good = SPEC_NOTE;
    let cases = [
        ("This", "Th\tis"),
        ("This", "Th\ris"),
        ("This", "Th\0is"),
        ("\n\n", "\n"),
        ("\n— ", "\n- "),
        ("— example", "—  example"),
        ("— example", "—\u{a0}example"),
        ("— example.com/foo ", "— "),
        ("— example.com/foo ", "—  "),
        ("example.com/foo", "example.com/f+o"),
        ("example.com/foo", "example.com/f\u{2003}o"),
        (" Uw2Q", "  Uw2Q"),
        ("aQM=\n", "aQM=\n\n"),
        ("aQM=\n", "aQM="),
        ("aQM=\n", "aQM\n"),
        ("aQM=\n", "aQN=\n"),
        ("aQM=\n", "aQM= \n"),
        ("aQM=\n", "aQM=\nmore\n"),
    ];
    for (from, to) in cases {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good);
        assert!(Note::parse(changed.as_bytes()).is_err(), "{from:?} -> {to:?}");
    }
    for bad in ["", "\n", "\n\n", "t\n\n", "t\n\n\n", "\n\n— k AAAAAAA=", "— k AAAAAAA=\n"] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(Note::parse(b"t\xff\n\n\xe2\x80\x94 k AAAAAAA=\n"), Err(NoteError::NotText));
    for bad in ["", "t", "t\r\n"] {
        assert!(key("k", KeyKind::Log, 1).sign(bad).is_err() && Note::new(bad, Vec::new()).is_err(), "{bad:?}");
    }
}

#[test]
fn other_forms_of_keys_are_refused() {
    for kind in KeyKind::ALL {
        let signing = key("example.com/x", kind, 9);
        let public = signing.verifier().to_string();
        assert_eq!(VerifierKey::parse(&public).as_ref(), Ok(signing.verifier()));
        assert_eq!(SigningKey::parse(&format!("{}\n", *signing.encode())).unwrap().verifier(), signing.verifier());
        for (from, to) in
            [("x+", "y+"), ("x+", "x+0"), ("example.com/x", ""), ("e+", "e +"), ("+", ""), ("m/x", "m/ x")]
        {
            let changed = public.replacen(from, to, 1);
            assert!(changed == public || VerifierKey::parse(&changed).is_err(), "{changed}");
        }
        assert!(VerifierKey::parse(&format!("{public}\n")).is_err());
        assert!(VerifierKey::parse(&signing.encode()).is_err() && SigningKey::parse(&public).is_err());
    }
    let error = |from: &str, to: &str| VerifierKey::parse(&SPEC_KEY.replacen(from, to, 1)).unwrap_err();
    assert_eq!(error("530d903a", "530D903A"), KeyError::Form);
    assert_eq!(error("530d903a", "530d903b"), KeyError::Id("example.com/foo".into()));
    assert_eq!(error("+Aeky", "+Auky"), KeyError::Type("example.com/foo".into()));
    assert_eq!(error("3U2k", "3U2kAAAA"), KeyError::Type("example.com/foo".into()));
    assert_eq!(error("3U2k", "3U2"), KeyError::Form);
}

#[test]
fn keys_that_verify_everything_are_refused() {
    // The neutral point: with strictness off, one signature fits every text.
    let mut public = [0; 32];
    public[0] = 1;
    let id = KeyId::new({
        use sha2::{Digest, Sha256};
        let digest: [u8; 32] = Sha256::digest([b"weak\n\x01".as_slice(), &public].concat()).into();
        digest[..4].try_into().unwrap()
    });
    let text = format!("weak+{id}+{}", text::base64(&[[1].as_slice(), &public].concat()));
    assert_eq!(VerifierKey::parse(&text), Err(KeyError::Point("weak".into())));
}

#[test]
fn private_keys_are_not_shown() {
    let key = SigningKey::parse(GO_PRIVATE).unwrap();
    let shown = format!("{key:?}");
    assert!(shown.contains(GO_KEY) && !shown.contains("EKFALVFGyNhPJEMzD1QIDr"), "{shown}");
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(place in 0_usize..SPEC_NOTE.len(), bit in 0_u32..8) {
        let mut bytes = SPEC_NOTE.as_bytes().to_vec();
        bytes[place] ^= 1 << bit;
        let known = [VerifierKey::parse(SPEC_KEY).unwrap()];
        prop_assert!(Note::parse(&bytes).and_then(|note| note.verify(&known)).is_err());
    }
}
