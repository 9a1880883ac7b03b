use crate::profile::testing::{Expected, check};

use super::*;

const TIME: u64 = 1_795_435_200_243_000_000;

fn event(name: &'static str, action: &'static str, outcome: &'static str) -> Expected {
    let warn = matches!(outcome, "failure" | "denied");
    Expected::new(name, action, outcome).time(TIME).severity(if warn { 13 } else { 9 }).session("3")
}

#[test]
fn events_mean_what_they_say() {
    let login =
        |outcome| event("audit.login", "login", outcome).target("service", "/usr/sbin/sshd").client("192.0.2.7");
    check(
        read,
        [
            (
                "type=USER_LOGIN msg=audit(1795435200.243:77): pid=1 uid=0 auid=1000 ses=3 msg='op=login acct=\"alice\" exe=\"/usr/sbin/sshd\" hostname=192.0.2.7 addr=192.0.2.7 terminal=ssh res=success'\x1dUID=\"root\" AUID=\"alice\"",
                login("success")
                    .actor("alice")
                    .with("type", "USER_LOGIN")
                    .with("serial", "77")
                    .with("operation", "login")
                    .with("tty", "ssh"),
            ),
            // A name that can't be shown: `(invalid user)` in hexadecimal.
            (
                "type=USER_LOGIN msg=audit(1795435200.243:77): pid=1 uid=0 auid=4294967295 ses=4294967295 msg='op=login acct=28696E76616C6964207573657229 exe=\"/usr/sbin/sshd\" hostname=? addr=192.0.2.7 terminal=ssh res=failed'",
                login("failure")
                    .session("")
                    .actor("(invalid user)")
                    .with("type", "USER_LOGIN")
                    .with("serial", "77")
                    .with("operation", "login")
                    .with("tty", "ssh"),
            ),
            (
                "type=USER_CMD msg=audit(1795435200.243:78): pid=1 uid=1000 auid=1000 ses=3 msg='cwd=\"/root\" cmd=6C73202D6C exe=\"/usr/bin/sudo\" terminal=pts/0 res=success'\x1dUID=\"alice\" AUID=\"alice\"",
                event("audit.command", "sudo.run", "success")
                    .target("program", "/usr/bin/sudo")
                    .actor("alice")
                    .with("type", "USER_CMD")
                    .with("serial", "78")
                    .with("command", "ls -l")
                    .with("directory", "/root")
                    .with("tty", "pts/0"),
            ),
            (
                "type=SYSCALL msg=audit(1795435200.243:79): arch=c000003e syscall=59 success=yes exit=0 a0=55d a1=55e items=2 auid=1000 uid=0 tty=pts0 ses=3 comm=\"cat\" exe=\"/usr/bin/cat\" key=\"run\"\x1dSYSCALL=execve AUID=\"alice\"\n\
                 type=EXECVE msg=audit(1795435200.243:79): argc=2 a0=\"cat\" a1=2F746D702F6120622E747874\n\
                 type=CWD msg=audit(1795435200.243:79): cwd=\"/root\"\n\
                 type=PATH msg=audit(1795435200.243:79): item=0 name=\"/usr/bin/cat\" inode=1\n\
                 type=PROCTITLE msg=audit(1795435200.243:79): proctitle=636174002F746D70",
                event("audit.exec", "process.run", "success")
                    .target("program", "/usr/bin/cat")
                    .actor("alice")
                    .with("type", "EXECVE")
                    .with("serial", "79")
                    .with("command", "cat /tmp/a b.txt")
                    .with("directory", "/root")
                    .with("tty", "pts0")
                    .with("syscall", "execve")
                    .with("key", "run"),
            ),
            (
                "type=SYSCALL msg=audit(1795435200.243:80): syscall=257 success=no exit=-13 auid=1000 tty=pts0 ses=3 comm=\"vi\" exe=\"/usr/bin/vi\" key=\"etc\"\n\
                 type=PATH msg=audit(1795435200.243:80): item=0 name=\"/etc/\" nametype=PARENT\n\
                 type=PATH msg=audit(1795435200.243:80): item=1 name=\"/etc/shadow\" nametype=NORMAL",
                event("audit.file", "file.access", "failure")
                    .target("file", "/etc/shadow")
                    .actor("")
                    .actor_of("", ActorKind::System)
                    .with("type", "SYSCALL")
                    .with("serial", "80")
                    .with("exe", "/usr/bin/vi")
                    .with("tty", "pts0")
                    .with("syscall", "257")
                    .with("key", "etc"),
            ),
        ],
    );
}

#[test]
fn changes_and_alarms_mean_what_they_say() {
    check(
        read,
        [
            (
                "type=ADD_USER msg=audit(1795435200.243:81): pid=1 uid=0 auid=1000 ses=3 msg='op=adding user acct=\"bob\" exe=\"/usr/sbin/useradd\" hostname=web-1 addr=? terminal=pts/0 res=success'\x1dAUID=\"alice\"",
                event("audit.account", "account.create", "success")
                    .target("account", "bob")
                    .actor("alice")
                    .with("client_host", "web-1")
                    .with("type", "ADD_USER")
                    .with("serial", "81")
                    .with("operation", "adding")
                    .with("exe", "/usr/sbin/useradd")
                    .with("tty", "pts/0"),
            ),
            (
                "type=CONFIG_CHANGE msg=audit(1795435200.243:82): auid=1000 ses=3 op=remove_rule key=\"etc\" list=4 res=1\x1dAUID=\"alice\"",
                event("audit.config", "audit_rule.delete", "success")
                    .actor("alice")
                    .with("type", "CONFIG_CHANGE")
                    .with("serial", "82")
                    .with("operation", "remove_rule")
                    .with("key", "etc"),
            ),
            (
                "type=ANOM_PROMISCUOUS msg=audit(1795435200.243:83): dev=eth0 prom=256 old_prom=0 auid=1000 uid=0 gid=0 ses=3",
                event("audit.anomaly", "audit.anom_promiscuous", "")
                    .severity(13)
                    .actor_of("", ActorKind::System)
                    .with("type", "ANOM_PROMISCUOUS")
                    .with("serial", "83"),
            ),
            (
                "type=AVC msg=audit(1795435200.243:84): avc:  denied  { read } for  pid=9 comm=\"httpd\" name=\"shadow\" dev=\"sda1\" ino=7 tclass=file permissive=0\n\
                 type=SYSCALL msg=audit(1795435200.243:84): syscall=2 success=no auid=4294967295 ses=4294967295 comm=\"httpd\" exe=\"/usr/sbin/httpd\"",
                event("audit.avc", "access.check", "denied")
                    .session("")
                    .target("program", "/usr/sbin/httpd")
                    .with("type", "AVC")
                    .with("serial", "84")
                    .with("syscall", "2"),
            ),
            (
                "type=AVC msg=audit(1795435200.243:85): apparmor=\"DENIED\" operation=\"open\" profile=\"cupsd\" name=\"/etc/x\" pid=9 comm=\"cupsd\"",
                event("audit.avc", "access.check", "denied").session("").with("type", "AVC").with("serial", "85"),
            ),
            (
                "SERVICE_STOP pid=1 uid=0 auid=4294967295 ses=4294967295 msg='unit=cron comm=\"systemd\" exe=\"/usr/lib/systemd/systemd\" hostname=? addr=? terminal=? res=success'",
                Expected::new("audit.service", "service.stop", "success")
                    .severity(9)
                    .target("unit", "cron")
                    .with("type", "SERVICE_STOP")
                    .with("exe", "/usr/lib/systemd/systemd"),
            ),
        ],
    );
}

#[test]
fn who_is_known_by_his_number_is_named_by_it() {
    let facts =
        read("type=DEL_USER msg=audit(1795435200.243:81): auid=1000 ses=3 msg='op=x id=1007 res=success'").unwrap();
    assert_eq!((&*facts.actor.unwrap().id, &*facts.target_id), ("1000", "1007"));
}

#[test]
fn other_words_stay_words() {
    for text in ["", "type=", "type=lower msg=audit(1.0:1): x", "some words", "A=1"] {
        assert_eq!(read(text), None, "{text:?}");
    }
    let odd = read("type=USER_LOGIN msg=audit(99999999999999999999.1:x): msg='res='").unwrap();
    assert_eq!((odd.event_time_unix_nano, odd.outcome), (0, Outcome::Unspecified));
}
