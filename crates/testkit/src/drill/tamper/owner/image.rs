//! The journal that the owner attacks, built once through the journal itself, with its checkpoints and what others have of
//! them. A real witness watches it; the key of another one is the drill's.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use sigillo_http::{Link, Url};
use sigillo_journal::{Journal, Options, Submission, SubmitError, TenantRun};
use sigillo_model::{
    add_checkpoint::AddCheckpoint,
    batch::{self, Batch},
    block::{BlockBuilder, Inflater},
    class::Class,
    envelope::Flags,
    ids::{BatchHash, BatchSecret, Epoch, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
    note::{Note, Signature},
    record::Record,
    state::JournalState,
    statement::{
        self, Act, Retention,
        counters::{CounterEntry, CounterKey},
    },
};

use super::{
    super::image::copy_linked,
    Without,
    disk::{self, Logical},
    keys::{Keys, signed_by},
    pieces::{Piece, counters_text, provider_run, standing},
};
use crate::{config, database::Database, drill::random, records, witness::Witness};

const SOURCES: [(&str, Class); 6] = [
    ("backup-1", Class::Backup),
    ("hypervisor-3", Class::Management),
    ("web-1", Class::Service),
    ("web-2", Class::Service),
    ("panel", Class::Panel),
    ("admin-host", Class::Admin),
];
const TENANTS: [&str; 6] = ["provider", "rossi", "bianchi", "verdi", "neri", "esposito"];
/// Cosigned checkpoints, one at the end of each session of the journal.
const CHECKPOINTS: u64 = 10;
/// After so many of them the journal rests, so that what came before is due to be purged.
const REST_AFTER: u64 = 6;
const REST_S: u64 = 40 * 86_400;
/// How long the payloads of these classes are kept. Of others no officer has said anything.
pub(super) const KEPT: [(Class, u64); 2] = [(Class::Service, 30 * 86_400), (Class::Management, 400 * 86_400)];
/// Records after the newest checkpoint.
const UNCOVERED: u64 = 40;
const START_NS: u64 = 1_772_438_400_000_000_000;
pub(super) const SECOND_NS: u64 = 1_000_000_000;
const WITNESS_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX_BYTES: usize = 4_096;
/// Name of the running witness in the trust file.
const LIVE: &str = "w1";

/// The journal, and what there is around it.
#[derive(Debug)]
pub(super) struct Image {
    /// The journal, closed in good order.
    pub(super) dir: PathBuf,
    /// Whole folders of earlier days, by their size, which is that of the newest checkpoint of then.
    pub(super) earlier: BTreeMap<u64, PathBuf>,
    pub(super) pieces: Vec<Piece>,
    /// First sequence of each piece.
    pub(super) starts: Vec<u64>,
    pub(super) logical: Logical,
    /// Cosigned checkpoints by size.
    pub(super) notes: BTreeMap<u64, Note>,
    pub(super) keys: Keys,
    /// The verifier's trust file.
    pub(super) trust: PathBuf,
    pub(super) witness: Witness,
    /// The verifier's clock.
    pub(super) now: u64,
    /// Sequences of the retention statements, in the order of [`KEPT`].
    pub(super) retentions: Vec<u64>,
    verifier: PathBuf,
}

impl Image {
    pub(super) fn build(dir: &Path, records: u64, seed: u64, without: Option<Without>) -> Result<Self> {
        let origin = config::origin()?;
        let mut random = random(seed, 0);
        let keys = Keys::new(&origin, &mut random)?;
        let witness = Witness::start(&dir.join("witness"), LIVE, origin.as_str(), &[&keys.log.verifier().to_string()])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (whole, verifier) = (dir.join("whole"), dir.join("verifier"));
        fs::create_dir(&verifier)?;
        let sources = (seed..).zip(SOURCES).map(|(seed, (name, class))| (name, class, records::records(seed)));
        let mut writer = Writer {
            sources: sources.collect(),
            link: Link::new(Url::parse(witness.url())?, None, WITNESS_MAX)?,
            random,
            received: START_NS,
            cosigned: 0,
            counted: Arc::default(),
        };
        let (mut notes, mut earlier) = (BTreeMap::new(), BTreeMap::new());
        let mut retentions = Vec::new();
        for session in 0..CHECKPOINTS {
            let note = runtime.block_on(async {
                let journal = Journal::open(&Options::new(&whole, origin.clone()))?.journal;
                if session == 0 {
                    for (class, keep_s) in KEPT {
                        retentions.push(journal.head().size);
                        let act = Act::Keep(Retention { class: class.retention(), keep_s });
                        writer.state(&journal, keys.lawful_order(&act)?).await?;
                    }
                }
                writer.write(&journal, records * (session + 1) / CHECKPOINTS).await?;
                let note = writer.checkpoint(&journal, &keys).await?;
                journal.close().await?;
                Ok::<_, anyhow::Error>(note)
            })?;
            let (size, note) = note;
            let root = sigillo_model::checkpoint::Checkpoint::parse(note.text())?.root;
            disk::publish(&whole, &origin, size, &root, &note)?;
            fs::write(verifier.join(size.to_string()), note.to_bytes())?;
            let copy = dir.join(format!("earlier-{size}"));
            copy_linked(&whole, &copy, None)?;
            earlier.insert(size, copy);
            notes.insert(size, note);
            if session + 1 == REST_AFTER {
                writer.received += REST_S * SECOND_NS;
            }
        }
        // The newest state is the whole journal, with some records after it.
        earlier.pop_last();
        runtime.block_on(async {
            let journal = Journal::open(&Options::new(&whole, origin.clone()))?.journal;
            writer.write(&journal, journal.head().size + UNCOVERED).await?;
            Ok::<_, anyhow::Error>(journal.close().await?)
        })?;
        let pieces = Database::open_read_only(&whole)?.pairs("tail")?;
        let pieces = pieces.iter().map(|(_, value)| Piece::read(value)).collect::<Result<Vec<_>>>()?;
        let next = |start: &mut u64, piece: &Piece| Some(std::mem::replace(start, *start + piece.len()));
        let starts = pieces.iter().scan(0, next).collect();
        let trust = verifier.join("trust.txt");
        fs::write(&trust, keys.trust(&witness.line(LIVE), without))?;
        let logical = Logical::read(&whole)?;
        let now = unix_now()? + 30;
        Ok(Self {
            dir: whole,
            earlier,
            pieces,
            starts,
            logical,
            notes,
            keys,
            trust,
            witness,
            now,
            retentions,
            verifier,
        })
    }

    /// Sizes of the cosigned checkpoints, ascending.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.notes.keys().copied().collect()
    }

    pub(super) fn size(&self) -> u64 {
        self.logical.size()
    }

    /// The verifier's copy of a checkpoint.
    pub(super) fn note_file(&self, size: u64) -> PathBuf {
        self.verifier.join(size.to_string())
    }

    /// Receipt time of a batch that comes next.
    pub(super) fn next_time(&self) -> ReceiptTime {
        let last = self.pieces.last().map_or(START_NS, |piece| piece.received.get());
        ReceiptTime::new(last + SECOND_NS)
    }
}

pub(super) fn unix_now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Seals records as the next batch of a source of this journal.
pub(super) fn submission(
    journal: &Journal,
    source: SourceId,
    class: Class,
    records: &[Record],
    runs: Vec<TenantRun>,
    received: ReceiptTime,
    secret: [u8; 32],
) -> Result<Submission> {
    let place = match journal.source(source) {
        Some(state) => (state.epoch, state.next, state.head),
        None => (Epoch::new(1), SourceSeq::new(0), journal.epoch_opening(source, Epoch::new(1))),
    };
    seal(source, class, records, runs, received, secret, place)
}

fn seal(
    source: SourceId,
    class: Class,
    records: &[Record],
    runs: Vec<TenantRun>,
    received: ReceiptTime,
    secret: [u8; 32],
    (epoch, next, head): (Epoch, SourceSeq, BatchHash),
) -> Result<Submission> {
    let mut builder = BlockBuilder::default();
    records.iter().try_for_each(|record| builder.push(record.as_ref()))?;
    let batch = Batch::seal(&mut builder, source, epoch, next, head, BatchSecret::new(secret), 1)?;
    let commitments = batch::commitments(&batch.secret, &batch.open(&mut Inflater::default())?);
    Ok(Submission { source, class: class.id(), batch, commitments, runs, received })
}

/// Appends a statement of the product itself; its sequence.
pub(super) async fn state(journal: &Journal, text: Vec<u8>, received: ReceiptTime, secret: [u8; 32]) -> Result<u64> {
    let record = super::pieces::statement(text);
    let runs = provider_run(Class::Journal, 1)?;
    let own = statement::journal_source();
    let receipt = journal.submit(submission(journal, own, Class::Journal, &[record], runs, received, secret)?).await?;
    Ok(receipt.seq.get())
}

/// Everything that is appended while the image is built.
struct Writer {
    sources: Vec<(&'static str, Class, records::Records)>,
    random: ChaCha12Rng,
    received: u64,
    link: Link,
    /// What the running witness has cosigned last.
    cosigned: u64,
    counted: Arc<Mutex<HashMap<CounterKey, CounterEntry>>>,
}

impl Writer {
    fn time(&mut self) -> ReceiptTime {
        self.received += self.random.random_range(SECOND_NS..4 * SECOND_NS);
        ReceiptTime::new(self.received)
    }

    async fn state(&mut self, journal: &Journal, text: Vec<u8>) -> Result<u64> {
        state(journal, text, self.time(), self.random.random()).await
    }

    /// Writes until the journal has so many records.
    async fn write(&mut self, journal: &Journal, until: u64) -> Result<()> {
        while journal.head().size < until {
            let count = match self.random.random_range(0..10) {
                0..2 => 1,
                2..6 => self.random.random_range(2..=20),
                _ => self.random.random_range(50..=120),
            };
            let received = self.time();
            let index = self.random.random_range(0..self.sources.len());
            let (name, class, records) = self.sources.get_mut(index).context("no such source")?;
            let (source, class) = (SourceId::from_name(name), *class);
            let records: Vec<Record> = records.take(count).collect();
            let runs = runs(&mut self.random, class, u32::try_from(count)?);
            let secret = self.random.random();
            journal.submit(submission(journal, source, class, &records, runs, received, secret)?).await?;
        }
        Ok(())
    }

    /// A counters record, and a checkpoint right after it that the log and both witnesses sign, which the journal keeps.
    async fn checkpoint(&mut self, journal: &Journal, keys: &Keys) -> Result<(u64, Note)> {
        let (received, secret, counted) = (self.time(), self.random.random(), self.counted.clone());
        let record = move |state: &JournalState| counters_submission(state, received, secret, &counted);
        journal.compose(Box::new(move |state| record(state).map_err(|_| SubmitError::Closed))).await?;
        let head = journal.head();
        let text = keys.checkpoint(head.size, head.root);
        let mut note = signed_by(&keys.log, &text)?;
        let proof = match self.cosigned {
            0 => Vec::new(),
            old => journal.reader().consistency(old, head.size)?,
        };
        let request = AddCheckpoint { old_size: self.cosigned, proof, checkpoint: note.clone() };
        let answer = self.link.post("add-checkpoint", request.to_string().into(), ANSWER_MAX_BYTES).await?;
        let said = std::str::from_utf8(&answer.body)?;
        ensure!(answer.status == 200, "the witness answers {}: {said}", answer.status);
        for line in said.lines() {
            note.add(Signature::parse(line).with_context(|| format!("the witness answers {line:?}"))?)?;
        }
        note.add(keys.witness.cosign(&text, unix_now()?)?)?;
        journal.keep_checkpoint(head.size, note.to_bytes()).await?;
        self.cosigned = head.size;
        Ok((head.size, note))
    }
}

/// The counters record that comes next.
fn counters_submission(
    state: &JournalState,
    received: ReceiptTime,
    secret: [u8; 32],
    counted: &Mutex<HashMap<CounterKey, CounterEntry>>,
) -> Result<Submission> {
    let own = statement::journal_source();
    let source = state.sources.get(&own).context("the journal has no records of its own")?;
    let entries = standing(state, 1);
    let mut last = counted.lock().unwrap_or_else(PoisonError::into_inner);
    let text = counters_text(&state.origin, secret, entries.clone(), &last);
    *last = entries.into_iter().map(|entry| (entry.key, entry)).collect();
    let place = (source.epoch, source.next, source.head);
    let records = [super::pieces::statement(text)];
    seal(own, Class::Journal, &records, provider_run(Class::Journal, 1)?, received, secret, place)
}

/// One to four runs of tenants over `count` records.
fn runs(random: &mut ChaCha12Rng, class: Class, count: u32) -> Vec<TenantRun> {
    let mut left = count;
    let mut runs: Vec<TenantRun> = Vec::new();
    while left > 0 {
        let records = if runs.len() == 3 { left } else { random.random_range(1..=left) };
        let tenant = TenantId::from_name(TENANTS[random.random_range(0..TENANTS.len())]);
        let flags = if random.random_ratio(1, 10) { Flags::TENANT_REFUSED } else { Flags::default() };
        runs.push(TenantRun { tenant, retention: class.retention(), flags, records });
        left -= records;
    }
    runs
}

/// A batch of a source that the journal knows, with records of a seed.
pub(super) async fn grow(journal: &Journal, random: &mut ChaCha12Rng, received: ReceiptTime) -> Result<()> {
    let (name, class) = SOURCES[random.random_range(0..SOURCES.len())];
    let count = random.random_range(1..=100_u32);
    let records: Vec<Record> = records::records(random.random()).take(count as usize).collect();
    let runs = runs(random, class, count);
    let source = SourceId::from_name(name);
    journal.submit(submission(journal, source, class, &records, runs, received, random.random())?).await?;
    Ok(())
}

/// The journal's name.
pub(super) fn origin() -> Result<Origin> {
    config::origin()
}
