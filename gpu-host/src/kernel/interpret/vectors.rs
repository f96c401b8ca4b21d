//! Functions of whole vectors and matrices: all words of the arguments to all words of the result.
//!
//! How many components there are is told by the lengths.

use super::program::Whole;

/// The words of one vector, or of a few of the same length.
fn floats(words: &[u32]) -> impl ExactSizeIterator<Item = f32> + Clone + '_ {
    words.iter().map(|&word| f32::from_bits(word))
}

fn put(out: &mut [u32], values: impl Iterator<Item = f32>) {
    for (word, value) in out.iter_mut().zip(values) {
        *word = value.to_bits();
    }
}

fn dot(left: &[u32], right: &[u32]) -> f32 {
    floats(left).zip(floats(right)).map(|(a, b)| a * b).sum()
}

fn length_of(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    if values.len() == 1 {
        return values.map(f32::abs).sum();
    }
    values.map(|a| a * a).sum::<f32>().sqrt()
}

pub(super) fn length(given: &[u32], out: &mut [u32]) {
    put(out, std::iter::once(length_of(floats(given))));
}

pub(super) fn distance(given: &[u32], out: &mut [u32]) {
    let (left, right) = given.split_at(given.len() / 2);
    let differences: Vec<f32> = floats(left).zip(floats(right)).map(|(a, b)| a - b).collect();
    put(out, std::iter::once(length_of(differences.into_iter())));
}

pub(super) fn normalize(given: &[u32], out: &mut [u32]) {
    let length = length_of(floats(given));
    put(out, floats(given).map(|a| a / length));
}

pub(super) fn cross(given: &[u32], out: &mut [u32]) {
    let mut all = [0.0; 6];
    for (value, word) in all.iter_mut().zip(floats(given)) {
        *value = word;
    }
    let [a, b, c, x, y, z] = all;
    put(out, [b * z - c * y, c * x - a * z, a * y - b * x].into_iter());
}

/// The first, towards the side from which the second does not come, judged by the third.
pub(super) fn face_forward(given: &[u32], out: &mut [u32]) {
    let (normal, rest) = given.split_at(given.len() / 3);
    let (incident, reference) = rest.split_at(rest.len() / 2);
    let is_same = dot(incident, reference) < 0.0;
    put(out, floats(normal).map(|a| if is_same { a } else { -a }));
}

pub(super) fn reflect(given: &[u32], out: &mut [u32]) {
    let (incident, normal) = given.split_at(given.len() / 2);
    let along = dot(normal, incident);
    put(out, floats(incident).zip(floats(normal)).map(|(i, n)| i - 2.0 * along * n));
}

pub(super) fn refract(given: &[u32], out: &mut [u32]) {
    let (vectors, ratio) = given.split_at(given.len().saturating_sub(1));
    let (incident, normal) = vectors.split_at(vectors.len() / 2);
    let ratio = floats(ratio).next().unwrap_or_default();
    let along = dot(normal, incident);
    let rest = 1.0 - ratio * ratio * (1.0 - along * along);
    let normals = ratio * along + rest.max(0.0).sqrt();
    let is_total = rest < 0.0;
    let refracted = floats(incident).zip(floats(normal)).map(|(i, n)| ratio * i - normals * n);
    put(out, refracted.map(|a| if is_total { 0.0 } else { a }));
}

/// Fractions, and whole parts behind them.
pub(super) fn modf(given: &[u32], out: &mut [u32]) {
    let fractions = floats(given).map(|a| if a.is_infinite() { 0.0 } else { a - a.trunc() });
    put(out, fractions.chain(floats(given).map(f32::trunc)));
}

/// Fractions from a half to 1, and exponents behind them.
pub(super) fn frexp(given: &[u32], out: &mut [u32]) {
    let (fractions, exponents) = out.split_at_mut(given.len());
    for ((value, fraction), exponent) in floats(given).zip(fractions).zip(exponents) {
        let (part, power) = parts(value);
        *fraction = part.to_bits();
        *exponent = power.cast_unsigned();
    }
}

fn parts(value: f32) -> (f32, i32) {
    if value == 0.0 || !value.is_finite() {
        return (value, 0);
    }
    // As a normal number: the smallest of 32 bits has an exponent of -149.
    let bits = f64::from(value).to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7FF).unwrap_or_default() - 1022;
    let fraction = f64::from_bits((bits & !(0x7FF << 52)) | (1022 << 52));
    // It has no more digits than before.
    (fraction as f32, exponent)
}

/// The function that transposes matrices of a shape.
pub(super) fn transpose(columns: usize, rows: usize) -> Option<Whole> {
    let f: Whole = match (columns, rows) {
        (2, 2) => transposed::<2, 2>,
        (2, 3) => transposed::<2, 3>,
        (2, 4) => transposed::<2, 4>,
        (3, 2) => transposed::<3, 2>,
        (3, 3) => transposed::<3, 3>,
        (3, 4) => transposed::<3, 4>,
        (4, 2) => transposed::<4, 2>,
        (4, 3) => transposed::<4, 3>,
        (4, 4) => transposed::<4, 4>,
        _ => return None,
    };
    Some(f)
}

fn transposed<const COLUMNS: usize, const ROWS: usize>(given: &[u32], out: &mut [u32]) {
    for (at, word) in out.iter_mut().enumerate() {
        let (column, row) = (at / COLUMNS, at % COLUMNS);
        *word = given.get(row * ROWS + column).copied().unwrap_or_default();
    }
}

/// By the first column, of matrices of up to four.
pub(super) fn determinant(given: &[u32], out: &mut [u32]) {
    let values: Vec<f32> = floats(given).collect();
    put(out, std::iter::once(determinant_of(&values, given.len().isqrt())));
}

fn determinant_of(values: &[f32], size: usize) -> f32 {
    if size <= 1 {
        return values.first().copied().unwrap_or(1.0);
    }
    let mut sum = 0.0;
    let mut sign = 1.0;
    for row in 0..size {
        let minor = values[size..].iter().enumerate().filter(|(at, _)| at % size != row);
        let minor: Vec<f32> = minor.map(|(_, value)| *value).collect();
        sum += sign * values[row] * determinant_of(&minor, size - 1);
        sign = -sign;
    }
    sum
}
