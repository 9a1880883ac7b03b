//! Which tenant a record concerns: the source's claim, held against its grant.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use sigillo_model::{
    envelope::Flags,
    ids::{NAME_MAX_BYTES, TenantId, check_name},
};

use crate::config::{Grant, SourceSettings};

/// Most names of tenants that are remembered.
const TENANTS_MAX: usize = 1_000_000;
/// Most claims that one stream remembers the answer to.
const REMEMBERED_MAX: usize = 4_096;

/// The tenants that exist, by id.
#[derive(Debug)]
pub(crate) struct Tenants {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    names: HashMap<TenantId, Box<str>>,
    open: bool,
}

impl Tenants {
    /// These; with `open`, every other valid name as well, from its first claim on.
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>, open: bool) -> Self {
        let tenants = Self { known: RwLock::default() };
        tenants.configure(names, open);
        tenants
    }

    /// Replaces the configuration. When names were open and stay so, those that came by claims stay known.
    pub(crate) fn configure<'a>(&self, names: impl Iterator<Item = &'a str>, open: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !(known.open && open) {
            known.names.clear();
        }
        known.open = open;
        known.names.extend(names.map(|name| (TenantId::from_name(name), name.into())));
    }

    /// The name of a tenant, where it is known.
    pub(crate) fn name(&self, tenant: TenantId) -> Option<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.names.get(&tenant).map(ToString::to_string)
    }

    /// The tenant of this valid name, if it exists or may come to exist by this claim.
    fn admit(&self, name: &str) -> Option<TenantId> {
        let tenant = TenantId::from_name(name);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.names.contains_key(&tenant) {
            return Some(tenant);
        }
        let room = known.open && known.names.len() < TENANTS_MAX;
        drop(known);
        if !room {
            return None;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.names.len() >= TENANTS_MAX {
            return None;
        }
        known.names.insert(tenant, name.into());
        Some(tenant)
    }
}

/// Answers the claims of one stream, remembering the answers.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    answers: HashMap<Box<[u8]>, (TenantId, Flags)>,
}

impl Claims {
    /// Forgets the answers, because what the source may do has changed.
    pub(crate) fn forget(&mut self) {
        self.answers.clear();
    }

    /// Whom a record concerns whose source claims `claim` (empty: claims nothing), and the flag when the claim is refused.
    pub(crate) fn decide(&mut self, source: &SourceSettings, tenants: &Tenants, claim: &[u8]) -> (TenantId, Flags) {
        if let Some(answer) = self.answers.get(claim) {
            return *answer;
        }
        let answer = decide(source, tenants, claim);
        // No name is so long: remembering what it was asked would let a source fill the memory.
        if claim.len() > NAME_MAX_BYTES {
            return answer;
        }
        if self.answers.len() >= REMEMBERED_MAX {
            self.answers.clear();
        }
        self.answers.insert(claim.into(), answer);
        answer
    }
}

fn decide(source: &SourceSettings, tenants: &Tenants, claim: &[u8]) -> (TenantId, Flags) {
    let home = TenantId::from_name(&source.home);
    let granted = match std::str::from_utf8(claim) {
        Ok(name) if name.is_empty() || name == source.home => Some(home),
        Ok(name) if check_name(name).is_ok() => match &source.grant {
            Grant::None => None,
            Grant::List(list) => list.get(name).copied(),
            Grant::All => tenants.admit(name),
        },
        _ => None,
    };
    granted.map_or((home, Flags::TENANT_REFUSED), |tenant| (tenant, Flags::default()))
}

#[cfg(test)]
mod tests {
    use sigillo_model::ids::{ClassId, RetentionId, SourceId};

    use super::*;
    use crate::identity::Fingerprint;

    fn source(grant: Grant) -> SourceSettings {
        SourceSettings {
            name: "s".into(),
            id: SourceId::from_name("s"),
            fingerprints: vec![Fingerprint::of(b"")],
            class: ClassId::new(3),
            class_name: "service".into(),
            retention: RetentionId::new(3),
            home: "home".into(),
            grant,
        }
    }

    #[test]
    fn the_grant_table() {
        let list = || Grant::List([("acme".to_owned(), TenantId::from_name("acme"))].into());
        let closed = || Tenants::new(["provider", "home", "acme", "bolt"].into_iter(), false);
        let open = || Tenants::new(["provider", "home"].into_iter(), true);
        // Grant, tenants, claim, tenant it goes to, refused.
        let table: [(Grant, Tenants, &[u8], &str, bool); 17] = [
            (Grant::None, closed(), b"", "home", false),
            (Grant::None, closed(), b"home", "home", false),
            (Grant::None, closed(), b"acme", "home", true),
            (list(), closed(), b"", "home", false),
            (list(), closed(), b"home", "home", false),
            (list(), closed(), b"acme", "acme", false),
            (list(), closed(), b"bolt", "home", true),
            (Grant::All, closed(), b"", "home", false),
            (Grant::All, closed(), b"bolt", "bolt", false),
            (Grant::All, closed(), b"provider", "provider", false),
            (Grant::All, closed(), b"nobody", "home", true),
            (Grant::All, open(), b"nobody", "nobody", false),
            (Grant::All, open(), b"no body", "home", true),
            (Grant::All, open(), b"\xff\xfe", "home", true),
            (Grant::All, open(), &[b'x'; 129], "home", true),
            (list(), open(), b"nobody", "home", true),
            (Grant::None, open(), b"nobody", "home", true),
        ];
        for (grant, tenants, claim, expected, refused) in table {
            let source = source(grant);
            let mut claims = Claims::default();
            for _ in 0..2 {
                let (tenant, flags) = claims.decide(&source, &tenants, claim);
                let shown = format!("{:?} claims {:?}", source.grant, String::from_utf8_lossy(claim));
                assert_eq!(tenant, TenantId::from_name(expected), "{shown}");
                assert_eq!(flags.contains(Flags::TENANT_REFUSED), refused, "{shown}");
            }
        }
    }

    #[test]
    fn what_is_too_long_for_a_name_is_not_remembered() {
        let tenants = Tenants::new(["home"].into_iter(), true);
        let mut claims = Claims::default();
        claims.decide(&source(Grant::All), &tenants, &[b'x'; NAME_MAX_BYTES]);
        claims.decide(&source(Grant::All), &tenants, &[b'x'; NAME_MAX_BYTES + 1]);
        assert_eq!(claims.answers.len(), 1);
    }

    #[test]
    fn a_name_that_came_by_a_claim_is_known_until_names_are_closed() {
        let tenants = Tenants::new(["provider"].into_iter(), true);
        let id = tenants.admit("acme").unwrap();
        tenants.configure(["provider"].into_iter(), true);
        assert_eq!(tenants.name(id).as_deref(), Some("acme"));
        tenants.configure(["provider"].into_iter(), false);
        assert_eq!((tenants.name(id), tenants.admit("acme")), (None, None));
    }
}
