//! How long workgroups of a kernel take, learnt from what they took.
//!
//! A tenant has its own estimates: what it feeds a kernel changes nobody else's pieces, and nobody
//! learns from times which kernels others run. They only size pieces; what is charged is measured.
//!
//! A kernel can be quick in its first groups and slow in the rest. So a piece has at most eight
//! times the groups of the largest that was measured, whatever the estimate says.

use std::collections::BTreeMap;

/// Kernels that a tenant's estimates are kept of; the one that was used least recently goes first.
const KERNELS_MAX: usize = 256;

/// Times of a group are kept in parts of a nanosecond: so many bits of them.
const PART_BITS: u32 = 16;

/// How much larger a piece may be than all that were measured.
const GROWTH: u64 = 8;

/// A measured piece moves the estimate by one part in so many.
const SMOOTHING: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    kernels: BTreeMap<[u8; 32], Estimate>,
    uses: u64,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    /// Time of one group, in parts of a nanosecond; at least 1.
    group_parts: u64,
    /// Groups of the largest piece that was measured.
    measured_max: u64,
    used: u64,
}

impl Estimates {
    /// Groups that should take `nanos` at most; none if nothing is known of the kernel.
    pub(super) fn groups(&mut self, kernel: &[u8; 32], nanos: u64) -> Option<u64> {
        let estimate = self.kernels.get_mut(kernel)?;
        self.uses += 1;
        estimate.used = self.uses;
        let fitting = (u128::from(nanos) << PART_BITS) / u128::from(estimate.group_parts);
        let groups_max = estimate.measured_max.saturating_mul(GROWTH);
        Some(u64::try_from(fitting).unwrap_or(u64::MAX).clamp(1, groups_max))
    }

    /// Nanoseconds that so many groups should take; none if nothing is known of the kernel.
    pub(super) fn nanos(&self, kernel: &[u8; 32], groups: u64) -> Option<u64> {
        let estimate = self.kernels.get(kernel)?;
        let parts = u128::from(estimate.group_parts) * u128::from(groups);
        Some(u64::try_from(parts >> PART_BITS).unwrap_or(u64::MAX))
    }

    /// So many groups, at least 1, have taken so long.
    pub(super) fn learn(&mut self, kernel: &[u8; 32], groups: u64, nanos: u64) {
        let parts = (u128::from(nanos) << PART_BITS) / u128::from(groups);
        let parts = u64::try_from(parts).unwrap_or(u64::MAX).max(1);
        self.uses += 1;
        let used = self.uses;
        if let Some(estimate) = self.kernels.get_mut(kernel) {
            estimate.used = used;
            // What each piece costs besides weighs less in a larger one, which so tells more.
            if groups / 2 >= estimate.measured_max {
                estimate.group_parts = parts;
            } else {
                let (old, step) = (estimate.group_parts, estimate.group_parts.abs_diff(parts));
                let step = step.div_ceil(SMOOTHING);
                estimate.group_parts = if parts > old { old + step } else { old - step };
            }
            estimate.measured_max = estimate.measured_max.max(groups);
            return;
        }
        if self.kernels.len() >= KERNELS_MAX {
            let least = self.kernels.iter().min_by_key(|(_, estimate)| estimate.used);
            if let Some(kernel) = least.map(|(kernel, _)| *kernel) {
                self.kernels.remove(&kernel);
            }
        }
        self.kernels.insert(*kernel, Estimate { group_parts: parts, measured_max: groups, used });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: [u8; 32] = [1; 32];

    #[test]
    fn nothing_is_known_of_a_new_kernel() {
        let mut estimates = Estimates::default();
        assert_eq!(estimates.groups(&KERNEL, 1_000), None);
        assert_eq!(estimates.nanos(&KERNEL, 1), None);
    }

    #[test]
    fn a_piece_grows_eightfold_at_most() {
        let mut estimates = Estimates::default();
        estimates.learn(&KERNEL, 64, 0);
        assert_eq!(estimates.groups(&KERNEL, 2_000_000), Some(512));
        estimates.learn(&KERNEL, 512, 512_000);
        assert_eq!(estimates.groups(&KERNEL, 2_000_000), Some(2_000));
        assert_eq!(estimates.groups(&KERNEL, 0), Some(1));
    }

    #[test]
    fn estimates_come_to_what_is_measured_in_steps() {
        let mut estimates = Estimates::default();
        estimates.learn(&KERNEL, 100, 10_000);
        for (took, expected) in [(20_000, 12_500), (20_000, 14_375), (8_000, 12_782)] {
            estimates.learn(&KERNEL, 100, took);
            let nanos = estimates.nanos(&KERNEL, 100).unwrap();
            assert!(nanos.abs_diff(expected) <= 2, "{nanos} is not {expected}");
        }
    }

    #[test]
    fn nothing_overflows() {
        let mut estimates = Estimates::default();
        estimates.learn(&KERNEL, 1, u64::MAX);
        estimates.learn(&KERNEL, u64::MAX, u64::MAX);
        estimates.learn(&KERNEL, 1, 0);
        assert_eq!(estimates.groups(&KERNEL, u64::MAX), Some(u64::MAX));
        assert!(estimates.nanos(&KERNEL, u64::MAX).is_some());
    }

    #[test]
    fn the_kernel_that_was_used_least_recently_makes_room() {
        let mut estimates = Estimates::default();
        let kernel = |number: usize| {
            let mut kernel = [0; 32];
            kernel[..8].copy_from_slice(&number.to_le_bytes());
            kernel
        };
        (0..KERNELS_MAX).for_each(|number| estimates.learn(&kernel(number), 1, 1));
        estimates.groups(&kernel(0), 1);
        estimates.learn(&kernel(KERNELS_MAX), 1, 1);
        assert_eq!(estimates.kernels.len(), KERNELS_MAX);
        assert!(estimates.nanos(&kernel(0), 1).is_some());
        assert_eq!(estimates.nanos(&kernel(1), 1), None);
    }
}
