//! What an evidence file says about itself, and the small sections beside its records.

use super::{
    report::Finding,
    section::{HEADER_BYTES, Header, Kind, MAGIC},
    write::WriteError,
};
use crate::{
    cursor::Cursor,
    ids::{NoteHash, Origin},
};

/// Bytes of an attachment's name at most.
pub const NAME_MAX_BYTES: usize = 100;

/// Who exported what, why and when: the exporter's word.
///
/// ```text
/// u16 bytes, origin; [32] hash of the last note of the journal before, or zeros; u64 time, ns since 1970; u16 bytes,
/// who; u16 bytes, why; u32 bytes, query; u64 from; u64 to
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The journal.
    pub origin: Origin,
    /// When it was exported, nanoseconds since 1970.
    pub time: u64,
    /// Who exported it.
    pub who: String,
    /// Why.
    pub why: String,
    /// What was asked for, in words.
    pub query: String,
    /// First sequence that was looked at.
    pub from: u64,
    /// The sequence after the last that was looked at.
    pub to: u64,
}

impl About {
    pub(super) fn encode(&self) -> Result<Vec<u8>, WriteError> {
        let mut out = Vec::new();
        let short = |out: &mut Vec<u8>, text: &str| {
            let length = u16::try_from(text.len()).map_err(|_| WriteError::TooLong(Kind::About))?;
            out.extend(length.to_be_bytes());
            out.extend(text.as_bytes());
            Ok(())
        };
        short(&mut out, self.origin.as_str())?;
        out.extend(self.origin.predecessor().map_or([0; 32], |note| *note.as_bytes()));
        out.extend(self.time.to_be_bytes());
        short(&mut out, &self.who)?;
        short(&mut out, &self.why)?;
        let length = u32::try_from(self.query.len()).map_err(|_| WriteError::TooLong(Kind::About))?;
        out.extend(length.to_be_bytes());
        out.extend(self.query.as_bytes());
        out.extend(self.from.to_be_bytes());
        out.extend(self.to.to_be_bytes());
        Ok(out)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Finding> {
        let mut cursor = Cursor::new(bytes);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Finding::Section(Kind::About));
        let length = usize::from(cursor.u16()?);
        let origin = Origin::new(text(cursor.take(length)?)?).map_err(|_| Finding::Section(Kind::About))?;
        let origin = match NoteHash::new(cursor.array()?) {
            none if none.as_bytes() == &[0; 32] => origin,
            predecessor => origin.after(predecessor),
        };
        let time = cursor.u64()?;
        let length = usize::from(cursor.u16()?);
        let who = text(cursor.take(length)?)?;
        let length = usize::from(cursor.u16()?);
        let why = text(cursor.take(length)?)?;
        let length = cursor.u32()? as usize;
        let query = text(cursor.take(length)?)?;
        let about = Self { origin, time, who, why, query, from: cursor.u64()?, to: cursor.u64()? };
        if cursor.remaining() == 0 { Ok(about) } else { Err(Finding::Section(Kind::About)) }
    }
}

/// The origin that a file begins with, if these are its first bytes.
pub fn peek_origin(file: &[u8]) -> Option<Origin> {
    let (header, rest) = file.strip_prefix(MAGIC)?.split_first_chunk::<HEADER_BYTES>()?;
    let header = Header::parse(*header).ok().filter(|header| header.kind == Kind::About)?;
    Some(About::parse(rest.get(..header.length)?).ok()?.origin)
}

/// What an export was made with, by the exporter's word: `[32] SHA-256 of the format page, [32] SHA-256 of the verifier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tools {
    /// SHA-256 of the format page; zeros when unknown.
    pub format_page: [u8; 32],
    /// SHA-256 of the verifier's program; zeros when unknown.
    pub verifier: [u8; 32],
}

impl Tools {
    pub(super) fn encode(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out.iter_mut().zip(self.format_page.into_iter().chain(self.verifier)).for_each(|(to, from)| *to = from);
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Finding> {
        let mut cursor = Cursor::new(bytes);
        let tools = Self { format_page: cursor.array()?, verifier: cursor.array()? };
        if cursor.remaining() == 0 { Ok(tools) } else { Err(Finding::Section(Kind::Tools)) }
    }
}

/// Something with a name beside the records: `u8 bytes, name; then its bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What it is: [`Kind::Token`] or [`Kind::Register`].
    pub kind: Kind,
    /// A file name: see [`is_attachment_name`].
    pub name: String,
    /// Its bytes; none in a report of what this version does not read.
    pub bytes: Vec<u8>,
}

impl Attachment {
    pub(super) fn encode(name: &str, bytes: &[u8]) -> Result<Vec<u8>, WriteError> {
        if !is_attachment_name(name) {
            return Err(WriteError::Name(name.to_owned()));
        }
        // At most NAME_MAX_BYTES.
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        Ok([&[length], name.as_bytes(), bytes].concat())
    }

    pub(super) fn parse(kind: Kind, bytes: &[u8]) -> Result<Self, Finding> {
        let mut cursor = Cursor::new(bytes);
        let length = usize::from(cursor.u8()?);
        let name = std::str::from_utf8(cursor.take(length)?).map_err(|_| Finding::AttachmentName)?;
        if !is_attachment_name(name) {
            return Err(Finding::AttachmentName);
        }
        let bytes = cursor.take(cursor.remaining())?.to_vec();
        Ok(Self { kind, name: name.to_owned(), bytes })
    }
}

/// A name that is safe as a file name everywhere: 1 to [`NAME_MAX_BYTES`] letters, digits, `-`, `_` and `.`, beginning with a
/// letter or a digit and not ending in `.`, and no name that a system keeps for a device.
pub fn is_attachment_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered = |device: &str| stem.strip_prefix(device).is_some_and(|rest| rest.len() == 1);
    let reserved = ["con", "prn", "aux", "nul"].contains(&stem.as_str()) || numbered("com") || numbered("lpt");
    !name.is_empty()
        && name.len() <= NAME_MAX_BYTES
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.ends_with('.')
        && !reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_and_nothing_else() {
        for good in ["token.tsr", "2026-11-23.tsr", "a", "A_b-c.1"] {
            assert!(is_attachment_name(good), "{good:?}");
        }
        let long = "x".repeat(NAME_MAX_BYTES + 1);
        let bad = [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "/a",
            "a\\b",
            ".hidden",
            "-rf",
            "a.",
            "a b",
            "a\n",
            "a\0",
            "C:a",
            "con",
            "NUL.txt",
            "com1",
            "LPT9.x",
            "è",
            "\u{202e}txt",
            &long,
        ];
        for name in bad {
            assert!(!is_attachment_name(name), "{name:?}");
        }
    }
}
