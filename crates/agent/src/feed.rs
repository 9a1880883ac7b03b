//! From the sources' queue into the engine, no faster than the limit on our own CPU time allows.

use std::sync::Arc;

use sigillo_client::{
    ClientError, CpuPace,
    spooled::{Chunk as Spooled, Pusher},
    unix_nanos,
};
use sigillo_model::{limits::RECORD_MAX_BYTES, record::Record};
use sigillo_proto::record::Fields;
use tokio::{sync::mpsc, time::sleep};
use tracing::error;

use crate::{
    declare::{Declarer, Loss},
    source::Chunk,
};

/// Moves chunks.
pub(crate) struct Feeder {
    pusher: Pusher,
    declarer: Declarer,
    pace: Option<CpuPace>,
}

impl Feeder {
    /// `cpu_percent`: of one core; `None`: no limit.
    pub(crate) fn new(pusher: Pusher, declarer: Declarer, cpu_percent: Option<u32>) -> Self {
        Self { pusher, declarer, pace: cpu_percent.map(CpuPace::new) }
    }

    /// Until the sources have ended, or the engine has.
    pub(crate) async fn run(mut self, first: Spooled, mut chunks: mpsc::Receiver<Chunk>) {
        if self.pusher.push(first).await.is_err() {
            return;
        }
        while let Some(Chunk { key, mut records, mark, urgent, synced }) = chunks.recv().await {
            let mark = mark.map(|mark| (Arc::clone(&key), mark));
            let count = records.len() as u64;
            declare_too_large(&mut records, &key, &self.declarer);
            let mut pushed = self.pusher.push(Spooled { records, mark: mark.clone(), urgent }).await;
            let mut synced = synced;
            if let Err(ClientError::Record(error)) = &pushed {
                // Its source goes on behind it.
                error!(source = %key, %error, records = count, "what was read does not fit the spool; its loss is declared");
                let reason = error.to_string();
                let loss = Loss { stream: &key, reason: &reason, lines: Some(count), ..Loss::default() };
                let records = vec![self.declarer.loss(&loss, unix_nanos())];
                pushed = self.pusher.push(Spooled { records, mark, urgent }).await;
                synced = None;
            }
            let Ok(mut ticket) = pushed else { return };
            if let Some(synced) = synced {
                tokio::spawn(async move {
                    if ticket.synced().await.is_ok() {
                        let _ = synced.send(());
                    }
                });
            }
            if let Some(pace) = &mut self.pace {
                sleep(pace.wait()).await;
            }
        }
    }
}

/// Puts a declaration in the place of each record that is larger than any that is taken: its source goes on behind it.
fn declare_too_large(records: &mut [Record], key: &str, declarer: &Declarer) {
    for record in records {
        let bytes = record.as_ref().length();
        if bytes <= RECORD_MAX_BYTES {
            continue;
        }
        let core = Fields::decode(record.as_ref()).core;
        let stream = core.map(|core| core.stream).filter(|stream| !stream.is_empty()).unwrap_or_else(|| key.to_owned());
        error!(stream, bytes, "a record is too large for the journal; its loss is declared");
        let reason = format!("a record has at most {RECORD_MAX_BYTES} bytes, this one has more");
        let bytes = Some(bytes as u64);
        let loss = Loss { stream: &stream, reason: &reason, lines: Some(1), bytes, ..Loss::default() };
        *record = declarer.loss(&loss, unix_nanos());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        line::{LINE_MAX_BYTES, Piece},
        record::Maker,
        scrub::{ScrubSettings, Scrubber},
    };

    #[test]
    fn the_loss_of_a_record_that_is_too_large_is_declared_and_no_other_is_lost() {
        // A pattern by which a line grows beyond what is taken.
        let digit = ScrubSettings { name: "digit".into(), pattern: r"\d".into() };
        let maker = Maker::new("web-1", "", Arc::new(Scrubber::new(&[digit]).unwrap())).of("/var/log/app");
        let record = |bytes: Bytes| maker.line(Piece { consumed: bytes.len() as u64, bytes, fragment: None }, 17);
        let (one, other) = (record("one".into()), record("other".into()));
        let mut records = [one.clone(), record("1 ".repeat(LINE_MAX_BYTES / 2).into()), other.clone()];
        declare_too_large(&mut records, "file", &Declarer::new(&maker));
        assert!(records.iter().all(|record| record.as_ref().length() <= RECORD_MAX_BYTES));
        let [first, declared, last] = records;
        assert_eq!((first, last), (one, other));
        let core = Fields::decode(declared.as_ref()).core.unwrap();
        assert_eq!((&*core.event_name, &*core.target.unwrap().id), ("agent.loss", "/var/log/app"));
    }
}
