//! The journals that are copied and altered, built once through the journal itself.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use sigillo_journal::{Journal, Options, Pending, Submission, TenantRun};
use sigillo_model::{
    batch,
    block::Inflater,
    class::Class,
    entry::Entry,
    envelope::Flags,
    ids::{Origin, ReceiptTime, SourceId, TenantId},
};

use crate::{
    batches::BatchChain,
    config,
    database::Database,
    drill::random,
    records::{Records, records},
};

const SOURCES: [(&str, Class); 7] = [
    ("journal", Class::Journal),
    ("backup-1", Class::Backup),
    ("hypervisor-3", Class::Management),
    ("web-1", Class::Service),
    ("web-2", Class::Service),
    ("panel", Class::Panel),
    ("admin-host", Class::Admin),
];
const TENANTS: [&str; 6] = ["provider", "rossi", "bianchi", "verdi", "neri", "esposito"];
/// The journal is opened so often, so that its database consists of several files.
const SESSIONS: u64 = 4;
/// Longest wait for the head file to follow, which it does each second.
const HEAD_FILE_MAX: Duration = Duration::from_secs(10);

/// Journals of the same records.
#[derive(Debug)]
pub(super) struct Images {
    /// Closed in good order.
    pub(super) closed: PathBuf,
    /// Copied while it was open: its newest records are in the write-ahead log.
    pub(super) crashed: PathBuf,
    /// Its name.
    pub(super) origin: Origin,
    /// Every entry, in order.
    pub(super) entries: Vec<Indexed>,
    /// First sequence that stands in the log of `crashed` and in none of its tables.
    pub(super) logged_from: u64,
}

/// What the drill remembers of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Indexed {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) source: SourceId,
}

impl Images {
    pub(super) fn build(dir: &Path, records: u64, seed: u64) -> Result<Self> {
        let (closed, crashed) = (dir.join("closed"), dir.join("crashed"));
        let origin = config::origin()?;
        let mut writer = Writer::new(&origin, seed);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        for session in 0..SESSIONS {
            let journal = Journal::open(&Options::new(&closed, origin.clone()))?.journal;
            let until = records * (session + 1) / SESSIONS;
            runtime.block_on(writer.write(&journal, until))?;
            if session + 1 == SESSIONS {
                await_head_file(&closed, journal.head().size)?;
                copy_all(&closed, &crashed)?;
            }
            runtime.block_on(journal.close())?;
        }
        let db = Database::open_read_only(&closed)?;
        let entries = db.pairs("tail")?.into_iter().map(|(_, value)| {
            let entry = Entry::decode(&value)?;
            Ok(Indexed { from: entry.seq.get(), to: entry.end(), source: entry.source })
        });
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let tables = Database::open_read_only(&crashed)?.live_files()?;
        let last = tables
            .iter()
            .filter(|table| table.column_family_name == "tail")
            .filter_map(|table| key(table.end_key.as_ref()));
        let last = last.max().context("there are no tables")?;
        let logged_from = entries.iter().find(|entry| entry.from == last).context("no entry has this key")?.to;
        Ok(Self { closed, crashed, origin, entries, logged_from })
    }

    pub(super) fn any(&self, random: &mut ChaCha12Rng) -> &Path {
        if random.random_bool(0.3) { &self.crashed } else { &self.closed }
    }

    /// Number of records.
    pub(super) fn size(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.to)
    }
}

/// The sequence that is a key of `tail`.
pub(super) fn key(key: Option<&Vec<u8>>) -> Option<u64> {
    key.and_then(|key| key.as_slice().try_into().ok()).map(u64::from_be_bytes)
}

struct Writer {
    random: ChaCha12Rng,
    sources: Vec<(SourceId, Class, BatchChain, Records)>,
    received: u64,
    written: u64,
}

impl Writer {
    fn new(origin: &Origin, seed: u64) -> Self {
        let sources = (seed..).zip(SOURCES).map(|(seed, (name, class))| {
            (SourceId::from_name(name), class, BatchChain::new(origin, name, seed), records(seed))
        });
        Self { random: random(seed, 0), sources: sources.collect(), received: 1_772_438_400_000_000_000, written: 0 }
    }

    /// Writes until the journal has so many records, but at least one batch, so that every session leaves something.
    async fn write(&mut self, journal: &Journal, until: u64) -> Result<()> {
        let mut pending: Vec<Pending> = vec![journal.enqueue(self.submission()?).await?];
        while self.written < until {
            pending.push(journal.enqueue(self.submission()?).await?);
            // Frames of one and of many batches.
            if self.random.random_ratio(1, 20) {
                for receipt in pending.drain(..) {
                    receipt.await?;
                }
            }
        }
        for receipt in pending {
            receipt.await?;
        }
        Ok(())
    }

    fn submission(&mut self) -> Result<Submission> {
        let count = match self.random.random_range(0..10) {
            0..4 => 1,
            4..7 => self.random.random_range(2..=20),
            7..9 => self.random.random_range(50..=300),
            _ => self.random.random_range(500..=1_500),
        };
        let runs = self.runs(count);
        let index = self.random.random_range(0..self.sources.len());
        let (source, class, chain, records) = self.sources.get_mut(index).context("no such source")?;
        let batch = chain.seal(&records.take(count as usize).collect::<Vec<_>>())?;
        let mut inflater = Inflater::default();
        let commitments = batch::commitments(&batch.secret, &batch.open(&mut inflater)?);
        self.received += self.random.random_range(0..3_000_000);
        self.written += u64::from(count);
        let runs = runs.into_iter().map(|(tenant, flags, records)| TenantRun {
            tenant: TenantId::from_name(tenant),
            retention: class.retention(),
            flags,
            records,
        });
        Ok(Submission {
            source: *source,
            class: class.id(),
            batch,
            commitments,
            runs: runs.collect(),
            received: ReceiptTime::new(self.received),
        })
    }

    /// One to five runs of tenants over `count` records.
    fn runs(&mut self, count: u32) -> Vec<(&'static str, Flags, u32)> {
        let mut left = count;
        let mut runs = Vec::new();
        while left > 0 {
            let records = if runs.len() == 4 { left } else { self.random.random_range(1..=left) };
            let tenant = TENANTS[self.random.random_range(0..TENANTS.len())];
            let refused = self.random.random_ratio(1, 10);
            runs.push((tenant, if refused { Flags::TENANT_REFUSED } else { Flags::default() }, records));
            left -= records;
        }
        runs
    }
}

/// Waits until the head file says this size.
fn await_head_file(dir: &Path, size: u64) -> Result<()> {
    let deadline = Instant::now() + HEAD_FILE_MAX;
    loop {
        let text = fs::read_to_string(dir.join("head"))?;
        if text.lines().nth(2) == Some(&size.to_string()) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the head file does not follow: {text}");
        // A file tells nobody that it has changed.
        thread::sleep(Duration::from_millis(20));
    }
}

/// Copies a journal, sharing no file with it.
pub(super) fn copy_all(from: &Path, to: &Path) -> Result<()> {
    copy(from, to, &|_| false)
}

/// Copies a journal. Tables, which the database never changes once written, are linked, except `edited`, a path below it.
pub(super) fn copy_linked(from: &Path, to: &Path, edited: Option<&Path>) -> Result<()> {
    let edited = edited.map(|path| from.join(path));
    copy(from, to, &|path| path.extension() == Some(OsStr::new("sst")) && edited.as_deref() != Some(path))
}

fn copy(from: &Path, to: &Path, linked: &dyn Fn(&Path) -> bool) -> Result<()> {
    fs::create_dir(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from)? {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if path.is_dir() {
            copy(&path, &target, linked)?;
        } else if linked(&path) {
            fs::hard_link(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
