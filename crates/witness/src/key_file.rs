//! The file of the private key.

use std::{
    env, fs,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sigillo_model::note::{KeyError, KeyKind, SigningKey, VerifierKey};
use zeroize::Zeroizing;

/// Begins the name of a key that systemd passes on.
pub(crate) const CREDENTIAL: &str = "credential:";

/// Why a key can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("{0} can be read by others than its owner: chmod 600 {0}")]
    Open(PathBuf),
    /// Not a private key.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A key of another kind.
    #[error("{path} holds a {kind} key; a witness needs a cosigner key: sigillo-witness new-key makes one")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it holds.
        kind: KeyKind,
    },
    /// `credential:` without systemd.
    #[error("{0} asks for a systemd credential, but none is passed on: add LoadCredential= to the service")]
    NoCredentials(PathBuf),
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// Makes a new key and writes it into a new file that only its owner may read.
pub fn create(name: &str, path: &Path) -> Result<VerifierKey, KeyFileError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|_| KeyFileError::Random)?;
    let key = SigningKey::from_seed(name, KeyKind::Cosigner, &seed)
        .map_err(|source| KeyFileError::Key { path: path.to_owned(), source })?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(Zeroizing::new(format!("{}\n", *key.encode())).as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    Ok(key.verifier().clone())
}

/// Reads a key.
pub fn read(path: &Path) -> Result<SigningKey, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = if let Some(name) = path.to_string_lossy().strip_prefix(CREDENTIAL) {
        let folder =
            env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| KeyFileError::NoCredentials(path.to_owned()))?;
        Path::new(&folder).join(name)
    } else if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(KeyFileError::Open(path.to_owned()));
    } else {
        path.to_owned()
    };
    let text = fs::read_to_string(file).map_err(failed)?;
    let key = SigningKey::parse(&Zeroizing::new(text))
        .map_err(|source| KeyFileError::Key { path: path.to_owned(), source })?;
    match key.verifier().kind() {
        KeyKind::Cosigner => Ok(key),
        kind @ (KeyKind::Log | KeyKind::Auditor) => Err(KeyFileError::Kind { path: path.to_owned(), kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_for_their_owner_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let public = create("w.example", &path).unwrap();
        assert_eq!(read(&path).unwrap().verifier(), &public);
        assert!(matches!(create("w.example", &path), Err(KeyFileError::Io { .. })));
        assert_eq!(read(&path).unwrap().verifier(), &public);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Open(_))));
    }

    #[test]
    fn a_log_key_is_no_witness_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = SigningKey::from_seed("l", KeyKind::Log, &[1; 32]).unwrap();
        fs::write(&path, key.encode().as_str()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Kind { .. })));
    }
}
