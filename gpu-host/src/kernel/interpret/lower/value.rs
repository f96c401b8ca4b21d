//! Expressions: where each has its value, and what computes it.

use naga::{
    BinaryOperator, Expression, Handle, MathFunction, RelationalFunction, ScalarKind,
    SwizzleComponent, TypeInner, UnaryOperator,
};

use super::super::Stuck;
use super::super::layout::Units;
use super::super::math::{self, Code};
use super::super::program::{Arg, At, Op, Place, WHOLE_WORDS_MAX};
use super::super::{arithmetic, convert};
use super::body::{Body, Value};
use super::unknown;

impl<'a> Body<'a, '_> {
    /// Finds all constants among the expressions.
    pub(super) fn constants(&mut self) -> Result<(), Stuck> {
        for (handle, expression) in self.function.expressions.iter() {
            let (values, info) = (&self.values, self.info);
            let known = |lowering: &super::Lowering<'_>, part: Handle<Expression>| {
                let Some(Value::Constant(at)) = *values.get(part.index())? else {
                    return None;
                };
                let inner = info[part].ty.inner_with(&lowering.module.types);
                Some((at, lowering.layouts.words(inner).ok()?))
            };
            let constant = self.lowering.constant(expression, known)?;
            self.values[handle.index()] = constant.map(Value::Constant);
        }
        Ok(())
    }

    pub(super) fn inner(&self, handle: Handle<Expression>) -> &'a TypeInner {
        self.info[handle].ty.inner_with(&self.lowering.module.types)
    }

    /// Words of an expression's value.
    pub(super) fn words(&self, handle: Handle<Expression>) -> Result<u32, Stuck> {
        self.lowering.layouts.words(self.inner(handle))
    }

    /// What an expression came to, which must have been evaluated.
    pub(super) fn value(&mut self, handle: Handle<Expression>) -> Result<Value, Stuck> {
        if let Some(value) = self.values[handle.index()] {
            return Ok(value);
        }
        let at = |add| At { base: None, add };
        let value = match self.function.expressions[handle] {
            Expression::GlobalVariable(variable) => Value::Pointer(self.lowering.global(variable)?),
            Expression::LocalVariable(variable) => {
                Value::Pointer(Place::Own(at(self.locals[variable.index()])))
            }
            Expression::FunctionArgument(number) => {
                let word = self.arguments.get(number as usize).copied().ok_or(Stuck::Large)?;
                match *self.inner(handle) {
                    TypeInner::Pointer { .. } | TypeInner::ValuePointer { .. } => {
                        Value::Pointer(Place::Own(At { base: Some(word), add: 0 }))
                    }
                    _ => Value::Words(word),
                }
            }
            ref other => return Err(unknown("before it is evaluated", other)),
        };
        self.values[handle.index()] = Some(value);
        Ok(value)
    }

    /// Where the words of an expression's value begin.
    pub(super) fn words_at(&mut self, handle: Handle<Expression>) -> Result<u32, Stuck> {
        match self.value(handle)? {
            Value::Constant(at) | Value::Words(at) => Ok(at),
            Value::Pointer(_) => Err(unknown("as a value", &self.function.expressions[handle])),
        }
    }

    /// Evaluates an expression, operands first as they come first.
    pub(super) fn expression(&mut self, handle: Handle<Expression>) -> Result<(), Stuck> {
        if self.values[handle.index()].is_some() {
            return Ok(());
        }
        let value = match self.function.expressions[handle] {
            ref expression if expression.needs_pre_emit() => return Ok(()),
            Expression::Access { base, index } => self.access(handle, base, index)?,
            Expression::AccessIndex { base, index } => self.access_index(base, index)?,
            Expression::Compose { ref components, .. } => self.compose(handle, components)?,
            Expression::Splat { size, value } => {
                let from = [self.words_at(value)?; 4];
                self.gather(from, size as u32)?
            }
            Expression::Swizzle { size, vector, pattern } => {
                let vector = self.words_at(vector)?;
                let from = pattern.map(|component: SwizzleComponent| vector + component as u32);
                self.gather(from, size as u32)?
            }
            Expression::Load { pointer } => self.load(pointer)?,
            Expression::Unary { op, expr } => self.unary(handle, op, expr)?,
            Expression::Binary { op, left, right } => self.binary(handle, op, [left, right])?,
            Expression::Select { condition, accept, reject } => {
                self.map4(handle, arithmetic::select, &[condition, accept, reject])?
            }
            Expression::Relational { fun, argument } => self.relational(handle, fun, argument)?,
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let rest = [arg1, arg2, arg3].into_iter().flatten();
                let args: Vec<_> = std::iter::once(arg).chain(rest).collect();
                self.math(handle, fun, &args)?
            }
            Expression::As { expr, kind, convert } => self.convert(handle, expr, kind, convert)?,
            Expression::ArrayLength(array) => self.length(array)?,
            ref other => return Err(unknown("the expression", other)),
        };
        self.values[handle.index()] = Some(value);
        Ok(())
    }

    fn kind(&self, handle: Handle<Expression>) -> Result<ScalarKind, Stuck> {
        let inner = self.inner(handle);
        inner.scalar_kind().ok_or_else(|| unknown("as an operand, the type", inner))
    }

    /// An operand, the same for all components if it is a scalar.
    fn arg(&mut self, handle: Handle<Expression>) -> Result<Arg, Stuck> {
        let is_scalar = matches!(self.inner(handle), TypeInner::Scalar(_));
        Ok(Arg { at: self.words_at(handle)?, step: u32::from(!is_scalar) })
    }

    /// A place for an expression's value, and its words.
    fn result(&mut self, handle: Handle<Expression>) -> Result<(u32, u32), Stuck> {
        let words = self.words(handle)?;
        Ok((self.lowering.reserve(words)?, words))
    }

    fn gather(&mut self, from: [u32; 4], words: u32) -> Result<Value, Stuck> {
        let to = self.lowering.reserve(words)?;
        self.emit(Op::Gather { to, from, words });
        Ok(Value::Words(to))
    }

    fn compose(
        &mut self,
        handle: Handle<Expression>,
        components: &[Handle<Expression>],
    ) -> Result<Value, Stuck> {
        let (first, _) = self.result(handle)?;
        let mut to = first;
        for &component in components {
            let (from, words) = (self.words_at(component)?, self.words(component)?);
            self.emit(Op::Copy { to, from, words });
            to += words;
        }
        Ok(Value::Words(first))
    }

    fn access(
        &mut self,
        handle: Handle<Expression>,
        base: Handle<Expression>,
        index: Handle<Expression>,
    ) -> Result<Value, Stuck> {
        let index = self.words_at(index)?;
        let from = match self.value(base)? {
            Value::Pointer(_) => return self.element(base, index).map(Value::Pointer),
            Value::Constant(from) | Value::Words(from) => from,
        };
        let inner = self.inner(base);
        let elements = self.lowering.layouts.elements(inner, Units::Words)?;
        let count = elements.count.ok_or_else(|| unknown("the type", inner))?;
        let (to, words) = self.result(handle)?;
        self.emit(Op::Pick { to, from, index, count, words });
        Ok(Value::Words(to))
    }

    fn access_index(&mut self, base: Handle<Expression>, index: u32) -> Result<Value, Stuck> {
        let value = self.value(base)?;
        if let Value::Pointer(_) = value {
            return self.member(base, index).map(Value::Pointer);
        }
        let inner = self.inner(base);
        if !matches!(inner, TypeInner::Struct { .. }) {
            let elements = self.lowering.layouts.elements(inner, Units::Words)?;
            if elements.count.is_none_or(|count| index >= count) {
                return Err(unknown("an index behind the end of", inner));
            }
        }
        let offset = self.lowering.layouts.member(inner, index, Units::Words)?;
        Ok(match value {
            Value::Constant(at) => Value::Constant(at + offset),
            Value::Words(at) => Value::Words(at + offset),
            Value::Pointer(place) => Value::Pointer(place),
        })
    }

    fn unary(
        &mut self,
        handle: Handle<Expression>,
        op: UnaryOperator,
        operand: Handle<Expression>,
    ) -> Result<Value, Stuck> {
        let kind = self.kind(operand)?;
        let f = arithmetic::unary(op, kind).ok_or_else(|| unknown("the operation", &op))?;
        let from = self.words_at(operand)?;
        let (to, words) = self.result(handle)?;
        self.emit(Op::Map1 { f, to, from, words });
        Ok(Value::Words(to))
    }

    fn binary(
        &mut self,
        handle: Handle<Expression>,
        op: BinaryOperator,
        operands: [Handle<Expression>; 2],
    ) -> Result<Value, Stuck> {
        let [left, right] = operands.map(|operand| self.inner(operand));
        if op == BinaryOperator::Multiply
            && let Some([rows, inner, columns]) = shapes(left, right)
        {
            let [left, right] = [self.words_at(operands[0])?, self.words_at(operands[1])?];
            let (to, _) = self.result(handle)?;
            self.emit(Op::Product { to, left, right, rows, inner, columns });
            return Ok(Value::Words(to));
        }
        let kind = self.kind(operands[0])?;
        let f = arithmetic::binary(op, kind).ok_or_else(|| unknown("the operation", &op))?;
        let args = [self.arg(operands[0])?, self.arg(operands[1])?];
        let (to, words) = self.result(handle)?;
        // Such as whole matrices, which WGSL does not compare.
        if self.words(operands[0])?.max(self.words(operands[1])?) != words {
            return Err(unknown("between whole values, the operation", &op));
        }
        self.emit(Op::Map2 { f, to, args, words });
        Ok(Value::Words(to))
    }

    fn relational(
        &mut self,
        handle: Handle<Expression>,
        fun: RelationalFunction,
        argument: Handle<Expression>,
    ) -> Result<Value, Stuck> {
        let from = self.words_at(argument)?;
        let given = self.words(argument)?;
        let (to, words) = self.result(handle)?;
        let op = match fun {
            RelationalFunction::All => Op::Fold { f: |a, b| a & b, to, from, words: given },
            RelationalFunction::Any => Op::Fold { f: |a, b| a | b, to, from, words: given },
            RelationalFunction::IsNan => Op::Map1 { f: arithmetic::is_nan, to, from, words },
            RelationalFunction::IsInf => Op::Map1 { f: arithmetic::is_infinite, to, from, words },
        };
        self.emit(op);
        Ok(Value::Words(to))
    }

    fn map4(
        &mut self,
        handle: Handle<Expression>,
        f: fn([u32; 4]) -> u32,
        operands: &[Handle<Expression>],
    ) -> Result<Value, Stuck> {
        let (to, words) = self.result(handle)?;
        // Any place will do for those that are not looked at.
        let mut args = [Arg::default(); 4];
        for (arg, &operand) in args.iter_mut().zip(operands) {
            *arg = self.arg(operand)?;
        }
        self.emit(Op::Map4 { f, to, args, words });
        Ok(Value::Words(to))
    }

    fn math(
        &mut self,
        handle: Handle<Expression>,
        fun: MathFunction,
        operands: &[Handle<Expression>],
    ) -> Result<Value, Stuck> {
        let first = operands[0];
        let not_known = || unknown("the function", &fun);
        let kind = self.kind(first)?;
        let code = match *self.inner(first) {
            TypeInner::Matrix { columns, rows, .. } => {
                math::of_matrix(fun, columns as usize, rows as usize)
            }
            _ => math::function(fun, kind),
        };
        match (code.ok_or_else(not_known)?, operands) {
            (Code::One(f), &[_]) => {
                let from = self.words_at(first)?;
                let (to, words) = self.result(handle)?;
                self.emit(Op::Map1 { f, to, from, words });
                Ok(Value::Words(to))
            }
            (Code::Two(f), &[left, right]) => {
                let args = [self.arg(left)?, self.arg(right)?];
                let (to, words) = self.result(handle)?;
                self.emit(Op::Map2 { f, to, args, words });
                Ok(Value::Words(to))
            }
            (Code::Four(f), _) => self.map4(handle, f, operands),
            (Code::Sum { product, sum }, &[left, right]) => {
                let args = [self.arg(left)?, self.arg(right)?];
                let words = self.words(left)?;
                let products = self.lowering.reserve(words)?;
                self.emit(Op::Map2 { f: product, to: products, args, words });
                let (to, _) = self.result(handle)?;
                self.emit(Op::Fold { f: sum, to, from: products, words });
                Ok(Value::Words(to))
            }
            (Code::Whole(f), &[_] | &[_, _] | &[_, _, _]) => {
                let mut args = [(0, 0); 3];
                for (arg, &operand) in args.iter_mut().zip(operands) {
                    *arg = (self.words_at(operand)?, self.words(operand)?);
                }
                if args.iter().any(|(_, words)| *words as usize > WHOLE_WORDS_MAX / 3) {
                    return Err(not_known());
                }
                let (to, words) = self.result(handle)?;
                self.emit(Op::Apply { f, to, words, args });
                Ok(Value::Words(to))
            }
            _ => Err(not_known()),
        }
    }

    fn convert(
        &mut self,
        handle: Handle<Expression>,
        operand: Handle<Expression>,
        kind: ScalarKind,
        width: Option<u8>,
    ) -> Result<Value, Stuck> {
        let from = self.words_at(operand)?;
        let (before, words) = (self.kind(operand)?, self.words(operand)?);
        // Other widths than that of a word are found here.
        if self.words(handle)? != words {
            return Err(unknown("a conversion to", &kind));
        }
        if width.is_none() || before == kind {
            return Ok(Value::Words(from));
        }
        let f = convert::conversion(before, kind);
        let f = f.ok_or_else(|| unknown("a conversion to", &kind))?;
        let (to, words) = self.result(handle)?;
        self.emit(Op::Map1 { f, to, from, words });
        Ok(Value::Words(to))
    }
}

/// Rows, inner length and columns, if at least one is a matrix and none a scalar.
fn shapes(left: &TypeInner, right: &TypeInner) -> Option<[u32; 3]> {
    let shape = |inner: &TypeInner, is_left| match *inner {
        TypeInner::Matrix { columns, rows, .. } => Some([rows as u32, columns as u32]),
        // A row before a matrix, a column behind one.
        TypeInner::Vector { size, .. } if is_left => Some([1, size as u32]),
        TypeInner::Vector { size, .. } => Some([size as u32, 1]),
        _ => None,
    };
    let is_matrix = |inner: &TypeInner| matches!(inner, TypeInner::Matrix { .. });
    if !is_matrix(left) && !is_matrix(right) {
        return None;
    }
    let ([rows, inner], [_, columns]) = (shape(left, true)?, shape(right, false)?);
    Some([rows, inner, columns])
}
