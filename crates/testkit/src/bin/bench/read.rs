//! `verify` and `scan`: reading a filled journal.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sigillo_client::Connection;
use sigillo_proto::v1::{self, search_response::Message};
use sigillo_testkit::{config::READER, process, server::Server};
use tokio::runtime::Runtime;

use crate::{
    data::CLASS,
    figures::{Against, Figures},
    ingest::Filled,
    limits::Limits,
};

/// In no record of any kind.
pub(crate) const NEEDLE: &[u8] = b"Accepted keyboard-interactive/pam for zorro";

/// Searches are repeated for so long.
const SCAN_DURING: Duration = Duration::from_secs(5);

/// Verifies the local database, as `sigillo verify --db` does, in this process.
pub(crate) fn verify(filled: &Filled, limits: &Limits, figures: &mut Figures) -> Result<()> {
    let cpu = || process::usage(std::process::id()).map(|usage| usage.cpu);
    let (begun, before) = (Instant::now(), cpu()?);
    let report = sigillo_journal::verify::verify(&filled.command.data_dir(), |_| {})?;
    let (elapsed, used) = (begun.elapsed().as_secs_f64(), cpu()?.saturating_sub(before).as_secs_f64());
    ensure!(report.records >= filled.records, "only {} records were verified", report.records);
    let records = report.records as f64;
    figures.put("records", records, Against::Nothing);
    figures.put("records_per_core_s", records / used, Against::AtLeast(600_000.0));
    figures.put("records_per_core_s_of_hash", records / used, Against::Limit(limits.hashed_records));
    figures.put("records_per_s", records / elapsed, Against::Nothing);
    figures.put("raw_bytes_per_core_s", report.raw_bytes as f64 / used, Against::Nothing);
    Ok(())
}

/// Searches the whole journal over the wire for what is nowhere in it.
pub(crate) fn scan(runtime: &Runtime, filled: &Filled, limits: &Limits, figures: &mut Figures) -> Result<()> {
    let server = filled.command.start()?;
    let connection = runtime.block_on(Connection::open(&server.endpoint(READER)))?;
    // Once for the caches of the disk.
    runtime.block_on(search(&connection, filled.records))?;
    let (begun, before) = (Instant::now(), server.usage()?.cpu);
    let mut scans = 0_u32;
    while begun.elapsed() < SCAN_DURING {
        runtime.block_on(search(&connection, filled.records))?;
        scans += 1;
    }
    let (elapsed, used) = (begun.elapsed().as_secs_f64(), cpu(&server)?.saturating_sub(before).as_secs_f64());
    let bytes = filled.raw_bytes as f64 * f64::from(scans);
    figures.put("scans", f64::from(scans), Against::Nothing);
    figures.put("raw_bytes_per_core_s", bytes / used, Against::AtLeast(1e9));
    figures.put("raw_bytes_per_core_s_of_memmem", bytes / used, Against::Limit(limits.searched_bytes));
    figures.put("raw_bytes_per_s", bytes / elapsed, Against::Nothing);
    server.stop()?;
    Ok(())
}

fn cpu(server: &Server) -> Result<Duration> {
    Ok(server.usage()?.cpu)
}

async fn search(connection: &Connection, at_least: u64) -> Result<()> {
    // What is searched for is in the records of earlier searches, which are of another class.
    let filter = v1::Filter { contains: NEEDLE.into(), classes: vec![CLASS.into()], ..v1::Filter::default() };
    let request = v1::SearchRequest { filter: Some(filter), reason: "bench".into(), ..v1::SearchRequest::default() };
    let mut answers = connection.search(request).await?;
    while let Some(answer) = answers.next().await? {
        match answer.message.context("an answer of an unknown kind")? {
            Message::Progress(_) => {}
            Message::Done(done) => {
                ensure!(done.scanned >= at_least && done.matched == 0, "the search did not see everything: {done:?}");
                return Ok(());
            }
            Message::Record(record) => bail!("a record matches what is nowhere: {record:?}"),
        }
    }
    bail!("the answer was cut off")
}
