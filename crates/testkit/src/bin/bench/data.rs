//! What the records are: seeded ones, or lines that somebody recorded.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use sigillo_model::{limits::RECORD_MAX_BYTES, record::Record};
use sigillo_proto::{
    record::Fields,
    v1::{ContentPart, CorePart},
};
use sigillo_testkit::records::records;

use crate::load::Load;

/// Streams of `ingest`, each with a certificate of its own.
const STREAMS: usize = 4;
/// Class of these sources.
pub(crate) const CLASS: &str = "service";
const BATCH_RECORDS: usize = 1_000;
/// A small file is sent again until so many bytes have been sent. Batches are compressed one by one, so that repeating
/// makes nothing smaller.
const RECORDED_MIN_BYTES: usize = 200 << 20;

/// Where the records come from.
pub(crate) enum Data {
    /// The testkit's builder.
    Seeded { records: u64 },
    /// A file of lines.
    Recorded { name: String, path: PathBuf },
}

/// The recorded files of the folder that `SIGILLO_DATA` names, if it is set.
pub(crate) fn recorded() -> Result<Vec<Data>> {
    let Some(dir) = env::var_os("SIGILLO_DATA") else { return Ok(Vec::new()) };
    let dir = PathBuf::from(dir);
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("SIGILLO_DATA: folder {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, path));
        }
    }
    ensure!(!files.is_empty(), "SIGILLO_DATA: there is no .zst file in {}", dir.display());
    files.sort();
    Ok(files.into_iter().map(|(name, path)| Data::Recorded { name, path }).collect())
}

impl Data {
    /// Name of the recorded file.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Seeded { .. } => None,
            Self::Recorded { name, .. } => Some(name),
        }
    }

    /// Makes the batches of all streams.
    pub(crate) fn load(&self) -> Result<Load> {
        match self {
            Self::Seeded { records: total } => {
                let share = usize::try_from(*total)? / STREAMS;
                Load::seal(STREAMS, CLASS, BATCH_RECORDS, |stream| records(stream as u64).take(share))
            }
            Self::Recorded { name, path } => {
                let text = zstd::decode_all(fs::File::open(path)?)?;
                let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
                ensure!(!lines.is_empty(), "{} holds no lines", path.display());
                // The file is cut into as many runs as there are streams; small files are repeated within a stream.
                let share = lines.len().div_ceil(STREAMS);
                let repeats = RECORDED_MIN_BYTES.div_ceil(text.len());
                // A batch never holds a line and its repetition: that would compress too well.
                Load::seal(STREAMS, CLASS, BATCH_RECORDS.min(share), |stream| {
                    let run = lines.chunks(share).nth(stream).unwrap_or_default();
                    std::iter::repeat_n(run, repeats).flatten().map(|line| of_line(name, line))
                })
            }
        }
    }
}

/// A record as an agent makes it of a line whose format it doesn't know.
fn of_line(file: &str, line: &[u8]) -> Record {
    let line = line.get(..RECORD_MAX_BYTES / 2).unwrap_or(line);
    let core = CorePart {
        observed_time_unix_nano: 1_772_438_400_000_000_000,
        host: "recorded".into(),
        stream: file.to_owned(),
        ..CorePart::default()
    };
    let content = ContentPart { original: Bytes::copy_from_slice(line), ..ContentPart::default() };
    Fields { core: Some(core), content: Some(content), ..Fields::default() }.encode()
}
