//! What the kernels do, on the processor and in the plainest way: they have to come to the same
//! bytes.
//!
//! - Weights are a row of Pascal's triangle, which is close to a bell curve. In each direction
//!   they come to 4 to the power of the radius; the result is rounded once, at the end.
//! - The picture goes on outside as its edge is.
//! - Whole numbers only: nothing depends on the order of sums.

/// Largest radius of the blur: with one more, a sum has more than 32 bits.
pub(crate) const RADIUS_MAX: u32 = 6;

/// Weights of the largest blur.
const WEIGHTS_MAX: usize = RADIUS_MAX as usize * 2 + 1;

/// Words that the kernels are told: width, height, radius, threshold, weights.
pub(crate) const SETTINGS_WORDS: usize = 4 + WEIGHTS_MAX;

/// What is done with the pictures of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) radius: u32,
    /// By more than so many grey levels a pixel has changed.
    pub(crate) threshold: u8,
}

/// Which pixels have changed: where, and how many. The box is without `right` and `bottom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) right: u32,
    pub(crate) bottom: u32,
    pub(crate) moving: u32,
}

impl Changed {
    /// No pixel at all.
    pub(crate) const NONE: Self =
        Self { left: u32::MAX, top: u32::MAX, right: 0, bottom: 0, moving: 0 };

    /// From the words of the kernels.
    pub(crate) const fn of([left, top, right, bottom, moving]: [u32; 5]) -> Self {
        Self { left, top, right, bottom, moving }
    }
}

impl Settings {
    /// What the kernels are told.
    pub(crate) fn words(&self) -> [u32; SETTINGS_WORDS] {
        let mut words = [0; SETTINGS_WORDS];
        words[..4].copy_from_slice(&[
            self.width,
            self.height,
            self.radius,
            u32::from(self.threshold),
        ]);
        words[4..].copy_from_slice(&weights(self.radius));
        words
    }

    /// The picture with each pixel averaged with those around it.
    pub(crate) fn blurred(&self, picture: &[u8]) -> Vec<u8> {
        let (width, height) = (self.width as usize, self.height as usize);
        let weights = weights(self.radius);
        let taps = &weights[..=self.radius as usize * 2];
        let mut rows = vec![0_u32; picture.len()];
        for (sums, row) in rows.chunks_exact_mut(width).zip(picture.chunks_exact(width)) {
            for (x, sum) in sums.iter_mut().enumerate() {
                let pixels = self.around(x, width).map(|from| u32::from(row[from]));
                *sum = taps.iter().zip(pixels).map(|(weight, pixel)| weight * pixel).sum();
            }
        }
        let shift = self.radius * 4;
        let half = (1 << shift) / 2;
        let mut blurred = Vec::with_capacity(picture.len());
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let sums = self.around(y, height).map(|from| rows[from * width + x]);
            let sum: u32 = taps.iter().zip(sums).map(|(weight, sum)| weight * sum).sum();
            // A mean of bytes is a byte.
            blurred.push(((sum + half) >> shift) as u8);
        }
        blurred
    }

    /// Which pixels of two blurred pictures differ.
    pub(crate) fn changed(&self, before: &[u8], after: &[u8]) -> Changed {
        let mut changed = Changed::NONE;
        for (at, (one, other)) in (0..).zip(before.iter().zip(after)) {
            if one.abs_diff(*other) > self.threshold {
                let (x, y): (u32, u32) = (at % self.width, at / self.width);
                changed.left = changed.left.min(x);
                changed.top = changed.top.min(y);
                changed.right = changed.right.max(x + 1);
                changed.bottom = changed.bottom.max(y + 1);
                changed.moving += 1;
            }
        }
        changed
    }

    /// The places that go into one, kept from 0 to before `end`.
    fn around(&self, at: usize, end: usize) -> impl Iterator<Item = usize> {
        let radius = self.radius as usize;
        (at..=at + radius * 2).map(move |from| from.saturating_sub(radius).min(end - 1))
    }
}

/// The weights of a blur, then zeros.
fn weights(radius: u32) -> [u32; WEIGHTS_MAX] {
    let mut weights = [0; WEIGHTS_MAX];
    weights[0] = 1;
    for _ in 0..radius * 2 {
        for at in (1..WEIGHTS_MAX).rev() {
            weights[at] += weights[at - 1];
        }
    }
    weights
}
