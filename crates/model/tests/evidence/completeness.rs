//! Completeness: what a gapless run of counters shows, and on whose word.

use sigillo_model::{
    class::Class,
    evidence::{Completeness, Finding, Kind, NotShown, Run, RunFault, Signed},
    ids::{Count, Seq, SourceId, TenantId},
    statement::counters::CounterKey,
};

use crate::{
    journal::{Case, Journal, TIME},
    verify,
};

fn journal() -> Journal {
    let mut journal = Journal::with(100);
    journal.push_counters();
    journal
}

fn web() -> CounterKey {
    CounterKey::Source(SourceId::from_name("web-1"))
}

fn acme() -> CounterKey {
    CounterKey::Tenant(TenantId::from_name("acme"))
}

fn fault(case: &Case<'_>) -> RunFault {
    let report = verify(&case.build()).unwrap();
    let Completeness::NotShownComplete(NotShown::Fault(fault)) = report.completeness() else {
        panic!("{:?}", report.completeness())
    };
    assert_eq!(report.findings, [Finding::Run { run: 0, fault }]);
    fault
}

#[test]
fn a_whole_run_is_complete_by_the_providers_word_and_checked_by_an_auditor_if_one_has_walked() {
    let journal = journal();
    for key in [web(), acme()] {
        let mut case = Case::complete(&journal, key);
        let report = verify(&case.build()).unwrap();
        assert_eq!((report.completeness(), report.findings), (Completeness::CompleteByProvidersWord, vec![]));
        case.note = journal.note(case.size, &[(0, TIME)], true).to_bytes();
        let auditor = Signed { name: "auditor.example".into(), time: TIME + 50 };
        let report = verify(&case.build()).unwrap();
        assert_eq!(report.completeness(), Completeness::CompleteCheckedBy(vec![auditor]));
        assert!(!report.checkpoint.quorum, "one witness is not enough here");
    }
}

#[test]
fn what_does_not_match_travels_as_commitments() {
    let journal = journal();
    let mut case = Case::complete(&journal, web());
    let last = case.size - 1;
    case.view = Box::new(move |record| {
        let shown = record.envelope.seq.get() % 2 == 0 || record.envelope.seq.get() == last;
        if shown { record.view(0, false) } else { record.commitment_only(false) }
    });
    let report = verify(&case.build()).unwrap();
    assert_eq!(report.completeness(), Completeness::CompleteByProvidersWord);
    assert!(report.hidden.records > 10);
}

#[test]
fn a_middle_run_needs_no_counters_record() {
    let journal = journal();
    let mut case = Case::complete(&journal, web());
    case.stretches = case.stretches.into_iter().skip(3).take(10).collect();
    case.runs = vec![Run { from: 3, to: 13, reaches_end: false, ..case.runs[0].clone() }];
    case.proofs.clear();
    assert_eq!(verify(&case.build()).unwrap().completeness(), Completeness::CompleteByProvidersWord);
}

#[test]
fn two_runs_of_one_id_or_a_run_of_nothing_are_refused() {
    let journal = journal();
    let mut case = Case::complete(&journal, web());
    // Each is whole; number 5 is withheld between them.
    case.stretches.remove(5);
    let whole = case.runs[0].clone();
    let before = Run { to: 5, reaches_end: false, ..whole.clone() };
    case.runs = vec![before.clone(), Run { from: 6, ..whole.clone() }];
    case.proofs[0].run = 1;
    assert_eq!(verify(&case.build()), Err(Finding::RunTwice(1)));
    // Of different ids they may stand together.
    let other = Run { key: acme(), from: 0, to: 1, reaches_end: false, name: None };
    case.runs = vec![before, other];
    case.proofs.clear();
    assert!(verify(&case.build()).is_ok());
    // Nothing is withheld out of nothing.
    for reaches_end in [false, true] {
        let mut case = Case::complete(&journal, web());
        case.runs = vec![Run { from: whole.to, reaches_end, ..whole.clone() }];
        assert_eq!(verify(&case.build()), Err(Finding::Section(Kind::Run)));
    }
}

#[test]
fn what_is_withheld_is_missed() {
    let journal = journal();
    let whole = Case::complete(&journal, web());
    let to = whole.runs[0].to;
    let records = whole.stretches.len();

    let mut case = Case::complete(&journal, web());
    case.stretches.remove(5);
    assert_eq!(fault(&case), RunFault::Gap { expected: 5, found: 6 });

    // The first ones.
    case = Case::complete(&journal, web());
    case.stretches.remove(0);
    assert_eq!(fault(&case), RunFault::Gap { expected: 0, found: 1 });

    // The last ones before the counters record.
    case = Case::complete(&journal, web());
    case.stretches.drain(records - 3..records - 1);
    assert_eq!(fault(&case), RunFault::Suffix { from: to - 2, to: to - 1 });

    // The same, with a claim to match.
    case.runs[0].to = to - 2;
    assert_eq!(fault(&case), RunFault::Counters);

    // The claim alone made smaller.
    case = Case::complete(&journal, web());
    case.runs[0].to = to - 1;
    assert_eq!(fault(&case), RunFault::Beyond(to - 1));

    // The counters record withheld, its content withheld, its proof withheld.
    case = Case::complete(&journal, web());
    case.stretches.pop();
    assert_eq!(fault(&case), RunFault::NoCountersRecord);
    case = Case::complete(&journal, web());
    let last = case.size - 1;
    case.view = Box::new(move |record| record.view(if record.envelope.seq.get() == last { 4 } else { 0 }, false));
    assert_eq!(fault(&case), RunFault::NoCountersRecord);
    case = Case::complete(&journal, web());
    case.proofs.clear();
    assert_eq!(fault(&case), RunFault::NoCounters);

    // Another's proof.
    case = Case::complete(&journal, web());
    case.proofs = Case::complete(&journal, acme()).proofs;
    assert_eq!(fault(&case), RunFault::Counters);

    // Another's run: of a tenant whose records these are not.
    case = Case::complete(&journal, web());
    case.runs[0].key = acme();
    assert!(matches!(fault(&case), RunFault::Gap { .. } | RunFault::Suffix { .. }));
}

#[test]
fn an_older_counters_record_does_not_show_the_end() {
    let mut journal = journal();
    journal.push("web-1", "acme", Class::Service, [Some(b"late".to_vec()), None, None]);
    let mut case = Case::complete(&journal, web());
    // The late record stands after the counters record, which is not the last leaf any more.
    assert!(case.stretches.iter().any(|stretch| stretch.start == 101));
    assert_eq!(fault(&case), RunFault::Beyond(case.runs[0].to));
    case.stretches.retain(|stretch| stretch.start < 101);
    assert_eq!(fault(&case), RunFault::NoCountersRecord);
}

#[test]
fn a_number_that_is_given_twice_is_forgery() {
    for by_tenant in [false, true] {
        let mut journal = Journal::with(60);
        let mut twice = journal.records[42].envelope;
        assert_eq!((twice.source, twice.tenant), (SourceId::from_name("web-1"), TenantId::from_name("beta")));
        twice.tenant = TenantId::from_name("acme");
        let count = journal.records.iter().filter(|record| record.envelope.tenant == twice.tenant).count() as u64;
        let sources = journal.records.iter().filter(|record| record.envelope.source == twice.source).count() as u64;
        (twice.source_count, twice.tenant_count) = (Count::new(sources), Count::new(count));
        let key = if by_tenant {
            twice.tenant_count = Count::new(3);
            acme()
        } else {
            twice.source_count = Count::new(3);
            web()
        };
        twice.seq = Seq::new(60);
        twice.receipt_time = journal.records[59].envelope.receipt_time;
        journal.push_as(twice, [Some(b"x".to_vec()), None, None]);
        journal.push_counters();
        let case = Case::complete(&journal, key);
        assert_eq!(verify(&case.build()), Err(Finding::CountTwice { seq: Seq::new(60), count: 3 }));
        // Whoever withholds one of the two has a run without a gap, of which only an auditor's walk could know better.
        let mut case = Case::complete(&journal, key);
        case.stretches.retain(|stretch| stretch.start != 60);
        let run = case.runs[0].clone();
        case.runs = vec![Run { to: run.to - 1, reaches_end: false, ..run }];
        case.proofs.clear();
        assert_eq!(verify(&case.build()).unwrap().completeness(), Completeness::CompleteByProvidersWord);
    }
}

#[test]
fn names_are_those_of_the_ids() {
    let journal = journal();
    let mut case = Case::complete(&journal, web());
    case.runs[0].name = Some("web-1".into());
    assert!(verify(&case.build()).is_ok());
    case.runs[0].name = Some("web-2".into());
    assert!(verify(&case.build()).is_err());
}

#[test]
fn that_somebody_never_sent_anything_is_not_shown_by_another_ones_entry() {
    let journal = journal();
    let mut case = Case::complete(&journal, web());
    case.runs[0].key = CounterKey::Source(SourceId::from_name("nobody"));
    (case.runs[0].from, case.runs[0].to) = (0, 0);
    assert_eq!(verify(&case.build()), Err(Finding::Section(Kind::Run)));
}
