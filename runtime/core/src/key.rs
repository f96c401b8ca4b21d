//! From key to key group to partition; this hash is part of the on-disk format.
//!
//! The group is the top 10 bits of XXH3-64 with seed 0. Partition `p` of `n` owns the groups
//! `g` with `g * n / 1024 == p`: ranges of equal size up to one. Changing either is a format break.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::KEY_GROUPS;

/// The hash every placement decision starts from.
#[inline]
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The key group of a key, below [`KEY_GROUPS`].
#[inline]
#[must_use]
pub fn group_of(key: &[u8]) -> u16 {
    (hash(key) >> 54) as u16
}

/// Which of `partitions` owns a group. `partitions` is 1 to 1,024.
#[inline]
#[must_use]
pub fn partition_of(group: u16, partitions: u16) -> u16 {
    debug_assert!(group < KEY_GROUPS && (1..=KEY_GROUPS).contains(&partitions));
    ((u32::from(group) * u32::from(partitions)) >> 10) as u16
}

/// The groups a partition owns, of `partitions`.
#[must_use]
pub fn groups_of(partition: u16, partitions: u16) -> Range<u16> {
    debug_assert!(partition < partitions && partitions <= KEY_GROUPS);
    let first = |partition: u32| (partition << 10).div_ceil(u32::from(partitions)) as u16;
    first(partition.into())..first(u32::from(partition) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fixed_for_ever() {
        // From the reference implementation of XXH3; these numbers are the on-disk format.
        assert_eq!(hash(b""), 0x2D06_8005_38D3_94C2);
        assert_eq!(group_of(b""), 180);
        let groups = ["a", "user-1", "schlüssel"].map(|key| group_of(key.as_bytes()));
        assert_eq!(groups, [923, 497, 107]);
    }

    #[test]
    fn partitions_split_the_groups_evenly_and_in_order() {
        for partitions in [1, 2, 3, 7, 64, 1000, 1024] {
            let owners: Vec<u16> = (0..KEY_GROUPS).map(|g| partition_of(g, partitions)).collect();
            assert!(owners.is_sorted());
            assert_eq!(owners.last(), Some(&(partitions - 1)));
            let mut counts = vec![0_u32; partitions.into()];
            owners.iter().for_each(|o| counts[usize::from(*o)] += 1);
            for partition in 0..partitions {
                let groups = groups_of(partition, partitions);
                assert_eq!(groups.len(), counts[usize::from(partition)] as usize);
                assert!(groups.map(|g| owners[usize::from(g)]).all(|owner| owner == partition));
            }
            let (min, max) = (counts.iter().min(), counts.iter().max());
            assert!(max.zip(min).is_some_and(|(max, min)| max - min <= 1));
        }
    }
}
