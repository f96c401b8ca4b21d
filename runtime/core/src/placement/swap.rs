//! Pairs that change places: for items whose better place has no room.

use std::cmp::Reverse;

use super::refine::Refinement;
use super::room::Fill;
use super::seats::Seats;
use super::touch::{Cost, Touch, price, share};

/// Items of a full node that are asked to change places with one. Most of the time of a placement
/// goes into asking.
const ASKED_MAX: usize = 32;

/// How many times more than two moves an exchange of what runs must spare: not all were asked, and
/// whom noise makes ask others should not find that worth it.
const DEARER: Cost = 2;

/// An item that would rather be elsewhere.
struct Seeker {
    item: usize,
    at: usize,
    /// What it would spare on the node where it would spare most.
    spares: Cost,
    must_spare: Cost,
}

impl Refinement<'_, '_> {
    /// Goes once through all items. Whether anything changed; `None` if the budget is spent.
    pub(super) fn swaps(&mut self, seats: &mut Seats, touch: &mut Touch) -> Option<bool> {
        let mut moved = false;
        let mut theirs = Touch::new(self.view);
        for item in 0..self.view.items.len() {
            let Some(at) = seats.at[item].filter(|_| seats.is_free(item)) else { continue };
            let looks = touch.read(self.view, &seats.at, item);
            let here = touch.cost(self.view, at);
            let mut tried = 0;
            let best = touch
                .near(self.view)
                .inspect(|_| tried += 1)
                .filter(|node| self.classes.allows(self.view.class[item], self.view.nodes[*node]))
                .map(|node| (Reverse(here.saturating_sub(touch.cost(self.view, node))), node))
                .filter(|(spares, node)| spares.0 > 0 && *node != at)
                .min();
            if !self.budget.spend(looks + tried) {
                return None;
            }
            let Some((Reverse(spares), node)) = best else { continue };
            let seeker =
                Seeker { item, at, spares, must_spare: self.must_spare(seats, item, here) };
            if let Some(other) = self.partner(seats, &seeker, node, &mut theirs)? {
                seats.leave(item);
                seats.shift(other, at);
                seats.sit(item, node);
                moved = true;
            }
        }
        Some(moved)
    }

    /// Who on the node is best to change places with; `None` inside if that is not worth it.
    fn partner(
        &mut self,
        seats: &Seats,
        seeker: &Seeker,
        node: usize,
        touch: &mut Touch,
    ) -> Option<Option<usize>> {
        let view = self.view;
        let mut best: Option<(Cost, usize)> = None;
        for other in seats.on[node].iter().take(ASKED_MAX).copied() {
            let is_home = seats.is_home(other) || seats.is_home(seeker.item);
            let fill = if is_home { Fill::Calm } else { Fill::Target };
            let [comes, leaves] = [seeker.item, other].map(|item| &seats.needs[item]);
            let may = seats.is_free(other)
                && self.classes.allows(view.class[other], view.nodes[seeker.at])
                && seats.room.fits_exchange([seeker.at, node], comes, leaves, fill);
            if !may {
                continue;
            }
            let looks = touch.read(view, &seats.at, other);
            if !self.budget.spend(looks) {
                return None;
            }
            let (here, there) = (touch.cost(view, node), touch.cost(view, seeker.at));
            let between = view.ties.between(seeker.item, other);
            let between = touch.cost_of_exchange(view, [seeker.at, node], between);
            let must_spare = DEARER * (seeker.must_spare + self.must_spare(seats, other, here));
            let spares = (seeker.spares + here).checked_sub(there + between);
            let worth = spares.filter(|spares| *spares > must_spare);
            if let Some(spares) = worth.filter(|spares| best.is_none_or(|(most, _)| *spares > most))
            {
                best = Some((spares, other));
            }
        }
        Some(best.map(|(_, other)| other))
    }

    fn must_spare(&self, seats: &Seats, item: usize, here: Cost) -> Cost {
        if seats.is_home(item) { price(self.view, item) + share(self.view, here) } else { 0 }
    }
}
