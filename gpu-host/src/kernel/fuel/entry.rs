//! The entry point around the kernel's own.
//!
//! It is told all that the kernel is told, but for the number of workgroups: drivers know that of
//! the piece they run, the control buffer that of the whole.

use naga::{
    BinaryOperator, Binding, BuiltIn, Expression, Function, FunctionArgument, Handle, Module,
    StructMember, Type, TypeInner,
};

use super::{Code, Plan, Variables, control, is_cancelled};
use crate::kernel::{trap, word};

/// What comes before the kernel's own.
pub(super) struct First {
    /// Iterations that are paid for here; none if nothing is counted.
    free: Option<u32>,
    /// How one that was cancelled is kept from beginning.
    look: Look,
}

enum Look {
    /// It is not: it is done soon, and cannot be ended.
    Never,
    /// It has nothing left to begin with.
    Spent,
    /// It is not called.
    Skipped,
}

impl First {
    pub(super) fn of(plan: &Plan, variables: &Variables) -> Self {
        let free = plan.has_payers().then_some(plan.free);
        let look = match free {
            // With barriers, not all invocations of the workgroup may have seen it.
            Some(_) if plan.is_light() || variables.has_barriers => Look::Spent,
            None if plan.is_light() || variables.has_barriers => Look::Never,
            _ => Look::Skipped,
        };
        Self { free, look }
    }

    /// Whether one that was cancelled does nothing.
    pub(super) fn is_skipped(&self) -> bool {
        matches!(self.look, Look::Skipped)
    }
}

/// Makes an entry point that calls the kernel, which was one with these arguments.
pub(super) fn wrap(
    module: &mut Module,
    variables: &Variables,
    first: &First,
    (kernel, arguments): (Handle<Function>, Vec<FunctionArgument>),
) {
    let mut told: Vec<FunctionArgument> = arguments
        .iter()
        .filter(|argument| !is_groups(argument.binding.as_ref()))
        .cloned()
        .collect();
    let lane = variables.shared.as_ref().map(|_| lane(module, &mut told, variables));
    let mut code = Code::of(Function { arguments: told, ..Function::default() });
    if let (Some(shared), Some(lane)) = (&variables.shared, lane) {
        let mut value = code.argument(lane.argument);
        if let Some(member) = lane.member {
            value = code.member(value, member);
        }
        code.store_global(shared.lane, value);
    }
    let passed = pass_on(&mut code, module, variables, &arguments);
    if matches!(first.look, Look::Never) {
        code.call(kernel, passed);
        module.entry_points[0].function = code.ended(None);
        return;
    }
    let is_cancelled = is_cancelled(&mut code, variables);
    begin(&mut code, variables, first, is_cancelled);
    if matches!(first.look, Look::Spent) {
        code.call(kernel, passed);
    } else {
        code.when_else(is_cancelled, |_| {}, |code| code.call(kernel, passed));
    }
    tell(&mut code, variables);
    module.entry_points[0].function = code.ended(None);
}

/// Fills the counters.
fn begin(code: &mut Code, variables: &Variables, first: &First, is_cancelled: Handle<Expression>) {
    let zero = code.word(0);
    if let Some(free) = first.free {
        let pointer = control(code, variables, word::FUEL);
        let fuel = code.load(pointer);
        code.store_global(variables.together, fuel);
        let free = code.word(free);
        let free = code.less_of(fuel, free);
        let left = code.binary(BinaryOperator::Subtract, fuel, free);
        let left = code.choose(is_cancelled, zero, left);
        code.store_global(variables.alone, left);
    }
    let cancelled = code.word(trap::CANCELLED);
    let reason = code.choose(is_cancelled, cancelled, zero);
    code.store_global(variables.trap, reason);
}

/// Tells the host of a trap.
fn tell(code: &mut Code, variables: &Variables) {
    let reason = code.load_global(variables.trap);
    let zero = code.word(0);
    let is_trapped = code.binary(BinaryOperator::NotEqual, reason, zero);
    code.when(is_trapped, |code| {
        let pointer = control(code, variables, word::TRAP);
        code.raise(pointer, reason);
    });
}

/// What the kernel is given for each of its arguments.
fn pass_on(
    code: &mut Code,
    module: &Module,
    variables: &Variables,
    arguments: &[FunctionArgument],
) -> Vec<Handle<Expression>> {
    let mut told = 0;
    let mut passed = Vec::with_capacity(arguments.len());
    for argument in arguments {
        if is_groups(argument.binding.as_ref()) {
            passed.push(groups(code, variables));
            continue;
        }
        let mut value = code.argument(told);
        told += 1;
        let members = members(module, argument.ty);
        if members.iter().any(|member| is_groups(member.binding.as_ref())) {
            let components = (0_u32..).zip(members).map(|(at, member)| {
                match is_groups(member.binding.as_ref()) {
                    true => groups(code, variables),
                    false => code.member(value, at),
                }
            });
            let components = components.collect();
            value = code.add(Expression::Compose { ty: argument.ty, components });
        }
        passed.push(value);
    }
    passed
}

/// How many workgroups the whole dispatch has.
fn groups(code: &mut Code, variables: &Variables) -> Handle<Expression> {
    let components = word::GROUPS.map(|axis| {
        let pointer = control(code, variables, axis);
        code.load(pointer)
    });
    code.add(Expression::Compose { ty: variables.types.groups, components: components.to_vec() })
}

/// Where an entry point is told which invocation of its workgroup it is.
struct Lane {
    argument: u32,
    member: Option<u32>,
}

/// Finds it, or asks for it: it can be told only once.
fn lane(module: &Module, told: &mut Vec<FunctionArgument>, variables: &Variables) -> Lane {
    let binding = Some(Binding::BuiltIn(BuiltIn::LocalInvocationIndex));
    for (argument, it) in (0_u32..).zip(told.iter()) {
        if it.binding == binding {
            return Lane { argument, member: None };
        }
        let members = (0_u32..).zip(members(module, it.ty));
        let found = members.into_iter().find(|(_, member)| member.binding == binding);
        if let Some((member, _)) = found {
            return Lane { argument, member: Some(member) };
        }
    }
    let argument = u32::try_from(told.len()).unwrap_or(u32::MAX);
    told.push(FunctionArgument { name: None, ty: variables.types.word, binding });
    Lane { argument, member: None }
}

fn members(module: &Module, ty: Handle<Type>) -> &[StructMember] {
    match &module.types[ty].inner {
        TypeInner::Struct { members, .. } => members,
        _ => &[],
    }
}

fn is_groups(binding: Option<&Binding>) -> bool {
    matches!(binding, Some(Binding::BuiltIn(BuiltIn::NumWorkGroups)))
}
