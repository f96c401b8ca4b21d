//! What holds the process that has the GPU in, and the processes that try kernels for it: drivers'
//! code runs there, over what tenants wrote.
//!
//! - [`GpuProcess::begin`] comes before there is a second thread and before any driver is loaded:
//!   first it has the starter of trials started (`starter`), which is not held in with it as it
//!   runs no driver; then it gives up the rest (the crate `confine`).
//! - It keeps one directory to write, that of its driver's cache. A trial keeps none: a kernel has
//!   any number of tries at a trial, so what one of them writes is not to be believed by anybody.
//! - Which measures are in force is told to the node by a file there, before any kernel is heard
//!   of ([`told`]).

use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluicebox_confine::drivers::Needs;
use sluicebox_confine::{Bounds, Calls, Outcome, Report, confine};

use super::process::Orders;
use super::starter;
use crate::config::GpuDevice;
use crate::error::Error;

/// Files, devices and rings that the process may have open.
const OPEN_FILES_MAX: u64 = 4_096;

/// Private memory that a trial may be able to write. What it has of it is looked at by who started
/// it (`starter`), who ends it far below; this is for what it takes between two looks.
const TRIAL_WRITABLE_BYTES_MAX: u64 = 4 << 30;
const TRIAL_OPEN_FILES_MAX: u64 = 256;
/// Of files in memory: there are no others that it may write.
const TRIAL_FILE_BYTES_MAX: u64 = 256 << 20;
const TRIAL_CPU_SECONDS_MAX: u64 = 24;

/// Bytes of the file by which measures are told, at most, and measures in it.
const TOLD_BYTES_MAX: u64 = 64 << 10;
const MEASURES_MAX: usize = 16;
const WHY_CHARS_MAX: usize = 500;

/// A measure, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) is_in_place: bool,
    /// With what exactly, or why not.
    pub(crate) text: String,
}

/// The process that has the GPU, held in, with nothing opened yet.
#[derive(Debug)]
pub struct GpuProcess {
    pub(super) orders: Orders,
    pub(super) wanted: GpuDevice,
    /// Ways to who starts trials, one for each that may run at once.
    pub(super) starter: Vec<UnixStream>,
    /// What the system tells of this process: see [`own`].
    _own: Option<File>,
}

impl GpuProcess {
    /// Hears what to be, and gives up everything else. To be called before anything that starts a
    /// thread.
    ///
    /// # Errors
    /// The orders are none, or a measure that the system offers fails.
    pub fn begin(orders: &str) -> Result<Self, Error> {
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |source| Error::Io { doing, source }
        };
        end_with_parent().map_err(io("tie the process to its node"))?;
        let text = orders;
        let orders = Orders::parse(text)?;
        let wanted = orders.device()?;
        let starter = match wanted {
            // Nothing of a kernel can harm it: it is given to no driver.
            GpuDevice::Interpreter => Vec::new(),
            _ => starter::begin(text).map_err(io("start the process that starts trials"))?,
        };
        let (measures, own) = if orders.hold_in {
            let (report, own) = hold_in(&orders.directory)?;
            (report.rows().iter().map(Measure::of).collect(), Some(own))
        } else {
            (vec![Measure::none("gpu.hold-in is false")], None)
        };
        // What an earlier process has left there does not keep this one from its device.
        if let Err(error) = tell(&orders.directory, &measures) {
            tracing::warn!(%error, "what holds the process in is not told");
        }
        Ok(Self { orders, wanted, starter, _own: own })
    }
}

impl Measure {
    fn of((name, outcome): &(&'static str, Outcome)) -> Self {
        let (is_in_place, text) = match outcome {
            Outcome::InPlace(detail) => (true, detail),
            Outcome::Absent(why) => (false, why),
        };
        Self { name: (*name).to_owned(), is_in_place, text: text.clone() }
    }

    /// Nothing is in force, as far as is known.
    fn none(why: &str) -> Self {
        Self { name: "anything".to_owned(), is_in_place: false, text: why.to_owned() }
    }

    /// As it is said in the log.
    pub(super) fn line(&self) -> String {
        let not = if self.is_in_place { "" } else { "NOT " };
        format!("{not}held in by {}: {}", self.name, self.text)
    }
}

/// Holds the process that has the device in.
fn hold_in(directory: &Path) -> Result<(Report, File), Error> {
    let bounds =
        Bounds { open_files_max: OPEN_FILES_MAX, ..Bounds::of(Calls::Drivers, Some(directory)) };
    hold_in_with(directory, bounds)
}

/// Holds a process in that tries a kernel. The file is to be kept open.
pub(super) fn hold_trial_in(directory: &Path) -> Result<File, Error> {
    let bounds = Bounds {
        memory_bytes_max: Some(TRIAL_WRITABLE_BYTES_MAX),
        open_files_max: TRIAL_OPEN_FILES_MAX,
        file_bytes_max: Some(TRIAL_FILE_BYTES_MAX),
        cpu_seconds_max: Some(TRIAL_CPU_SECONDS_MAX),
        ..Bounds::of(Calls::Drivers, None)
    };
    let (_report, own) = hold_in_with(directory, bounds)?;
    Ok(own)
}

fn hold_in_with(directory: &Path, bounds: Bounds<'_>) -> Result<(Report, File), Error> {
    // The parent is where the node has its data.
    let data = directory.parent().unwrap_or(directory);
    let Needs { mut read, list, devices } = Needs::find(|name| std::env::var_os(name), data);
    let own = own().map_err(|source| Error::Io { doing: "look at itself".to_owned(), source })?;
    read.push(own.0);
    let bounds = Bounds { read: &read, list: &list, devices: &devices, ..bounds };
    let report = confine(&bounds);
    let report = report.map_err(|error| Error::Internal(format!("cannot be held in: {error}")))?;
    Ok((report, own.1))
}

/// What the system tells of this process. Its place among others' may be read only for as long as
/// it is the same, so it is kept open.
fn own() -> std::io::Result<(PathBuf, File)> {
    let place = PathBuf::from(format!("/proc/{}", std::process::id()));
    let opened = File::open(&place)?;
    Ok((place, opened))
}

/// The kernel ends this process when the thread that started it does, and it gets no rights that
/// it does not have.
pub(super) fn end_with_parent() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

fn path(directory: &Path) -> PathBuf {
    directory.join("measures")
}

fn tell(directory: &Path, measures: &[Measure]) -> std::io::Result<()> {
    std::fs::write(path(directory), serde_json::to_vec(measures)?)
}

/// What holds the process in that has begun just now. What is written there is the process's to
/// say, and no kernel's yet.
pub(super) fn told(directory: &Path) -> Vec<Measure> {
    let read = || -> std::io::Result<Vec<Measure>> {
        let mut bytes = Vec::new();
        File::open(path(directory))?.take(TOLD_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let plain = |text: String| -> String {
        text.chars().filter(|c| !c.is_control()).take(WHY_CHARS_MAX).collect()
    };
    match read() {
        Ok(measures) if !measures.is_empty() => {
            let shown = measures.into_iter().take(MEASURES_MAX).map(|measure| Measure {
                name: plain(measure.name),
                text: plain(measure.text),
                ..measure
            });
            shown.collect()
        }
        Ok(_) => vec![Measure::none("its process did not say")],
        Err(error) => vec![Measure::none(&format!("its process did not say: {error}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_and_nothing_is_taken_for_held_in_that_was_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let is_held = |dir: &Path| told(dir).iter().any(|measure| measure.is_in_place);
        assert!(!is_held(dir.path()));
        let landlock = Outcome::InPlace("version 7".to_owned());
        let seccomp = Outcome::Absent("the kernel\nhas none".to_owned());
        let measures = [Measure::of(&("landlock", landlock)), Measure::of(&("seccomp", seccomp))];
        tell(dir.path(), &measures).unwrap();
        let lines: Vec<_> = told(dir.path()).iter().map(Measure::line).collect();
        let expected =
            ["held in by landlock: version 7", "NOT held in by seccomp: the kernelhas none"];
        assert_eq!(lines, expected);
        for nonsense in [&b"[]"[..], b"", b"{}", &[b'['; 1 << 17]] {
            std::fs::write(path(dir.path()), nonsense).unwrap();
            assert!(!is_held(dir.path()));
            assert_eq!(told(dir.path()).len(), 1);
        }
    }
}
