//! Whether the systemd journal can be read, and has what is asked for.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sigillo_client::plain;
use tokio::{process::Command, time::timeout};

use super::Finding;
use crate::JournaldSettings;

/// Where journald keeps its files.
const FOLDERS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
/// Longest time that journalctl may look for an entry.
const WAIT: Duration = Duration::from_secs(30);

/// Tries to read, and looks for each unit.
pub(crate) async fn journald(settings: &JournaldSettings) -> Vec<Finding> {
    let name = settings.name();
    let Some(program) = find_program("journalctl") else {
        return vec![(false, format!("{name}: there is no journalctl on this machine"))];
    };
    let folders = match &settings.directory {
        Some(directory) => vec![directory.clone()],
        None => FOLDERS.map(PathBuf::from).to_vec(),
    };
    let mut findings = vec![match has_entry(settings, None).await {
        Ok(true) => (true, format!("{name} is read with {}", program.display())),
        Ok(false) => {
            (false, format!("{name}: there is no entry that can be seen; is the user in the group systemd-journal?"))
        }
        Err(error) => (false, format!("{name}: {error}")),
    }];
    findings.extend(unreadable(&folders).map(|(path, count)| {
        let what = "join the user to the group systemd-journal, since what it can't see would be taken for lost";
        (false, format!("{name}: {} can't be read, {count} in all: {what}", path.display()))
    }));
    for unit in &settings.units {
        findings.push(match has_entry(settings, Some(unit)).await {
            Ok(true) => (true, format!("{name}: unit {unit} has entries")),
            Ok(false) => (false, format!("{name}: there is no entry of unit {unit}; the agent will wait for it")),
            Err(error) => (false, format!("{name}: unit {unit}: {error}")),
        });
    }
    findings
}

/// Whether there is an entry; of a unit.
async fn has_entry(settings: &JournaldSettings, unit: Option<&str>) -> Result<bool, String> {
    let mut command = Command::new("journalctl");
    command
        .args(["--quiet", "--no-pager", "--output=export", "--output-fields=_PID", "--lines=1"])
        .args(settings.place())
        .args(unit.map(|unit| format!("--unit={unit}")));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(WAIT, output).await.map_err(|_| "journalctl does not answer".to_owned())?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(!output.stdout.is_empty());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}, {}", output.status, plain(said.trim())))
}

/// Files of the journal that may not be read: the first one, and how many there are.
fn unreadable(folders: &[PathBuf]) -> Option<(PathBuf, usize)> {
    let within = |folder: &Path| match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => vec![folder.to_owned()],
        Err(_) => Vec::new(),
    };
    let is_denied = |path: &PathBuf| {
        let opened = if path.is_dir() { fs::read_dir(path).map(drop) } else { File::open(path).map(drop) };
        opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    // One folder for each machine.
    let outer = folders.iter().flat_map(|folder| within(folder));
    let all = outer.flat_map(|path| if path.is_dir() { [within(&path), vec![path]].concat() } else { vec![path] });
    let mut denied: Vec<_> = all.filter(is_denied).collect();
    denied.sort();
    denied.dedup();
    Some((denied.first()?.clone(), denied.len()))
}

fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::as_nobody, *};

    #[test]
    fn files_that_may_not_be_read_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let machine = dir.path().join("0123");
        fs::create_dir(&machine).unwrap();
        for (name, mode) in [("system.journal", 0o640), ("user-1000.journal", 0o600), ("open.journal", 0o644)] {
            fs::write(machine.join(name), "").unwrap();
            super::super::testing::chmod(&machine.join(name), mode);
        }
        super::super::testing::chmod(dir.path(), 0o755);
        let folders = vec![dir.path().to_owned(), dir.path().join("none")];
        let expected = machine.join("system.journal");
        assert_eq!(as_nobody(move || unreadable(&folders)), Some((expected, 2)));
        super::super::testing::chmod(&machine, 0o700);
        let folders = vec![dir.path().to_owned()];
        assert_eq!(as_nobody(move || unreadable(&folders)), Some((machine, 1)));
    }
}
