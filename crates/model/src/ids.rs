//! A type for every id, number, time and hash, so that none is passed for another.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::hash;

/// A text that can't be used as a name or as hexadecimal bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name of a source, tenant or class is empty or too long.
    #[error("a name has 1 to {max} bytes, this one has {length}")]
    Length {
        /// Bytes of the refused name.
        length: usize,
        /// Most bytes allowed.
        max: usize,
    },
    /// The name holds a control character or white space.
    #[error("a name has no spaces and no control characters: {0:?}")]
    Character(String),
    /// An origin must be a URL without its scheme, without spaces and `+`.
    #[error("an origin is a URL without scheme, spaces or '+', for example journal.example.net/2026: {0:?}")]
    Origin(String),
    /// The text is not hexadecimal of the right length.
    #[error("expected {0} hexadecimal digits")]
    Hex(usize),
}

/// Most bytes of the name of a source, tenant or class.
pub const NAME_MAX_BYTES: usize = 128;

/// Checks the name of a source, tenant or class: 1 to [`NAME_MAX_BYTES`] bytes, no white space, no control characters.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(NameError::Length { length: name.len(), max: NAME_MAX_BYTES });
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(NameError::Character(name.to_owned()));
    }
    Ok(())
}

macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Wraps the bytes.
            pub const fn new(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// From a slice, if it has the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// From hexadecimal text.
            pub fn from_hex(text: &str) -> Result<Self, NameError> {
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| NameError::Hex($length * 2))?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }
    };
}

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bytes_type!(
    /// SHA-256 of the exact bytes of a signed note.
    NoteHash, 32
);
bytes_type!(
    /// Id of a source.
    SourceId, 16
);
bytes_type!(
    /// Id of a tenant.
    TenantId, 16
);
bytes_type!(
    /// Value of the journal's chain after a record (`h_i`), or its genesis value.
    ChainHash, 32
);
bytes_type!(
    /// Salted commitment to a record (`c`).
    Commitment, 32
);
bytes_type!(
    /// Salted hash of one part of a record (`p_j`).
    PartHash, 32
);
bytes_type!(
    /// Value of a sender's batch chain (`a_b`), or the opening value of an epoch.
    BatchHash, 32
);
bytes_type!(
    /// Hash of a node of an RFC 6962 tree, SHA-256.
    NodeHash, 32
);

number_type!(
    /// Place of a record in its journal, from 0; also its leaf index.
    Seq, u64
);
number_type!(
    /// Epoch of a source: a new one begins when a sender has lost its state. From 1; 0 = none.
    Epoch, u64
);
number_type!(
    /// Place of a record within its source's epoch, from 0, given by the sender.
    SourceSeq, u64
);
number_type!(
    /// The server's own counter of records per source or per tenant, from 0; never restarts.
    Count, u64
);
number_type!(
    /// When the server took a record: nanoseconds since 1970-01-01T00:00:00Z. Never decreases along the journal.
    ReceiptTime, u64
);
number_type!(
    /// Number of a class of sources.
    ClassId, u16
);
number_type!(
    /// Number of a retention class.
    RetentionId, u16
);

impl Seq {
    /// The sequence `count` places on, or `None` past the end of numbers.
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

impl SourceSeq {
    /// The sequence `count` places on, or `None` past the end of numbers.
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

impl SourceId {
    /// The id of the source of this name: the first 16 bytes of `D(source id, name)`.
    pub fn from_name(name: &str) -> Self {
        Self(first_half(hash::SOURCE_ID.hash(name.as_bytes())))
    }
}

impl TenantId {
    /// The id of the tenant of this name: the first 16 bytes of `D(tenant id, name)`.
    pub fn from_name(name: &str) -> Self {
        Self(first_half(hash::TENANT_ID.hash(name.as_bytes())))
    }
}

fn first_half(hash: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    half
}

/// The name under which a journal is known for ever: a URL without scheme, white space or `+`; at most 255 bytes. With it goes
/// what the journal succeeds, if anything: both make its genesis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    text: String,
    predecessor: Option<NoteHash>,
}

impl Origin {
    /// Checks and wraps the text.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let valid = !text.is_empty()
            && text.len() <= 255
            && !text.contains("://")
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
        if valid { Ok(Self { text, predecessor: None }) } else { Err(NameError::Origin(text)) }
    }

    /// The same name for a journal that succeeds another one, whose last cosigned note has this hash.
    #[must_use]
    pub fn after(self, predecessor: NoteHash) -> Self {
        Self { predecessor: Some(predecessor), ..self }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Hash of the last cosigned note of the journal that this one succeeds; `None`: of none.
    pub fn predecessor(&self) -> Option<NoteHash> {
        self.predecessor
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The random secret of a batch, from which the salts of its records are derived. Never shown, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct BatchSecret([u8; 32]);

impl BatchSecret {
    /// Wraps 32 bytes of a cryptographic random source.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From a slice, if it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for storing and hashing only.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for BatchSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchSecret(..)")
    }
}

/// The salt of one part of one record. Never shown: without it, a part that can be guessed can't be looked up by its hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// Wraps the bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for storing and hashing only.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", BatchSecret::new([0xab; 32]));
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }

    #[test]
    fn origins_and_names_are_checked() {
        assert!(Origin::new("journal.example.net/2026").is_ok());
        for bad in ["", "https://x", "a b", "a+b", "a\n"] {
            assert!(Origin::new(bad).is_err(), "{bad:?}");
        }
        assert!(check_name("web-1").is_ok());
        for bad in ["", "a b", "a\u{7}", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_source_and_a_tenant_of_one_name_differ() {
        assert_ne!(SourceId::from_name("a").as_bytes(), TenantId::from_name("a").as_bytes());
    }
}
