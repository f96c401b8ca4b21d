//! The lists of system calls that hold for every process: what is allowed and for what, what is
//! refused and why.
//!
//! Keeps true: no call is on both lists without an argument that tells. The lists named `OF_OLD`
//! have what only x86-64 has, mostly calls that newer architectures left out as others do the same.
//!
//! What is allowed was found by reason for each group, and held against traces of a node that
//! compiles, runs stages, writes its log and store, and ends. What holds for one kind of process
//! besides: `node` and `drivers`.

/// When a call is refused; arguments are numbered from 0.
pub(crate) enum Argument {
    /// Always.
    Any,
    /// The argument has the value.
    Is(u8, u64),
    /// The argument has another value.
    IsNot(u8, u64),
    /// The argument has none of the values.
    IsNoneOf(u8, &'static [u64]),
    /// Of the argument, the bits of a mask have the value.
    Masked(u8, u64, u64),
    /// Of the argument, the bits of a mask have the value, and it has none of the others.
    MaskedBut(u8, u64, u64, &'static [u64]),
    /// One argument has a value, and another has not.
    IsAnd(u8, u64, u8, u64),
    /// The argument is the number of another process.
    IsOther(u8),
    /// The argument is an address, not null.
    IsAddress(u8),
}

/// What every process may call, and the programs it starts if it may start any.
#[rustfmt::skip]
pub(crate) const ALLOWED: &[i64] = &[
    // Memory: heaps, stacks, code that is made executable, memories of guests and their images.
    libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise,
    libc::SYS_brk, libc::SYS_mincore, libc::SYS_msync, libc::SYS_memfd_create,
    // Code made on one thread runs on another.
    libc::SYS_membarrier,
    // Threads and what they wait for.
    libc::SYS_clone, libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list,
    libc::SYS_rseq, libc::SYS_set_tid_address, libc::SYS_gettid, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_getcpu, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_restart_syscall,
    // Its limits.
    libc::SYS_prctl, libc::SYS_prlimit64, libc::SYS_getpriority, libc::SYS_setpriority,
    // Traps, and signals within; see `calls` on the last two.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack, libc::SYS_kill, libc::SYS_tgkill,
    // Who and where it is.
    libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getpgid, libc::SYS_getsid, libc::SYS_getuid,
    libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid,
    libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_uname, libc::SYS_sysinfo,
    libc::SYS_getrusage, libc::SYS_times, libc::SYS_capget, libc::SYS_getrandom,
    // Time.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep, libc::SYS_gettimeofday, libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    // Files: which ones, Landlock decides.
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_close, libc::SYS_close_range,
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2,
    libc::SYS_pwritev2, libc::SYS_lseek, libc::SYS_copy_file_range, libc::SYS_sendfile,
    libc::SYS_splice, libc::SYS_readahead, libc::SYS_fadvise64, libc::SYS_ftruncate,
    libc::SYS_fallocate, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_flock, libc::SYS_fcntl, libc::SYS_ioctl, libc::SYS_dup, libc::SYS_dup3,
    libc::SYS_umask,
    // Directories and what is known of files.
    libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_mkdirat,
    libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_linkat,
    libc::SYS_fstatfs, libc::SYS_statfs, libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir,
    libc::SYS_utimensat,
    // Pipes and events.
    libc::SYS_pipe2, libc::SYS_eventfd2, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_pselect6,
    // Sockets that were handed over, and pairs.
    libc::SYS_recvfrom, libc::SYS_recvmsg,
    libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_shutdown, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_socketpair,
    // The second filter is put in force under the first, and more only ever take away.
    libc::SYS_seccomp,
];

/// The same for what only x86-64 has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(crate) const ALLOWED_OF_OLD: &[i64] = &[
    libc::SYS_arch_prctl, libc::SYS_open, libc::SYS_stat,
    libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_getdents, libc::SYS_mkdir,
    libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_link, libc::SYS_dup2,
    libc::SYS_pipe, libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait, libc::SYS_getpgrp,
    libc::SYS_time, libc::SYS_getrlimit, libc::SYS_setrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const ALLOWED_OF_OLD: &[i64] = &[];

/// By number, the same everywhere, as not all tables that numbers come from have it.
const FCHMODAT2: i64 = 452;

/// What is never let through.
#[rustfmt::skip]
pub(crate) const REFUSED: &[i64] = &[
    // The network, and sockets of others: nothing is made, named or reached.
    libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen,
    // Other processes.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_process_madvise, libc::SYS_process_mrelease, libc::SYS_pidfd_getfd,
    libc::SYS_tkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_migrate_pages, libc::SYS_move_pages, libc::SYS_sched_setattr,
    libc::SYS_sched_setparam, libc::SYS_sched_setscheduler, libc::SYS_ioprio_set,
    // Large parts of the kernel that nothing here needs.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_add_key,
    libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_fanotify_init, libc::SYS_personality,
    libc::SYS_vmsplice,
    // Other views of the system.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_move_mount, libc::SYS_open_tree,
    libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_unshare,
    libc::SYS_setns,
    // The machine.
    libc::SYS_kexec_load, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_reboot, libc::SYS_swapon,
    libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_quotactl_fd,
    libc::SYS_syslog, libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex,
    libc::SYS_clock_adjtime, libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup,
    // Who it is.
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid,
    libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setfsuid, libc::SYS_setfsgid,
    libc::SYS_setgroups,
    // Files past Landlock: by number, by program in memory, and changes it does not see. Mode and
    // owner of a file are what they were when it was made; so no program of root's is left behind.
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at, libc::SYS_execveat,
    libc::SYS_truncate, libc::SYS_fchmod, libc::SYS_fchmodat, FCHMODAT2,
    libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_setxattr, libc::SYS_lsetxattr,
    libc::SYS_fsetxattr, libc::SYS_removexattr, libc::SYS_lremovexattr,
    libc::SYS_fremovexattr, libc::SYS_mknodat, libc::SYS_symlinkat,
];

/// The same for what only x86-64 has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(crate) const REFUSED_OF_OLD: &[i64] = &[
    libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_mknod, libc::SYS_symlink,
    libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat, libc::SYS_modify_ldt,
    libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const REFUSED_OF_OLD: &[i64] = &[];

const AF_UNIX: u64 = 1;
/// The kind of a socket, without its flags.
const KIND: u64 = 0xf;
const SOCK_DGRAM: u64 = 2;
const SOCK_RAW: u64 = 3;
const SOL_SOCKET: u64 = 1;
const IPPROTO_TCP: u64 = 6;

/// Settings of a process that name it, tie it to its parent, or take from it.
const SETTINGS: &[u64] = &[
    1,          // PR_SET_PDEATHSIG
    2,          // PR_GET_PDEATHSIG
    3,          // PR_GET_DUMPABLE
    4,          // PR_SET_DUMPABLE, to 0
    15,         // PR_SET_NAME
    16,         // PR_GET_NAME
    21,         // PR_GET_SECCOMP
    23,         // PR_CAPBSET_READ
    24,         // PR_CAPBSET_DROP
    27,         // PR_GET_SECUREBITS
    38,         // PR_SET_NO_NEW_PRIVS
    39,         // PR_GET_NO_NEW_PRIVS
    41,         // PR_SET_THP_DISABLE
    42,         // PR_GET_THP_DISABLE
    47,         // PR_CAP_AMBIENT
    0x53564d41, // PR_SET_VMA: names of mappings
];

/// What is let through unless an argument says otherwise; each row is one case of refusal.
pub(crate) const REFUSED_BY_ARGUMENT: &[(i64, Argument)] = &[
    // Other views of the system, and children that are somebody else's.
    (libc::SYS_clone, Argument::Masked(0, CLONE_NEWNS, CLONE_NEWNS)),
    (libc::SYS_clone, Argument::Masked(0, CLONE_NEWCGROUP, CLONE_NEWCGROUP)),
    (libc::SYS_clone, Argument::Masked(0, CLONE_NEWUTS, CLONE_NEWUTS)),
    (libc::SYS_clone, Argument::Masked(0, CLONE_NEWIPC, CLONE_NEWIPC)),
    (libc::SYS_clone, Argument::Masked(0, CLONE_NEWUSER, CLONE_NEWUSER)),
    (libc::SYS_clone, Argument::Masked(0, CLONE_NEWPID, CLONE_NEWPID)),
    (libc::SYS_clone, Argument::Masked(0, CLONE_NEWNET, CLONE_NEWNET)),
    (libc::SYS_clone, Argument::Masked(0, CLONE_PARENT, CLONE_PARENT)),
    // Pairs of connected streams only: from a datagram socket any other could be addressed.
    (libc::SYS_socketpair, Argument::IsNot(0, AF_UNIX)),
    (libc::SYS_socketpair, Argument::Masked(1, KIND, SOCK_DGRAM)),
    (libc::SYS_socketpair, Argument::Masked(1, KIND, SOCK_RAW)),
    (libc::SYS_sendto, Argument::IsAddress(4)),
    // Options of sockets and of TCP, without programs that filter.
    (libc::SYS_setsockopt, Argument::IsNoneOf(1, &[SOL_SOCKET, IPPROTO_TCP])),
    (libc::SYS_setsockopt, Argument::Is(2, SO_ATTACH_FILTER)),
    (libc::SYS_setsockopt, Argument::Is(2, SO_ATTACH_BPF)),
    (libc::SYS_setsockopt, Argument::Is(2, SO_ATTACH_REUSEPORT_CBPF)),
    (libc::SYS_setsockopt, Argument::Is(2, SO_ATTACH_REUSEPORT_EBPF)),
    (libc::SYS_prctl, Argument::IsNoneOf(0, SETTINGS)),
    (libc::SYS_prctl, Argument::IsAnd(0, PR_SET_DUMPABLE, 1, 0)),
    // Signals by way of a file that is ready.
    (libc::SYS_fcntl, Argument::Is(1, F_SETOWN)),
    (libc::SYS_fcntl, Argument::Is(1, F_SETOWN_EX)),
    (libc::SYS_fcntl, Argument::Is(1, F_SETSIG)),
    // Limits and claims of other processes of the same user.
    (libc::SYS_prlimit64, Argument::IsNot(0, 0)),
    (libc::SYS_setpriority, Argument::IsNot(0, PRIO_PROCESS)),
    (libc::SYS_setpriority, Argument::IsNot(1, 0)),
    // Times of a file that is open, not of one that has a path.
    (libc::SYS_utimensat, Argument::IsAddress(1)),
];

const CLONE_PARENT: u64 = 0x8000;
const CLONE_NEWNS: u64 = 0x2_0000;
const CLONE_NEWCGROUP: u64 = 0x200_0000;
const CLONE_NEWUTS: u64 = 0x400_0000;
const CLONE_NEWIPC: u64 = 0x800_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWPID: u64 = 0x2000_0000;
const CLONE_NEWNET: u64 = 0x4000_0000;
const SO_ATTACH_FILTER: u64 = 26;
const SO_ATTACH_BPF: u64 = 50;
const SO_ATTACH_REUSEPORT_CBPF: u64 = 51;
const SO_ATTACH_REUSEPORT_EBPF: u64 = 52;
const PR_SET_DUMPABLE: u64 = 4;
const F_SETOWN: u64 = 8;
const F_SETSIG: u64 = 10;
const F_SETOWN_EX: u64 = 15;
const PRIO_PROCESS: u64 = 0;
