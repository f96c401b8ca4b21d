//! The entry point around the kernel's own.
//!
//! It is told all that the kernel is told, but for the number of workgroups: drivers know that of
//! the piece they run, the control buffer that of the whole.

use naga::{
    BinaryOperator, Binding, BuiltIn, Expression, Function, FunctionArgument, Handle, Module,
    StructMember, Type, TypeInner,
};

use super::{Code, Variables, control, is_cancelled};
use crate::kernel::{trap, word};

/// Makes an entry point that calls `kernel`, which was one with these arguments.
pub(super) fn wrap(
    module: &mut Module,
    variables: &Variables,
    kernel: Handle<Function>,
    arguments: Vec<FunctionArgument>,
) {
    let mut told: Vec<FunctionArgument> = arguments
        .iter()
        .filter(|argument| !is_groups(argument.binding.as_ref()))
        .cloned()
        .collect();
    let lane = variables.shared.as_ref().map(|_| lane(module, &mut told, variables));
    let mut code = Code::of(Function { arguments: told, ..Function::default() });
    begin(&mut code, variables);
    if let (Some(shared), Some(lane)) = (&variables.shared, lane) {
        let mut value = code.add(Expression::FunctionArgument(lane.argument));
        if let Some(member) = lane.member {
            value = code.member(value, member);
        }
        code.store_global(shared.lane, value);
    }
    let passed = pass_on(&mut code, module, variables, &arguments);
    let is_cancelled = is_cancelled(&mut code, variables);
    if variables.has_barriers {
        // Not all invocations of the workgroup may have seen it.
        code.when(is_cancelled, |code| {
            code.store_word(variables.alone, 0);
            code.store_word(variables.trap, trap::CANCELLED);
        });
        code.call(kernel, passed);
    } else {
        code.when_else(
            is_cancelled,
            |code| code.store_word(variables.trap, trap::CANCELLED),
            |code| code.call(kernel, passed),
        );
    }
    tell(&mut code, variables);
    module.entry_points[0].function = code.ended(None);
}

/// Fills the counters.
fn begin(code: &mut Code, variables: &Variables) {
    let pointer = control(code, variables, word::FUEL);
    let fuel = code.load(pointer);
    code.store_global(variables.alone, fuel);
    code.store_global(variables.together, fuel);
    code.store_word(variables.trap, 0);
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
        let mut value = code.add(Expression::FunctionArgument(told));
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
