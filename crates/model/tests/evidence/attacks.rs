//! Nothing altered passes, and nothing makes the verifier fall over.

use proptest::prelude::*;
use sigillo_model::{
    evidence::{Finding, Run},
    ids::SourceId,
    note::Note,
    policy::Policy,
    statement::counters::CounterKey,
};

use crate::{
    journal::{self, Case, Journal, TIME, end, sections},
    verify,
};

/// A file with every kind of section.
fn full() -> Vec<u8> {
    let mut journal = Journal::with(30);
    journal.push_counters();
    let mut case = Case::complete(&journal, CounterKey::Source(SourceId::from_name("panel")));
    case.earlier = vec![(9, journal.note(9, &[(0, TIME - 5), (1, TIME - 4)], false).to_bytes())];
    let rotation = sigillo_model::rotation::Rotation {
        origin: journal::origin(),
        size: 100,
        key: journal::key(journal::ORIGIN, sigillo_model::note::KeyKind::Log, 99).verifier().clone(),
    };
    let text = rotation.text();
    case.rotations = vec![Note::new(text.clone(), vec![journal::recovery().sign(&text).unwrap()]).unwrap().to_bytes()];
    case.tokens = vec![("token.tsr".into(), vec![1, 2, 3])];
    case.view = Box::new(|record| match record.envelope.seq.get() {
        2 => record.view(2, false),
        5 => record.commitment_only(true),
        _ => record.view(0, false),
    });
    case.build()
}

#[test]
fn every_flipped_byte_is_found() {
    let file = full();
    assert_eq!(verify(&file).unwrap().exporters.len(), 1);
    let (_, end, _) = sections(&file)[sections(&file).len() - 1];
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        // A changed name or key id is that of somebody unknown: then nobody known vouches for the file, and the report says so.
        match verify(&flipped) {
            Err(_) => (),
            Ok(report) => {
                assert!(
                    report.exporters.is_empty() && !report.strangers.is_empty() && at > end,
                    "byte {at} of {}",
                    file.len()
                );
            }
        }
    }
}

#[test]
fn every_cut_is_found() {
    let file = full();
    for length in 0..file.len() {
        assert!(verify(&file[..length]).is_err(), "{length} of {}", file.len());
    }
    for extra in [&b"\0"[..], b"12345", &[14, 0, 0, 0, 0]] {
        let longer = [file.as_slice(), extra].concat();
        assert_eq!(verify(&longer), Err(Finding::Trailing));
    }
}

/// The attacker seals the file anew with the exporter's own key: what is proved may not depend on the seal.
#[test]
fn a_flipped_byte_of_what_is_proved_is_found_under_a_good_seal() {
    let file = full();
    let whole = verify(&file).unwrap();
    let sections = sections(&file);
    let (_, body, _) = sections[sections.len() - 1];
    for (kind, from, to) in &sections[..sections.len() - 1] {
        // What the exporter only says, or what is checked elsewhere, is covered by the seal alone.
        if [1, 2, 10, 13].contains(kind) {
            continue;
        }
        for at in *from..*to {
            let mut flipped = file[..body].to_vec();
            flipped[at] ^= 1;
            flipped.extend(end(&flipped, Some(&journal::exporter())));
            let verdict = verify(&flipped);
            let unproved = match kind {
                // A claim that no longer holds is a finding of the report; one of fewer records holds.
                6 | 9 => verdict.as_ref().is_ok_and(|report| {
                    let claims_less =
                        |run: &Run, than: &Run| run.from > than.from || (than.reaches_end && !run.reaches_end);
                    !report.findings.is_empty() || claims_less(&report.runs[0].run, &whole.runs[0].run)
                }),
                // The exporter's word about what is gone: nothing in the file explains it, and the report says so.
                7 => verdict.as_ref().is_ok_and(|report| {
                    report.removed != whole.removed && report.removed.iter().all(|removed| !removed.explained)
                }),
                // The name of a witness turned into that of somebody unknown: it is not counted.
                4 => verdict.as_ref().is_ok_and(|report| !report.checkpoint.quorum),
                5 => verdict.as_ref().is_ok_and(|report| report.existed_by.len() < whole.existed_by.len()),
                _ => false,
            };
            assert!(verdict.is_err() || unproved, "section {kind}, byte {} of {}", at - from, to - from);
        }
    }
}

#[test]
fn sections_left_out_doubled_or_moved_are_found() {
    let file = full();
    let all = sections(&file);
    let rebuilt = |order: &[usize]| {
        let mut out = sigillo_model::evidence::MAGIC.to_vec();
        for index in order {
            let (_, from, to) = all[*index];
            out.extend(&file[from..to]);
        }
        out.extend(end(&out, Some(&journal::exporter())));
        verify(&out)
    };
    let body: Vec<usize> = (0..all.len() - 1).collect();
    assert!(rebuilt(&body).unwrap().findings.is_empty());
    for at in &body {
        let (kind, ..) = all[*at];
        let without: Vec<usize> = body.iter().copied().filter(|index| index != at).collect();
        // Less is claimed or known without these, and nothing wrong is.
        let lawful = [3, 5, 6, 10].contains(&kind);
        let verdict = rebuilt(&without);
        assert!(lawful || verdict.is_err() || !verdict.unwrap().findings.is_empty(), "without section {kind}");
        let mut doubled = body.clone();
        doubled.insert(*at, *at);
        // A second proof or claim of the same changes nothing.
        assert!([3, 6, 9].contains(&kind) || rebuilt(&doubled).is_err(), "section {kind} twice");
        for other in body.iter().filter(|other| *other > at && all[**other].0 != kind) {
            let mut swapped = body.clone();
            swapped.swap(*at, *other);
            assert!(rebuilt(&swapped).is_err(), "sections {kind} and {} swapped", all[*other].0);
        }
    }
}

#[test]
fn records_of_another_journal_don_t_fit() {
    let (journal, mut other) = (Journal::with(40), Journal::with(39));
    other.push("web-1", "acme", sigillo_model::class::Class::Service, [Some(b"another".to_vec()), None, None]);
    let mut case = Case::of(&other, vec![3..5]);
    assert!(verify(&case.build()).is_ok());
    case.note = Case::of(&journal, vec![]).note;
    assert!(matches!(verify(&case.build()), Err(Finding::Root { .. })));
}

#[test]
fn a_log_that_was_rewritten_is_found_by_an_earlier_checkpoint() {
    let (journal, mut other) = (Journal::with(40), Journal::with(19));
    for i in 0..21 {
        other.push("web-1", "acme", sigillo_model::class::Class::Service, [Some(vec![i]), None, None]);
    }
    let mut case = Case::of(&other, vec![3..5]);
    case.earlier = vec![(20, journal.note(20, &[(0, TIME), (1, TIME)], false).to_bytes())];
    let verdict = verify(&case.build());
    assert!(matches!(verdict, Err(Finding::Earlier { index: 0, .. })), "{verdict:?}");
}

#[test]
fn who_signs_matters() {
    let journal = Journal::with(20);
    let policy = |text: &str| Policy::parse(text.as_bytes()).unwrap();
    let file = Case::of(&journal, vec![0..20]).build();
    let with = |text: &str| crate::verify_with(&file, &policy(text), &mut ());
    let stranger = journal::key(journal::ORIGIN, sigillo_model::note::KeyKind::Log, 150);
    assert!(with(&format!("log {}\nquorum none\n", stranger.verifier())).is_err());
    assert!(with("quorum none\n").is_err());
    let report = with(&format!("log {}\nquorum none\n", journal::log_key().verifier())).unwrap();
    assert!(report.checkpoint.quorum && report.checkpoint.witnesses.is_empty() && report.existed_by.is_empty());
    // Not enough witnesses: proved, and said not to be enough.
    let mut case = Case::of(&journal, vec![0..20]);
    case.note = journal.note(20, &[(1, TIME)], false).to_bytes();
    let report = verify(&case.build()).unwrap();
    assert!(!report.checkpoint.quorum && report.existed_by.is_empty());
    // A known witness whose signature is of another text.
    let other = Journal::with(21);
    let mut note = journal.note(20, &[], false);
    let foreign = other.note(21, &[(0, TIME)], false);
    note.add(foreign.signatures()[1].clone()).unwrap();
    case.note = note.to_bytes();
    assert!(verify(&case.build()).is_err());
}

#[test]
fn huge_sizes_and_numbers_are_survived() {
    let file = full();
    let all = sections(&file);
    for (_, from, to) in &all {
        for at in *from..to.saturating_sub(8).max(*from) {
            for value in [u64::MAX, u64::MAX - 1, 1 << 63, 0] {
                let mut changed = file.clone();
                changed[at..at + 8].copy_from_slice(&value.to_be_bytes());
                assert!(changed == file || verify(&changed).is_err());
            }
        }
    }
    let journal = Journal::with(5);
    let mut case = Case::of(&journal, vec![0..5]);
    let key = CounterKey::Source(SourceId::from_name("web-1"));
    for (from, to) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX)] {
        case.runs = vec![Run { key, from, to, reaches_end: true, name: None }];
        assert!(!verify(&case.build()).unwrap().findings.is_empty());
    }
    case.runs = vec![Run { key, from: u64::MAX, to: u64::MAX, reaches_end: true, name: None }];
    assert!(verify(&case.build()).is_err());
}

proptest! {
    #[test]
    fn any_section_is_survived(kind in 0_u8..16, payload: Vec<u8>, at: prop::sample::Index) {
        let file = full();
        let all = sections(&file);
        let (_, from, _) = all[at.index(all.len())];
        let mut out = file[..from].to_vec();
        out.push(kind);
        out.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        out.extend(payload);
        out.extend(&file[from..]);
        prop_assert!(verify(&out).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        prop_assert!(verify(&[sigillo_model::evidence::MAGIC, &bytes].concat()).is_err());
    }
}
