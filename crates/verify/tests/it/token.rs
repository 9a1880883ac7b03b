//! Time-stamp tokens that OpenSSL made.

use std::{fs, path::Path, process::Command};

use sha2::{Digest, Sha256};
use sigillo_model::policy::Policy;
use sigillo_verify::{
    token::{self, TokenError},
    verdict,
};

use crate::files;

const CONFIG: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = Test authority
[stamps]
extendedKeyUsage = critical, timeStamping
[web]
extendedKeyUsage = critical, serverAuth
[tsa]
default_tsa = authority
[authority]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha512
ess_cert_id_alg = sha256
";

/// An authority of its own, in a folder.
struct Authority {
    dir: tempfile::TempDir,
    pin: [u8; 32],
}

fn openssl(dir: &Path, arguments: &[&str]) -> bool {
    let output = Command::new("openssl").current_dir(dir).args(arguments).output().expect("openssl can't be run");
    if !output.status.success() {
        eprintln!("openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// False, loudly, where there is no OpenSSL.
fn can_run() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !there {
        std::io::Write::write_all(
            &mut std::io::stdout(),
            b"SKIPPED: openssl is not installed, so no time-stamp token is tested\n",
        )
        .unwrap();
    }
    there
}

impl Authority {
    fn new(key: &[&str], usage: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("openssl.cnf"), CONFIG).unwrap();
        fs::write(path.join("serial"), "01\n").unwrap();
        assert!(openssl(path, &[&["genpkey", "-out", "key.pem"], key].concat()));
        let request =
            ["req", "-x509", "-new", "-key", "key.pem", "-days", "30", "-config", "openssl.cnf", "-extensions"];
        assert!(openssl(path, &[&request[..], &[usage, "-out", "cert.pem"]].concat()));
        assert!(openssl(path, &["x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der"]));
        let pin = Sha256::digest(fs::read(path.join("cert.der")).unwrap()).into();
        Self { dir, pin }
    }

    /// The response to a query over `data`.
    fn stamp(&self, data: &[u8], more: &[&str]) -> Vec<u8> {
        let path = self.dir.path();
        fs::write(path.join("data"), data).unwrap();
        assert!(openssl(path, &[&["ts", "-query", "-data", "data", "-out", "query"], more].concat()));
        let reply = ["ts", "-reply", "-queryfile", "query", "-config", "openssl.cnf", "-section", "authority"];
        let files = ["-inkey", "key.pem", "-signer", "cert.pem", "-out", "reply"];
        assert!(openssl(path, &[&reply[..], &files].concat()));
        fs::read(path.join("reply")).unwrap()
    }

    fn rsa() -> Self {
        Self::new(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "stamps")
    }
}

#[test]
fn tokens_of_rsa_and_of_curves_are_verified() {
    if !can_run() {
        return;
    }
    let curve =
        |name: &str| Authority::new(&["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{name}")], "stamps");
    for authority in [Authority::rsa(), curve("P-256"), curve("P-384")] {
        let reply = authority.stamp(b"the data", &["-sha256", "-cert"]);
        let stamp = token::verify(&reply, &[authority.pin]).unwrap();
        assert_eq!(stamp.imprint, <[u8; 32]>::from(Sha256::digest(b"the data")));
        assert_eq!((token::imprint(&reply), stamp.authority.as_str()), (Ok(stamp.imprint), "CN=Test authority"));
        assert!(stamp.time > 1_700_000_000, "{}", stamp.time);
        // The token alone, as some tools keep it.
        assert!(openssl(authority.dir.path(), &["ts", "-reply", "-in", "reply", "-token_out", "-out", "token"]));
        assert_eq!(
            token::verify(&fs::read(authority.dir.path().join("token")).unwrap(), &[authority.pin]),
            Ok(stamp.clone())
        );
        // No byte can be changed so that it says something else.
        // Every byte of the shortest; verifying is slow.
        let step = if reply.len() < 1_400 { 1 } else { 11 };
        for at in (0..reply.len()).step_by(step) {
            let mut changed = reply.clone();
            changed[at] ^= 1 << (at % 8);
            let verdict = token::verify(&changed, &[authority.pin]);
            assert!(verdict.is_err() || verdict == Ok(stamp.clone()), "byte {at}");
        }
        for length in (0..reply.len()).step_by(step) {
            assert!(token::verify(&reply[..length], &[authority.pin]).is_err());
        }
    }
}

#[test]
fn other_tokens_are_refused() {
    if !can_run() {
        return;
    }
    let authority = Authority::rsa();
    let reply = authority.stamp(b"x", &["-sha256", "-cert"]);
    assert!(matches!(token::verify(&reply, &[[0; 32]]), Err(TokenError::Stranger(_))));
    let without = authority.stamp(b"x", &["-sha256"]);
    assert_eq!(token::verify(&without, &[authority.pin]), Err(TokenError::NoCertificate));
    let long = authority.stamp(b"x", &["-sha512", "-cert"]);
    assert!(matches!(token::verify(&long, &[authority.pin]), Err(TokenError::Form(_))));
    for bytes in [&b""[..], b"0", &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
        assert!(token::verify(bytes, &[authority.pin]).is_err());
    }
}

#[test]
fn a_token_over_a_checkpoint_says_since_when_its_records_existed() {
    if !can_run() {
        return;
    }
    let authority = Authority::rsa();
    let trust = format!("{}tsa {}\n", files::trust(), hex::encode(authority.pin));
    let policy = Policy::parse(trust.as_bytes()).unwrap();
    let verify = |token: &[u8]| verdict::verify(&*files::with_token("stamp.tsr", token), &policy, &mut ()).unwrap();

    for (earlier, size) in [(false, 61), (true, 7)] {
        let verdict = verify(&authority.stamp(&files::note(earlier), &["-sha256", "-cert"]));
        assert_eq!((verdict.exit_code(), verdict.tokens[0].size), (0, Some(size)));
        assert_eq!(verdict.stamped[0].size, size);
    }
    // Of something else: proves nothing, and harms nothing.
    let verdict = verify(&authority.stamp(b"another text", &["-sha256", "-cert"]));
    assert_eq!((verdict.exit_code(), verdict.tokens[0].size, verdict.stamped.len()), (0, None, 0));
    // Of a stranger.
    let verdict = verify(&Authority::rsa().stamp(&files::note(false), &["-sha256", "-cert"]));
    assert_eq!((verdict.exit_code(), verdict.stamped.len()), (0, 0));
    // Altered in its signature, which stands at its end.
    let mut altered = authority.stamp(&files::note(false), &["-sha256", "-cert"]);
    *altered.last_mut().unwrap() ^= 1;
    let verdict = verify(&altered);
    assert_eq!((verdict.exit_code(), verdict.stamped.len()), (1, 0));
}
