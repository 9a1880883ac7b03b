//! Secrets in JSON. What a name says of its value is asked of the two as they read without escapes, whatever the value's kind; what
//! was taken out leaves a text, so that what is left is JSON again and means the same to everybody who reads it.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use memchr::{memchr, memchr2, memmem};
use serde::de::IgnoredAny;

use super::{Found, MARKER, Scrubber, Span, note};

/// Bytes of a name, its last ones, that are looked at together with a value.
const NAME_MAX_BYTES: usize = 128;
/// What the name of another value is called that stands beside it, in lower case.
const NAMES: [&str; 7] = ["component", "field", "header", "key", "name", "parameter", "setting"];
/// Ends of what such values are called.
const VALUES: [&str; 6] = ["value", "values", "old", "new", "from", "to"];
/// Values that stand for any when a name is asked whether a list or an object under it is secret.
const PROBES: [(&str, bool); 2] = [("xxxxxxxxxxxxxxxx", true), ("0000000000000000", false)];

/// Where the object begins that a line ends with, if it does.
pub(super) fn start(line: &[u8]) -> Option<usize> {
    let start = memchr(b'{', line)?;
    let object = line.get(start..)?;
    // Most others are told at once.
    let is_likely = object.iter().skip(1).find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'"');
    (is_likely && serde_json::from_slice::<IgnoredAny>(object).is_ok()).then_some(start)
}

/// The line without its secrets, and what they were. `None` if it has none.
pub(super) fn scrub(scrubber: &Scrubber, line: &[u8], start: usize) -> Option<(Bytes, Found)> {
    // What stands before the object may name it.
    let spans = if start > 0 { scrubber.spans(line) } else { Vec::new() };
    let names = spans.iter().find(|(from, to, _)| (*from..*to).contains(&start));
    let secret = names.map(|(.., rule)| (0, start, *rule));
    let mut walk = Walk { scrubber, found: Found::new(), name: Arc::from(""), open: Vec::new(), secret };
    let edits = Tokens::of(line, start).filter_map(|token| walk.edit(line, token)).collect();
    let mut found = walk.found;
    let apart = replace(line, edits);
    let together = whole(scrubber, &apart, start, &mut found);
    (!found.is_empty()).then(|| (replace(&apart, together).into(), found))
}

/// What stands at a place now.
type Edit = (Range<usize>, Vec<u8>);

fn replace(line: &[u8], edits: Vec<Edit>) -> Vec<u8> {
    let mut clean = Vec::with_capacity(line.len() + 64);
    let mut done = 0;
    for (range, text) in edits {
        clean.extend_from_slice(line.get(done..range.start).unwrap_or_default());
        clean.extend_from_slice(&text);
        done = range.end;
    }
    clean.extend_from_slice(line.get(done..).unwrap_or_default());
    clean
}

/// What the line as a whole shows beyond that: before the object, or across its values. Only texts and numbers are taken out.
fn whole(scrubber: &Scrubber, line: &[u8], start: usize, found: &mut Found) -> Vec<Edit> {
    let spans = scrubber.spans(line);
    let mut edits = Vec::new();
    let head = beyond(&spans, &(0..start), &[]);
    if !head.is_empty() {
        let (clean, more) = scrubber.take_out(line.get(..start).unwrap_or_default(), head);
        note(found, more);
        edits.push((0..start, clean.to_vec()));
    }
    let tokens = if spans.is_empty() { None } else { Some(Tokens::of(line, start)) };
    for Token { kind, range } in tokens.into_iter().flatten() {
        let inner = match kind {
            Kind::Text { .. } => range.start + 1..range.end - 1,
            Kind::Number => range.clone(),
            _ => continue,
        };
        let text = line.get(inner.clone()).unwrap_or_default();
        let is_judged = memmem::find(text, MARKER.as_bytes()).is_some();
        let spans = beyond(&spans, &inner, &if is_judged { scrubber.spans(text) } else { Vec::new() });
        let Some((_, _, rule)) = spans.first().copied() else { continue };
        if scrubber.marker_at(text) == Some(text.len()) {
            continue;
        }
        let (clean, more) = scrubber.take_out(text, spans);
        note(found, more);
        let quoted = [b"\"", &clean[..], b"\""].concat();
        // An escape may have been cut in two.
        let is_text = serde_json::from_slice::<IgnoredAny>(&quoted).is_ok();
        edits.push((range, if is_text { quoted } else { quote(&scrubber.marker(rule)) }));
    }
    edits
}

/// What is to be taken out of a part of a text, counted from the part's beginning, without what begins where something does that the
/// part shows by itself: of that was judged before, without escapes.
fn beyond(spans: &[Span], part: &Range<usize>, own: &[Span]) -> Vec<Span> {
    let first = spans.partition_point(|(_, to, _)| *to <= part.start);
    let touching = spans.iter().skip(first).take_while(|(from, ..)| *from < part.end);
    let is_own = |from: usize| {
        let inside = from.checked_sub(part.start);
        inside.is_some_and(|inside| own.binary_search_by_key(&inside, |(own, ..)| *own).is_ok())
    };
    let others = touching.filter(|(from, ..)| !is_own(*from));
    others.map(|(from, to, rule)| (from.max(&part.start) - part.start, to.min(&part.end) - part.start, *rule)).collect()
}

/// An object or a list that we are in.
struct Open {
    /// The name of what has none of its own: a list's is that of what it holds.
    name: Arc<str>,
    /// The rule by which the value is secret of which the name stands beside it.
    beside: Option<usize>,
}

/// A way through an object.
struct Walk<'a> {
    scrubber: &'a Scrubber,
    found: Found,
    /// Of the value that comes next, with its end only if it is long. Empty: it has none.
    name: Arc<str>,
    open: Vec<Open>,
    /// One that goes as a whole: how many are around it, where it begins, and the rule.
    secret: Option<(usize, usize, usize)>,
}

impl Walk<'_> {
    fn edit(&mut self, line: &[u8], Token { kind, range }: Token) -> Option<Edit> {
        let raw = line.get(range.clone()).unwrap_or_default();
        let clean = match kind {
            Kind::Open { list } => {
                let name = self.take_name();
                if self.secret.is_none() {
                    let rule = self.beside(&name).or_else(|| self.names_secrets(&name));
                    self.secret = rule.map(|rule| (self.open.len(), range.start, rule));
                }
                self.open.push(Open { name: if list { name } else { Arc::from("") }, beside: None });
                return None;
            }
            Kind::Close => {
                self.open.pop();
                let (_, start, rule) = self.secret.take_if(|(around, ..)| *around == self.open.len())?;
                let inner = line.get(start + 1..range.start).unwrap_or_default();
                return (!inner.trim_ascii().is_empty()).then(|| (start..range.end, quote(&self.taken(rule))));
            }
            _ if self.secret.is_some() => return None,
            Kind::Text { is_name: true } => {
                let text = unquote(raw);
                let start = (0..=text.len()).find(|at| text.len() - at <= NAME_MAX_BYTES && text.is_char_boundary(*at));
                self.name = Arc::from(text.get(start.unwrap_or_default()..).unwrap_or_default());
                self.alone(&text)
            }
            Kind::Text { is_name: false } => self.value(&unquote(raw), true),
            Kind::Number => self.value(&String::from_utf8_lossy(raw), false),
            Kind::Word => {
                self.take_name();
                None
            }
        };
        clean.map(|text| (range, quote(&text)))
    }

    /// The name of a value that comes now.
    fn take_name(&mut self) -> Arc<str> {
        let name = std::mem::replace(&mut self.name, Arc::from(""));
        match self.open.last() {
            Some(list) if name.is_empty() => Arc::clone(&list.name),
            _ => name,
        }
    }

    /// What is left of a text or a number, if something is taken out.
    fn value(&mut self, text: &str, is_text: bool) -> Option<String> {
        let name = self.take_name();
        if text.is_empty() {
            return None;
        }
        if is_text && text.len() <= NAME_MAX_BYTES && NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            let beside = self.names_secrets(text);
            if let Some(open) = self.open.last_mut() {
                open.beside = beside;
            }
        }
        if let Some(rule) = self.beside(&name) {
            return Some(self.taken(rule));
        }
        let alone = self.alone(text);
        let rule = self.named(&name, alone.as_deref().unwrap_or(text), is_text);
        rule.map(|rule| self.taken(rule)).or(alone)
    }

    /// The rule by which a value is secret because of a name that stood beside it: `{"name": "password", "value": "…"}`.
    fn beside(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let rule = self.open.last().and_then(|open| open.beside);
        rule.filter(|_| VALUES.iter().any(|end| name.ends_with(end)))
    }

    /// What stands for a value that a rule takes out as a whole.
    fn taken(&mut self, rule: usize) -> String {
        note(&mut self.found, vec![(self.scrubber.name(rule), 1)]);
        self.scrubber.marker(rule)
    }

    /// What is left of a text by itself.
    fn alone(&mut self, text: &str) -> Option<String> {
        let (clean, found) = self.scrubber.scrub(text.as_bytes())?;
        note(&mut self.found, found);
        Some(String::from_utf8_lossy(&clean).into_owned())
    }

    /// The rule by which a value is secret because of its name.
    fn named(&self, name: &str, value: &str, is_text: bool) -> Option<usize> {
        let scrubber = self.scrubber;
        if scrubber.marker_at(value.as_bytes()) == Some(value.len()) {
            return None;
        }
        let in_json = quote(value);
        let in_json = in_json.get(1..in_json.len().saturating_sub(1)).unwrap_or_default();
        let before = [quote(name), if is_text { b":\"".to_vec() } else { b":".to_vec() }].concat();
        let forms = [
            (before, in_json, if is_text { "\"" } else { "" }),
            ([name.as_bytes(), b"="].concat(), value.as_bytes(), ""),
        ];
        forms.iter().find_map(|(before, value, after)| {
            let spans = scrubber.spans(&[before, *value, after.as_bytes()].concat());
            if spans.is_empty() {
                return None;
            }
            let part = before.len()..before.len() + value.len();
            beyond(&spans, &part, &scrubber.spans(value)).first().map(|(.., rule)| *rule)
        })
    }

    /// The rule by which a list or an object under a name is secret, whatever it holds.
    fn names_secrets(&self, name: &str) -> Option<usize> {
        PROBES.iter().find_map(|(value, is_text)| self.named(name, value, *is_text))
    }
}

/// A part of an object. Of commas and colons nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    kind: Kind,
    range: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An object or a list begins.
    Open {
        list: bool,
    },
    /// One ends.
    Close,
    /// With its quotes.
    Text {
        is_name: bool,
    },
    Number,
    /// `true`, `false`, `null`: no secret.
    Word,
}

/// The parts of an object that is known to be one.
struct Tokens<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn of(line: &'a [u8], start: usize) -> Self {
        Self { line, at: start }
    }

    fn end_of_text(&self, start: usize) -> usize {
        let mut at = start + 1;
        loop {
            match memchr2(b'"', b'\\', self.line.get(at..).unwrap_or_default()) {
                Some(more) if self.line.get(at + more) == Some(&b'"') => return at + more + 1,
                Some(more) => at += more + 2,
                None => return self.line.len(),
            }
        }
    }

    /// Where the first byte from a place on stands that is not of a kind.
    fn past(&self, start: usize, of_kind: impl Fn(u8) -> bool) -> usize {
        let rest = self.line.get(start..).unwrap_or_default();
        start + rest.iter().position(|byte| !of_kind(*byte)).unwrap_or(rest.len())
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.past(self.at, |byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b':'));
        let (kind, end) = match *self.line.get(start)? {
            byte @ (b'{' | b'[') => (Kind::Open { list: byte == b'[' }, start + 1),
            b'}' | b']' => (Kind::Close, start + 1),
            b'"' => {
                let end = self.end_of_text(start);
                let next = self.past(end, |byte| byte.is_ascii_whitespace());
                (Kind::Text { is_name: self.line.get(next) == Some(&b':') }, end)
            }
            byte => {
                let end =
                    self.past(start + 1, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-'));
                let is_word = byte.is_ascii_alphabetic();
                (if is_word { Kind::Word } else { Kind::Number }, end)
            }
        };
        self.at = end;
        Some(Token { kind, range: start..end })
    }
}

/// A text without quotes and escapes; where it has none that can be read, as it is.
fn unquote(raw: &[u8]) -> String {
    let inner = || raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    serde_json::from_slice(raw).unwrap_or_else(|_| String::from_utf8_lossy(inner()).into_owned())
}

fn quote(text: &str) -> Vec<u8> {
    // A text can always be written.
    serde_json::to_vec(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
