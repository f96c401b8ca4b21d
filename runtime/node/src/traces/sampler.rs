//! Which traces are kept, before anybody's share is looked at.
//!
//! By share of the ids of traces: nodes that are told the same share keep the same traces.

use sluicebox_core::frame::TraceContext;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Whoever sends a context has decided.
    parent_based: bool,
    /// Traces are kept whose number of 63 bits is below this.
    below: u64,
}

/// All traces there can be.
const ALL: u64 = 1 << 63;

impl Sampler {
    /// Keeps such a part of all traces, from 0 to 1.
    #[must_use]
    pub fn ratio(part: f64) -> Self {
        let below = (part.clamp(0.0, 1.0) * ALL as f64) as u64;
        Self { parent_based: false, below }
    }

    /// The same, where nobody has decided before.
    #[must_use]
    pub fn of_parent(self) -> Self {
        Self { parent_based: true, ..self }
    }

    /// As two values that say all of it.
    pub(crate) const fn parts(self) -> (bool, u64) {
        (self.parent_based, self.below)
    }

    /// The one that these say.
    pub(crate) const fn of_parts((parent_based, below): (bool, u64)) -> Self {
        Self { parent_based, below }
    }

    /// Whether what comes with `from`, or begins the trace `id`, is kept.
    pub(super) fn keeps(&self, from: Option<TraceContext>, id: &[u8; 16]) -> bool {
        if let Some(from) = from.filter(|_| self.parent_based) {
            return from.is_sampled();
        }
        let [.., a, b, c, d, e, f, g, h] = *id;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(low: u64) -> [u8; 16] {
        (7_u128 << 64 | u128::from(low)).to_be_bytes()
    }

    #[test]
    fn the_share_is_of_ids_and_a_parent_decides_where_it_may() {
        let half = Sampler::ratio(0.5);
        assert!(half.keeps(None, &id(0)) && half.keeps(None, &id((1 << 63) - 1)));
        assert!(!half.keeps(None, &id(1 << 63)) && !half.keeps(None, &id(u64::MAX)));
        for low in [0, 1, 1 << 63, u64::MAX] {
            assert!(Sampler::ratio(1.0).keeps(None, &id(low)));
            assert!(!Sampler::ratio(0.0).keeps(None, &id(low)));
        }
        let from = TraceContext { trace: id(u64::MAX), span: [1; 8], flags: 1 };
        assert!(!half.keeps(Some(from), &from.trace));
        assert!(half.of_parent().keeps(Some(from), &from.trace));
        let none = TraceContext { trace: id(0), ..from.kept(false) };
        assert!(half.keeps(Some(none), &none.trace));
        assert!(!half.of_parent().keeps(Some(none), &none.trace));
        assert!(half.of_parent().keeps(None, &none.trace));
    }

    #[test]
    fn what_is_no_part_is_none_or_all() {
        assert_eq!(Sampler::ratio(-1.0), Sampler::ratio(0.0));
        assert_eq!(Sampler::ratio(7.0), Sampler::ratio(1.0));
        assert_eq!(Sampler::ratio(f64::NAN), Sampler::ratio(0.0));
    }
}
