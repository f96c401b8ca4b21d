//! What a kernel may be, and whether one is.
//!
//! - The text is measured before the compiler sees it, nesting before anything else looks at the
//!   result, and the rest on the part of the program that the entry point reaches.
//! - Size counts every call as if the function were written out there: that is what drivers do, and
//!   what an invocation may execute between two iterations of loops.

use naga::proc::TypeResolution;
use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, Block, Expression, Function, GlobalVariable, Handle, Module, ResourceBinding,
    Span, Statement, StorageAccess, TypeInner,
};

use super::rejected::Rejected;
use super::scan::most;
use super::{Access, Slot};

/// Numbers of slots are less.
const SLOT_NUMBERS_MAX: u32 = 32;
/// What variables that a workgroup shares are aligned to.
const GROUP_ALIGNMENT_BYTES: u32 = 16;

/// What a kernel may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelLimits {
    /// Bytes of its source.
    pub source_bytes: usize,
    /// Expressions and statements, with every call written out.
    pub size: u32,
    /// Blocks within blocks of one function.
    pub nesting: u32,
    /// Calls within calls.
    pub calls: u32,
    /// Invocations in a workgroup.
    pub group_threads: u32,
    /// Bytes that the invocations of a workgroup share.
    pub group_bytes: u32,
    /// Bytes of the variables of one invocation.
    pub private_bytes: u32,
    /// Bytes of the arrays and structs that one invocation handles as values.
    pub value_bytes: u32,
    /// Bytes of a uniform buffer.
    pub uniform_bytes: u32,
    /// Buffers.
    pub slots: u32,
}

impl Default for KernelLimits {
    fn default() -> Self {
        Self {
            source_bytes: 64 * 1024,
            size: 8 * 1024,
            nesting: 32,
            calls: 16,
            group_threads: 256,
            group_bytes: 16 * 1024,
            private_bytes: 4 * 1024,
            value_bytes: 64 * 1024,
            uniform_bytes: 16 * 1024,
            slots: 8,
        }
    }
}

/// Refuses blocks that are nested deeper than anything here may recurse.
pub(super) fn check_nesting(module: &Module, limits: &KernelLimits) -> Result<(), Rejected> {
    let entries = module.entry_points.iter().map(|entry| &entry.function);
    for function in module.functions.iter().map(|(_, function)| function).chain(entries) {
        if !is_within(&function.body, limits.nesting) {
            let (found, limit) = (u64::from(limits.nesting) + 1, u64::from(limits.nesting));
            return Err(Rejected::Limit { what: "blocks within blocks", found, limit });
        }
    }
    Ok(())
}

fn is_within(block: &Block, depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    block.iter().all(|statement| inner_blocks(statement).all(|block| is_within(block, depth)))
}

/// The blocks of a statement, in the order in which they are written.
pub(super) fn inner_blocks(statement: &Statement) -> impl Iterator<Item = &Block> {
    let (few, cases): ([Option<&Block>; 2], &[naga::SwitchCase]) = match statement {
        Statement::Block(block) => ([Some(block), None], &[]),
        Statement::If { accept, reject, .. } => ([Some(accept), Some(reject)], &[]),
        Statement::Loop { body, continuing, .. } => ([Some(body), Some(continuing)], &[]),
        Statement::Switch { cases, .. } => ([None, None], cases),
        _ => ([None, None], &[]),
    };
    few.into_iter().flatten().chain(cases.iter().map(|case| &case.body))
}

/// Refuses what a kernel cannot have at all, whether the entry point uses it or not.
pub(super) fn check_globals(module: &Module, source: &str) -> Result<(), Rejected> {
    for (handle, global) in module.global_variables.iter() {
        let line = line(module.global_variables.get_span(handle), source);
        match global.space {
            AddressSpace::Uniform | AddressSpace::Storage { .. } => {}
            AddressSpace::Private | AddressSpace::WorkGroup => continue,
            AddressSpace::Handle => {
                let what = "kernels have no textures and samplers, only buffers";
                return Err(Rejected::unsupported(line, what));
            }
            _ => return Err(Rejected::unsupported(line, "kernels have no such variables")),
        }
        if matches!(module.types[global.ty].inner, TypeInner::BindingArray { .. }) {
            return Err(Rejected::unsupported(line, "kernels have no arrays of buffers"));
        }
        match global.binding {
            Some(ResourceBinding { group: 0, binding: 0..SLOT_NUMBERS_MAX }) => {}
            _ => {
                let what =
                    format!("buffers are at @group(0), @binding(0) to ({})", SLOT_NUMBERS_MAX - 1);
                return Err(Rejected::unsupported(line, what));
            }
        }
    }
    Ok(())
}

/// The line of a part of the source, 0 if it was not written there.
pub(super) fn line(span: Span, source: &str) -> u32 {
    span.to_range().map_or(0, |range| super::scan::line(source, range.start))
}

/// Measures a module whose only entry point is the kernel's. Gives its buffers.
pub(super) fn check(
    module: &Module,
    info: &ModuleInfo,
    limits: &KernelLimits,
) -> Result<Vec<Slot>, Rejected> {
    let threads = module.entry_points[0].workgroup_size;
    let threads =
        threads.iter().fold(1_u64, |product, axis| product.saturating_mul((*axis).into()));
    most("invocations in a workgroup", threads, limits.group_threads.into())?;
    check_cost(module, info, limits)?;
    most("bytes of workgroup memory", group_bytes(module).into(), limits.group_bytes.into())?;
    slots(module, limits)
}

/// Bytes that the invocations of a workgroup share.
pub(super) fn group_bytes(module: &Module) -> u32 {
    let bytes = bytes_of(module, GROUP_ALIGNMENT_BYTES, |it| it == AddressSpace::WorkGroup);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn slots(module: &Module, limits: &KernelLimits) -> Result<Vec<Slot>, Rejected> {
    let globals = module.global_variables.iter().map(|(_, global)| global);
    let mut slots: Vec<Slot> = globals.filter_map(|global| slot(module, global)).collect();
    slots.sort_unstable_by_key(|slot| slot.number);
    most("buffers", slots.len() as u64, limits.slots.into())?;
    for slot in slots.iter().filter(|slot| slot.access == Access::Uniform) {
        most("bytes of a uniform buffer", slot.bytes_min, limits.uniform_bytes.into())?;
    }
    Ok(slots)
}

fn slot(module: &Module, global: &GlobalVariable) -> Option<Slot> {
    let access = match global.space {
        AddressSpace::Uniform => Access::Uniform,
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
            Access::ReadWrite
        }
        AddressSpace::Storage { .. } => Access::Read,
        _ => return None,
    };
    let bytes_min = type_bytes(module, &module.types[global.ty].inner);
    global.binding.map(|binding| Slot { number: binding.binding, access, bytes_min })
}

/// What one function comes to, those it calls included.
#[derive(Clone, Copy, Default)]
struct Cost {
    size: u64,
    calls: u64,
    private_bytes: u64,
    value_bytes: u64,
}

fn check_cost(module: &Module, info: &ModuleInfo, limits: &KernelLimits) -> Result<(), Rejected> {
    let mut costs: Vec<Cost> = Vec::with_capacity(module.functions.len());
    for (handle, function) in module.functions.iter() {
        let types = |at: Handle<Expression>| &info[handle][at].ty;
        // Callees come first.
        let cost = cost(module, function, &types, &costs);
        check_one(&cost, limits)?;
        costs.push(cost);
    }
    let types = |at: Handle<Expression>| &info.get_entry_point(0)[at].ty;
    let mut whole = cost(module, &module.entry_points[0].function, &types, &costs);
    whole.size = whole.size.saturating_add(module.global_expressions.len() as u64);
    let private = bytes_of(module, 1, |it| it == AddressSpace::Private);
    whole.private_bytes = whole.private_bytes.saturating_add(private);
    check_one(&whole, limits)
}

fn check_one(cost: &Cost, limits: &KernelLimits) -> Result<(), Rejected> {
    most("expressions and statements, calls written out", cost.size, limits.size.into())?;
    most("calls within calls", cost.calls, limits.calls.into())?;
    most("bytes of variables per invocation", cost.private_bytes, limits.private_bytes.into())?;
    most("bytes of values per invocation", cost.value_bytes, limits.value_bytes.into())
}

fn cost<'i>(
    module: &Module,
    function: &Function,
    types: &dyn Fn(Handle<Expression>) -> &'i TypeResolution,
    callees: &[Cost],
) -> Cost {
    let locals = function.local_variables.iter();
    let private_bytes =
        locals.map(|(_, local)| type_bytes(module, &module.types[local.ty].inner)).sum();
    let composites = function.expressions.iter().map(|(handle, _)| {
        let inner = types(handle).inner_with(&module.types);
        let is_composite = matches!(inner, TypeInner::Array { .. } | TypeInner::Struct { .. });
        if is_composite { type_bytes(module, inner) } else { 0 }
    });
    let value_bytes = composites.sum();
    let size = function.expressions.len() as u64;
    let mut cost = Cost { size, private_bytes, value_bytes, calls: 0 };
    let mut deepest = Cost::default();
    add_block(&function.body, callees, &mut cost, &mut deepest);
    cost.calls = deepest.calls;
    cost.private_bytes = cost.private_bytes.saturating_add(deepest.private_bytes);
    cost
}

/// Adds what is executed one after the other to `cost`; `deepest` is the most of what is there at
/// one time.
fn add_block(block: &Block, callees: &[Cost], cost: &mut Cost, deepest: &mut Cost) {
    for statement in block.iter() {
        cost.size = cost.size.saturating_add(1);
        if let Statement::Call { function, .. } = statement {
            let callee = callees[function.index()];
            cost.size = cost.size.saturating_add(callee.size);
            cost.value_bytes = cost.value_bytes.saturating_add(callee.value_bytes);
            deepest.calls = deepest.calls.max(callee.calls + 1);
            deepest.private_bytes = deepest.private_bytes.max(callee.private_bytes);
        }
        for inner in inner_blocks(statement) {
            add_block(inner, callees, cost, deepest);
        }
    }
}

/// Bytes of all variables of some spaces, each aligned.
fn bytes_of(module: &Module, alignment: u32, is_meant: impl Fn(AddressSpace) -> bool) -> u64 {
    let globals = module.global_variables.iter().map(|(_, global)| global);
    let meant = globals.filter(|global| is_meant(global.space));
    meant
        .map(|global| {
            type_bytes(module, &module.types[global.ty].inner).next_multiple_of(alignment.into())
        })
        .sum()
}

/// Bytes of a type; of an array whose length is only known when it is bound, those of one element.
pub(super) fn type_bytes(module: &Module, inner: &TypeInner) -> u64 {
    inner.try_size(module.to_ctx()).map_or(u64::MAX >> 16, u64::from)
}
