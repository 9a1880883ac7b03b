use proptest::prelude::*;

use crate::{
    audit::{Fault, Finding, Removed, Walker},
    batch::Batch,
    block::{BlockBuilder, Inflater},
    class::Class,
    entry::{Entry, Gone, Run, Salts},
    envelope::Flags,
    ids::{
        BatchSecret, ChainHash, ClassId, Count, Epoch, Origin, ReceiptTime, RetentionId, Seq, SourceId, SourceSeq,
        TenantId,
    },
    note::{KeyKind, Note, SigningKey, VerifierKey},
    record::{Part, RecordRef},
    state::{JournalState, SourceState},
    statement::{Act, Erasure, Order, Purge, Retention, journal_source},
};

const KEPT: RetentionId = RetentionId::new(1);
const SHORT: RetentionId = RetentionId::new(2);
const MINUTE: u64 = 60_000_000_000;

fn origin() -> Origin {
    Origin::new("journal.example/2026").unwrap()
}

fn officer(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap()
}

fn trust() -> Vec<VerifierKey> {
    [officer("ada", 1), officer("ben", 2)].map(|key| key.verifier().clone()).to_vec()
}

/// A journal that is written, and then robbed.
struct Journal {
    state: JournalState,
    entries: Vec<Vec<u8>>,
    minute: u64,
}

impl Journal {
    fn new() -> Self {
        Self { state: JournalState::genesis(origin()), entries: Vec::new(), minute: 1_000 }
    }

    /// Appends a batch of so many records. Returns the sequence of the first.
    fn append(&mut self, source: SourceId, class: ClassId, retention: RetentionId, contents: &[&[u8]]) -> u64 {
        let known = self.state.sources.get(&source).copied();
        let epoch = Epoch::new(1);
        let (first, previous) =
            known.map_or((SourceSeq::new(0), self.state.epoch_opening(source, epoch)), |at| (at.next, at.head));
        let mut builder = BlockBuilder::default();
        for content in contents {
            let record = RecordRef { core: Some(b"core"), personal: Some(b"who"), content: Some(content) };
            builder.push(record).unwrap();
        }
        let secret = BatchSecret::new([u8::try_from(self.entries.len() % 251).unwrap(); 32]);
        let batch = Batch::seal(&mut builder, source, epoch, first, previous, secret, 1).unwrap();
        let tenant = TenantId::from_name("acme");
        let tenant_count = self.state.tenants.get(&tenant).copied().unwrap_or_default();
        let source_count = known.map_or(Count::new(0), |at| at.count);
        let mut entry = Entry {
            class,
            seq: Seq::new(self.state.size),
            count: batch.count,
            receipt_time: ReceiptTime::new(self.minute * MINUTE + 7),
            source,
            epoch,
            source_seq: first,
            source_count,
            batch_hash: batch.hash,
            chain_hash: ChainHash::new([0; 32]),
            salts: Salts::Secret(batch.secret.clone()),
            tenants: vec![(tenant, tenant_count)],
            runs: vec![Run { tenant: 0, retention, flags: Flags::default(), records: batch.count }],
            block_bytes: batch.block_bytes,
            compressed: &batch.compressed,
        };
        let mut inflater = Inflater::default();
        let commitments = entry.commitments(&entry.block(&mut inflater).unwrap());
        self.state.link(entry.envelopes(), &commitments, &mut Vec::new());
        entry.chain_hash = self.state.chain;
        let count = u64::from(batch.count);
        self.state.tenants.insert(tenant, Count::new(tenant_count.get() + count));
        let head =
            SourceState { epoch, next: batch.end(), head: batch.hash, count: Count::new(source_count.get() + count) };
        self.state.sources.insert(source, head);
        self.state.receipt_time = entry.receipt_time;
        self.entries.push(entry.encode());
        entry.seq.get()
    }

    fn records(&mut self, retention: RetentionId, count: usize) -> u64 {
        let contents: Vec<Vec<u8>> = (0..count).map(|index| format!("line {index}").into_bytes()).collect();
        let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        self.append(SourceId::from_name("web"), Class::Service.id(), retention, &contents)
    }

    /// Appends a statement; returns its sequence.
    fn state(&mut self, text: &[u8]) -> u64 {
        let length = text.len();
        let head = [0x1a, u8::try_from(length & 0x7f | 0x80).unwrap(), u8::try_from(length >> 7).unwrap()];
        let content = [&head[..], text].concat();
        self.append(journal_source(), Class::Journal.id(), RetentionId::new(0), &[&content])
    }

    fn order(&mut self, act: &Act) -> u64 {
        self.state(&signed(act, &[officer("ada", 1), officer("ben", 2)]))
    }

    fn erase(&mut self, targets: &[(u64, Gone)]) -> u64 {
        self.order(&erasure(targets))
    }

    fn keep(&mut self, minutes: u64) -> u64 {
        self.order(&Act::Keep(Retention { class: SHORT, keep_s: minutes * 60 }))
    }

    fn purge(&mut self, from: u64, to: u64, retention: u64) -> u64 {
        let purge = Purge { from, to, class: SHORT, retention };
        self.state(purge.text(&origin()).as_bytes())
    }

    /// Takes parts out of the stored records, whether that is lawful or not.
    fn take(&mut self, seq: u64, gone: Gone) {
        for stored in &mut self.entries {
            let entry = Entry::decode(stored).unwrap();
            if !(entry.seq.get()..entry.end()).contains(&seq) {
                continue;
            }
            let mut inflater = Inflater::default();
            let block = entry.block(&mut inflater).unwrap();
            let from = entry.seq.get();
            let reduction =
                entry.reduce(&block, |index, _| if from + index as u64 == seq { gone } else { Gone::NOTHING });
            *stored = reduction.unwrap().bytes;
        }
    }

    fn walk_trusting(&self, officers: Vec<VerifierKey>) -> Result<Removed, Finding> {
        let mut walker = Walker::whole(JournalState::genesis(origin())).trusting(officers);
        for stored in &self.entries {
            walker.step(stored)?;
        }
        walker.check_head(self.state.size, self.state.chain)?;
        assert_eq!(walker.state(), &self.state);
        walker.removed().cloned()
    }

    fn walk(&self) -> Result<Removed, Finding> {
        self.walk_trusting(trust())
    }
}

fn erasure(targets: &[(u64, Gone)]) -> Act {
    Act::Erase(Erasure { basis: "case 7".into(), targets: targets.to_vec() })
}

fn signed(act: &Act, keys: &[SigningKey]) -> Vec<u8> {
    let text = Order::text(&origin(), act);
    Note::new(text.clone(), keys.iter().map(|key| key.sign(&text).unwrap()).collect()).unwrap().to_bytes()
}

#[track_caller]
fn unexplained(outcome: Result<Removed, Finding>, seq: u64, gone: Gone) {
    let finding = outcome.unwrap_err();
    assert_eq!((finding.from, finding.fault), (seq, Fault::Unexplained(gone)));
}

#[test]
fn lawful_erasures_are_listed_and_intact() {
    let mut journal = Journal::new();
    journal.records(KEPT, 10);
    journal.erase(&[(2, Gone::part(Part::Personal)), (4, Gone::RECORD)]);
    journal.erase(&[(2, Gone::part(Part::Content)), (5, Gone::RECORD), (6, Gone::RECORD)]);
    let personal_and_content = Gone::part(Part::Personal).with(Gone::part(Part::Content));
    for (seq, gone) in [(2, personal_and_content), (4, Gone::RECORD), (5, Gone::RECORD), (6, Gone::RECORD)] {
        journal.take(seq, gone);
    }
    let removed = journal.walk().unwrap();
    assert_eq!((removed.erased, removed.partly, removed.orders, removed.by_officers), (3, 1, 2, true));
    assert_eq!(removed.first[..2], [(2, personal_and_content), (4, Gone::RECORD)]);
    let believed = journal.walk_trusting(Vec::new()).unwrap();
    assert!(!believed.by_officers && believed.erased == 3);
}

#[test]
fn what_no_order_names_is_an_alteration() {
    let mut journal = Journal::new();
    journal.records(KEPT, 10);
    journal.erase(&[(2, Gone::part(Part::Personal)), (4, Gone::RECORD)]);
    journal.take(4, Gone::RECORD);
    assert!(journal.walk().is_ok());
    journal.take(7, Gone::RECORD);
    unexplained(journal.walk(), 7, Gone::RECORD);
    unexplained(journal.walk_trusting(Vec::new()), 7, Gone::RECORD);
    // The right record, but other parts than the order names.
    journal.take(2, Gone::part(Part::Content));
    unexplained(journal.walk(), 2, Gone::part(Part::Content));
    // Taken as if its time were over.
    journal.take(1, Gone::PURGED);
    unexplained(journal.walk(), 1, Gone::PURGED);
}

#[test]
fn forged_orders_explain_nothing() {
    let (ada, ben, eve) = (officer("ada", 1), officer("ben", 2), officer("eve", 3));
    let act = erasure(&[(3, Gone::RECORD)]);
    let other_origin = String::from_utf8(signed(&act, &[ada.clone(), ben.clone()])).unwrap().replace("2026", "2025");
    let mut other_text = Note::parse(&signed(&erasure(&[(4, Gone::RECORD)]), &[ada.clone(), ben.clone()])).unwrap();
    other_text = Note::new(Order::text(&origin(), &act), other_text.signatures().to_vec()).unwrap();
    let forged = [
        ("one officer", signed(&act, std::slice::from_ref(&ada))),
        ("the same officer twice", signed(&act, &[ada.clone(), ada.clone()])),
        ("an unknown key", signed(&act, &[ada.clone(), eve.clone()])),
        ("an unknown key in an officer's name", signed(&act, &[ada, officer("ben", 9)])),
        ("of another journal", other_origin.into_bytes()),
        ("signatures of another order", other_text.to_bytes()),
    ];
    for (name, text) in forged {
        let mut journal = Journal::new();
        journal.records(KEPT, 5);
        journal.state(&text);
        journal.take(3, Gone::RECORD);
        println!("{name}");
        unexplained(journal.walk(), 3, Gone::RECORD);
    }
    // An order can't be given before its records are there, nor by anybody's record.
    let mut journal = Journal::new();
    journal.erase(&[(4, Gone::RECORD)]);
    journal.records(KEPT, 5);
    journal.take(4, Gone::RECORD);
    unexplained(journal.walk(), 4, Gone::RECORD);
    let mut journal = Journal::new();
    journal.records(KEPT, 5);
    let text = signed(&act, &[officer("ada", 1), ben]);
    let content =
        [&[0x1a, u8::try_from(text.len() & 0x7f | 0x80).unwrap(), u8::try_from(text.len() >> 7).unwrap()], &text[..]]
            .concat();
    journal.append(SourceId::from_name("web"), Class::Service.id(), KEPT, &[&content]);
    journal.take(3, Gone::RECORD);
    unexplained(journal.walk(), 3, Gone::RECORD);
}

/// Records of both classes over minutes 1000 to 1003, and a retention of ten minutes. Ends in minute 1020.
fn aging() -> (Journal, u64) {
    let mut journal = Journal::new();
    for _ in 0..4 {
        journal.records(SHORT, 5);
        journal.records(KEPT, 5);
        journal.minute += 1;
    }
    journal.minute = 1_012;
    let retention = journal.keep(10);
    (journal, retention)
}

fn take_short(journal: &mut Journal, to: u64) {
    for seq in (0..to).filter(|seq| seq % 10 < 5) {
        journal.take(seq, Gone::PURGED);
    }
}

#[test]
fn lawful_purges_are_intact() {
    let (mut journal, retention) = aging();
    // At 1012 the minutes up to 1001 are due.
    journal.purge(0, 20, retention);
    journal.minute = 1_020;
    journal.purge(20, 40, retention);
    take_short(&mut journal, 40);
    let removed = journal.walk().unwrap();
    assert_eq!((removed.purged, removed.purges), (20, 2));
}

#[test]
fn unlawful_purges_explain_nothing() {
    // Not due yet: 1002 and later, at 1012.
    let (mut journal, retention) = aging();
    journal.purge(0, 40, retention);
    take_short(&mut journal, 40);
    unexplained(journal.walk(), 20, Gone::PURGED);

    // Of another class than the envelopes say.
    let (mut journal, retention) = aging();
    journal.purge(0, 20, retention);
    take_short(&mut journal, 20);
    journal.take(7, Gone::PURGED);
    unexplained(journal.walk(), 7, Gone::PURGED);

    // Outside of the range.
    let (mut journal, retention) = aging();
    journal.purge(1, 20, retention);
    take_short(&mut journal, 20);
    unexplained(journal.walk(), 0, Gone::PURGED);

    // The retention statement comes after the purge, or is not the newest.
    let (mut journal, retention) = aging();
    let size = journal.state.size;
    journal.purge(0, 10, size + 1);
    journal.keep(1);
    take_short(&mut journal, 10);
    unexplained(journal.walk(), 0, Gone::PURGED);
    let (mut journal, _) = aging();
    journal.keep(10_000);
    journal.purge(0, 10, retention);
    take_short(&mut journal, 10);
    unexplained(journal.walk(), 0, Gone::PURGED);

    // By a retention that one officer signed alone.
    let (mut journal, _) = aging();
    let text = signed(&Act::Keep(Retention { class: SHORT, keep_s: 0 }), &[officer("ada", 1)]);
    let alone = journal.state(&text);
    journal.purge(0, 10, alone);
    take_short(&mut journal, 10);
    unexplained(journal.walk(), 0, Gone::PURGED);

    // It names records that come after itself.
    let (mut journal, retention) = aging();
    let size = journal.state.size;
    journal.purge(0, size + 2, retention);
    take_short(&mut journal, 10);
    unexplained(journal.walk(), 0, Gone::PURGED);
}

#[test]
fn changed_remains_are_found() {
    let mut journal = Journal::new();
    journal.records(KEPT, 4);
    journal.erase(&[(1, Gone::part(Part::Personal)), (2, Gone::RECORD)]);
    journal.take(1, Gone::part(Part::Personal));
    journal.take(2, Gone::RECORD);
    let good = journal.entries[0].clone();
    let entry = Entry::decode(&good).unwrap();
    let Salts::Remains(_) = entry.salts else { panic!("the entry is reduced") };
    // The hashes: 3 salts, salt, p_1, salt, c, 3 salts; they stand before the frame, in which the last bytes are.
    let hashes = good.len() - 8 - entry.compressed.len() - 8 - 10 * 32;
    let write = |journal: &mut Journal, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let body = bytes.len() - 8;
        let sum = crate::entry::checksum(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum);
        journal.entries[0] = bytes;
        journal.walk().map_err(|finding| finding.fault)
    };
    assert!(write(&mut journal, &|_| ()).is_ok());
    for hash in 0..10 {
        let flipped = write(&mut journal, &|bytes| bytes[hashes + hash * 32] ^= 1);
        assert_eq!(flipped, Err(Fault::BatchHash), "hash {hash}");
    }
    let swapped = write(&mut journal, &|bytes| {
        let salts = bytes[hashes..hashes + 64].to_vec();
        bytes[hashes..hashes + 32].copy_from_slice(&salts[32..]);
        bytes[hashes + 32..hashes + 64].copy_from_slice(&salts[..32]);
    });
    assert_eq!(swapped, Err(Fault::BatchHash));
    let purged_instead = write(&mut journal, &|bytes| bytes[hashes - 2] = 64);
    assert_eq!(purged_instead, Err(Fault::Unexplained(Gone::PURGED)));
}

#[test]
fn a_walk_of_a_part_believes_what_was_said_before_it() {
    let (mut journal, retention) = aging();
    journal.minute = 1_020;
    let from = journal.entries.len();
    let before = journal.state.clone();
    journal.records(SHORT, 3);
    journal.minute = 1_040;
    journal.purge(0, before.size + 3, retention);
    (before.size..before.size + 3).for_each(|seq| journal.take(seq, Gone::PURGED));
    let mut walker = Walker::part(before);
    for stored in &journal.entries[from..] {
        walker.step(stored).unwrap();
    }
    assert_eq!(walker.removed().unwrap().purged, 3);
    assert!(journal.walk().is_ok());
}

proptest! {
    /// Whatever is taken and whatever is ordered: the walk finds the first record of which more is gone than was ordered.
    #[test]
    fn exactly_what_was_ordered_may_be_gone(
        orders in proptest::collection::vec(proptest::collection::btree_map(0_u64..20, 1_u8..8, 1..8), 0..4),
        taken in proptest::collection::btree_map(0_u64..20, 1_u8..8, 0..12),
    ) {
        let gone = |bits| Gone::from_bits(bits).unwrap();
        let mut journal = Journal::new();
        journal.records(KEPT, 11);
        journal.records(KEPT, 9);
        for order in &orders {
            let targets: Vec<(u64, Gone)> = order.iter().map(|(seq, bits)| (*seq, gone(*bits))).collect();
            journal.erase(&targets);
        }
        let allowed = |seq: u64| {
            orders.iter().filter_map(|order| order.get(&seq)).fold(Gone::NOTHING, |all, bits| all.with(gone(*bits)))
        };
        for (seq, bits) in &taken {
            journal.take(*seq, gone(*bits));
        }
        let first = taken.iter().find(|(seq, bits)| gone(**bits).without(allowed(**seq)) != Gone::NOTHING);
        match (journal.walk(), first) {
            (Ok(removed), None) => prop_assert_eq!(removed.erased + removed.partly, taken.len() as u64),
            (Err(finding), Some((seq, _))) => prop_assert_eq!(finding.from, *seq),
            (outcome, expected) => prop_assert!(false, "{:?} {:?}", outcome, expected),
        }
    }
}

#[test]
fn millions_of_purged_records_take_little_memory() {
    let mut removals = super::Removals::new(0);
    // Every other record, so that no two join.
    for seq in 0..2_000_000 {
        removals.gone(seq * 2, Gone::PURGED, SHORT, ReceiptTime::new(seq));
    }
    assert!(removals.purged.values().all(|runs| runs.len() <= super::PURGED_RUNS_MAX));
    assert_eq!(removals.minutes.len(), 1);
    removals.retentions.insert(SHORT, super::InForce { seq: 1, keep_s: 0 });
    let purge = |from, to| Purge { from, to, class: SHORT, retention: 1 };
    removals.purge(&purge(0, 1_000_001), 5_000_000, ReceiptTime::new(MINUTE));
    assert!(removals.explained().is_err());
    removals.purge(&purge(1_000_001, 4_000_000), 5_000_000, ReceiptTime::new(MINUTE));
    assert_eq!(removals.explained().unwrap().purged, 2_000_000);
}
