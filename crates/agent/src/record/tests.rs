use sigillo_proto::v1::{ActorKind, Fragment, Outcome};

use super::*;
use crate::{declare, scrub::ScrubSettings};

/// 23 November 2026, 12:00 UTC.
const NOON: u64 = 1_795_435_200_000_000_000;

fn maker() -> Maker {
    let custom = ScrubSettings { name: "pin".into(), pattern: r"pin=(\d+)".into() };
    Maker::new("web-1", "acme", Arc::new(Scrubber::new(&[custom]).unwrap())).of("/var/log/auth.log")
}

fn piece(bytes: impl Into<Bytes>) -> Piece {
    Piece { bytes: bytes.into(), fragment: None, consumed: 0 }
}

fn line(bytes: impl Into<Bytes>) -> Fields {
    Fields::decode(maker().line(piece(bytes), NOON).as_ref())
}

fn scrubbed(fields: &Fields) -> Vec<(String, Value)> {
    let attributes = &fields.content.as_ref().unwrap().attributes;
    let noted = attributes.iter().find(|pair| pair.key == "scrubbed").and_then(|pair| pair.value.clone()?.value);
    let Some(Value::KvlistValue(list)) = noted else { return Vec::new() };
    list.values.into_iter().map(|pair| (pair.key, pair.value.unwrap().value.unwrap())).collect()
}

#[test]
fn a_line_becomes_a_record_with_core_and_person_and_its_bytes() {
    let text = "<38>1 2026-11-23T11:59:00Z gw sshd 77 - - Accepted publickey for alice from 192.0.2.7 port 4022 ssh2";
    let fields = line(text);
    let core = fields.core.unwrap();
    assert_eq!((&*core.event_name, &*core.action, core.outcome()), ("sshd.login", "login", Outcome::Success));
    assert_eq!((&*core.host, &*core.tenant, &*core.stream), ("gw", "acme", "/var/log/auth.log"));
    assert_eq!((&*core.program, core.process_id, &*core.severity_text), ("sshd", 77, "info"));
    assert_eq!(core.event_time_unix_nano, NOON - 60 * 1_000_000_000);
    let personal = fields.personal.unwrap();
    let actor = personal.actor.unwrap();
    assert_eq!((&*actor.name, actor.kind(), &*personal.client_address), ("alice", ActorKind::System, "192.0.2.7"));
    assert_eq!(fields.content.unwrap().original, text);
}

#[test]
fn a_line_that_fits_nothing_stays_plain() {
    for text in ["", "hello", "Nov 23 11:59:00 web-1 sshd[1]: something new", "\u{0}"] {
        let fields = line(text);
        assert_eq!((fields.core.unwrap().event_name, fields.personal), (String::new(), None), "{text:?}");
        assert_eq!(fields.content.unwrap(), ContentPart { original: text.into(), ..ContentPart::default() });
    }
    let fields = line(&b"Nov 23 11:59:00 web-1 sshd[1]: Invalid user \xff\xfe from 192.0.2.7"[..]);
    assert_eq!(fields.personal.unwrap().actor.unwrap().name, "\u{fffd}\u{fffd}");
    assert!(fields.content.unwrap().original.contains(&0xfe), "the bytes stay as they were");
}

#[test]
fn a_secret_is_in_no_part_and_its_absence_is_noted() {
    let secret = b"hunter22";
    for text in [
        "Nov 23 11:59:00 web-1 sshd[1]: Invalid user password=hunter22 from 192.0.2.7",
        "Nov 23 11:59:00 web-1 password=hunter22[1]: hello",
        "<13>1 2026-11-23T11:59:00Z token=hunter22 app 1 - - hello",
        "password: hunter22",
    ] {
        let record = maker().line(piece(text), NOON);
        for part in [&record.core, &record.personal, &record.content].into_iter().flatten() {
            assert_eq!(memchr::memmem::find(part, secret), None, "{text}");
        }
        assert_eq!(scrubbed(&Fields::decode(record.as_ref())).len(), 1, "{text}");
    }
    let fields = line("pin=1 pin=2 password=hunter22");
    let count = |name: &str, count| (name.to_owned(), Value::IntValue(count));
    assert_eq!(scrubbed(&fields), [count("pin", 2), count("password", 1)]);
}

#[test]
fn a_secret_in_the_name_of_a_program_is_gone() {
    let stamp = Stamp { program: "token=hunter22", ..Stamp::default() };
    let fields = Fields::decode(maker().message(piece("hello"), stamp, NOON).as_ref());
    assert_eq!(scrubbed(&fields), [("token".to_owned(), Value::IntValue(1))]);
    assert_eq!(fields.core.unwrap().program, "token=[scrubbed:token]");
}

#[test]
fn a_secret_in_hexadecimal_is_gone_as_well() {
    let command = hex::encode_upper("mysql -u root -phunter22");
    let text = format!("type=USER_CMD msg=audit(1795435200.243:78): auid=1000 ses=3 msg='cmd={command} res=success'");
    let by_journal = format!("USER_CMD pid=1 auid=1000 msg='cmd={command} res=success'");
    let stamp = Stamp { program: "audit", ..Stamp::default() };
    for record in [
        maker().line(piece(text.clone()), NOON),
        maker().with_profile(Profile::Audit).message(piece(text), Stamp::default(), NOON),
        maker().message(piece(by_journal), stamp, NOON),
    ] {
        for part in [&record.core, &record.personal, &record.content].into_iter().flatten() {
            assert_eq!(memchr::memmem::find(part, b"hunter22"), None);
            assert_eq!(memchr::memmem::find(part, hex::encode_upper("hunter22").as_bytes()), None);
        }
        assert_eq!(scrubbed(&Fields::decode(record.as_ref())).len(), 1);
    }
}

#[test]
fn later_pieces_of_a_line_are_scrubbed_and_not_read() {
    let fragment = Some(Fragment { index: 1, last: true });
    let text = "Nov 23 11:59:00 web-1 sshd[1]: Invalid user password=hunter22 from 192.0.2.7";
    let fields = Fields::decode(maker().line(Piece { fragment, ..piece(text) }, NOON).as_ref());
    assert_eq!((fields.core.unwrap().program, fields.personal), (String::new(), None));
    let content = fields.content.unwrap();
    assert_eq!((content.fragment, memchr::memmem::find(&content.original, b"hunter22")), (fragment, None));
}

#[test]
fn what_json_hides_is_in_no_fact() {
    let errors = r#"{"message_type":"error","error":{"message":"p\u0061ssword=hunter22 is wrong"},"item":"/x","during":"m\u0079sql\t-phunter22"}"#;
    let fields = Fields::decode(maker().with_profile(Profile::Restic).line(piece(errors), NOON).as_ref());
    assert!(!format!("{fields:?}").contains("hunter22"), "{fields:?}");
    assert_eq!((&*fields.core.clone().unwrap().action, scrubbed(&fields).len()), ("backup.item", 2));
    for changed in [
        r#"{"action_name":"user_update","user":"a","components":[{"component":"Password","old_value":"hunter22","new_value":"hunter22"}]}"#,
        "192.0.2.7 a [2026-11-23 12:00:00] 'User Updated' ('Password': '' => 'hunter22', 'Quota': '1' => '2')",
        "192.0.2.7 a [2026-11-23 12:00:00] 'User Updated' ('API_Key': 'hunter22' => 'x hunter22')",
    ] {
        let fields = Fields::decode(maker().with_profile(Profile::Plesk).line(piece(changed), NOON).as_ref());
        assert!(!format!("{fields:?}").contains("hunter22"), "{fields:?}");
        assert_eq!((&*fields.core.clone().unwrap().action, scrubbed(&fields).len()), ("user.update", 1));
    }
    let maker = maker();
    let original = maker.scrub(Bytes::from_static(br#"{"token":12345678}"#));
    let facts = Facts { tenant: "shop".into(), ..Facts::new("x.y", "y", Outcome::Success) };
    let fields = Fields::decode(maker.event(original, Stamp::default(), facts, NOON).as_ref());
    assert_eq!((scrubbed(&fields).len(), fields.core.unwrap().tenant.as_str()), (1, "shop"));
    assert_eq!(fields.content.unwrap().original, r#"{"token":"[scrubbed:token]"}"#);
}

#[test]
fn the_agent_declares_what_no_line_says() {
    let declarer = declare::Declarer::new(&maker());
    let loss = declare::Loss {
        stream: "/var/log/syslog",
        reason: "rotated twice",
        from: "7",
        to: "9",
        bytes: Some(2),
        ..<_>::default()
    };
    for (record, name, outcome) in [
        (declarer.started(NOON), "agent.started", Outcome::Success),
        (declarer.stopped("asked to", NOON), "agent.stopped", Outcome::Success),
        (declarer.loss(&loss, NOON), "agent.loss", Outcome::Failure),
    ] {
        let core = Fields::decode(record.as_ref()).core.unwrap();
        assert_eq!((&*core.event_name, &*core.action, core.outcome()), (name, name, outcome));
        assert_eq!((&*core.program, &*core.host, core.event_time_unix_nano), ("sigillo-agent", "web-1", NOON));
    }
    let fields = Fields::decode(declarer.loss(&loss, NOON).as_ref());
    let keys: Vec<_> = fields.content.unwrap().attributes.into_iter().map(|pair| pair.key).collect();
    assert_eq!(keys, ["reason", "from", "to", "bytes"]);
    let core = fields.core.unwrap();
    assert_eq!((core.target.unwrap().id, core.severity_number), ("/var/log/syslog".into(), 13));
}

#[test]
fn long_fields_are_cut_between_characters() {
    assert_eq!(short(&"é".repeat(FIELD_MAX_BYTES)).len(), FIELD_MAX_BYTES);
    assert_eq!(short(&format!("x{}", "é".repeat(FIELD_MAX_BYTES))).len(), FIELD_MAX_BYTES - 1);
    assert_eq!(short("é"), "é");
}
