//! One connection: lines in, answers out, in order.

use std::{io, sync::Arc};

use bytes::BytesMut;
use sigillo_client::unix_nanos;
use sigillo_model::{limits::RECORD_MAX_BYTES, record::Record};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
};
use tracing::warn;

use super::{
    Shared,
    act::{Act, Peer},
};
use crate::{
    line::{LINE_MAX_BYTES, Piece, Splitter},
    source::{Chunk, Gathered},
    stamp::Stamp,
};

const READ_BYTES: usize = 64 << 10;
/// Groups of lines that are under way at once. A sender that does not wait for answers waits here.
const GROUPS: usize = 8;
/// Lines of one group.
const GROUP_LINES: usize = 256;

/// Lines that are answered together.
struct Group {
    /// What to say of each.
    answers: Vec<Answer>,
    /// Told when those that were taken are kept; `None` if none was.
    synced: Option<oneshot::Receiver<()>>,
}

struct Answer {
    line: u64,
    refused: Option<String>,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    let peer = match stream.peer_cred() {
        Ok(peer) => Peer { process_id: peer.pid(), user: peer.uid(), group: peer.gid() },
        Err(error) => return warn!(%error, "the kernel does not say who connected; not served"),
    };
    let (input, output) = stream.into_split();
    let (groups, to_answer) = mpsc::channel(GROUPS);
    let reader = Reader { shared, peer, line: 0, splitter: Splitter::new(LINE_MAX_BYTES, 0), held: None, groups };
    let (read, written) = tokio::join!(reader.run(input), answer(output, to_answer));
    for error in [read.err(), written.err()].into_iter().flatten() {
        warn!(%error, uid = peer.user, pid = peer.process_id, "a connection broke");
    }
}

struct Reader {
    shared: Arc<Shared>,
    peer: Peer,
    /// Lines that were read.
    line: u64,
    splitter: Splitter,
    /// Of the newest line, where the group before it had no room.
    held: Option<Record>,
    groups: mpsc::Sender<Group>,
}

impl Reader {
    async fn run(mut self, mut input: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            buffer.clear();
            buffer.reserve(READ_BYTES);
            let ended = input.read_buf(&mut buffer).await? == 0;
            self.splitter.push(&buffer);
            while self.group().await? {}
            if ended {
                return self.unfinished().await;
            }
        }
    }

    /// Takes lines that are there, as many as fit a chunk; false if there are none.
    async fn group(&mut self) -> io::Result<bool> {
        let (mut answers, mut gathered) = (Vec::new(), Gathered::new(Arc::clone(&self.shared.key)));
        let observed = unix_nanos();
        while answers.len() < GROUP_LINES {
            let Some(record) = self.held.take().map(Ok).or_else(|| self.next_record(observed)) else { break };
            let refused = match record {
                Ok(record) if !gathered.has_room(1, record.as_ref().length()) => {
                    self.held = Some(record);
                    break;
                }
                Ok(record) => {
                    gathered.push(record);
                    None
                }
                Err(refused) => Some(refused),
            };
            answers.push(Answer { line: self.line, refused });
        }
        if answers.is_empty() {
            return Ok(false);
        }
        let (sender, receiver) = oneshot::channel();
        let synced = match gathered.take(None) {
            None => None,
            Some(chunk) => {
                // Where nobody takes it any more the sender is dropped with it, and the answer is that it was not kept.
                self.shared.feed.hand_over(Chunk { urgent: true, synced: Some(sender), ..chunk }).await;
                Some(receiver)
            }
        };
        let sent = self.groups.send(Group { answers, synced }).await;
        sent.map(|()| true).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// What is made of the next whole line, if there is one.
    fn next_record(&mut self, observed: u64) -> Option<Result<Record, String>> {
        loop {
            let piece = self.splitter.next_piece()?;
            let is_part = piece.fragment.is_some_and(|fragment| !fragment.last);
            if !is_part {
                self.line += 1;
                self.shared.meter.read(1, piece.consumed, observed);
                return Some(self.record(&piece, observed));
            }
        }
    }

    fn record(&self, piece: &Piece, observed: u64) -> Result<Record, String> {
        if piece.fragment.is_some() {
            return Err(format!(
                "the line has more than {LINE_MAX_BYTES} bytes: nothing of it was taken; send less at once"
            ));
        }
        let Shared { maker, settings, .. } = &*self.shared;
        let scrubbed = maker.scrub(piece.bytes.clone());
        let taken: Vec<_> = scrubbed.1.iter().map(|(name, _)| &**name).collect();
        // The line as it came is never read: the record would hold secrets that its original does not show.
        let explain = |error: String| match taken.as_slice() {
            [] => error,
            names => format!("{error}; before it was read the scrubbing took {} out of the line", names.join(", ")),
        };
        let act = Act::parse(&scrubbed.0).map_err(explain)?;
        let facts = act.facts(&settings.tenant, self.peer).map_err(explain)?;
        let process_id = self.peer.process_id.and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
        let stamp = Stamp { program: &act.program, process_id, ..Stamp::default() };
        let record = maker.event(scrubbed, stamp, facts, observed);
        let bytes = record.as_ref().length();
        if bytes > RECORD_MAX_BYTES {
            // Said here, where the sender still hears it.
            return Err(format!(
                "the line makes a record of {bytes} bytes, at most {RECORD_MAX_BYTES} are taken: send less at once"
            ));
        }
        Ok(record)
    }

    /// What is left at the end has no end itself: nobody knows whether it is whole.
    async fn unfinished(mut self) -> io::Result<()> {
        let Some(piece) = self.splitter.finish() else { return Ok(()) };
        let bytes = piece.consumed;
        warn!(
            bytes,
            uid = self.peer.user,
            pid = self.peer.process_id,
            "a connection ended within a line, which was dropped"
        );
        let refused = Some("the connection ended within this line: nothing of it was taken".to_owned());
        let group = Group { answers: vec![Answer { line: self.line + 1, refused }], synced: None };
        // Mostly nobody is there any more to hear it.
        let _ = self.groups.send(group).await;
        Ok(())
    }
}

/// Answers lines once they are kept.
async fn answer(mut output: OwnedWriteHalf, mut groups: mpsc::Receiver<Group>) -> io::Result<()> {
    while let Some(Group { answers, synced }) = groups.recv().await {
        let kept = match synced {
            Some(synced) => synced.await.is_ok(),
            None => true,
        };
        let mut text = String::new();
        for Answer { line, refused } in answers {
            let error =
                refused.or_else(|| (!kept).then(|| "the agent is stopping and did not keep it: send it again".into()));
            let answer = match error {
                None => serde_json::json!({"ok": true, "line": line}),
                Some(error) => serde_json::json!({"ok": false, "line": line, "error": error}),
            };
            text.push_str(&answer.to_string());
            text.push('\n');
        }
        output.write_all(text.as_bytes()).await?;
    }
    Ok(())
}
