//! Limits of resources: memory that can be written, open files and their size, processor time,
//! dumps of memory.
//!
//! Keeps true: both limits of a resource are set, so that they cannot be raised again; none is
//! above what it was.
//!
//! `RLIMIT_DATA` counts private memory that may be written, used or not. A reservation without
//! rights is not counted, and is from the moment it is made writable: the kernel checks in `mmap`,
//! `mprotect`, `mremap` and `brk`, and they fail. So memories of guests that are only reserved cost
//! nothing, which `RLIMIT_AS` would count in full. What the engine makes writable when it starts,
//! its pools of tables and of stacks, is counted in full: they must be sized for the limit.
//!
//! It holds for guests and for mistakes. Whoever runs code of his own in the process gets around
//! it: pages that were written and made read-only are not counted, and shared memory never is.
//!
//! Leaves to a control group (`cgroup`): that, the sum over several processes, and how many there
//! are.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Bounds, Error, Outcome};

/// The row in the report.
pub(crate) const MEASURE: &str = "limits";

/// No file holds a dump of one byte, and at this very value the kernel starts no program for dumps
/// either, which it does at 0. Unlike the dumpable flag it outlives `execve`.
const CORE_BYTES: u64 = 1;

/// Sets all limits.
pub(crate) fn set(bounds: &Bounds<'_>) -> Result<Outcome, Error> {
    lower(Resource::Core, CORE_BYTES)?;
    let files = lower(Resource::Nofile, bounds.open_files_max)?;
    let memory = match bounds.memory_bytes_max {
        Some(max) => {
            let max = lower(Resource::Data, max)?;
            format!("{max} bytes of private memory, shared memory without limit")
        }
        None => "memory without limit".to_owned(),
    };
    let mut detail = format!("{files} open files, no core dumps, {memory}");
    if let Some(max) = bounds.file_bytes_max {
        let max = lower(Resource::Fsize, max)?;
        detail.push_str(&format!(", files of {max} bytes"));
    }
    if let Some(max) = bounds.cpu_seconds_max {
        let max = lower(Resource::Cpu, max)?;
        detail.push_str(&format!(", {max} s of a processor"));
    }
    Ok(Outcome::InPlace(detail))
}

/// Sets a limit, at most to what is allowed now, and says to what.
fn lower(resource: Resource, value: u64) -> Result<u64, Error> {
    let value = value.min(getrlimit(resource).maximum.unwrap_or(u64::MAX));
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, limit).map_err(Error::measure(MEASURE, "setrlimit"))?;
    Ok(value)
}
