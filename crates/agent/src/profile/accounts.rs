//! Accounts and groups: useradd, usermod, userdel, groupadd, groupmod, groupdel, gpasswd, passwd, chage, chsh, chfn.

use sigillo_proto::v1::Outcome;

use crate::profile::{
    facts::{Facts, severity::WARN},
    scan::{between, unquoted, word},
};

/// One message.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    let (verb, rest) = word(text);
    match verb {
        "new" => created(rest),
        "add" => member(rest.split_once("' to ")?, "group.member_add"),
        "delete" => match rest.strip_prefix("user ") {
            Some(name) => Some(account("account.delete", unquoted(name))),
            None => member(rest.split_once("' from ")?, "group.member_remove"),
        },
        "failed" => failed(rest),
        "change" | "changed" | "lock" | "unlock" => changed(verb, rest),
        "removed" => removed(rest),
        "group" => group(rest),
        "user" => by_gpasswd(rest),
        "password" => {
            // `for 'alice' changed by 'root'`
            let (name, by) = rest.strip_prefix("for ")?.rsplit_once(" changed by ")?;
            Some(account("password.change", unquoted(name)).by_account(unquoted(by)))
        }
        _ => None,
    }
}

fn account<'a>(action: &'static str, name: &'a str) -> Facts<'a> {
    Facts::new("account.change", action, Outcome::Success).on("account", name)
}

fn of_group<'a>(action: &'static str, name: &'a str) -> Facts<'a> {
    Facts::new("group.change", action, Outcome::Success).on("group", name)
}

/// `user: name=alice, UID=1001, GID=1001, home=/home/alice, shell=/bin/bash, from=/dev/pts/0`, `group: name=alice, GID=1001`
fn created(rest: &str) -> Option<Facts<'_>> {
    let (kind, list) = rest.split_once(": ")?;
    let mut facts = match kind {
        "user" | "account" => account("account.create", ""),
        "group" => of_group("group.create", ""),
        _ => return None,
    };
    for (key, value) in list.split(", ").filter_map(|pair| pair.split_once('=')) {
        match key {
            "name" | "account" => facts.target_id = value.into(),
            "UID" | "uid" => facts.push("uid", value),
            "GID" | "gid" => facts.push("gid", value),
            "home" | "shell" => facts.push(key, value),
            "from" => facts.push("tty", value.trim_start_matches("/dev/")),
            _ => {}
        }
    }
    (!facts.target_id.is_empty()).then_some(facts)
}

/// `'alice' to group 'sudo'`, cut at ` to ` or ` from `. Of the shadow file's line, which says it again, nothing is made.
fn member<'a>((name, rest): (&'a str, &'a str), action: &'static str) -> Option<Facts<'a>> {
    let group = rest.strip_prefix("group ")?;
    Some(of_group(action, unquoted(group)).with("member", name.strip_prefix('\'')?))
}

/// `adding user 'alice', data deleted`, `adding user 'alice', exit code: 9`
fn failed(rest: &str) -> Option<Facts<'_>> {
    let (what, reason) = rest.rsplit_once(", ")?;
    let (action, name) = match what.strip_prefix("adding user ") {
        Some(name) => ("account.create", name),
        None => ("account.delete", what.strip_prefix("deleting user ")?),
    };
    let facts = Facts { outcome: Outcome::Failure, ..account(action, unquoted(name)) };
    Some(facts.severity(WARN).with("reason", reason))
}

/// `change user 'alice' shell from '/bin/sh' to '/bin/bash'`, `changed user 'alice' information`, `lock user 'alice' password`,
/// `changed password expiry for alice`
fn changed<'a>(verb: &str, rest: &'a str) -> Option<Facts<'a>> {
    if let Some(name) = rest.strip_prefix("password expiry for ") {
        return Some(account("password.expiry", unquoted(name)));
    }
    if let Some(names) = rest.strip_prefix("user name ") {
        let (old, new) = names.split_once("' to '")?;
        return Some(account("account.rename", old.strip_prefix('\'')?).with("to", new.strip_suffix('\'')?));
    }
    let (name, what) = rest.strip_prefix("user '")?.split_once("' ")?;
    let action = match (verb, what) {
        ("lock", _) => "account.lock",
        ("unlock", _) => "account.unlock",
        (_, "password") => "password.change",
        _ => "account.update",
    };
    let facts = account(action, name).with("what", word(what).0);
    Some(match between(what, " from '", "' to '") {
        Some(old) => facts.with("from", old).with("to", what.rsplit_once("' to '")?.1.trim_end_matches('\'')),
        None => facts,
    })
}

/// `group 'alice' owned by 'alice'`, `group 'x'`
fn removed(rest: &str) -> Option<Facts<'_>> {
    let name = rest.strip_prefix("group '")?.split_once('\'')?.0;
    Some(of_group("group.delete", name))
}

/// `'x' removed`. Of the lines before, which say it of each file, nothing is made.
fn group(rest: &str) -> Option<Facts<'_>> {
    Some(of_group("group.delete", rest.strip_prefix('\'')?.strip_suffix("' removed")?))
}

/// `alice added by root to group sudo`, `alice removed by root from group sudo`
fn by_gpasswd(rest: &str) -> Option<Facts<'_>> {
    let (rest, group, action) = match rest.rsplit_once(" to group ") {
        Some((rest, group)) => (rest, group, "group.member_add"),
        None => rest.rsplit_once(" from group ").map(|(rest, group)| (rest, group, "group.member_remove"))?,
    };
    let (member, by) = rest.split_once(" added by ").or_else(|| rest.split_once(" removed by "))?;
    Some(of_group(action, group).by_account(by).with("member", member))
}

#[cfg(test)]
mod tests {
    use crate::profile::testing::{Expected, check};

    use super::read;

    #[test]
    fn lines_mean_what_they_say() {
        let account = |action| Expected::new("account.change", action, "success").target("account", "alice");
        let group = |action| Expected::new("group.change", action, "success").target("group", "sudo");
        check(
            read,
            [
                (
                    "new user: name=alice, UID=1001, GID=1001, home=/home/alice, shell=/bin/bash, from=/dev/pts/0",
                    account("account.create")
                        .with("uid", "1001")
                        .with("gid", "1001")
                        .with("home", "/home/alice")
                        .with("shell", "/bin/bash")
                        .with("tty", "pts/0"),
                ),
                ("new group: name=sudo, GID=27", group("group.create").with("gid", "27")),
                ("add 'alice' to group 'sudo'", group("group.member_add").with("member", "alice")),
                ("delete 'alice' from group 'sudo'", group("group.member_remove").with("member", "alice")),
                ("delete user 'alice'", account("account.delete")),
                ("removed group 'sudo' owned by 'alice'", group("group.delete")),
                ("group 'sudo' removed", group("group.delete")),
                (
                    "user alice added by root to group sudo",
                    group("group.member_add").actor("root").with("member", "alice"),
                ),
                ("change user 'alice' password", account("password.change").with("what", "password")),
                ("lock user 'alice' password", account("account.lock").with("what", "password")),
                (
                    "change user 'alice' shell from '/bin/sh' to '/bin/bash'",
                    account("account.update").with("what", "shell").with("from", "/bin/sh").with("to", "/bin/bash"),
                ),
                ("change user name 'alice' to 'bob'", account("account.rename").with("to", "bob")),
                ("changed password expiry for alice", account("password.expiry")),
                ("password for 'alice' changed by 'root'", account("password.change").actor("root")),
                (
                    "failed adding user 'alice', data deleted",
                    Expected::new("account.change", "account.create", "failure")
                        .target("account", "alice")
                        .severity(13)
                        .with("reason", "data deleted"),
                ),
            ],
        );
    }

    #[test]
    fn other_words_stay_words() {
        for text in [
            "",
            "new",
            "new user: UID=1",
            "add 'a' to shadow group 'b'",
            "group added to /etc/group: name=sudo, GID=27",
            "group added to /etc/gshadow: name=sudo",
            "group 'sudo' removed from /etc/group",
            "group 'sudo' removed from /etc/gshadow",
            "change user alice",
            "group x removed",
            "user a",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
