//! Going over text from word to word.

/// What stands between two texts.
pub(super) fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// What follows a text, up to the next space or the end.
pub(super) fn word_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split([' ', '\t', '\n']).next().filter(|word| !word.is_empty())
}

/// The first word and the rest.
pub(super) fn word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

/// Without the quotes around it.
pub(super) fn unquoted(text: &str) -> &str {
    let bare = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    bare('\'').or_else(|| bare('"')).unwrap_or(text)
}

/// A count, if it is one.
pub(super) fn count(text: &str) -> Option<i64> {
    text.parse().ok().filter(|count| *count >= 0)
}
