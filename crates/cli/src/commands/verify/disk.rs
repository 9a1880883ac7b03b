//! Files that somebody names: read with a bound.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Reads a file of at most `max` bytes.
pub(super) fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}
