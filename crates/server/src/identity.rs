//! Who calls: from the fingerprint of the client's certificate to the source or reader that the configuration names.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use sigillo_model::{
    class::Class,
    ids::{ClassId, SourceId, TenantId},
    roles::{Action, Role, allows},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    config::{ClassNames, ReaderSettings, Settings, SourceSettings},
    ingest::tenants::Tenants,
    own::Own,
    refusals::Refusals,
};

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// From 64 hexadecimal digits, with or without colons between them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.replace(':', ""), &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The other end of a connection, as the accept loop knows it. Travels in the extensions of each request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its certificate.
    pub(crate) fingerprint: Fingerprint,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Set when the connection is to end: the server stops, or the connection has become too old.
    pub(crate) closing: CancellationToken,
}

impl Peer {
    /// The peer of a request that came through the accept loop.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("this connection has shown no client certificate"))
    }
}

/// Who may do what, by certificate; and the names behind the ids. Replaced as a whole when the configuration is read again.
#[derive(Debug)]
pub(crate) struct Directory {
    sources: HashMap<Fingerprint, Arc<SourceSettings>>,
    readers: HashMap<Fingerprint, Arc<ReaderSettings>>,
    source_names: HashMap<SourceId, String>,
    /// Each source once, whatever its certificates.
    all: Vec<Arc<SourceSettings>>,
    classes: ClassNames,
}

/// Each of `all` under each of its certificates.
fn by_fingerprint<T>(
    all: impl IntoIterator<Item = Arc<T>>,
    of: impl Fn(&T) -> &[Fingerprint],
) -> HashMap<Fingerprint, Arc<T>> {
    let each = |one: Arc<T>| of(&one).iter().map(|fingerprint| (*fingerprint, Arc::clone(&one))).collect::<Vec<_>>();
    all.into_iter().flat_map(each).collect()
}

impl Directory {
    /// From the configuration.
    pub(crate) fn new(settings: &Settings) -> Self {
        let own = (SourceId::from_name(Class::Journal.name()), Class::Journal.name().to_owned());
        let named = settings.sources.iter().map(|source| (source.id, source.name.clone()));
        let all: Vec<_> = settings.sources.iter().cloned().map(Arc::new).collect();
        let readers = settings.readers.iter().cloned().map(Arc::new);
        Self {
            source_names: named.chain([own]).collect(),
            sources: by_fingerprint(all.iter().cloned(), |source| &source.fingerprints),
            readers: by_fingerprint(readers, |reader| &reader.fingerprints),
            all,
            classes: settings.classes.clone(),
        }
    }

    /// Role and name of a peer.
    fn who(&self, peer: &Peer) -> Option<(Role, &str)> {
        let reader = self.readers.get(&peer.fingerprint).map(|reader| (reader.role, reader.name.as_str()));
        reader.or_else(|| self.sources.get(&peer.fingerprint).map(|source| (Role::Source, source.name.as_str())))
    }

    /// The number of the class of this name.
    pub(crate) fn class(&self, name: &str) -> Option<ClassId> {
        self.classes.iter().find(|(_, known)| *known == name).map(|(number, _)| ClassId::new(*number))
    }

    /// The name of the class of this number.
    pub(crate) fn class_name(&self, class: ClassId) -> Option<&str> {
        self.classes.get(&class.get()).map(String::as_str)
    }

    /// The sources that may send, as configured.
    pub(crate) fn sources(&self) -> &[Arc<SourceSettings>] {
        &self.all
    }

    /// The name of a source.
    pub(crate) fn source_name(&self, source: SourceId) -> Option<&str> {
        self.source_names.get(&source).map(String::as_str)
    }
}

/// The directory in effect, and the tenants.
#[derive(Debug)]
pub(crate) struct Identities {
    directory: ArcSwap<Directory>,
    /// Tenants that exist.
    pub(crate) tenants: Tenants,
    refusals: Refusals,
}

impl Identities {
    /// From the configuration. Refused access is recorded with `own`.
    pub(crate) fn new(settings: &Settings, own: Own) -> Self {
        let tenants = Tenants::new(settings.tenants.iter().map(String::as_str), settings.open_tenants);
        let refusals = Refusals::new(own);
        Self { directory: ArcSwap::from_pointee(Directory::new(settings)), tenants, refusals }
    }

    /// Puts another configuration into effect.
    pub(crate) fn replace(&self, settings: &Settings) {
        self.tenants.configure(settings.tenants.iter().map(String::as_str), settings.open_tenants);
        self.directory.store(Arc::new(Directory::new(settings)));
    }

    /// The directory of now.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    /// The name of a tenant, where it is known.
    pub(crate) fn tenant_name(&self, tenant: TenantId) -> Option<String> {
        self.tenants.name(tenant)
    }

    /// The source that this peer is now.
    pub(crate) fn source(&self, peer: &Peer) -> Result<Arc<SourceSettings>, Status> {
        let directory = self.directory.load();
        directory
            .sources
            .get(&peer.fingerprint)
            .map(Arc::clone)
            .ok_or_else(|| self.refuse(&directory, peer, Action::Append))
    }

    /// The reader that this peer is now, if it may do `action`.
    pub(crate) fn reader(&self, peer: &Peer, action: Action) -> Result<Arc<ReaderSettings>, Status> {
        let directory = self.directory.load();
        directory
            .readers
            .get(&peer.fingerprint)
            .filter(|reader| allows(reader.role, action))
            .map(Arc::clone)
            .ok_or_else(|| self.refuse(&directory, peer, action))
    }

    /// Checks that this peer, whoever it is, may do `action`.
    pub(crate) fn check(&self, peer: &Peer, action: Action) -> Result<(), Status> {
        let directory = self.directory.load();
        match directory.who(peer) {
            Some((role, _)) if allows(role, action) => Ok(()),
            _ => Err(self.refuse(&directory, peer, action)),
        }
    }

    /// Tells why this peer may not do `action`, and notes that it tried.
    fn refuse(&self, directory: &Directory, peer: &Peer, action: Action) -> Status {
        let who = directory.who(peer);
        let status = who.map_or_else(|| unknown(peer), |(role, _)| denied(role, action));
        self.refusals.note(peer, who.map_or("", |(_, name)| name), action, &status);
        status
    }
}

fn denied(role: Role, action: Action) -> Status {
    Status::permission_denied(format!(
        "the role {} may not {}: use a certificate whose role may",
        role.name(),
        action.name()
    ))
}

fn unknown(peer: &Peer) -> Status {
    Status::unauthenticated(format!(
        "the certificate {} belongs to no [[source]] and no [[reader]] of the server's configuration",
        peer.fingerprint
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_openssl_prints_them() {
        let colons = "AB:".repeat(31) + "AB";
        assert_eq!(Fingerprint::parse(&colons), Fingerprint::parse(&"ab".repeat(32)));
        assert_eq!(Fingerprint::parse("ab"), None);
        assert_eq!(Fingerprint::parse(&"zz".repeat(32)), None);
    }
}
