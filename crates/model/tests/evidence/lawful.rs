//! What lawful files prove.

use sigillo_model::{
    commitment::Committer,
    evidence::{Completeness, Hidden, Nodes, NotShown, RecordView, Removed, Watch},
    ids::NodeHash,
    note::Note,
    policy::Policy,
    proof,
    record::Part,
    record_proof::RecordLink,
    rotation::Rotation,
    tree,
};

use crate::{
    journal::{self, Case, Journal, TIME, exporter},
    verify, verify_with,
};

#[test]
fn records_are_proved_with_all_that_is_said_about_them() {
    let journal = Journal::with(300);
    let mut case = Case::of(&journal, vec![0..3, 10..11, 17..150, 298..300]);
    case.earlier = [(1, TIME - 90), (20, TIME - 80), (200, TIME - 70)]
        .map(|(size, time)| (size, journal.note(size, &[(0, time), (1, time + 1)], false).to_bytes()))
        .into();
    let report = verify(&case.build()).unwrap();
    assert_eq!((report.records, report.stretches, report.span), (139, 4, Some((0, 299))));
    assert_eq!(report.checkpoint.size, 300);
    assert_eq!(report.checkpoint.witnesses.len(), 2);
    assert!(report.checkpoint.quorum && report.checkpoint.quorum_time == Some(TIME + 10));
    assert_eq!(
        [0, 1, 19, 20, 200, 299].map(|seq| report.existed_by(seq).unwrap()),
        [TIME - 90, TIME - 80, TIME - 80, TIME - 70, TIME + 10, TIME + 10]
    );
    assert_eq!(report.completeness(), Completeness::NotShownComplete(NotShown::NotClaimed));
    assert_eq!((report.hidden, report.removed, report.findings), (Hidden::default(), vec![], vec![]));
    assert_eq!((report.exporters, report.strangers), (vec![exporter().verifier().name().to_owned()], vec![]));
    assert_eq!(report.notes.len(), 4);
}

#[test]
fn every_shape_of_tree_and_stretches_is_proved() {
    for size in [1_u64, 2, 3, 5, 8, 13, 64, 65] {
        let journal = Journal::with(usize::try_from(size).unwrap());
        for first in 0..size.min(9) {
            for last in [first, size - 1].into_iter().filter(|last| *last >= first) {
                let mut stretches = vec![first..first + 1];
                if last > first + 1 {
                    stretches.push(last..last + 1);
                }
                let report = verify(&Case::of(&journal, stretches).build()).unwrap();
                assert!(report.records > 0, "{size} {first} {last}");
            }
        }
        assert_eq!(verify(&Case::of(&journal, vec![]).build()).unwrap().records, 0);
        assert_eq!(verify(&Case::of(&journal, vec![0..size]).build()).unwrap().records, size);
    }
}

#[test]
fn what_is_not_shown_is_counted_and_still_proved() {
    let journal = Journal::with(100);
    let mut case = Case::of(&journal, vec![0..100]);
    case.view = Box::new(|record| match record.envelope.seq.get() {
        0..10 => record.view(0b010, false),
        10..20 => record.view(0b101, true),
        20..30 => record.commitment_only(false),
        30..40 => record.commitment_only(true),
        _ => record.view(0, false),
    });
    let report = verify(&case.build()).unwrap();
    let personal = (0..10).filter(|i| i % 3 != 0).count() as u64;
    assert_eq!(report.hidden, Hidden { records: 10, parts: [0, personal, 0] });
    // Nothing explains what is said to be gone.
    assert!(report.removed.iter().all(|removed| !removed.explained));
    assert_eq!(report.removed.last(), Some(&Removed { from: 30, to: 40, parts: 7, explained: false, purged: false }));
}

#[test]
fn many_records_of_any_length_fill_several_sections() {
    let mut journal = Journal::with(10);
    for i in 0..20 {
        let long = Some(vec![7; i * 50_000]);
        journal.push("web-1", "acme", sigillo_model::class::Class::Service, [None, None, long]);
    }
    let file = Case::of(&journal, vec![3..30]).build();
    assert!(journal::sections(&file).iter().filter(|(kind, ..)| *kind == 7).count() > 10);
    let report = verify(&file).unwrap();
    assert_eq!((report.records, report.stretches), (27, 1));
}

#[test]
fn a_rotated_key_is_followed_from_its_size_on() {
    let journal = Journal::with(50);
    let second = journal::key(journal::ORIGIN, sigillo_model::note::KeyKind::Log, 99);
    let rotation = |size, by: &sigillo_model::note::SigningKey| {
        let text = Rotation { origin: journal::origin(), size, key: second.verifier().clone() }.text();
        Note::new(text.clone(), vec![by.sign(&text).unwrap()]).unwrap().to_bytes()
    };
    let checkpoint = journal.note(50, &[], false);
    let signed = Note::new(checkpoint.text(), vec![second.sign(checkpoint.text()).unwrap()]).unwrap().to_bytes();
    let build = |rotations: Vec<Vec<u8>>, note: &[u8]| {
        let mut case = Case::of(&journal, vec![5..6]);
        case.rotations = rotations;
        case.note = note.to_vec();
        verify(&case.build())
    };
    assert!(build(vec![rotation(40, &journal::recovery())], &signed).is_ok());
    assert!(build(vec![], &signed).is_err(), "a key that nothing names");
    assert!(build(vec![rotation(40, &journal::log_key())], &signed).is_err(), "named by the old key");
    assert!(build(vec![rotation(60, &journal::recovery())], &signed).is_err(), "named for later");
    let old = journal.note(50, &[], false).to_bytes();
    assert!(build(vec![rotation(40, &journal::recovery())], &old).is_err(), "the old key, after its end");
    assert!(build(vec![rotation(50, &journal::recovery())], &old).is_ok(), "the old key, at its end");
}

#[test]
fn an_unsigned_file_and_one_signed_by_a_stranger_say_so() {
    let journal = Journal::with(5);
    let mut case = Case::of(&journal, vec![0..5]);
    case.signer = None;
    let report = verify(&case.build()).unwrap();
    assert_eq!((report.exporters.len(), report.strangers.len()), (0, 0));
    case.signer = Some(journal::key("nobody", sigillo_model::note::KeyKind::Log, 200));
    let report = verify(&case.build()).unwrap();
    assert_eq!((report.exporters.len(), report.strangers), (0, vec!["nobody".to_owned()]));
}

/// What a proof of each record alone needs.
#[derive(Default)]
struct Seen {
    nodes: std::collections::HashMap<(u64, u64), NodeHash>,
    links: Vec<(RecordLink, [Option<Vec<u8>>; 3])>,
}

impl Nodes for Seen {
    fn node(&mut self, from: u64, to: u64, hash: &NodeHash) {
        self.nodes.insert((from, to), *hash);
    }
}

impl Watch for Seen {
    fn record(&mut self, record: &RecordView<'_>, link: &RecordLink) {
        self.links.push((*link, Part::ALL.map(|part| record.shown(part).map(<[u8]>::to_vec))));
    }
}

#[test]
fn each_record_is_also_proved_alone() {
    let journal = Journal::with(77);
    let mut case = Case::of(&journal, vec![0..2, 20..33, 76..77]);
    case.view = Box::new(|record| {
        if record.envelope.seq.get() % 2 == 0 { record.view(2, false) } else { record.commitment_only(false) }
    });
    let mut seen = Seen::default();
    let report = verify_with(&case.build(), &Policy::parse(journal::trust().as_bytes()).unwrap(), &mut seen).unwrap();
    assert_eq!(seen.links.len(), 16);
    for (link, parts) in &seen.links {
        let link = RecordLink::parse(&link.encode()).unwrap();
        let bytes = [parts[0].as_deref(), parts[1].as_deref(), parts[2].as_deref()];
        let value = link.chain_value(bytes, &mut Committer::default()).unwrap();
        let seq = link.envelope.seq.get();
        let mut hashes = Vec::new();
        let (mut from, mut to) = (0, 77);
        while to - from > 1 {
            let middle = from + (1 << (to - from - 1_u64).ilog2());
            let (sibling, next) =
                if seq < middle { ((middle, to), (from, middle)) } else { ((from, middle), (middle, to)) };
            hashes.push(seen.nodes[&sibling]);
            (from, to) = next;
        }
        hashes.reverse();
        proof::verify_inclusion(&tree::leaf(value.as_bytes()), seq, 77, &hashes, &report.checkpoint.root).unwrap();
    }
}

#[test]
fn statements_of_officers_explain_what_is_gone() {
    use sigillo_model::{
        class::Class,
        entry::Gone,
        statement::{Act, Erasure, Order, Purge, Retention},
    };

    let order = |act: &Act, signers: &[u8]| {
        let text = Order::text(&journal::origin(), act);
        let signatures = signers.iter().map(|number| journal::officer(*number).sign(&text).unwrap()).collect();
        Note::new(text, signatures).unwrap().to_string()
    };
    let targets = vec![(3, Gone::part(Part::Content)), (4, Gone::RECORD)];
    let erasure = Act::Erase(Erasure { basis: "Art. 17".into(), targets });
    let keep = Act::Keep(Retention { class: Class::Service.retention(), keep_s: 0 });
    let explained = |signers: &[u8], from: u64, to: u64, class: Class, gone_late: bool, newer: Option<&Act>| {
        let mut journal = Journal::with(20);
        let mut say = |text: &str| {
            journal.push("journal", "provider", Class::Journal, [None, None, Some(journal::content(text))]);
        };
        say(&order(&erasure, signers));
        say(&order(&keep, signers));
        if let Some(act) = newer {
            say(&order(act, signers));
        }
        // The minute of receipt must have ended.
        (0..100).for_each(|_| say("idle"));
        say(&Purge { from, to, class: class.retention(), retention: 21 }.text(&journal::origin()));
        let size = journal.size();
        let mut case = Case::of(&journal, vec![0..size]);
        case.view = Box::new(move |record| match record.envelope.seq.get() {
            3 => record.view(4, true),
            4 | 10..15 => record.commitment_only(true),
            seq if gone_late && seq == 19 => record.view(1, true),
            _ => record.view(0, false),
        });
        let removed = verify(&case.build()).unwrap().removed;
        removed.iter().map(|removed| (removed.from, removed.to, removed.explained)).collect::<Vec<_>>()
    };
    let service = Class::Service;
    let (erased, purged) = (|by| [(3, 4, by), (4, 5, by)], |by| (10, 15, by));
    let all = |erasures, purges| [erased(erasures).to_vec(), vec![purged(purges)]].concat();
    assert_eq!(explained(&[0, 1], 10, 15, service, false, None), all(true, true));
    // One officer alone, or the same one twice.
    assert_eq!(explained(&[0], 10, 15, service, false, None), all(false, false));
    assert_eq!(explained(&[1, 1], 10, 15, service, false, None), all(false, false));
    // Another range, another class.
    assert_eq!(explained(&[0, 1], 11, 15, service, false, None), all(true, false));
    assert_eq!(explained(&[0, 1], 10, 14, service, false, None), all(true, false));
    assert_eq!(explained(&[0, 1], 10, 15, Class::Panel, false, None), all(true, false));
    // A purge of what comes after it.
    assert_eq!(explained(&[0, 1], 10, 15_000, service, false, None), all(true, false));
    // By a policy that a newer one has replaced.
    let longer = Act::Keep(Retention { class: service.retention(), keep_s: 86_400 });
    assert_eq!(explained(&[0, 1], 10, 15, service, false, Some(&longer)), all(true, false));
    // What nobody ordered.
    assert_eq!(explained(&[0, 1], 10, 15, service, true, None).last(), Some(&(19, 20, false)));
}
