//! A witness over HTTP that does what a test wants: cosigns as the protocol says, lies, stalls, or answers too much.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sigillo_model::{
    add_checkpoint::AddCheckpoint,
    checkpoint::Checkpoint,
    ids::NodeHash,
    note::{KeyKind, SigningKey},
    proof, tree,
};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As the protocol says.
    Honest,
    /// Signs another text.
    BadSignature,
    /// Says that it knows another root at the size that it was told.
    OtherRoot,
    /// Says that it knows a size that was never signed.
    Ahead,
    /// Names a lower size each time.
    Restless,
    /// Cosigns an hour from now.
    Future,
    /// Takes the request and says nothing.
    Stall,
    /// Answers without end.
    Megabytes,
    /// Is not there.
    Down,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    size: u64,
    root: NodeHash,
    /// What it cosigned: the root at each size.
    cosigned: BTreeMap<u64, NodeHash>,
    requests: u64,
}

/// A witness.
#[derive(Debug)]
pub(crate) struct Witness {
    key: SigningKey,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Witness {
    pub(crate) async fn start(seed: u8, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = SigningKey::from_seed(&format!("witness{seed}.example"), KeyKind::Cosigner, &[seed; 32]).unwrap();
        let state = State { manner, size: 0, root: tree::empty(), cosigned: BTreeMap::new(), requests: 0 };
        let state = Arc::new(Mutex::new(state));
        let (serving_key, serving_state) = (key.clone(), Arc::clone(&state));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if serving_state.lock().unwrap().manner == Manner::Down {
                    continue;
                }
                let (key, state) = (serving_key.clone(), Arc::clone(&serving_state));
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let (key, state) = (key.clone(), Arc::clone(&state));
                        async move { Ok::<_, Infallible>(answer(request, &key, &state).await) }
                    });
                    // The other side may go away.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { key, address, state, serving }
    }

    /// Its line in a trust file.
    pub(crate) fn line(&self, name: &str) -> String {
        format!("witness {name} {} http://{}/w\n", self.key.verifier(), self.address)
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
    }

    pub(crate) fn size(&self) -> u64 {
        self.state.lock().unwrap().size
    }

    pub(crate) fn requests(&self) -> u64 {
        self.state.lock().unwrap().requests
    }

    pub(crate) fn cosigned(&self) -> BTreeMap<u64, NodeHash> {
        self.state.lock().unwrap().cosigned.clone()
    }
}

async fn answer(request: Request<Incoming>, key: &SigningKey, state: &Mutex<State>) -> Response<Full<Bytes>> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/w/add-checkpoint"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let manner = {
        let mut state = state.lock().unwrap();
        state.requests += 1;
        state.manner
    };
    match manner {
        Manner::Stall => sleep(Duration::from_secs(3_600)).await,
        Manner::Megabytes => return Response::new(Full::new(vec![b'x'; 5 << 20].into())),
        _ => {}
    }
    let mut state = state.lock().unwrap();
    let AddCheckpoint { old_size: old, proof, checkpoint: note } = AddCheckpoint::parse(&body).unwrap();
    let checkpoint = Checkpoint::parse_own(note.text()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    match manner {
        Manner::BadSignature => return cosignature(&key.cosign("another text\n", now).unwrap().to_string()),
        Manner::OtherRoot => return conflict(old),
        Manner::Ahead => return conflict(checkpoint.size + 1_000),
        Manner::Restless => return conflict(old.wrapping_sub(1).min(checkpoint.size)),
        _ => {}
    }
    if old != state.size {
        return conflict(state.size);
    }
    if old == checkpoint.size && checkpoint.root != state.root {
        return conflict(state.size);
    }
    if proof::verify_consistency(old, &state.root, checkpoint.size, &checkpoint.root, &proof).is_err() {
        return told(422, "text/plain", "another history");
    }
    (state.size, state.root) = (checkpoint.size, checkpoint.root);
    let before = state.cosigned.insert(checkpoint.size, checkpoint.root);
    assert!(before.is_none_or(|root| root == checkpoint.root));
    let time = if manner == Manner::Future { now + 3_600 } else { now };
    cosignature(&key.cosign(note.text(), time).unwrap().to_string())
}

fn conflict(size: u64) -> Response<Full<Bytes>> {
    told(409, "text/x.tlog.size", &format!("{size}\n"))
}

fn cosignature(line: &str) -> Response<Full<Bytes>> {
    told(200, "text/plain", line)
}

fn told(status: u16, kind: &str, text: &str) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    Response::builder().status(status).header("content-type", kind).body(body).unwrap()
}
