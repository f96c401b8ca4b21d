//! Which system calls the process and everything it starts may make, by two filters of seccomp.
//!
//! The first is an allow-list, not a deny-list: a call that the next kernel brings is then closed,
//! and what the process does is known: threads, memory for code and guests, files below a
//! directory, sockets it was handed, its own program started again. The second refuses what the
//! first must let through for some arguments only, and, by name, what must never be let through.
//!
//! Keeps true: a call on no list does not exist (`ENOSYS`), so that libraries take the older way
//! they have for older kernels; so `clone3` ends in `clone`, whose flags can be seen, and
//! `openat2` stays. What is refused by name or argument is not permitted (`EPERM`). Nothing is
//! killed for a call, except by calls of another architecture (32 bits), which end the process.
//! Numbers of the x32 interface are on no list.
//!
//! Signals: where Landlock bounds them (`signals_bounded`) the calls are let through, so that
//! programs the process started can be killed. Where it does not, no argument tells a child from
//! another process of the same user; then a process may signal itself alone, and what it started
//! must end by its own limits, or with its pipes. One that may start nothing signals itself alone
//! in any case.
//!
//! Leaves open what has to be read from memory: paths, addresses of messages (no datagram socket
//! can be made, and none must be handed over), flags of `openat2`.

mod drivers;
mod node;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;

use rustix::io::Errno;
use rustix::process::getpid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use crate::{Calls, Error, Outcome};
use table::{ALLOWED, ALLOWED_OF_OLD, Argument, REFUSED, REFUSED_BY_ARGUMENT, REFUSED_OF_OLD};

/// The row in the report.
pub(crate) const MEASURE: &str = "seccomp";

/// Calls by number, each with the rules of which one must hold; without any it always matches.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The lists of one kind of process: what every process has, and what it has besides.
struct Lists {
    allowed: [&'static [i64]; 4],
    refused: [&'static [i64]; 3],
    refused_by_argument: [&'static [(i64, Argument)]; 2],
}

impl Lists {
    const fn of(calls: Calls) -> Self {
        let (allowed, of_old, refused, by_argument) = match calls {
            Calls::Node => {
                (node::ALLOWED, node::ALLOWED_OF_OLD, node::REFUSED, node::REFUSED_BY_ARGUMENT)
            }
            Calls::Drivers => (
                drivers::ALLOWED,
                drivers::ALLOWED_OF_OLD,
                drivers::REFUSED,
                drivers::REFUSED_BY_ARGUMENT,
            ),
        };
        Self {
            allowed: [ALLOWED, ALLOWED_OF_OLD, allowed, of_old],
            refused: [REFUSED, REFUSED_OF_OLD, refused],
            refused_by_argument: [REFUSED_BY_ARGUMENT, by_argument],
        }
    }

    fn allowed(&self) -> impl Iterator<Item = i64> {
        self.allowed.into_iter().flatten().copied()
    }

    fn refused(&self) -> impl Iterator<Item = i64> {
        self.refused.into_iter().flatten().copied()
    }
}

/// Puts the filters in force. `signals_bounded`: something else keeps signals within.
pub(crate) fn allow(calls: Calls, signals_bounded: bool) -> Result<Outcome, Error> {
    let Some(arch) = arch() else {
        let arch = std::env::consts::ARCH;
        return Ok(Outcome::Absent(format!("no list of calls for {arch}")));
    };
    let lists = Lists::of(calls);
    // Who can start nothing has nobody else to signal.
    let signals_bounded = signals_bounded && calls == Calls::Node;
    let allowing = allowing(&lists, arch).map_err(failed("the list of what is allowed"))?;
    let refusing =
        refusing(&lists, arch, signals_bounded).map_err(failed("the list of what is refused"))?;
    // The one that refuses comes later, as the other must let it be put in force; and of two
    // refusals the answer of the later counts.
    match apply_filter(&allowing) {
        Ok(()) => {}
        Err(seccompiler::Error::Seccomp(error)) if no_filter_is_taken() => {
            return Ok(Outcome::Absent(format!("the kernel takes no filters: {error}")));
        }
        Err(error) => return Err(failed("the filter of what is allowed")(error)),
    }
    apply_filter(&refusing).map_err(failed("the filter of what is refused"))?;
    let signals = if signals_bounded { "what is locked in" } else { "itself alone" };
    let count = lists.allowed().count();
    Ok(Outcome::InPlace(format!("{count} calls, signals to {signals}")))
}

fn failed<E: Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Measure { measure: MEASURE, why: format!("{what}: {error}") }
}

/// Whether the kernel refuses even a filter that allows everything, so that ours is not at fault.
fn no_filter_is_taken() -> bool {
    const RETURN: u16 = 0x06;
    let allow = u32::from(SeccompAction::Allow);
    apply_filter(&[sock_filter { code: RETURN, jt: 0, jf: 0, k: allow }]).is_err()
}

/// The architecture, if there are lists for it.
fn arch() -> Option<TargetArch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(TargetArch::x86_64),
        "aarch64" => Some(TargetArch::aarch64),
        _ => None,
    }
}

/// What is on no list does not exist.
fn allowing(lists: &Lists, arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = lists.allowed().map(|call| (call, Vec::new())).collect();
    compile(rules, refusal(Errno::NOSYS), SeccompAction::Allow, arch)
}

/// What is on a list is not permitted.
fn refusing(
    lists: &Lists,
    arch: TargetArch,
    signals_bounded: bool,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: Rules = lists.refused().map(|call| (call, Vec::new())).collect();
    let to_others = [
        (libc::SYS_kill, Argument::IsOther(0)),
        (libc::SYS_tgkill, Argument::IsOther(0)),
        // A descriptor does not tell whose process it is for.
        (libc::SYS_pidfd_send_signal, Argument::Any),
    ];
    let to_others = if signals_bounded { &[][..] } else { &to_others };
    for (call, argument) in lists.refused_by_argument.into_iter().flatten().chain(to_others) {
        let Some(conditions) = conditions(argument)? else {
            rules.insert(*call, Vec::new());
            continue;
        };
        // Refused whatever its arguments are: a case would narrow that.
        if rules.get(call).is_some_and(Vec::is_empty) {
            continue;
        }
        rules.entry(*call).or_default().push(SeccompRule::new(conditions)?);
    }
    compile(rules, SeccompAction::Allow, refusal(Errno::PERM), arch)
}

fn refusal(errno: Errno) -> SeccompAction {
    SeccompAction::Errno(errno.raw_os_error().unsigned_abs())
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
}

/// What must hold together for a call to match; `None`: nothing.
fn conditions(
    argument: &Argument,
) -> Result<Option<Vec<SeccompCondition>>, seccompiler::BackendError> {
    // The kernel reads these arguments as 32 bits, whatever the upper half holds.
    let half = |at, how, value| SeccompCondition::new(at, SeccompCmpArgLen::Dword, how, value);
    let conditions = match *argument {
        Argument::Any => return Ok(None),
        Argument::Is(at, value) => vec![half(at, SeccompCmpOp::Eq, value)?],
        Argument::IsNot(at, value) => vec![half(at, SeccompCmpOp::Ne, value)?],
        Argument::IsNoneOf(at, values) => values
            .iter()
            .map(|value| half(at, SeccompCmpOp::Ne, *value))
            .collect::<Result<Vec<_>, _>>()?,
        Argument::Masked(at, mask, value) => {
            vec![half(at, SeccompCmpOp::MaskedEq(mask), value)?]
        }
        Argument::MaskedBut(at, mask, value, others) => {
            let masked = std::iter::once(half(at, SeccompCmpOp::MaskedEq(mask), value));
            let others = others.iter().map(|other| half(at, SeccompCmpOp::Ne, *other));
            masked.chain(others).collect::<Result<Vec<_>, _>>()?
        }
        Argument::IsOther(at) => {
            let own = u64::from(getpid().as_raw_pid().unsigned_abs());
            vec![half(at, SeccompCmpOp::Ne, own)?]
        }
        Argument::IsAnd(first, value, second, other_than) => {
            vec![half(first, SeccompCmpOp::Eq, value)?, half(second, SeccompCmpOp::Ne, other_than)?]
        }
        Argument::IsAddress(at) => {
            vec![SeccompCondition::new(at, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?]
        }
    };
    Ok(Some(conditions))
}
