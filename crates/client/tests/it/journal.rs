//! A journal's log, honest or not: a tree of any entries, its notes and proofs, signed receipts.

use std::{fs, path::Path};

use bytes::Bytes;
use sigillo_model::{
    checkpoint::Checkpoint,
    ids::{ChainHash, NodeHash, Origin, SourceId},
    note::{KeyKind, Note, SigningKey},
    proof::{self, Subtrees},
    receipt::{FrameBuilder, key_name},
    tree,
};
use sigillo_proto::{receipt::receipt, v1};

use crate::server::ORIGIN;

pub(crate) fn log_key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, KeyKind::Log, &[2; 32]).unwrap()
}

pub(crate) fn receipt_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&key_name(&Origin::new(ORIGIN).unwrap()), KeyKind::Log, &[seed; 32]).unwrap()
}

/// The trust file of a sender: the log's key, and the receipt key made of 1s.
pub(crate) fn write_trust(path: &Path) {
    let (log, receipt) = (log_key(), receipt_key(1));
    let text = format!("log {}\nreceipt {}\nquorum none\n", log.verifier(), receipt.verifier());
    fs::write(path, text).unwrap();
}

/// The chain values of a journal, which need not be those of its records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree(pub(crate) Vec<ChainHash>);

impl Subtrees for Tree {
    type Error = ();

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, ()> {
        let (width, index) = (1_usize << height, usize::try_from(index).unwrap());
        let mut root = tree::RootBuilder::default();
        self.0[index * width..(index + 1) * width].iter().for_each(|entry| root.push(tree::leaf(entry.as_bytes())));
        Ok(root.root())
    }
}

impl Tree {
    /// A history of so many records; another `history`, other records.
    pub(crate) fn of(history: u8, size: u8) -> Self {
        Self((0..size).map(|at| ChainHash::new([history ^ at; 32])).collect())
    }

    pub(crate) fn size(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn note(&self) -> Bytes {
        self.note_by(&log_key())
    }

    pub(crate) fn note_by(&self, key: &SigningKey) -> Bytes {
        let root = proof::root(self.size(), self).unwrap();
        let text = Checkpoint { origin: ORIGIN.into(), size: self.size(), root }.text();
        let signature = key.sign(&text).unwrap();
        Note::new(text, vec![signature]).unwrap().to_bytes().into()
    }

    pub(crate) fn consistency(&self, old: u64) -> Vec<Bytes> {
        if old >= self.size() { Vec::new() } else { bytes(&proof::consistency(old, self.size(), self).unwrap()) }
    }

    pub(crate) fn inclusion(&self, seq: u64) -> v1::Proof {
        let entry = self.0[usize::try_from(seq).unwrap()];
        let hashes = bytes(&proof::inclusion(seq, self.size(), self).unwrap());
        v1::Proof { hashes, entry: entry.as_bytes().to_vec().into() }
    }
}

fn bytes(hashes: &[NodeHash]) -> Vec<Bytes> {
    hashes.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect()
}

/// Signs a receipt as one of a frame of three.
pub(crate) fn sign(message: &mut v1::Receipt, source: SourceId, key: &SigningKey) {
    let origin = Origin::new(ORIGIN).unwrap();
    let mut builder = FrameBuilder::default();
    let ours = receipt(message, source).unwrap();
    builder.push(&origin, &ours);
    message.frame_index = builder.push(&origin, &ours);
    builder.push(&origin, &ours);
    let frame = builder.sign(&origin, key).unwrap().unwrap();
    message.frame_path = frame.path(message.frame_index).flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>().into();
    message.frame_note = frame.note().clone();
}
