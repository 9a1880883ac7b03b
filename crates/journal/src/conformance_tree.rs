//! What every store must keep of the tree: each root and proof is that of a tree made anew from all chain values, by the definition.

use std::sync::Arc;

use sigillo_model::{
    chain,
    class::Class,
    ids::{ChainHash, NodeHash},
    proof::{verify_consistency, verify_inclusion},
    record::Part,
    tile::{TileKind, TilePath},
    tree::{TreeRow, empty, leaf, node},
};

use crate::{
    Head, Journal, OpenError, Options, ReadError, Reader, SubmitError,
    conformance::{Act, Fate, Faulty, MemoryStore, Rows, Trial, in_memory, on_rocksdb, open, origin},
    error::ReadError::Altered,
    layout::{self, StoredHead, Table},
    options, read,
    store::{Store, WriteSet},
    verify,
};

/// The definition of RFC 6962, word for word.
fn root_of(leaves: &[ChainHash]) -> NodeHash {
    match leaves {
        [] => empty(),
        [only] => leaf(only.as_bytes()),
        _ => {
            let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
            node(&root_of(left), &root_of(right))
        }
    }
}

/// Checks what a reader gives against the chain values themselves, and the stored rows against those that a walk gave.
pub(crate) fn check(reader: &Reader, store: &Arc<dyn Store>, rows: &[TreeRow]) {
    let size = reader.head().size;
    let mut expected: Vec<_> = rows.iter().map(layout::tree_row).map(|(_, key, value)| (key, value)).collect();
    expected.sort();
    let stored =
        read::pairs(store, Table::Tree).map(|pair| pair.map(|(key, value)| (key.into_vec(), value.into_vec())));
    assert_eq!(stored.collect::<Result<Vec<_>, _>>().unwrap(), expected);

    let leaves = chain_values(reader);
    assert_eq!(leaves.len() as u64, size);
    assert_eq!(reader.head().root, root_of(&leaves));
    let count = |number: u64| usize::try_from(number).unwrap();
    // Sizes and places that are not chosen by whoever wrote the code: spread over the journal, and the borders of tiles.
    let sizes: Vec<u64> =
        (0..6).map(|nth| size * nth / 5).chain([1, 255, 256, 257, 511, 512]).filter(|n| *n <= size).collect();
    for (nth, at) in (0..).zip(&sizes) {
        let root = root_of(&leaves[..count(*at)]);
        assert_eq!(reader.root_at(*at), Ok(root), "size {at}");
        for old in &sizes[..nth] {
            let (old, new) = (*old.min(at), *old.max(at));
            let (old_root, root) = (root_of(&leaves[..count(old)]), root_of(&leaves[..count(new)]));
            let proof = reader.consistency(old, new).unwrap();
            verify_consistency(old, &old_root, new, &root, &proof).unwrap();
        }
        for index in [0, at / 3, at / 2, at.saturating_sub(1)].into_iter().filter(|index| index < at) {
            let proof = reader.inclusion(index, *at).unwrap();
            verify_inclusion(&leaf(leaves[count(index)].as_bytes()), index, *at, &proof, &root).unwrap();
        }
    }
    for tile in 0..=size / 256 {
        let range = count(tile * 256)..count((tile * 256 + 256).min(size));
        let path = |kind| TilePath::within(kind, tile, size);
        let Some((hashes, entries)) = path(TileKind::Hashes(0)).zip(path(TileKind::Entries)) else { continue };
        let tree = reader.tree(size).unwrap();
        let expected: Vec<u8> = leaves[range.clone()].iter().flat_map(|h| *leaf(h.as_bytes()).as_bytes()).collect();
        assert_eq!(tree.tile(&hashes), Ok(expected));
        let expected: Vec<u8> =
            leaves[range].iter().flat_map(|h| [[0, 32].as_slice(), h.as_bytes()].concat()).collect();
        assert_eq!(tree.tile(&entries), Ok(expected));
        let wider = TilePath { width: hashes.width + 1, ..hashes };
        assert!(matches!(tree.tile(&wider), Err(ReadError::Beyond { .. })));
    }
    assert!(matches!(reader.root_at(size + 1), Err(ReadError::Beyond { .. })));
    assert!(matches!(reader.inclusion(size, size), Err(ReadError::Beyond { .. })));
    assert!(matches!(reader.link(size), Err(ReadError::Beyond { .. })));
}

/// Every chain value: by ranges that begin anywhere, and record by record through its link.
fn chain_values(reader: &Reader) -> Vec<ChainHash> {
    let size = reader.head().size;
    let part = |from: u64| reader.leaves(from..size.min(from + 65_536)).unwrap();
    let leaves: Vec<ChainHash> = (0..size).step_by(65_536).flat_map(part).collect();
    assert!(size <= 65_536 || reader.leaves(0..size).is_err());
    for start in [size / 7, size / 2, size.saturating_sub(3)].into_iter().filter(|start| size - start <= 65_536) {
        assert_eq!(reader.leaves(start..size).unwrap(), leaves[usize::try_from(start).unwrap()..]);
    }
    let step = (size / 9).max(1);
    for seq in (0..size).step_by(usize::try_from(step).unwrap()) {
        let link = reader.link(seq).unwrap();
        let place = usize::try_from(seq).unwrap();
        let before = if seq == 0 { chain::genesis(&origin()) } else { leaves[place - 1] };
        assert_eq!((link.previous, link.envelope.seq.get()), (before, seq));
        assert_eq!(chain::link_all(before, [link.envelope], [&link.commitment]), leaves[place], "record {seq}");
        for (part, linked) in Part::ALL.into_iter().zip(&link.parts) {
            let salted = linked.as_ref().is_some_and(|linked| linked.salt.is_some());
            assert_eq!(salted, link.record.as_ref().part(part).is_some());
        }
    }
    leaves
}

fn run(test: impl AsyncFnOnce(Trial)) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(test(in_memory(dir.path())));
}

/// Enough records for level 2 of the tree to be begun.
async fn fill(trial: &mut Trial) {
    for _ in 0..5 {
        trial.act(&Act::Send { source: 0, records: 14_000, fate: Fate::Good }).await;
    }
    trial.act(&Act::Send { source: 1, records: 7, fate: Fate::Good }).await;
}

#[test]
fn a_tree_of_three_levels_conforms() {
    run(async |mut trial| {
        fill(&mut trial).await;
        trial.check(false).await;
    });
}

/// Makes of a store what the first format would have held, but for `left` rows of the tree from an upgrade that was cut short.
fn downgrade(rows: &mut Rows, left: usize) {
    let mut number = 0;
    rows.retain(|(table, _), _| {
        number += usize::from(*table == Table::Tree);
        *table != Table::Tree || number <= left
    });
    let head = rows.get_mut(&(Table::Meta, layout::HEAD_KEY.to_vec())).unwrap();
    *head = layout::encode_head_1(&layout::decode_head(head).unwrap());
    rows.insert((Table::Meta, layout::FORMAT_KEY.to_vec()), layout::FORMAT_1.as_bytes().to_vec());
}

#[test]
fn the_first_format_is_upgraded_and_an_upgrade_that_was_cut_short_begins_anew() {
    run(async |mut trial| {
        let memory = MemoryStore::default();
        let dir = trial.options.dir.join("other");
        std::fs::create_dir(&dir).unwrap();
        trial = Trial::new(&dir, Arc::new(memory.clone()), |_, store| store.clone());
        fill(&mut trial).await;
        let head = trial.journal().head();
        trial.journal.take().unwrap().close().await.unwrap();
        let upgraded = memory.0.lock().unwrap().clone();

        downgrade(&mut memory.0.lock().unwrap(), 3);
        // A row that no record gives, as somebody might leave it to be taken over.
        let stray = layout::tree_row(&TreeRow { level: 5, index: 9, hash: [1; 32] });
        memory.commit(WriteSet { puts: vec![stray], ..WriteSet::default() }).unwrap();
        let before = memory.0.lock().unwrap().clone();
        // The upgrade removes what is left, then writes: each of its writes fails once, lost or kept.
        for failing in 0..2 {
            for fate in [Fate::Lost, Fate::Kept] {
                *memory.0.lock().unwrap() = before.clone();
                let store = Faulty::new(Arc::new(memory.clone()));
                store.fates.lock().unwrap().extend((0..failing).map(|_| Fate::Good).chain([fate]));
                let failed = open(store, &trial.options);
                assert!(matches!(failed, Err(OpenError::Store(_))), "{failed:?}");
                let opened = open(Arc::new(memory.clone()), &trial.options).unwrap();
                assert_eq!((opened.journal.head(), &*memory.0.lock().unwrap()), (head, &upgraded));
                opened.journal.close().await.unwrap();
            }
        }
    });
}

#[test]
fn a_wrong_row_or_root_is_found_when_opened() {
    run(async |mut trial| {
        trial.act(&Act::Send { source: 0, records: 700, fate: Fate::Good }).await;
        trial.journal.take().unwrap().close().await.unwrap();
        for (level, index) in [(1, 0), (1, 1), (0, 1), (0, 2)] {
            let (table, key, value) = layout::tree_row(&TreeRow { level, index, hash: [9; 32] });
            let true_value = trial.durable.get(table, &key).unwrap().unwrap();
            let put = |value: &[u8]| {
                let puts = vec![(table, key.clone(), value.to_vec())];
                trial.durable.commit(WriteSet { puts, ..WriteSet::default() }).unwrap();
            };
            put(&value);
            let error = open(trial.durable.clone(), &trial.options).unwrap_err();
            assert!(matches!(error, OpenError::Altered(_)), "{level} {index}: {error}");
            put(&true_value);
        }
        let head = trial.durable.get(Table::Meta, layout::HEAD_KEY).unwrap().unwrap();
        let stored = layout::decode_head(&head).unwrap();
        let StoredHead { size, chain, receipt_time, .. } = stored;
        let other = layout::encode_head(&Head { size, chain, receipt_time, root: NodeHash::new([9; 32]) });
        let put = |head: Vec<u8>| {
            let puts = vec![(Table::Meta, layout::HEAD_KEY.to_vec(), head)];
            trial.durable.commit(WriteSet { puts, ..WriteSet::default() }).unwrap();
        };
        put(other);
        assert!(matches!(open(trial.durable.clone(), &trial.options), Err(OpenError::Altered(_))));
        put(head);
        open(trial.durable.clone(), &trial.options).unwrap();
    });
}

#[test]
fn a_missing_table_is_not_taken_for_an_empty_one() {
    for name in ["tree", "checkpoints", "pending"] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(dir.path(), origin());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut trial = on_rocksdb(dir.path());
            trial.act(&Act::Send { source: 0, records: 3, fate: Fate::Good }).await;
            trial.journal.take().unwrap().close().await.unwrap();
        });
        let path = options::database_dir(dir.path());
        let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), &path).unwrap();
        rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, names).unwrap().drop_cf(name).unwrap();
        let verified = verify::verify(dir.path(), |_| ());
        assert!(matches!(verified, Err(verify::VerifyError::Altered(_))), "{name}: {verified:?}");
        let opened = Journal::open(&options);
        assert!(matches!(opened, Err(OpenError::Store(_))), "{name}: {opened:?}");
    }
}

#[test]
fn a_missing_row_is_found_when_read() {
    run(async |mut trial| {
        trial.act(&Act::Send { source: 0, records: 700, fate: Fate::Good }).await;
        let deletes =
            vec![(Table::Tree, layout::tree_key(1, 0).to_vec()), (Table::Tree, layout::tree_key(0, 1).to_vec())];
        trial.durable.commit(WriteSet { deletes, ..WriteSet::default() }).unwrap();
        let reader = trial.journal().reader();
        assert!(matches!(reader.root_at(700), Err(Altered(_))));
        assert!(matches!(reader.leaves(300..310), Err(Altered(_))));
        assert!(reader.leaves(0..10).is_ok());
    });
}

#[test]
fn a_composed_record_speaks_of_the_state_before_it() {
    run(async |mut trial| {
        trial.act(&Act::Send { source: 0, records: 5, fate: Fate::Good }).await;
        trial.make(1, 1);
        let mut submission = trial.submission(1);
        submission.class = Class::Journal.id();
        // A frame that is queued before it is in the state that it gets.
        trial.make(2, 3);
        let queued = trial.submission(2);
        let pending = trial.journal().enqueue(queued).await.unwrap();
        let made = trial.journal().compose(Box::new(move |state| {
            assert_eq!((state.size, state.tree.size()), (8, 8));
            Ok(submission)
        }));
        let receipt = made.await.unwrap();
        assert_eq!((pending.await.unwrap().seq.get(), receipt.seq.get()), (5, 8));
        let refused = trial.journal().compose(Box::new(|_| Err(SubmitError::Closed))).await;
        assert_eq!(refused, Err(SubmitError::Closed));
    });
}

#[test]
fn checkpoints_are_kept_and_found_by_size() {
    run(async |mut trial| {
        trial.act(&Act::Send { source: 0, records: 9, fate: Fate::Good }).await;
        let journal = trial.journal();
        for size in [2, 5, 9] {
            journal.keep_checkpoint(size, format!("old note of {size}").into_bytes()).await.unwrap();
            journal.keep_checkpoint(size, format!("note of {size}").into_bytes()).await.unwrap();
        }
        assert!(matches!(journal.keep_checkpoint(10, Vec::new()).await, Err(SubmitError::Refused(_))));
        assert!(matches!(journal.keep_checkpoint(9, vec![0; 65_537]).await, Err(SubmitError::Refused(_))));
        let reader = journal.reader();
        let size = |kept: crate::KeptCheckpoint| {
            assert_eq!(kept.note, format!("note of {}", kept.size).into_bytes());
            kept.size
        };
        assert_eq!(reader.checkpoint_at_or_after(3).unwrap().map(size), Some(5));
        assert_eq!(reader.checkpoint_at_or_after(5).unwrap().map(size), Some(5));
        assert_eq!(reader.checkpoint_at_or_after(10).unwrap(), None);
        assert_eq!(reader.newest_checkpoint().unwrap().map(size), Some(9));
        assert_eq!(reader.checkpoints(3..9).map(|kept| size(kept.unwrap())).collect::<Vec<_>>(), [5]);
        assert_eq!(reader.checkpoints(0..u64::MAX).count(), 3);
    });
}
