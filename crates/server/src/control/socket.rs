//! The control socket: where it lies, who gets in, and its end with the server.

use std::{
    convert::Infallible,
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sigillo_proto::v1::control_server::ControlServer;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Service;

use super::{Caller, ControlService};

/// Name of the socket in the data folder.
const NAME: &str = "control.sock";
/// Connections at a time: people and their timers.
const CONNECTIONS: usize = 16;
/// Orders are short.
const REQUEST_MAX_BYTES: usize = 1 << 20;
const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// Bytes of the longest path that a socket's address holds.
const ADDRESS_MAX_BYTES: usize = 107;

/// The socket, listened on. Its file goes with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens in the data folder, which this process has locked: a socket there is one that an earlier server left.
    pub(crate) fn bind(data_dir: &Path) -> io::Result<Self> {
        let new = data_dir.join("control.sock.new");
        let path = data_dir.join(NAME);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_short(&new, |address| UnixListener::bind(address))?;
        // Nobody finds it before only its owner may use it.
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        fs::rename(&new, &path)?;
        Ok(Self { listener, path })
    }

    /// Serves until the server stops.
    pub(crate) async fn serve(self, service: ControlService, closing: CancellationToken) {
        let service = ControlServer::new(service).max_decoding_message_size(REQUEST_MAX_BYTES);
        let routes = Routes::new(service).prepare();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = closing.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let caller = match accepted {
                Ok((stream, _)) => Caller::accept(&stream).map(|caller| (stream, caller)),
                Err(error) => Err(error.to_string()),
            };
            let (stream, caller) = match caller {
                Ok(accepted) => accepted,
                Err(problem) => {
                    tracing::warn!(problem, "a connection to the control socket was closed");
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                tracing::warn!("too many connections to the control socket: closed at once");
                continue;
            };
            let (routes, closing) = (routes.clone(), closing.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = serve_http(stream, caller, routes) => {}
                }
                drop(permit);
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A file that stays is replaced by the next server.
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_http(stream: UnixStream, caller: Caller, routes: Routes) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        let mut routes = routes.clone();
        async move { Ok::<_, Infallible>(routes.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).max_header_list_size(HEADERS_MAX_BYTES);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the control socket broke");
    }
}

/// Connects to the server that runs on this data folder.
pub(crate) async fn reach(data_dir: &Path) -> io::Result<UnixStream> {
    let path = data_dir.join(NAME);
    // Kept until the connection stands: the address may go through it.
    let (_folder, address) = short(&path)?;
    UnixStream::connect(address).await
}

fn with_short<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (_folder, address) = short(path)?;
    act(&address)
}

/// The path as an address that is short enough: by way of its folder, opened, if need be.
fn short(path: &Path) -> io::Result<(Option<File>, PathBuf)> {
    let (Some(folder), Some(name), true) =
        (path.parent(), path.file_name(), path.as_os_str().len() > ADDRESS_MAX_BYTES)
    else {
        return Ok((None, path.to_owned()));
    };
    let folder = File::open(folder)?;
    let address = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((Some(folder), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_for_its_owner_and_works_in_deep_folders() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join(NAME), "left by an earlier server").unwrap();
        let socket = ControlSocket::bind(&deep).unwrap();
        assert_eq!(fs::metadata(deep.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        let (reached, accepted) = tokio::join!(reach(&deep), socket.listener.accept());
        reached.unwrap();
        assert_eq!(Caller::accept(&accepted.unwrap().0), Ok(Caller::own()));
        drop(socket);
        assert!(!deep.join(NAME).exists());
    }
}
