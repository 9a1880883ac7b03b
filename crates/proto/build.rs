//! Compiles `proto/` without a system protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = ["record", "ingest", "query", "audit", "log", "control", "sources"]
        .map(|name| root.join(format!("sigillo/v1/{name}.proto")));
    let descriptors = protox::compile(files, [&root])?;
    // Kept for server reflection.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("sigillo.v1.bin"), descriptors.encode_to_vec())?;
    let with_services = "#[cfg(feature = \"wire\")]";
    tonic_prost_build::configure()
        .bytes(".")
        .client_mod_attribute(".", with_services)
        .server_mod_attribute(".", with_services)
        .compile_fds(descriptors)?;
    Ok(())
}
