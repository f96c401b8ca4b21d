//! The statements of one function.

use naga::valid::FunctionInfo;
use naga::{
    AtomicFunction, Barrier, Block, Expression, Function, Handle, Statement, SwitchCase,
    SwitchValue, TypeInner,
};

use super::super::Stuck;
use super::super::arithmetic;
use super::super::program::{At, Op, Place, Table};
use super::{Frame, Lowering, unknown};

/// What an expression came to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// It is in the image and never changes.
    Constant(u32),
    /// Its words begin here.
    Words(u32),
    Pointer(Place),
}

/// Jumps that leave a loop or a switch and do not know where to yet.
#[derive(Debug, Default)]
struct Exits {
    breaks: Vec<usize>,
    /// None for a switch.
    continues: Option<Vec<usize>>,
}

/// One function while it is lowered.
pub(super) struct Body<'a, 'b> {
    pub(super) lowering: &'b mut Lowering<'a>,
    pub(super) function: &'a Function,
    pub(super) info: &'a FunctionInfo,
    /// None for the entry point.
    frame: Option<Frame>,
    /// Where each argument lies.
    pub(super) arguments: Vec<u32>,
    /// Where each variable lies.
    pub(super) locals: Vec<u32>,
    pub(super) values: Vec<Option<Value>>,
    exits: Vec<Exits>,
}

impl<'a, 'b> Body<'a, 'b> {
    pub(super) fn new(
        lowering: &'b mut Lowering<'a>,
        function: &'a Function,
        info: &'a FunctionInfo,
        frame: Option<Frame>,
        arguments: Vec<u32>,
    ) -> Result<Self, Stuck> {
        let mut locals = Vec::new();
        for (_, variable) in function.local_variables.iter() {
            let words = lowering.layouts.words_of(variable.ty)?;
            locals.push(lowering.reserve(words)?);
        }
        let values = vec![None; function.expressions.len()];
        let exits = Vec::new();
        Ok(Self { lowering, function, info, frame, arguments, locals, values, exits })
    }

    pub(super) fn lower(mut self) -> Result<(), Stuck> {
        self.constants()?;
        for (handle, variable) in self.function.local_variables.iter() {
            let to = self.locals[handle.index()];
            let words = self.lowering.layouts.words_of(variable.ty)?;
            let op = match variable.init {
                Some(init) => Op::Copy { to, from: self.words_at(init)?, words },
                None => Op::Zero { to, words },
            };
            self.emit(op);
        }
        self.block(&self.function.body)?;
        self.leave();
        Ok(())
    }

    pub(super) fn emit(&mut self, op: Op) -> usize {
        self.lowering.emit(op)
    }

    fn block(&mut self, block: &'a Block) -> Result<(), Stuck> {
        block.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'a Statement) -> Result<(), Stuck> {
        match *statement {
            Statement::Emit(ref range) => {
                range.clone().try_for_each(|handle| self.expression(handle))
            }
            Statement::Block(ref block) => self.block(block),
            Statement::If { condition, ref accept, ref reject } => {
                self.branch(condition, accept, reject)
            }
            Statement::Switch { selector, ref cases } => self.switch(selector, cases),
            Statement::Loop { ref body, ref continuing, break_if } => {
                self.repeat(body, continuing, break_if)
            }
            Statement::Break => {
                let jump = self.emit(Op::Jump { to: 0 });
                let exits = self.exits.last_mut();
                exits.ok_or_else(|| unknown("here a", statement))?.breaks.push(jump);
                Ok(())
            }
            Statement::Continue => {
                let jump = self.emit(Op::Jump { to: 0 });
                let continues = self.exits.iter_mut().rev().find_map(|it| it.continues.as_mut());
                continues.ok_or_else(|| unknown("here a", statement))?.push(jump);
                Ok(())
            }
            Statement::Return { value } => {
                if let (Some(value), Some(to)) = (value, self.frame.as_ref().map(|it| it.result)) {
                    let (from, words) = (self.words_at(value)?, self.words(value)?);
                    self.emit(Op::Copy { to, from, words });
                }
                self.leave();
                Ok(())
            }
            // Invocations of a subgroup alone are not known here, nor are images.
            Statement::ControlBarrier(flags) if !flags.contains(Barrier::SUB_GROUP) => {
                self.emit(Op::Barrier);
                Ok(())
            }
            // What is written is seen at once.
            Statement::MemoryBarrier(_) => Ok(()),
            Statement::Store { pointer, value } => self.store(pointer, value),
            Statement::Atomic { pointer, ref fun, value, result } => {
                self.atomic(pointer, fun, value, result)
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.emit(Op::Barrier);
                let value = self.load(pointer)?;
                self.values[result.index()] = Some(value);
                self.emit(Op::Barrier);
                Ok(())
            }
            Statement::Call { function, ref arguments, result } => {
                let number = self.lowering.called(function)?;
                self.call(number, arguments, result)
            }
            ref other => Err(unknown("the statement", other)),
        }
    }

    /// Goes back to who called, or ends.
    fn leave(&mut self) {
        let op = self.frame.as_ref().map_or(Op::End, |frame| Op::Return { word: frame.back });
        self.emit(op);
    }

    /// Has a jump go to where the next operation comes to be.
    fn land(&mut self, jump: usize) {
        let here = self.lowering.here();
        if let Op::Jump { to } | Op::JumpUnless { to, .. } = &mut self.lowering.ops[jump] {
            *to = here;
        }
    }

    fn branch(
        &mut self,
        condition: Handle<Expression>,
        accept: &'a Block,
        reject: &'a Block,
    ) -> Result<(), Stuck> {
        let word = self.words_at(condition)?;
        let over = self.emit(Op::JumpUnless { word, to: 0 });
        self.block(accept)?;
        if reject.is_empty() {
            self.land(over);
            return Ok(());
        }
        let end = self.emit(Op::Jump { to: 0 });
        self.land(over);
        self.block(reject)?;
        self.land(end);
        Ok(())
    }

    fn repeat(
        &mut self,
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
    ) -> Result<(), Stuck> {
        let start = self.lowering.here();
        self.exits.push(Exits { breaks: Vec::new(), continues: Some(Vec::new()) });
        self.block(body)?;
        let continues = self.exits.last_mut().and_then(|exits| exits.continues.take());
        for jump in continues.unwrap_or_default() {
            self.land(jump);
        }
        self.block(continuing)?;
        let again = match break_if {
            Some(condition) => Op::JumpUnless { word: self.words_at(condition)?, to: start },
            None => Op::Jump { to: start },
        };
        self.emit(again);
        self.end_exits();
        Ok(())
    }

    fn switch(
        &mut self,
        selector: Handle<Expression>,
        cases: &'a [SwitchCase],
    ) -> Result<(), Stuck> {
        let word = self.words_at(selector)?;
        let number = self.lowering.tables.len();
        self.lowering.tables.push(Table::default());
        let table = u32::try_from(number).map_err(|_| Stuck::Large)?;
        self.emit(Op::Switch { word, table });
        self.exits.push(Exits::default());
        let mut targets = Table { cases: Vec::new(), otherwise: u32::MAX };
        for case in cases {
            let code = self.lowering.here();
            match case.value {
                SwitchValue::I32(value) => targets.cases.push((value.cast_unsigned(), code)),
                SwitchValue::U32(value) => targets.cases.push((value, code)),
                SwitchValue::Default => targets.otherwise = code,
            }
            self.block(&case.body)?;
            if !case.fall_through {
                let jump = self.emit(Op::Jump { to: 0 });
                if let Some(exits) = self.exits.last_mut() {
                    exits.breaks.push(jump);
                }
            }
        }
        self.end_exits();
        // One always has a default; else nothing is done.
        targets.otherwise = targets.otherwise.min(self.lowering.here());
        targets.cases.sort_unstable();
        self.lowering.tables[number] = targets;
        Ok(())
    }

    /// What leaves the innermost loop or switch goes on here.
    fn end_exits(&mut self) {
        for jump in self.exits.pop().unwrap_or_default().breaks {
            self.land(jump);
        }
    }

    fn call(
        &mut self,
        number: u32,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
    ) -> Result<(), Stuck> {
        let frame = self.lowering.frames[number as usize].clone();
        for (&argument, &to) in arguments.iter().zip(&frame.arguments) {
            let op = match self.value(argument)? {
                Value::Constant(from) | Value::Words(from) => {
                    Op::Copy { to, from, words: self.words(argument)? }
                }
                Value::Pointer(Place::Own(at)) => Op::Offset { to, at },
                Value::Pointer(place) => {
                    return Err(unknown("a pointer that is passed, into", &place));
                }
            };
            self.emit(op);
        }
        self.emit(Op::Call { function: number });
        if let Some(result) = result {
            let words = self.words(result)?;
            let to = self.lowering.reserve(words)?;
            self.emit(Op::Copy { to, from: frame.result, words });
            self.values[result.index()] = Some(Value::Words(to));
        }
        Ok(())
    }

    fn store(
        &mut self,
        pointer: Handle<Expression>,
        value: Handle<Expression>,
    ) -> Result<(), Stuck> {
        let from = self.words_at(value)?;
        let words = self.words(value)?;
        match self.pointer(pointer)? {
            Place::Own(At { base: None, add: to }) => {
                self.emit(Op::Copy { to, from, words });
            }
            place @ (Place::Own(_) | Place::Shared(_)) => {
                self.emit(Op::Store { to: place, from, words });
            }
            Place::Bound { binding, at } => {
                let mut from = from;
                for (at, words) in self.pieces(pointer, at)? {
                    self.emit(Op::Store { to: Place::Bound { binding, at }, from, words });
                    from += words;
                }
            }
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        pointer: Handle<Expression>,
        fun: &AtomicFunction,
        value: Handle<Expression>,
        result: Option<Handle<Expression>>,
    ) -> Result<(), Stuck> {
        let at = self.pointer(pointer)?;
        let pointee = self.pointee(pointer)?;
        let (TypeInner::Atomic(scalar) | TypeInner::Scalar(scalar)) = *pointee else {
            return Err(unknown("an atomic", &*pointee));
        };
        let value = self.words_at(value)?;
        // The old word, and whether it was exchanged.
        let to = self.lowering.reserve(2)?;
        let op = match *fun {
            AtomicFunction::Exchange { compare: Some(expected) } => {
                Op::Exchange { at, expected: self.words_at(expected)?, value, to }
            }
            fun => {
                let f = arithmetic::atomic(fun, scalar.kind);
                let f = f.ok_or_else(|| unknown("the atomic", &(fun, scalar)))?;
                Op::Atomic { f, at, value, to }
            }
        };
        self.emit(op);
        if let Some(result) = result {
            self.values[result.index()] = Some(Value::Words(to));
        }
        Ok(())
    }
}
