//! What the journal records about the keys of heads, so that whoever reads the heads there knows by which keys to check them.
//!
//! ```text
//! sigillo source key v1             the first key of a source's heads, or one that no head announced
//! <origin>
//! <source id, hexadecimal>
//! <public key, base64>
//!
//! sigillo source keys v1            where all sources stand; at most 4,096 lines, ascending by id
//! <origin>
//! <source id, hexadecimal> <public key of its next head, base64> <time of its last head, ns; 0 when none>
//! ```

use std::fmt::Write;

use super::{HeadError, Lines};
use crate::{
    ids::{Origin, SourceId},
    text,
};

/// First line of [`SourceKey`].
pub const KEY_HEADER: &str = "sigillo source key v1";
/// First line of [`SourceKeys`].
pub const KEYS_HEADER: &str = "sigillo source keys v1";
/// Sources of a [`SourceKeys`] at most.
pub const KEYS_MAX: usize = 4_096;

/// The registration of a key that signs a source's next head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceKey {
    /// The source.
    pub source: SourceId,
    /// Ed25519 public key.
    pub key: [u8; 32],
}

impl SourceKey {
    /// The statement's text.
    pub fn text(&self, origin: &Origin) -> String {
        format!("{KEY_HEADER}\n{origin}\n{}\n{}\n", self.source, text::base64(&self.key))
    }

    /// Reads the text, in the one form that [`SourceKey::text`] writes, of this journal.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, HeadError> {
        let mut lines = open(text, KEY_HEADER, origin)?;
        let source = lines.source()?;
        let key = lines.next()?;
        let key = lines.key(key)?;
        lines.end()?;
        let statement = Self { source, key };
        if statement.text(origin) == text { Ok(statement) } else { Err(HeadError::Line(3)) }
    }
}

/// Where one source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLine {
    /// The source.
    pub source: SourceId,
    /// Ed25519 public key that signs its next head.
    pub key: [u8; 32],
    /// Time of its last head, nanoseconds since 1970 UTC; 0 when it has signed none.
    pub time_ns: u64,
}

/// Where the sources stand: what was registered and announced up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceKeys(Vec<KeyLine>);

impl SourceKeys {
    /// Of these sources, each of which stands for itself once. `None` if there are more than [`KEYS_MAX`]: write several.
    pub fn new(mut lines: Vec<KeyLine>) -> Option<Self> {
        lines.sort_unstable_by_key(|line| line.source);
        lines.dedup_by_key(|line| line.source);
        (lines.len() <= KEYS_MAX).then_some(Self(lines))
    }

    /// The sources, ascending by id.
    pub fn lines(&self) -> &[KeyLine] {
        &self.0
    }

    /// The statement's text.
    pub fn text(&self, origin: &Origin) -> String {
        let mut out = format!("{KEYS_HEADER}\n{origin}\n");
        for KeyLine { source, key, time_ns } in &self.0 {
            // Writing into a string does not fail.
            let _ = writeln!(out, "{source} {} {time_ns}", text::base64(key));
        }
        out
    }

    /// Reads the text, in the one form that [`SourceKeys::text`] writes, of this journal.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, HeadError> {
        let mut lines = open(text, KEYS_HEADER, origin)?;
        let mut all: Vec<KeyLine> = Vec::new();
        while lines.has_more() {
            let (source, rest) = lines.pair()?;
            let source = SourceId::from_hex(source).map_err(|_| lines.wrong())?;
            let (key, time) = rest.split_once(' ').ok_or_else(|| lines.wrong())?;
            let line = KeyLine { source, key: lines.key(key)?, time_ns: lines.number(time)? };
            if all.len() == KEYS_MAX || all.last().is_some_and(|last| last.source >= source) {
                return Err(lines.wrong());
            }
            all.push(line);
        }
        let statement = Self(all);
        if statement.text(origin) == text { Ok(statement) } else { Err(HeadError::Line(3)) }
    }
}

fn open<'a>(text: &'a str, header: &str, origin: &Origin) -> Result<Lines<'a>, HeadError> {
    let mut lines = Lines::new(text);
    lines.header(header)?;
    if lines.next()? == origin.as_str() { Ok(lines) } else { Err(lines.wrong()) }
}
