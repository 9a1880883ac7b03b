//! Erasures and purges under the faults of the conformance schedule, and that nothing of them is left in any file.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use proptest::prelude::*;
use sigillo_model::{
    batch::Batch,
    block::BlockBuilder,
    commitment::Committer,
    entry::Gone,
    ids::{BatchSecret, ReceiptTime, RetentionId},
    note::{KeyKind, Note, SigningKey},
    record::{Part, Record, RecordRef},
    statement::{Act as Ordered, Erasure, Order, Retention, is_statement},
};

use crate::{
    Journal, Options, Receipt,
    conformance::{Fate, OWN, Trial, on_rocksdb, origin},
    verify,
};

/// The retention class of every other record.
const SHORT: RetentionId = RetentionId::new(4);

impl Trial {
    pub(crate) async fn erase(&mut self, targets: &[(prop::sample::Index, u8)], fate: Fate, carried: Fate) {
        self.settle().await;
        let size = self.journal().head().size;
        if size == 0 {
            return;
        }
        let targets: BTreeMap<u64, Gone> = targets
            .iter()
            .map(|(index, bits)| (index.index(usize::try_from(size).unwrap()) as u64, Gone::from_bits(*bits).unwrap()))
            .collect();
        for (seq, gone) in &targets {
            *self.gone.entry(*seq).or_default() |= gone.bits();
        }
        let erasure = Erasure { basis: "case 1".to_owned(), targets: targets.into_iter().collect() };
        self.state(&signed(&Ordered::Erase(erasure)), fate, carried).await;
    }

    pub(crate) async fn keep(&mut self) {
        self.settle().await;
        self.state(&signed(&Ordered::Keep(Retention { class: SHORT, keep_s: 0 })), Fate::Good, Fate::Good).await;
    }

    pub(crate) async fn purge(&mut self, fate: Fate, carried: Fate) {
        self.settle().await;
        let now = self.clock + 1;
        let now = ReceiptTime::new(now - now % 7);
        let Some(purge) = self.journal().reader().plan_purge(SHORT, now).unwrap() else { return };
        self.purged_to = purge.to;
        self.state(purge.text(&origin()).as_bytes(), fate, carried).await;
    }

    /// Sends a statement, and sees what comes of carrying it out.
    async fn state(&mut self, text: &[u8], fate: Fate, carried: Fate) {
        self.propose(text);
        self.store.fates.lock().unwrap().push_back(fate);
        if fate == Fate::Good {
            self.store.carried.lock().unwrap().push_back(carried);
        }
        let sent = self.send(usize::from(OWN)).await;
        // The thread that carries the statement out may poison the journal before the statement's sender is answered.
        let may_be_unsure = fate == Fate::Good && matches!(carried, Fate::Lost | Fate::Kept);
        assert!(may_be_unsure || sent.is_ok() == (fate == Fate::Good), "{sent:?}");
        if fate != Fate::Good {
            return;
        }
        let removals = self.journal().removals();
        while !self.store.carried.lock().unwrap().is_empty() && !removals.borrow().pending.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.store.carried.lock().unwrap().clear();
        if matches!(carried, Fate::Lost | Fate::Kept) {
            // The writer was told that what reached the disk is not known, or will be.
            self.restart().await;
        }
    }

    /// Makes the next batch of the product's own records: this statement.
    fn propose(&mut self, text: &[u8]) {
        let own = &mut self.senders[usize::from(OWN)];
        let content = content(text);
        let mut builder = BlockBuilder::default();
        builder.push(RecordRef { content: Some(&content), ..RecordRef::default() }).unwrap();
        let secret = BatchSecret::new([8; 32]);
        own.unacknowledged = Some(Batch::seal(&mut builder, own.id, own.epoch, own.next, own.head, secret, 1).unwrap());
    }

    /// What must be left of the records of a batch that begins at `first`.
    pub(crate) fn remaining(&self, first: u64, records: Vec<Record>) -> Vec<Record> {
        let remains = |(index, record): (usize, Record)| {
            let seq = first + index as u64;
            let gone = Gone::from_bits(self.gone.get(&seq).copied().unwrap_or_default()).unwrap();
            let purged = index % 2 == 1 && seq < self.purged_to;
            if record.content.as_deref().is_some_and(is_statement) {
                return record;
            }
            let keep = |part, bytes: &Option<bytes::Bytes>| if purged || gone.has(part) { None } else { bytes.clone() };
            Record {
                core: keep(Part::Core, &record.core),
                personal: keep(Part::Personal, &record.personal),
                content: keep(Part::Content, &record.content),
            }
        };
        records.into_iter().enumerate().map(remains).collect()
    }
}

/// A content part whose field `original` is this text.
fn content(text: &[u8]) -> Vec<u8> {
    let length = text.len();
    assert!(length < 1 << 14);
    let head = [0x1a, u8::try_from(length & 0x7f | 0x80).unwrap(), u8::try_from(length >> 7).unwrap()];
    [&head[..], text].concat()
}

fn signed(act: &Ordered) -> Vec<u8> {
    let text = Order::text(&origin(), act);
    let sign = |name, seed| SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap().sign(&text).unwrap();
    Note::new(text.clone(), vec![sign("ada", 1), sign("ben", 2)]).unwrap().to_bytes()
}

/// What is in the files of a database, the log's pieces put together, and every zstd frame in them inflated.
struct Found(Vec<Vec<u8>>);

impl Found {
    fn read(dir: &Path) -> Self {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir.join("journal")).unwrap() {
            let path = entry.unwrap().path();
            let Ok(bytes) = fs::read(&path) else { continue };
            if path.extension().is_some_and(|extension| extension == "log") {
                all.push(logged(&bytes));
            }
            all.push(bytes);
        }
        let inflated: Vec<Vec<u8>> = all.iter().flat_map(|bytes| frames(bytes)).collect();
        all.extend(inflated);
        Self(all)
    }

    fn has(&self, needle: &[u8]) -> bool {
        let finder = |bytes: &Vec<u8>| bytes.windows(needle.len()).any(|window| window == needle);
        self.0.iter().any(finder)
    }
}

/// The records of a write-ahead log: in blocks of 32 KiB, each piece after 7 bytes: a checksum, a length, a kind.
fn logged(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in bytes.chunks(32 << 10) {
        let mut rest = block;
        while let Some((head, after)) = rest.split_at_checked(7) {
            let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
            let Some((piece, after)) = after.split_at_checked(length) else { break };
            if head[6] == 0 {
                break;
            }
            out.extend_from_slice(piece);
            rest = after;
        }
    }
    out
}

/// Every zstd frame in the bytes, inflated.
fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let starts = bytes.windows(4).enumerate().filter(|(_, window)| *window == magic).map(|(at, _)| at);
    let inflate = |at: usize| {
        let length = zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).ok()?;
        zstd::bulk::decompress(&bytes[at..at + length], 16 << 20).ok()
    };
    starts.filter_map(inflate).collect()
}

/// A line that nobody would guess and nothing compresses.
fn marker(batch: u8, index: u32, part: Part) -> String {
    let mut committer = Committer::default();
    let salt = committer.salt(&BatchSecret::new([batch; 32]), index, part);
    format!("{part:?}-{}", hex::encode(&salt[..20]))
}

fn secret(batch: u8) -> BatchSecret {
    let mut committer = Committer::default();
    BatchSecret::new(committer.salt(&BatchSecret::new([batch; 32]), 9_999, Part::Core))
}

fn salt(batch: u8, index: u32, part: Part) -> [u8; 32] {
    Committer::default().salt(&secret(batch), index, part)
}

const RECORDS: u32 = 40;

impl Trial {
    /// Sends a batch of records with markers, under a secret of its own. Returns it with its receipt.
    async fn mark(&mut self, number: u8) -> (Batch, Receipt) {
        let sender = &mut self.senders[0];
        let mut builder = BlockBuilder::default();
        for index in 0..RECORDS {
            let [core, personal, content] = Part::ALL.map(|part| marker(number, index, part));
            let record = RecordRef {
                core: Some(core.as_bytes()),
                personal: Some(personal.as_bytes()),
                content: Some(content.as_bytes()),
            };
            builder.push(record).unwrap();
        }
        let batch =
            Batch::seal(&mut builder, sender.id, sender.epoch, sender.next, sender.head, secret(number), 1).unwrap();
        sender.unacknowledged = Some(batch.clone());
        let receipt = self.send(0).await.unwrap();
        (batch, receipt)
    }

    async fn order(&mut self, targets: &[(u64, Gone)]) {
        for (seq, gone) in targets {
            *self.gone.entry(*seq).or_default() |= gone.bits();
        }
        let erasure = Erasure { basis: "case 2".to_owned(), targets: targets.to_vec() };
        self.state(&signed(&Ordered::Erase(erasure)), Fate::Good, Fate::Good).await;
    }

    /// Waits until nothing is under way any more.
    async fn settled(&self) {
        self.journal().removals().wait_for(|removals| removals.pending.is_empty()).await.unwrap();
    }
}

fn on_disk(test: impl AsyncFnOnce(Trial)) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(test(on_rocksdb(dir.path())));
}

#[test]
fn what_is_erased_is_in_no_file() {
    on_disk(async |mut trial| {
        let dir = trial.options.dir.clone();
        let (batch, receipt) = trial.mark(1).await;
        trial.mark(2).await;
        // The first two stand in tables, the third in the log alone.
        trial.restart().await;
        trial.mark(3).await;
        let first = receipt.seq.get();
        let third = first + 2 * u64::from(RECORDS);
        let before = Found::read(&dir);
        for number in 1..=3 {
            assert!(before.has(secret(number).expose()), "secret {number}");
            for part in Part::ALL {
                assert!(before.has(marker(number, 5, part).as_bytes()), "{number} {part:?}");
            }
        }
        let personal = Gone::part(Part::Personal);
        trial.order(&[(first + 5, Gone::RECORD), (first + 6, personal), (third + 5, Gone::RECORD)]).await;
        trial.settled().await;
        let after = Found::read(&dir);
        for part in Part::ALL {
            assert!(!after.has(marker(1, 5, part).as_bytes()) && !after.has(marker(3, 5, part).as_bytes()));
            assert!(!after.has(&salt(1, 5, part)) && !after.has(&salt(3, 5, part)));
            // Neighbours keep their bytes, and salts of their own now.
            assert!(after.has(marker(1, 7, part).as_bytes()) && after.has(&salt(1, 7, part)));
            assert_eq!(after.has(marker(1, 6, part).as_bytes()), part != Part::Personal);
            assert_eq!(after.has(&salt(1, 6, part)), part != Part::Personal);
        }
        assert!(!after.has(secret(1).expose()) && after.has(secret(2).expose()) && !after.has(secret(3).expose()));

        // Again in the same entry: the salt that the first erasure wrote out goes as well.
        trial.order(&[(first + 7, Gone::RECORD)]).await;
        trial.settled().await;
        let after = Found::read(&dir);
        for part in Part::ALL {
            assert!(!after.has(marker(1, 7, part).as_bytes()) && !after.has(&salt(1, 7, part)));
            assert!(after.has(marker(1, 8, part).as_bytes()) && after.has(&salt(1, 8, part)));
        }
        let id = trial.senders[0].id;
        let again = trial.journal().submit(trial.submit_as(id, batch)).await.unwrap();
        assert_eq!(again, Receipt { repeated: true, ..receipt });
        assert!(!Found::read(&dir).has(secret(1).expose()));

        // A purge of every other record.
        trial.keep().await;
        trial.clock += 180_000_000_000;
        trial.purge(Fate::Good, Fate::Good).await;
        trial.settled().await;
        let after = Found::read(&dir);
        for number in 1..=3 {
            assert!(!after.has(secret(number).expose()));
            for index in 10..RECORDS {
                for part in Part::ALL {
                    let stays = index % 2 == 0;
                    assert_eq!(after.has(marker(number, index, part).as_bytes()), stays, "{number} {index} {part:?}");
                    assert_eq!(after.has(&salt(number, index, part)), stays);
                }
            }
        }
        trial.check(true).await;
    });
}

/// Whatever step fails, written or not: after the next opening nothing is left.
#[test]
fn what_is_erased_is_in_no_file_after_a_crash_at_any_step() {
    let good = |steps: usize, fate| std::iter::repeat_n(Fate::Good, steps).chain([fate]);
    for (steps, fate) in
        [(0, Fate::Lost), (0, Fate::Kept), (1, Fate::Lost), (1, Fate::Kept), (0, Fate::FullLost), (1, Fate::FullKept)]
    {
        on_disk(async |mut trial| {
            let dir = trial.options.dir.clone();
            let (_, receipt) = trial.mark(1).await;
            let first = receipt.seq.get();
            trial.gone.insert(first + 5, 7);
            let erasure = Erasure { basis: "case 3".to_owned(), targets: vec![(first + 5, Gone::RECORD)] };
            trial.store.carried.lock().unwrap().extend(good(steps, fate));
            let text = signed(&Ordered::Erase(erasure));
            trial.propose(&text);
            trial.send(usize::from(OWN)).await.unwrap();
            while !trial.store.carried.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            trial.restart().await;
            trial.settled().await;
            let after = Found::read(&dir);
            assert!(!after.has(secret(1).expose()), "{steps} {fate:?}");
            for part in Part::ALL {
                assert!(!after.has(marker(1, 5, part).as_bytes()) && !after.has(&salt(1, 5, part)), "{steps} {fate:?}");
                assert!(after.has(marker(1, 6, part).as_bytes()) && after.has(&salt(1, 6, part)));
            }
            trial.check(true).await;
        });
    }
}

const KILLED_DIR: &str = "SIGILLO_TEST_ERASE_DIR";

/// Not a test by itself: what the next one runs in a process of its own, and kills.
#[test]
#[ignore = "run by another test"]
fn erases_until_it_is_killed() {
    let Some(dir) = env::var_os(KILLED_DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut trial = on_rocksdb(Path::new(&dir));
        for number in 1..=3 {
            trial.mark(number).await;
            if number == 2 {
                // The first two stand in tables then, the third in the log alone.
                trial.restart().await;
            }
        }
        let count = u64::from(RECORDS);
        let targets = [5, count + 5, 2 * count + 5].map(|seq| (seq, Gone::RECORD)).to_vec();
        let erasure = Erasure { basis: "case 4".to_owned(), targets };
        trial.propose(&signed(&Ordered::Erase(erasure)));
        trial.send(usize::from(OWN)).await.unwrap();
        println!("\nordered");
        std::future::pending::<()>().await;
    });
}

/// Killed at any time after the order is durable: the next opening goes on, and nothing is left.
#[test]
fn what_is_erased_is_in_no_file_after_a_kill() {
    for delay_ms in [0, 1, 2, 4, 8, 12, 16, 24, 40, 200] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "conformance_removal::erases_until_it_is_killed", "--ignored", "--nocapture"])
            .env(KILLED_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "ordered"), "it ordered nothing");
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let opened = Journal::open(&Options::new(dir.path(), origin())).unwrap();
            assert!(opened.unclean);
            let journal = opened.journal;
            journal.removals().wait_for(|removals| removals.pending.is_empty()).await.unwrap();
            let found = Found::read(dir.path());
            for number in 1..=3 {
                assert!(!found.has(secret(number).expose()), "{delay_ms} ms: secret {number}");
                for part in Part::ALL {
                    assert!(!found.has(marker(number, 5, part).as_bytes()) && !found.has(&salt(number, 5, part)));
                    assert!(found.has(marker(number, 6, part).as_bytes()) && found.has(&salt(number, 6, part)));
                }
            }
            journal.close().await.unwrap();
        });
        let report = verify::verify(dir.path(), |_| ()).unwrap();
        assert_eq!((report.removed.erased, report.removed.orders), (3, 1));
    }
}
