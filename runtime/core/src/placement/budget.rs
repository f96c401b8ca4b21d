//! How much may be looked at for one placement.

use super::view::View;

/// Looks for each tie, item and node there is. Ten passes over everything take a tenth of them.
const LOOKS_EACH: u64 = 200;

/// Looks there are for the smallest fleet: some milliseconds. Who asks whom to make way for what
/// grows faster than a small fleet does.
const LOOKS_MIN: u64 = 1_000_000;

/// Looks that are left. One is a tie read or a place tried.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    pub(super) fn for_view(view: &View<'_>) -> Self {
        let size = view.items.len() + view.ties.len() + view.nodes.len();
        Self { left: (size as u64).saturating_mul(LOOKS_EACH).max(LOOKS_MIN) }
    }

    /// Spends so many; false if there were not as many.
    pub(super) const fn spend(&mut self, looks: usize) -> bool {
        let looks = looks as u64;
        if looks > self.left {
            self.left = 0;
            return false;
        }
        self.left -= looks;
        true
    }

    /// Something asked for more than there was.
    pub(super) const fn is_spent(&self) -> bool {
        self.left == 0
    }
}
