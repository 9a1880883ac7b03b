//! `sigillo man`: manual pages.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::{Cli, failure::Failure};

/// Write the manual pages into a folder
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sigillo man ~/.local/share/man/man1
  man sigillo-query")]
pub(crate) struct ManArgs {
    /// Folder; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    fs::create_dir_all(&args.dir)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, &args.dir)?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: &Command, dir: &Path) -> Result<(), Failure> {
    for command in command.get_subcommands() {
        write_pages(command, dir)?;
    }
    let more = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    // A whole page of `Man` has these under EXTRA, where nobody looks for them.
    page.extend(sections(&more).into_bytes());
    man.render_version_section(&mut page)?;
    fs::write(dir.join(man.get_filename()), page)?;
    Ok(())
}

/// The paragraphs of a help's end as sections of a manual page, lines as they are.
fn sections(help: &str) -> String {
    let mut roff = String::new();
    for paragraph in help.split("\n\n") {
        let (title, text) = [("Exit codes:\n", "EXIT STATUS"), ("Examples:\n", "EXAMPLES")]
            .iter()
            .find_map(|(head, title)| Some((*title, paragraph.strip_prefix(head)?)))
            .unwrap_or(("NOTES", paragraph));
        if text.is_empty() {
            continue;
        }
        // Writing to memory can't fail.
        let _ = writeln!(roff, ".SH \"{title}\"\n.nf");
        for line in text.lines() {
            // A line that begins with a dot or an apostrophe would be a request.
            let _ = writeln!(roff, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq"));
        }
        roff.push_str(".fi\n");
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_sections_that_people_look_for() {
        let folder = tempfile::tempdir().unwrap();
        run(&ManArgs { dir: folder.path().to_owned() }).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("sigillo.1").contains(".SH \"EXIT STATUS\"\n.nf\n\\&  0  done"), "{}", page("sigillo.1"));
        let verify = page("sigillo-verify.1");
        for part in [".SH \"NOTES\"", ".SH \"EXIT STATUS\"", ".SH \"EXAMPLES\"", "sigillo verify \\-\\-db"] {
            assert!(verify.contains(part), "{part}: {verify}");
        }
        assert!(!verify.contains("EXTRA"));
    }
}
