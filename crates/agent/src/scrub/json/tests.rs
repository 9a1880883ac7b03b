use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::scrub::ScrubSettings;

fn scrubber() -> Scrubber {
    let custom = [("pin", r"pin=(\d{4,8})"), ("card", r#""card","number":\s*"?(\d+)"#), ("id", r"\bid-\d+")];
    let settings = |(name, pattern): (&str, &str)| ScrubSettings { name: name.into(), pattern: pattern.into() };
    Scrubber::new(&custom.map(settings)).unwrap()
}

fn clean(line: &str) -> String {
    let found = scrubber().scrub(line.as_bytes());
    found.map_or(line.to_owned(), |(clean, _)| String::from_utf8(clean.to_vec()).unwrap())
}

#[test]
fn json_stays_json_and_means_the_same() {
    for (line, expected) in [
        (r#"{"token":12345678,"n":1}"#, r#"{"token":"[scrubbed:token]","n":1}"#),
        (r#"{ "password" : "a b" , "n": 1.50 }"#, r#"{ "password" : "[scrubbed:password]" , "n": 1.50 }"#),
        (r#"{"p\u0061ssword":"x"}"#, r#"{"p\u0061ssword":"[scrubbed:password]"}"#),
        (r#"{"pw\u0064":"x"}"#, r#"{"pw\u0064":"[scrubbed:password]"}"#),
        (r#"{"secret":{"id":1,"is":[true,null,"x",[]]},"n":2}"#, r#"{"secret":"[scrubbed:key]","n":2}"#),
        (r#"{"token":["12345678","short"]}"#, r#"{"token":"[scrubbed:token]"}"#),
        (r#"{"pin":1234,"x":{"pin":["1234"]}}"#, r#"{"pin":"[scrubbed:pin]","x":{"pin":"[scrubbed:pin]"}}"#),
        (r#"{"m":"password=a\nb"}"#, r#"{"m":"password=[scrubbed:password]\nb"}"#),
        (r#"{"m":"say \"password\": \"x\" now"}"#, r#"{"m":"say \"password\": \"[scrubbed:password]\" now"}"#),
        (r#"{"m":"{\"password\":[1]}"}"#, r#"{"m":"{\"password\":\"[scrubbed:password]\"}"}"#),
        (r#"{"m":"p:\/\/bob:x1@h\/"}"#, r#"{"m":"p://bob:[scrubbed:url]@h/"}"#),
        (r#"{"t":"card","number": 4111}"#, r#"{"t":"card","number": "[scrubbed:card]"}"#),
        (r#"{"t":"card","number": "4111"}"#, r#"{"t":"card","number": "[scrubbed:card]"}"#),
        (
            r#"{"id-7":"of id-8","n":"\ud800 id-9"}"#,
            r#"{"[scrubbed:id]":"of [scrubbed:id]","n":"\\ud800 [scrubbed:id]"}"#,
        ),
        (
            r#"password=x app: {"password":7}"#,
            r#"password=[scrubbed:password] app: {"password":"[scrubbed:password]"}"#,
        ),
        (r#"password: {"a":"x","b":[1]} "#, r#"password: "[scrubbed:password]" "#),
        (
            r#"{"c":[{"Field":"api_key","old":"short","new":[1],"by":"y"},{"field":"n","value":"v"}]}"#,
            r#"{"c":[{"Field":"api_key","old":"[scrubbed:key]","new":"[scrubbed:key]","by":"y"},{"field":"n","value":"v"}]}"#,
        ),
        // What is none is looked at as it is.
        (r#"{"password":"x",}"#, r#"{"password":"[scrubbed:password]",}"#),
        (r#"{"password":true,"token":[],"":"","n":"a\tb"}"#, r#"{"password":true,"token":[],"":"","n":"a\tb"}"#),
    ] {
        assert_eq!(clean(line), expected);
        assert_eq!(clean(expected), expected, "it has no secret any more");
    }
}

#[test]
fn what_was_taken_out_is_counted_once() {
    let (_, found) = scrubber().scrub(br#"{"m":"password=a password=b","token":12345678,"id-1":"\u0069d-2"}"#).unwrap();
    let found: Vec<_> = found.iter().map(|(name, count)| (&**name, *count)).collect();
    assert_eq!(found, [("password", 2), ("token", 1), ("id", 2)]);
}

#[test]
fn long_and_deep_lines_take_no_longer() {
    let name = "n".repeat(60_000);
    let many = format!(r#"{{"{name}":[{}1]}}"#, r#""x","#.repeat(20_000));
    let deep = format!(r#"{{"password":{}"x"{}}}"#, "[".repeat(60_000), "]".repeat(60_000));
    assert_eq!(clean(&many), many);
    let secrets = format!(r#"{{"n":"-----BEGIN PRIVATE KEY-----"{}}}"#, r#","password":"x""#.repeat(15_000));
    assert_eq!(clean(&secrets).matches(r#""[scrubbed:password]""#).count(), 15_000);
    assert_eq!(clean(&deep), r#"{"password":"[scrubbed:password]"}"#);
}

proptest! {
    #[test]
    fn any_object_stays_one(text in r#"[\[\]{}:,"ap1.\\u=\- ]{0,60}"#) {
        let line = format!(r#"{{"password":{text}}}"#);
        let is_json = serde_json::from_str::<Value>(&line).is_ok();
        let cleaned = clean(&line);
        prop_assert!(!is_json || serde_json::from_str::<Value>(&cleaned).is_ok(), "{line} {cleaned}");
    }

    #[test]
    fn no_escape_hides_a_secret(name in "[a-z]{0,3}password[a-z]{0,3}", secret in "[ -~é]{12,20}", mask in any::<u64>()) {
        let escape = |text: &str| -> String {
            let hidden = |(index, letter): (usize, char)| match mask >> (index % 64) & 1 {
                0 if letter != '"' && letter != '\\' => letter.to_string(),
                _ => format!("\\u{:04x}", u32::from(letter)),
            };
            text.chars().enumerate().map(hidden).collect()
        };
        let line = format!(r#"{{"{}":"{}"}}"#, escape(&name), escape(&secret));
        let value: Value = serde_json::from_str(&clean(&line)).unwrap();
        prop_assert_eq!(value, serde_json::json!({ name: "[scrubbed:password]" }));
    }
}
