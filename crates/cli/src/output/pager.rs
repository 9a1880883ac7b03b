//! A pager, as good terminals have it: `$SIGILLO_PAGER`, `$PAGER`, else `less -FRSX`.

use std::{
    env,
    io::{self, Write},
    process::{Child, ChildStdin, Command, Stdio},
};

/// A running pager.
pub(crate) struct Pager {
    child: Child,
    input: ChildStdin,
}

impl Pager {
    /// Starts the pager, unless it is switched off (empty or `cat`) or can't be started.
    pub(crate) fn start() -> Option<Self> {
        let command = ["SIGILLO_PAGER", "PAGER"].iter().find_map(|name| env::var(name).ok());
        let command = command.unwrap_or_else(|| "less -FRSX".to_owned());
        if matches!(command.trim(), "" | "cat") {
            return None;
        }
        // Through a shell, for these variables hold commands with options.
        let mut child = Command::new("sh").arg("-c").arg(&command).stdin(Stdio::piped()).spawn().ok()?;
        let input = child.stdin.take()?;
        Some(Self { child, input })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.write_all(bytes)
    }

    /// Tells the pager that nothing more comes, and waits until the user leaves it.
    pub(crate) fn finish(self) -> io::Result<()> {
        let Self { mut child, input } = self;
        drop(input);
        child.wait().map(drop)
    }
}
