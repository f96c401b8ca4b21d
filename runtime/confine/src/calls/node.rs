//! The calls that a node of one tenant has besides those of every process: it starts its own
//! program again, and takes connections from sockets that it was handed.

use super::table::Argument;

/// What it may call besides.
#[rustfmt::skip]
pub(crate) const ALLOWED: &[i64] = &[
    // The own program started again, its end, and signals to it; see `calls` on the last.
    libc::SYS_execve, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_pidfd_open, libc::SYS_setsid,
    libc::SYS_pidfd_send_signal,
    // What a socket that was handed over accepts.
    libc::SYS_accept, libc::SYS_accept4,
    // A program that is started may bound itself further; all of these only ever take away.
    libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self, libc::SYS_capset,
];

/// The same for what only x86-64 has.
#[cfg(target_arch = "x86_64")]
pub(crate) const ALLOWED_OF_OLD: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const ALLOWED_OF_OLD: &[i64] = &[];

/// What is never let through, and need not be for any of its threads.
pub(crate) const REFUSED: &[i64] = &[libc::SYS_kcmp, libc::SYS_sched_setaffinity];

/// Controls that descriptors need: whether they wait, close, hold bytes, or are a terminal; and
/// which pages of a guest's memory were written, asked of the process's own map.
const CONTROLS: &[u64] = &[
    0x5421,      // FIONBIO
    0x5451,      // FIOCLEX
    0x5450,      // FIONCLEX
    0x541b,      // FIONREAD
    0x5401,      // TCGETS
    0x5413,      // TIOCGWINSZ
    0xc060_6610, // PAGEMAP_SCAN
];

/// What is let through unless an argument says otherwise.
pub(crate) const REFUSED_BY_ARGUMENT: &[(i64, Argument)] =
    &[(libc::SYS_ioctl, Argument::IsNoneOf(1, CONTROLS))];
