//! The register of sources: who sends, since when, how far behind, and who has gone silent.
//!
//! [`register`] decides, with time passed in; [`keeper`] looks each second and makes known what it finds; streams tell through
//! [`Presence`]. Nothing here is evidence: what must be is a record.

mod declared;
mod file;
mod keeper;
mod listening;
mod register;
mod rhythm;
mod service;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use sigillo_model::ids::SourceId;
use sigillo_proto::v1::{self, RefusalKind};
use tonic::Code;

pub(crate) use self::{declared::Declared, keeper::Keeper, service::SourcesService};
use self::{
    listening::Listening,
    register::{Now, Register},
};
use crate::{clock::Clock, config::Settings};

/// The register of a running server.
#[derive(Debug)]
pub(crate) struct Sources {
    inner: Mutex<Inner>,
    clock: Arc<Clock>,
}

#[derive(Debug)]
struct Inner {
    listening: Listening,
    register: Register,
}

impl Sources {
    /// Goes on from what an earlier server has written. Blocks on a small file.
    pub(crate) fn open(settings: &Settings, clock: Arc<Clock>) -> Self {
        let configured = configured(settings);
        let (entries, listened) = file::read(&file::path(&settings.data_dir), &configured);
        let listening = Listening::new(listened, Instant::now());
        let mut register = Register::new(entries, listened);
        register.configure(&configured, listened);
        Self { inner: Mutex::new(Inner { listening, register }), clock }
    }

    /// Another configuration came into effect: who is no source any more is forgotten, who is new is waited for.
    pub(crate) fn configure(&self, settings: &Settings) {
        let configured = configured(settings);
        self.with(|register, now| register.configure(&configured, now.listened));
    }

    /// A source was welcomed on a new stream.
    pub(crate) fn welcome(self: &Arc<Self>, source: SourceId, hello: &v1::Hello) -> Presence {
        self.with(|register, now| register.begins(source, now, hello));
        Presence { sources: Arc::clone(self), source, busy: false }
    }

    /// What a batch declares is durable, for the first time.
    pub(crate) fn declares(&self, source: SourceId, declared: Declared) {
        if !declared.is_nothing() {
            self.with(|register, now| register.declares(source, now, declared));
        }
    }

    /// A stream of the source is ended with this. Who is only asked to come back later is not missed at once.
    pub(crate) fn ends_with(&self, source: SourceId, code: Code) {
        if code == Code::Unavailable {
            self.with(|register, now| register.sends_away(source, now));
        }
    }

    /// Something of a source was refused.
    pub(crate) fn refused(&self, source: SourceId, kind: RefusalKind) {
        metrics::counter!("sigillo_ingest_refusals_total", "kind" => kind.as_str_name()).increment(1);
        self.with(|register, _| register.refused(source, kind));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Register, Now) -> T) -> T {
        let wall_ns = self.clock.believed().get();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { listening, register } = &mut *inner;
        let now = Now { listened: listening.until(Instant::now()), wall_ns };
        act(register, now)
    }
}

fn configured(settings: &Settings) -> HashSet<SourceId> {
    settings.sources.iter().map(|source| source.id).collect()
}

/// A source on an open stream. Dropped, the stream has ended.
#[derive(Debug)]
pub(crate) struct Presence {
    sources: Arc<Sources>,
    source: SourceId,
    busy: bool,
}

impl Presence {
    /// A message has come and is handled from now on: the server's time, not the source's.
    pub(crate) fn takes(&mut self) {
        if !std::mem::replace(&mut self.busy, true) {
            self.sources.with(|register, now| register.takes(self.source, now));
        }
    }

    /// The next message is waited for.
    pub(crate) fn waits(&mut self) {
        if std::mem::replace(&mut self.busy, false) {
            self.sources.with(|register, now| register.took(self.source, now));
        }
    }

    /// The source says how it stands.
    pub(crate) fn heartbeat(&self, heartbeat: &v1::Heartbeat) {
        self.sources.with(|register, now| register.heartbeat(self.source, now, heartbeat));
    }

    /// The source announces that it stops.
    pub(crate) fn goodbye(&self, reason: &str) {
        self.sources.with(|register, _| register.goodbye(self.source, reason));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.waits();
        self.sources.with(|register, _| register.ends(self.source));
    }
}
