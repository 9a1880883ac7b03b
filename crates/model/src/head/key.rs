//! The key of heads, which moves forward and never back.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::hash;

/// The private key of one head. The next one follows from it, the one before does not. Never shown, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct HeadKey([u8; 32]);

impl HeadKey {
    /// The key that 32 bytes give: of a cryptographic random source for a first key.
    pub const fn from_seed(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The Ed25519 public key.
    pub fn public(&self) -> [u8; 32] {
        *ed25519_dalek::SigningKey::from_bytes(&self.0).verifying_key().as_bytes()
    }

    /// The key after this one, whose seed is `D("head key", seed)`; this one is wiped.
    #[must_use]
    pub fn ratchet(self) -> Self {
        let mut hasher = hash::HEAD_KEY.hasher();
        hasher.update(&self.0);
        let next = Self(*hasher.finalize().as_bytes());
        // It keeps the seed in its buffer.
        hasher.zeroize();
        next
    }

    /// The seed, for storing and signing only.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for HeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadKey(..)")
    }
}
