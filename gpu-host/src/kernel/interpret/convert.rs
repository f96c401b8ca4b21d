//! Conversions between kinds of scalars, as words; and to and from floats of 16 bits.

use naga::ScalarKind;

use super::program::One;

/// The largest `f32` that is an `i32`, and that is a `u32`. Larger ones become these, as WGSL says.
const SIGNED_MAX: f32 = 2_147_483_520.0;
const UNSIGNED_MAX: f32 = 4_294_967_040.0;

/// How a scalar of one kind becomes one of another.
pub(super) fn conversion(from: ScalarKind, to: ScalarKind) -> Option<One> {
    use ScalarKind::{Bool, Float, Sint, Uint};
    let f: One = match (from, to) {
        (Sint | Uint, Sint | Uint) | (Bool, Sint | Uint) => |a| a,
        (Sint | Uint, Bool) => |a| u32::from(a != 0),
        (Float, Bool) => |a| u32::from(f32::from_bits(a) != 0.0),
        (Bool, Float) => |a| f32::from(a != 0).to_bits(),
        (Sint, Float) => |a| (a.cast_signed() as f32).to_bits(),
        (Uint, Float) => |a| (a as f32).to_bits(),
        (Float, Sint) => |a| (f32::from_bits(a).min(SIGNED_MAX) as i32).cast_unsigned(),
        (Float, Uint) => |a| f32::from_bits(a).min(UNSIGNED_MAX) as u32,
        _ => return None,
    };
    Some(f)
}

/// The nearest float of 16 bits, of two the even one; what is too large is infinite.
pub(super) fn half_of(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7FFF_FFFF;
    let half = match magnitude {
        // Not a number, with some bit set.
        0x7F80_0001.. => 0x7E00,
        // From halfway between the largest and what would come next.
        0x477F_F000.. => 0x7C00,
        // Normal: drop 13 bits of the fraction and 112 of the exponent.
        0x3880_0000.. => {
            let odd = (magnitude >> 13) & 1;
            (magnitude - (112 << 23) + 0xFFF + odd) >> 13
        }
        // Subnormal: units of 2^-24. Halves of it are exact before they are rounded.
        _ => (f32::from_bits(magnitude) * 16_777_216.0).round_ties_even() as u32,
    };
    sign | (half & 0xFFFF) as u16
}

/// What a float of 16 bits says.
pub(super) fn float_of(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(half >> 10) & 0x1F, u32::from(half & 0x3FF));
    let magnitude = match exponent {
        0 => return f32::from_bits(sign | half_unit(fraction).to_bits()),
        0x1F => 0x7F80_0000 | (fraction << 13),
        _ => ((exponent + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// So many units of 2^-24.
fn half_unit(count: u32) -> f32 {
    count as f32 / 16_777_216.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_itself_again() {
        for half in 0..=u16::MAX {
            let value = float_of(half);
            if value.is_nan() {
                assert!(float_of(half_of(value)).is_nan());
            } else {
                assert_eq!(half_of(value), half, "{value}");
            }
        }
    }

    #[test]
    fn halves_are_rounded_to_the_nearest() {
        // Between each two neighbours: below, at and above the middle.
        for half in 0..0x7BFF_u16 {
            let (low, high) = (float_of(half), float_of(half + 1));
            let middle = f32::midpoint(low, high);
            assert_eq!(half_of(middle.next_down()), half);
            assert_eq!(half_of(middle.next_up()), half + 1);
            assert_eq!(half_of(middle), half + (half & 1));
        }
        assert_eq!(half_of(65_519.996), 0x7BFF);
        assert_eq!(half_of(65_520.0), 0x7C00);
        assert_eq!(half_of(f32::NEG_INFINITY), 0xFC00);
    }

    #[test]
    fn what_does_not_fit_becomes_the_nearest_that_does() {
        let convert = |value: f32, kind| {
            conversion(ScalarKind::Float, kind).expect("it is known")(value.to_bits())
        };
        assert_eq!(convert(1e20, ScalarKind::Sint), 2_147_483_520);
        assert_eq!(convert(-1e20, ScalarKind::Sint), i32::MIN.cast_unsigned());
        assert_eq!(convert(-1.9, ScalarKind::Sint), (-1_i32).cast_unsigned());
        assert_eq!(convert(1e20, ScalarKind::Uint), 4_294_967_040);
        assert_eq!(convert(-3.0, ScalarKind::Uint), 0);
    }
}
