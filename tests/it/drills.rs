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
