//! A pager, as good terminals have it: `$SIGILLO_PAGER`, `$PAGER`, else `less -FRSX` where there is one.

use std::{
    env,
    io::{self, Write},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::failure::Failure;

/// A shell's exit codes for a command that it can't execute or find.
const NOT_STARTED: [i32; 2] = [126, 127];

/// A running pager.
pub(crate) struct Pager {
    command: String,
    child: Child,
    input: ChildStdin,
}

impl Pager {
    /// Starts the pager, unless it is switched off (empty or `cat`), or none is named and there is no `less`.
    pub(crate) fn start() -> Option<Self> {
        let command = ["SIGILLO_PAGER", "PAGER"].iter().find_map(|name| env::var(name).ok());
        let command = command.or_else(|| is_in_path("less").then(|| "less -FRSX".to_owned()))?;
        if matches!(command.trim(), "" | "cat") {
            return None;
        }
        Self::with(command)
    }

    fn with(command: String) -> Option<Self> {
        // Through a shell, for these variables hold commands with options.
        let mut child = Command::new("sh").arg("-c").arg(&command).stdin(Stdio::piped()).spawn().ok()?;
        let input = child.stdin.take()?;
        Some(Self { command, child, input })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.write_all(bytes)
    }

    /// Tells the pager that nothing more comes, and waits until the user leaves it. Fails if it never ran.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { command, mut child, input } = self;
        drop(input);
        let status = child.wait()?;
        if status.code().is_some_and(|code| NOT_STARTED.contains(&code)) {
            return Err(Failure::Unreadable(format!(
                "the pager {command:?} can't be started, so nothing was shown: correct $SIGILLO_PAGER or $PAGER, or use \
                 --no-pager"
            )));
        }
        Ok(())
    }
}

fn is_in_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pager_that_never_ran_is_a_failure() {
        let finish = |command: &str| Pager::with(command.to_owned()).unwrap().finish();
        assert!(finish("cat >/dev/null").is_ok());
        // A pager may end as it likes.
        assert!(finish("exit 1").is_ok());
        let failure = finish("sigillo-no-such-pager 2>/dev/null").unwrap_err();
        assert!(failure.to_string().contains("no-such-pager"), "{failure}");
        assert_eq!(failure.exit_code(), Some(3));
    }

    #[test]
    fn programs_are_looked_for() {
        assert!(is_in_path("sh") && !is_in_path("sigillo-no-such-pager"));
    }
}
