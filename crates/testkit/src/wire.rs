//! A wire between two processes of this machine, over which TCP connections go, and which can be cut, stalled and slowed down.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

const CHUNK_BYTES: usize = 64 << 10;
/// Longest wait for the far end to take a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Everything.
    Open,
    /// Nothing; connections stay.
    Stalled,
    /// Only what goes to the far end: it works on, and nobody hears of it.
    StalledBack,
    /// Nothing; connections end, and new ones end at once.
    Cut,
}

/// A wire. Connections to [`Wire::address`] go on to wherever it leads. Ends when dropped.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: AbortHandle,
}

#[derive(Debug, Clone, Copy)]
struct State {
    to: Option<SocketAddr>,
    flow: Flow,
    delay: Duration,
}

impl Wire {
    /// A wire on a free port of loopback that leads nowhere yet.
    pub async fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(State { to: None, flow: Flow::Open, delay: Duration::ZERO });
        let task = tokio::spawn(accept(listener, watched)).abort_handle();
        Ok(Self { address, state, task })
    }

    /// Its near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections there.
    pub fn lead_to(&self, to: SocketAddr) {
        self.state.send_modify(|state| state.to = Some(to));
    }

    /// Says what moves from now on.
    pub fn set(&self, flow: Flow) {
        self.state.send_modify(|state| state.flow = flow);
    }

    /// Lets each piece of at most 64 KiB wait for so long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((near, _)) = accepted {
                connections.spawn(connection(near, state.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(near: TcpStream, mut state: watch::Receiver<State>) {
    let mut watched = state.clone();
    let carry = async {
        wait_until(&mut state, |flow| flow == Flow::Open).await?;
        let to = state.borrow().to?;
        let far = timeout(CONNECT_MAX, TcpStream::connect(to)).await.ok()?.ok()?;
        near.set_nodelay(true).and(far.set_nodelay(true)).ok()?;
        let ((near_from, near_to), (far_from, far_to)) = (near.into_split(), far.into_split());
        let out = pump(near_from, far_to, state.clone(), |flow| matches!(flow, Flow::Open | Flow::StalledBack));
        let back = pump(far_from, near_to, state.clone(), |flow| flow == Flow::Open);
        tokio::join!(out, back);
        Some(())
    };
    tokio::select! {
        _ = carry => {}
        _ = wait_until(&mut watched, |flow| flow == Flow::Cut) => {}
    }
}

/// Carries bytes one way until their end, and the end.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    moves: impl Fn(Flow) -> bool + Copy,
) {
    let mut bytes = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if wait_until(&mut state, moves).await.is_none() {
            return;
        }
        let delay = state.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if to.write_all(bytes.get(..length).unwrap_or_default()).await.is_err() {
            return;
        }
    }
    // The far side may have gone, which is as well.
    let _ = to.shutdown().await;
}

/// `None` when the wire is gone.
async fn wait_until(state: &mut watch::Receiver<State>, wanted: impl Fn(Flow) -> bool) -> Option<()> {
    state.wait_for(|state| wanted(state.flow)).await.ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream) -> Option<u8> {
        stream.write_all(&[7]).await.ok()?;
        let mut answer = [0];
        timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await.ok()?.ok()?;
        Some(answer[0])
    }

    #[tokio::test]
    async fn a_wire_is_cut_stalled_and_mended() {
        let wire = Wire::new().await.unwrap();
        wire.lead_to(echo().await);
        let mut stream = TcpStream::connect(wire.address()).await.unwrap();
        assert_eq!(ask(&mut stream).await, Some(7));
        for flow in [Flow::Stalled, Flow::StalledBack] {
            wire.set(flow);
            assert_eq!(ask(&mut stream).await, None);
            wire.set(Flow::Open);
            let mut late = [0];
            stream.read_exact(&mut late).await.unwrap();
            assert_eq!(late, [7], "{flow:?} only holds back");
        }
        wire.set(Flow::Cut);
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "the connection has ended");
        let mut refused = TcpStream::connect(wire.address()).await.unwrap();
        assert_eq!(ask(&mut refused).await, None);
        wire.set(Flow::Open);
        let mut stream = TcpStream::connect(wire.address()).await.unwrap();
        assert_eq!(ask(&mut stream).await, Some(7));
    }
}
