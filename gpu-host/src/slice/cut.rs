//! Cuts the next piece off a dispatch: a box of workgroups, since a box is what a device runs.
//!
//! Pieces go along the slowest axis, and fill each axis before the next: whole planes while a
//! plane fits, else whole rows of one plane, else part of one row. All pieces of a dispatch
//! together are each of its groups once. What is left of an axis is cut evenly, so that no sliver
//! comes last.

/// The first group of a piece, and how many there are on each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) from: [u32; 3],
    pub(super) groups: [u32; 3],
}

impl Cut {
    /// Groups in all.
    pub(super) fn count(&self) -> u64 {
        self.groups.iter().map(|axis| u64::from(*axis)).product()
    }
}

/// Groups of a grid, if they can be counted.
pub(super) fn count(grid: [u32; 3]) -> Option<u64> {
    grid.iter().try_fold(1_u64, |count, axis| count.checked_mul(u64::from(*axis)))
}

/// The piece behind the first `done` groups, of at least 1 group and at most `groups_max`. The
/// grid has more groups than `done`, and no axis of 0.
pub(super) fn cut(grid: [u32; 3], done: u64, groups_max: u64) -> Cut {
    let [width, height, depth] = grid.map(u64::from);
    let groups_max = groups_max.max(1);
    let (x, row) = (done % width, done / width);
    let (y, z) = (row % height, row / height);
    let fits_row = x == 0 && groups_max >= width;
    let fits_plane = fits_row && y == 0 && groups_max / width >= height;
    let groups = if fits_plane {
        [width, height, evenly(depth - z, groups_max / width / height)]
    } else if fits_row {
        [width, evenly(height - y, groups_max / width), 1]
    } else {
        [evenly(width - x, groups_max), 1, 1]
    };
    // Each is at most an axis of the grid.
    Cut { from: [x, y, z].map(|at| at as u32), groups: groups.map(|count| count as u32) }
}

/// The first of as few parts as there can be of at most `most` each, all about as large.
const fn evenly(rest: u64, most: u64) -> u64 {
    rest.div_ceil(rest.div_ceil(most))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_axis_is_cut_evenly() {
        let groups = |done| cut([61, 1, 1], done, 60).groups;
        assert_eq!([groups(0), groups(31)], [[31, 1, 1], [30, 1, 1]]);
        assert_eq!(cut([4, 4, 4], 0, 33).groups, [4, 4, 2]);
        assert_eq!(cut([4, 4, 4], 0, 15).groups, [4, 2, 1]);
        assert_eq!(cut([u32::MAX, 1, 1], 5, u64::MAX).groups, [u32::MAX - 5, 1, 1]);
    }

    #[test]
    fn what_cannot_be_counted_is_none() {
        assert_eq!(count([u32::MAX, u32::MAX, 1]), Some(u64::from(u32::MAX).pow(2)));
        assert_eq!(count([u32::MAX, u32::MAX, 2]), None);
    }

    proptest! {
        #[test]
        fn pieces_are_each_group_once_in_order(
            grid in prop::array::uniform3(1_u32..9),
            sizes in prop::collection::vec(0_u64..200, 1..8),
        ) {
            let total = count(grid).unwrap();
            let mut seen = Vec::new();
            for size in sizes.iter().cycle() {
                if seen.len() as u64 == total {
                    break;
                }
                let piece = cut(grid, seen.len() as u64, *size);
                prop_assert!((1..=(*size).max(1)).contains(&piece.count()));
                for z in 0..piece.groups[2] {
                    for y in 0..piece.groups[1] {
                        for x in 0..piece.groups[0] {
                            let at = [x + piece.from[0], y + piece.from[1], z + piece.from[2]];
                            seen.push((at[2] * grid[1] + at[1]) * grid[0] + at[0]);
                        }
                    }
                }
            }
            prop_assert_eq!(seen, (0..total as u32).collect::<Vec<_>>());
        }
    }
}
