//! Keys of notes: Ed25519 with a name, and a kind that says what its signatures cover.

use std::fmt;

use ed25519_dalek::Signer as _;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{NoteError, Signature, TIME_MAX, check_text};
use crate::text;

/// Bytes of a key's name at most; of our own choice, far above what is in use.
const NAME_MAX_BYTES: usize = 512;
/// Bytes of a key in text form at most.
const KEY_MAX_BYTES: usize = 1_024;
/// Begins the type of kinds that have no number of their own in the specification.
const OWN_TYPE: u8 = 0xff;
const AUDITOR: &str = "sigillo auditor v1";
const PRIVATE: &str = "PRIVATE+KEY+";

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `name+id+base64`, or `PRIVATE+KEY+name+id+base64` for a private key.
    #[error("this is not a key: `name+id+key` is expected, for a private key with `PRIVATE+KEY+` before it")]
    Form,
    /// A name that is empty, too long, or with white space, control characters or `+`.
    #[error("`{0}` can't be the name of a key: 1 to {NAME_MAX_BYTES} bytes without white space and `+`")]
    Name(String),
    /// A type of key that is not known here.
    #[error("the key `{0}` is of a type that is not known here; Ed25519 keys of types 01, 04 and ff (auditor) are")]
    Type(String),
    /// The public key is not a point of the curve, or one of the few that verify everything.
    #[error("the public key of `{0}` is not a usable Ed25519 key")]
    Point(String),
    /// The id is not the one that name and key give.
    #[error("the id of the key `{0}` is not that of its name and bytes: one of them was changed")]
    Id(String),
}

/// What a key signs, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Type 01: signs the text as it is. Logs, and the officers, exporters, receipts and recovery keys of Sigillo.
    Log,
    /// Type 04: a witness; signs the text under a time.
    Cosigner,
    /// Type ff: signs, under a time, that it has walked every record below a checkpoint.
    Auditor,
}

impl KeyKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Log, Self::Cosigner, Self::Auditor];

    /// The signature type of the specification, before the key's own bytes.
    fn type_bytes(self) -> Vec<u8> {
        match self {
            Self::Log => vec![1],
            Self::Cosigner => vec![4],
            Self::Auditor => [&[OWN_TYPE], AUDITOR.as_bytes()].concat(),
        }
    }

    /// The text that is signed, for kinds that carry a time.
    fn timed(self, text: &str, time: u64) -> Option<String> {
        match self {
            Self::Log => None,
            Self::Cosigner => Some(format!("cosignature/v1\ntime {time}\n{text}")),
            Self::Auditor => Some(format!("{AUDITOR}\ntime {time}\n{text}")),
        }
    }

    /// Splits what follows the id in a key's text form into kind and 32 bytes.
    fn split(bytes: &[u8]) -> Option<(Self, [u8; 32])> {
        Self::ALL.into_iter().find_map(|kind| {
            let key = bytes.strip_prefix(kind.type_bytes().as_slice())?;
            Some((kind, key.try_into().ok()?))
        })
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Cosigner => "cosigner",
            Self::Auditor => "auditor",
        })
    }
}

/// The first four bytes of `SHA-256(name || 0A || type || public key)`. Short: it names a key, it does not prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 4]);

impl KeyId {
    pub(super) const fn new(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }

    fn of(name: &str, kind: KeyKind, public: &[u8; 32]) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(name)
            .chain_update(b"\n")
            .chain_update(kind.type_bytes())
            .chain_update(public)
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        Self([a, b, c, d])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A public key with its name and kind. Its text form is `name+id+base64(type || key)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    pub(super) id: KeyId,
    public: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    /// The key of this name and kind with these bytes of Ed25519.
    pub fn new(name: &str, kind: KeyKind, public: &[u8; 32]) -> Result<Self, KeyError> {
        if !valid_name(name) {
            return Err(KeyError::Name(name.to_owned()));
        }
        let point = || KeyError::Point(name.to_owned());
        let public = ed25519_dalek::VerifyingKey::from_bytes(public).map_err(|_| point())?;
        // A key of small order accepts one signature for every text.
        if public.is_weak() {
            return Err(point());
        }
        Ok(Self { name: name.to_owned(), kind, id: KeyId::of(name, kind, public.as_bytes()), public })
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, bytes) = split(text)?;
        let (kind, public) = KeyKind::split(&bytes).ok_or_else(|| KeyError::Type(name.to_owned()))?;
        let key = Self::new(name, kind, &public)?;
        if key.id == id { Ok(key) } else { Err(KeyError::Id(name.to_owned())) }
    }

    /// The key's name; a log's is its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What the key signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The Ed25519 public key alone.
    pub fn public_bytes(&self) -> &[u8; 32] {
        self.public.as_bytes()
    }

    /// Checks what follows the key id in a signature line. The time, for kinds that have one.
    pub(super) fn verify(&self, text: &str, bytes: &[u8]) -> Result<Option<u64>, NoteError> {
        let (time, holds) = match (self.kind, bytes.split_first_chunk::<8>()) {
            (KeyKind::Log, _) => (None, self.holds(text, bytes)),
            (kind, Some((time, signature))) => {
                let time = u64::from_be_bytes(*time);
                let signed = kind.timed(text, time).filter(|_| time <= TIME_MAX);
                (Some(time), signed.is_some_and(|signed| self.holds(&signed, signature)))
            }
            (_, None) => (None, false),
        };
        if holds { Ok(time) } else { Err(NoteError::WrongSignature(self.name.clone())) }
    }

    /// Whether these 64 bytes are the key's Ed25519 signature over exactly this text. Strict: no key or nonce of small order,
    /// no second encoding of the same signature.
    fn holds(&self, text: &str, signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.public.verify_strict(text.as_bytes(), &signature).is_ok())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.kind.type_bytes().as_slice(), self.public_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, self.id, text::base64(&bytes))
    }
}

/// A private key with its name and kind. Wiped when dropped, never shown. Its text form is that of Go's
/// `golang.org/x/mod/sumdb/note`: `PRIVATE+KEY+name+id+base64(type || seed)`.
#[derive(Clone)]
pub struct SigningKey {
    secret: ed25519_dalek::SigningKey,
    verifier: VerifierKey,
}

impl SigningKey {
    /// The key that 32 bytes of a cryptographic random source give.
    pub fn from_seed(name: &str, kind: KeyKind, seed: &[u8; 32]) -> Result<Self, KeyError> {
        if !valid_name(name) {
            return Err(KeyError::Name(name.to_owned()));
        }
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let public = secret.verifying_key();
        let id = KeyId::of(name, kind, public.as_bytes());
        Ok(Self { secret, verifier: VerifierKey { name: name.to_owned(), kind, id, public } })
    }

    /// Reads the text form; white space at its end is taken as the end of a file's line.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, bytes) = split(text.trim_end().strip_prefix(PRIVATE).ok_or(KeyError::Form)?)?;
        let bytes = Zeroizing::new(bytes);
        let (kind, seed) = KeyKind::split(&bytes).ok_or_else(|| KeyError::Type(name.to_owned()))?;
        let key = Self::from_seed(name, kind, &Zeroizing::new(seed))?;
        if key.verifier.id == id { Ok(key) } else { Err(KeyError::Id(name.to_owned())) }
    }

    /// The text form, without a newline.
    pub fn encode(&self) -> Zeroizing<String> {
        let VerifierKey { name, kind, id, .. } = &self.verifier;
        let bytes = Zeroizing::new([kind.type_bytes().as_slice(), self.secret.as_bytes()].concat());
        Zeroizing::new(format!("{PRIVATE}{name}+{id}+{}", *Zeroizing::new(text::base64(&bytes))))
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs the text of a note, with a key of kind [`KeyKind::Log`].
    pub fn sign(&self, text: &str) -> Result<Signature, NoteError> {
        check_text(text)?;
        match self.verifier.kind {
            KeyKind::Log => Ok(self.signature(None, text)),
            KeyKind::Cosigner | KeyKind::Auditor => Err(self.wrong_kind()),
        }
    }

    /// Signs the text of a checkpoint under a time, with a key of a kind that carries one.
    pub fn cosign(&self, text: &str, unix_seconds: u64) -> Result<Signature, NoteError> {
        check_text(text)?;
        if unix_seconds > TIME_MAX {
            return Err(NoteError::Time(unix_seconds));
        }
        let signed = self.verifier.kind.timed(text, unix_seconds).ok_or_else(|| self.wrong_kind())?;
        Ok(self.signature(Some(unix_seconds), &signed))
    }

    fn signature(&self, time: Option<u64>, signed: &str) -> Signature {
        let mut bytes = time.map_or_else(Vec::new, |time| time.to_be_bytes().to_vec());
        bytes.extend(self.secret.sign(signed.as_bytes()).to_bytes());
        Signature { name: self.verifier.name.clone(), id: self.verifier.id, bytes }
    }

    fn wrong_kind(&self) -> NoteError {
        NoteError::WrongKind { name: self.verifier.name.clone(), kind: self.verifier.kind }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.verifier.to_string()).finish()
    }
}

/// Splits `name+id+base64`; the base64 may itself hold `+`.
fn split(text: &str) -> Result<(&str, KeyId, Vec<u8>), KeyError> {
    if text.len() > KEY_MAX_BYTES {
        return Err(KeyError::Form);
    }
    let mut words = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (words.next(), words.next(), words.next()) else {
        return Err(KeyError::Form);
    };
    if !valid_name(name) {
        return Err(KeyError::Name(name.to_owned()));
    }
    let mut bytes = [0; 4];
    if hex::decode_to_slice(id, &mut bytes).is_err() || id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(KeyError::Form);
    }
    Ok((name, KeyId(bytes), text::from_base64(key).ok_or(KeyError::Form)?))
}

/// Whether a key may have this name.
pub(super) fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX_BYTES && !name.chars().any(|c| c.is_whitespace() || c < ' ' || c == '+')
}
