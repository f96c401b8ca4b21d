//! The built-in functions of WGSL: which code each is, for which kind of numbers.

use std::f32::consts;

use naga::{MathFunction, ScalarKind};

use super::arithmetic::{float1, float2, float3, signed2};
use super::convert::{float_of, half_of};
use super::program::{Four, One, Two, Whole};
use super::{packing, vectors};

/// What a function is made of.
pub(super) enum Code {
    /// Applied to each component.
    One(One),
    Two(Two),
    Four(Four),
    /// Applied to components first, and to what comes of that.
    Sum {
        product: Two,
        sum: Two,
    },
    /// Applied to all at once.
    Whole(Whole),
}

/// A function whose first argument is a scalar or vector of a kind.
pub(super) fn function(fun: MathFunction, kind: ScalarKind) -> Option<Code> {
    match kind {
        ScalarKind::Float => float_each(fun)
            .map(Code::One)
            .or_else(|| float_pair(fun).map(Code::Two))
            .or_else(|| float_many(fun).map(Code::Four))
            .or_else(|| float_whole(fun)),
        ScalarKind::Sint => signed(fun).or_else(|| integer(fun)),
        ScalarKind::Uint => unsigned(fun).or_else(|| integer(fun)),
        _ => None,
    }
}

/// A function of a matrix.
pub(super) fn of_matrix(fun: MathFunction, columns: usize, rows: usize) -> Option<Code> {
    match fun {
        MathFunction::Transpose => vectors::transpose(columns, rows).map(Code::Whole),
        MathFunction::Determinant => Some(Code::Whole(vectors::determinant)),
        _ => None,
    }
}

fn float_each(fun: MathFunction) -> Option<One> {
    let f: One = match fun {
        MathFunction::Abs => |a| a & !(1 << 31),
        MathFunction::Saturate => |a| float1(a, |a| a.clamp(0.0, 1.0)),
        MathFunction::Cos => |a| float1(a, f32::cos),
        MathFunction::Cosh => |a| float1(a, f32::cosh),
        MathFunction::Sin => |a| float1(a, f32::sin),
        MathFunction::Sinh => |a| float1(a, f32::sinh),
        MathFunction::Tan => |a| float1(a, f32::tan),
        MathFunction::Tanh => |a| float1(a, f32::tanh),
        MathFunction::Acos => |a| float1(a, f32::acos),
        MathFunction::Asin => |a| float1(a, f32::asin),
        MathFunction::Atan => |a| float1(a, f32::atan),
        MathFunction::Asinh => |a| float1(a, f32::asinh),
        MathFunction::Acosh => |a| float1(a, f32::acosh),
        MathFunction::Atanh => |a| float1(a, f32::atanh),
        MathFunction::Radians => |a| float1(a, |a| a * (consts::PI / 180.0)),
        MathFunction::Degrees => |a| float1(a, |a| a * (180.0 / consts::PI)),
        MathFunction::Ceil => |a| float1(a, f32::ceil),
        MathFunction::Floor => |a| float1(a, f32::floor),
        MathFunction::Round => |a| float1(a, f32::round_ties_even),
        MathFunction::Fract => |a| float1(a, |a| a - a.floor()),
        MathFunction::Trunc => |a| float1(a, f32::trunc),
        MathFunction::Exp => |a| float1(a, f32::exp),
        MathFunction::Exp2 => |a| float1(a, f32::exp2),
        MathFunction::Log => |a| float1(a, f32::ln),
        MathFunction::Log2 => |a| float1(a, f32::log2),
        MathFunction::Sign => |a| float1(a, sign),
        MathFunction::Sqrt => |a| float1(a, f32::sqrt),
        MathFunction::InverseSqrt => |a| float1(a, |a| 1.0 / a.sqrt()),
        MathFunction::QuantizeToF16 => |a| float1(a, |a| float_of(half_of(a))),
        _ => return None,
    };
    Some(f)
}

fn float_pair(fun: MathFunction) -> Option<Two> {
    let f: Two = match fun {
        MathFunction::Min => |a, b| float2(a, b, f32::min),
        MathFunction::Max => |a, b| float2(a, b, f32::max),
        MathFunction::Atan2 => |a, b| float2(a, b, f32::atan2),
        MathFunction::Pow => |a, b| float2(a, b, f32::powf),
        MathFunction::Step => |edge, a| float2(edge, a, |edge, a| f32::from(edge <= a)),
        MathFunction::Ldexp => |a, b| float1(a, |a| scaled(a, b.cast_signed())),
        _ => return None,
    };
    Some(f)
}

fn float_many(fun: MathFunction) -> Option<Four> {
    let f: Four = match fun {
        MathFunction::Clamp => |all| float3(all, |a, low, high| a.max(low).min(high)),
        MathFunction::Fma => |all| float3(all, f32::mul_add),
        MathFunction::Mix => |all| float3(all, |a, b, part| a * (1.0 - part) + b * part),
        MathFunction::SmoothStep => |all| {
            float3(all, |low, high, a| {
                let part = ((a - low) / (high - low)).clamp(0.0, 1.0);
                part * part * (3.0 - 2.0 * part)
            })
        },
        _ => return None,
    };
    Some(f)
}

fn float_whole(fun: MathFunction) -> Option<Code> {
    let f: Whole = match fun {
        MathFunction::Dot => {
            let product: Two = |a, b| float2(a, b, |a, b| a * b);
            return Some(Code::Sum { product, sum: |a, b| float2(a, b, |a, b| a + b) });
        }
        MathFunction::Cross => vectors::cross,
        MathFunction::Distance => vectors::distance,
        MathFunction::Length => vectors::length,
        MathFunction::Normalize => vectors::normalize,
        MathFunction::FaceForward => vectors::face_forward,
        MathFunction::Reflect => vectors::reflect,
        MathFunction::Refract => vectors::refract,
        MathFunction::Modf => vectors::modf,
        MathFunction::Frexp => vectors::frexp,
        MathFunction::Pack4x8snorm => packing::pack_snorm8,
        MathFunction::Pack4x8unorm => packing::pack_unorm8,
        MathFunction::Pack2x16snorm => packing::pack_snorm16,
        MathFunction::Pack2x16unorm => packing::pack_unorm16,
        MathFunction::Pack2x16float => packing::pack_half,
        _ => return None,
    };
    Some(Code::Whole(f))
}

fn signed(fun: MathFunction) -> Option<Code> {
    let clamp: Four = |[a, low, high, _]| signed2(signed2(a, low, Ord::max), high, Ord::min);
    Some(match fun {
        MathFunction::Abs => Code::One(|a| a.cast_signed().wrapping_abs().cast_unsigned()),
        MathFunction::Sign => Code::One(|a| a.cast_signed().signum().cast_unsigned()),
        MathFunction::Min => Code::Two(|a, b| signed2(a, b, Ord::min)),
        MathFunction::Max => Code::Two(|a, b| signed2(a, b, Ord::max)),
        MathFunction::Clamp => Code::Four(clamp),
        MathFunction::FirstLeadingBit => Code::One(|a| {
            // The first that differs from the sign.
            let sign = (a.cast_signed() >> 31).cast_unsigned();
            first_leading_bit(a ^ sign)
        }),
        MathFunction::ExtractBits => Code::Four(|[a, offset, count, _]| {
            let (offset, count) = part(offset, count);
            let up = 32 - offset - count;
            let shifted = a.checked_shl(up).unwrap_or(0).cast_signed();
            shifted.checked_shr(32 - count).unwrap_or(0).cast_unsigned()
        }),
        MathFunction::Pack4xI8 => Code::Whole(packing::pack_bytes),
        MathFunction::Pack4xI8Clamp => Code::Whole(packing::pack_signed_clamped),
        _ => return None,
    })
}

fn unsigned(fun: MathFunction) -> Option<Code> {
    Some(match fun {
        MathFunction::Abs => Code::One(|a| a),
        MathFunction::Sign => Code::One(|a| a.min(1)),
        MathFunction::Min => Code::Two(|a, b| a.min(b)),
        MathFunction::Max => Code::Two(|a, b| a.max(b)),
        MathFunction::Clamp => Code::Four(|[a, low, high, _]| a.max(low).min(high)),
        MathFunction::FirstLeadingBit => Code::One(first_leading_bit),
        MathFunction::ExtractBits => Code::Four(|[a, offset, count, _]| {
            let (offset, count) = part(offset, count);
            a.checked_shr(offset).unwrap_or(0) & mask(count)
        }),
        MathFunction::Dot4I8Packed => Code::Two(packing::dot_signed),
        MathFunction::Dot4U8Packed => Code::Two(packing::dot_unsigned),
        MathFunction::Pack4xU8 => Code::Whole(packing::pack_bytes),
        MathFunction::Pack4xU8Clamp => Code::Whole(packing::pack_unsigned_clamped),
        MathFunction::Unpack4x8snorm => Code::Whole(packing::unpack_snorm8),
        MathFunction::Unpack4x8unorm => Code::Whole(packing::unpack_unorm8),
        MathFunction::Unpack2x16snorm => Code::Whole(packing::unpack_snorm16),
        MathFunction::Unpack2x16unorm => Code::Whole(packing::unpack_unorm16),
        MathFunction::Unpack2x16float => Code::Whole(packing::unpack_half),
        MathFunction::Unpack4xI8 => Code::Whole(packing::unpack_signed),
        MathFunction::Unpack4xU8 => Code::Whole(packing::unpack_unsigned),
        _ => return None,
    })
}

/// The same for signed and unsigned numbers.
fn integer(fun: MathFunction) -> Option<Code> {
    Some(match fun {
        MathFunction::Dot => Code::Sum { product: u32::wrapping_mul, sum: u32::wrapping_add },
        MathFunction::CountTrailingZeros => Code::One(u32::trailing_zeros),
        MathFunction::CountLeadingZeros => Code::One(u32::leading_zeros),
        MathFunction::CountOneBits => Code::One(u32::count_ones),
        MathFunction::ReverseBits => Code::One(u32::reverse_bits),
        MathFunction::FirstTrailingBit => {
            Code::One(|a| if a == 0 { u32::MAX } else { a.trailing_zeros() })
        }
        MathFunction::InsertBits => Code::Four(|[a, new, offset, count]| {
            let (offset, count) = part(offset, count);
            let mask = mask(count).checked_shl(offset).unwrap_or(0);
            (a & !mask) | (new.checked_shl(offset).unwrap_or(0) & mask)
        }),
        _ => return None,
    })
}

fn sign(a: f32) -> f32 {
    if a == 0.0 || a.is_nan() { 0.0 } else { a.signum() }
}

/// A number times a power of two, rounded once.
fn scaled(a: f32, exponent: i32) -> f32 {
    // Beyond these everything is 0 or infinite, and the product is exact with them.
    let power = f64::from(exponent.clamp(-300, 300)).exp2();
    (f64::from(a) * power) as f32
}

/// The highest bit that is set, or all ones if none is.
fn first_leading_bit(a: u32) -> u32 {
    31_u32.wrapping_sub(a.leading_zeros())
}

/// Offset and count of bits, as much as there is of them.
fn part(offset: u32, count: u32) -> (u32, u32) {
    let offset = offset.min(32);
    (offset, count.min(32 - offset))
}

/// So many low bits.
fn mask(count: u32) -> u32 {
    u32::MAX.checked_shr(32 - count).unwrap_or(0)
}
