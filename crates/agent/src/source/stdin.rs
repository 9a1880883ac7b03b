//! Standard input, to its end. What was read of it can't be read again: it is kept by the spool or by nobody.

use std::sync::Arc;

use bytes::BytesMut;
use sigillo_client::unix_nanos;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    AgentError,
    line::{LINE_MAX_BYTES, Splitter},
    record::Maker,
    source::{Feed, Gathered, Meter},
};

const READ_BYTES: usize = 256 << 10;
/// What a record has beside its line, at most.
const RECORD_MORE_BYTES: usize = 64 << 10;

/// Reads until the end of the input.
pub(crate) async fn follow(maker: Maker, feed: Feed, meter: Arc<Meter>) -> Result<(), AgentError> {
    read(tokio::io::stdin(), maker, feed, &meter).await
}

async fn read(mut input: impl AsyncRead + Unpin, maker: Maker, feed: Feed, meter: &Meter) -> Result<(), AgentError> {
    let mut gathered = Gathered::new(Arc::from("-"));
    let mut splitter = Splitter::new(LINE_MAX_BYTES, 0);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        buffer.reserve(READ_BYTES);
        let count = input
            .read_buf(&mut buffer)
            .await
            .map_err(|source| AgentError::Source { name: "standard input".into(), source })?;
        splitter.push(&buffer);
        let observed = unix_nanos();
        loop {
            let piece = match splitter.next_piece() {
                // The last line may have no end.
                None if count == 0 => splitter.finish(),
                piece => piece,
            };
            let Some(piece) = piece else { break };
            if !gathered.has_room(1, piece.bytes.len() + RECORD_MORE_BYTES)
                && let Some(chunk) = gathered.take(None)
                && !feed.hand_over(chunk).await
            {
                return Ok(());
            }
            let is_last = piece.fragment.is_none_or(|fragment| fragment.last);
            meter.read(u64::from(is_last), piece.consumed, observed);
            gathered.push(maker.line(piece, observed));
        }
        if let Some(chunk) = gathered.take(None)
            && !feed.hand_over(chunk).await
        {
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use sigillo_proto::record::Fields;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        scrub::Scrubber,
        source::{CHUNK_BYTES, CHUNK_RECORDS},
    };

    async fn lines(input: &[u8]) -> Vec<Vec<u8>> {
        let (sender, mut chunks) = mpsc::channel(1);
        let maker = Maker::new("ours", "", Arc::new(Scrubber::new(&[]).unwrap()));
        let meter = Meter::default();
        let (read, lines) = tokio::join!(read(input, maker, Feed::new(sender), &meter), async {
            let mut lines: Vec<Vec<u8>> = Vec::new();
            let mut goes_on = false;
            while let Some(chunk) = chunks.recv().await {
                assert!(chunk.mark.is_none() && chunk.records.len() <= CHUNK_RECORDS);
                let bytes: usize = chunk.records.iter().map(|record| record.as_ref().length()).sum();
                assert!(bytes <= CHUNK_BYTES || chunk.records.len() == 1);
                for record in chunk.records {
                    let content = Fields::decode(record.as_ref()).content.unwrap();
                    match lines.last_mut().filter(|_| goes_on) {
                        Some(line) => line.extend(&content.original),
                        None => lines.push(content.original.to_vec()),
                    }
                    goes_on = content.fragment.is_some_and(|fragment| !fragment.last);
                }
            }
            lines
        });
        read.unwrap();
        assert_eq!((meter.lines.load(Relaxed), meter.bytes.load(Relaxed)), (lines.len() as u64, input.len() as u64));
        lines
    }

    #[tokio::test]
    async fn every_byte_arrives_also_of_long_lines_and_of_a_last_one_without_end() {
        let long = b"x".repeat(10 << 20);
        let many = b"a short line\n".repeat(20_000);
        let input = [b"one\n\n\xff\x00\r\n", &long[..], b"\n", &many[..], b"no end"].concat();
        let lines = lines(&input).await;
        let expected: Vec<_> = input.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), expected.len());
        assert!(lines == expected);
    }

    #[tokio::test]
    async fn an_empty_input_gives_nothing() {
        assert!(lines(b"").await.is_empty());
    }
}
