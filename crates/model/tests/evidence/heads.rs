//! Records that their own source has signed for.

use std::{env, fs, path::Path};

use sigillo_model::{
    batch::{batch_hash, epoch_opening},
    class::Class,
    evidence::{BatchProof, Finding, HeadFault, HeadProof, Report, Stated, subtrees},
    head::{HeadKey, SignedHead, statement::SourceKey},
    ids::{BatchHash, Commitment, Epoch, NodeHash, SourceId, SourceSeq},
    tree::{self, RootBuilder},
};

use crate::{
    journal::{Case, Journal, content, origin},
    verify,
};

const WEB: &str = "web-1";

type Change = Box<dyn Fn(&mut HeadProof)>;

/// A journal in which `web-1` has sent batches of these sizes and signed twice: after the first two, and after all.
struct Signed {
    journal: Journal,
    sizes: Vec<usize>,
    /// Sequence and text of: the registration, the first head, the second head.
    stated: [Stated; 3],
}

fn source() -> SourceId {
    SourceId::from_name(WEB)
}

fn commitments(journal: &Journal) -> Vec<(u64, Commitment)> {
    let of = journal.records.iter().filter(|record| record.envelope.source == source());
    of.map(|record| (record.envelope.seq.get(), record.commitment)).collect()
}

fn say(journal: &mut Journal, text: &str) -> Stated {
    let seq = journal.size();
    let parts = [Some(b"core".to_vec()), None, Some(content(text))];
    journal.push("journal", "provider", Class::Journal, parts);
    Stated { seq, text: text.as_bytes().to_vec() }
}

fn line(journal: &mut Journal, source: &str, number: usize) {
    let parts = [Some(b"core".to_vec()), None, Some(content(&format!("line {number}")))];
    journal.push(source, "acme", Class::Service, parts);
}

impl Signed {
    fn new(sizes: &[usize]) -> Self {
        let mut journal = Journal::with(0);
        let key = HeadKey::from_seed([5; 32]);
        let registration = say(&mut journal, &SourceKey { source: source(), key: key.public() }.text(&origin()));
        let mut signed =
            Self { journal, sizes: sizes.to_vec(), stated: [registration.clone(), registration.clone(), registration] };
        for (batch, size) in sizes.iter().enumerate() {
            for number in 0..*size {
                line(&mut signed.journal, WEB, number);
                line(&mut signed.journal, "web-2", number);
            }
            if batch == 1 {
                let head = signed.head(2, 1_000, &key);
                signed.stated[1] = say(&mut signed.journal, &head);
            }
        }
        let head = signed.head(sizes.len(), 2_000, &key.ratchet());
        signed.stated[2] = say(&mut signed.journal, &head);
        signed
    }

    /// The chain of batches: hash before each, and after the last.
    fn chain(&self) -> Vec<BatchHash> {
        let epoch = Epoch::new(1);
        let mut chain = vec![epoch_opening(&origin(), source(), epoch, None)];
        let (all, mut first) = (commitments(&self.journal), 0);
        for size in &self.sizes {
            let Some(of_batch) = all.get(first..first + size) else { break };
            let of_batch: Vec<Commitment> = of_batch.iter().map(|(_, commitment)| *commitment).collect();
            let previous = chain.last().unwrap();
            chain.push(batch_hash(previous, source(), epoch, SourceSeq::new(first as u64), &of_batch));
            first += size;
        }
        chain
    }

    fn head(&self, batches: usize, time_ns: u64, key: &HeadKey) -> String {
        let head = SignedHead {
            origin: origin(),
            source: source(),
            epoch: Epoch::new(1),
            next: SourceSeq::new(self.sizes[..batches].iter().sum::<usize>() as u64),
            batch_hash: self.chain()[batches],
            time_ns,
            seen: (0, tree::empty()),
            next_key: key.clone().ratchet().public(),
        };
        head.sign(key).unwrap()
    }

    /// The proof of the batches `from..to` for the records of web-1 with these numbers, up to the head after `to` batches.
    fn proof(&self, from: usize, to: usize, shown: &[usize]) -> HeadProof {
        let all = commitments(&self.journal);
        let mut first: usize = self.sizes[..from].iter().sum();
        let head = usize::from(to == 2);
        let mut proof = HeadProof {
            head: self.stated[2 - head].clone(),
            announcement: self.stated[1 - head].clone(),
            first: SourceSeq::new(first as u64),
            previous: self.chain()[from],
            batches: Vec::new(),
        };
        for size in &self.sizes[from..to] {
            let leaves: Vec<NodeHash> =
                all[first..first + size].iter().map(|(_, commitment)| tree::leaf(commitment.as_bytes())).collect();
            let root = |from: u64, to: u64| {
                let mut root = RootBuilder::default();
                leaves[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()]
                    .iter()
                    .for_each(|leaf| root.push(*leaf));
                root.root()
            };
            let within: Vec<u64> = shown
                .iter()
                .filter(|one| (first..first + size).contains(one))
                .map(|one| (one - first) as u64)
                .collect();
            let batch = if within.is_empty() {
                BatchProof::Root(root(0, *size as u64))
            } else {
                let ends = within.iter().copied().chain([*size as u64]);
                let starts = std::iter::once(0).chain(within.iter().map(|one| one + 1));
                let gaps = starts.zip(ends).flat_map(|(start, end)| subtrees(start, end, *size as u64));
                BatchProof::Shared(gaps.map(|(from, to)| root(from, to)).collect())
            };
            proof.batches.push((u32::try_from(*size).unwrap(), batch));
            first += size;
        }
        proof
    }

    /// A file of these records of web-1, by their numbers, with what the journal states.
    fn case(&self, shown: &[usize], heads: Vec<HeadProof>) -> Case<'_> {
        let all = commitments(&self.journal);
        let mut seqs: Vec<u64> = shown.iter().map(|number| all[*number].0).collect();
        seqs.extend(self.stated.iter().map(|stated| stated.seq));
        seqs.sort_unstable();
        let mut case = Case::of(&self.journal, seqs.into_iter().map(|seq| seq..seq + 1).collect());
        case.heads = heads;
        case
    }

    fn verify(&self, shown: &[usize], heads: Vec<HeadProof>) -> Result<Report, Finding> {
        verify(&self.case(shown, heads).build())
    }
}

fn fault(report: &Report) -> Option<HeadFault> {
    assert_eq!(report.findings.len(), report.heads.iter().filter(|head| head.fault.is_some()).count());
    report.heads.iter().find_map(|head| head.fault.clone())
}

#[test]
fn records_lead_to_the_head_that_their_source_has_signed() {
    let signed = Signed::new(&[3, 1, 5, 2, 7]);
    for shown in [vec![0], vec![4, 5, 8], vec![0, 1, 2, 3, 4], vec![9, 17], (0..18).collect()] {
        // One proof to each head that covers something, or one to the last for all.
        let (early, late): (Vec<usize>, Vec<usize>) = shown.iter().copied().partition(|number| *number < 4);
        let mut heads = Vec::new();
        if !early.is_empty() {
            heads.push(signed.proof(0, 2, &shown));
        }
        if !late.is_empty() {
            heads.push(signed.proof(2, 5, &shown));
        }
        let report = signed.verify(&shown, heads).unwrap();
        assert_eq!(report.findings, [], "{shown:?}");
        assert_eq!(report.heads.iter().map(|head| head.records).sum::<u64>(), shown.len() as u64);
        let last = report.heads.last().unwrap();
        assert_eq!((last.source, last.epoch, last.registered), (source(), Epoch::new(1), late.is_empty()));
        let whole = signed.verify(&shown, vec![signed.proof(0, 5, &shown)]).unwrap();
        assert_eq!(
            (whole.findings.len(), whole.heads[0].records, whole.heads[0].time_ns),
            (0, shown.len() as u64, 2_000)
        );
    }
}

#[test]
fn a_proof_that_was_altered_or_is_of_other_records_shows_nothing() {
    let signed = Signed::new(&[3, 1, 5, 2, 7]);
    let shown = [5, 6, 12];
    let good = signed.proof(2, 5, &shown);
    let broken = |change: &dyn Fn(&mut HeadProof)| {
        let mut proof = good.clone();
        change(&mut proof);
        signed.verify(&shown, vec![proof])
    };
    let other_root: Change = Box::new(|proof| proof.batches[1].1 = BatchProof::Root(tree::empty()));
    let other_previous: Change = Box::new(|proof| proof.previous = BatchHash::new([1; 32]));
    let one_more: Change = Box::new(|proof| proof.batches.push((1, BatchProof::Root(tree::empty()))));
    let one_less: Change = Box::new(|proof| drop(proof.batches.pop()));
    let other_count: Change = Box::new(|proof| proof.batches[1].0 = 3);
    let not_shared: Change = Box::new(|proof| proof.batches[0].1 = BatchProof::Root(tree::empty()));
    let hash_more: Change = Box::new(|proof| match &mut proof.batches[0].1 {
        BatchProof::Shared(hashes) => hashes.push(tree::empty()),
        BatchProof::Root(_) => unreachable!(),
    });
    let hash_less: Change = Box::new(|proof| match &mut proof.batches[0].1 {
        BatchProof::Shared(hashes) => drop(hashes.pop()),
        BatchProof::Root(_) => unreachable!(),
    });
    for (number, change) in
        [other_root, other_previous, one_more, one_less, other_count, not_shared, hash_more, hash_less]
            .iter()
            .enumerate()
    {
        assert_eq!(fault(&broken(change).unwrap()), Some(HeadFault::Records), "change {number}");
    }
    // A record is left out that the proof says is there, and the other way round.
    assert_eq!(fault(&signed.verify(&[5, 12], vec![good.clone()]).unwrap()), Some(HeadFault::Records));
    assert_eq!(fault(&signed.verify(&[5, 6, 7, 12], vec![good.clone()]).unwrap()), Some(HeadFault::Records));

    let hard = |change: &dyn Fn(&mut HeadProof)| match broken(change) {
        Err(Finding::Head { index: 0, fault }) => fault,
        other => panic!("{other:?}"),
    };
    // The key that the registration names has not signed the second head.
    assert!(matches!(hard(&|proof| proof.announcement = signed.stated[0].clone()), HeadFault::Head(_)));
    assert_eq!(hard(&|proof| proof.announcement.seq = proof.head.seq), HeadFault::Order);
    assert_eq!(hard(&|proof| proof.announcement = proof.head.clone()), HeadFault::Order);
    assert!(matches!(hard(&|proof| proof.head.text = b"x".to_vec()), HeadFault::Head(_)));
    assert!(matches!(hard(&|proof| proof.announcement.text = b"x".to_vec()), HeadFault::Announcement(_)));
    assert_eq!(
        signed.verify(&shown, vec![good.clone(), good.clone()]),
        Err(Finding::Head { index: 1, fault: HeadFault::Order })
    );
}

#[test]
fn what_the_journal_does_not_state_is_not_believed() {
    let signed = Signed::new(&[3, 1, 5]);
    let shown = [5];
    let proof = signed.proof(2, 3, &shown);
    // The record is not in the file.
    let mut case = signed.case(&shown, vec![proof.clone()]);
    case.stretches.retain(|stretch| stretch.start != proof.announcement.seq);
    assert_eq!(fault(&verify(&case.build()).unwrap()), Some(HeadFault::NotStated(proof.announcement.seq)));
    // It is, and is hidden.
    let mut case = signed.case(&shown, vec![proof.clone()]);
    let at = proof.head.seq;
    case.view = Box::new(move |record| record.view(if record.envelope.seq.get() == at { 4 } else { 0 }, false));
    assert_eq!(fault(&verify(&case.build()).unwrap()), Some(HeadFault::NotStated(at)));
    // Another record than the one that says so is named.
    let mut other = proof;
    other.head.seq += 1;
    assert_eq!(fault(&signed.verify(&shown, vec![other.clone()]).unwrap()), Some(HeadFault::NotStated(other.head.seq)));
}

/// The case in `tests/golden/v3/evidence`; `SIGILLO_BLESS=1` writes it anew, which only a new format version may do.
#[test]
fn the_golden_case_with_heads_stands() {
    let signed = Signed::new(&[3, 1, 5, 2, 7]);
    let shown = [1, 2, 5, 17];
    let file = signed.case(&shown, vec![signed.proof(0, 2, &shown), signed.proof(2, 5, &shown)]).build();
    let path = Path::new("../../tests/golden/v3/evidence/heads.sigillo");
    if env::var_os("SIGILLO_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file).unwrap();
    }
    let golden = fs::read(path).unwrap();
    assert!(golden == file, "another file is written");
    let report = verify(&golden).unwrap();
    assert_eq!((report.findings.len(), report.heads.len()), (0, 2));
    assert_eq!(
        report.heads.iter().map(|head| (head.records, head.registered)).collect::<Vec<_>>(),
        [(2, true), (2, false)]
    );
}
