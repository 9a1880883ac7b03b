//! The drills in short form. `cargo xtask drill` holds the long ones.

use std::process::Output;

use sigillo_testkit::binaries::run;
use tempfile::TempDir;

fn drill(arguments: &str) -> (Output, String) {
    let dir = TempDir::new().unwrap();
    let output = run("sigillo-drill", dir.path(), arguments.split(' ')).unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (output, said)
}

#[test]
fn what_was_acknowledged_survives_kills_and_loss_of_power() {
    let (output, said) = drill("crash --trials 6 --seed 20");
    assert!(output.status.success() && said.ends_with("\n6 passed, 0 failed\n"), "{said}");
}

#[test]
fn the_crash_drill_fails_when_nothing_is_synced() {
    let (output, said) = drill("crash --trials 3 --seed 21 --no-sync");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("acknowledged batches") && said.contains("are lost"), "{said}");
}

#[test]
fn every_edit_is_found_and_no_control_is() {
    let (output, said) = drill("tamper --trials 20 --records 5000 --seed 22");
    assert!(output.status.success() && said.ends_with("\n40 passed, 0 failed\n"), "{said}");
}

#[test]
fn every_forgery_of_the_owner_is_found_and_nothing_lawful_is() {
    let (output, said) = drill("tamper --owner --trials 20 --records 3000 --seed 23");
    assert!(output.status.success() && said.ends_with("\n40 passed, 0 failed\n"), "{said}");
}

#[test]
fn the_owners_drill_fails_without_what_others_hold() {
    for (without, missed) in [("officers", "erased by an order"), ("kept", "a kept checkpoint replaced")] {
        let (output, said) = drill(&format!("tamper --owner --trials 20 --records 3000 --seed 23 --without {without}"));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.lines().any(|line| line.contains(missed) && line.contains("failed: ")), "{said}");
    }
}

#[test]
fn nothing_is_withheld_from_complete_evidence_unseen() {
    let (output, said) = drill("omission --trials 72 --seed 23");
    assert!(output.status.success() && said.ends_with("\n144 passed, 0 failed\n"), "{said}");
    let attacks: Vec<&str> = said.lines().filter(|line| line.starts_with("attack: ")).collect();
    assert!(attacks.len() == 18 && attacks.iter().all(|line| line.ends_with(" 4      0")), "{said}");
}

#[test]
fn every_altered_spool_is_noticed_and_no_control_is() {
    let (output, said) = drill("spool --trials 100 --seed 26");
    assert!(output.status.success() && said.ends_with("\n200 passed, 0 failed\n"), "{said}");
}

#[test]
fn the_spool_drill_fails_when_nobody_signs() {
    let (output, said) = drill("spool --trials 40 --seed 27 --without-heads");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("chained anew) failed: nobody noticed"), "{said}");
}

#[test]
fn every_line_arrives_once_whatever_breaks() {
    let (output, said) = drill("agent --trials 16 --records 3000 --seed 24");
    assert!(output.status.success() && said.ends_with("\n16 passed, 0 failed\n"), "{said}");
}

#[test]
fn the_agent_drill_fails_when_nothing_is_synced() {
    let (output, said) = drill("agent --trials 8 --records 2000 --seed 25 --no-sync");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("power cut of both"), "{said}");
}
