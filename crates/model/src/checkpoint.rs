//! A log's statement of its size and root: the text of a note, as the C2SP specification tlog-checkpoint lays it out.

use crate::{ids::NodeHash, text, tree};

/// The greatest size of a log that is taken: 2^63 leaves.
pub const SIZE_MAX: u64 = 1 << 63;

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Fewer than three lines, an empty line, or no newline at the end.
    #[error("the text is not a checkpoint: origin, size and root are expected, a line each")]
    Form,
    /// The second line is not a plain decimal number up to [`SIZE_MAX`].
    #[error("the checkpoint's size is not a plain decimal number up to 2^63")]
    Size,
    /// The third line is not a hash in base64.
    #[error("the checkpoint's root is not a SHA-256 hash in base64")]
    Root,
    /// Size 0 with another root than that of the tree without leaves.
    #[error("the checkpoint's size is 0, but its root is not that of an empty tree")]
    EmptyRoot,
    /// Lines after the third, which this log never writes.
    #[error("the checkpoint has extension lines, which this log never writes")]
    Extension,
}

/// Size and root of a log's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name under which the log is known for ever. One line; of a foreign log it may have any characters.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: NodeHash,
}

impl Checkpoint {
    /// The text to sign.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, text::base64(self.root.as_bytes()))
    }

    /// Reads the text of any log's checkpoint. Extension lines are checked for their form and left to the note, whose
    /// signatures cover them.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        Self::split(text).map(|(checkpoint, _)| checkpoint)
    }

    /// Reads the text of a checkpoint of a log that writes no extension lines, as this product's does.
    pub fn parse_own(text: &str) -> Result<Self, CheckpointError> {
        let (checkpoint, extended) = Self::split(text)?;
        if extended { Err(CheckpointError::Extension) } else { Ok(checkpoint) }
    }

    /// The checkpoint, and whether extension lines follow.
    fn split(text: &str) -> Result<(Self, bool), CheckpointError> {
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::Form)?;
        if lines.split('\n').any(str::is_empty) {
            return Err(CheckpointError::Form);
        }
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Form);
        };
        let size = text::decimal(size).filter(|size| *size <= SIZE_MAX).ok_or(CheckpointError::Size)?;
        let root = text::hash(root).ok_or(CheckpointError::Root)?;
        if size == 0 && root != tree::empty() {
            return Err(CheckpointError::EmptyRoot);
        }
        Ok((Self { origin: origin.to_owned(), size, root }, lines.next().is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_example_is_read_and_written() {
        let checkpoint = Checkpoint::parse_own(EXAMPLE).unwrap();
        assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(checkpoint.text(), EXAMPLE);
    }

    #[test]
    fn extension_lines_are_for_foreign_logs_only() {
        let text = format!("{EXAMPLE}more\nand more\n");
        assert_eq!(Checkpoint::parse(&text).unwrap().size, 20_852_163);
        assert_eq!(Checkpoint::parse_own(&text), Err(CheckpointError::Extension));
    }

    #[test]
    fn other_forms_are_refused() {
        let of = |size: &str, root: &str| Checkpoint::parse(&format!("o\n{size}\n{root}\n"));
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        let empty = text::base64(tree::empty().as_bytes());
        assert!(of("9223372036854775808", root).is_ok() && of("0", &empty).is_ok());
        for size in ["", "00", "01", "-1", "+1", " 1", "1 ", "1e3", "9223372036854775809", "18446744073709551616"] {
            assert!(of(size, root).is_err(), "{size:?}");
        }
        for root in
            ["=", "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I", "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=", "AAAA"]
        {
            assert_eq!(of("1", root), Err(CheckpointError::Root), "{root:?}");
        }
        assert_eq!(of("0", root), Err(CheckpointError::EmptyRoot));
        for text in
            ["", "\n", "o\n1\n", "\n1\nx\n", EXAMPLE.trim_end(), &format!("{EXAMPLE}\n"), &format!("{EXAMPLE}\nx\n")]
        {
            assert_eq!(Checkpoint::parse(text), Err(CheckpointError::Form), "{text:?}");
        }
    }
}
