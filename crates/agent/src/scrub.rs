//! Secrets are taken out of lines before anything is made of them.
//!
//! Every line is looked through once for short texts of which one is in every secret's neighbourhood; only where one is
//! found are the patterns tried that need it. All patterns are searched for on the same bytes and what they find is joined, so
//! that their order does not matter. Patterns see one record: a secret that is cut in two by the greatest length of a line is
//! not seen as one.

mod json;
mod sieve;
mod table;

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;

use crate::scrub::{
    sieve::Sieve,
    table::{RULES, Rule},
};

/// Patterns that a configuration may add.
const CUSTOM_MAX: usize = 64;
/// Memory that one compiled pattern may take.
const PATTERN_MAX_BYTES: usize = 1 << 20;
const NAME_MAX_BYTES: usize = 40;
/// The beginning of what stands for a secret.
const MARKER: &str = "[scrubbed:";
/// Longest name of a program that is told from the name of a secret. Bounded, since a long line may have thousands of places.
const PROGRAM_MAX_BYTES: usize = 32;

/// A pattern of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubSettings {
    /// What stands in the place of what was found, as `[scrubbed:NAME]`: up to 40 of `a-z`, `0-9` and `-`, no built-in name, each once.
    pub name: String,
    /// A regular expression. If it has groups, what they match is the secret, else the whole match.
    pub pattern: String,
}

/// What was taken out of one record: names and how often, in the order of their first places.
pub(crate) type Found = Vec<(Arc<str>, u32)>;

/// Adds what was found elsewhere in the same record.
pub(crate) fn note(found: &mut Found, more: Found) {
    for (name, count) in more {
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => found.push((name, count)),
        }
    }
}

/// All patterns of an agent.
pub(crate) struct Scrubber {
    sieve: Sieve,
    /// The built-in ones, in the order of the table, then the configured ones.
    patterns: Vec<Pattern>,
    /// The configured ones once more, all at once.
    custom: RegexSet,
}

struct Pattern {
    name: Arc<str>,
    regex: Regex,
}

/// What is taken out of a line: from, to, number of the pattern.
type Span = (usize, usize, usize);

impl Scrubber {
    /// The built-in patterns and those of the configuration.
    pub(crate) fn new(custom: &[ScrubSettings]) -> Result<Self, String> {
        if custom.len() > CUSTOM_MAX {
            return Err(format!("there are {} [[scrub]] tables, at most {CUSTOM_MAX} are taken", custom.len()));
        }
        let mut patterns = Vec::with_capacity(RULES.len() + custom.len());
        for Rule { name, pattern, .. } in RULES {
            patterns.push(Pattern { name: Arc::from(*name), regex: compile(name, pattern)? });
        }
        for ScrubSettings { name, pattern } in custom {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.bytes().all(plain) {
                return Err(format!("scrub {name:?}: a name has 1 to {NAME_MAX_BYTES} of a-z, 0-9 and -"));
            }
            if patterns.iter().any(|known| *known.name == **name) {
                return Err(format!("scrub {name:?}: the name is taken already, choose another one"));
            }
            let regex = compile(name, pattern)?;
            if regex.is_match(b"") {
                return Err(format!(
                    "scrub {name:?}: the pattern matches the empty text, so it would match everywhere"
                ));
            }
            patterns.push(Pattern { name: Arc::from(name.as_str()), regex });
        }
        let custom = RegexSetBuilder::new(custom.iter().map(|settings| &settings.pattern))
            .unicode(false)
            .size_limit(PATTERN_MAX_BYTES * CUSTOM_MAX)
            .build()
            .map_err(|error| format!("[[scrub]] patterns together: {error}"))?;
        let needles =
            RULES.iter().enumerate().flat_map(|(rule, Rule { needles, .. })| needles.iter().map(move |n| (*n, rule)));
        Ok(Self { sieve: Sieve::new(needles), patterns, custom })
    }

    /// The line without its secrets, and what they were. `None` if it has none. A line that ends with a JSON object ends with one
    /// afterwards.
    pub(crate) fn scrub(&self, line: &[u8]) -> Option<(Bytes, Found)> {
        let rules = self.rules(line);
        if rules == 0 && self.custom.is_empty() && memchr(b'\\', line).is_none() {
            return None;
        }
        if let Some(start) = json::start(line) {
            return json::scrub(self, line, start);
        }
        let spans = self.spans_of(line, rules);
        if spans.is_empty() { None } else { Some(self.take_out(line, spans)) }
    }

    /// What is to be taken out of a text, as it stands there, in its order.
    fn spans(&self, text: &[u8]) -> Vec<Span> {
        self.spans_of(text, self.rules(text))
    }

    /// Built-in patterns that can match.
    fn rules(&self, text: &[u8]) -> u32 {
        let rules = self.sieve.sift(text);
        if memchr(b'@', text).is_some() { rules | unconditional() } else { rules }
    }

    fn spans_of(&self, text: &[u8], rules: u32) -> Vec<Span> {
        let mut spans = Vec::new();
        if rules == 0 && self.custom.is_empty() {
            return spans;
        }
        let built_in = (0..RULES.len()).filter(|rule| rules & 1 << rule != 0);
        let custom = if self.custom.is_empty() { None } else { Some(self.custom.matches(text)) };
        let custom = custom.iter().flatten().map(|index| RULES.len() + index);
        for index in built_in.chain(custom) {
            if let Some(pattern) = self.patterns.get(index) {
                pattern.find(text, index, &mut spans);
            }
        }
        spans.sort_unstable();
        // What overlaps is one secret.
        spans.dedup_by(|next, known| {
            let overlaps = next.0 < known.1;
            known.1 = if overlaps { known.1.max(next.1) } else { known.1 };
            overlaps
        });
        spans
    }

    /// What stands for a secret that a rule has found.
    fn marker(&self, rule: usize) -> String {
        format!("{MARKER}{}]", self.name(rule))
    }

    fn name(&self, rule: usize) -> Arc<str> {
        self.patterns.get(rule).map(|pattern| Arc::clone(&pattern.name)).unwrap_or_default()
    }

    /// The length of a marker with which a text begins.
    fn marker_at(&self, text: &[u8]) -> Option<usize> {
        let rest = text.strip_prefix(MARKER.as_bytes())?;
        let end = rest.iter().take(NAME_MAX_BYTES + 1).position(|byte| *byte == b']')?;
        let is_ours = self.patterns.iter().any(|pattern| Some(pattern.name.as_bytes()) == rest.get(..end));
        is_ours.then_some(MARKER.len() + end + 1)
    }

    /// A text without that.
    fn take_out(&self, text: &[u8], spans: Vec<Span>) -> (Bytes, Found) {
        let mut clean = BytesMut::with_capacity(text.len() + 64);
        let mut found = Found::new();
        let mut done = 0;
        for (start, end, index) in spans {
            clean.extend_from_slice(text.get(done..start).unwrap_or_default());
            clean.extend_from_slice(self.marker(index).as_bytes());
            done = end;
            note(&mut found, vec![(self.name(index), 1)]);
        }
        clean.extend_from_slice(text.get(done..).unwrap_or_default());
        (clean.freeze(), found)
    }
}

impl Pattern {
    fn find(&self, line: &[u8], index: usize, spans: &mut Vec<Span>) {
        if self.regex.captures_len() == 1 {
            spans.extend(self.regex.find_iter(line).map(|found| (found.start(), found.end(), index)));
            return;
        }
        for captures in self.regex.captures_iter(line) {
            let start = captures.get(0).map_or(0, |whole| whole.start());
            let rule = index < RULES.len();
            let groups = captures.iter().skip(1).flatten().filter(|group| !group.is_empty());
            if !rule || !is_program(line, start) {
                spans.extend(groups.map(|group| (group.start(), group.end(), index)));
            }
        }
    }
}

/// Whether the word that holds this place names a program: `(passwd:chauthtok)` as PAM writes it, or a tag before a known message.
fn is_program(line: &[u8], at: usize) -> bool {
    let before = line.get(..at).unwrap_or_default();
    let word = before
        .iter()
        .rev()
        .take(PROGRAM_MAX_BYTES)
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
        .count();
    let opens = before.len().checked_sub(word + 1).and_then(|place| before.get(place)) == Some(&b'(');
    let rest = line.get(at..).unwrap_or_default();
    let pam = || rest.iter().take(PROGRAM_MAX_BYTES).find(|byte| !byte.is_ascii_alphanumeric()) == Some(&b':');
    opens && pam() || rest.starts_with(b"passwd: password ") || rest.starts_with(b"passwd: pam_")
}

/// One bit per built-in pattern that has no needles.
fn unconditional() -> u32 {
    let without = RULES.iter().enumerate().filter(|(_, rule)| rule.needles.is_empty());
    without.fold(0, |bits, (index, _)| bits | 1 << index)
}

fn compile(name: &str, pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(PATTERN_MAX_BYTES)
        .build()
        .map_err(|error| format!("scrub {name:?}: {error}"))
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("patterns", &self.patterns.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
