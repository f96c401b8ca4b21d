//! The filters, run on calls that no safe code can make.

use std::collections::BTreeSet;

use super::*;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL: u32 = 0x8000_0000;
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;

/// What the kernel shows a filter.
struct Call {
    number: i64,
    arch: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, upper| if upper { (value >> 32) as u32 } else { value as u32 };
        match offset {
            0 => self.number as u32,
            4 => self.arch,
            16.. => {
                let at = (offset - 16) / 4;
                half(self.arguments[at as usize / 2], at % 2 == 1)
            }
            _ => panic!("the filters do not look at where a call comes from"),
        }
    }
}

/// Runs a program of the few instructions the compiler of filters uses.
fn run(program: &BpfProgram, call: &Call) -> u32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            0x20 => value = call.word(step.k),
            0x54 => value &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(value == step.k),
            0x25 => at += jump(value > step.k),
            0x35 => at += jump(value >= step.k),
            0x06 => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What becomes of a call: of two refusals that of the later filter counts.
fn answer(calls: Calls, signals_bounded: bool, call: &Call) -> u32 {
    let lists = Lists::of(calls);
    let first = run(&allowing(&lists, TargetArch::x86_64).unwrap(), call);
    let second = run(&refusing(&lists, TargetArch::x86_64, signals_bounded).unwrap(), call);
    if first == KILL || second == KILL {
        KILL
    } else if second == ALLOW {
        first
    } else {
        second
    }
}

fn asked_by(calls: Calls, number: i64, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    // Who may signal nobody is not let by a bound of signals.
    let bounded = calls == Calls::Node;
    answer(calls, bounded, &Call { number, arch: AUDIT_X86_64, arguments: all })
}

fn asked(number: i64, arguments: &[u64]) -> u32 {
    asked_by(Calls::Node, number, arguments)
}

const KINDS: [Calls; 2] = [Calls::Node, Calls::Drivers];

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

#[test]
fn no_call_is_both_allowed_and_refused() {
    for lists in KINDS.map(Lists::of) {
        let allowed: BTreeSet<_> = lists.allowed().collect();
        let refused: BTreeSet<_> = lists.refused().collect();
        assert_eq!(allowed.intersection(&refused).count(), 0);
        assert_eq!(allowed.len(), lists.allowed().count());
        assert_eq!(refused.len(), lists.refused().count());
        // A case of refusal is for a call that is allowed otherwise.
        let mut cases = lists.refused_by_argument.into_iter().flatten();
        assert!(cases.all(|(call, _)| allowed.contains(call)));
    }
}

#[test]
fn what_is_on_no_list_does_not_exist_and_what_is_refused_is_not_permitted() {
    for calls in KINDS {
        assert_eq!(asked_by(calls, libc::SYS_read, &[]), ALLOW);
        assert_eq!(asked_by(calls, libc::SYS_clone3, &[]), ENOSYS);
        assert_eq!(asked_by(calls, 9_999, &[]), ENOSYS);
        for call in Lists::of(calls).refused() {
            assert_eq!(asked_by(calls, call, &[]), EPERM, "call {call}");
        }
    }
}

#[test]
fn drivers_control_devices_start_nothing_and_signal_themselves_alone() {
    let own = u64::from(std::process::id());
    let cases: &[(i64, &[u64], u32)] = &[
        // A thread, and what could be a process.
        (libc::SYS_clone, &[0x3d_0f00], ALLOW),
        (libc::SYS_clone, &[17], EPERM),
        (libc::SYS_clone, &[0x4100 | 17], EPERM),
        (libc::SYS_fork, &[], ENOSYS),
        (libc::SYS_vfork, &[], ENOSYS),
        (libc::SYS_execve, &[1], EPERM),
        (libc::SYS_execveat, &[1], EPERM),
        // The direct rendering of Linux, NVIDIA's two, AMD's.
        (libc::SYS_ioctl, &[3, 0xc010_6400], ALLOW),
        (libc::SYS_ioctl, &[3, 0xc020_462a], ALLOW),
        (libc::SYS_ioctl, &[3, 0x3000_0001], ALLOW),
        (libc::SYS_ioctl, &[3, 0xc008_4b03], ALLOW),
        // FIONBIO and TCGETS; TIOCSTI, FS_IOC_SETFLAGS, FICLONE, SIOCGIFCONF, KVM_CREATE_VM.
        (libc::SYS_ioctl, &[3, 0x5421], ALLOW),
        (libc::SYS_ioctl, &[3, 0x5401], ALLOW),
        (libc::SYS_ioctl, &[3, 0x5412], EPERM),
        (libc::SYS_ioctl, &[3, 1 << 32 | 0x5412], EPERM),
        (libc::SYS_ioctl, &[3, 0x4008_6602], EPERM),
        (libc::SYS_ioctl, &[3, 0x4004_9409], EPERM),
        (libc::SYS_ioctl, &[3, 0x8912], EPERM),
        (libc::SYS_ioctl, &[3, 0xae01], EPERM),
        (libc::SYS_kill, &[own, 6], ALLOW),
        (libc::SYS_tgkill, &[own, own, 6], ALLOW),
        (libc::SYS_kill, &[own + 1, 9], EPERM),
        (libc::SYS_kill, &[0, 9], EPERM),
        (libc::SYS_pidfd_send_signal, &[3, 9], EPERM),
        (libc::SYS_kcmp, &[own, own, 0], ALLOW),
        (libc::SYS_kcmp, &[own, own + 1, 0], EPERM),
        (libc::SYS_kcmp, &[own + 1, own, 0], EPERM),
        (libc::SYS_sched_setaffinity, &[0, 8], ALLOW),
        (libc::SYS_sched_setaffinity, &[own + 1, 8], EPERM),
        (libc::SYS_socket, &[1, 1], EPERM),
        (libc::SYS_accept4, &[3], EPERM),
    ];
    for (number, arguments, expected) in cases {
        let became = asked_by(Calls::Drivers, *number, arguments);
        assert_eq!(became, *expected, "call {number} {arguments:x?}");
    }
}

#[test]
fn other_interfaces_of_the_processor_are_closed() {
    let x32 = 0x4000_0000;
    assert_eq!(asked(x32 | libc::SYS_read, &[]), ENOSYS);
    assert_eq!(asked(x32 | 521, &[]), ENOSYS);
    let call = Call { number: libc::SYS_read, arch: AUDIT_I386, arguments: [0; 6] };
    assert_eq!(answer(Calls::Node, true, &call), KILL);
}

#[test]
fn arguments_decide_where_a_call_can_do_more() {
    let thread = 0x3d_0f00;
    let cases: &[(i64, &[u64], u32)] = &[
        (libc::SYS_clone, &[thread], ALLOW),
        (libc::SYS_clone, &[0x1000_0000 | 17], EPERM),
        (libc::SYS_clone, &[0x4000_0000 | 17], EPERM),
        (libc::SYS_clone, &[0x2_0000 | 17], EPERM),
        (libc::SYS_clone, &[0x8000 | 17], EPERM),
        (libc::SYS_socketpair, &[1, 1 | 0o2000000], ALLOW),
        (libc::SYS_socketpair, &[1, 5], ALLOW),
        (libc::SYS_socketpair, &[1, 2 | 0o2000000], EPERM),
        (libc::SYS_socketpair, &[1, 3], EPERM),
        (libc::SYS_socketpair, &[16, 1], EPERM),
        (libc::SYS_sendto, &[3, 1, 1, 0, 0, 0], ALLOW),
        (libc::SYS_sendto, &[3, 1, 1, 0, 1 << 32, 16], EPERM),
        (libc::SYS_setsockopt, &[3, 1, 2], ALLOW),
        (libc::SYS_setsockopt, &[3, 6, 1], ALLOW),
        (libc::SYS_setsockopt, &[3, 0, 64], EPERM),
        (libc::SYS_setsockopt, &[3, 1, 50], EPERM),
        (libc::SYS_ioctl, &[0, 0x5421], ALLOW),
        // TIOCSTI; the upper half of the argument is not looked at by the kernel either.
        (libc::SYS_ioctl, &[0, 0x5412], EPERM),
        (libc::SYS_ioctl, &[0, 1 << 32 | 0x5412], EPERM),
        (libc::SYS_prctl, &[15], ALLOW),
        (libc::SYS_prctl, &[0x53564d41], ALLOW),
        (libc::SYS_prctl, &[4, 0], ALLOW),
        (libc::SYS_prctl, &[4, 1], EPERM),
        (libc::SYS_prctl, &[0x59616d61, 1], EPERM),
        (libc::SYS_fcntl, &[3, 4], ALLOW),
        (libc::SYS_fcntl, &[3, 8, 1], EPERM),
        (libc::SYS_prlimit64, &[0, 7], ALLOW),
        (libc::SYS_prlimit64, &[1, 7], EPERM),
        (libc::SYS_setpriority, &[0, 0, 10], ALLOW),
        (libc::SYS_setpriority, &[0, 1, 10], EPERM),
        (libc::SYS_setpriority, &[2, 0, 10], EPERM),
        (libc::SYS_utimensat, &[3, 0], ALLOW),
        (libc::SYS_utimensat, &[3, 1 << 40], EPERM),
    ];
    for (number, arguments, expected) in cases {
        assert_eq!(asked(*number, arguments), *expected, "call {number} {arguments:x?}");
    }
}

#[test]
fn without_a_bound_of_signals_a_process_signals_itself_alone() {
    let own = std::process::id().into();
    let signal = |bounded, number, to| {
        let calls = Calls::Node;
        answer(calls, bounded, &Call { number, arch: AUDIT_X86_64, arguments: [to, 9, 0, 0, 0, 0] })
    };
    for number in [libc::SYS_kill, libc::SYS_tgkill] {
        assert_eq!(signal(true, number, own + 1), ALLOW);
        assert_eq!(signal(false, number, own), ALLOW);
        assert_eq!(signal(false, number, own + 1), EPERM);
        // All processes it may reach, and its group.
        assert_eq!(signal(false, number, u64::from(u32::MAX)), EPERM);
        assert_eq!(signal(false, number, 0), EPERM);
    }
    assert_eq!(signal(true, libc::SYS_pidfd_send_signal, 3), ALLOW);
    assert_eq!(signal(false, libc::SYS_pidfd_send_signal, 3), EPERM);
}
