//! Bytes of unknown origin, made harmless for a terminal and for the eye.
//!
//! What a record holds was written by whoever is logged, perhaps by an attacker who hopes that an administrator will look
//! at it. Nothing of it may steer a terminal, begin a new line, or change the order in which the rest is read.

use std::{
    fmt::{self, Write},
    io,
    ops::RangeInclusive,
};

use serde::Serialize;
use serde_json::{Value, ser::Formatter};

/// Appends `bytes` to `out`: control characters as `\n`, `\x1b` or `\u{9b}`, characters that hide or reorder text as
/// `\u{202e}`, bytes that are not UTF-8 as `\xff`. All else, backslashes too, stays as it is: text is for reading, the exact
/// bytes are in the JSON output.
pub fn escape_into(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..='\x1f' | '\x7f' => push(out, format_args!("\\x{:02x}", u32::from(c))),
                c if is_unsafe(c) => push(out, format_args!("\\u{{{:x}}}", u32::from(c))),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            push(out, format_args!("\\x{byte:02x}"));
        }
    }
}

fn push(out: &mut String, escaped: fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = out.write_fmt(escaped);
}

/// As [`escape_into`], into a new text.
pub fn escape(bytes: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    escape_into(&mut out, bytes.as_ref());
    out
}

/// Characters that steer a terminal, end a line, reorder text, or are not seen at all.
const UNSAFE: [RangeInclusive<char>; 13] = [
    // C0; DEL and C1.
    '\0'..='\x1f',
    '\x7f'..='\u{9f}',
    // Arabic letter mark, Mongolian vowel separator, zero width space, direction marks. Not the (non-)joiners, without which
    // some scripts and emoji can't be written.
    '\u{61c}'..='\u{61c}',
    '\u{180e}'..='\u{180e}',
    '\u{200b}'..='\u{200b}',
    '\u{200e}'..='\u{200f}',
    // Line and paragraph separator; embeddings and overrides of direction.
    '\u{2028}'..='\u{202e}',
    // Word joiner and invisible signs; isolates of direction.
    '\u{2060}'..='\u{2065}',
    '\u{2066}'..='\u{206f}',
    // Byte order mark, interlinear annotation, musical beams, tags.
    '\u{feff}'..='\u{feff}',
    '\u{fff9}'..='\u{fffb}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

fn is_unsafe(c: char) -> bool {
    !matches!(c, ' '..='~') && UNSAFE.iter().any(|range| range.contains(&c))
}

/// Writes compact JSON in which no character within a string steers a terminal or misleads the eye: such characters, which
/// JSON allows as they are, are written as `\u` escapes, and so stay exact.
#[derive(Debug, Clone, Copy)]
pub struct SafeJson;

impl Formatter for SafeJson {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            let (safe, tail) = rest.split_at(at);
            writer.write_all(safe.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = tail.get(c.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// A value as one line of compact JSON, written with [`SafeJson`].
pub fn safe_json(value: &Value) -> String {
    let mut out = Vec::new();
    // A value of JSON has no key that is no text, and memory takes everything.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, SafeJson));
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What no terminal may be sent, written down apart from the code above: anything below a space, DEL, the eight-bit
    /// forms of escape sequences as characters, and the controls of direction.
    fn harmful(c: char) -> bool {
        let number = u32::from(c);
        number < 0x20
            || (0x7f..=0x9f).contains(&number)
            || (0x202a..=0x202e).contains(&number)
            || (0x2066..=0x2069).contains(&number)
            || [0x200e, 0x200f, 0x2028, 0x2029].contains(&number)
    }

    #[test]
    fn each_kind_is_shown() {
        let table: [(&[u8], &str); 12] = [
            (b"plain, C:\\path \"quoted\"", "plain, C:\\path \"quoted\""),
            ("città 日本 👨‍👩‍👧".as_bytes(), "città 日本 👨‍👩‍👧"),
            (b"a\nb\r\tc", "a\\nb\\r\\tc"),
            (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
            (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            (b"\0\x7f\x08", "\\x00\\x7f\\x08"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            (b"\x9b31m \xff \xc3(", "\\x9b31m \\xff \\xc3("),
            ("user\u{202e}txt.exe".as_bytes(), "user\\u{202e}txt.exe"),
            ("\u{2066}a\u{2069}\u{200b}".as_bytes(), "\\u{2066}a\\u{2069}\\u{200b}"),
            ("\u{e0041}".as_bytes(), "\\u{e0041}"),
            // A surrogate, and an overlong form of ESC: not UTF-8, whatever some decoders make of them.
            (b"\xed\xa0\x80\xc0\x9b", "\\xed\\xa0\\x80\\xc0\\x9b"),
        ];
        for (bytes, expected) in table {
            assert_eq!(escape(bytes), expected);
        }
    }

    #[test]
    fn every_control_of_direction_is_shown() {
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            assert_eq!(escape(c.to_string()), format!("\\u{{{:x}}}", u32::from(c)));
            assert_eq!(safe_json(&Value::from(c.to_string())), format!("\"\\u{:04x}\"", u32::from(c)));
        }
    }

    #[test]
    fn json_escapes_stay_exact() {
        assert_eq!(safe_json(&Value::from("a\u{9b}b\u{7f}\u{e0041}\x1b")), "\"a\\u009bb\\u007f\\udb40\\udc41\\u001b\"");
    }

    /// Text that is full of what is dangerous.
    fn hostile() -> impl Strategy<Value = String> {
        let c = prop_oneof![
            any::<char>(),
            (0_u32..0xa0).prop_filter_map("a character", char::from_u32),
            (0x2000_u32..0x2070).prop_filter_map("a character", char::from_u32),
        ];
        prop::collection::vec(c, 0..40).prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn no_output_steers_a_terminal(bytes: Vec<u8>, text in hostile()) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let shown = escape(bytes);
                prop_assert!(!shown.chars().any(harmful), "{shown:?}");
                // Nor any byte, for terminals that take eight-bit controls before they decode: those of a character above
                // U+009F are always preceded by its first byte.
                prop_assert!(!shown.bytes().any(|byte| byte < 0x20 || byte == 0x7f));
            }
        }

        #[test]
        fn what_is_harmless_stays(text in "[ -~à-ž日-月]{0,30}") {
            prop_assert_eq!(escape(&text), text);
        }

        #[test]
        fn json_is_safe_and_exact(text in hostile(), key in hostile()) {
            let value = serde_json::json!({ key: [text] });
            let shown = safe_json(&value);
            prop_assert!(!shown.chars().any(harmful), "{shown:?}");
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        }
    }
}
