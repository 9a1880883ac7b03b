use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const ALL: [Profile; 19] = [
    Profile::Auto,
    Profile::Plain,
    Profile::Sshd,
    Profile::Sudo,
    Profile::Su,
    Profile::Pam,
    Profile::Cron,
    Profile::Logind,
    Profile::Accounts,
    Profile::Nginx,
    Profile::NginxError,
    Profile::Apache,
    Profile::ApacheError,
    Profile::Proxmox,
    Profile::Plesk,
    Profile::Bareos,
    Profile::Restic,
    Profile::Borg,
    Profile::Audit,
];

fn event_name(profile: Profile, program: &str, stream: &str, message: &[u8]) -> Option<String> {
    let zone = TimeZone::UTC;
    let clock = Clock { observed: 1_795_435_200_000_000_000, zone: &zone };
    let context = Context { program, expected: Profile::of_stream(stream), clock };
    profile.read(message, &context).map(|facts| facts.event_name.into_owned())
}

#[test]
fn the_program_chooses_the_profile_and_else_the_name_of_the_file() {
    let access = &br#"192.0.2.7 - - [23/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5"#[..];
    let apache = b"[Mon Nov 23 12:00:00 2026] [error] [client 192.0.2.7] File does not exist: /x";
    for (program, stream, message, name) in [
        ("sshd-session", "", &b"Invalid user x from 192.0.2.7"[..], Some("sshd.login")),
        ("/usr/sbin/CRON", "", b"(root) CMD (x)", Some("cron.run")),
        (
            "polkitd",
            "",
            b"pam_unix(polkit-1:session): session opened for user root(uid=0) by (uid=0)",
            Some("pam.session"),
        ),
        ("sudo", "", b"pam_unix(sudo:session): session closed for user root", Some("pam.session")),
        ("nginx", "", access, Some("http.request")),
        ("", "/var/log/nginx/access.log", access, Some("http.request")),
        ("", "/var/www/vhosts/example.com/logs/access_ssl_log", access, Some("http.request")),
        ("", "/var/log/apache2/error.log", apache, Some("apache.error")),
        ("", "/var/log/nginx/error.log", apache, None),
        ("app", "/var/log/nginx/access.log", access, None),
        ("", "/var/log/pve/tasks/index", b"UPID:n:1:2:3:qmstart:1:root@pam: 6565F1C8 OK", Some("proxmox.task")),
        ("", "/var/log/audit/audit.log", b"type=USER_AUTH msg=audit(1.000:1): x=1", Some("audit.auth")),
        ("", "/var/log/bareos/bareos.log", b"  Termination:  Backup OK", Some("bareos.job")),
        ("", "/var/log/syslog", access, None),
        ("app", "", b"hello", None),
        ("sshd", "", b"message repeated 2 times: [ Invalid user x from 192.0.2.7]", Some("sshd.login")),
    ] {
        assert_eq!(event_name(Profile::Auto, program, stream, message).as_deref(), name, "{program} {stream}");
    }
    assert_eq!(event_name(Profile::Plain, "sshd", "", b"Invalid user x from 192.0.2.7"), None);
    assert_eq!(event_name(Profile::Sshd, "x", "", b"Invalid user x from 192.0.2.7").as_deref(), Some("sshd.login"));
}

#[test]
fn names_of_profiles_are_those_of_the_configuration() {
    for (name, profile) in [("auto", Profile::Auto), ("nginx_error", Profile::NginxError), ("audit", Profile::Audit)] {
        assert_eq!(serde_json::from_str::<Profile>(&format!("{name:?}")).unwrap(), profile);
    }
    assert!(serde_json::from_str::<Profile>("\"ngnix\"").is_err());
}

/// Words of all families, so that arbitrary texts come far into the parsers.
const WORDS: [&str; 48] = [
    "Accepted",
    "Failed",
    "password",
    "for",
    "invalid user",
    "from",
    "192.0.2.7",
    "port",
    "22",
    "ssh2",
    "Disconnected",
    "pam_unix(sshd:session):",
    "session opened for user",
    " by ",
    "(uid=0)",
    "alice :",
    "TTY=x",
    ";",
    "COMMAND=",
    "USER=",
    "(root)",
    "CMD",
    "(",
    ")",
    "New session",
    "of user",
    "new user:",
    "name=x,",
    "add '",
    "' to group '",
    "[",
    "] \"",
    "\"",
    "23/Nov/2026:12:00:00 +0000",
    "GET / HTTP/1.1",
    "UPID:a:b:c:d:e:f:g:",
    "OK",
    "type=USER_LOGIN",
    "msg=audit(1.000:1):",
    "msg='",
    "acct=6162",
    "'",
    "=",
    "Termination:",
    "Backup OK",
    "{\"message_type\":\"summary\"}",
    "2026/11/23 12:00:00 [error] 1#1: x, client: a, server: b",
    "\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_a_profile(message in prop::collection::vec(any::<u8>(), 0..200)) {
        for profile in ALL {
            event_name(profile, "", "", &message);
        }
    }

    #[test]
    fn no_words_break_a_profile_and_all_fits_the_limits(
        words in prop::collection::vec((0..WORDS.len(), prop::option::of("\\PC{0,8}"), any::<bool>()), 0..24),
    ) {
        let mut text = String::new();
        for (word, more, space) in &words {
            text.push_str(WORDS[*word]);
            text.push_str(more.as_deref().unwrap_or_default());
            if *space {
                text.push(' ');
            }
        }
        for profile in ALL {
            for program in ["", "sshd", "sudo", "su", "cron", "systemd-logind", "useradd", "audit"] {
                event_name(profile, program, "/var/log/nginx/access.log", text.as_bytes());
            }
        }
    }
}
