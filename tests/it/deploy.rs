//! What is copied onto a host: the first steps that README prints, the example configurations, the service units.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use sigillo_server::config::Settings;
use sigillo_testkit::binaries::binary;

use crate::support::{Dev, said, skipped};

/// The commands that README prints for a new host, without comments.
fn first_steps() -> Vec<String> {
    let readme = fs::read_to_string("README.md").unwrap();
    let (_, steps) = readme.split_once("First steps on a new host").expect("README says how a host begins");
    let commands =
        steps.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| line.starts_with("    "));
    commands.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn the_first_steps_on_a_host_work_as_printed_and_leave_its_key_to_root_alone() {
    let dev = Dev::start();
    let (dir, etc) = (dev.dir.path(), dev.dir.path().join("etc"));
    // What lies in the folder of somebody who has just made a certificate, and was careless.
    let steps = dir.join("steps");
    fs::create_dir(&steps).unwrap();
    for (from, to) in
        [("ca.pem", "ca.pem"), ("agent.pem", "web-1.pem"), ("agent.key", "web-1.key"), ("trust.txt", "trust.txt")]
    {
        fs::copy(dir.join(from), steps.join(to)).unwrap();
        fs::set_permissions(steps.join(to), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let log = dir.join("auth.log");
    fs::write(&log, "a line\n").unwrap();
    let example = fs::read_to_string("deploy/agent.example.toml").unwrap();
    let (head, _) = example.split_once("[[file]]").unwrap();
    let head = head
        .replace("https://journal.example.net:7443", &format!("https://{}", dev.server.listen()))
        .replace("/etc/sigillo", etc.to_str().unwrap())
        .replace("/var/lib/sigillo-agent", dir.join("agent-state").to_str().unwrap());
    fs::write(steps.join("agent.toml"), format!("{head}[[file]]\npath = \"{}\"\n", log.display())).unwrap();

    let commands = first_steps();
    let [install, check, enable] = commands.as_slice() else { panic!("not three commands: {commands:#?}") };
    let programs = binary("sigillo-agent").unwrap();
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let run = |command: &str| {
        let command = command.strip_prefix("sudo ").unwrap_or_else(|| panic!("{command}: not as root"));
        let command = command.replace("/etc/sigillo", etc.to_str().unwrap());
        // As on a machine that forbids nothing by itself.
        let script = format!("umask 022; {command}");
        let output = Command::new("sh").args(["-c", &script]).current_dir(&steps).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{command}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run(install);
    let key = fs::metadata(etc.join("web-1.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o7777, 0o600, "who else reads the host's key?");
    let found = run(check);
    assert!(found.contains("of class service"), "it says as whom the server knows it: {found}");
    let unit = enable.strip_prefix("sudo systemctl enable --now ").unwrap();
    assert!(Path::new("deploy").join(format!("{unit}.service")).is_file(), "{unit}");
}

#[test]
fn the_example_configurations_are_read_by_their_programs() {
    // The witness has a test of its own.
    sigillo_agent::Config::load(Path::new("deploy/agent.example.toml")).unwrap();
    let settings = Settings::load(Path::new("deploy/sigillod.example.toml")).unwrap();
    assert!(settings.checkpoint.is_some() && settings.sources.len() == 2);
    let examples = files("example.toml").len();
    assert_eq!(examples, 3, "each example is read by a test");
}

#[test]
fn systemd_understands_the_units() {
    if !Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skipped("systemd-analyze is not installed, so the units are not verified");
    }
    let dir = tempfile::tempdir().unwrap();
    let programs = binary("sigillod").unwrap();
    let programs = programs.parent().unwrap().to_str().unwrap();
    let units = files(".service");
    assert_eq!(units.len(), 4);
    for unit in units {
        // It also looks whether the programs are where the unit says.
        let text = fs::read_to_string(&unit).unwrap().replace("/usr/bin/sigill", &format!("{programs}/sigill"));
        let path = dir.path().join(unit.file_name().unwrap());
        fs::write(&path, text).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        // Of the machine's own units it may say what it likes.
        let name = unit.file_name().unwrap().to_str().unwrap();
        let told = said(&output);
        assert!(output.status.success() && !told.lines().any(|line| line.contains(name)), "{name}: {told}");
    }
}

/// Files in `deploy` whose names end so.
fn files(end: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir("deploy").unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().unwrap().ends_with(end)).collect()
}
