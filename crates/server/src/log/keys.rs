//! The log's own keys: where they come from, and that nobody else can read them.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sigillo_model::note::{KeyKind, SigningKey};
use zeroize::Zeroizing;

use crate::{config::KeySource, error::ServerError};

/// Most bytes of a key's file: a name has 255 at most.
const MAX_BYTES: u64 = 4_096;
/// Where the service manager puts credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Loads the key named `name`, which signs plain notes. A file that others may read is refused.
pub(crate) fn load(source: &KeySource, name: &str) -> Result<SigningKey, ServerError> {
    let path = match source {
        KeySource::File(path) => path.clone(),
        KeySource::Credential(credential) => {
            let folder = env::var_os(CREDENTIALS).ok_or_else(|| ServerError::Key {
                place: format!("credential:{credential}"),
                problem: format!(
                    "there is no ${CREDENTIALS}: run as a service whose unit says LoadCredential={credential}:PATH, or give a \
                     file instead"
                ),
            })?;
            PathBuf::from(folder).join(credential)
        }
    };
    let refused = |problem: String| ServerError::Key { place: path.display().to_string(), problem };
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused(format!(
            "there is no such file: make the key with `sigillo key new --kind log --name {name} --out {}`",
            path.display()
        )),
        _ => refused(error.to_string()),
    })?;
    let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
    // Credentials are the service manager's to guard: it gives them to this service alone, with modes of its own.
    if matches!(source, KeySource::File(_)) && metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(refused(format!(
            "others may read or write this private key (mode {mode:o}): run `chmod 600 {}`; if somebody may have read it, \
             make a new one",
            path.display()
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| refused(error.to_string()))?;
    let key = SigningKey::parse(&text).map_err(|error| refused(error.to_string()))?;
    let verifier = key.verifier();
    if verifier.kind() != KeyKind::Log {
        return Err(refused(format!("this is a {} key, not one that signs for a log", verifier.kind())));
    }
    if verifier.name() != name {
        return Err(refused(format!("this key is named {:?}, but {name:?} is needed here", verifier.name())));
    }
    Ok(key)
}

/// Makes a key in a file that only its owner may read.
pub(crate) fn generate(path: &Path, name: &str) -> Result<SigningKey, ServerError> {
    let refused = |problem: String| ServerError::Key { place: path.display().to_string(), problem };
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| refused(error.to_string()))?;
    let key = SigningKey::from_seed(name, KeyKind::Log, &seed).map_err(|error| refused(error.to_string()))?;
    let write = || -> io::Result<()> {
        let folder = path.parent().ok_or_else(|| io::Error::other("the file has no folder"))?;
        fs::create_dir_all(folder)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.encode().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    write().map_err(ServerError::file(path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/log.key");
        let made = generate(&path, "log.example").unwrap();
        let source = KeySource::File(path.clone());
        assert_eq!(load(&source, "log.example").unwrap().verifier(), made.verifier());
        assert!(generate(&path, "log.example").is_err(), "a key is never overwritten");
        for mode in [0o640, 0o604, 0o620, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&source, "log.example").unwrap_err().to_string();
            assert!(error.contains("run `chmod 600"), "{error}");
        }
    }

    #[test]
    fn other_keys_are_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let source = KeySource::File(path.clone());
        let told = |name: &str| load(&source, name).unwrap_err().to_string();
        assert!(told("log.example").contains("sigillo key new"));
        generate(&path, "log.example").unwrap();
        assert!(told("other.example").contains("is named \"log.example\""));
        let cosigner = SigningKey::from_seed("log.example", KeyKind::Cosigner, &[1; 32]).unwrap();
        fs::write(&path, cosigner.encode().as_bytes()).unwrap();
        assert!(told("log.example").contains("not one that signs for a log"));
        fs::write(&path, "nonsense").unwrap();
        assert!(load(&source, "log.example").is_err());
        let missing = load(&KeySource::Credential("none".into()), "log.example").unwrap_err().to_string();
        assert!(missing.contains("LoadCredential=none"), "{missing}");
    }
}
