//! The case in `tests/golden/v2/evidence`: what this version writes, and what every later one must read.
//!
//! `SIGILLO_BLESS=1` writes it anew. Only a new format version may do that.

use std::{env, fs, path::Path};

use sigillo_model::{
    evidence::{Completeness, Removed},
    ids::TenantId,
    statement::counters::CounterKey,
};

use crate::{
    journal::{self, Case, Journal, TIME},
    verify,
};

const FOLDER: &str = "../../tests/golden/v2/evidence";

fn case(journal: &Journal) -> Vec<u8> {
    let mut case = Case::complete(journal, CounterKey::Tenant(TenantId::from_name("acme")));
    case.runs[0].name = Some("acme".into());
    case.note = journal.note(case.size, &[(0, TIME + 10), (1, TIME + 11)], true).to_bytes();
    case.earlier = [(7, TIME - 700), (40, TIME - 600)]
        .map(|(size, time)| (size, journal.note(size, &[(1, time), (2, time + 1)], false).to_bytes()))
        .into();
    case.view = Box::new(|record| match record.envelope.seq.get() {
        10 => record.view(0b010, false),
        15 => record.commitment_only(false),
        20 => record.view(0b100, true),
        _ => record.view(0, false),
    });
    case.build()
}

#[test]
fn the_golden_case_stands() {
    let mut journal = Journal::with(60);
    journal.push_counters();
    let file = case(&journal);
    let folder = Path::new(FOLDER);
    if env::var_os("SIGILLO_BLESS").is_some() {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("case.sigillo"), &file).unwrap();
        fs::write(folder.join("trust.txt"), journal::trust()).unwrap();
    }
    assert!(fs::read(folder.join("case.sigillo")).unwrap() == file, "another file is written");
    assert_eq!(fs::read_to_string(folder.join("trust.txt")).unwrap(), journal::trust());
    let report = verify(&file).unwrap();
    assert!(matches!(report.completeness(), Completeness::CompleteCheckedBy(_)));
    assert_eq!(report.existed_by(0), Some(TIME - 700));
    assert_eq!(report.removed, [Removed { from: 20, to: 21, parts: 0b100, explained: false, purged: false }]);
}
