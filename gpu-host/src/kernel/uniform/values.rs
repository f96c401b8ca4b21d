//! Which expressions of a function vary, given what varies so far.
//!
//! A value varies if anything it is made of does. Of a pointer this means where it points; what is
//! there is asked of the variable when it is read.

use naga::{
    Arena, Binding, BuiltIn, Expression, Function, GlobalVariable, Handle, LocalVariable, TypeInner,
};

use super::Flow;

/// The variable that a pointer points into.
pub(super) enum Root {
    Local(Handle<LocalVariable>),
    Global(Handle<GlobalVariable>),
    /// One of a caller.
    Argument,
    /// It is no pointer.
    None,
}

impl Root {
    pub(super) fn of(expressions: &Arena<Expression>, mut pointer: Handle<Expression>) -> Self {
        loop {
            pointer = match expressions[pointer] {
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => base,
                Expression::LocalVariable(local) => return Self::Local(local),
                Expression::GlobalVariable(global) => return Self::Global(global),
                Expression::FunctionArgument(_) => return Self::Argument,
                _ => return Self::None,
            };
        }
    }
}

impl Flow<'_> {
    /// Whether each expression varies. Operands come before what is made of them.
    pub(super) fn values(&self, at: usize, function: &Function) -> Vec<bool> {
        let mut values = Vec::with_capacity(function.expressions.len());
        for (_, expression) in function.expressions.iter() {
            let varies = self.expression(at, function, expression, &values);
            values.push(varies);
        }
        values
    }

    fn expression(
        &self,
        at: usize,
        function: &Function,
        expression: &Expression,
        values: &[bool],
    ) -> bool {
        let of = |operand: &Handle<Expression>| values[operand.index()];
        match expression {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::ZeroValue(_)
            | Expression::LocalVariable(_)
            | Expression::GlobalVariable(_)
            | Expression::ArrayLength(_)
            | Expression::WorkGroupUniformLoadResult { .. } => false,
            Expression::Compose { components, .. } => components.iter().any(of),
            Expression::Access { base, index } => of(base) || of(index),
            Expression::AccessIndex { base, index } => match function.expressions[*base] {
                Expression::FunctionArgument(argument) => {
                    self.argument_varies(at, function, argument, Some(*index))
                }
                _ => of(base),
            },
            Expression::Splat { value, .. } => of(value),
            Expression::Swizzle { vector, .. } => of(vector),
            Expression::FunctionArgument(argument) => {
                self.argument_varies(at, function, *argument, None)
            }
            Expression::Load { pointer } => of(pointer) || self.content_varies(at, *pointer),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => of(expr),
            Expression::Binary { left, right, .. } => of(left) || of(right),
            Expression::Select { condition, accept, reject } => {
                [condition, accept, reject].into_iter().any(of)
            }
            Expression::Relational { argument, .. } => of(argument),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                of(arg) || [arg1, arg2, arg3].into_iter().flatten().any(of)
            }
            Expression::CallResult(callee) => self.results[callee.index()],
            _ => true,
        }
    }

    /// Whether an argument varies, or one member of it.
    fn argument_varies(
        &self,
        at: usize,
        function: &Function,
        argument: u32,
        member: Option<u32>,
    ) -> bool {
        let index = argument as usize;
        if at < self.module.functions.len() {
            return self.arguments[at][index];
        }
        // Those of the entry point are told to it from outside.
        let argument = &function.arguments[index];
        let binding = match (&self.module.types[argument.ty].inner, member) {
            (TypeInner::Struct { members, .. }, Some(member)) => &members[member as usize].binding,
            _ => &argument.binding,
        };
        let is_uniform = |built_in: &BuiltIn| {
            let uniform = [BuiltIn::WorkGroupId, BuiltIn::WorkGroupSize, BuiltIn::NumWorkGroups];
            uniform.contains(built_in)
        };
        !matches!(binding, Some(Binding::BuiltIn(built_in)) if is_uniform(built_in))
    }

    fn content_varies(&self, at: usize, pointer: Handle<Expression>) -> bool {
        match self.root(at, pointer) {
            Root::Local(local) => self.local_varies(at, local),
            Root::Global(global) => self.global_varies(global),
            Root::Argument | Root::None => true,
        }
    }
}
