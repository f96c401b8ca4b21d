//! A network of its own, with no device that is up: nothing can be reached, whatever is called.
//!
//! Keeps true: user and group of the process are what they were, for files and in its own eyes.
//! Sockets that it was handed still work: a socket stays in the network it was made in.
//!
//! Message queues, shared memory by key and the name of the host come along where they can. A user
//! space of its own is made only where the process may not make a network without one.

use std::fmt::Write as _;
use std::fs;

use rustix::io::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::UnshareFlags;

use crate::{Error, Outcome};

/// The row in the report.
pub(crate) const MEASURE: &str = "namespaces";

/// What a kernel answers that lacks them, or has a rule or a bound against them.
const EXPECTED: [Errno; 6] =
    [Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::NOSYS, Errno::NOSPC, Errno::USERS];

/// Moves the process into a network of its own, and what else can be had.
pub(crate) fn leave() -> Result<Outcome, Error> {
    let network = UnshareFlags::NEWNET;
    let all = network | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    let user = UnshareFlags::NEWUSER;
    // Asked for now: in a new user space they have no numbers at first.
    let (uid, gid) = (geteuid(), getegid());
    let mut reasons = String::new();
    for flags in [all, network, all | user, network | user] {
        match unshare(flags) {
            Ok(()) => {
                if flags.contains(user) {
                    keep_names(uid, gid)?;
                }
                return Ok(Outcome::InPlace(format!("{} of its own", names(flags))));
            }
            Err(errno) if EXPECTED.contains(&errno) => {
                // Writing to a string cannot fail.
                let gap = if reasons.is_empty() { "" } else { "; " };
                write!(reasons, "{gap}{}: {errno}", names(flags)).unwrap_or_default();
            }
            Err(errno) => return Err(Error::measure(MEASURE, "unshare")(errno)),
        }
    }
    Ok(Outcome::Absent(format!("the system refuses them ({reasons})")))
}

#[expect(deprecated, reason = "unsound only where it separates open files, which this does not")]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    rustix::thread::unshare(flags)
}

fn names(flags: UnshareFlags) -> String {
    let parts = [
        (UnshareFlags::NEWUSER, "user"),
        (UnshareFlags::NEWNET, "network"),
        (UnshareFlags::NEWIPC, "message queues"),
        (UnshareFlags::NEWUTS, "host name"),
    ];
    let present = parts.into_iter().filter(|(flag, _)| flags.contains(*flag));
    present.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

/// Gives user and group the numbers they had outside.
fn keep_names(user: Uid, group: Gid) -> Result<(), Error> {
    // Without this the kernel lets nobody without rights set the groups.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{0} {0} 1", user.as_raw()))?;
    write("/proc/self/gid_map", &format!("{0} {0} 1", group.as_raw()))
}

fn write(path: &str, text: &str) -> Result<(), Error> {
    fs::write(path, text)
        .map_err(|error| Error::Measure { measure: MEASURE, why: format!("{path}: {error}") })
}
