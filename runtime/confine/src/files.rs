//! Which files the process may touch, by Landlock, and what Landlock bounds besides.
//!
//! Keeps true: what no path of [`Bounds`] allows is refused, whichever name leads to it: the rules
//! hold for files, not for texts. Whatever this kernel's Landlock can refuse is asked for; what an
//! older one lacks is named in the report.
//!
//! Landlock does not see whether a file exists, its kind and size, the current directory, and
//! changes of mode, owner and times. The filter of calls refuses the changes.
//!
//! A rule is bound to an inode. Those of `/proc` come and go, so a rule there may end by itself.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope,
};
use rustix::fs::{FileType, fstat};

use crate::{Bounds, Error, Outcome};

/// The row in the report.
pub(crate) const MEASURE: &str = "landlock";

/// The latest version whose rights are known here; the crate leaves out what the kernel lacks.
const KNOWN: ABI = ABI::V10;

/// From which version on Landlock refuses signals to processes outside.
const SIGNALS_FROM: ABI = ABI::V6;

/// What a version brought, in the words of what is open without it.
const BROUGHT: [(ABI, &str); 7] = [
    (ABI::V2, "renaming between directories (always refused)"),
    (ABI::V3, "truncating"),
    (ABI::V4, "TCP"),
    (ABI::V5, "control of devices"),
    (SIGNALS_FROM, "signals and abstract sockets"),
    (ABI::V9, "sockets by path"),
    (ABI::V10, "UDP"),
];

/// The one device everybody may write to: programs are started with it as a stream.
const NULL_DEVICE: &str = "/dev/null";

/// What is in force.
pub(crate) struct Kept {
    /// For the report.
    pub(crate) outcome: Outcome,
    /// Whether signals reach only processes that are locked in with this one or by it.
    pub(crate) signals_bounded: bool,
}

/// Puts the rules in force.
pub(crate) fn keep(bounds: &Bounds<'_>) -> Result<Kept, Error> {
    let mut missing = 0;
    let rules = rules(bounds, &mut missing)?;
    let status = ruleset()
        .and_then(|set| set.add_rules(rules.into_iter().map(Ok::<_, RulesetError>)))
        .and_then(RulesetCreated::restrict_self)
        .map_err(|error| Error::Measure { measure: MEASURE, why: error.to_string() })?;
    let (outcome, abi) = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            (Outcome::InPlace(detail(effective_abi, missing)), effective_abi)
        }
        LandlockStatus::NotEnabled => {
            (absent("the kernel has it, and was started without"), ABI::Unsupported)
        }
        LandlockStatus::NotImplemented => (absent("the kernel has none"), ABI::Unsupported),
    };
    Ok(Kept { outcome, signals_bounded: abi >= SIGNALS_FROM })
}

fn absent(reason: &str) -> Outcome {
    Outcome::Absent(format!("{reason}: files are bounded by their owners and modes alone"))
}

fn detail(abi: ABI, missing: usize) -> String {
    let mut detail = format!("version {}", abi as i32);
    let lacks: Vec<_> =
        BROUGHT.iter().filter(|(from, _)| abi < *from).map(|(_, what)| *what).collect();
    if !lacks.is_empty() {
        detail.push_str(", which does not know ");
        detail.push_str(&lacks.join(", "));
    }
    if missing > 0 {
        detail.push_str(&format!("; {missing} of the paths to keep do not exist"));
    }
    detail
}

/// Everything that can be refused is.
fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()
}

/// What is allowed all the same.
fn rules(bounds: &Bounds<'_>, missing: &mut usize) -> Result<Vec<PathBeneath<PathFd>>, Error> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Nothing that can be written can be executed. A link, a device or a socket would be for
    // whoever reads the directory from outside to fall into.
    let own = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let mut rules = Vec::new();
    if let Some(path) = bounds.directory {
        let missing = || Error::Path { path: path.to_owned(), source: missing_file() };
        rules.push(rule(path, own)?.ok_or_else(missing)?);
    }
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let null = AccessFs::ReadFile | AccessFs::WriteFile;
    rules.extend(rule(Path::new(NULL_DEVICE), null)?);
    let kept = [
        (bounds.read, read),
        (bounds.execute, read | AccessFs::Execute),
        (bounds.list, AccessFs::ReadDir.into()),
        (bounds.devices, device),
    ];
    for (paths, access) in kept {
        for path in paths {
            match rule(path, access)? {
                Some(rule) => rules.push(rule),
                None => *missing += 1,
            }
        }
    }
    Ok(rules)
}

fn missing_file() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// A path through what is no directory leads nowhere as well.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The rule for a path, if it exists.
fn rule(path: &Path, access: BitFlags<AccessFs>) -> Result<Option<PathBeneath<PathFd>>, Error> {
    let failed = |source| Error::Path { path: path.to_owned(), source };
    let opened = match PathFd::new(path) {
        Ok(opened) => opened,
        Err(PathFdError::OpenCall { source, .. }) if is_missing(&source) => return Ok(None),
        Err(PathFdError::OpenCall { source, .. }) => return Err(failed(source)),
        Err(other) => return Err(failed(io::Error::other(other))),
    };
    let mode = fstat(&opened).map_err(|errno| failed(errno.into()))?.st_mode;
    let is_directory = FileType::from_raw_mode(mode) == FileType::Directory;
    // The kernel refuses a rule with rights that only directories have for anything else.
    let access = if is_directory { access } else { access & AccessFs::from_file(KNOWN) };
    Ok(Some(PathBeneath::new(opened, access)))
}
