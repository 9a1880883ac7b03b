//! What lines say, in the words of the audit core. PROFILES.md lists all names.
//!
//! A profile never fails: a line that does not fit stays a plain record. Parsers go over the text once, from fixed words to fixed
//! words; where a sender may choose a name freely, from the end, so that nobody can put words into another's mouth.

pub(crate) mod facts;
mod scan;
mod sshd;
#[cfg(test)]
mod testing;

use std::borrow::Cow;

use serde::Deserialize;

use crate::{profile::facts::Facts, when::Clock};

/// Bytes of a message that profiles look at. What names a fact stands at the beginning.
const MESSAGE_MAX_BYTES: usize = 64 << 10;

/// By which words a source's lines are understood.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// By the program that wrote the line, if it says so, else by the name of the file.
    #[default]
    Auto,
    /// By none: time, severity, host and program at most.
    Plain,
    /// OpenSSH's server.
    Sshd,
}

/// What is known of a message apart from its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The program that wrote it, or nothing.
    pub(crate) program: &'a str,
    /// What the stream's name makes us expect.
    pub(crate) expected: Profile,
    pub(crate) clock: Clock<'a>,
}

impl Profile {
    /// What a path, unit or channel makes us expect.
    pub(crate) fn of_stream(_name: &str) -> Self {
        Self::Plain
    }

    fn of_program(program: &str) -> Self {
        let name = program.rsplit('/').next().unwrap_or(program);
        match name {
            "sshd" | "sshd-session" | "sshd-auth" => Self::Sshd,
            _ => Self::Plain,
        }
    }

    /// What a message says, without its header. `None` if it says nothing that we know.
    pub(crate) fn read<'a>(self, message: &'a [u8], context: &Context<'_>) -> Option<Facts<'a>> {
        let profile = match self {
            Self::Auto if context.program.is_empty() => context.expected,
            Self::Auto => Self::of_program(context.program),
            profile => profile,
        };
        if profile == Self::Plain {
            return None;
        }
        let message = message.get(..MESSAGE_MAX_BYTES).unwrap_or(message);
        match String::from_utf8_lossy(message) {
            Cow::Borrowed(text) => profile.read_text(text, context),
            Cow::Owned(text) => profile.read_text(&text, context).map(Facts::into_owned),
        }
    }

    fn read_text<'a>(self, text: &'a str, _context: &Context<'_>) -> Option<Facts<'a>> {
        let text = text.trim_ascii();
        match self {
            Self::Auto | Self::Plain => None,
            Self::Sshd => sshd::read(text),
        }
    }
}
