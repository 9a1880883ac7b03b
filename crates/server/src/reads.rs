//! Reads are records: an opening before the first byte leaves, and a closing. A read that can't be recorded does not happen.

use std::{collections::BTreeSet, sync::Arc};

use sha2::{Digest, Sha256};
use sigillo_journal::Head;
use sigillo_model::{
    audit::Finding,
    envelope::Envelope,
    ids::TenantId,
    record::{Part, Record},
    roles::Action,
};
use sigillo_proto::v1::{self, AnyValue, ArrayValue, any_value::Value};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::Status;

use crate::{
    config::ReaderSettings,
    identity::{Identities, Peer},
    own::{Event, Own},
};

/// Longest reason, bytes.
const REASON_MAX_BYTES: usize = 4_096;
/// So many tenants are named in a closing; of more only the number is kept.
const TENANTS_NAMED: usize = 500;
/// So many are counted.
const TENANTS_COUNTED: usize = 100_000;

/// Begins reads.
#[derive(Debug)]
pub(crate) struct Reads {
    own: Own,
    identities: Arc<Identities>,
    slots: Arc<Semaphore>,
    most: usize,
}

/// How a read ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything that there was, was sent.
    Complete,
    /// As much as was asked for was sent.
    Limit,
    /// The reader went away.
    ReaderGone,
    /// The reader took nothing for too long.
    ReaderStalled,
    /// The reader may not read any more.
    StandingLost,
    /// The server stops, or the connection has become too old.
    ServerStopping,
    /// What is stored is not what was written, and where.
    Altered(Box<Finding>),
    /// The journal could not be read.
    Failed,
}

impl Ended {
    const fn name(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Limit => "limit",
            Self::ReaderGone => "reader gone",
            Self::ReaderStalled => "reader stalled",
            Self::StandingLost => "standing lost",
            Self::ServerStopping => "server stopping",
            Self::Altered(_) => "altered",
            Self::Failed => "failed",
        }
    }

    /// What the reader is told, if it is still there to be told and does not know already.
    pub(crate) fn status(&self) -> Option<Status> {
        match self {
            Self::Complete | Self::Limit | Self::ReaderGone => None,
            Self::ReaderStalled => Some(Status::deadline_exceeded("nothing was taken for too long: read faster")),
            Self::StandingLost => Some(Status::permission_denied("this reader may not read any more")),
            Self::ServerStopping => Some(Status::unavailable("the server closes this connection: connect again")),
            Self::Altered(finding) => {
                Some(Status::data_loss(format!("what is stored here is not what was written: {finding}")))
            }
            Self::Failed => Some(Status::internal("the journal could not be read; the server's log says why")),
        }
    }
}

impl Reads {
    /// Records with `own`; at most `most` reads at a time.
    pub(crate) fn new(own: Own, identities: Arc<Identities>, most: usize) -> Self {
        Self { own, identities, slots: Arc::new(Semaphore::new(most)), most }
    }

    /// Records that a read begins: who, why, what. Durable when this returns.
    pub(crate) async fn open(
        &self,
        reader: &ReaderSettings,
        peer: &Peer,
        action: Action,
        reason: &str,
        snapshot: Head,
        describe: impl FnOnce(Event) -> Event,
    ) -> Result<Read, Status> {
        if reason.len() > REASON_MAX_BYTES {
            return Err(Status::invalid_argument(format!("a reason has at most {REASON_MAX_BYTES} bytes")));
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{} reads are under way, the most there may be: try later", self.most))
        })?;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|error| {
            tracing::error!(%error, "no random numbers");
            Status::internal("the read can't be given a number")
        })?;
        let id = hex::encode(id);
        let by = (reader.name.clone(), peer.address.ip().to_string());
        let mut read = Read {
            own: self.own.clone(),
            identities: Arc::clone(&self.identities),
            action,
            by,
            snapshot_size: snapshot.size,
            matched: 0,
            scanned: 0,
            tenants: BTreeSet::new(),
            digest: Sha256::new(),
            id,
            closed: false,
            _slot: slot,
        };
        let event = describe(read.event("read.opened").outcome(v1::Outcome::Started))
            .body(format!("{} begins to {}", reader.name, action.name()))
            .text("reason", reason)
            .text("role", reader.role.name())
            .text("certificate", peer.fingerprint.to_string());
        read.own.record(event).await.map_err(|error| {
            tracing::error!(%error, reader = reader.name, "a read could not be recorded and is refused");
            // There is no opening to close.
            read.closed = true;
            Status::unavailable("the read could not be recorded, so it does not take place: try later")
        })?;
        metrics::counter!("sigillo_reads_total", "action" => action.name()).increment(1);
        Ok(read)
    }
}

/// A read under way, and the account of it.
#[derive(Debug)]
pub(crate) struct Read {
    own: Own,
    identities: Arc<Identities>,
    action: Action,
    /// Name of the reader, and its address.
    by: (String, String),
    id: String,
    snapshot_size: u64,
    /// Records (of a walk: entries' records) that were sent.
    pub(crate) matched: u64,
    /// Records that were looked at.
    pub(crate) scanned: u64,
    tenants: BTreeSet<TenantId>,
    digest: Sha256,
    /// Its closing is written, or being written.
    closed: bool,
    _slot: OwnedSemaphorePermit,
}

impl Read {
    /// The number by which this read's own records are known: their target's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Counts a record that is sent. The digest covers its envelope and, for each part, a byte that says whether it is there, its
    /// length (u64, big-endian) and its bytes.
    pub(crate) fn sends(&mut self, envelope: &Envelope, record: &Record) {
        self.matched += 1;
        self.touches(envelope.tenant);
        self.digest.update(envelope.to_bytes());
        for part in Part::ALL {
            match record.as_ref().part(part) {
                None => self.digest.update([0]),
                Some(bytes) => {
                    self.digest.update([1]);
                    self.digest.update((bytes.len() as u64).to_be_bytes());
                    self.digest.update(bytes);
                }
            }
        }
    }

    /// Counts a stored entry that is sent. The digest covers its length (u64, big-endian) and its bytes.
    pub(crate) fn sends_entry(&mut self, bytes: &[u8], records: u32, tenants: impl Iterator<Item = TenantId>) {
        self.matched += u64::from(records);
        self.scanned += u64::from(records);
        tenants.for_each(|tenant| self.touches(tenant));
        self.digest.update((bytes.len() as u64).to_be_bytes());
        self.digest.update(bytes);
    }

    /// Records how far a long read has come.
    pub(crate) async fn progress(&self) {
        self.own.note(self.account("read.progress").outcome(v1::Outcome::Started)).await;
    }

    /// Records the end.
    pub(crate) async fn close(mut self, ended: &Ended) {
        self.closed = true;
        self.own.note(self.closing(ended)).await;
    }

    fn closing(&self, ended: &Ended) -> Event {
        let outcome = match ended {
            Ended::Complete | Ended::Limit | Ended::ReaderGone => v1::Outcome::Success,
            Ended::ReaderStalled | Ended::ServerStopping | Ended::Altered(_) | Ended::Failed => v1::Outcome::Failure,
            Ended::StandingLost => v1::Outcome::Denied,
        };
        self.account("read.closed").outcome(outcome).text("ended", ended.name())
    }

    fn touches(&mut self, tenant: TenantId) {
        if self.tenants.len() < TENANTS_COUNTED {
            self.tenants.insert(tenant);
        }
    }

    fn event(&self, name: &str) -> Event {
        let (reader, address) = &self.by;
        Event::new(name)
            .target("read", &self.id)
            .actor(reader, v1::ActorKind::Staff, address, &self.id)
            .text("read", self.action.name())
            .number("snapshot_size", self.snapshot_size)
    }

    fn account(&self, name: &str) -> Event {
        let name_of = |tenant: &TenantId| {
            let name = self.identities.tenant_name(*tenant).unwrap_or_else(|| tenant.to_string());
            AnyValue { value: Some(Value::StringValue(name)) }
        };
        let named: Vec<AnyValue> = self.tenants.iter().take(TENANTS_NAMED).map(name_of).collect();
        self.event(name)
            .body(format!("{} was sent {} records", self.by.0, self.matched))
            .number("matched", self.matched)
            .number("scanned", self.scanned)
            .number("tenants_touched", self.tenants.len())
            .with("tenants", Value::ArrayValue(ArrayValue { values: named }))
            .text("results_sha256", hex::encode(self.digest.clone().finalize()))
    }
}

impl Drop for Read {
    /// A reader that goes away while the opening is being written takes the call's task with it; the opening stays.
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (own, event) = (self.own.clone(), self.closing(&Ended::ReaderGone));
            runtime.spawn(async move { own.note(event).await });
        }
    }
}
