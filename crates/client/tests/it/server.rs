//! A server of `Ingest` that checks every batch as a journal does, and misbehaves as it is told.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use sigillo_client::Endpoint;
use sigillo_model::{
    batch::{Batch, commitments, epoch_opening},
    block::Inflater,
    checkpoint::Checkpoint,
    head::SignedHead,
    ids::{BatchHash, Epoch, Origin, SourceId, SourceSeq},
    note::Note,
};
use sigillo_proto::v1::{
    self, RefusalKind, append_request, append_response,
    ingest_server::{Ingest, IngestServer},
    log_server::{Log, LogServer},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::journal::Tree;

pub(crate) const ORIGIN: &str = "journal.test/1";

/// What the server does with the next batch that arrives. Afterwards, and when there is nothing more, it takes them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Takes it and acknowledges it.
    Take,
    /// Ends the stream before it is durable.
    Lose,
    /// Makes it durable and ends the stream before the ack.
    TakeSilently,
    /// Drops it, and asks to wait.
    Throttle { wait_ms: u32 },
    /// Drops it, asks to wait, and ends the stream with an error, as a journal does that is overloaded.
    ThrottleAndEnd { wait_ms: u32 },
    /// Takes it, and says that it will stop.
    Drain { reconnect_ms: u32 },
    /// Refuses it.
    Refuse(RefusalKind),
    /// Another batch of the source, from an earlier life of it, becomes durable just before; this one then does not fit.
    Overtaken,
}

/// What the journal knows of its one source, and all that ever arrived.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) script: VecDeque<Act>,
    pub(crate) credit_bytes: u64,
    pub(crate) epoch: Epoch,
    pub(crate) next: SourceSeq,
    pub(crate) head: Option<BatchHash>,
    /// Texts of the durable records, in order.
    pub(crate) durable: Vec<Vec<u8>>,
    /// Every batch that arrived, as it was sent.
    pub(crate) arrived: Vec<v1::Batch>,
    pub(crate) hellos: Vec<v1::Hello>,
    receipts: Vec<v1::Receipt>,
    /// What is shown in a welcome: a checkpoint, and a proof from what the sender remembers.
    pub(crate) shown: Tree,
    /// Told after the next batch that is taken.
    pub(crate) news: Option<v1::CheckpointNews>,
    /// What is shown to whoever asks whether a record is there.
    pub(crate) inclusion: Option<v1::Proof>,
    /// What becomes of a receipt before it is sent.
    pub(crate) sign: fn(&mut v1::Receipt),
    /// The class of the source.
    pub(crate) class: &'static str,
    /// The key that must sign the next head, the newest head's time, and all heads and keys that were taken.
    pub(crate) head_key: Vec<u8>,
    pub(crate) head_time: u64,
    pub(crate) heads: Vec<SignedHead>,
    pub(crate) keys: Vec<v1::HeadKey>,
    /// What the goodbyes said.
    pub(crate) goodbyes: Vec<String>,
    pub(crate) heartbeats: Vec<v1::Heartbeat>,
    /// State after the last batch of the present stream.
    stream: (Epoch, SourceSeq, Option<BatchHash>),
    /// The journal's name.
    pub(crate) origin: &'static str,
}

pub(crate) struct TestServer {
    pub(crate) endpoint: Endpoint,
    pub(crate) dir: TempDir,
    shared: Arc<Mutex<Shared>>,
    _accepting: JoinSet<()>,
}

impl TestServer {
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tls = certificates(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = |name| dir.path().join(name);
        let endpoint = Endpoint {
            url: format!("https://{}", listener.local_addr().unwrap()),
            ca: path("ca.pem"),
            cert: path("client.pem"),
            key: path("client.key"),
            name: Some("localhost".into()),
            trust: None,
            remember: None,
        };
        let shared = Arc::new(Mutex::new(Shared {
            script: script.into_iter().collect(),
            credit_bytes: 1 << 20,
            epoch: Epoch::new(0),
            next: SourceSeq::new(0),
            head: None,
            durable: Vec::new(),
            arrived: Vec::new(),
            hellos: Vec::new(),
            receipts: Vec::new(),
            shown: Tree::default(),
            news: None,
            inclusion: None,
            sign: |_| {},
            class: "service",
            head_key: Vec::new(),
            head_time: 0,
            heads: Vec::new(),
            keys: Vec::new(),
            goodbyes: Vec::new(),
            heartbeats: Vec::new(),
            stream: (Epoch::new(0), SourceSeq::new(0), None),
            origin: ORIGIN,
        }));
        let ingest = IngestServer::new(Journal(Arc::clone(&shared))).max_decoding_message_size(16 << 20);
        let log = LogServer::new(Journal(Arc::clone(&shared)));
        let service = TowerToHyperService::new(Routes::new(ingest).add_service(log).prepare());
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, service) = (tls.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { endpoint, dir, shared, _accepting: accepting }
    }

    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}

fn certificates(dir: &Path) -> TlsAcceptor {
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, key()).unwrap();
    fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    for (name, usage) in
        [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = key();
        let certificate = params.signed_by(&key, &ca).unwrap();
        fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let certificate = |name| CertificateDer::from_pem_file(dir.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate("server.pem")],
            PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

struct Journal(Arc<Mutex<Shared>>);

#[tonic::async_trait]
impl Log for Journal {
    type WatchCheckpointsStream = Pin<Box<dyn Stream<Item = Result<v1::Checkpoint, Status>> + Send>>;

    async fn get_checkpoint(
        &self,
        _request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::Checkpoint>, Status> {
        let shown = &self.0.lock().unwrap().shown;
        if shown.size() == 0 {
            return Err(Status::not_found("none"));
        }
        Ok(Response::new(v1::Checkpoint { note: shown.note(), size: shown.size(), ..v1::Checkpoint::default() }))
    }

    async fn watch_checkpoints(
        &self,
        _request: Request<v1::WatchCheckpointsRequest>,
    ) -> Result<Response<Self::WatchCheckpointsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_inclusion(&self, _request: Request<v1::GetInclusionRequest>) -> Result<Response<v1::Proof>, Status> {
        let proof = self.0.lock().unwrap().inclusion.clone();
        proof.map(Response::new).ok_or_else(|| Status::not_found("none"))
    }

    async fn get_consistency(
        &self,
        request: Request<v1::GetConsistencyRequest>,
    ) -> Result<Response<v1::Proof>, Status> {
        let hashes = self.0.lock().unwrap().shown.consistency(request.into_inner().old_size);
        Ok(Response::new(v1::Proof { hashes, ..v1::Proof::default() }))
    }

    async fn get_tile(&self, _request: Request<v1::GetTileRequest>) -> Result<Response<v1::Tile>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// What follows an answer.
enum Then {
    GoOn,
    End,
    Fail,
}

#[tonic::async_trait]
impl Ingest for Journal {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<v1::AppendResponse, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let shared = Arc::clone(&self.0);
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let Some(message) = request.message else { return };
                let (replies, then) = shared.lock().unwrap().answer(message);
                for message in replies {
                    let _ = answers.send(Ok(v1::AppendResponse { message: Some(message) })).await;
                }
                match then {
                    Then::GoOn => {}
                    Then::End => return,
                    Then::Fail => {
                        let _ = answers.send(Err(Status::unavailable("too \u{1b}[31mmuch"))).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Shared {
    pub(crate) fn source() -> SourceId {
        SourceId::from_name("test")
    }

    /// As if nothing had ever come.
    pub(crate) fn forget_receipts(&mut self) {
        self.receipts.clear();
    }

    fn answer(&mut self, message: append_request::Message) -> (Vec<append_response::Message>, Then) {
        match message {
            append_request::Message::Hello(hello) => {
                let remembered = Note::parse(&hello.checkpoint).ok();
                let remembered = remembered.map_or(0, |note| Checkpoint::parse(note.text()).unwrap().size);
                self.hellos.push(hello);
                self.stream = (self.epoch, self.next, self.head);
                let mut welcome = self.welcome();
                if self.shown.size() > 0 {
                    welcome.checkpoint = self.shown.note();
                }
                if remembered > 0 {
                    welcome.consistency = self.shown.consistency(remembered);
                }
                (vec![append_response::Message::Welcome(welcome)], Then::GoOn)
            }
            append_request::Message::Batch(batch) => self.act(&batch),
            append_request::Message::HeadKey(key) => {
                self.head_key = key.public_key.to_vec();
                self.keys.push(key);
                (Vec::new(), Then::GoOn)
            }
            append_request::Message::Head(head) => self.take_head(&head.note),
            append_request::Message::Goodbye(goodbye) => {
                self.goodbyes.push(goodbye.reason);
                (Vec::new(), Then::GoOn)
            }
            append_request::Message::Heartbeat(heartbeat) => {
                self.heartbeats.push(heartbeat);
                (Vec::new(), Then::GoOn)
            }
        }
    }

    /// As strict as a journal.
    fn take_head(&mut self, note: &[u8]) -> (Vec<append_response::Message>, Then) {
        let (head, note) = SignedHead::parse(note).unwrap();
        if head.time_ns > self.head_time {
            let (epoch, next, hash) = self.stream;
            let says = (head.epoch, head.next, Some(head.batch_hash), head.origin.as_str(), head.source);
            assert_eq!(says, (epoch, next, hash, self.origin, Self::source()), "a head fits the batches before it");
            head.verify(&note, self.head_key.as_slice().try_into().unwrap()).unwrap();
            self.head_time = head.time_ns;
            self.head_key = head.next_key.to_vec();
            self.heads.push(head);
        }
        let ack = v1::Ack {
            epoch: self.epoch.get(),
            next_sequence: self.next.get(),
            receipt: None,
            head_time_unix_nano: self.head_time,
        };
        (vec![append_response::Message::Ack(ack)], Then::GoOn)
    }

    pub(crate) fn welcome(&self) -> v1::Welcome {
        v1::Welcome {
            origin: self.origin.into(),
            source: Self::source().as_bytes().to_vec().into(),
            epoch: self.epoch.get(),
            next_sequence: self.next.get(),
            head: self.head.map(|head| head.as_bytes().to_vec()).unwrap_or_default().into(),
            credit_bytes: self.credit_bytes,
            class: self.class.into(),
            head_key: self.head_key.clone().into(),
            head_time_unix_nano: self.head_time,
            ..v1::Welcome::default()
        }
    }

    fn act(&mut self, message: &v1::Batch) -> (Vec<append_response::Message>, Then) {
        self.arrived.push(message.clone());
        let act = self.script.pop_front().unwrap_or(Act::Take);
        if matches!(act, Act::Overtaken) {
            (self.epoch, self.next) = (Epoch::new(self.epoch.get() + 1), SourceSeq::new(1));
            self.head = Some(BatchHash::new([0xee; 32]));
        }
        match act {
            Act::Take | Act::Overtaken => match self.take(message) {
                Ok(ack) => {
                    let news = self.news.take().map(append_response::Message::News);
                    ([ack].into_iter().chain(news).collect(), Then::GoOn)
                }
                Err(refusal) => (vec![*refusal], Then::End),
            },
            Act::Lose => (Vec::new(), Then::End),
            Act::TakeSilently => {
                self.take(message).unwrap();
                (Vec::new(), Then::End)
            }
            Act::Throttle { wait_ms } => {
                let throttle = v1::Throttle { wait_ms, reason: "test".into() };
                (vec![append_response::Message::Throttle(throttle)], Then::GoOn)
            }
            Act::ThrottleAndEnd { wait_ms } => {
                let throttle = v1::Throttle { wait_ms, reason: "too \u{1b}[31mmuch".into() };
                (vec![append_response::Message::Throttle(throttle)], Then::Fail)
            }
            Act::Drain { reconnect_ms } => {
                let drain = append_response::Message::Drain(v1::Drain { reconnect_ms });
                (vec![drain, self.take(message).unwrap()], Then::End)
            }
            Act::Refuse(kind) => (vec![self.refusal(kind, message)], Then::End),
        }
    }

    fn take(&mut self, message: &v1::Batch) -> Result<append_response::Message, Box<append_response::Message>> {
        let batch = Batch::try_from(message.clone()).unwrap();
        let is_known = self.receipts.iter().any(|receipt| *receipt.batch_hash == *batch.hash.as_bytes());
        if is_known || batch.epoch == self.epoch && batch.first < self.next {
            let known = self.receipts.iter().find(|receipt| *receipt.batch_hash == *batch.hash.as_bytes());
            if known.is_some() {
                self.stream = (batch.epoch, batch.end(), Some(batch.hash));
            }
            return known.cloned().map(Self::ack).ok_or_else(|| Box::new(self.refusal(RefusalKind::Fork, message)));
        }
        let (next, previous) = if batch.epoch > self.epoch {
            let origin = Origin::new(self.origin).unwrap();
            (SourceSeq::new(0), Some(epoch_opening(&origin, Self::source(), batch.epoch, self.head)))
        } else {
            (self.next, self.head)
        };
        if batch.epoch < self.epoch {
            return Err(Box::new(self.refusal(RefusalKind::StaleEpoch, message)));
        }
        if batch.first != next {
            return Err(Box::new(self.refusal(RefusalKind::Gap, message)));
        }
        if Some(batch.previous) != previous {
            return Err(Box::new(self.refusal(RefusalKind::Fork, message)));
        }
        let mut inflater = Inflater::default();
        let block = batch.open(&mut inflater).unwrap();
        batch.check_hash(Self::source(), &commitments(&batch.secret, &block)).unwrap();
        let sequence = self.durable.len() as u64;
        self.durable.extend(block.records().map(|record| record.content.unwrap().to_vec()));
        (self.epoch, self.next, self.head) = (batch.epoch, batch.end(), Some(batch.hash));
        self.stream = (self.epoch, self.next, self.head);
        let mut receipt = v1::Receipt {
            chain_hash: vec![0xc0; 32].into(),
            epoch: batch.epoch.get(),
            first: batch.first.get(),
            count: batch.count,
            sequence,
            batch_hash: message.hash.clone(),
            ..v1::Receipt::default()
        };
        (self.sign)(&mut receipt);
        self.receipts.push(receipt.clone());
        Ok(Self::ack(receipt))
    }

    fn ack(receipt: v1::Receipt) -> append_response::Message {
        append_response::Message::Ack(v1::Ack {
            epoch: receipt.epoch,
            next_sequence: receipt.first + u64::from(receipt.count),
            receipt: Some(receipt),
            ..Default::default()
        })
    }

    fn refusal(&self, kind: RefusalKind, batch: &v1::Batch) -> append_response::Message {
        append_response::Message::Refusal(v1::Refusal {
            kind: kind.into(),
            message: "because".into(),
            epoch: batch.epoch,
            first: batch.first,
            expected_epoch: self.epoch.get(),
            expected_sequence: self.next.get(),
        })
    }
}
