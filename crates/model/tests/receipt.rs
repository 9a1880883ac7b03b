//! Receipts and misconduct: what is signed verifies, what was touched does not, and the golden ones stand.
//!
//! `SIGILLO_BLESS=1` writes the golden files anew. Only a new format version may do that.

use std::{env, fs, path::Path};

use proptest::{prelude::*, sample::Index};
use sigillo_model::{
    checkpoint::Checkpoint,
    ids::{BatchHash, ChainHash, Epoch, NodeHash, Origin, ReceiptTime, Seq, SourceId, SourceSeq},
    misconduct::{Misconduct, MisconductError, Worth},
    note::{KeyKind, Note, SigningKey, VerifierKey},
    proof::{self, Subtrees},
    receipt::{FrameBuilder, Held, Receipt, ReceiptError, SignedReceipt, key_name},
    tree,
};

// Relative to the package, in which cargo runs its tests.
const GOLDEN: &str = "../../tests/golden/v2";
const ORIGIN: &str = "journal.example.net/2026";

fn origin() -> Origin {
    Origin::new(ORIGIN).unwrap()
}

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap()
}

fn receipt_key() -> SigningKey {
    key(&key_name(&origin()), 1)
}

fn log_key() -> SigningKey {
    key(ORIGIN, 2)
}

fn known(key: &SigningKey) -> Vec<VerifierKey> {
    vec![key.verifier().clone()]
}

/// The `number`th batch of a journal that holds three records a batch.
fn receipt(number: u64) -> Receipt {
    Receipt {
        source: SourceId::from_name("web-1"),
        epoch: Epoch::new(1_764_000_000_000_000_000),
        first: SourceSeq::new(number * 3),
        count: 3,
        seq: Seq::new(number * 3),
        chain: entry(number * 3 + 2),
        batch: BatchHash::new([0xbb; 32]),
        time: ReceiptTime::new(1_764_000_000_123_456_789 + number),
    }
}

/// What the honest journal holds as chain value of a record.
fn entry(seq: u64) -> ChainHash {
    ChainHash::new(*tree::leaf(&seq.to_be_bytes()).as_bytes())
}

fn frame(count: u64) -> Vec<SignedReceipt> {
    let mut builder = FrameBuilder::default();
    let places: Vec<u32> = (0..count).map(|number| builder.push(&origin(), &receipt(number))).collect();
    let frame = builder.sign(&origin(), &receipt_key()).unwrap().unwrap();
    let note = std::str::from_utf8(frame.note()).unwrap();
    (0..count)
        .zip(places)
        .map(|(number, index)| SignedReceipt {
            origin: origin(),
            receipt: receipt(number),
            index,
            path: frame.path(index).copied().collect(),
            note: note.to_owned(),
        })
        .collect()
}

/// A journal's tree, from its chain values.
struct Leaves(Vec<ChainHash>);

impl Subtrees for Leaves {
    type Error = ();

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, ()> {
        let (width, index) = (1_usize << height, usize::try_from(index).unwrap());
        let mut root = tree::RootBuilder::default();
        self.0[index * width..(index + 1) * width].iter().for_each(|entry| root.push(tree::leaf(entry.as_bytes())));
        Ok(root.root())
    }
}

impl Leaves {
    fn honest(size: u64) -> Self {
        Self((0..size).map(entry).collect())
    }

    fn checkpoint(&self) -> Checkpoint {
        let size = self.0.len() as u64;
        Checkpoint { origin: ORIGIN.into(), size, root: proof::root(size, self).unwrap() }
    }

    fn inclusion(&self, seq: u64) -> Vec<NodeHash> {
        proof::inclusion(seq, self.0.len() as u64, self).unwrap()
    }
}

fn note(checkpoint: &Checkpoint, key: &SigningKey) -> String {
    let text = checkpoint.text();
    let signature = key.sign(&text).unwrap();
    Note::new(text, vec![signature]).unwrap().to_string()
}

#[test]
fn an_empty_frame_is_not_signed() {
    assert_eq!(FrameBuilder::default().sign(&origin(), &receipt_key()), Ok(None));
}

#[test]
fn receipts_of_every_frame_size_verify() {
    for count in 1..=70 {
        for (number, signed) in frame(count).into_iter().enumerate() {
            assert_eq!(signed.verify(&known(&receipt_key())), Ok(()), "{number} of {count}");
            assert_eq!(SignedReceipt::parse(&signed.to_text()), Ok(signed));
        }
    }
}

#[test]
fn receipts_of_others_and_swapped_ones_are_refused() {
    let keys = known(&receipt_key());
    let [first, second, ..] = &frame(5)[..] else { panic!() };
    let stranger = key(&key_name(&origin()), 9);
    assert!(matches!(first.verify(&known(&stranger)), Err(ReceiptError::Note(_))));
    let swapped = SignedReceipt { receipt: second.receipt, ..first.clone() };
    assert!(matches!(swapped.verify(&keys), Err(ReceiptError::Proof(_))));
    let moved = SignedReceipt { index: second.index, ..first.clone() };
    assert!(matches!(moved.verify(&keys), Err(ReceiptError::Proof(_))));
    let cut = SignedReceipt { path: first.path[1..].to_vec(), ..first.clone() };
    assert!(matches!(cut.verify(&keys), Err(ReceiptError::Proof(_))));
    let alone = &frame(1)[0];
    let other_frame = SignedReceipt { note: alone.note.clone(), ..first.clone() };
    assert!(matches!(other_frame.verify(&keys), Err(ReceiptError::Proof(_))));
    let other_journal = SignedReceipt { origin: Origin::new("journal.example.net/2027").unwrap(), ..first.clone() };
    assert!(matches!(other_journal.verify(&keys), Err(ReceiptError::Layout(_))));
    // A checkpoint that the same key has signed is no frame.
    let checkpoint = SignedReceipt { note: note(&Leaves::honest(3).checkpoint(), &receipt_key()), ..first.clone() };
    assert!(matches!(checkpoint.verify(&keys), Err(ReceiptError::Layout(_))));
}

#[test]
fn a_receipt_is_kept_or_contradicted() {
    let signed = &frame(4)[2];
    let honest = Leaves::honest(20);
    let held = signed.against(&honest.checkpoint(), &entry(8), &honest.inclusion(8));
    assert_eq!(held, Ok(Held::Kept));
    let mut forged = Leaves::honest(20);
    forged.0[8] = ChainHash::new([7; 32]);
    let held = signed.against(&forged.checkpoint(), &forged.0[8], &forged.inclusion(8));
    assert_eq!(held, Ok(Held::Contradicted));
    // The journal can't say one thing and prove another, nor be held to a record that is not covered.
    assert!(signed.against(&honest.checkpoint(), &forged.0[8], &honest.inclusion(8)).is_err());
    assert!(signed.against(&honest.checkpoint(), &entry(8), &honest.inclusion(9)).is_err());
    let small = Leaves::honest(8);
    let early = signed.against(&small.checkpoint(), &entry(8), &small.inclusion(7));
    assert_eq!(early, Err(ReceiptError::NotCovered { size: 8, last: 8 }));
    let other = Checkpoint { origin: "another".into(), ..honest.checkpoint() };
    assert!(matches!(signed.against(&other, &entry(8), &honest.inclusion(8)), Err(ReceiptError::Origin(_))));
}

/// One of each kind, as an attacked client writes them.
fn misconducts() -> Vec<(Misconduct, Worth)> {
    let receipt = Box::new(frame(4)[2].clone());
    let mut forged = Leaves::honest(20);
    forged.0[8] = ChainHash::new([7; 32]);
    let (remembered, shown) =
        (note(&Leaves::honest(20).checkpoint(), &log_key()), note(&forged.checkpoint(), &log_key()));
    let older = note(&Leaves::honest(10).checkpoint(), &log_key());
    let consistency = proof::consistency(10, 20, &forged).unwrap();
    vec![
        (
            Misconduct::ReceiptContradicted {
                receipt,
                checkpoint: shown.clone(),
                entry: forged.0[8],
                proof: forged.inclusion(8),
            },
            Worth::Proof,
        ),
        (Misconduct::TwoRoots { remembered: remembered.clone(), shown: shown.clone() }, Worth::Proof),
        (Misconduct::NotContinued { remembered: older.clone(), shown, proof: consistency }, Worth::Question),
        (Misconduct::RolledBack { remembered: remembered.clone(), shown: Some(older) }, Worth::Question),
        (Misconduct::RolledBack { remembered, shown: None }, Worth::Question),
    ]
}

#[test]
fn misconduct_is_checked_from_its_file_alone() {
    let (logs, receipts) = (known(&log_key()), known(&receipt_key()));
    for (misconduct, worth) in misconducts() {
        let (read, seen) = Misconduct::parse(&misconduct.to_text(1_764_000_000)).unwrap();
        assert_eq!((&read, seen), (&misconduct, 1_764_000_000));
        assert_eq!(read.check(&logs, &receipts), Ok(worth), "{misconduct}");
        // With the keys exchanged nobody has signed anything.
        assert!(read.check(&receipts, &logs).is_err(), "{misconduct}");
    }
}

#[test]
fn an_honest_journal_is_not_accused() {
    let (logs, receipts) = (known(&log_key()), known(&receipt_key()));
    let (small, large) = (Leaves::honest(10), Leaves::honest(20));
    let (old, new) = (note(&small.checkpoint(), &log_key()), note(&large.checkpoint(), &log_key()));
    let innocent = [
        Misconduct::ReceiptContradicted {
            receipt: Box::new(frame(4)[2].clone()),
            checkpoint: new.clone(),
            entry: entry(8),
            proof: large.inclusion(8),
        },
        Misconduct::TwoRoots { remembered: old.clone(), shown: new.clone() },
        Misconduct::TwoRoots { remembered: new.clone(), shown: new.clone() },
        Misconduct::NotContinued {
            remembered: old.clone(),
            shown: new.clone(),
            proof: proof::consistency(10, 20, &large).unwrap(),
        },
        Misconduct::RolledBack { remembered: old, shown: Some(new) },
    ];
    for misconduct in innocent {
        assert!(matches!(misconduct.check(&logs, &receipts), Err(MisconductError::None(_))), "{misconduct}");
    }
}

#[test]
fn golden_files_stand() {
    let mut files = vec![("receipt.txt".to_owned(), frame(5)[3].to_text())];
    for (number, (misconduct, _)) in misconducts().into_iter().enumerate() {
        files.push((format!("misconduct-{number}.txt"), misconduct.to_text(1_764_000_000)));
    }
    files.push(("receipt-key.txt".into(), format!("{}\n", receipt_key().verifier())));
    files.push(("log-key.txt".into(), format!("{}\n", log_key().verifier())));
    let dir = Path::new(GOLDEN).join("receipt");
    for (name, text) in files {
        if env::var_os("SIGILLO_BLESS").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(&name), &text).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.join(&name)).unwrap(), text, "{name}");
    }
}

fn receipts() -> impl Strategy<Value = Receipt> {
    let numbers = (any::<u64>(), any::<u32>(), 1..=u32::MAX, any::<u32>(), any::<u64>());
    (numbers, any::<([u8; 16], [u8; 32], [u8; 32])>()).prop_map(
        |((epoch, first, count, seq, time), (source, chain, batch))| Receipt {
            source: SourceId::new(source),
            epoch: Epoch::new(epoch),
            first: SourceSeq::new(first.into()),
            count,
            seq: Seq::new(seq.into()),
            chain: ChainHash::new(chain),
            batch: BatchHash::new(batch),
            time: ReceiptTime::new(time),
        },
    )
}

proptest! {
    #[test]
    fn every_receipt_has_one_text(receipt in receipts()) {
        let text = receipt.text(&origin());
        prop_assert_eq!(Receipt::parse(&text), Ok((origin(), receipt)));
    }

    #[test]
    fn one_changed_byte_spoils_a_receipt(at in any::<Index>(), to in any::<u8>()) {
        let signed = &frame(5)[3];
        let mut bytes = signed.to_text().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let verified = String::from_utf8(bytes).ok().and_then(|text| SignedReceipt::parse(&text).ok());
        prop_assert!(verified.is_none_or(|signed| signed.verify(&known(&receipt_key())).is_err()));
    }

    #[test]
    fn a_cut_receipt_is_none(at in any::<Index>()) {
        let text = frame(5)[3].to_text();
        prop_assert!(SignedReceipt::parse(&text[..text.floor_char_boundary(at.index(text.len()))]).is_err());
    }

    #[test]
    fn one_changed_byte_spoils_an_accusation(which in any::<Index>(), at in any::<Index>(), to in any::<u8>()) {
        let all = misconducts();
        let (misconduct, worth) = &all[which.index(all.len())];
        let text = misconduct.to_text(1_764_000_000);
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let read = String::from_utf8(bytes).ok().and_then(|text| Misconduct::parse(&text).ok());
        let claimed = read.and_then(|(read, _)| Some((read.check(&known(&log_key()), &known(&receipt_key())).ok()?, read)));
        // The time is the holder's word, and so is the proof that failed; what is signed stands as it is.
        if let Some((claimed, read)) = claimed {
            let same = read == *misconduct || matches!(read, Misconduct::NotContinued { .. });
            prop_assert!(same && claimed == *worth);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(text in "(sigillo (receipt|misconduct) v1\n)?(two roots|receipt contradicted|not continued)?(\n| |part|remembered|receipt|[0-9]{1,20}|\\PC){0,40}") {
        let _ = SignedReceipt::read(&text);
        let _ = Misconduct::parse(&text);
    }
}
