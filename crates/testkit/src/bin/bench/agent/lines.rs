//! Lines of 290 bytes, the end included, as a hosting provider's machines write them.

use std::{
    fs::File,
    io::{BufWriter, Write},
};

use anyhow::Result;
use sigillo_proto::record::Fields;
use sigillo_testkit::records::records;

pub(crate) const LINE_BYTES: usize = 290;
/// Different texts; that many make their repetitions stand outside of a compressor's sight.
const TEXTS: usize = 20_000;

/// An endless run of lines.
pub(crate) struct Lines {
    texts: Vec<Vec<u8>>,
    next: usize,
}

impl Lines {
    pub(crate) fn new(seed: u64) -> Self {
        let mut originals = records(seed).map(|record| {
            let content = Fields::decode(record.as_ref()).content.unwrap_or_default();
            content.original
        });
        let texts = (0..TEXTS).map(|_| {
            let mut text = Vec::new();
            while text.len() < LINE_BYTES {
                text.extend(originals.next().unwrap_or_default().iter());
                text.push(b' ');
            }
            text
        });
        Self { texts: texts.collect(), next: 0 }
    }

    /// Appends the next line.
    pub(crate) fn line(&mut self, to: &mut Vec<u8>) {
        self.probe(to, "");
    }

    /// Appends the next line, with words at its beginning.
    pub(crate) fn probe(&mut self, to: &mut Vec<u8>, words: &str) {
        to.extend_from_slice(words.as_bytes());
        if let Some(text) = self.texts.get(self.next).and_then(|text| text.get(..LINE_BYTES - 1 - words.len())) {
            to.extend_from_slice(text);
        }
        to.push(b'\n');
        self.next = (self.next + 1) % TEXTS;
    }

    /// Writes so many lines.
    pub(crate) fn write(mut self, file: File, count: u64) -> Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        for _ in 0..count {
            line.clear();
            self.line(&mut line);
            file.write_all(&line)?;
        }
        file.flush()?;
        file.get_ref().sync_all()?;
        Ok(())
    }
}
