use proptest::prelude::*;

use super::*;

fn scrubber(custom: &[(&str, &str)]) -> Scrubber {
    let custom: Vec<_> = custom
        .iter()
        .map(|(name, pattern)| ScrubSettings { name: (*name).into(), pattern: (*pattern).into() })
        .collect();
    Scrubber::new(&custom).unwrap()
}

fn clean(scrubber: &Scrubber, line: &str) -> String {
    let found = scrubber.scrub(line.as_bytes());
    found.map_or(line.to_owned(), |(clean, _)| String::from_utf8(clean.to_vec()).unwrap())
}

#[test]
fn every_built_in_pattern_finds_its_examples_and_nothing_else() {
    let scrubber = scrubber(&[]);
    for Rule { name, examples, not, needles, .. } in RULES {
        assert!(!examples.is_empty() && !not.is_empty(), "{name}");
        for needle in *needles {
            assert!(needle.len() >= 4 && *needle == needle.to_lowercase(), "{needle:?}");
        }
        for line in *examples {
            let (clean, found) = scrubber.scrub(line.as_bytes()).unwrap_or_else(|| panic!("{name}: {line}"));
            let text = String::from_utf8(clean.to_vec()).unwrap();
            assert!(!text.to_lowercase().contains("s3cr3t"), "{name}: {text}");
            assert!(text.contains("[scrubbed:"), "{name}: {text}");
            assert!(!found.is_empty());
        }
        for line in *not {
            assert_eq!(clean(&scrubber, line), *line, "{name}");
        }
    }
}

#[test]
fn each_pattern_is_named_where_it_alone_applies() {
    let scrubber = scrubber(&[]);
    for (line, expected) in [
        ("password=x1 done", "password=[scrubbed:password] done"),
        (r#"{"password": "a \" b", "u": 1}"#, r#"{"password": "[scrubbed:password]", "u": 1}"#),
        (r#"{\"password\":\"x\",\"u\":1}"#, r#"{\"password\":\"[scrubbed:password]",\"u\":1}"#),
        ("https://bob:x1@example.com/ ok", "https://bob:[scrubbed:url]@example.com/ ok"),
        ("Authorization: Basic YWI= next", "Authorization: Basic [scrubbed:authorization] next"),
        ("x api_key=0123456789 y", "x api_key=[scrubbed:key] y"),
        ("a access_token=0123456789&b=1", "a access_token=[scrubbed:token]&b=1"),
        ("borg --passphrase abc list", "borg --passphrase [scrubbed:argument] list"),
    ] {
        assert_eq!(clean(&scrubber, line), expected);
    }
}

#[test]
fn own_patterns_take_their_groups_or_all() {
    let scrubber = scrubber(&[("ticket", r"ticket-\d+"), ("pin", r"pin (\d{4})"), ("pesel", r"\b\d{11}\b")]);
    assert_eq!(
        clean(&scrubber, "ticket-12 pin 1234 of 44051401359"),
        "[scrubbed:ticket] pin [scrubbed:pin] of [scrubbed:pesel]"
    );
    let (_, found) = scrubber.scrub(b"ticket-1 pin 1234 ticket-2").unwrap();
    let found: Vec<_> = found.iter().map(|(name, count)| (&**name, *count)).collect();
    assert_eq!(found, [("ticket", 2), ("pin", 1)]);
}

#[test]
fn what_overlaps_is_taken_out_as_one() {
    let scrubber = scrubber(&[("tail", r"cret\w+ and more"), ("head", r"x=\w+"), ("inner", r"cre")]);
    assert_eq!(clean(&scrubber, "password=secretword and more."), "password=[scrubbed:password].");
    assert_eq!(clean(&scrubber, "x=secretword"), "[scrubbed:head]");
    // A marker that stands there already stays one.
    assert_eq!(clean(&scrubber, "password=[scrubbed:password]"), "password=[scrubbed:password]");
}

#[test]
fn settings_that_can_not_work_are_refused_with_the_reason() {
    for (custom, word) in [
        (vec![("a", "(")], "unclosed"),
        (vec![("a", "x*")], "empty"),
        (vec![("A B", "x")], "a-z"),
        (vec![("", "x")], "a-z"),
        (vec![("password", "x")], "taken"),
        (vec![("a", "x"), ("a", "y")], "taken"),
        (vec![("a", r"(\w{1000}){1000}")], "size"),
        (vec![("a", "x"); 65], "at most 64"),
    ] {
        let custom: Vec<_> = custom
            .iter()
            .map(|(name, pattern)| ScrubSettings { name: (*name).into(), pattern: (*pattern).into() })
            .collect();
        let error = Scrubber::new(&custom).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn bytes_that_are_no_text_and_the_longest_lines_are_scrubbed() {
    let scrubber = scrubber(&[]);
    let (clean, _) = scrubber.scrub(b"\xff\xfe password=\xff\x01\xfe \xff").unwrap();
    assert_eq!(*clean, *b"\xff\xfe password=[scrubbed:password] \xff");
    let mut line = vec![b'x'; 256 << 10];
    let end = line.len() - 20;
    line[1_000..1_020].copy_from_slice(b" password=hunter222 ");
    line[end..].copy_from_slice(b" token: abcdefgh1234");
    let (clean, found) = scrubber.scrub(&line).unwrap();
    assert_eq!(found.len(), 2);
    assert!(
        memchr::memmem::find(&clean, b"hunter").is_none() && memchr::memmem::find(&clean, b"abcdefgh1234").is_none()
    );
    let many = "password=abcdefg ".repeat(15_000);
    let (clean, found) = scrubber.scrub(many.as_bytes()).unwrap();
    assert_eq!((found[0].1, memchr::memmem::find(&clean, b"abcdefg")), (15_000, None));
}

proptest! {
    #[test]
    fn nothing_breaks_it(line in prop::collection::vec(any::<u8>(), 0..400)) {
        let scrubber = scrubber(&[("digits", r"\d{3,}")]);
        let _ = scrubber.scrub(&line);
    }

    #[test]
    fn a_secret_of_any_form_is_gone(before in "[ -~]{0,40}", secret in "[A-Za-z0-9]{16,40}", after in "[ -~]{0,40}") {
        let scrubber = scrubber(&[]);
        // Words such as the name itself are no secret.
        let line = format!("{before} password={secret} {after}");
        let (clean, _) = scrubber.scrub(line.as_bytes()).unwrap();
        prop_assert!(memchr::memmem::find(&clean, secret.as_bytes()).is_none(), "{:?}", clean);
    }
}
