//! Options that every command takes, and where the connection comes from.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use sigillo_client::{Connection, Endpoint, Guard};

use crate::{
    failure::Failure,
    output::{Color, Format},
};

/// How long a server is waited for that shows an older checkpoint than the one remembered.
const GRACE: Duration = Duration::from_secs(3);

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Configuration file with `url`, `ca`, `cert` and `key` [default: ./sigillo-dev/sigillo.toml,
    /// ~/.config/sigillo/sigillo.toml or /etc/sigillo/sigillo.toml, the first there is]
    #[arg(long, global = true, value_name = "FILE", env = "SIGILLO_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Server, instead of the configured one: https://host:port
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// PEM file with the authority that the server's certificate comes from, instead of the configured one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM file with the certificate that says who you are, instead of the configured one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate, instead of the configured one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Trust file: who signs the journal's checkpoints and receipts, instead of the configured one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORM")]
    pub(crate) output: Format,
    /// Whether to use colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
    /// Don't start a pager (`$SIGILLO_PAGER`, `$PAGER`, else less) on a terminal
    #[arg(long, global = true)]
    pub(crate) no_pager: bool,
}

impl GlobalArgs {
    /// Connects to the server that options and configuration name, and holds its newest checkpoint to the one remembered, if there
    /// is a trust file.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let (connection, guard) = self.connect_guarded().await?;
        if let Some(guard) = guard {
            guard.look(&connection).await?;
        }
        Ok(connection)
    }

    /// The same for a command that holds the server to it by itself.
    pub(crate) async fn connect_guarded(&self) -> Result<(Connection, Option<Arc<Guard>>), Failure> {
        let endpoint = self.endpoint()?;
        let guard = match &endpoint.trust {
            Some(trust) => {
                let dir = endpoint.remember.clone().map_or_else(remember_dir, Ok)?;
                Some(Arc::new(Guard::open(trust, &dir, GRACE)?))
            }
            None => None,
        };
        Ok((Connection::open(&endpoint).await?, guard))
    }

    /// The trust file that options or configuration name.
    pub(crate) fn trust(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(self.endpoint()?.trust)
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        if let (Some(url), Some(ca), Some(cert), Some(key)) = (&self.server, &self.ca, &self.cert, &self.key) {
            let (url, ca, cert, key) = (url.clone(), ca.clone(), cert.clone(), key.clone());
            return Ok(Endpoint { url, ca, cert, key, name: None, trust: self.trust.clone(), remember: None });
        }
        let file = match &self.config {
            Some(file) => file.clone(),
            None => find(&candidates())?,
        };
        let mut endpoint = read(&file)?;
        if let Some(server) = &self.server {
            endpoint.url.clone_from(server);
            // The configured name belongs to the configured server.
            endpoint.name = None;
        }
        for (given, configured) in
            [(&self.ca, &mut endpoint.ca), (&self.cert, &mut endpoint.cert), (&self.key, &mut endpoint.key)]
        {
            if let Some(given) = given {
                configured.clone_from(given);
            }
        }
        if self.trust.is_some() {
            endpoint.trust.clone_from(&self.trust);
        }
        Ok(endpoint)
    }
}

/// Where checkpoints are remembered, unless the configuration says so.
fn remember_dir() -> Result<PathBuf, Failure> {
    let state = env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".local/state")));
    let no_place =
        "no folder to remember checkpoints in: give one as `remember` in the configuration, or set $XDG_STATE_HOME";
    state.map(|state| state.join("sigillo")).ok_or_else(|| Failure::Usage(no_place.into()))
}

fn candidates() -> Vec<PathBuf> {
    let home = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".config")))
        .map(|folder| folder.join("sigillo/sigillo.toml"));
    [Some("sigillo-dev/sigillo.toml".into()), home, Some("/etc/sigillo/sigillo.toml".into())]
        .into_iter()
        .flatten()
        .collect()
}

fn find(candidates: &[PathBuf]) -> Result<PathBuf, Failure> {
    candidates.iter().find(|file| file.exists()).cloned().ok_or_else(|| {
        let places: Vec<String> = candidates.iter().map(|file| file.display().to_string()).collect();
        Failure::Usage(format!(
            "no configuration: there is none of {}. Write one (url, ca, cert, key), name one with --config, or give all of \
             --server, --ca, --cert and --key",
            places.join(", ")
        ))
    })
}

fn read(file: &Path) -> Result<Endpoint, Failure> {
    let wrong = |what: String| Failure::Usage(format!("configuration {}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let mut endpoint: Endpoint = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    endpoint.resolve(file.parent().unwrap_or(Path::new("")));
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(config: &Path) -> GlobalArgs {
        GlobalArgs {
            config: Some(config.to_owned()),
            server: None,
            ca: None,
            cert: None,
            key: None,
            trust: None,
            output: Format::Text,
            color: Color::Auto,
            no_pager: false,
        }
    }

    #[test]
    fn options_go_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sigillo.toml");
        fs::write(&file, "url = 'https://a:1'\nca = 'ca.pem'\ncert = '/x/me.pem'\nkey = 'me.key'\nname = 'log'\n")
            .unwrap();
        let configured = global(&file).endpoint().unwrap();
        assert_eq!((configured.url.as_str(), configured.ca), ("https://a:1", folder.path().join("ca.pem")));
        assert_eq!((configured.cert, configured.name.as_deref()), ("/x/me.pem".into(), Some("log")));

        let given = GlobalArgs { server: Some("https://b".into()), key: Some("mine.key".into()), ..global(&file) };
        let given = given.endpoint().unwrap();
        assert_eq!((given.url.as_str(), given.key, given.name), ("https://b", "mine.key".into(), None));
        assert_eq!(given.ca, folder.path().join("ca.pem"));
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("none.toml");
        let told = |result: Result<Endpoint, Failure>| result.unwrap_err().to_string();
        assert!(told(global(&file).endpoint()).contains("none.toml"));
        fs::write(&file, "url = 3").unwrap();
        assert!(told(global(&file).endpoint()).contains("none.toml"));
        assert!(find(std::slice::from_ref(&file)).is_ok());
        assert!(find(&[folder.path().join("other")]).unwrap_err().to_string().contains("--config"));
    }
}
