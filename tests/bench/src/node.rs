//! The node under test: the real program, on a free port, with a directory of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, get, with_body};
use crate::cores::{self, Core};
use crate::process::Process;
use crate::{program, root};

/// The name of the program.
const PROGRAM: &str = "sluicebox";

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Worker threads; none: what the program takes by itself.
    pub workers: Option<usize>,
    /// Where it runs.
    pub core: Core,
    /// With tenants and tokens, instead of the single tenant `dev`.
    pub tenants: bool,
    /// Settings as environment variables, without the prefix.
    pub settings: Vec<(&'static str, String)>,
    /// Other variables of the environment.
    pub variables: Vec<(&'static str, String)>,
    /// Which lines its log has.
    pub log: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        let (settings, variables) = Default::default();
        Self { workers: None, core: Core::Any, tenants: false, settings, variables, log: "warn" }
    }
}

impl Setup {
    /// One worker on the first core.
    #[must_use]
    pub fn one_core() -> Self {
        Self { workers: Some(1), core: Core::Server, ..Self::default() }
    }
}

/// A directory that nodes are started in, one after the other.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// A new directory.
    ///
    /// # Errors
    /// There is no room for one.
    pub fn new() -> Result<Self> {
        Ok(Self { dir: TempDir::with_prefix("sluicebox-bench-")? })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Adds a tenant and gives its token.
    ///
    /// # Errors
    /// The program refuses.
    pub fn add_tenant(&self, name: &str) -> Result<String> {
        let output = command()?
            .args(["--output", "json", "tenant", "--data-dir"])
            .arg(self.data())
            .args(["add", name])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let value: Value = serde_json::from_str(&text)?;
        value["token"].as_str().map(str::to_owned).context("no token in the answer")
    }

    /// Starts a node and waits until it says that it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, setup: &Setup) -> Result<Node> {
        let mut command = command()?;
        command.args(["--output", "json", "serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(self.data());
        if let Some(workers) = setup.workers {
            command.args(["--workers", &workers.to_string()]);
        }
        if !setup.tenants {
            command.arg("--dev");
        }
        for (name, value) in &setup.settings {
            command.env(format!("SLUICEBOX__{name}"), value);
        }
        command.envs(setup.variables.iter().map(|(name, value)| (name, value)));
        command.env("SLUICEBOX_LOG", setup.log);
        let log = self.dir.path().join("log");
        let log_file = std::fs::File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let begun = Instant::now();
        let mut process = cores::on(setup.core, || Process::start(&mut command))?;
        let mut line = String::new();
        BufReader::new(process.stdout().context("standard output was asked for")?)
            .read_line(&mut line)?;
        let ready_after = begun.elapsed();
        let said: Value = serde_json::from_str(&line).with_context(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            format!("the node did not start; its log says:\n{log}")
        })?;
        let url = said["url"].as_str().context("no address in what the node said")?;
        let address = url.trim_start_matches("http://").parse()?;
        Ok(Node { process, address, ready_after, log })
    }
}

/// The program, without settings of whoever runs the bench.
pub(crate) fn command() -> Result<Command> {
    let mut command = Command::new(program(PROGRAM)?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SLUICEBOX") || text.starts_with("OTEL_") {
            command.env_remove(&name);
        }
    }
    command.env("SLUICEBOX_LOG", "warn");
    Ok(command)
}

/// A running node. Ends when this is dropped.
#[derive(Debug)]
pub struct Node {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start until it said that it is ready.
    pub ready_after: Duration,
    log: PathBuf,
}

impl Node {
    /// A connection to it.
    ///
    /// # Errors
    /// It does not listen any more.
    pub async fn connect(&self) -> Result<Client> {
        Client::connect(self.address).await.with_context(|| format!("connect to {}", self.address))
    }

    /// The last lines of its log, for a bench that failed.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The lines of its log that have some text in them.
    #[must_use]
    pub fn lines(&self, text: &str) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Puts something at a path of a tenant; an answer other than 200 or 201 is an error.
    ///
    /// # Errors
    /// The node refuses.
    pub async fn put(&self, tenant: &Tenant, path: &str, kind: &str, body: &[u8]) -> Result<()> {
        let mut headers = tenant.headers();
        headers.push(("content-type", kind));
        let request = with_body("PUT", &tenant.path(path), &headers, body);
        let mut client = self.connect().await?;
        let reply = client.ask(&request).await?;
        ensure!(matches!(reply.status, 200 | 201), "{path}: {}", reply.unexpected());
        Ok(())
    }

    /// Uploads a guest from `target/guests`, under the last part of its name.
    ///
    /// # Errors
    /// It was not built, or the node refuses.
    pub async fn push(&self, tenant: &Tenant, guest: &str) -> Result<()> {
        let bytes = guest_bytes(guest)?;
        let name = guest.rsplit('/').next().unwrap_or(guest);
        self.put(tenant, &format!("components/{name}"), "application/wasm", &bytes).await
    }

    /// Applies a pipeline.
    ///
    /// # Errors
    /// The node refuses.
    pub async fn apply(&self, tenant: &Tenant, name: &str, manifest: &str) -> Result<()> {
        let path = format!("pipelines/{name}");
        self.put(tenant, &path, "application/toml", manifest.as_bytes()).await
    }

    /// The sum of a figure over all its labels, from `/metrics`.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn figure(&self, name: &str) -> Result<f64> {
        let mut client = self.connect().await?;
        let request = get("/metrics", &[]);
        let reply = client.ask(&request).await?;
        ensure!(reply.status == 200, reply.unexpected());
        let text = std::str::from_utf8(reply.body)?;
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labelled = rest.starts_with('{') || rest.starts_with(' ');
            labelled.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        });
        Ok(samples.sum())
    }
}

/// Bytes of a built guest, by its name below `target/guests`.
///
/// # Errors
/// It was not built.
pub fn guest_bytes(guest: &str) -> Result<Bytes> {
    let path = guests()?.join(format!("{guest}.wasm"));
    let fix = || format!("{}: build it with `cargo xtask guests`", path.display());
    Ok(std::fs::read(&path).with_context(fix)?.into())
}

fn guests() -> Result<PathBuf> {
    Ok(root()?.join("target/guests"))
}

/// The manifest of an example.
///
/// # Errors
/// There is no such example.
pub fn example_manifest(example: &str) -> Result<String> {
    let path = Path::new("examples").join(example).join("pipeline.toml");
    Ok(std::fs::read_to_string(root()?.join(path))?)
}

/// The same manifest with best-effort delivery: what is measured is the way through a pipeline, not
/// the disk behind it.
///
/// # Errors
/// It is not exactly-once.
pub fn best_effort(manifest: &str) -> Result<String> {
    let (kept, loose) = ("delivery = \"exactly-once\"", "delivery = \"best-effort\"");
    ensure!(manifest.contains(kept), "a manifest without {kept}: {manifest}");
    Ok(manifest.replace(kept, loose))
}

/// On whose behalf.
#[derive(Debug, Clone)]
pub struct Tenant {
    name: String,
    /// Value of the header that proves it; nothing in development mode.
    authorization: Option<String>,
}

impl Tenant {
    /// The tenant of a node in development mode.
    #[must_use]
    pub fn dev() -> Self {
        Self { name: "dev".to_owned(), authorization: None }
    }

    /// A tenant with its token.
    #[must_use]
    pub fn new(name: &str, token: &str) -> Self {
        Self { name: name.to_owned(), authorization: Some(format!("Bearer {token}")) }
    }

    /// The full path of something of this tenant.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/tenants/{}/{rest}", self.name)
    }

    /// Headers that every request needs.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, &str)> {
        self.authorization.iter().map(|value| ("authorization", value.as_str())).collect()
    }
}
