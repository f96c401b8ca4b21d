//! The calls that a process has besides those of every process which gives a device's driver work
//! of others: libraries whose code nobody here has seen.
//!
//! - They control devices by numbers of their own, so that `ioctl` has a list of what is refused:
//!   what can be asked of terminals, file systems and sockets. Which devices there are to control
//!   is for the rules of files.
//! - It starts no program and no other process, so there is nobody to signal but itself.
//! - An allow-list all the same. Mesa needs none of what stands here; libraries of other vendors
//!   call some of it, and what is on no list they are told as by an older kernel.

use super::table::Argument;

/// What it may call besides.
#[rustfmt::skip]
pub(crate) const ALLOWED: &[i64] = &[
    // Memory that a device is to have, and where it is to be.
    libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_munlock, libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy, libc::SYS_mbind,
    // Which processors its own threads run on, and how.
    libc::SYS_sched_setaffinity, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    // Whether two descriptors are of one device.
    libc::SYS_kcmp,
];

/// The same for what only x86-64 has.
#[cfg(target_arch = "x86_64")]
pub(crate) const ALLOWED_OF_OLD: &[i64] =
    &[libc::SYS_epoll_create, libc::SYS_eventfd, libc::SYS_pause];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const ALLOWED_OF_OLD: &[i64] = &[];

/// What is never let through: other processes and programs.
#[rustfmt::skip]
pub(crate) const REFUSED: &[i64] = &[
    libc::SYS_execve, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal, libc::SYS_setsid, libc::SYS_setpgid, libc::SYS_accept,
    libc::SYS_accept4,
];

/// The kind of thing that a control is for.
const CONTROLLED: u64 = 0xff00;

/// Controls of the kind of terminals that all descriptors have: whether they wait, close, hold
/// bytes, or are a terminal.
const OF_ALL: &[u64] = &[
    0x5421, // FIONBIO
    0x5451, // FIOCLEX
    0x5450, // FIONCLEX
    0x541b, // FIONREAD
    0x5401, // TCGETS
    0x5413, // TIOCGWINSZ
];

/// What is let through unless an argument says otherwise; each row is one case of refusal.
pub(crate) const REFUSED_BY_ARGUMENT: &[(i64, Argument)] = &[
    // Threads of its own only, no processes.
    (libc::SYS_clone, Argument::Masked(0, CLONE_THREAD, 0)),
    // Terminals, attributes of files, file systems, sockets, and large parts of the kernel.
    (libc::SYS_ioctl, Argument::MaskedBut(1, CONTROLLED, 0x5400, OF_ALL)),
    (libc::SYS_ioctl, Argument::Masked(1, CONTROLLED, 0x6600)), // FS_IOC_SETFLAGS and others
    (libc::SYS_ioctl, Argument::Masked(1, CONTROLLED, 0x5800)), // FIFREEZE, XFS
    (libc::SYS_ioctl, Argument::Masked(1, CONTROLLED, 0x9400)), // btrfs
    (libc::SYS_ioctl, Argument::Masked(1, CONTROLLED, 0x8900)), // sockets, SIOCSIFADDR
    (libc::SYS_ioctl, Argument::Masked(1, CONTROLLED, 0xaa00)), // userfaultfd
    (libc::SYS_ioctl, Argument::Masked(1, CONTROLLED, 0xae00)), // KVM
    // Of threads and processes by number only itself.
    (libc::SYS_sched_setaffinity, Argument::IsNot(0, 0)),
    (libc::SYS_kcmp, Argument::IsOther(0)),
    (libc::SYS_kcmp, Argument::IsOther(1)),
];

const CLONE_THREAD: u64 = 0x1_0000;
