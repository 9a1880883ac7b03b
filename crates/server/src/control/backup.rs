//! A backup on order: recorded before it begins and when it has ended, and told about meanwhile.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use sigillo_journal::{
    StoreErrorKind,
    backup::{Backup, BackupError, Progress},
    verify::VerifyError,
};
use sigillo_proto::v1::{
    self, BackupDone, BackupProgress, BackupResponse, BackupStage, backup_response::Message as Answer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Caller, Shared};
use crate::{audit::head_message, own::Event};

/// Progress is told no more often.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Answers that may wait for whoever asked.
const WAITING: usize = 8;
/// Longest path.
const PATH_MAX_BYTES: usize = 4_096;

type Answers = ReceiverStream<Result<BackupResponse, Status>>;

/// Begins a backup, once its beginning is on record.
pub(super) async fn begin(shared: Arc<Shared>, caller: Caller, to: String) -> Result<Answers, Status> {
    let path = PathBuf::from(&to);
    if !path.is_absolute() || to.len() > PATH_MAX_BYTES || to.contains(char::is_control) {
        return Err(Status::invalid_argument("give the absolute path of a folder, without control characters"));
    }
    let begun = caller
        .act("journal.backup_begun")
        .target("folder", &to)
        .body(format!("{} orders a backup to {to}", caller.name));
    let unrecorded = |error| Status::unavailable(format!("what can't be recorded is not done: {error}"));
    shared.own.record(begun).await.map_err(unrecorded)?;

    let (answers, told) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let outcome = write(Arc::clone(&shared), path, answers.clone()).await;
        shared.own.note(ended(caller.act("journal.backup_ended").target("folder", &to), &outcome)).await;
        let answer = match outcome {
            Ok(backup) => Ok(response(Answer::Done(done(&shared, &backup)))),
            Err(error) => {
                tracing::warn!(%error, to, "a backup failed");
                Err(status(&error))
            }
        };
        // Whoever asked may have gone; it is on record all the same.
        let _ = answers.send(answer).await;
    });
    Ok(ReceiverStream::new(told))
}

async fn write(
    shared: Arc<Shared>,
    to: PathBuf,
    answers: mpsc::Sender<Result<BackupResponse, Status>>,
) -> Result<Backup, BackupError> {
    let mut told: Option<Instant> = None;
    let tell = move |progress: Progress| {
        if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        told = Some(Instant::now());
        // A listener that is slow hears of the next one.
        let _ = answers.try_send(Ok(response(Answer::Progress(step(progress)))));
    };
    let working = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let backup = shared.journal.backup(&to, shared.clock.believed().get(), tell)?;
        let Backup { manifest, copied_in, linked_bytes, .. } = &backup;
        tracing::info!(
            to = %to.display(), size = manifest.size, files = manifest.files.len(), bytes = manifest.bytes(), linked_bytes,
            copied_in_ms = copied_in.as_millis(), took_ms = begun.elapsed().as_millis(), "a backup was written and verified"
        );
        Ok(backup)
    });
    working.await.unwrap_or_else(|error| Err(BackupError::Refused(format!("its task has failed: {error}"))))
}

fn step(progress: Progress) -> BackupProgress {
    let (stage, done, total) = match progress {
        Progress::Copying { bytes, total } => (BackupStage::Copying, bytes, total),
        Progress::Verifying { records, total } => (BackupStage::Verifying, records, total),
    };
    BackupProgress { stage: stage.into(), done, total }
}

fn ended(event: Event, outcome: &Result<Backup, BackupError>) -> Event {
    match outcome {
        Ok(Backup { manifest, report, .. }) => event
            .body(format!("a backup of {} records was written and verified", manifest.size))
            .number("size", manifest.size)
            .text("chain_hash", manifest.chain.to_string())
            .number("files", manifest.files.len())
            .number("bytes", manifest.bytes())
            .number("entries", report.entries),
        Err(error) => event.warning().outcome(v1::Outcome::Failure).body(format!("a backup was not written: {error}")),
    }
}

fn done(shared: &Shared, backup: &Backup) -> BackupDone {
    let Backup { manifest, report, linked_bytes, .. } = backup;
    BackupDone {
        head: Some(head_message(&shared.journal, &shared.log, report.head)),
        time_unix_nano: manifest.time_ns,
        files: u32::try_from(manifest.files.len()).unwrap_or(u32::MAX),
        bytes: manifest.bytes(),
        linked_bytes: *linked_bytes,
        entries: report.entries,
        raw_bytes: report.raw_bytes,
    }
}

fn status(error: &BackupError) -> Status {
    let message = error.to_string();
    match error {
        BackupError::Refused(_) => Status::failed_precondition(message),
        BackupError::Verify(VerifyError::Altered(_)) => Status::data_loss(message),
        BackupError::Io { error, path } => match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Status::resource_exhausted(message),
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                not_writable(path, &message)
            }
            _ => Status::internal(message),
        },
        BackupError::Store(error) if error.kind == StoreErrorKind::NoSpace => Status::resource_exhausted(message),
        BackupError::Store(_) | BackupError::Verify(VerifyError::Unreadable(_)) => Status::internal(message),
    }
}

fn not_writable(path: &Path, message: &str) -> Status {
    let folder = path.parent().unwrap_or(path).display();
    Status::failed_precondition(format!(
        "{message}. The server itself writes the backup: its account needs to write in {folder}, and a unit with \
         ProtectSystem=strict needs ReadWritePaths= for it"
    ))
}

fn response(message: Answer) -> BackupResponse {
    BackupResponse { message: Some(message) }
}
