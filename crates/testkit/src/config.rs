//! A server's configuration with as many sources as wanted, each with a certificate of its own. The layout of the directory
//! is that of `sigillod --dev`: certificates and `sigillod.toml` in it, data in `data/`.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::Result;
use serde::Serialize;
use sigillo_model::{
    ids::Origin,
    note::{KeyKind, SigningKey},
};

use crate::certificates::{Authority, Identity};

/// Origin of every journal made here.
pub const ORIGIN: &str = "testkit.invalid/journal";

/// The reader whom [`write`] configures; may do everything that a reader can.
pub const READER: &str = "reader";

/// [`ORIGIN`], checked.
pub fn origin() -> Result<Origin> {
    Ok(Origin::new(ORIGIN)?)
}

/// A source to configure.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, also that of its certificate.
    pub name: String,
    /// Name of its class.
    pub class: &'static str,
}

/// Writes certificates and `sigillod.toml` into `dir`: a server on a free port of loopback, these sources, one reader.
pub fn write(dir: &Path, sources: &[Source]) -> Result<()> {
    let authority = Authority::new(dir)?;
    authority.server("server")?;
    let reader = authority.client(READER)?;
    let mut tables = Vec::new();
    for source in sources {
        let Identity { name, fingerprint } = authority.client(&source.name)?;
        let home = "provider";
        tables.push(SourceTable { name, fingerprint, class: source.class, home, speaks_for: "all" });
    }
    let config = Config {
        origin: ORIGIN,
        data_dir: "data",
        listen: "127.0.0.1:0",
        metrics_listen: "127.0.0.1:0",
        checkpoint: checkpoint(dir)?,
        tls: Tls { cert: "server.pem", key: "server.key", client_ca: "ca.pem" },
        source: tables,
        reader: vec![ReaderTable { name: reader.name, fingerprint: reader.fingerprint, role: "auditor" }],
    };
    fs::write(dir.join("sigillod.toml"), toml::to_string(&config)?)?;
    Ok(())
}

/// Keys of the log, and a trust file that asks for no witness.
fn checkpoint(dir: &Path) -> Result<Checkpoint> {
    let (key, receipt_key, trust) = ("log.key", "receipt.key", "trust.txt");
    let make = |file: &str, name: &str, seed: u8| -> Result<SigningKey> {
        let key = SigningKey::from_seed(name, KeyKind::Log, &[seed; 32])?;
        let mut to = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(dir.join(file))?;
        to.write_all(key.encode().as_bytes())?;
        Ok(key)
    };
    let log = make(key, ORIGIN, 1)?;
    let receipt = make(receipt_key, &format!("{ORIGIN}/receipts"), 2)?;
    let text = format!("log {}\nreceipt {}\nquorum none\n", log.verifier(), receipt.verifier());
    fs::write(dir.join(trust), text)?;
    Ok(Checkpoint { key, receipt_key, trust })
}

#[derive(Serialize)]
struct Config {
    origin: &'static str,
    data_dir: &'static str,
    listen: &'static str,
    metrics_listen: &'static str,
    checkpoint: Checkpoint,
    tls: Tls,
    source: Vec<SourceTable>,
    reader: Vec<ReaderTable>,
}

#[derive(Serialize)]
struct Checkpoint {
    key: &'static str,
    receipt_key: &'static str,
    trust: &'static str,
}

#[derive(Serialize)]
struct Tls {
    cert: &'static str,
    key: &'static str,
    client_ca: &'static str,
}

#[derive(Serialize)]
struct SourceTable {
    name: String,
    fingerprint: String,
    class: &'static str,
    home: &'static str,
    speaks_for: &'static str,
}

#[derive(Serialize)]
struct ReaderTable {
    name: String,
    fingerprint: String,
    role: &'static str,
}
