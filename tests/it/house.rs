//! The direction of imports: who may depend on whom, as one table.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// Our crates, each with those that it may import. Whoever is not named here may not exist.
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("sigillo-model", &[]),
    ("sigillo-http", &[]),
    ("sigillo-proto", &["sigillo-model"]),
    ("sigillo-verify", &["sigillo-proto", "sigillo-model"]),
    ("sigillo-spool", &["sigillo-model"]),
    ("sigillo-client", &["sigillo-spool", "sigillo-proto", "sigillo-model"]),
    ("sigillo-journal", &["sigillo-model"]),
    ("sigillo-query", &["sigillo-journal", "sigillo-proto", "sigillo-model"]),
    ("sigillo-server", &["sigillo-http", "sigillo-journal", "sigillo-query", "sigillo-proto", "sigillo-model"]),
    ("sigillo-agent", &["sigillo-client", "sigillo-spool", "sigillo-proto", "sigillo-model"]),
    ("sigillo-panel", &["sigillo-client", "sigillo-spool", "sigillo-proto", "sigillo-model"]),
    (
        "sigillo-cli",
        &[
            "sigillo-client",
            "sigillo-http",
            "sigillo-journal",
            "sigillo-query",
            "sigillo-verify",
            "sigillo-proto",
            "sigillo-model",
        ],
    ),
    ("sigillo", &["sigillo-agent", "sigillo-cli", "sigillo-server"]),
    (
        TESTKIT,
        &[
            "sigillo-client",
            "sigillo-http",
            "sigillo-journal",
            "sigillo-query",
            "sigillo-spool",
            "sigillo-verify",
            "sigillo-proto",
            "sigillo-model",
        ],
    ),
    ("sigillo-witness", &["sigillo-model"]),
    ("xtask", &[]),
];

/// Development only: nothing that ships may import it. The tests of the binaries may import everything.
const TESTKIT: &str = "sigillo-testkit";
const BINARIES: &str = "sigillo";

/// Crates of others that only some of ours may import, for whatever purpose.
const ONLY_IN: [(&str, &[&str]); 5] = [
    ("rocksdb", &["sigillo-journal", TESTKIT]),
    ("tonic", &["sigillo-proto", "sigillo-client", "sigillo-server"]),
    ("tonic-prost", &["sigillo-proto"]),
    ("tonic-health", &["sigillo-server"]),
    ("tonic-reflection", &["sigillo-server"]),
];

/// Crates that may not be compiled in at all, not even by others.
const BANNED: [&str; 2] = ["ring", "openssl-sys"];

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let expected: BTreeSet<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected, "the table of this test names every crate of the workspace");
    for package in &packages {
        let (_, allowed) = MAY_IMPORT.iter().find(|(name, _)| *name == package.name).expect("checked above");
        for (import, development) in &package.imports {
            let ours = names.contains(import.as_str());
            let free = *development && package.name == BINARIES;
            if ours && !allowed.contains(&import.as_str()) && !free {
                wrong.push(format!("{} imports {import}", package.name));
            }
            if let Some((_, only)) = ONLY_IN.iter().find(|(name, _)| name == import)
                && !only.contains(&package.name.as_str())
                && !free
            {
                wrong.push(format!("{} imports {import}, which only {only:?} may", package.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn banned_crates_are_not_compiled_in() {
    // Cargo.lock also names crates that no feature turns on, so the tree that is really built is asked for.
    let tree = cargo(&["tree", "--workspace", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"]);
    let compiled: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(compiled.contains("rustls") && compiled.contains("librocksdb-sys"), "this is not our tree: {compiled:?}");
    for name in BANNED {
        assert!(!compiled.contains(name), "{name} is compiled in: `cargo tree --invert {name}` says by whom");
    }
}

#[test]
fn the_verifier_is_small() {
    // What a stranger must trust to check a file: no runtime, no network, no database.
    let tree =
        cargo(&["tree", "--package", "sigillo-verify", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let compiled: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(compiled.contains("sigillo-model") && compiled.contains("prost"), "this is not our tree: {compiled:?}");
    for name in ["tokio", "tonic", "hyper", "rustls", "rocksdb", "librocksdb-sys"] {
        assert!(!compiled.contains(name), "the verifier compiles {name} in: `cargo tree -p sigillo-verify -i {name}`");
    }
}

struct Package {
    name: String,
    /// Names, and whether for development only.
    imports: Vec<(String, bool)>,
}

fn packages() -> Vec<Package> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let package = |package: &Value| Package {
        name: text(&package["name"]),
        imports: package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|import| (text(&import["name"]), import["kind"] == "dev"))
            .collect(),
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).args(["--offline", "--locked"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
