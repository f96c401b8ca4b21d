//! The real program as a child process: `sluicebox serve` on a port of its own, with a directory
//! of its own.
//!
//! - It is the program cargo built beside the tests. One that is missing or older than its sources
//!   fails the test with the command that builds it.
//! - A node is ready when it says so over HTTP. It is killed when the test lets go of it, by a
//!   panic too, and what it logged is shown with a failure.
//! - Compiled components are shared with the [`rig`](crate::rig) in `target/guests/artefacts`,
//!   unless a test is about compiling.
//! - [`Shared`] lends one node to tests that run at the same time; the last one ends it.
//!
//! Leaves to others: what is said to it (`client`).

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, TENANT};
use crate::eventually::{SOON, eventually};
use crate::lan::Network;
use crate::{built, guests};

/// Name of the tenants file in a node's directory.
const TENANTS: &str = "tenants.toml";

/// Lines of a log that are shown with a failure; the last say most.
const LOG_LINES_SHOWN: usize = 50;

/// The program, by its path; fails if there is none or it is out of date.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = built();
        let release = if folder.ends_with("release") { " --release" } else { "" };
        let advice = format!("build it with `cargo build --workspace --bin sluicebox{release}`");
        let path = folder.join("sluicebox");
        let made = modified(&path).unwrap_or_else(|| panic!("no {}; {advice}", path.display()));
        let newer = sources(&folder.join("sluicebox.d")).into_iter().find(|source| {
            // A source that was removed changed the program as well.
            modified(source).is_none_or(|changed| changed > made)
        });
        if let Some(newer) = newer {
            panic!("{} is older than {}; {advice}", path.display(), newer.display());
        }
        path
    })
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The files a program was built from, as cargo lists them: `program: file file`, blanks escaped.
///
/// Cargo writes the list only when it is asked for the program itself. Where there is none, the
/// program was built for these tests and by the command that built them, and nothing is newer.
fn sources(list: &Path) -> Vec<PathBuf> {
    let Ok(text) = std::fs::read_to_string(list) else { return Vec::new() };
    let files = text.split_once(": ").map_or("", |(_, files)| files);
    let marked = files.replace("\\ ", "\0");
    let files: Vec<PathBuf> =
        marked.split_ascii_whitespace().map(|file| file.replace('\0', " ").into()).collect();
    assert!(!files.is_empty(), "{} names no sources", list.display());
    files
}

/// The program with arguments, with nothing of the developer's environment.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    bare(&mut command).args(arguments);
    command
}

fn bare(command: &mut Command) -> &mut Command {
    command.env_clear().stdin(Stdio::null());
    // Where a test directory may be is the developer's business.
    if let Some(temporary) = std::env::var_os("TMPDIR") {
        command.env("TMPDIR", temporary);
    }
    command
}

/// Runs the program to its end.
#[must_use]
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program can be started")
}

/// A directory of a node. Nodes that use it one after another find what the last one kept.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// A new one, with the artefacts of all tests in it.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let home = Self::without_artefacts();
        let data = home.data();
        std::fs::create_dir_all(&data).expect("a new directory can be written");
        let shared = guests::folder().join("artefacts");
        std::fs::create_dir_all(&shared).expect("target can be written");
        std::os::unix::fs::symlink(shared, data.join("artefacts")).expect("the directory is new");
        home
    }

    /// A new one in which every component has to be compiled.
    #[must_use]
    pub fn without_artefacts() -> Arc<Self> {
        Arc::new(Self(tempfile::tempdir().expect("a temporary directory")))
    }

    /// The data directory of the node.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// The tenants file.
    #[must_use]
    pub fn tenants(&self) -> PathBuf {
        self.0.path().join(TENANTS)
    }

    /// Runs `sluicebox tenant` on the tenants file; gives what it says.
    ///
    /// # Panics
    /// If the command fails.
    pub fn tenant(&self, arguments: &[&str]) -> Value {
        let file = self.tenants();
        let file = file.to_str().expect("temporary directories have plain names");
        let all = [&["tenant", "--output", "json", "--file", file], arguments].concat();
        let Output { status, stdout, stderr } = run(&all);
        assert!(status.success(), "{all:?}: {}", String::from_utf8_lossy(&stderr));
        serde_json::from_slice(&stdout).expect("asked for JSON")
    }

    /// Makes a token; the tenant is there already.
    #[must_use]
    pub fn token(&self, tenant: &str, scopes: &str) -> String {
        let made = self.tenant(&["token", "add", tenant, "--scopes", scopes]);
        made["token"].as_str().expect("a new token is shown").to_owned()
    }
}

/// Loopback, and a port that is free.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How to start a node.
#[derive(Debug, Clone)]
pub struct Setup {
    home: Arc<Home>,
    tenants: Vec<&'static str>,
    /// Tenants that are in the directory already.
    tokens: Vec<(&'static str, String)>,
    settings: Vec<(String, String)>,
    shell: Option<&'static str>,
    listen: SocketAddr,
    network: Option<Arc<Network>>,
}

/// What a node said that did not start.
#[derive(Debug)]
pub struct Refused {
    /// The stable code of the error.
    pub code: String,
    /// What happened, for a person.
    pub message: String,
}

/// The variable of the environment that sets a field.
fn variable(field: &str) -> String {
    format!("SLUICEBOX__{}", field.replace('.', "__").replace('-', "_")).to_uppercase()
}

impl Setup {
    /// In development mode: one tenant, no tokens.
    #[must_use]
    pub fn dev() -> Self {
        let (tenants, tokens, settings) = Default::default();
        let (home, listen) = (Home::new(), ANY_PORT);
        Self { home, tenants, tokens, settings, shell: None, listen, network: None }
    }

    /// In the directory of another node, which has ended by then, with its tenants.
    #[must_use]
    pub fn as_before(node: &Node) -> Self {
        let (home, tokens) = (node.home.clone(), node.tokens.clone());
        Self { home, tokens, ..Self::dev() }
    }

    /// With these tenants, each with a token for everything a tenant does.
    #[must_use]
    pub fn tenants(names: &[&'static str]) -> Self {
        Self { tenants: names.to_vec(), ..Self::dev() }
    }

    /// With tenants whose tokens are in a file that is there already.
    #[must_use]
    pub fn with_tokens(tokens: &[(&'static str, &str)]) -> Self {
        let tokens = tokens.iter().map(|(name, token)| (*name, (*token).to_owned())).collect();
        Self { tokens, ..Self::dev() }
    }

    /// In this directory.
    #[must_use]
    pub fn home(self, home: &Arc<Home>) -> Self {
        Self { home: home.clone(), ..self }
    }

    /// With a field of the configuration: `http.body-bytes-max`.
    #[must_use]
    pub fn set(mut self, field: &str, value: &str) -> Self {
        self.settings.push((variable(field), value.to_owned()));
        self
    }

    /// The same, unless it was set before.
    #[must_use]
    pub fn set_unless_set(self, field: &str, value: &str) -> Self {
        let is_set = self.settings.iter().any(|(name, _)| *name == variable(field));
        if is_set { self } else { self.set(field, value) }
    }

    /// With a variable of the environment that is no field.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these lines in its log: `info,sluicebox_node::moving=debug`.
    #[must_use]
    pub fn saying(mut self, lines: &str) -> Self {
        self.settings.push(("SLUICEBOX_LOG".to_owned(), lines.to_owned()));
        self
    }

    /// At this address, which another node had: clients that know it find this one.
    #[must_use]
    pub fn at(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// In a network of its own.
    #[must_use]
    pub fn within(self, network: &Arc<Network>) -> Self {
        Self { network: Some(network.clone()), ..self }
    }

    /// Started by a line of shell, which ends with `exec "$@"`.
    #[must_use]
    pub fn shell(self, line: &'static str) -> Self {
        Self { shell: Some(line), ..self }
    }

    /// The command that starts it.
    #[must_use]
    pub fn command(&self) -> Command {
        self.command_of(program())
    }

    /// The same with a copy of the program.
    #[must_use]
    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = match self.shell {
            None => Command::new(program),
            Some(line) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", line, "sh"]).arg(program);
                command
            }
        };
        bare(&mut command);
        command.args(["serve", "--output", "json", "--listen"]).arg(self.listen.to_string());
        if self.tenants.is_empty() && self.tokens.is_empty() {
            command.arg("--dev");
        }
        command.arg("--data-dir").arg(self.home.data()).current_dir(self.home.0.path());
        command.env("SLUICEBOX__NODE__TENANTS_FILE", self.home.tenants());
        // The same on every machine, and little of its own.
        command.env("SLUICEBOX__NODE__WORKERS", "2").env("SLUICEBOX__ENGINE__INSTANCES", "1000");
        // A node that is killed leaves groups behind, and no other comes after it in its directory.
        command.env("SLUICEBOX__ISOLATION__CGROUP", "off");
        if std::env::var_os(PROCESSES).is_some() {
            command.env("SLUICEBOX__ISOLATION__PROCESSES", "true");
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// If it ends instead, with what it said.
    pub async fn start(self) -> Node {
        let added = |name: &&'static str| {
            let made = self.home.tenant(&["add", name]);
            (*name, made["token"].as_str().expect("a new token is shown").to_owned())
        };
        let added = self.tenants.iter().map(added);
        let tokens: Vec<_> = self.tokens.iter().cloned().chain(added).collect();
        let (out, log) = (self.home.0.path().join("out"), self.home.0.path().join("log"));
        let file = |path: &Path| File::create(path).expect("a directory of ours can be written");
        let mut command = self.command();
        command.stdout(file(&out)).stderr(file(&log));
        let spawned = match &self.network {
            None => command.spawn(),
            Some(network) => network.within(|| command.spawn()),
        };
        let child = spawned.expect("the program can be started");
        let address = SocketAddr::from(([0; 4], 0));
        // From here on a panic ends the child.
        let mut node = Node { child, address, tls: false, home: self.home, tokens };
        node.address = node.listens(&out).await;
        let client = node.client_of(TENANT, None);
        eventually("the node is ready", SOON, || async {
            (client.plain("/readyz").await.status == 200).then_some(())
        })
        .await;
        node
    }
}

/// With this variable set, every tenant of every node has a process of its own.
const PROCESSES: &str = "SLUICEBOX_TEST_PROCESSES";

/// Runs a command that starts a node where none can start, and gives what it says.
///
/// # Panics
/// If it starts, or ends without saying why.
#[must_use]
#[track_caller]
pub fn refused(mut command: Command) -> Refused {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the program can be started");
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a number");
    // One that starts all the same would run for ever.
    let (ended, end) = std::sync::mpsc::sync_channel::<()>(0);
    let guard = std::thread::spawn(move || {
        if end.recv_timeout(SOON).is_err_and(|why| why == RecvTimeoutError::Timeout) {
            let _gone = kill_process(id, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("its output can be read");
    drop(ended);
    guard.join().expect("it only waits");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code().is_some(), "{output:?}");
    let said = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let error = said.filter_map(|line| line.get("error").cloned()).next();
    let error = error.unwrap_or_else(|| panic!("it does not say why: {text}"));
    let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    Refused { code: part("code"), message: part("message") }
}

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    child: Child,
    address: SocketAddr,
    tls: bool,
    home: Arc<Home>,
    tokens: Vec<(&'static str, String)>,
}

impl Node {
    /// Where the node says it listens.
    async fn listens(&mut self, out: &Path) -> SocketAddr {
        eventually("the node listens", SOON, || {
            let text = std::fs::read_to_string(out).unwrap_or_default();
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the node ended: {ended:?}");
            std::future::ready(text.strip_suffix('\n').map(|line| {
                let said: Value = serde_json::from_str(line).expect("asked for JSON");
                let url = said["url"].as_str().expect("it says where");
                let (scheme, address) = url.split_once("://").expect("a URL");
                self.tls = scheme == "https";
                address.parse().expect("an address")
            }))
        })
        .await
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Its directory.
    #[must_use]
    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// A client: of development mode, or of the first tenant.
    #[must_use]
    pub fn client(&self) -> Client {
        match self.tokens.first() {
            None => self.client_of(TENANT, None),
            Some((tenant, token)) => self.client_of(tenant, Some(token)),
        }
    }

    /// A client of one of the tenants it was started with.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Client {
        self.client_of(name, Some(self.token(name)))
    }

    /// The token of one of the tenants it was started with.
    #[must_use]
    pub fn token(&self, name: &str) -> &str {
        let found = self.tokens.iter().find(|(tenant, _)| *tenant == name);
        &found.unwrap_or_else(|| panic!("no tenant {name} in this test")).1
    }

    /// A client with another name or token.
    #[must_use]
    pub fn client_of(&self, tenant: &str, token: Option<&str>) -> Client {
        Client::new(self.address, tenant, token).by_tls(self.tls)
    }

    /// Where it logs; the file goes with the home.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.home.0.path().join("log")
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tells it to stop, as a service would.
    pub fn terminate(&self) {
        let id = self.process().expect("a process has a positive number");
        // It may have ended already; `ended` says how.
        let _gone = kill_process(id, Signal::TERM);
    }

    /// Tells it to read its certificate again.
    pub fn hang_up(&self) {
        let id = self.process().expect("a process has a positive number");
        kill_process(id, Signal::HUP).expect("it runs");
    }

    /// The number of its process.
    #[must_use]
    pub fn process(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Ends it at once, wherever it is.
    #[must_use]
    pub fn kill(mut self) -> Arc<Home> {
        self.child.kill().expect("a child of ours can be killed");
        drop(self.child.wait());
        self.home.clone()
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) -> (ExitStatus, Arc<Home>) {
        let status = eventually("the node ends", SOON, || {
            std::future::ready(self.child.try_wait().expect("a child can be asked"))
        })
        .await;
        (status, self.home.clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that has ended and was waited for is not there any more, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            show(&self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
fn show(log: &str) {
    let mut lines: Vec<String> =
        log.lines().rev().take(LOG_LINES_SHOWN).map(|l| l.chars().take(200).collect()).collect();
    lines.reverse();
    eprintln!("--- log of the node\n{}\n---", lines.join("\n"));
}

/// One node for all tests of a file that run at the same time.
#[derive(Debug)]
pub struct Shared {
    node: tokio::sync::Mutex<Weak<Node>>,
    setup: fn() -> Setup,
}

impl Shared {
    /// Nothing is started yet.
    #[must_use]
    pub const fn new(setup: fn() -> Setup) -> Self {
        Self { node: tokio::sync::Mutex::const_new(Weak::new()), setup }
    }

    /// The node; started if nobody has it.
    pub async fn lend(&self) -> Lent {
        let mut known = self.node.lock().await;
        if let Some(node) = known.upgrade() {
            return Lent(node);
        }
        let node = Arc::new((self.setup)().start().await);
        *known = Arc::downgrade(&node);
        Lent(node)
    }
}

/// A shared node.
#[derive(Debug)]
pub struct Lent(Arc<Node>);

impl Deref for Lent {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The last one to go shows the log anyway.
        if std::thread::panicking() && Arc::strong_count(&self.0) > 1 {
            show(&self.0.log());
        }
    }
}
