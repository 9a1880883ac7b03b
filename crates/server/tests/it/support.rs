//! A server in this process, and clients that say exactly what a test wants said.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use sigillo_model::{
    batch::{Batch, epoch_opening},
    block::BlockBuilder,
    ids::{BatchHash, BatchSecret, Epoch, Origin, SourceId, SourceSeq},
    record::Record,
};
use sigillo_proto::{
    record::Fields,
    v1::{
        self, AppendRequest, AppendResponse, append_request::Message as Request, append_response::Message as Answer,
        audit_client::AuditClient, ingest_client::IngestClient, log_client::LogClient, query_client::QueryClient,
        search_response, sources_client::SourcesClient,
    },
};
use sigillo_server::{
    Controls, Listeners, ServerError,
    clock::Clock,
    config::{Config, Settings},
    dev, run,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Nothing takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const ORIGIN: &str = "localhost/sigillo-dev";

/// A running server in a directory of its own, with the certificates of `--dev`.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) published: Option<SocketAddr>,
    pub(crate) controls: Controls,
    running: Running,
}

/// The server's task. Who drops it without waiting for its end leaves a database open behind the test, whose threads may outlive the
/// test program's statics.
struct Running(Option<JoinHandle<Result<(), ServerError>>>);

impl Running {
    async fn ended(mut self) -> Result<(), ServerError> {
        let task = self.0.take().expect("waited for once");
        timeout(SOON, task).await.expect("the server ends").unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        assert!(self.0.is_none() || thread::panicking(), "end with `server.stop().await`");
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(edit: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), edit, Clock::default()).await
    }

    pub(crate) async fn start_in(dir: TempDir, edit: impl FnOnce(&mut Config), clock: Clock) -> Self {
        let settings = configure(dir.path(), edit);
        let listeners = Listeners::bind(&settings).await.unwrap();
        let (address, metrics) = (listeners.grpc().unwrap(), listeners.metrics().unwrap());
        let published = listeners.publish().unwrap();
        let controls = Controls::default();
        let running = Running(Some(tokio::spawn(run(settings, listeners, clock, controls.clone()))));
        Self { dir, address, metrics, published, controls, running }
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(self) -> TempDir {
        self.controls.shutdown.cancel();
        self.running.ended().await.unwrap();
        self.dir
    }

    /// Waits for a server that ends by itself.
    pub(crate) async fn fails(self) -> ServerError {
        self.running.ended().await.unwrap_err()
    }

    /// The same; gives the directory back, in place of an empty one.
    pub(crate) async fn fails_in(self, dir: &mut TempDir) -> String {
        let error = self.running.ended().await.unwrap_err();
        *dir = self.dir;
        error.to_string()
    }

    pub(crate) async fn channel(&self, name: &str) -> Channel {
        connect(self.address, self.dir.path(), Some(name)).await.unwrap()
    }

    /// A connection on which the server can send only a few answers before they are read.
    pub(crate) async fn narrow_channel(&self, name: &str) -> Channel {
        connect_within(self.address, self.dir.path(), Some(name), Some(1_024)).await.unwrap()
    }

    /// A stream that the server has welcomed.
    pub(crate) async fn append(&self, name: &str) -> Append {
        Append::open(self.channel(name).await).await.unwrap()
    }

    pub(crate) async fn query(&self) -> QueryClient<Channel> {
        QueryClient::new(self.channel("reader").await).max_decoding_message_size(usize::MAX)
    }

    pub(crate) async fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel("reader").await).max_decoding_message_size(usize::MAX)
    }

    pub(crate) async fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel("reader").await)
    }

    /// How the sources stand, by name.
    pub(crate) async fn sources(&self) -> Vec<v1::SourceStatus> {
        let mut client = SourcesClient::new(self.channel("reader").await);
        client.list(v1::ListSourcesRequest::default()).await.unwrap().into_inner().sources
    }

    /// What is served as metrics.
    pub(crate) async fn scrape(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Gets a published resource: status, head and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.published.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }

    /// All records that match, oldest first.
    pub(crate) async fn search(&self, filter: v1::Filter) -> Vec<v1::ResultRecord> {
        let request = v1::SearchRequest { filter: Some(filter), reason: "test".into(), ..Default::default() };
        results(self.query().await.search(request).await.unwrap().into_inner()).await.0
    }

    /// Records of one source.
    pub(crate) async fn of_source(&self, name: &str) -> Vec<v1::ResultRecord> {
        self.search(v1::Filter { sources: vec![name.into()], ..Default::default() }).await
    }

    /// The product's own records of one kind.
    pub(crate) async fn events(&self, name: &str) -> Vec<Fields> {
        let filter = v1::Filter { actions: vec![name.into()], classes: vec!["journal".into()], ..Default::default() };
        self.search(filter).await.iter().map(fields).collect()
    }
}

/// Certificates, configuration and settings in `dir`.
pub(crate) fn configure(dir: &Path, edit: impl FnOnce(&mut Config)) -> Settings {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = dev::prepare(dir, free, free).unwrap();
    let mut config: Config = toml::from_str(&fs::read_to_string(&settings.path).unwrap()).unwrap();
    edit(&mut config);
    write_config(dir, &config)
}

/// Writes a configuration into `dir`, where the running server reads it again.
pub(crate) fn write_config(dir: &Path, config: &Config) -> Settings {
    let path = dir.join("sigillod.toml");
    fs::write(&path, toml::to_string(config).unwrap()).unwrap();
    Settings::load(&path).unwrap()
}

/// Connects with the certificate of this name in `dir`, or with none.
pub(crate) async fn connect(address: SocketAddr, dir: &Path, name: Option<&str>) -> Result<Channel, String> {
    connect_within(address, dir, name, None).await
}

/// The same, with so many bytes of answers that may be on their way.
async fn connect_within(
    address: SocketAddr,
    dir: &Path,
    name: Option<&str>,
    window: Option<u32>,
) -> Result<Channel, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match name {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let certificate = CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: hyper::Uri| {
        std::future::ready(stream.take().ok_or_else(|| std::io::Error::other("connected once")))
    });
    let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(window);
    endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))
}

/// One stream of batches.
pub(crate) struct Append {
    pub(crate) welcome: v1::Welcome,
    pub(crate) sender: mpsc::Sender<AppendRequest>,
    pub(crate) answers: Streaming<AppendResponse>,
}

impl Append {
    pub(crate) async fn open(channel: Channel) -> Result<Self, Status> {
        Self::remembering(channel, Bytes::new()).await
    }

    /// Of a sender that remembers a checkpoint.
    pub(crate) async fn remembering(channel: Channel, checkpoint: Bytes) -> Result<Self, Status> {
        Self::saying(channel, v1::Hello { checkpoint, ..Default::default() }).await
    }

    /// Of a sender that introduces itself so; protocol and agent are filled in.
    pub(crate) async fn saying(channel: Channel, hello: v1::Hello) -> Result<Self, Status> {
        let (sender, requests) = mpsc::channel(4);
        let hello = v1::Hello { protocol: 1, agent: "test".into(), ..hello };
        sender.send(AppendRequest { message: Some(Request::Hello(hello)) }).await.unwrap();
        let mut client = IngestClient::new(channel).max_encoding_message_size(usize::MAX);
        let mut answers = client.append(ReceiverStream::new(requests)).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(Answer::Welcome(welcome)) => Ok(Self { welcome, sender, answers }),
            other => panic!("a stream begins with a welcome, not {other:?}"),
        }
    }

    pub(crate) async fn send(&self, message: Request) {
        self.sender.send(AppendRequest { message: Some(message) }).await.unwrap();
    }

    /// The next answer, or the status with which the stream ends.
    pub(crate) async fn answer(&mut self) -> Result<Option<Answer>, Status> {
        loop {
            let answer = timeout(SOON, self.answers.message()).await.expect("the server answers")?;
            match answer.and_then(|answer| answer.message) {
                // Comes at its own time; who is interested asks for it.
                Some(Answer::News(_)) => {}
                answer => return Ok(answer),
            }
        }
    }

    /// What the server tells next of checkpoints. Nothing else may be under way.
    pub(crate) async fn news(&mut self) -> v1::CheckpointNews {
        match timeout(SOON, self.answers.message()).await.expect("news").unwrap().and_then(|answer| answer.message) {
            Some(Answer::News(news)) => news,
            other => panic!("no news but {other:?}"),
        }
    }

    /// Sends a batch and returns its receipt.
    pub(crate) async fn receipt(&mut self, batch: v1::Batch) -> v1::Receipt {
        self.send(Request::Batch(batch)).await;
        match self.answer().await {
            Ok(Some(Answer::Ack(ack))) => ack.receipt.unwrap(),
            other => panic!("no receipt but {other:?}"),
        }
    }

    /// Sends a batch that is refused, and returns why; the stream ends with it.
    pub(crate) async fn refusal(mut self, batch: v1::Batch) -> v1::Refusal {
        self.send(Request::Batch(batch)).await;
        let refusal = match self.answer().await {
            Ok(Some(Answer::Refusal(refusal))) => refusal,
            other => panic!("no refusal but {other:?}"),
        };
        assert!(self.answer().await.is_err(), "the stream ends after a refusal");
        refusal
    }
}

/// A source's chain of batches.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) source: SourceId,
    pub(crate) epoch: Epoch,
    pub(crate) next: SourceSeq,
    pub(crate) head: BatchHash,
}

impl Chain {
    /// The first epoch of a source that the journal has never seen.
    pub(crate) fn new(source: &str) -> Self {
        Self::epoch(source, 1, None)
    }

    pub(crate) fn epoch(source: &str, epoch: u64, before: Option<BatchHash>) -> Self {
        let (source, epoch) = (SourceId::from_name(source), Epoch::new(epoch));
        let head = epoch_opening(&Origin::new(ORIGIN).unwrap(), source, epoch, before);
        Self { source, epoch, next: SourceSeq::new(0), head }
    }

    pub(crate) fn seal(&mut self, records: &[Record]) -> v1::Batch {
        let mut builder = BlockBuilder::default();
        for record in records {
            builder.push(record.as_ref()).unwrap();
        }
        let secret = BatchSecret::new([7; 32]);
        let batch = Batch::seal(&mut builder, self.source, self.epoch, self.next, self.head, secret, 1).unwrap();
        (self.next, self.head) = (batch.end(), batch.hash);
        v1::Batch::from(&batch)
    }
}

/// A record with these words in its body.
pub(crate) fn line(text: &str) -> Record {
    with_core(text, v1::CorePart::default())
}

pub(crate) fn with_core(text: &str, core: v1::CorePart) -> Record {
    let body = v1::AnyValue { value: Some(v1::any_value::Value::StringValue(text.into())) };
    let content = v1::ContentPart { body: Some(body), ..Default::default() };
    Fields { core: Some(core), content: Some(content), ..Fields::default() }.encode()
}

/// The records of an answer, and its end if it came.
pub(crate) async fn results(mut answers: Streaming<v1::SearchResponse>) -> (Vec<v1::ResultRecord>, Option<v1::Done>) {
    let mut records = Vec::new();
    while let Some(answer) = timeout(SOON, answers.message()).await.expect("an answer").unwrap() {
        match answer.message {
            Some(search_response::Message::Record(record)) => records.push(record),
            Some(search_response::Message::Done(done)) => return (records, Some(done)),
            _ => {}
        }
    }
    (records, None)
}

/// What a result says.
pub(crate) fn fields(result: &v1::ResultRecord) -> Fields {
    let record =
        Record { core: result.core.clone(), personal: result.personal.clone(), content: result.content.clone() };
    Fields::decode(record.as_ref())
}

/// The words in the body.
pub(crate) fn body(result: &v1::ResultRecord) -> String {
    match fields(result).content.and_then(|content| content.body?.value) {
        Some(v1::any_value::Value::StringValue(text)) => text,
        other => panic!("no text: {other:?}"),
    }
}

/// An attribute of an own record, as text.
pub(crate) fn attribute(fields: &Fields, key: &str) -> String {
    let content = fields.content.as_ref().unwrap();
    let attribute = content.attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.clone()?.value) {
        Some(v1::any_value::Value::StringValue(text)) => text,
        Some(v1::any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

/// Bytes that don't compress.
pub(crate) fn noise(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes.into()
}
