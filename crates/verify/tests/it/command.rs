//! The program: words, exit codes, files.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use sigillo_model::{
    commitment::Committer, evidence::Kind, policy::Policy, proof, record_proof::RecordLink, tlog_proof::TlogProof, tree,
};

use crate::files::{self, golden};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sigillo-verify")).args(arguments).output().unwrap()
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Verifies these bytes by this trust file: exit code and words.
fn verify(file: &[u8], trust: &str, more: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let (case, policy) = (dir.path().join("case.sigillo"), dir.path().join("trust.txt"));
    fs::write(&case, file).unwrap();
    fs::write(&policy, trust).unwrap();
    let (case, policy) = (path(&case), path(&policy));
    let output = program(&[&[case.as_str(), "--policy", &policy], more].concat());
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_is_proved_is_said_in_words_and_in_json() {
    let (code, text) = verify(&files::case(), &files::trust(), &[]);
    assert_eq!(code, 0, "{text}");
    for words in [
        "case.sigillo: proved",
        "25, from sequence 0 to 60",
        "as many as the trust file asks for",
        "numbers 0 to 23 of tenant acme, and no more until the checkpoint: checked by auditor.example",
        "record 20: content, by the exporter's word",
        "Sealed       by exporter.example",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let (code, json) = verify(&files::case(), &files::trust(), &["-o", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["verdict"], &json["records"]), (0, &"proved".into(), &25.into()));
}

#[test]
fn exit_codes_tell_what_is_wrong() {
    let (case, trust) = (files::case(), files::trust());
    let mut flipped = case.clone();
    flipped[case.len() / 2] ^= 1;
    assert_eq!(verify(&flipped, &trust, &[]).0, 1);
    assert_eq!(verify(&case[..case.len() - 1], &trust, &[]).0, 1);
    assert_eq!(verify(b"", &trust, &[]).0, 1);
    assert_eq!(verify(&case, "quorum some\n", &[]).0, 2);
    assert_eq!(program(&["case"]).status.code(), Some(2));
    let (none, policy) = ("no-such-file".to_owned(), path(&golden("trust.txt")));
    assert_eq!(program(&[&none, "--policy", &policy]).status.code(), Some(3));
    // All three witnesses are asked for, and two have cosigned.
    let (code, text) = verify(&case, &trust.replace("group all 2", "group all 3"), &[]);
    assert!(code == 6 && text.contains("FEWER"), "{text}");
    // Another log's trust file.
    let (code, text) = verify(&case, "quorum none\n", &[]);
    assert!(code == 1 && text.contains("proves nothing"), "{text}");
    // A claim that does not hold: the file without the proof of its run's end.
    let mut without = files::sections(&case);
    without.retain(|(kind, _)| *kind != Kind::Counters);
    let (code, text) = verify(&files::sealed(&without), &trust, &[]);
    assert!(code == 1 && text.contains("ALTERED") && text.contains("NOT SHOWN"), "{text}");
}

#[test]
fn nothing_of_a_file_steers_a_terminal() {
    let mut sections = files::sections(&files::case());
    let why = b"case 17";
    let about = &mut sections[0].1;
    let at = about.windows(why.len()).position(|window| window == why).unwrap();
    about[at..at + 7].copy_from_slice(b"\x1b[31m\xe2\x80");
    // Not UTF-8: refused.
    assert_eq!(verify(&files::sealed(&sections), &files::trust(), &[]).0, 1);
    sections[0].1[at..at + 7].copy_from_slice("\u{1b}[3\u{202e}m".as_bytes());
    for form in ["text", "json"] {
        let (code, text) = verify(&files::sealed(&sections), &files::trust(), &["-o", form]);
        assert_eq!(code, 0);
        assert!(!text.contains(['\u{1b}', '\u{202e}']) && text.contains("202e"), "{text:?}");
    }
}

#[test]
fn records_and_their_own_proofs_are_exported() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let (code, text) = verify(&files::case(), &files::trust(), &["--export", folder.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    let lines = fs::read_to_string(folder.join("records.jsonl")).unwrap();
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 25);
    let policy = Policy::parse(files::trust().as_bytes()).unwrap();
    for record in &records {
        let seq = record["sequence"].as_u64().unwrap();
        let proof = fs::read(folder.join(format!("proofs/{seq}.tlog-proof"))).unwrap();
        let proof = TlogProof::parse(&proof).unwrap();
        let link = RecordLink::parse(&proof.extra).unwrap();
        let parts = ["core", "personal", "content"].map(|name| {
            use base64::{Engine, prelude::BASE64_STANDARD};
            record["parts"].get(name).map(|part| BASE64_STANDARD.decode(part.as_str().unwrap()).unwrap())
        });
        let bytes = [0, 1, 2].map(|j: usize| parts[j].as_deref());
        let value = link.chain_value(bytes, &mut Committer::default()).unwrap();
        let checkpoint = policy.check(&proof.checkpoint).unwrap().checkpoint;
        let leaf = tree::record_leaf(&value);
        proof::verify_inclusion(&leaf, proof.index, checkpoint.size, &proof.hashes, &checkpoint.root).unwrap();
    }
    assert_eq!(records.iter().filter(|record| record.get("not_shown").is_some()).count(), 3);
    assert_eq!(records[0]["original"], "line 0");
    assert_eq!(fs::read(folder.join("checkpoint")).unwrap(), files::note(false));
    // A folder that holds something is left alone.
    assert_eq!(verify(&files::case(), &files::trust(), &["--export", folder.to_str().unwrap()]).0, 3);
    // Of an altered file nothing is written.
    let mut altered = files::case();
    let at = altered.len() / 2;
    altered[at] ^= 1;
    let other = dir.path().join("other");
    assert_eq!(verify(&altered, &files::trust(), &["--export", other.to_str().unwrap()]).0, 1);
    assert!(!other.exists());
}

/// The same file, read by a program that was written from the format page alone, in another language.
#[test]
#[ignore = "needs the Python packages of tests/foreign: cargo xtask test"]
fn foreign_program_agrees() {
    let script = "../../tests/foreign/python/verify_evidence.py";
    let foreign =
        env::var_os("SIGILLO_FOREIGN").expect("SIGILLO_FOREIGN names the folder of the programs of tests/foreign");
    let python = Path::new(&foreign).join("programs/bin/python");
    let dir = tempfile::tempdir().unwrap();
    let case = dir.path().join("case.sigillo");
    let foreign = |file: &[u8]| {
        fs::write(&case, file).unwrap();
        let output = Command::new(&python).arg(script).arg(&case).arg(golden("trust.txt")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), serde_json::from_str::<Value>(&text).unwrap())
    };
    let good = files::case();
    let (code, json) = foreign(&good);
    assert_eq!((code, &json["runs"][0]), (0, &"complete, checked by an auditor".into()));
    let (_, ours) = verify(&good, &files::trust(), &["-o", "json"]);
    let ours: Value = serde_json::from_str(&ours).unwrap();
    assert_eq!((&json["root"], &json["records"]), (&ours["checkpoint"]["root"], &ours["records"]));
    // Flips and cuts all over the file, and what is proved changed under a good seal.
    for step in 0..40 {
        let at = good.len() * step / 40;
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        assert_eq!(foreign(&flipped).0, 1, "byte {at}");
        assert_eq!(foreign(&good[..at]).0, 1, "cut at {at}");
    }
    for index in 0..files::sections(&good).len() - 1 {
        let mut sections = files::sections(&good);
        let (kind, payload) = &mut sections[index];
        if matches!(kind, Kind::About | Kind::Trust | Kind::Tools) {
            continue;
        }
        let at = payload.len() / 2;
        payload[at] ^= 1;
        let kind = *kind;
        let file = files::sealed(&sections);
        let (code, json) = foreign(&file);
        assert_eq!(code, verify(&file, &files::trust(), &[]).0, "{kind:?} {json}");
        assert_eq!(code, 1, "{kind:?} {json}");
    }
}
