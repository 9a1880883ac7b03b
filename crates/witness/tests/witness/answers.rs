//! What each request is answered with.

use std::{fs, net::TcpStream, os::unix::fs::PermissionsExt, sync::Arc};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs, pki_types::ServerName};
use sha2::{Digest, Sha256};
use sigillo_model::{
    add_checkpoint::AddCheckpoint,
    checkpoint::Checkpoint,
    note::{Note, Signature, VerifierKey},
};

use crate::support::{Answer, Client, Log, Witness, log_key, run};

const ORIGIN: &str = "example.com/log";

fn witness() -> (tempfile::TempDir, Witness) {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::start(dir.path(), &[ORIGIN.into()], "prefix = \"/w1\"");
    (dir, witness)
}

#[test]
fn statuses_are_those_of_the_specification() {
    let (dir, witness) = witness();
    // One connection for all: it is kept.
    let mut client = witness.connect().unwrap();
    let log = Log::new(ORIGIN, 0, 50);
    let fork = Log::new(ORIGIN, 1, 50);
    let mut post = |body: &str| client.ask("POST", "/w1/add-checkpoint", body.as_bytes()).unwrap();
    let expect = |answer: Answer, status: u16, content_type: &str, body: &str| {
        assert_eq!((answer.status, answer.content_type.as_str()), (status, content_type), "{}", answer.body);
        assert!(body.is_empty() || answer.body == body, "{:?}", answer.body);
    };
    let (text, size) = ("text/plain; charset=utf-8", "text/x.tlog.size");

    let first = log.request(0, 20);
    let answer = post(&first.to_string());
    assert_eq!(answer.status, 200);
    let line = Signature::parse(answer.body.strip_suffix('\n').unwrap()).unwrap();
    let note = Note::new(first.checkpoint.text(), vec![line]).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&witness.key)).unwrap().len(), 1);

    expect(post(&log.request(0, 30).to_string()), 409, size, "20\n");
    expect(post(&fork.request(20, 20).to_string()), 409, size, "20\n");
    expect(post(&fork.request(20, 30).to_string()), 422, text, "");
    expect(post(&log.request(20, 30).to_string().replacen("old 20", "old 31", 1)), 400, text, "");
    expect(post("old 20\n"), 400, text, "");
    expect(post(&Log::new("example.com/other", 0, 5).request(0, 5).to_string()), 404, text, "");
    let forged = log.request(20, 30).to_string().replace("\n30\n", "\n31\n");
    expect(post(&forged), 403, text, "");
    let empty = Checkpoint { origin: ORIGIN.into(), size: 0, root: sigillo_model::tree::leaf(b"") }.text();
    let signature = log_key(ORIGIN).sign(&empty).unwrap();
    let empty =
        AddCheckpoint { old_size: 0, proof: Vec::new(), checkpoint: Note::new(empty, vec![signature]).unwrap() };
    expect(post(&empty.to_string()), 422, text, "");
    expect(post(&log.request(20, 30).to_string()), 200, text, "");

    let hash = hex::encode(Sha256::digest(ORIGIN));
    let answer = client.get(&format!("/w1/checkpoint/{hash}")).unwrap();
    let note = Note::parse(answer.body.as_bytes()).unwrap();
    let known = [log_key(ORIGIN).verifier().clone(), witness.key.clone()];
    assert_eq!((answer.status, note.verify(&known).unwrap().len()), (200, 2));
    assert_eq!(note.text(), log.request(20, 30).checkpoint.text());
    for (method, path, status) in [
        ("GET", format!("/w1/checkpoint/{}", hash.to_uppercase()), 404),
        ("GET", "/w1/checkpoint/..%2flock".to_owned(), 404),
        ("GET", "/w1/add-checkpoint".to_owned(), 405),
        ("GET", "/add-checkpoint".to_owned(), 404),
        ("GET", "/health".to_owned(), 200),
    ] {
        assert_eq!(client.ask(method, &path, b"").unwrap().status, status, "{method} {path}");
    }

    // A damaged memory: not cosigned, not healthy, and other programs see nothing of our paths.
    fs::write(dir.path().join("state").join(&hash), "rot").unwrap();
    let answer = client.ask("POST", "/w1/add-checkpoint", log.request(30, 31).to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains(dir.path().to_str().unwrap()), "{}", answer.body);
    assert_eq!(client.get("/health").unwrap().status, 500);
}

#[test]
fn a_huge_body_is_cut_short() {
    let (_dir, witness) = witness();
    let body = vec![b'x'; 1 << 20];
    // Either it says so, or it has closed the connection while we still sent.
    if let Ok(answer) = witness.connect().unwrap().ask("POST", "/w1/add-checkpoint", &body) {
        assert_eq!(answer.status, 413, "{}", answer.body);
    }
    assert_eq!(witness.connect().unwrap().get("/health").unwrap().status, 200);
}

#[test]
fn it_speaks_tls() {
    let dir = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(dir.path().join("cert.pem"), issued.cert.pem()).unwrap();
    fs::write(dir.path().join("cert.key"), issued.signing_key.serialize_pem()).unwrap();
    let tls = "tls = { cert = \"cert.pem\", key = \"cert.key\" }";
    let witness = Witness::start(dir.path(), &[ORIGIN.into()], tls);

    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let stream = StreamOwned::new(session, TcpStream::connect(&witness.address).unwrap());
    let answer = Client::new(stream).send(&Log::new(ORIGIN, 0, 3).request(0, 3)).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(witness.connect().unwrap().get("/health").is_err(), "plaintext is not answered");
}

#[test]
fn the_command_line_teaches() {
    let dir = tempfile::tempdir().unwrap();
    let made = run(&["new-key", "--name", "w.example", "--out", "key"], dir.path());
    let public = String::from_utf8(made.stdout).unwrap();
    VerifierKey::parse(public.trim_end()).unwrap();
    let shown = run(&["show-key", "key"], dir.path());
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), public);
    assert!(!run(&["new-key", "--name", "w.example", "--out", "key"], dir.path()).status.success());
    fs::set_permissions(dir.path().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = String::from_utf8(run(&["show-key", "key"], dir.path()).stderr).unwrap();
    assert!(refused.contains("chmod 600"), "{refused}");
    let help = String::from_utf8(run(&["--help"], dir.path()).stdout).unwrap();
    assert!(help.contains("new-key --name") && help.contains("Never restore it from a backup"), "{help}");
}

#[test]
fn two_witnesses_cannot_share_a_memory() {
    let (dir, witness) = witness();
    let second = run(&["run", "--config", "witness.toml"], dir.path());
    assert!(!second.status.success());
    assert!(String::from_utf8(second.stderr).unwrap().contains("another witness"));
    drop(witness);
    let check = run(&["check", "--config", "witness.toml"], dir.path());
    assert!(String::from_utf8(check.stdout).unwrap().ends_with("example.com/log: size 0\n"));
}
