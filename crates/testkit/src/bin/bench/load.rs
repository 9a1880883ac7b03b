//! Batches of many sources, made before the clock starts.

use std::thread;

use anyhow::{Context, Result};
use sigillo_model::{batch::Batch, record::Record};
use sigillo_testkit::{
    batches::BatchChain,
    config::{self, Source},
};

/// A batch is cut when it has so many bytes, well below the limit of a block; only recorded lines are that long.
const BATCH_MAX_BYTES: usize = 4 << 20;

/// What a benchmark sends.
pub(crate) struct Load {
    pub(crate) streams: Vec<Stream>,
    /// Records of all streams.
    pub(crate) records: u64,
    /// Bytes of these records, their parts together.
    pub(crate) raw_bytes: u64,
}

/// All batches of one source, in order.
pub(crate) struct Stream {
    pub(crate) source: Source,
    pub(crate) batches: Vec<Batch>,
    records: u64,
    raw_bytes: u64,
}

impl Load {
    /// Seals what `records_of` gives for each of `streams` sources, in batches of `batch_records`.
    pub(crate) fn seal<R: Iterator<Item = Record>>(
        streams: usize,
        class: &'static str,
        batch_records: usize,
        records_of: impl Fn(usize) -> R + Sync,
    ) -> Result<Self> {
        let names: Vec<usize> = (0..streams).collect();
        let workers = thread::available_parallelism().map_or(2, usize::from).min(streams);
        let records_of = &records_of;
        let streams = thread::scope(|scope| {
            let part = |numbers: &[usize]| {
                let numbers = numbers.to_vec();
                scope.spawn(move || -> Result<Vec<Stream>> {
                    numbers.into_iter().map(|n| Stream::seal(n, class, batch_records, records_of(n))).collect()
                })
            };
            let workers: Vec<_> = names.chunks(names.len().div_ceil(workers)).map(part).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().ok().context("a worker panicked")?)
                .collect::<Result<Vec<_>>>()
        })?;
        let streams: Vec<Stream> = streams.into_iter().flatten().collect();
        let records = streams.iter().map(|stream| stream.records).sum();
        let raw_bytes = streams.iter().map(|stream| stream.raw_bytes).sum();
        Ok(Self { streams, records, raw_bytes })
    }

    /// The sources to configure.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.streams.iter().map(|stream| stream.source.clone()).collect()
    }

    /// All batches, stream after stream.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.streams.iter().flat_map(|stream| &stream.batches)
    }
}

impl Stream {
    fn seal(
        number: usize,
        class: &'static str,
        batch_records: usize,
        records: impl Iterator<Item = Record>,
    ) -> Result<Self> {
        let mut records = records.peekable();
        let name = format!("bench-{number}");
        let mut chain = BatchChain::new(&config::origin()?, &name, number as u64);
        let mut stream = Self { source: Source { name, class }, batches: Vec::new(), records: 0, raw_bytes: 0 };
        loop {
            let mut bytes = 0;
            let mut fits = |record: &Record| {
                let fits = bytes < BATCH_MAX_BYTES;
                bytes += record.as_ref().length();
                fits
            };
            let records: Vec<Record> = std::iter::from_fn(|| records.next_if(&mut fits)).take(batch_records).collect();
            if records.is_empty() {
                return Ok(stream);
            }
            stream.records += records.len() as u64;
            stream.raw_bytes += records.iter().map(|record| record.as_ref().length() as u64).sum::<u64>();
            stream.batches.push(chain.seal(&records)?);
        }
    }
}
