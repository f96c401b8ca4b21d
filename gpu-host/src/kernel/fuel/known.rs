//! Loops whose number of iterations can be read off their form.
//!
//! ```text
//!   i = 3;                    a constant, from the variable itself or stored before the loop
//!   loop {
//!     if !(i < 40) { break }  the first that happens, i against a constant
//!     …                       no other way out
//!     continuing { i += 4; }  by a constant; or in the body, if nothing can pass it by
//!   }
//! ```
//!
//! The variable is an integer of the function's own that nothing else writes and that no pointer
//! leads to from elsewhere. Then the loop does what these three lines say, and it is counted by
//! doing so, with the arithmetic of the kernel: a step of 0 and a variable that wraps need no rule.
//!
//! Keeps true: what is said to be known is exact. What is not seen through is not known.

use std::ops::Range as Indices;

use naga::{
    Arena, BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, Module,
    ScalarKind, Statement, TypeInner,
};

use super::super::limits::inner_blocks;

/// Iterations behind which counting gives up.
pub(super) const ITERATIONS_MAX: u32 = 4095;

/// What a loop's form says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) iterations: u32,
    /// What is behind the test in the body.
    pub(super) from: usize,
    /// The step is in the body: no `continue` may pass it by.
    pub(super) steps_in_body: bool,
}

/// The variables of a function, as far as their writers are known.
pub(super) struct Locals<'m> {
    module: &'m Module,
    function: &'m Function,
    /// How many statements store to each; none if something else may write it.
    stores: Vec<Option<u32>>,
}

/// A loop, where it is.
pub(super) struct Site<'b> {
    /// The statements before it in its block.
    pub(super) before: &'b [Statement],
    pub(super) body: &'b Block,
    pub(super) continuing: &'b Block,
    pub(super) is_in_loop: bool,
}

/// The test: which variable has to be what for another iteration.
struct Test {
    local: Handle<LocalVariable>,
    is_signed: bool,
    op: BinaryOperator,
    /// If the variable is on the right.
    is_swapped: bool,
    /// If the loop ends where it is true.
    is_exit: bool,
    bound: u32,
    from: usize,
}

impl<'m> Locals<'m> {
    pub(super) fn of(module: &'m Module, function: &'m Function) -> Self {
        let stores = vec![Some(0); function.local_variables.len()];
        let mut locals = Self { module, function, stores };
        locals.look(&function.body);
        locals
    }

    /// Finds who writes.
    fn look(&mut self, block: &Block) {
        for statement in block.iter() {
            match statement {
                Statement::Store { pointer, .. } => {
                    let count = self.local(*pointer).map(|local| &mut self.stores[local.index()]);
                    if let Some(Some(count)) = count {
                        *count += 1;
                    }
                }
                Statement::Call { arguments, .. } => {
                    for argument in arguments {
                        if let Some(local) = self.local(*argument) {
                            self.stores[local.index()] = None;
                        }
                    }
                }
                Statement::Emit(_)
                | Statement::Block(_)
                | Statement::If { .. }
                | Statement::Switch { .. }
                | Statement::Loop { .. }
                | Statement::Break
                | Statement::Continue
                | Statement::Return { .. }
                | Statement::ControlBarrier(_)
                | Statement::MemoryBarrier(_)
                // These have no variables of functions.
                | Statement::Atomic { .. }
                | Statement::WorkGroupUniformLoad { .. } => {}
                _ => self.stores.fill(None),
            }
            for inner in inner_blocks(statement) {
                self.look(inner);
            }
        }
    }

    /// What the form of a loop says, if its ways out are as the form wants them.
    pub(super) fn known(&self, site: &Site<'_>) -> Option<Known> {
        let test = self.test(site.body)?;
        let in_continuing = self.step(site.continuing, test.local);
        let steps_in_body = in_continuing.is_none();
        let step = in_continuing.or_else(|| self.step(site.body, test.local))?;
        let first = self.first(site, test.local)?;
        let iterations = test.iterations(first, step)?;
        Some(Known { iterations, from: test.from, steps_in_body })
    }

    /// The test that a body begins with.
    fn test(&self, body: &Block) -> Option<Test> {
        let from = body.iter().position(|it| !matches!(it, Statement::Emit(_)))?;
        let Statement::If { condition, accept, reject } = &body[from] else { return None };
        let is_exit = match (&accept[..], &reject[..]) {
            ([], [Statement::Break]) => false,
            ([Statement::Break], []) => true,
            _ => return None,
        };
        let Expression::Binary { op, left, right } = self.function.expressions[*condition] else {
            return None;
        };
        // What is read here is compared here.
        let emitted = &body[..from];
        let of_left = self.read(left, emitted);
        let (local, bound) = match of_left {
            Some(local) => (local, right),
            None => (self.read(right, emitted)?, left),
        };
        Some(Test {
            local,
            is_signed: self.is_signed(local)?,
            op,
            is_swapped: of_left.is_none(),
            is_exit,
            bound: self.constant(bound)?,
            from: from + 1,
        })
    }

    /// What the variable has before the first iteration. There is no store but that and the step.
    fn first(&self, site: &Site<'_>, local: Handle<LocalVariable>) -> Option<u32> {
        match self.stores[local.index()]? {
            // The loop begins once for each time the variable does.
            1 if !site.is_in_loop => match self.function.local_variables[local].init {
                Some(init) => self.constant(init),
                None => Some(0),
            },
            2 => site.before.iter().find_map(|statement| match statement {
                Statement::Store { pointer, value } if self.local(*pointer) == Some(local) => {
                    self.constant(*value)
                }
                _ => None,
            }),
            _ => None,
        }
    }

    /// How a block, each time, changes the variable.
    fn step(&self, block: &Block, local: Handle<LocalVariable>) -> Option<Step> {
        block.iter().enumerate().find_map(|(at, statement)| match statement {
            Statement::Block(inner) => self.step(inner, local),
            Statement::Store { pointer, value } if self.local(*pointer) == Some(local) => {
                let Expression::Binary { op, left, right } = self.function.expressions[*value]
                else {
                    return None;
                };
                let emitted = &block[..at];
                let is_read = |it| self.read(it, emitted) == Some(local);
                let by = match op {
                    _ if is_read(left) => right,
                    BinaryOperator::Add | BinaryOperator::Multiply if is_read(right) => left,
                    _ => return None,
                };
                Some(Step { op, by: self.constant(by)? })
            }
            _ => None,
        })
    }

    /// The variable whose value is read, if it is by one of these statements.
    fn read(
        &self,
        value: Handle<Expression>,
        statements: &[Statement],
    ) -> Option<Handle<LocalVariable>> {
        match self.function.expressions[value] {
            Expression::Load { pointer } if is_emitted(value, statements) => self.local(pointer),
            _ => None,
        }
    }

    fn local(&self, pointer: Handle<Expression>) -> Option<Handle<LocalVariable>> {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(local) => Some(local),
            _ => None,
        }
    }

    /// None if it is no integer.
    fn is_signed(&self, local: Handle<LocalVariable>) -> Option<bool> {
        match self.module.types[self.function.local_variables[local].ty].inner {
            TypeInner::Scalar(scalar) if scalar.width == 4 => match scalar.kind {
                ScalarKind::Sint => Some(true),
                ScalarKind::Uint => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The bits of an integer that is constant.
    fn constant(&self, value: Handle<Expression>) -> Option<u32> {
        match self.function.expressions[value] {
            Expression::Constant(constant) => {
                let init = self.module.constants[constant].init;
                literal(&self.module.global_expressions, init)
            }
            _ => literal(&self.function.expressions, value),
        }
    }
}

fn literal(expressions: &Arena<Expression>, value: Handle<Expression>) -> Option<u32> {
    match expressions[value] {
        Expression::Literal(Literal::U32(word)) => Some(word),
        Expression::Literal(Literal::I32(word)) => Some(word.cast_unsigned()),
        // Of the type of the variable that it is met with.
        Expression::ZeroValue(_) => Some(0),
        _ => None,
    }
}

/// Whether a value is made by one of these statements, and not before.
fn is_emitted(value: Handle<Expression>, statements: &[Statement]) -> bool {
    let is_within = |range: Indices<u32>| range.contains(&(value.index() as u32));
    statements.iter().any(|statement| match statement {
        Statement::Emit(range) => is_within(range.index_range()),
        _ => false,
    })
}

/// How the variable goes on.
#[derive(Clone, Copy)]
struct Step {
    op: BinaryOperator,
    by: u32,
}

impl Test {
    /// Does what the loop does with its variable.
    fn iterations(&self, first: u32, step: Step) -> Option<u32> {
        let mut value = first;
        for iterations in 0..=ITERATIONS_MAX {
            if !self.holds(value)? {
                return Some(iterations);
            }
            value = step.next(value, self.is_signed)?;
        }
        None
    }

    /// Whether another iteration comes.
    fn holds(&self, value: u32) -> Option<bool> {
        let number = |word: u32| match self.is_signed {
            true => i64::from(word.cast_signed()),
            false => i64::from(word),
        };
        let (mut left, mut right) = (number(value), number(self.bound));
        if self.is_swapped {
            (left, right) = (right, left);
        }
        let is_true = match self.op {
            BinaryOperator::Less => left < right,
            BinaryOperator::LessEqual => left <= right,
            BinaryOperator::Greater => left > right,
            BinaryOperator::GreaterEqual => left >= right,
            BinaryOperator::Equal => left == right,
            BinaryOperator::NotEqual => left != right,
            _ => return None,
        };
        Some(is_true != self.is_exit)
    }
}

impl Step {
    fn next(self, value: u32, is_signed: bool) -> Option<u32> {
        Some(match self.op {
            BinaryOperator::Add => value.wrapping_add(self.by),
            BinaryOperator::Subtract => value.wrapping_sub(self.by),
            BinaryOperator::Multiply => value.wrapping_mul(self.by),
            BinaryOperator::Divide if !is_signed => value.checked_div(self.by)?,
            BinaryOperator::ShiftLeft => value.checked_shl(self.by)?,
            BinaryOperator::ShiftRight if is_signed => {
                value.cast_signed().checked_shr(self.by)?.cast_unsigned()
            }
            BinaryOperator::ShiftRight => value.checked_shr(self.by)?,
            _ => return None,
        })
    }
}
