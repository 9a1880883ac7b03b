//! Reads an evidence file once, from the beginning to the end, keeping one section at a time.

use std::io::{self, Read};

use sigillo_model::{
    evidence::{Finding, HEADER_BYTES, Header, Kind, MAGIC, Report, Verifier, Watch},
    policy::Policy,
};

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("the file can't be read: {0}")]
    Io(#[from] io::Error),
    /// The file was read, and is not what it should be.
    #[error(transparent)]
    Finding(#[from] Finding),
}

/// Verifies a file by a trust file. Needs memory for one section and one hash a level, however long the file is.
pub fn read(mut input: impl Read, policy: &Policy, watch: &mut impl Watch) -> Result<Report, ReadError> {
    let mut magic = [0; MAGIC.len()];
    if fill(&mut input, &mut magic)? < magic.len() || magic != MAGIC {
        return Err(Finding::NotEvidence.into());
    }
    let mut verifier = Verifier::new(policy);
    let mut payload = Vec::new();
    loop {
        let mut header = [0; HEADER_BYTES];
        match fill(&mut input, &mut header)? {
            0 => return Ok(verifier.finish()?),
            _ if verifier.is_ended() => return Err(Finding::Trailing.into()),
            read if read < HEADER_BYTES => return Err(Finding::Truncated.into()),
            _ => (),
        }
        let header = Header::parse(header)?;
        payload.clear();
        // Grows as bytes come, so that a length alone costs no memory.
        (&mut input).take(header.length as u64).read_to_end(&mut payload)?;
        verifier.section(header, &payload, watch)?;
    }
}

/// The trust file that a file holds, as its exporter saw it. Proves nothing; only its first two sections are read.
pub fn trust(mut input: impl Read) -> Result<Vec<u8>, ReadError> {
    let mut magic = [0; MAGIC.len()];
    if fill(&mut input, &mut magic)? < magic.len() || magic != MAGIC {
        return Err(Finding::NotEvidence.into());
    }
    loop {
        let mut header = [0; HEADER_BYTES];
        if fill(&mut input, &mut header)? < HEADER_BYTES {
            return Err(Finding::Truncated.into());
        }
        let header = Header::parse(header)?;
        let mut payload = Vec::new();
        (&mut input).take(header.length as u64).read_to_end(&mut payload)?;
        match header.kind {
            Kind::About => (),
            Kind::Trust => return Ok(payload),
            kind => return Err(Finding::SectionMisplaced { kind, after: None }.into()),
        }
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
