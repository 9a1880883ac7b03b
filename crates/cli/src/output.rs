//! How records are shown: as text or JSON, in colour or not, through a pager or not, and never so that they do something to
//! the terminal.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;
use sigillo_proto::v1;

use crate::{failure::Failure, global::GlobalArgs};

pub(crate) use sigillo_verify::show::{escape, fields};
mod pager;
mod text;

use escape::SafeJson;
use fields::Shown;
use pager::Pager;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object a line, all fields.
    Json,
}

/// Whether in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Also into files and pipes
    Always,
    /// Plain text
    Never,
}

/// How one record is shown.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    pub(crate) format: Format,
    pub(crate) color: bool,
    /// All fields, in text.
    pub(crate) verbose: bool,
    /// In which times are shown in text.
    pub(crate) zone: TimeZone,
}

impl Style {
    pub(crate) fn new(global: &GlobalArgs, verbose: bool) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        };
        Self { format: global.output, color, verbose, zone: TimeZone::system() }
    }

    /// One record, with its line's end.
    pub(crate) fn record(&self, result: &v1::ResultRecord) -> Result<Vec<u8>, Failure> {
        let shown = Shown::read(result).ok_or_else(|| {
            Failure::Unreadable("the server sent a record with an envelope that can't be read".into())
        })?;
        Ok(match self.format {
            Format::Json => json_line(&shown.to_json()),
            Format::Text => text::record(&shown, self).into_bytes(),
        })
    }
}

/// One line of JSON that is safe to show.
pub(crate) fn json_line(value: &Value) -> Vec<u8> {
    let mut line = Vec::new();
    // Writing a value to memory can't fail.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut line, SafeJson));
    line.push(b'\n');
    line
}

/// Where output goes.
pub(crate) enum Sink {
    /// Standard output, line by line when somebody watches.
    Plain { out: io::BufWriter<io::Stdout>, watched: bool },
    /// A pager that owns the terminal.
    Paged(Pager),
}

impl Sink {
    /// Standard output; `followed` when each record should be seen at once, also at the other end of a pipe.
    pub(crate) fn plain(followed: bool) -> Self {
        let out = io::stdout();
        let watched = followed || out.is_terminal();
        Self::Plain { out: io::BufWriter::with_capacity(64 << 10, out), watched }
    }

    /// A pager if output goes to a terminal and the user wants one, else standard output.
    pub(crate) fn paged(global: &GlobalArgs) -> Self {
        let pager = if global.no_pager || !io::stdout().is_terminal() { None } else { Pager::start() };
        pager.map_or_else(|| Self::plain(false), Self::Paged)
    }

    /// Writes one record or answer.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Plain { out, watched } => {
                out.write_all(bytes)?;
                if *watched {
                    out.flush()?;
                }
            }
            Self::Paged(pager) => pager.write(bytes)?,
        }
        Ok(())
    }

    /// True while a pager owns the terminal, so that an interrupt is meant for it.
    pub(crate) fn is_paged(&self) -> bool {
        matches!(self, Self::Paged(_))
    }

    /// Writes what is left, and waits until the user has left the pager.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Plain { mut out, .. } => out.flush()?,
            Self::Paged(pager) => pager.finish()?,
        }
        Ok(())
    }
}
