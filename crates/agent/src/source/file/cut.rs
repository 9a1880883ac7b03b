//! Bytes into lines and messages. Nothing is kept between two cuts but the number of pieces of a line that were cut off, so
//! that reading can go on anywhere after a restart.

use std::ops::Range;

use memchr::memchr;
use regex::bytes::Regex;
use sigillo_proto::v1::Fragment;

use super::settings::Multiline;
use crate::line::LINE_MAX_BYTES;

/// Lines of one message at most.
const MESSAGE_LINES: usize = 1_024;

/// What belongs together.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    Line,
    Start(Box<Regex>),
    Indented,
}

impl Rule {
    /// An invalid expression, which the configuration does not let through, joins nothing.
    pub(super) fn new(settings: Option<&Multiline>) -> Self {
        match settings {
            Some(Multiline::Start(start)) => Regex::new(start).map_or(Self::Line, |start| Self::Start(start.into())),
            Some(Multiline::Indented(true)) => Self::Indented,
            Some(Multiline::Indented(false)) | None => Self::Line,
        }
    }

    pub(super) fn joins(&self) -> bool {
        !matches!(self, Self::Line)
    }

    fn continues(&self, line: &[u8]) -> bool {
        match self {
            Self::Line => false,
            Self::Start(start) => !start.is_match(line),
            Self::Indented => matches!(line.first(), Some(b' ' | b'\t')),
        }
    }
}

/// What stands behind the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// More may come.
    Open,
    /// Nothing came for a while: a message is over, a line without an end waits.
    Quiet,
    /// Nothing will ever come.
    Final,
}

/// A line, a message, or a piece of a line that is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Its bytes, without the line end.
    pub(super) range: Range<usize>,
    /// Where the next one begins.
    pub(super) next: usize,
    pub(super) fragment: Option<Fragment>,
}

/// The first thing in `data`. `pieces` counts what was cut off the line before, and is kept up to date.
pub(super) fn cut(data: &[u8], pieces: &mut u32, rule: &Rule, end: End) -> Option<Cut> {
    let first = cut_line(data, pieces, end)?;
    if first.fragment.is_some() || !rule.joins() || first.range.end == first.next {
        return Some(first);
    }
    let mut message = first;
    for _ in 1..MESSAGE_LINES {
        let rest = data.get(message.next..)?;
        let line_end = memchr(b'\n', rest);
        let line = rest.get(..line_end.unwrap_or(rest.len()))?;
        let decided = line_end.is_some() || end != End::Open;
        if rest.is_empty() || message.next + line.len() > LINE_MAX_BYTES {
            let is_over = !rest.is_empty() || end != End::Open;
            return is_over.then_some(message);
        }
        if !decided && !matches!(rule, Rule::Indented) {
            return None;
        }
        if !rule.continues(line) || line_end.is_none() && end == End::Quiet {
            return Some(message);
        }
        if !decided {
            return None;
        }
        let stop = message.next + line.len();
        message = Cut { range: 0..stop, next: stop + usize::from(line_end.is_some()), fragment: None };
        if line_end.is_none() {
            break;
        }
    }
    Some(message)
}

fn cut_line(data: &[u8], pieces: &mut u32, end: End) -> Option<Cut> {
    // A line of exactly the greatest length is whole: its end may come one byte later.
    let window = data.get(..=LINE_MAX_BYTES).unwrap_or(data);
    let (stop, next) = match memchr(b'\n', window) {
        Some(stop) => (stop, stop + 1),
        None if window.len() > LINE_MAX_BYTES => {
            let fragment = Some(Fragment { index: *pieces, last: false });
            *pieces = pieces.saturating_add(1);
            return Some(Cut { range: 0..LINE_MAX_BYTES, next: LINE_MAX_BYTES, fragment });
        }
        None if end == End::Final && !data.is_empty() => (data.len(), data.len()),
        None => return None,
    };
    let fragment = (*pieces > 0).then_some(Fragment { index: *pieces, last: true });
    *pieces = 0;
    Some(Cut { range: 0..stop, next, fragment })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(data: &[u8], rule: &Rule, end: End) -> Vec<String> {
        let (mut pieces, mut at, mut found) = (0, 0, Vec::new());
        while let Some(cut) = cut(&data[at..], &mut pieces, rule, end) {
            found.push(String::from_utf8_lossy(&data[at..][cut.range]).into_owned());
            at += cut.next;
        }
        found
    }

    fn start() -> Rule {
        Rule::new(Some(&Multiline::Start("^[0-9]".into())))
    }

    #[test]
    fn a_line_waits_for_its_end() {
        assert_eq!(messages(b"one\n\ntwo\xff\r\nrest", &Rule::Line, End::Open), ["one", "", "two\u{fffd}\r"]);
        assert_eq!(messages(b"one\nrest", &Rule::Line, End::Quiet), ["one"]);
        assert_eq!(messages(b"one\nrest", &Rule::Line, End::Final), ["one", "rest"]);
    }

    #[test]
    fn long_lines_come_in_numbered_pieces_and_exact_ones_whole() {
        let mut data = vec![b'x'; LINE_MAX_BYTES];
        data.push(b'\n');
        let mut pieces = 0;
        let whole = cut(&data, &mut pieces, &start(), End::Open);
        assert_eq!(whole, None, "it may go on in the next line");
        assert_eq!(cut(&data, &mut pieces, &Rule::Line, End::Open).unwrap().fragment, None);
        data.insert(0, b'x');
        for rule in [Rule::Line, start(), Rule::Indented] {
            let first = cut(&data, &mut pieces, &rule, End::Open).unwrap();
            assert_eq!((first.next, first.fragment), (LINE_MAX_BYTES, Some(Fragment { index: 0, last: false })));
            let last = cut(&data[first.next..], &mut pieces, &rule, End::Open).unwrap();
            assert_eq!((last.range, last.fragment, pieces), (0..1, Some(Fragment { index: 1, last: true }), 0));
        }
    }

    #[test]
    fn a_message_ends_where_the_next_begins_or_nothing_comes() {
        let data = b"1 a\n  b\n\n2 c\n d";
        assert_eq!(messages(data, &start(), End::Open), ["1 a\n  b\n"]);
        assert_eq!(messages(data, &start(), End::Quiet), ["1 a\n  b\n", "2 c"]);
        assert_eq!(messages(data, &start(), End::Final), ["1 a\n  b\n", "2 c\n d"]);
        assert_eq!(messages(b"x\n y\n\tz\nw\n", &Rule::Indented, End::Open), ["x\n y\n\tz"]);
        assert_eq!(messages(b"x\n y\nw", &Rule::Indented, End::Open), ["x\n y"], "one byte decides");
        assert_eq!(messages(b"x\n y\n z", &Rule::Indented, End::Open), [""; 0]);
    }

    #[test]
    fn messages_are_bounded_in_lines_and_bytes() {
        let many = " x\n".repeat(MESSAGE_LINES + 1);
        let found = messages(many.as_bytes(), &Rule::Indented, End::Final);
        assert_eq!(found.iter().map(|message| message.lines().count()).collect::<Vec<_>>(), [MESSAGE_LINES, 1]);
        let large = format!(" {}\n", "x".repeat(99_998)).repeat(6);
        let found = messages(large.as_bytes(), &Rule::Indented, End::Final);
        assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [199_999; 3]);
    }
}
