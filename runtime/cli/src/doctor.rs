//! `doctor`: is this machine fit for a node, and does the node answer?
//!
//! Looks only; changes nothing. Each finding is good, worth knowing, or bad; only bad ones make
//! the command fail.

use hyper::Method;
use serde_json::{Value, json};
use sluicebox_node::config::{Config, EngineConfig, GroupPlace};
use sluicebox_node::inspect::{self, Look, Room, Verdict as LogVerdict};
use sluicebox_toolchain::{LANGUAGES, Language, Tools};

use crate::args::DoctorArgs;
use crate::args::node::Overrides;
use crate::client::{Call, Client};
use crate::config::sources;
use crate::failure::{Cause, Failure};
use crate::log::{DAMAGE_FIX, unreadable, verdict};
use crate::render;
use crate::screen::Screen;

/// Open files a node needs besides its connections.
const FILES_OF_THE_REST: u64 = 256;

/// Below this the log has no room for another file and its first groups.
const ROOM_BAD: u64 = 128 << 20;
/// Below this it is worth knowing.
const ROOM_NOTE: u64 = 2 << 30;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Note,
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    what: &'static str,
    says: String,
    fix: Option<String>,
}

/// `doctor`
pub(crate) async fn run(screen: Screen, args: DoctorArgs) -> Result<(), Failure> {
    let config = Config::load(&sources(&args.configuration, &Overrides::default())?)?.config;
    let mut findings = vec![
        cores(usize::from(config.node.workers)),
        mappings(&config.engine),
        files(config.http.connections_max as u64, files_allowed()),
        data_dir(&config.node.data_dir),
        disk(inspect::room(&config.node.data_dir)),
        log(inspect::log(&config.node.data_dir).map_err(|error| error.to_string())),
        processes(&config.isolation.cgroup),
    ];
    findings.push(node(&Client::new(&args.connection)?).await);
    findings.extend(toolchains());
    let rows = findings.iter().map(Finding::row).collect();
    screen.result(
        &Value::Array(findings.iter().map(Finding::json).collect()),
        &render::align(rows),
    )?;
    match findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::new(Cause::Unavailable, format!("{bad} of the checks failed"))
            .fix("see the lines that begin with BAD")),
    }
}

impl Finding {
    fn new(verdict: Verdict, what: &'static str, says: impl Into<String>) -> Self {
        Self { verdict, what, says: says.into(), fix: None }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn row(&self) -> Vec<String> {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "BAD",
        };
        let fix = self.fix.as_ref().map_or_else(String::new, |fix| format!("; {fix}"));
        vec![verdict.to_owned(), self.what.to_owned(), format!("{}{fix}", self.says)]
    }

    fn json(&self) -> Value {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "bad",
        };
        json!({ "check": self.what, "verdict": verdict, "message": self.says, "fix": self.fix })
    }
}

fn cores(workers: usize) -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let says = format!("{cores} cores, {workers} workers");
    if workers > cores {
        return Finding::new(Verdict::Note, "processor", says)
            .fix("more workers than cores only take turns; lower node.workers");
    }
    Finding::new(Verdict::Good, "processor", says)
}

fn mappings(engine: &EngineConfig) -> Finding {
    match engine.tuning().mappings_warning() {
        Some(warning) => Finding::new(Verdict::Note, "memory mappings", warning),
        None => Finding::new(Verdict::Good, "memory mappings", "enough for a full engine"),
    }
}

fn files(connections: u64, allowed: Option<u64>) -> Finding {
    let need = connections + FILES_OF_THE_REST;
    match allowed {
        None => Finding::new(Verdict::Note, "open files", "this system does not say its limit"),
        Some(allowed) if allowed < need => {
            let says = format!("{allowed} are allowed, all connections together may need {need}");
            Finding::new(Verdict::Note, "open files", says)
                .fix(format!("run `ulimit -n {need}`, or lower http.connections-max"))
        }
        Some(allowed) => {
            Finding::new(Verdict::Good, "open files", format!("{allowed} are allowed"))
        }
    }
}

/// The nearest directory that exists tells whether the node could make its own.
fn data_dir(path: &std::path::Path) -> Finding {
    let exists = path.ancestors().find(|ancestor| ancestor.is_dir());
    let here = std::path::Path::new(".");
    let metadata = std::fs::metadata(exists.unwrap_or(here));
    let says = path.display().to_string();
    match metadata {
        Ok(metadata) if metadata.permissions().readonly() => {
            Finding::new(Verdict::Bad, "data directory", format!("{says} cannot be written"))
                .fix("set node.data-dir")
        }
        Ok(_) => Finding::new(Verdict::Good, "data directory", says),
        Err(error) => Finding::new(Verdict::Bad, "data directory", format!("{says}: {error}"))
            .fix("set node.data-dir"),
    }
}

/// A node on a full disk takes nothing new into its log.
fn disk(room: std::io::Result<Room>) -> Finding {
    let what = "disk";
    let room = match room {
        Ok(room) => room,
        Err(error) => {
            return Finding::new(Verdict::Note, what, format!("its room is not known: {error}"));
        }
    };
    let says = format!("{} of {} are free", rounded(room.free_bytes), rounded(room.bytes));
    let fix = "free some space, or set node.data-dir";
    match room.free_bytes {
        free if free < ROOM_BAD => Finding::new(Verdict::Bad, what, says).fix(fix),
        free if free < ROOM_NOTE => Finding::new(Verdict::Note, what, says).fix(fix),
        _ => Finding::new(Verdict::Good, what, says),
    }
}

fn rounded(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

/// Reads all of it, as a start would.
fn log(found: Result<Option<Look>, String>) -> Finding {
    let what = "log";
    let look = match found {
        Ok(Some(look)) => look,
        Ok(None) => return Finding::new(Verdict::Good, what, "none yet"),
        Err(error) => {
            return Finding::new(Verdict::Bad, what, error)
                .fix("run this as the user the node runs as, with its data directory");
        }
    };
    let says = verdict(&look);
    if look.found.verdict == LogVerdict::Damaged {
        return Finding::new(Verdict::Bad, what, says).fix(DAMAGE_FIX);
    }
    if let Some((_, error)) = &look.unreadable {
        return Finding::new(Verdict::Bad, what, says).fix(unreadable(error).1);
    }
    let files = match look.found.segments.len() {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    let records = render::grouped(look.records());
    Finding::new(Verdict::Good, what, format!("{says}; {records} records in {files}"))
}

/// What tenants' processes are held to together with what they start. A node finds that out for
/// itself; here it is found out for a node that is started as this command is.
fn processes(place: &GroupPlace) -> Finding {
    let what = "tenants' processes";
    let alone = "memory of each process by itself";
    match inspect::groups(place) {
        None => Finding::new(Verdict::Note, what, format!("{alone}: isolation.cgroup is off")),
        Some(Ok(found)) => Finding::new(Verdict::Good, what, found),
        Some(Err(error)) if *place == GroupPlace::Auto => {
            Finding::new(Verdict::Note, what, format!("{alone}, as seen from here: {error}"))
                .fix("a service can be given a group; the guide, operate.md, says how")
        }
        Some(Err(error)) => Finding::new(Verdict::Bad, what, error.to_string())
            .fix("set isolation.cgroup to a group that the node may use, or to auto"),
    }
}

/// A node need not be running for the machine to be fit.
async fn node(client: &Client) -> Finding {
    match client.send(Call::new(Method::GET, "/readyz")).await {
        Ok(_) => Finding::new(Verdict::Good, "node", format!("{} is ready", client.url())),
        Err(failure) if failure.code == "client.connect" => {
            Finding::new(Verdict::Note, "node", format!("none answers at {}", client.url()))
                .fix("start one with `sluicebox serve --dev`")
        }
        Err(failure) if failure.cause == Cause::Unavailable => {
            Finding::new(Verdict::Bad, "node", failure.what.clone()).fix("the node's log says more")
        }
        Err(failure) => Finding::new(Verdict::Bad, "node", failure.what.clone())
            .fix(failure.fix.clone().unwrap_or_else(|| "see the node's log".to_owned())),
    }
}

/// What stages can be built in on this machine. Nobody needs every language.
fn toolchains() -> Vec<Finding> {
    let tools = match Tools::of_user() {
        Ok(tools) => tools,
        Err(error) => {
            return vec![
                Finding::new(Verdict::Note, "toolchains", error.to_string()).fix(error.fix()),
            ];
        }
    };
    LANGUAGES.iter().map(|language| toolchain(*language, &tools)).collect()
}

fn toolchain(language: &dyn Language, tools: &Tools) -> Finding {
    let missing = language.missing(tools);
    let title = language.title();
    if missing.is_empty() {
        return Finding::new(Verdict::Good, "toolchain", format!("{title} is there"));
    }
    let what: Vec<&str> = missing.iter().map(|one| one.what.as_str()).collect();
    let fixes: Vec<String> = missing
        .iter()
        .map(|one| match &one.fetch {
            // What the program can fetch it fetches where it is needed.
            Some(_) => "in a stage's folder: `sluicebox build --install`".to_owned(),
            None => one.install.clone(),
        })
        .collect();
    Finding::new(Verdict::Note, "toolchain", format!("{title} needs {}", what.join(" and ")))
        .fix(fixes.join("; "))
}

/// The soft limit on open files, from the kernel's own table.
fn files_allowed() -> Option<u64> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

fn soft_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_that_is_not_there_is_told_with_the_command_that_installs_it() {
        let folder = tempfile::tempdir().unwrap();
        let tools = Tools::in_folder(folder.path().to_path_buf());
        let python = sluicebox_toolchain::language("python").unwrap();
        let found = toolchain(python, &tools);
        assert_eq!((found.verdict, found.what), (Verdict::Note, "toolchain"));
        assert!(found.says.starts_with("Python needs ") && found.says.contains("componentize-py"));
        assert!(found.fix.unwrap().contains("`sluicebox build --install`"));
    }

    #[test]
    fn a_limit_is_found_in_the_kernels_table() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n\
                    Max address space         unlimited            unlimited            bytes     \n";
        assert_eq!(soft_limit(text, "Max open files"), Some(1024));
        assert_eq!(soft_limit(text, "Max address space"), Some(u64::MAX));
        assert_eq!(soft_limit(text, "Max stack size"), None);
    }

    #[test]
    fn what_processes_are_held_to_is_said_and_a_group_that_was_named_has_to_be_there() {
        let of = |place: &GroupPlace| processes(place);
        assert_eq!(
            of(&GroupPlace::Off).says,
            "memory of each process by itself: isolation.cgroup is off"
        );
        let named = of(&GroupPlace::Named("/no/such/group".into()));
        assert_eq!(named.verdict, Verdict::Bad);
        let auto = of(&GroupPlace::Auto);
        let is_found = auto.says.contains(" by cgroup v");
        let verdict = if is_found { Verdict::Good } else { Verdict::Note };
        assert_eq!(auto.verdict, verdict, "{auto:?}");
        assert!(is_found || auto.says.contains("as seen from here: control groups: "), "{auto:?}");
    }

    #[test]
    fn a_disk_that_fills_up_is_told_before_it_is_full() {
        let of = |free_bytes| disk(Ok(Room { free_bytes, bytes: 100 << 30 }));
        assert_eq!(of(50 << 30).verdict, Verdict::Good);
        assert_eq!(of((50 << 30) + 9).says, "50 GiB of 100 GiB are free");
        assert_eq!(of((1 << 30) + 1).verdict, Verdict::Note);
        assert_eq!(of(100 << 20).verdict, Verdict::Bad);
        assert_eq!(disk(Err(std::io::Error::other("x"))).verdict, Verdict::Note);
    }
}
