//! `sigillo-agent check`: is everything there that the agent needs?

use std::{fs::File, path::PathBuf};

use sigillo_client::{Connection, plain, ship};

use crate::{AGENT, Config, source::file};

/// Looks at everything that the configuration names; one line per thing, true if it is fine.
pub async fn check(config: &Config) -> Vec<(bool, String)> {
    let mut findings = Vec::new();
    for file in &config.files {
        let paths = file::found(file);
        if paths.is_empty() {
            findings.push((false, format!("file {}: there is none; the agent will wait for it", file.name())));
        }
        for path in paths {
            let name = path.display();
            findings.push(match File::open(&path) {
                Ok(_) => (true, format!("file {name} is readable")),
                Err(error) => (false, format!("file {name}: {error}; the agent will wait for it")),
            });
        }
    }
    if !config.journald.is_empty() {
        let journalctl = find_program("journalctl");
        findings.push(match journalctl {
            Some(path) => (true, format!("systemd journal is read with {}", path.display())),
            None => (false, "systemd journal: there is no journalctl on this machine".into()),
        });
    }
    if config.reads_stdin() {
        findings.push((true, "standard input is read".into()));
    }
    findings.push(match server(config).await {
        Ok(line) => (true, line),
        Err(error) => (false, format!("server: {error}")),
    });
    findings
}

async fn server(config: &Config) -> Result<String, sigillo_client::ClientError> {
    let session = Connection::open(&config.server).await?.append(ship::hello_asking(AGENT)).await?;
    let welcome = &session.welcome;
    let source: String = hex::encode(&welcome.source);
    Ok(format!(
        "server {} answers: journal {}, we are source {source} of class {}, newest epoch {}, next record {}",
        config.server.url,
        plain(&welcome.origin),
        plain(&welcome.class),
        welcome.epoch,
        welcome.next_sequence
    ))
}

fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}
