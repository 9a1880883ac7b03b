//! What the machine must have beside Rust, and installing what it lacks.

use std::{
    env, fs,
    io::{IsTerminal, stdin},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// What a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Compiling everything. RocksDB: a C++ compiler and, for its binding, libclang with its headers. aws-lc, zstd, lz4 and
    /// mimalloc: the C compiler that comes with it.
    Build,
    /// The same, and strace, which makes system calls fail.
    Drill,
    /// As `Build`, and where it can be had what the agent is measured beside.
    Bench,
    /// As `Build`, and where they can be had programs whose logs the tests ship.
    Test,
}

/// Something needed: how to see that it is there, and the Debian package that brings it.
struct Tool {
    what: &'static str,
    package: &'static str,
    present: fn() -> bool,
    /// What the package would have run as a service. It is wanted as a program.
    service: &'static str,
}

impl Tool {
    const fn new(what: &'static str, package: &'static str, present: fn() -> bool) -> Self {
        Self { what, package, present, service: "" }
    }

    const fn with_service(self, service: &'static str) -> Self {
        Self { service, ..self }
    }
}

const COMPILER: Tool = Tool::new("a C++ compiler", "g++", || in_path("c++") && in_path("cc"));
const LIBCLANG: Tool = Tool::new("libclang", "libclang-dev", has_libclang);
const STRACE: Tool = Tool::new("strace", "strace", || in_path("strace"));

const RSYSLOG: Tool = Tool::new("rsyslog", "rsyslog", || is_file("/usr/sbin/rsyslogd")).with_service("rsyslog.service");
const NGINX: Tool = Tool::new("nginx", "nginx-light", || is_file("/usr/sbin/nginx")).with_service("nginx.service");
const SSHD: Tool = Tool::new("sshd", "openssh-server", || is_file("/usr/sbin/sshd")).with_service("ssh.service");
const SSH: Tool = Tool::new("ssh", "openssh-client", || in_path("ssh"));
const JOURNALD: Tool = Tool::new("systemd-journald", "systemd", has_journald);
const PYTHON: Tool = Tool::new("Python with venv", "python3-venv", has_venv);

/// Installs what is missing, saying so; an error names what to install where that can't be done here. Without what is only good to have
/// things go on, and whoever misses it says so.
pub(crate) fn provide(needs: Needs) -> Result<()> {
    let (tools, welcome): (&[Tool], &[Tool]) = match needs {
        Needs::Build => (&[COMPILER, LIBCLANG], &[]),
        Needs::Drill => (&[COMPILER, LIBCLANG, STRACE], &[]),
        Needs::Bench => (&[COMPILER, LIBCLANG], &[RSYSLOG]),
        Needs::Test => (&[COMPILER, LIBCLANG], &[NGINX, SSHD, SSH, JOURNALD, PYTHON]),
    };
    if let Err(error) = install(welcome) {
        eprintln!("xtask: going on without: {error:#}");
    }
    install(tools)
}

fn install(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !(tool.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let words = missing.iter().map(|tool| tool.what).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    ensure!(
        in_path("apt-get"),
        "this machine lacks {words}, and has no apt-get to install it with: install what your system calls {} and try again",
        packages.join(", ")
    );
    eprintln!("xtask: this machine lacks {words}; installing {}", packages.join(" "));
    let services = missing.iter().map(|tool| tool.service).collect::<Vec<_>>().join(" ");
    apt_get(&["update", "-qq"], "")?;
    let options = ["install", "-y", "-qq", "--no-install-recommends"];
    apt_get(&options.into_iter().chain(packages.iter().copied()).collect::<Vec<_>>(), services.trim())?;
    match missing.iter().find(|tool| !(tool.present)()) {
        Some(tool) => bail!("{} is still not found after installing {}", tool.what, tool.package),
        None => Ok(()),
    }
}

/// Runs apt-get so that no package starts a service; then takes those that it would start at the next boot out of there.
const APT_GET: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' INT TERM
    printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy || exit
fi
apt-get "$@" || exit
[ ! -d /run/systemd/system ] || [ -z "$SERVICES" ] || systemctl --quiet disable $SERVICES || true
"#;

fn apt_get(arguments: &[&str], services: &str) -> Result<()> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("env")
    } else if in_path("sudo") {
        let mut sudo = Command::new("sudo");
        // Without somebody to type a password, fail instead of waiting.
        if !stdin().is_terminal() {
            sudo.arg("-n");
        }
        sudo.arg("env");
        sudo
    } else {
        bail!("installing needs root or sudo: run `apt-get {}` as root and try again", arguments.join(" "));
    };
    let words = arguments.join(" ");
    eprintln!("xtask: apt-get {words}");
    let status = command
        .args(["DEBIAN_FRONTEND=noninteractive", &format!("SERVICES={services}"), "sh", "-c", APT_GET, "apt-get"])
        .args(arguments)
        .status()
        .context("apt-get could not be started")?;
    ensure!(status.success(), "`apt-get {words}` failed ({status})");
    Ok(())
}

/// Daemons are where no ordinary user's PATH leads.
fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

/// True if a program of this name is in one of PATH's directories.
pub(crate) fn in_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn has_journald() -> bool {
    in_path("journalctl") && ["/lib", "/usr/lib"].iter().any(|lib| is_file(&format!("{lib}/systemd/systemd-journald")))
}

fn has_venv() -> bool {
    let check = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    check.is_ok_and(|output| output.status.success())
}

/// Looks where the binding generator does.
fn has_libclang() -> bool {
    let mut dirs: Vec<PathBuf> = env::var_os("LIBCLANG_PATH").map(PathBuf::from).into_iter().collect();
    dirs.extend(["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"].map(PathBuf::from));
    for parent in ["/usr/lib", "/usr/local"] {
        // /usr/lib/llvm-14/lib, /usr/lib/x86_64-linux-gnu, /usr/local/llvm/lib
        dirs.extend(entries(Path::new(parent)).flat_map(|dir| [dir.join("lib"), dir]));
    }
    dirs.iter().any(|dir| is_libclang(dir) || entries(dir).any(|file| is_libclang(&file)))
}

fn is_libclang(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (name.starts_with("libclang.so") || name.starts_with("libclang-") && name.contains(".so")) && path.exists()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}
