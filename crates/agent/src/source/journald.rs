//! The systemd journal, read through `journalctl --output=json`.

use std::{io, process::Stdio, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;
use sigillo_client::{Backoff, unix_nanos};
use sigillo_model::record::Record;
use tokio::{io::AsyncReadExt, process::Command, time::sleep};
use tracing::{info, warn};

use crate::{
    AgentError, JournaldSettings,
    line::{Piece, Splitter, split_message},
    record::Maker,
    run::Mode,
    source::{Chunk, Feed, Mark, Marks},
    stamp::Stamp,
};

const READ_BYTES: usize = 256 << 10;
/// Longest entry that is understood. Of a longer one the JSON text itself is sent, in pieces.
const ENTRY_MAX_BYTES: usize = 4 << 20;

/// Follows the journal for ever, or to its present end.
pub(crate) async fn follow(
    settings: JournaldSettings,
    maker: Maker,
    marks: Marks,
    mode: Mode,
    feed: Feed,
) -> Result<(), AgentError> {
    let key = Arc::from(format!("journald {}", settings.key()));
    let mut cursor = marks.get(&key).and_then(|mark| match serde_json::from_slice(mark) {
        Ok(Mark::Cursor(cursor)) => Some(Arc::from(cursor)),
        _ => None,
    });
    let mut backoff = Backoff::default();
    loop {
        let before = cursor.clone();
        let result = read(&settings, &maker, &mut cursor, mode, &feed, &key).await;
        let error = match result {
            Ok(Ended::Wanted) => return Ok(()),
            Ok(Ended::Itself(status)) if mode == Mode::Once && status.success() => return Ok(()),
            Ok(Ended::Itself(status)) => io::Error::other(format!("journalctl ended: {status}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warn!("there is no journalctl on this machine: the systemd journal is not read");
                return Ok(());
            }
            Err(error) => error,
        };
        if mode == Mode::Once {
            return Err(AgentError::Source { name: "the systemd journal".into(), source: error });
        }
        if before != cursor {
            backoff.reset();
        }
        let wait: Duration = backoff.next_wait();
        warn!(%error, wait_ms = wait.as_millis(), "the systemd journal can't be read; trying again");
        sleep(wait).await;
    }
}

enum Ended {
    /// Nobody takes records any more.
    Wanted,
    Itself(std::process::ExitStatus),
}

async fn read(
    settings: &JournaldSettings,
    maker: &Maker,
    cursor: &mut Option<Arc<str>>,
    mode: Mode,
    feed: &Feed,
    key: &Arc<str>,
) -> io::Result<Ended> {
    let mut command = Command::new("journalctl");
    // --all: without it, fields over 4,096 bytes are left out.
    command.args(["--output=json", "--all", "--no-pager", "--quiet"]);
    if mode == Mode::Follow {
        command.args(["--follow", "--no-tail"]);
    }
    command.args(settings.units.iter().map(|unit| format!("--unit={unit}")));
    if let Some(cursor) = cursor {
        command.arg(format!("--after-cursor={cursor}"));
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    info!(units = settings.key(), "reading the systemd journal");
    let mut output = child.stdout.take().ok_or_else(|| io::Error::other("journalctl has no output"))?;
    let mut splitter = Splitter::new(ENTRY_MAX_BYTES, 0);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        buffer.reserve(READ_BYTES);
        if output.read_buf(&mut buffer).await? == 0 {
            return child.wait().await.map(Ended::Itself);
        }
        splitter.push(&buffer);
        let observed = unix_nanos();
        let mut items = Vec::new();
        while let Some(piece) = splitter.next_piece() {
            records(maker, piece, observed, cursor, &mut items);
        }
        for chunk in Chunk::cut(key, items) {
            if !feed.hand_over(chunk).await {
                return Ok(Ended::Wanted);
            }
        }
    }
}

/// The fields that are used. Each may be a string, an array (of bytes, or of several values) or null.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    realtime_us: Value,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "_HOSTNAME", default)]
    host: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Value,
    #[serde(rename = "_PID", default)]
    process_id: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
    #[serde(rename = "_SYSTEMD_UNIT", default)]
    unit: Value,
}

/// Makes records of one line of journalctl's output. A line that is not understood is sent as it is.
fn records(
    maker: &Maker,
    line: Piece,
    observed: u64,
    cursor: &mut Option<Arc<str>>,
    items: &mut Vec<(Record, Option<Mark>)>,
) {
    let entry = if line.fragment.is_none() { serde_json::from_slice::<Entry>(&line.bytes).ok() } else { None };
    let before = cursor.clone();
    let mut push = |pieces: Vec<Piece>, stamp: Stamp<'_>, after: Option<&Arc<str>>| {
        let count = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            // An entry counts as read with its last piece.
            let place = if index + 1 == count { after } else { before.as_ref() };
            let mark = place.map(|place| Mark::Cursor(place.to_string()));
            items.push((maker.message(piece, stamp, observed), mark));
        }
    };
    let Some(entry) = entry else {
        push(split_message(&line.bytes), Stamp::default(), before.as_ref());
        return;
    };
    let after = Arc::from(entry.cursor.as_str());
    let stamp = Stamp {
        event_time_unix_nano: number::<u64>(&entry.realtime_us).unwrap_or_default().saturating_mul(1_000),
        priority: number::<u8>(&entry.priority).filter(|priority| *priority <= 7),
        program: entry.identifier.as_str().unwrap_or_default(),
        process_id: number(&entry.process_id).unwrap_or_default(),
        host: entry.host.as_str().unwrap_or_default(),
        stream: entry.unit.as_str().unwrap_or_default(),
    };
    let message = message_bytes(&entry.message).unwrap_or(line.bytes);
    push(split_message(&message), stamp, Some(&after));
    *cursor = Some(after);
}

fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// The message, if it has the form of one: text, or an array of bytes.
fn message_bytes(value: &Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Value::Array(bytes) => bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sigillo_proto::record::Fields;

    use super::*;
    use crate::scrub::Scrubber;

    fn read(line: &str) -> (Vec<Fields>, Option<Arc<str>>) {
        let scrubber = Arc::new(Scrubber::new(&[]).unwrap());
        let maker = Maker::new("ours", "", scrubber);
        let (mut cursor, mut items) = (None, Vec::new());
        let bytes = Bytes::copy_from_slice(line.as_bytes());
        records(&maker, Piece { consumed: 0, bytes, fragment: None }, 5, &mut cursor, &mut items);
        (items.iter().map(|item| Fields::decode(item.0.as_ref())).collect(), cursor)
    }

    #[test]
    fn entries_become_records() {
        let (records, cursor) = read(
            r#"{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1795435200000001","MESSAGE":"hello","_HOSTNAME":"web-1",
            "SYSLOG_IDENTIFIER":"sshd","_PID":"42","PRIORITY":"3","_SYSTEMD_UNIT":"ssh.service","_UID":null}"#,
        );
        let core = records[0].core.clone().unwrap();
        assert_eq!(core.event_time_unix_nano, 1_795_435_200_000_001_000);
        assert_eq!((core.host.as_str(), core.program.as_str(), core.stream.as_str()), ("web-1", "sshd", "ssh.service"));
        assert_eq!((core.process_id, core.severity_number, core.observed_time_unix_nano), (42, 17, 5));
        assert_eq!(records[0].content.as_ref().unwrap().original, "hello");
        assert_eq!(cursor.as_deref(), Some("s=1;i=2"));
    }

    #[test]
    fn messages_of_bytes_are_kept_and_odd_entries_sent_as_they_are() {
        let (records, _) = read(r#"{"__CURSOR":"c","MESSAGE":[104,255,0]}"#);
        assert_eq!(*records[0].content.as_ref().unwrap().original, [104, 255, 0]);
        assert_eq!(records[0].core.as_ref().unwrap().host, "ours");
        for odd in [r#"{"__CURSOR":"c","MESSAGE":[300]}"#, r#"{"MESSAGE":"x"}"#, "not JSON"] {
            let (records, _) = read(odd);
            assert_eq!(*records[0].content.as_ref().unwrap().original, *odd.as_bytes());
        }
    }

    #[test]
    fn long_messages_are_split() {
        let (records, _) = read(&format!(r#"{{"__CURSOR":"c","MESSAGE":"{}"}}"#, "x".repeat(300 << 10)));
        let fragments: Vec<_> = records.iter().map(|r| r.content.as_ref().unwrap().fragment.unwrap().last).collect();
        assert_eq!(fragments, [false, true]);
    }
}
