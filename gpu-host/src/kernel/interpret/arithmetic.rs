//! Operators on scalars, as words.
//!
//! As WGSL says: integers wrap; a quotient by 0, or one that does not fit, is the dividend, and
//! such a remainder is 0; a shift looks at the five lowest bits of its distance.

use naga::{AtomicFunction, BinaryOperator, ScalarKind, UnaryOperator};

use super::program::{One, Two};

/// What an operator does to a scalar.
pub(super) fn unary(op: UnaryOperator, kind: ScalarKind) -> Option<One> {
    let f: One = match (op, kind) {
        (UnaryOperator::Negate, ScalarKind::Float) => |a| a ^ (1 << 31),
        (UnaryOperator::Negate, ScalarKind::Sint) => u32::wrapping_neg,
        (UnaryOperator::LogicalNot, ScalarKind::Bool) => |a| a ^ 1,
        (UnaryOperator::BitwiseNot, ScalarKind::Sint | ScalarKind::Uint) => |a| !a,
        _ => return None,
    };
    Some(f)
}

/// What an operator does to two scalars of a kind.
pub(super) fn binary(op: BinaryOperator, kind: ScalarKind) -> Option<Two> {
    match kind {
        ScalarKind::Float => binary_float(op),
        ScalarKind::Sint => binary_signed(op).or_else(|| binary_bits(op)),
        ScalarKind::Uint => binary_unsigned(op).or_else(|| binary_bits(op)),
        ScalarKind::Bool => binary_bits(op),
        ScalarKind::AbstractInt | ScalarKind::AbstractFloat => None,
    }
}

fn binary_float(op: BinaryOperator) -> Option<Two> {
    let f: Two = match op {
        BinaryOperator::Add => |a, b| float2(a, b, |a, b| a + b),
        BinaryOperator::Subtract => |a, b| float2(a, b, |a, b| a - b),
        BinaryOperator::Multiply => |a, b| float2(a, b, |a, b| a * b),
        BinaryOperator::Divide => |a, b| float2(a, b, |a, b| a / b),
        BinaryOperator::Modulo => |a, b| float2(a, b, |a, b| a % b),
        BinaryOperator::Equal => |a, b| compare(a, b, |a, b| a == b),
        BinaryOperator::NotEqual => |a, b| compare(a, b, |a, b| a != b),
        BinaryOperator::Less => |a, b| compare(a, b, |a, b| a < b),
        BinaryOperator::LessEqual => |a, b| compare(a, b, |a, b| a <= b),
        BinaryOperator::Greater => |a, b| compare(a, b, |a, b| a > b),
        BinaryOperator::GreaterEqual => |a, b| compare(a, b, |a, b| a >= b),
        _ => return None,
    };
    Some(f)
}

fn binary_signed(op: BinaryOperator) -> Option<Two> {
    let f: Two = match op {
        BinaryOperator::Divide => |a, b| signed2(a, b, |a, b| a.checked_div(b).unwrap_or(a)),
        BinaryOperator::Modulo => |a, b| signed2(a, b, |a, b| a.checked_rem(b).unwrap_or(0)),
        BinaryOperator::Less => |a, b| u32::from(a.cast_signed() < b.cast_signed()),
        BinaryOperator::LessEqual => |a, b| u32::from(a.cast_signed() <= b.cast_signed()),
        BinaryOperator::Greater => |a, b| u32::from(a.cast_signed() > b.cast_signed()),
        BinaryOperator::GreaterEqual => |a, b| u32::from(a.cast_signed() >= b.cast_signed()),
        BinaryOperator::ShiftRight => |a, b| a.cast_signed().wrapping_shr(b).cast_unsigned(),
        _ => return None,
    };
    Some(f)
}

fn binary_unsigned(op: BinaryOperator) -> Option<Two> {
    let f: Two = match op {
        BinaryOperator::Divide => |a, b| a.checked_div(b).unwrap_or(a),
        BinaryOperator::Modulo => |a, b| a.checked_rem(b).unwrap_or(0),
        BinaryOperator::Less => |a, b| u32::from(a < b),
        BinaryOperator::LessEqual => |a, b| u32::from(a <= b),
        BinaryOperator::Greater => |a, b| u32::from(a > b),
        BinaryOperator::GreaterEqual => |a, b| u32::from(a >= b),
        BinaryOperator::ShiftRight => u32::wrapping_shr,
        _ => return None,
    };
    Some(f)
}

/// The same for signed and unsigned numbers, and for bools where they have it.
fn binary_bits(op: BinaryOperator) -> Option<Two> {
    let f: Two = match op {
        BinaryOperator::Add => u32::wrapping_add,
        BinaryOperator::Subtract => u32::wrapping_sub,
        BinaryOperator::Multiply => u32::wrapping_mul,
        BinaryOperator::Equal => |a, b| u32::from(a == b),
        BinaryOperator::NotEqual => |a, b| u32::from(a != b),
        BinaryOperator::And | BinaryOperator::LogicalAnd => |a, b| a & b,
        BinaryOperator::InclusiveOr | BinaryOperator::LogicalOr => |a, b| a | b,
        BinaryOperator::ExclusiveOr => |a, b| a ^ b,
        BinaryOperator::ShiftLeft => u32::wrapping_shl,
        _ => return None,
    };
    Some(f)
}

/// What an atomic function makes of the old word and a value.
pub(super) fn atomic(fun: AtomicFunction, kind: ScalarKind) -> Option<Two> {
    let f: Two = match (fun, kind) {
        (AtomicFunction::Exchange { compare: None }, _) => |_, new| new,
        (_, ScalarKind::Float | ScalarKind::Bool) => return None,
        (AtomicFunction::Add, _) => u32::wrapping_add,
        (AtomicFunction::Subtract, _) => u32::wrapping_sub,
        (AtomicFunction::And, _) => |a, b| a & b,
        (AtomicFunction::ExclusiveOr, _) => |a, b| a ^ b,
        (AtomicFunction::InclusiveOr, _) => |a, b| a | b,
        (AtomicFunction::Min, ScalarKind::Sint) => |a, b| signed2(a, b, Ord::min),
        (AtomicFunction::Max, ScalarKind::Sint) => |a, b| signed2(a, b, Ord::max),
        (AtomicFunction::Min, ScalarKind::Uint) => |a, b| a.min(b),
        (AtomicFunction::Max, ScalarKind::Uint) => |a, b| a.max(b),
        _ => return None,
    };
    Some(f)
}

/// The second if the first is true, else the third.
pub(super) fn select([condition, accept, reject, _]: [u32; 4]) -> u32 {
    if condition == 0 { reject } else { accept }
}

pub(super) fn is_nan(a: u32) -> u32 {
    u32::from(f32::from_bits(a).is_nan())
}

pub(super) fn is_infinite(a: u32) -> u32 {
    u32::from(f32::from_bits(a).is_infinite())
}

/// Does to words what is done to numbers.
pub(super) fn float1(a: u32, f: impl Fn(f32) -> f32) -> u32 {
    f(f32::from_bits(a)).to_bits()
}

/// As [`float1`].
pub(super) fn float2(a: u32, b: u32, f: impl Fn(f32, f32) -> f32) -> u32 {
    f(f32::from_bits(a), f32::from_bits(b)).to_bits()
}

/// As [`float1`].
pub(super) fn float3([a, b, c, _]: [u32; 4], f: impl Fn(f32, f32, f32) -> f32) -> u32 {
    f(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c)).to_bits()
}

/// As [`float1`].
pub(super) fn signed2(a: u32, b: u32, f: impl Fn(i32, i32) -> i32) -> u32 {
    f(a.cast_signed(), b.cast_signed()).cast_unsigned()
}

fn compare(a: u32, b: u32, f: impl Fn(f32, f32) -> bool) -> u32 {
    u32::from(f(f32::from_bits(a), f32::from_bits(b)))
}
