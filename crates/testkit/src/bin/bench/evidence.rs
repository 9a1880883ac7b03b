//! `proof`, of evidence: how fast a whole file is verified offline, in one thread.

use anyhow::{Result, ensure};
use sigillo_testkit::{evidence, process};

use crate::figures::{Against, Figures};

/// Records of the file.
const RECORDS: u64 = 1_000_000;

/// Verifies a file of a million records from memory, as `sigillo-verify` does.
pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let case = evidence::case(RECORDS)?;
    let cpu = || process::usage(std::process::id()).map(|usage| usage.cpu);
    let before = cpu()?;
    let verdict = sigillo_verify::verdict::verify(&*case.file, &case.policy, &mut ())?;
    let used = cpu()?.saturating_sub(before).as_secs_f64();
    ensure!(verdict.report.records == RECORDS, "only {} records were verified", verdict.report.records);
    figures.put("evidence_bytes_per_record", case.file.len() as f64 / RECORDS as f64, Against::Nothing);
    figures.put("evidence_records_per_core_s", RECORDS as f64 / used, Against::AtLeast(300_000.0));
    Ok(())
}
