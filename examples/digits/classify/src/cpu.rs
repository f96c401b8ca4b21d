//! The network on the processor, in the plainest way: what the kernels have to come to.
//!
//! ```text
//!   asset:  "sbdg"  version, oldest reader, pixels, hidden, digits, 0, 0    8 words
//!           weights [pixel][neuron], biases [neuron]                        of the hidden layer
//!           weights [neuron][digit], biases [digit]                         of the last layer
//! ```
//!
//! - Words are little-endian; weights and biases are `f32`, and take pixels from 0 to 255.
//! - Sums are made in the order of the kernels. A device may still keep more digits on the way, so
//!   scores are equal within a tolerance only.

/// Bytes of a picture: 12 × 12, row by row.
pub(crate) const PIXELS: usize = 144;
/// Neurons of the hidden layer.
pub(crate) const HIDDEN: usize = 32;
/// What a picture may show.
pub(crate) const DIGITS: usize = 10;
/// Bytes of the asset.
pub(crate) const ASSET_BYTES: usize = (HEAD.len() + FLOATS) * 4;

/// What the asset begins with.
const HEAD: [u32; 8] =
    [u32::from_le_bytes(*b"sbdg"), 1, 1, PIXELS as u32, HIDDEN as u32, DIGITS as u32, 0, 0];
const FLOATS: usize = PIXELS * HIDDEN + HIDDEN + HIDDEN * DIGITS + DIGITS;

/// What a picture shows, and how sure that is: 1 or more for what the network has learned well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) digit: u32,
    pub(crate) score: f32,
}

/// The network of an asset.
#[derive(Debug)]
pub(crate) struct Network {
    /// Weights of the hidden layer, its biases, weights of the last, its biases.
    parts: [Vec<f32>; 4],
}

impl Network {
    /// Reads an asset; nothing if it is none of this network.
    pub(crate) fn read(asset: &[u8]) -> Option<Self> {
        let (words, rest) = asset.as_chunks::<4>();
        let (head, floats) = words.split_at_checked(HEAD.len())?;
        let is_ours = head.iter().zip(HEAD).all(|(word, ours)| u32::from_le_bytes(*word) == ours);
        if !is_ours || floats.len() != FLOATS || !rest.is_empty() {
            return None;
        }
        let mut floats = floats.iter().map(|word| f32::from_le_bytes(*word));
        let lengths = [PIXELS * HIDDEN, HIDDEN, HIDDEN * DIGITS, DIGITS];
        Some(Self { parts: lengths.map(|length| floats.by_ref().take(length).collect()) })
    }

    /// What a picture shows.
    pub(crate) fn verdict(&self, picture: &[u8; PIXELS]) -> Verdict {
        self.best(&self.active(picture))
    }

    /// What the hidden layer comes to.
    pub(crate) fn active(&self, picture: &[u8; PIXELS]) -> Vec<f32> {
        let [weights, bias, ..] = &self.parts;
        let inputs = picture.map(f32::from);
        let mut active = layer(&inputs, weights, bias);
        active.iter_mut().for_each(|sum| *sum = sum.max(0.0));
        active
    }

    /// What follows from the hidden layer.
    pub(crate) fn best(&self, active: &[f32]) -> Verdict {
        let [.., weights, bias] = &self.parts;
        let scores = layer(active, weights, bias);
        let scores = (0..).zip(scores).map(|(digit, score)| Verdict { digit, score });
        let larger = |best: Verdict, next: Verdict| {
            // Of equal scores the smaller digit has it.
            if next.score > best.score { next } else { best }
        };
        scores.reduce(larger).unwrap_or(Verdict { digit: 0, score: 0.0 })
    }
}

/// Sums of weighted inputs. A row of weights is of all that one input gives to.
fn layer(inputs: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut sums = bias.to_vec();
    for (input, row) in inputs.iter().zip(weights.chunks_exact(bias.len())) {
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += input * weight;
        }
    }
    sums
}
