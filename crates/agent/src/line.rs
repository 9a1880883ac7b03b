//! Bytes into lines.

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use sigillo_proto::v1::Fragment;

/// Longest line, or piece of a line, that becomes one record.
pub(crate) const LINE_MAX_BYTES: usize = 256 << 10;

/// A line without its end, or a piece of a line that is too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The bytes as they were read.
    pub(crate) bytes: Bytes,
    /// Set on every piece of a line that was split.
    pub(crate) fragment: Option<Fragment>,
    /// How many bytes of the input it took, its line end included.
    pub(crate) consumed: u64,
}

/// Cuts a stream of bytes into lines, and lines that are too long into numbered pieces.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    /// How much of the buffer holds no line end.
    searched: usize,
    max_bytes: usize,
    /// Pieces of the present line that were cut off already.
    pieces: u32,
}

impl Splitter {
    /// `max_bytes` is the longest piece. `pieces` of the line that the input begins in were read before.
    pub(crate) fn new(max_bytes: usize, pieces: u32) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, max_bytes, pieces }
    }

    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, or piece of a line that is too long.
    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        // A line of exactly the greatest length is whole: its end may come one byte later.
        let window = self.buffer.get(..=self.max_bytes).unwrap_or(&self.buffer);
        let found = memchr(b'\n', window.get(self.searched..)?);
        if let Some(end) = found.map(|place| place + self.searched) {
            let line = self.buffer.split_to(end + 1).freeze();
            return Some(self.end_of_line(line.slice(..end), line.len()));
        }
        if window.len() <= self.max_bytes {
            self.searched = window.len();
            return None;
        }
        let bytes = self.buffer.split_to(self.max_bytes).freeze();
        let fragment = Fragment { index: self.pieces, last: false };
        self.pieces = self.pieces.saturating_add(1);
        self.searched = 0;
        Some(Piece { consumed: bytes.len() as u64, bytes, fragment: Some(fragment) })
    }

    /// What is left of a line whose end will never come.
    pub(crate) fn finish(&mut self) -> Option<Piece> {
        let rest = self.buffer.split().freeze();
        if rest.is_empty() {
            (self.searched, self.pieces) = (0, 0);
            return None;
        }
        let consumed = rest.len();
        Some(self.end_of_line(rest, consumed))
    }

    fn end_of_line(&mut self, bytes: Bytes, consumed: usize) -> Piece {
        let fragment = (self.pieces > 0).then_some(Fragment { index: self.pieces, last: true });
        (self.searched, self.pieces) = (0, 0);
        Piece { bytes, fragment, consumed: consumed as u64 }
    }
}

/// Cuts one message into pieces that fit a record.
pub(crate) fn split_message(message: &Bytes) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let count = message.len().div_ceil(LINE_MAX_BYTES).max(1);
    for index in 0..count {
        let start = index * LINE_MAX_BYTES;
        let bytes = message.slice(start..message.len().min(start + LINE_MAX_BYTES));
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let fragment = (count > 1).then_some(Fragment { index: number, last: index + 1 == count });
        pieces.push(Piece { consumed: bytes.len() as u64, bytes, fragment });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes, and index and end mark of a fragment.
    type Shown = (Vec<u8>, Option<(u32, bool)>);

    fn pieces(splitter: &mut Splitter) -> Vec<Shown> {
        std::iter::from_fn(|| splitter.next_piece())
            .map(|piece| (piece.bytes.to_vec(), piece.fragment.map(|f| (f.index, f.last))))
            .collect()
    }

    #[test]
    fn a_line_waits_for_its_end() {
        let mut splitter = Splitter::new(8, 0);
        splitter.push(b"one\n\ntw");
        assert_eq!(pieces(&mut splitter), [(b"one".to_vec(), None), (b"".to_vec(), None)]);
        splitter.push(b"o\xff\r\n");
        assert_eq!(pieces(&mut splitter), [(b"two\xff\r".to_vec(), None)]);
        assert_eq!(splitter.finish(), None);
        splitter.push(b"rest");
        assert_eq!(pieces(&mut splitter), []);
        assert_eq!(splitter.finish().unwrap().bytes, "rest");
    }

    #[test]
    fn long_lines_come_in_numbered_pieces_and_exact_ones_whole() {
        let mut splitter = Splitter::new(4, 0);
        splitter.push(b"abcd\nabcde\nabcdabcda");
        assert_eq!(
            pieces(&mut splitter),
            [
                (b"abcd".to_vec(), None),
                (b"abcd".to_vec(), Some((0, false))),
                (b"e".to_vec(), Some((1, true))),
                (b"abcd".to_vec(), Some((0, false))),
                (b"abcd".to_vec(), Some((1, false))),
            ]
        );
        assert_eq!(splitter.finish().unwrap().fragment, Some(Fragment { index: 2, last: true }));
    }

    #[test]
    fn every_cut_of_the_input_gives_the_same_lines_and_takes_every_byte() {
        let input = b"a\nbb\n\nccccccccccc\nd\n";
        let mut whole = Splitter::new(4, 0);
        whole.push(input);
        let expected = pieces(&mut whole);
        for size in 1..input.len() {
            let mut splitter = Splitter::new(4, 0);
            let (mut found, mut consumed) = (Vec::new(), 0);
            for chunk in input.chunks(size) {
                splitter.push(chunk);
                while let Some(piece) = splitter.next_piece() {
                    consumed += piece.consumed;
                    found.push((piece.bytes.to_vec(), piece.fragment.map(|f| (f.index, f.last))));
                }
            }
            assert_eq!((found, consumed), (expected.clone(), input.len() as u64), "chunks of {size}");
        }
    }

    #[test]
    fn messages_are_split_alike() {
        let pieces = split_message(&Bytes::from(vec![b'x'; LINE_MAX_BYTES + 1]));
        let shown: Vec<_> = pieces.iter().map(|piece| (piece.bytes.len(), piece.fragment)).collect();
        let fragment = |index, last| Some(Fragment { index, last });
        assert_eq!(shown, [(LINE_MAX_BYTES, fragment(0, false)), (1, fragment(1, true))]);
        assert_eq!(split_message(&Bytes::new()).len(), 1);
    }
}
