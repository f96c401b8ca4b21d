//! The process of one tenant: a node that only the front reaches, held in from its start.
//!
//! Begun by the program itself with [`crate::node::TENANT_ARGUMENT`]; standard input is the control
//! channel. In this order: the first message says what to be; the process gives up everything it
//! does not need (`confine`), while it has one thread; then the node starts; then this thread does
//! nothing but hear the front. When the front is gone the process ends without draining.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sluicebox_confine::{Bounds, Calls, Outcome, Report, confine};
use tokio::sync::mpsc;

use super::control::{self, Leaves, Message, Tag};
use super::lane::Theirs;
use crate::config::{Config, Otlp, Sources};
use crate::error::Error;
use crate::node::Node;
use crate::start::{Door, RunningNode};
use crate::tenants::Tenants;

/// Connections that wait for a worker; more are closed.
const WAITING_MAX: usize = 256;

/// Files and connections of a process.
const OPEN_FILES_MAX: u64 = 65_536;

/// Where the system keeps what a program is linked with.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// What the process reads of the system besides: how many processors and how much memory there is,
/// and what it may do with it.
const SYSTEM: [&str; 4] = [
    "/proc/meminfo",
    "/proc/sys/vm",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];

/// Where control groups are. Read by a process without one of this node's; else it reads its own
/// alone, as those beside it have the names of other tenants.
const GROUPS: &str = "/sys/fs/cgroup";

/// A tenant's process that is held in and not started yet.
#[derive(Debug)]
pub struct TenantProcess {
    control: OwnedFd,
    config: Config,
    tenants: Tenants,
    program: PathBuf,
    measures: Report,
    /// What the system tells of this process. Kept open: its place among others' may be read only
    /// for as long as it is the same.
    _own: File,
}

impl TenantProcess {
    /// Hears what to be, and gives up everything else. To be called before anything that starts a
    /// thread.
    ///
    /// # Errors
    /// Standard input is no control channel, or a measure that the system offers fails.
    pub fn begin() -> Result<Self, Error> {
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |source| Error::Io { doing, source }
        };
        let stdin = io::stdin();
        let control = stdin.as_fd().try_clone_to_owned().map_err(io("take the control channel"))?;
        let begun = Self::hear(&control).and_then(|(config, tenants, leaves)| {
            let program = std::env::current_exe().map_err(io("find the program itself"))?;
            let place = PathBuf::from(format!("/proc/{}", std::process::id()));
            let own = File::open(&place).map_err(io("look at the process itself"))?;
            let measures = hold_in(&config, &program, place, leaves)?;
            Ok((config, tenants, program, measures, own))
        });
        match begun {
            Ok((config, tenants, program, measures, _own)) => {
                Ok(Self { control, config, tenants, program, measures, _own })
            }
            Err(error) => {
                // It is told on standard error as well.
                drop(control::send(&control, Tag::Failed, error.to_string().as_bytes(), &[]));
                Err(error)
            }
        }
    }

    fn hear(control: &OwnedFd) -> Result<(Config, Tenants, Leaves), Error> {
        let nonsense = || Error::Internal("this is not how a tenant's process begins".to_owned());
        let message = control::receive(control)
            .map_err(|source| Error::Io { doing: "hear what to be".to_owned(), source })?;
        let message = message.filter(|message| message.tag == Tag::Begin).ok_or_else(nonsense)?;
        let text = message.text();
        let (config, rest) = text.split_once('\0').ok_or_else(nonsense)?;
        let (tenant, rest) = rest.split_once('\0').ok_or_else(nonsense)?;
        let (leaves, traces) = rest.split_once('\0').ok_or_else(nonsense)?;
        let leaves = Leaves::of_text(leaves).ok_or_else(nonsense)?;
        let name = PathBuf::from("what the front says");
        let sources = Sources { file: Some((name, config.to_owned())), ..Sources::default() };
        let loaded = Config::load(&sources).map_err(|error| Error::Internal(error.to_string()))?;
        let config = Config { otlp: Otlp::of_text(traces), ..loaded.config };
        let tenants = Tenants::of_process(tenant, config.quota.allowance())?;
        Ok((config, tenants, leaves))
    }

    /// Runs the node until the front says so or is gone.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let Self { control, config, tenants, program, measures, _own } = self;
        let said = measures.rows().iter().map(line).collect::<Vec<String>>().join("\n");
        drop(control::send(&control, Tag::Measures, said.as_bytes(), &[]));
        let patience = config.node.drain_time_max;
        let workers = usize::from(config.node.workers);
        let (doors, handed): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mpsc::channel(WAITING_MAX)).unzip();
        let door = control
            .try_clone()
            .map_err(|source| Error::Io { doing: "keep the control channel".to_owned(), source })
            .map(|front| Door::Handed { tenants: Box::new(tenants), handed, front });
        let running = match door.and_then(|door| Node::start_at(config, program, door)) {
            Ok(running) => running,
            Err(error) => {
                drop(control::send(&control, Tag::Failed, error.to_string().as_bytes(), &[]));
                return ExitCode::FAILURE;
            }
        };
        drop(control::send(&control, Tag::Ready, &[], &[]));
        if !listen(&control, &running, &doors) {
            return ExitCode::FAILURE;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let is_quiet = match runtime {
            Ok(runtime) => runtime.block_on(running.drain(patience)),
            Err(error) => {
                tracing::error!(%error, "ends without draining");
                false
            }
        };
        if is_quiet { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Hears the front. True when it says to end, false when it is gone.
fn listen(control: &OwnedFd, running: &RunningNode, doors: &[mpsc::Sender<Theirs>]) -> bool {
    let mut next = 0;
    loop {
        let Message { tag, files, body } = match control::receive(control) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(None) | Err(_) => return false,
        };
        match (tag, files.is_empty()) {
            (Tag::Connection, false) => {
                next = (next + 1) % doors.len().max(1);
                // Dropped if the worker has as many as may wait: the front sees it closed.
                drop(doors[next].try_send(Theirs::new(files)));
            }
            (Tag::AskRest, true) => {
                let rest = running.node().rest_until();
                let (tag, body) = match rest {
                    Some(until) => (Tag::AskRest, until.to_le_bytes().to_vec()),
                    None => (Tag::AtWork, Vec::new()),
                };
                drop(control::send(control, tag, &body, &[]));
            }
            (Tag::Tenant, true) => {
                let text = String::from_utf8_lossy(&body);
                if let Err(error) = running.node().replace_tenant(&text) {
                    tracing::error!(%error, "what the front says of the tenant");
                }
            }
            (Tag::End, true) => return true,
            (tag, _) => tracing::warn!(?tag, "an unexpected message of the front"),
        }
    }
}

/// Gives up what the node does not need.
fn hold_in(config: &Config, program: &Path, own: PathBuf, leaves: Leaves) -> Result<Report, Error> {
    let existing = |paths: &[&str]| -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
    };
    let (mut read, mut execute) = (existing(&SYSTEM), existing(&LIBRARIES));
    read.push(own);
    if leaves.groups.is_empty() {
        read.extend(existing(&[GROUPS]));
    }
    read.extend(leaves.groups);
    execute.push(program.to_owned());
    // The engine's pools count as memory that can be written, though little of them ever is.
    let memory = leaves.writable_bytes + config.engine.tuning().writable_space();
    let bounds = Bounds {
        read: &read,
        execute: &execute,
        memory_bytes_max: Some(memory),
        open_files_max: OPEN_FILES_MAX,
        ..Bounds::of(Calls::Node, Some(&config.node.data_dir))
    };
    confine(&bounds).map_err(|error| Error::Internal(format!("cannot be held in: {error}")))
}

fn line((measure, outcome): &(&'static str, Outcome)) -> String {
    match outcome {
        Outcome::InPlace(detail) => format!("held in by {measure}: {detail}"),
        Outcome::Absent(why) => format!("NOT held in by {measure}: {why}"),
    }
}
