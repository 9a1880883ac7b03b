//! The other end of the control socket.

use std::{io, path::Path, sync::Mutex};

use hyper_util::rt::TokioIo;
use sigillo_proto::v1::control_client::ControlClient;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::Failure;
use crate::control::reach;

/// Runs a command that talks with the server.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Unreadable(format!("starting the runtime: {error}")))?.block_on(command)
}

/// Connects to the server that runs on this data folder.
pub(super) async fn connect(data_dir: &Path) -> Result<ControlClient<Channel>, Failure> {
    let stream = reach(data_dir).await.map_err(|error| unreachable(data_dir, &error))?;
    // Used once: nothing reconnects unasked.
    let stream = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection was lost");
        std::future::ready(stream.map(TokioIo::new).ok_or_else(gone))
    });
    // The address is not used: the connection stands.
    let channel = Endpoint::from_static("http://control.invalid").connect_with_connector(connector).await;
    let closed = |_| {
        Failure::Unreadable(
            "the server closed the connection: only root and the server's own account give orders; its log says more"
                .to_owned(),
        )
    };
    channel.map(ControlClient::new).map_err(closed)
}

fn unreachable(data_dir: &Path, error: &io::Error) -> Failure {
    let dir = data_dir.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Unreadable(format!(
            "no server runs on {dir}: start it, or name the configuration of the one that runs"
        )),
        io::ErrorKind::PermissionDenied => Failure::Refused(format!(
            "{dir}/control.sock may be used by root and the server's own account only: try sudo"
        )),
        _ => Failure::Unreadable(format!("{dir}/control.sock: {error}")),
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::DataLoss => Self::Altered(message),
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused(message),
            _ => Self::Unreadable(message),
        }
    }
}
