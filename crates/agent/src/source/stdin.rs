//! Standard input, to its end.

use std::sync::Arc;

use bytes::BytesMut;
use sigillo_client::unix_nanos;
use tokio::io::AsyncReadExt;

use crate::{
    AgentError,
    line::{LINE_MAX_BYTES, Splitter},
    record::Maker,
    source::{Chunk, Feed},
};

const READ_BYTES: usize = 256 << 10;

/// Reads until the end of the input.
pub(crate) async fn read(maker: Maker, feed: Feed) -> Result<(), AgentError> {
    let key = Arc::from("-");
    let mut input = tokio::io::stdin();
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
        let mut pieces: Vec<_> = std::iter::from_fn(|| splitter.next_piece()).collect();
        if count == 0 {
            pieces.extend(splitter.finish());
        }
        let items = pieces.into_iter().map(|piece| (maker.line(piece, observed), None)).collect();
        for chunk in Chunk::cut(&key, items) {
            if !feed.hand_over(chunk).await {
                return Ok(());
            }
        }
        if count == 0 {
            return Ok(());
        }
    }
}
