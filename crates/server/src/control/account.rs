//! Who holds the other end of the control socket, as the kernel says.

use std::fs;

use rustix::process::geteuid;
use sigillo_proto::v1;
use tokio::net::UnixStream;
use tonic::Status;

use crate::own::Event;

/// An account of this machine that the server obeys. Travels in the extensions of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Its number.
    pub(crate) uid: u32,
    /// Its name, or its number where it has none.
    pub(crate) name: String,
}

impl Caller {
    /// The account of a connection. An error, for the log, if it is neither root nor the server's own.
    pub(crate) fn accept(stream: &UnixStream) -> Result<Self, String> {
        let peer = stream.peer_cred().map_err(|error| format!("the kernel does not say who it is: {error}"))?;
        let caller = Self::named(peer.uid());
        if obeyed(peer.uid(), geteuid().as_raw()) {
            Ok(caller)
        } else {
            Err(format!("{} may not give orders", caller.name))
        }
    }

    /// The account of this process.
    pub(crate) fn own() -> Self {
        Self::named(geteuid().as_raw())
    }

    /// The account of a request that came through the control socket.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let missing = || Status::unauthenticated("this connection did not come through the control socket");
        request.extensions().get::<Self>().cloned().ok_or_else(missing)
    }

    /// The beginning of an own record about what this account ordered.
    pub(super) fn act(&self, name: &str) -> Event {
        Event::new(name).actor(&self.name, v1::ActorKind::System, "", "").number("uid", self.uid)
    }

    fn named(uid: u32) -> Self {
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self { uid, name: name_of(&accounts, uid).unwrap_or_else(|| uid.to_string()) }
    }
}

/// Root, and the server's own account.
fn obeyed(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

/// The name of an account in the text of `/etc/passwd`.
fn name_of(accounts: &str, uid: u32) -> Option<String> {
    let number = uid.to_string();
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(number.as_str())).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_account_give_orders() {
        assert_eq!(
            [obeyed(0, 990), obeyed(990, 990), obeyed(1_000, 990), obeyed(1_000, 0)],
            [true, true, false, false]
        );
    }

    #[test]
    fn accounts_have_names() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nodd\nsigillo:x:990:990::/:/bin/false\n";
        assert_eq!(name_of(accounts, 990).as_deref(), Some("sigillo"));
        assert_eq!(name_of(accounts, 99), None);
    }
}
