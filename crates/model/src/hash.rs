//! BLAKE3 in `derive_key` mode, one context string per use. `D(context, bytes)` of the format page.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

/// One use of the hash, with its context already absorbed.
pub(crate) struct Context(LazyLock<ContextKey>);

macro_rules! contexts {
    ($($(#[$doc:meta])* $name:ident = $context:literal;)*) => {
        $($(#[$doc])* pub(crate) static $name: Context =
            Context(LazyLock::new(|| hash_derive_key_context(concat!("sigillo 2026 v1 ", $context))));)*
    };
}

contexts! {
    /// Salt of one part of one record.
    SALT = "salt";
    /// Hash of one part.
    PART = "part";
    /// Commitment to a record.
    COMMIT = "commit";
    /// The sender's batch chain.
    BATCH = "batch";
    /// Opening value of a sender's epoch.
    EPOCH = "epoch";
    /// The next key of a sender's heads, from the one before.
    HEAD_KEY = "head key";
    /// Value before the journal's first record.
    GENESIS = "genesis";
    /// The journal's chain.
    CHAIN = "chain";
    /// Entry of the tree over the counters.
    COUNTER = "counter";
    /// Checksum of a stored value: against rot, not against people.
    CHECKSUM = "checksum";
    /// Id of a source, from its name.
    SOURCE_ID = "source id";
    /// Id of a tenant, from its name.
    TENANT_ID = "tenant id";
}

impl Context {
    /// A hasher to feed piece by piece.
    pub(crate) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_from_context_key(&self.0)
    }

    /// The hash of `bytes` under this context.
    pub(crate) fn hash(&self, bytes: &[u8]) -> [u8; 32] {
        *self.hasher().update(bytes).finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn context_is_plain_derive_key() {
        assert_eq!(super::CHAIN.hash(b"abc"), blake3::derive_key("sigillo 2026 v1 chain", b"abc"));
    }
}
