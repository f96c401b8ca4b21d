//! Writes functions in the compiler's own form, one operation after the other.
//!
//! The form wants each expression once, in order, and told where it is computed. This keeps both
//! true: what is added is computed in the block that is being written.

use std::mem;

use naga::{
    AtomicFunction, BinaryOperator, Block, Expression, Function, GlobalVariable, Handle, Literal,
    MathFunction, Range, Span, Statement,
};

/// A function that is being written.
#[derive(Default)]
pub(super) struct Code {
    function: Function,
    /// The block that is being written; those around it are with who writes them.
    block: Block,
}

impl Code {
    /// What goes before the code: arguments, a result, a name.
    pub(super) fn of(function: Function) -> Self {
        Self { function, block: Block::new() }
    }

    /// The function, which ends by returning something.
    pub(super) fn ended(mut self, value: Option<Handle<Expression>>) -> Function {
        self.push(Statement::Return { value });
        self.function.body = self.block;
        self.function
    }

    pub(super) fn push(&mut self, statement: Statement) {
        self.block.push(statement, Span::UNDEFINED);
    }

    pub(super) fn add(&mut self, expression: Expression) -> Handle<Expression> {
        let is_computed = !expression.needs_pre_emit();
        let handle = self.function.expressions.append(expression, Span::UNDEFINED);
        if is_computed {
            self.push(Statement::Emit(Range::new_from_bounds(handle, handle)));
        }
        handle
    }

    /// What a statement gives.
    pub(super) fn add_result(&mut self, expression: Expression) -> Handle<Expression> {
        self.function.expressions.append(expression, Span::UNDEFINED)
    }

    pub(super) fn word(&mut self, word: u32) -> Handle<Expression> {
        self.add(Expression::Literal(Literal::U32(word)))
    }

    pub(super) fn binary(
        &mut self,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Handle<Expression> {
        self.add(Expression::Binary { op, left, right })
    }

    pub(super) fn argument(&mut self, number: u32) -> Handle<Expression> {
        self.add(Expression::FunctionArgument(number))
    }

    /// One of two values, without a branch.
    pub(super) fn choose(
        &mut self,
        condition: Handle<Expression>,
        accept: Handle<Expression>,
        reject: Handle<Expression>,
    ) -> Handle<Expression> {
        self.add(Expression::Select { condition, accept, reject })
    }

    pub(super) fn less_of(
        &mut self,
        one: Handle<Expression>,
        other: Handle<Expression>,
    ) -> Handle<Expression> {
        let fun = MathFunction::Min;
        self.add(Expression::Math { fun, arg: one, arg1: Some(other), arg2: None, arg3: None })
    }

    pub(super) fn equals(&mut self, left: Handle<Expression>, word: u32) -> Handle<Expression> {
        let right = self.word(word);
        self.binary(BinaryOperator::Equal, left, right)
    }

    pub(super) fn member(&mut self, base: Handle<Expression>, index: u32) -> Handle<Expression> {
        self.add(Expression::AccessIndex { base, index })
    }

    pub(super) fn load(&mut self, pointer: Handle<Expression>) -> Handle<Expression> {
        self.add(Expression::Load { pointer })
    }

    pub(super) fn global(&mut self, global: Handle<GlobalVariable>) -> Handle<Expression> {
        self.add(Expression::GlobalVariable(global))
    }

    pub(super) fn load_global(&mut self, global: Handle<GlobalVariable>) -> Handle<Expression> {
        let pointer = self.global(global);
        self.load(pointer)
    }

    pub(super) fn store_global(
        &mut self,
        global: Handle<GlobalVariable>,
        value: Handle<Expression>,
    ) {
        let pointer = self.global(global);
        self.push(Statement::Store { pointer, value });
    }

    pub(super) fn store_word(&mut self, global: Handle<GlobalVariable>, word: u32) {
        let value = self.word(word);
        self.store_global(global, value);
    }

    /// Makes a word in memory no less than a value, whoever else does.
    pub(super) fn raise(&mut self, pointer: Handle<Expression>, value: Handle<Expression>) {
        self.push(Statement::Atomic { pointer, fun: AtomicFunction::Max, value, result: None });
    }

    pub(super) fn call(&mut self, function: Handle<Function>, arguments: Vec<Handle<Expression>>) {
        self.push(Statement::Call { function, arguments, result: None });
    }

    pub(super) fn when(
        &mut self,
        condition: Handle<Expression>,
        write_accept: impl FnOnce(&mut Self),
    ) {
        self.when_else(condition, write_accept, |_| {});
    }

    pub(super) fn when_else(
        &mut self,
        condition: Handle<Expression>,
        write_accept: impl FnOnce(&mut Self),
        write_reject: impl FnOnce(&mut Self),
    ) {
        let before = mem::take(&mut self.block);
        write_accept(self);
        let accept = mem::take(&mut self.block);
        write_reject(self);
        let reject = mem::replace(&mut self.block, before);
        self.push(Statement::If { condition, accept, reject });
    }
}
