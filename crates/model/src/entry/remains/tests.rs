use proptest::prelude::*;

use super::*;
use crate::{
    block::{BlockBuilder, Inflater},
    entry::{REDUCED_VERSION, Run, checksum},
    envelope::Flags,
    ids::{BatchHash, ChainHash, ClassId, Count, Epoch, ReceiptTime, RetentionId, Seq, SourceId, SourceSeq, TenantId},
    record::Record,
};

fn records() -> impl Strategy<Value = Vec<Record>> {
    let part = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..30).prop_map(Into::into));
    let record = (part(), part(), part())
        .prop_map(|(core, personal, content)| Record { core, personal, content })
        .prop_filter("a record has a part", |record| record.as_ref().bitmap() != 0);
    proptest::collection::vec(record, 1..12)
}

fn whole(records: &[Record]) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    for record in records {
        builder.push(record.as_ref()).unwrap();
    }
    let block = builder.take();
    let count = u32::try_from(records.len()).unwrap();
    let entry = Entry {
        class: ClassId::new(3),
        seq: Seq::new(70),
        count,
        receipt_time: ReceiptTime::new(9),
        source: SourceId::new([5; 16]),
        epoch: Epoch::new(1),
        source_seq: SourceSeq::new(0),
        source_count: Count::new(0),
        batch_hash: BatchHash::new([1; 32]),
        chain_hash: ChainHash::new([2; 32]),
        salts: Salts::Secret(BatchSecret::new([0xa7; 32])),
        tenants: vec![(TenantId::new([6; 16]), Count::new(0))],
        runs: vec![Run { tenant: 0, retention: RetentionId::new(3), flags: Flags::default(), records: count }],
        block_bytes: u32::try_from(block.len()).unwrap(),
        compressed: &block::compress(&block, 1),
    };
    entry.encode()
}

/// Takes the parts in `masks` out of the stored entry, one mask a record; unchanged if nothing of them is there.
fn reduced(stored: &[u8], masks: &[u8]) -> Vec<u8> {
    let entry = Entry::decode(stored).unwrap();
    let mut inflater = Inflater::default();
    let block = entry.block(&mut inflater).unwrap();
    let reduction = entry.reduce(&block, |index, _| Gone::from_bits(masks[index]).unwrap());
    reduction.map_or_else(|| stored.to_vec(), |reduction| reduction.bytes)
}

fn commitments(stored: &[u8]) -> Vec<Commitment> {
    let entry = Entry::decode(stored).unwrap();
    let mut inflater = Inflater::default();
    let block = entry.block(&mut inflater).unwrap();
    entry.commitments(&block)
}

fn kept(stored: &[u8]) -> Vec<Record> {
    let entry = Entry::decode(stored).unwrap();
    let mut inflater = Inflater::default();
    let block = entry.block(&mut inflater).unwrap();
    block.records().map(Record::from).collect()
}

fn masks() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![9 => 0_u8..8, 1 => Just(Gone::PURGED.bits())], 12)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

proptest! {
    /// Erased once, twice or purged after: the commitments stay, what was not named stays, what was named is gone.
    #[test]
    fn commitments_outlive_what_is_taken(
        records in records(),
        masks in masks(),
        more in masks(),
    ) {
        let first = whole(&records);
        let secret = [0xa7; 32];
        let second = reduced(&first, &masks);
        let third = reduced(&second, &more);
        prop_assert_eq!(commitments(&first), commitments(&second));
        prop_assert_eq!(commitments(&first), commitments(&third));
        prop_assert!(contains(&first, &secret));
        for (stored, taken) in [(&second, masks.clone()), (&third, masks.iter().zip(&more).map(|(a, b)| a | b).collect::<Vec<u8>>())] {
            let entry = Entry::decode(stored).unwrap();
            prop_assert_eq!(entry.encode(), stored.clone());
            prop_assert_eq!(contains(stored, &secret), stored == &first);
            for (index, ((before, after), mask)) in records.iter().zip(kept(stored)).zip(taken).enumerate() {
                let gone = entry.gone(index);
                for part in Part::ALL {
                    let was = before.as_ref().part(part);
                    let is = after.as_ref().part(part);
                    let named = mask >> part.number() & 1 == 1;
                    prop_assert_eq!(is, if named { None } else { was });
                    prop_assert!(was.is_none() || gone.has(part) == named);
                }
            }
        }
    }

    /// The salt of each kept part is the one that the secret gave; that of a gone part is nowhere in the entry.
    #[test]
    fn salts_of_neighbours_survive(records in records(), masks in masks()) {
        let first = whole(&records);
        let second = reduced(&first, &masks);
        prop_assume!(first != second);
        let secret = BatchSecret::new([0xa7; 32]);
        let mut committer = Committer::default();
        for (index, (record, mask)) in (0..).zip(records.iter().zip(masks)) {
            for part in Part::ALL {
                let salt = committer.salt(&secret, index, part);
                let stays = record.as_ref().part(part).is_some() && mask >> part.number() & 1 == 0;
                prop_assert_eq!(contains(&second, &salt), stays, "record {} part {:?}", index, part);
            }
        }
    }

    #[test]
    fn no_reduced_body_is_trusted(
        records in records(),
        masks in masks(),
        at: prop::sample::Index,
        bit in 0..8,
    ) {
        let mut bytes = reduced(&whole(&records), &masks);
        let body = bytes.len() - 8;
        bytes[at.index(body)] ^= 1_u8 << bit;
        let sum = checksum(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum);
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes.clone());
            let mut inflater = Inflater::default();
            if let Ok(block) = entry.block(&mut inflater) {
                let _ = entry.commitments(&block);
                prop_assert!(entry.held(&block).count() <= block.count() as usize);
            }
        }
    }
}

/// The records of these tests, all taken whole: no frame is left, and 33 bytes a record.
#[test]
fn a_purged_entry_is_small_and_has_no_frame() {
    let record = Record { content: Some(vec![7; 1000].into()), ..Record::default() };
    let stored = reduced(&whole(&vec![record; 100]), &[7; 100]);
    let entry = Entry::decode(&stored).unwrap();
    assert_eq!((entry.block_bytes, entry.compressed.len()), (0, 0));
    assert!(stored.len() < 100 * 33 + 256, "{}", stored.len());
    assert_eq!(entry.gone(99), Gone::RECORD);
    assert_eq!(reduced(&stored, &[7; 100]), stored);
}

#[test]
fn other_forms_are_refused() {
    let record = Record { core: Some(vec![1].into()), content: Some(vec![2].into()), ..Record::default() };
    let stored = reduced(&whole(&[record.clone(), record]), &[1, 0]);
    let entry = Entry::decode(&stored).unwrap();
    let Salts::Remains(remains) = &entry.salts else { panic!("the entry is reduced") };
    assert_eq!(stored[0], REDUCED_VERSION);
    assert_eq!(*remains.shapes, [0b1100, 0b101]);
    let with = |shapes: &[u8], hashes: usize, block_bytes, compressed| {
        let remains = Remains { shapes: Cow::Borrowed(shapes), hashes: Cow::Owned(vec![9; hashes * 32]) };
        let other = Entry { salts: Salts::Remains(remains), block_bytes, compressed, ..entry.clone() };
        Entry::decode(&other.encode()).map(|_| ())
    };
    assert_eq!(with(&[0b1100, 0b101], 4, entry.block_bytes, entry.compressed), Ok(()));
    let refused = |what| Err(EntryError::NotCanonical(what));
    assert_eq!(with(&[PURGED, 0b101], 3, entry.block_bytes, entry.compressed), Ok(()));
    assert_eq!(with(&[PURGED | 1, 0b101], 4, 10, entry.compressed), refused("shape of a record"));
    assert_eq!(with(&[0b101, 0b101], 4, 10, entry.compressed), refused("version: nothing is gone"));
    assert_eq!(with(&[0b1001, 0b101], 4, 10, entry.compressed), refused("shape of a record"));
    assert_eq!(with(&[0b1000_0000, 0b101], 3, 10, entry.compressed), refused("shape of a record"));
    assert_eq!(with(&[0, 0], 2, 1, entry.compressed), refused("block of what is kept"));
    assert_eq!(with(&[0, 0], 2, 0, entry.compressed), refused("block of what is kept"));
    assert_eq!(with(&[0, 0], 2, 0, &[]), Ok(()));
    assert_eq!(with(&[0b1100, 0b101], 4, 0, &[]), refused("block of what is kept"));
    assert_eq!(with(&[0, 0], 3, 0, &[]), Err(EntryError::Layout));
}

#[test]
fn what_is_gone_is_named() {
    let names = [Gone::NOTHING, Gone::part(Part::Core), Gone::part(Part::Core).with(Gone::part(Part::Content))];
    assert_eq!(names.map(|gone| gone.to_string()), ["", "core", "core,content"]);
    assert_eq!(Gone::RECORD.to_string(), "record");
    assert_eq!(Gone::PURGED.to_string(), "purged");
    assert!(Gone::from_bits(8).is_none() && Gone::from_bits(Gone::PURGED.bits()) == Some(Gone::PURGED));
}
