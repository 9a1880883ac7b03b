//! A Unix socket for programs of this machine: JSON lines, each answered once it would survive a loss of power. SOCKET.md says how it
//! is used.

mod act;
mod connection;
mod settings;

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::sleep,
};
use tracing::{info, warn};

pub use settings::SocketSettings;

use crate::{
    AgentError,
    record::Maker,
    run::Mode,
    source::{Feed, Meter},
};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Wait after a connection could not be taken: mostly no file descriptor is left.
const RETRY: Duration = Duration::from_secs(1);

/// Wait after the socket could not be made: its folder or its owner may come later.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

/// What all connections have in common.
struct Shared {
    settings: SocketSettings,
    key: Arc<str>,
    maker: Maker,
    feed: Feed,
    meter: Arc<Meter>,
}

/// Serves the socket for ever; of what is there now there is nothing.
pub(crate) async fn follow(
    settings: SocketSettings,
    maker: Maker,
    mode: Mode,
    feed: Feed,
    meter: Arc<Meter>,
) -> Result<(), AgentError> {
    if mode == Mode::Once {
        return Ok(());
    }
    let path = settings.path.clone();
    let (listener, _file) = loop {
        match listen(&settings) {
            Ok(offered) => break offered,
            Err(error) => {
                let error = format!("{}: {error}", path.display());
                if meter.error().as_deref() != Some(&error) {
                    warn!(error, "the socket can't be offered; trying again");
                }
                meter.set_error(Some(error));
                sleep(LISTEN_AGAIN).await;
            }
        }
    };
    meter.set_error(None);
    info!(path = %path.display(), "listening for programs of this machine");
    let key = Arc::from(format!("socket {}", path.display()));
    let shared = Arc::new(Shared { settings, key, maker, feed, meter });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                shared.meter.set_error(None);
                connections.spawn(connection::serve(stream, Arc::clone(&shared)));
            }
            Ok((stream, _)) => refuse(stream),
            Err(error) => {
                warn!(%error, path = %path.display(), "a connection can't be taken; trying again");
                shared.meter.set_error(Some(error.to_string()));
                sleep(RETRY).await;
            }
        }
    }
}

/// Says why; in as far as the kernel takes it at once.
fn refuse(mut stream: UnixStream) {
    warn!(connections = CONNECTIONS_MAX, "too many connections; one more was refused");
    let answer =
        format!("{{\"ok\":false,\"error\":\"the agent has {CONNECTIONS_MAX} connections already: close some\"}}\n");
    tokio::spawn(async move { stream.write_all(answer.as_bytes()).await });
}

/// The socket's file, removed with this if it is still ours.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // What is left is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket under another name, gives it its owner and mode, and only then its name: nobody else gets in between.
fn listen(settings: &SocketSettings) -> io::Result<(UnixListener, SocketFile)> {
    let path = &settings.path;
    check_free(path)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    match give(settings, &new).and_then(|()| fs::rename(&new, path)) {
        Ok(()) => Ok((listener, SocketFile { path: path.clone(), inode: inode(path)? })),
        Err(error) => {
            let _ = fs::remove_file(&new);
            Err(error)
        }
    }
}

/// Gives the socket to those who may use it.
fn give(settings: &SocketSettings, new: &Path) -> io::Result<()> {
    let (user, group) = settings.owner().map_err(io::Error::other)?;
    if user.is_some() || group.is_some() {
        chown(new, user, group).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => io::Error::new(
                error.kind(),
                "it can't be given to its `user` or `group`: let the agent be in that group (SupplementaryGroups= in its unit), or grant CAP_CHOWN",
            ),
            _ => error,
        })?;
    }
    fs::set_permissions(new, fs::Permissions::from_mode(settings.mode))
}

/// What stands under the name may be replaced only if it is a socket at which nobody listens.
fn check_free(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("there is something else than a socket: remove it, or choose another path"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there: stop it, or choose another path",
        )),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests;
