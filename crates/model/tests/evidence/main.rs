//! Evidence files: what is proved, what is not, and that nothing altered passes.

#![allow(clippy::single_range_in_vec_init, reason = "a file of one stretch of records")]

mod attacks;
mod completeness;
mod golden;
mod heads;
mod journal;
mod lawful;

use sigillo_model::{
    evidence::{Finding, HEADER_BYTES, Header, MAGIC, Report, Verifier, Watch},
    policy::Policy,
};

/// Verifies a file as a reader of streams would.
fn verify(file: &[u8]) -> Result<Report, Finding> {
    verify_with(file, &Policy::parse(journal::trust().as_bytes()).unwrap(), &mut ())
}

fn verify_with(file: &[u8], policy: &Policy, watch: &mut impl Watch) -> Result<Report, Finding> {
    let mut rest = file.strip_prefix(MAGIC).ok_or(Finding::NotEvidence)?;
    let mut verifier = Verifier::new(policy);
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        if verifier.is_ended() {
            return Err(Finding::Trailing);
        }
        let header = Header::parse(*header)?;
        let (payload, after) = after.split_at_checked(header.length).ok_or(Finding::Truncated)?;
        verifier.section(header, payload, watch)?;
        rest = after;
    }
    if !rest.is_empty() {
        return Err(if verifier.is_ended() { Finding::Trailing } else { Finding::Truncated });
    }
    verifier.finish()
}
