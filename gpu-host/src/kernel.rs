//! Kernels of guests: from untrusted WGSL to SPIR-V that ends, and stays in its buffers.
//!
//! ```text
//! source ─► scan ─► compiler ─► limits ─► uniform ─► fuel ─► compiler ─► Kernel ─► emit
//!          (words)  (parses,    (size)    (barriers)  (ends)  (checks     │         (SPIR-V)
//!                    checks)                                   again)     └► interpret
//! ```
//!
//! Keeps true of every `Kernel`:
//! - It is within its limits, and uses buffers of group 0 only. It was checked again after the
//!   passes.
//! - It ends, after at most twice as many iterations of loops as it is given fuel, and soon after
//!   the host says so. It says so itself when it was ended. Up to 64 iterations that every
//!   invocation makes it may make with less fuel; one that does no more than these, and little
//!   besides or with barriers, cannot be ended. How much a workgroup of it does is known.
//! - All invocations of a workgroup reach each barrier, also when it is ended.
//! - Indices out of range reach nothing outside the variable or buffer they are used on. What is
//!   out of a buffer reads as 0 and takes no writes.
//!
//! A source cannot take the process: the compiler runs on a thread with a stack that is larger than
//! any source it is given needs, what makes it run without end is refused before (`scan`), and a
//! panic of it is a refusal.
//!
//! The control buffer is at `@group(1) @binding(0)`; `word` and `trap` say what is where in it.
//!
//! Relies on who binds buffers: no two of a kernel overlap unless it only reads both, each has
//! `bytes_min`, and the control buffer is there. Leaves to others: how much fuel, and when to
//! cancel.

mod code;
mod emit;
mod fuel;
pub(crate) mod interpret;
mod limits;
mod rejected;
mod scan;
mod uniform;

use std::thread;

use naga::back::pipeline_constants::process_overrides;
use naga::compact::{KeepUnused, compact};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use serde::{Deserialize, Serialize};

pub use limits::KernelLimits;
pub use rejected::Rejected;

/// Words of the control buffer.
pub const CONTROL_WORDS: usize = 6;
/// Iterations paid for one by one from one look at the cancel word to the next; a power of two.
/// With fuel that is a multiple of it the first is a look.
pub const LOOK_ITERATIONS: u32 = 1024;
/// The group of the control buffer, which is its binding 0.
pub const CONTROL_GROUP: u32 = 1;

/// Which word of the control buffer is what.
pub mod word {
    /// The host ends the kernel by any value but 0.
    pub const CANCEL: u32 = 0;
    /// Why the kernel was ended, or 0 as before: see [`trap`](super::trap).
    pub const TRAP: u32 = 1;
    /// Iterations for each invocation.
    pub const FUEL: u32 = 2;
    /// Workgroups of the whole dispatch on each axis.
    pub const GROUPS: [u32; 3] = [3, 4, 5];
}

/// Why a kernel was ended. Of several, the largest stays.
pub mod trap {
    /// An invocation has used its fuel up.
    pub const FUEL: u32 = 1;
    /// The host wanted it.
    pub const CANCELLED: u32 = 2;
}

/// Goes into hashes: changes whenever the same source comes to another program.
const PASSES: &[u8] = b"sluicebox kernel 3, naga 30.0.1";

/// Bytes of stack for the compiler, and for each byte of the source: four times what the worst
/// was seen to need, long chains of operands.
const STACK_BYTES: usize = 8 * 1024 * 1024;
const STACK_BYTES_PER_BYTE: usize = 1024;

/// What WGSL may use besides its base.
const CAPABILITIES: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// A uniform buffer: it only reads.
    Uniform,
    /// A storage buffer that it only reads.
    Read,
    /// A storage buffer that it reads and writes.
    ReadWrite,
}

/// A buffer that a kernel uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Its `@binding`, in `@group(0)`.
    pub number: u32,
    /// What is done with it.
    pub access: Access,
    /// The fewest bytes that may be bound: one element, where it is an array of any length.
    pub bytes_min: u64,
}

/// What SPIR-V is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpirvOptions {
    /// The device was made with `robustBufferAccess2`: it keeps indices in buffers in range.
    pub robust_buffer_access2: bool,
}

/// A kernel that was checked and given its passes.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// With one entry point.
    module: Module,
    info: ModuleInfo,
    slots: Vec<Slot>,
    group_bytes: u32,
    /// Of an invocation.
    stubborn_operations: u64,
    hash: [u8; 32],
}

impl Kernel {
    /// Parses, checks, adds the passes. `entry` names a compute entry point; what it does not use
    /// of the source is left out. Takes up to some tenths of a second.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(source: &str, entry: &str, limits: &KernelLimits) -> Result<Self, Rejected> {
        scan::most("bytes of source", source.len() as u64, limits.source_bytes as u64)?;
        apart(source.len(), || compile(source, entry, limits))?
    }

    /// Tells kernels apart: equal where source, entry point and passes are.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The hash that such a kernel has, if it is accepted.
    #[must_use]
    pub fn hash_of(source: &str, entry: &str) -> [u8; 32] {
        hash(source, entry)
    }

    /// What a driver is given. The entry point has its own name.
    ///
    /// # Errors
    /// It uses atomics at computed places of buffers, and the device does not bound them; the
    /// compiler fails.
    pub fn spirv(&self, options: &SpirvOptions) -> Result<Vec<u32>, Rejected> {
        apart(0, || emit::spirv(&self.module, &self.info, options))?
    }

    /// The name of the entry point.
    #[must_use]
    pub fn entry_name(&self) -> &str {
        &self.module.entry_points[0].name
    }

    /// Invocations of a workgroup on each axis.
    #[must_use]
    pub fn threads(&self) -> [u32; 3] {
        self.module.entry_points[0].workgroup_size
    }

    /// Buffers, in ascending order of their numbers.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Bytes that the invocations of a workgroup share. May be a little more than the limit, by
    /// what the passes add.
    #[must_use]
    pub fn group_bytes(&self) -> u32 {
        self.group_bytes
    }

    /// How many operations a workgroup makes at most though it was cancelled before it began, if
    /// its fuel is a multiple of [`LOOK_ITERATIONS`]. An operation handles a number or moves
    /// a word.
    #[must_use]
    pub fn stubborn_operations(&self) -> u64 {
        let threads = self.threads().into_iter().map(u64::from);
        threads.fold(self.stubborn_operations, u64::saturating_mul)
    }

    /// The program as it is run, and what the compiler knows of it.
    pub(crate) fn module(&self) -> (&Module, &ModuleInfo) {
        (&self.module, &self.info)
    }

    /// Which of the module's entry points it is.
    pub(crate) fn entry(&self) -> usize {
        0
    }
}

/// Runs the compiler where it has room, and where its panics end.
fn apart<T: Send>(source_bytes: usize, run: impl FnOnce() -> T + Send) -> Result<T, Rejected> {
    let stack_bytes = source_bytes.saturating_mul(STACK_BYTES_PER_BYTE).saturating_add(STACK_BYTES);
    let builder = thread::Builder::new().name("kernel".to_owned()).stack_size(stack_bytes);
    thread::scope(|scope| {
        let thread = builder.spawn_scoped(scope, run);
        let thread = thread.map_err(|error| Rejected::failed(&format!("no thread: {error}")))?;
        thread.join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Rejected::failed(text.unwrap_or("it panicked"))
        })
    })
}

fn compile(source: &str, entry: &str, limits: &KernelLimits) -> Result<Kernel, Rejected> {
    scan::check(source)?;
    let module = naga::front::wgsl::parse_str(source).map_err(|error| {
        let line = error.location(source).map_or(0, |location| location.line_number);
        Rejected::invalid(line, error.message())
    })?;
    limits::check_nesting(&module, limits)?;
    limits::check_globals(&module, source)?;
    let info = validate(&module, source)?;
    let mut module = only(module, &info, entry)?;
    let info = validate(&module, source)?;
    let measured = limits::check(&module, &info, limits)?;
    let counts = uniform::check(&module, source)?;
    let stubborn_operations = fuel::apply(&mut module, &info, &counts);
    compact(&mut module, KeepUnused::No);
    let info = validate(&module, source)?;
    Ok(Kernel {
        group_bytes: limits::group_bytes(&module),
        slots: measured,
        stubborn_operations,
        hash: hash(source, entry),
        module,
        info,
    })
}

/// What the entry point uses, with the values of its overridable constants.
fn only(mut module: Module, info: &ModuleInfo, entry: &str) -> Result<Module, Rejected> {
    let is_meant = |it: &naga::EntryPoint| it.stage == ShaderStage::Compute && it.name == entry;
    if !module.entry_points.iter().any(is_meant) {
        return Err(Rejected::Entry(rejected::cut(entry)));
    }
    if !module.overrides.is_empty() {
        let chosen = Some((ShaderStage::Compute, entry));
        let (fixed, _) = process_overrides(&module, info, chosen, &Default::default())
            .map_err(|error| Rejected::invalid(0, &error.to_string()))?;
        module = fixed.into_owned();
    }
    module.entry_points.retain(is_meant);
    compact(&mut module, KeepUnused::No);
    Ok(module)
}

fn validate(module: &Module, source: &str) -> Result<ModuleInfo, Rejected> {
    let mut validator = Validator::new(ValidationFlags::all(), CAPABILITIES);
    validator.validate(module).map_err(|error| {
        let line = error.location(source).map_or(0, |location| location.line_number);
        Rejected::invalid(line, &reasons(error.as_inner()))
    })
}

/// An error and what has caused it: the first alone only says where.
fn reasons(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn hash(source: &str, entry: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [PASSES, entry.as_bytes(), source.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests;
