//! What hashing, the database and memory allow on this machine: one core, the same records, the same run.

use std::{
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use memchr::memmem::Finder;
use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};
use sigillo_model::{
    batch,
    block::{self, Block, Inflater},
    chain,
    class::Class,
    envelope::{Envelope, Flags},
    ids::{Count, Epoch, ReceiptTime, Seq, SourceId, SourceSeq, TenantId},
};
use sigillo_testkit::config;

use crate::{load::Load, read::NEEDLE};

/// A sync after so many records.
const SYNC_RECORDS: u64 = 5_000;
/// Each limit is measured over at most so many records.
const RECORDS_MAX: u64 = 1_000_000;

/// Per second of one core.
pub(crate) struct Limits {
    /// Records whose commitments and chain values were computed, and nothing else.
    pub(crate) hashed_records: f64,
    /// Records compressed in the same blocks and written to the database, synced each 5,000, and nothing else.
    pub(crate) stored_records: f64,
    /// Bytes of uncompressed records searched for a substring, and nothing else.
    pub(crate) searched_bytes: f64,
}

impl Limits {
    pub(crate) fn measure(load: &Load, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        let db = DB::open(&options, dir).context("a database to measure with")?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);

        let (mut hashing, mut storing, mut searching) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let (mut records, mut bytes) = (0_u64, 0_u64);
        let mut chain = chain::genesis(&config::origin()?);
        let mut waiting = WriteBatch::default();
        let mut waiting_records = 0;
        let mut inflater = Inflater::default();
        let finder = Finder::new(NEEDLE);
        for batch in load.batches() {
            let raw = inflater.inflate(&batch.compressed, batch.block_bytes as usize)?;

            let begun = Instant::now();
            let parsed = Block::parse(raw)?;
            let commitments = batch::commitments(&batch.secret, &parsed);
            chain = chain::link_all(chain, (records..).map(envelope), &commitments);
            hashing += begun.elapsed();

            let begun = Instant::now();
            waiting.put(records.to_be_bytes(), block::compress(raw, 1));
            waiting_records += u64::from(batch.count);
            if waiting_records >= SYNC_RECORDS {
                db.write_opt(std::mem::take(&mut waiting), &synced)?;
                waiting_records = 0;
            }
            storing += begun.elapsed();

            let begun = Instant::now();
            black_box(finder.find_iter(raw).count());
            searching += begun.elapsed();

            records += u64::from(batch.count);
            bytes += raw.len() as u64;
            if records >= RECORDS_MAX {
                break;
            }
        }
        black_box(chain);
        let begun = Instant::now();
        db.write_opt(waiting, &synced)?;
        storing += begun.elapsed();
        drop(db);
        std::fs::remove_dir_all(dir)?;
        Ok(Self {
            hashed_records: records as f64 / hashing.as_secs_f64(),
            stored_records: records as f64 / storing.as_secs_f64(),
            searched_bytes: bytes as f64 / searching.as_secs_f64(),
        })
    }
}

fn envelope(seq: u64) -> Envelope {
    Envelope {
        flags: Flags::default(),
        class: Class::Service.id(),
        retention: Class::Service.retention(),
        seq: Seq::new(seq),
        receipt_time: ReceiptTime::new(1),
        source: SourceId::new([1; 16]),
        epoch: Epoch::new(1),
        source_seq: SourceSeq::new(seq),
        source_count: Count::new(seq),
        tenant: TenantId::new([2; 16]),
        tenant_count: Count::new(seq),
    }
}
