//! `ingest-small`: one record a batch from 64 streams, each waiting for its receipt, as a customer panel sends.

use std::{path::Path, time::Duration};

use anyhow::Result;
use sigillo_testkit::records::records;
use tokio::runtime::Runtime;

use crate::{
    drive::{Pace, drive},
    figures::{Against, Figures},
    ingest::{finish, start},
    load::Load,
};

const STREAMS: usize = 64;
const DURING: Duration = Duration::from_secs(8);
/// More than any stream will send: 64,000 records a second in all.
const RECORDS_PER_STREAM: usize = 8_000;

pub(crate) fn measure(runtime: &Runtime, dir: &Path, figures: &mut Figures) -> Result<()> {
    let load = Load::seal(STREAMS, "panel", 1, |stream| records(stream as u64).take(RECORDS_PER_STREAM))?;
    let server = start(dir, &load)?;
    let run = runtime.block_on(drive(&server, &load, Pace::OneByOne { during: DURING }))?;
    let usage = finish(server)?.usage;
    let raw = load.raw_bytes as f64 / load.records as f64 * run.records as f64;
    figures.put("records_per_s", run.records_per_s(), Against::AtLeast(15_000.0));
    figures.put("records_per_core_s", run.records as f64 / usage.cpu.as_secs_f64(), Against::Nothing);
    figures.put("ack_p50_ms", run.latency_ms(0.5), Against::Nothing);
    figures.put("ack_p99_ms", run.latency_ms(0.99), Against::Nothing);
    figures.put("written_per_raw", usage.written_bytes as f64 / raw, Against::Nothing);
    figures.put("peak_rss_mib", usage.peak_rss_bytes as f64 / f64::from(1 << 20), Against::AtMost(512.0));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
