//! Small numbers in one word, the first lowest.

use super::convert::{float_of, half_of};

/// What a component is multiplied with.
const SNORM8: f32 = 127.0;
const UNORM8: f32 = 255.0;
const SNORM16: f32 = 32_767.0;
const UNORM16: f32 = 65_535.0;

/// A part in place of a float.
fn rounded(value: f32, low: f32, scale: f32) -> u32 {
    let scaled = (0.5 + scale * value.max(low).min(1.0)).floor();
    (scaled as i32).cast_unsigned()
}

/// Packs parts of `bits` bits.
fn pack(given: &[u32], out: &mut [u32], bits: u32, part: impl Fn(u32) -> u32) {
    let mask = (1 << bits) - 1;
    let packed = given.iter().rev().fold(0, |word, &value| (word << bits) | (part(value) & mask));
    out.fill(packed);
}

/// Unpacks parts of `bits` bits, each with its sign or without.
fn unpack(given: &[u32], out: &mut [u32], bits: u32, part: impl Fn(u32) -> u32) {
    let mut rest = given.first().copied().unwrap_or_default();
    for word in out {
        *word = part(rest & ((1 << bits) - 1));
        rest >>= bits;
    }
}

fn signed8(part: u32) -> i32 {
    i32::from((part & 0xFF) as u8 as i8)
}

fn signed16(part: u32) -> i16 {
    (part & 0xFFFF) as u16 as i16
}

pub(super) fn pack_snorm8(given: &[u32], out: &mut [u32]) {
    pack(given, out, 8, |word| rounded(f32::from_bits(word), -1.0, SNORM8));
}

pub(super) fn pack_unorm8(given: &[u32], out: &mut [u32]) {
    pack(given, out, 8, |word| rounded(f32::from_bits(word), 0.0, UNORM8));
}

pub(super) fn pack_snorm16(given: &[u32], out: &mut [u32]) {
    pack(given, out, 16, |word| rounded(f32::from_bits(word), -1.0, SNORM16));
}

pub(super) fn pack_unorm16(given: &[u32], out: &mut [u32]) {
    pack(given, out, 16, |word| rounded(f32::from_bits(word), 0.0, UNORM16));
}

pub(super) fn pack_half(given: &[u32], out: &mut [u32]) {
    pack(given, out, 16, |word| u32::from(half_of(f32::from_bits(word))));
}

pub(super) fn pack_bytes(given: &[u32], out: &mut [u32]) {
    pack(given, out, 8, |word| word);
}

pub(super) fn pack_signed_clamped(given: &[u32], out: &mut [u32]) {
    pack(given, out, 8, |word| word.cast_signed().clamp(-128, 127).cast_unsigned());
}

pub(super) fn pack_unsigned_clamped(given: &[u32], out: &mut [u32]) {
    pack(given, out, 8, |word| word.min(255));
}

pub(super) fn unpack_snorm8(given: &[u32], out: &mut [u32]) {
    unpack(given, out, 8, |part| (signed8(part) as f32 / SNORM8).max(-1.0).to_bits());
}

pub(super) fn unpack_unorm8(given: &[u32], out: &mut [u32]) {
    unpack(given, out, 8, |part| (part as f32 / UNORM8).to_bits());
}

pub(super) fn unpack_snorm16(given: &[u32], out: &mut [u32]) {
    unpack(given, out, 16, |part| (f32::from(signed16(part)) / SNORM16).max(-1.0).to_bits());
}

pub(super) fn unpack_unorm16(given: &[u32], out: &mut [u32]) {
    unpack(given, out, 16, |part| (part as f32 / UNORM16).to_bits());
}

pub(super) fn unpack_half(given: &[u32], out: &mut [u32]) {
    unpack(given, out, 16, |part| float_of((part & 0xFFFF) as u16).to_bits());
}

pub(super) fn unpack_signed(given: &[u32], out: &mut [u32]) {
    unpack(given, out, 8, |part| signed8(part).cast_unsigned());
}

pub(super) fn unpack_unsigned(given: &[u32], out: &mut [u32]) {
    unpack(given, out, 8, |part| part);
}

/// The sum of the products of four signed bytes each.
pub(super) fn dot_signed(left: u32, right: u32) -> u32 {
    let products = (0..4).map(|at| signed8(left >> (8 * at)) * signed8(right >> (8 * at)));
    products.sum::<i32>().cast_unsigned()
}

/// The same of unsigned bytes.
pub(super) fn dot_unsigned(left: u32, right: u32) -> u32 {
    (0..4).map(|at| (left >> (8 * at) & 0xFF) * (right >> (8 * at) & 0xFF)).sum()
}
