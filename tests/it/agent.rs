//! The agent as a process.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sigillo_testkit::{binaries::binary, process::wait_exit};

use crate::support::{Dev, sigillo_json};

#[test]
fn a_signal_ends_the_agent_while_standard_input_is_open() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let connection = fs::read_to_string(dir.join("agent.toml")).unwrap();
    // `stdin` belongs to the top level, before the first table.
    fs::write(dir.join("stdin-agent.toml"), format!("stdin = true\n{connection}")).unwrap();
    let mut agent = Command::new(binary("sigillo-agent").unwrap())
        .current_dir(dir)
        .args(["run", "--config", "stdin-agent.toml"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = agent.stdin.take().unwrap();
    stdin.write_all(b"before the signal\n").unwrap();
    // Once this line is durable the next read has begun.
    let deadline = Instant::now() + Duration::from_secs(20);
    while sigillo_json(dir, &["query", "before the signal", "--source", "dev-agent", "--reason", "test"]).is_empty() {
        assert!(Instant::now() < deadline, "the line does not arrive");
    }
    let killed = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = wait_exit(&agent, Duration::from_secs(5)).unwrap();
    drop(stdin);
    assert!(agent.wait().unwrap().success());
    assert!(ended, "it has waited for the end of its input");
}
