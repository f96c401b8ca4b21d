//! Moves that spare traffic, until there is none left that is worth it.
//!
//! A round first moves what a pipeline has on a node together, then single items; when none of
//! that pays any more, pairs change places (`swap`). Every change taken spares something, so that
//! it ends. A change of what runs must spare its price and a share of what is there to spare; what
//! has no place to leave, or has left it, moves for anything. So the end of one placement is a
//! state in which the next finds nothing to do.

use super::budget::Budget;
use super::classes::Classes;
use super::room::{Amounts, Fill};
use super::seats::{Seats, sum};
use super::touch::{Cost, Touch, price, share};
use super::view::View;

/// Rounds over everything. Most placements take fewer than ten.
const ROUNDS_MAX: usize = 64;

/// Refining of one placement.
pub(super) struct Refinement<'a, 'b> {
    pub(super) view: &'a View<'b>,
    pub(super) classes: &'a Classes,
    pub(super) budget: &'a mut Budget,
}

/// Items on one node that move together.
struct Unit<'a> {
    items: &'a [usize],
    needs: Amounts,
    at: usize,
    /// How full the node they go to may be made.
    fill: Fill,
    /// What moving those of them costs that run where they are.
    price: Cost,
    /// Any of them runs where it is.
    is_home: bool,
}

impl<'a> Unit<'a> {
    fn new(view: &View<'_>, seats: &Seats, items: &'a [usize], at: usize) -> Self {
        let home = || items.iter().filter(|item| seats.is_home(**item));
        let is_home = home().next().is_some();
        Self {
            items,
            needs: sum(items.iter().map(|item| &seats.needs[*item])),
            at,
            fill: if is_home { Fill::Calm } else { Fill::Target },
            price: home().map(|item| price(view, *item)).sum(),
            is_home,
        }
    }

    /// What a move must spare, of what being here costs.
    fn must_spare(&self, view: &View<'_>, here: Cost) -> Cost {
        if self.is_home { self.price + share(view, here) } else { 0 }
    }
}

impl Refinement<'_, '_> {
    /// Changes places as long as it pays. False if it ended before that, for want of budget.
    pub(super) fn run(mut self, seats: &mut Seats) -> bool {
        let mut touch = Touch::new(self.view);
        for _ in 0..ROUNDS_MAX {
            let Some(moved) = self.round(seats, &mut touch) else { return false };
            if !moved {
                return true;
            }
        }
        false
    }

    /// Whether anything changed; `None` if the budget is spent.
    fn round(&mut self, seats: &mut Seats, touch: &mut Touch) -> Option<bool> {
        let together = self.groups(seats, touch)?;
        let alone = self.singles(seats, touch)?;
        if together || alone {
            return Some(true);
        }
        self.swaps(seats, touch)
    }

    /// All that a pipeline has on a node, together; but for what has no traffic, whose move would
    /// spare nothing.
    fn groups(&mut self, seats: &mut Seats, touch: &mut Touch) -> Option<bool> {
        let view = self.view;
        let mut members: Vec<(usize, usize, usize)> = (0..view.items.len())
            .filter(|item| seats.is_free(*item))
            .filter(|item| !view.ties.row(*item).is_empty() || !view.anchors.row(*item).is_empty())
            .filter_map(|item| seats.at[item].map(|node| (view.pipeline[item], node, item)))
            .collect();
        members.sort_unstable();
        let mut moved = false;
        for group in members.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            if group.len() < 2 {
                continue;
            }
            let items: Vec<usize> = group.iter().map(|member| member.2).collect();
            // Not all that is on the node by now: an earlier group of this pass may have come here,
            // and it does not come along.
            let is_inside = |other: usize| items.binary_search(&other).is_ok();
            let looks = touch.read_all(view, &seats.at, &items, is_inside);
            moved |= self.improve(seats, touch, &items, looks)?;
        }
        Some(moved)
    }

    /// Items one by one, those first that spare most.
    fn singles(&mut self, seats: &mut Seats, touch: &mut Touch) -> Option<bool> {
        let mut order: Vec<(Cost, usize)> = Vec::new();
        for item in (0..self.view.items.len()).filter(|item| seats.is_free(*item)) {
            let looks = touch.read(self.view, &seats.at, item);
            if let Some((spares, _)) = self.best(seats, touch, &[item], looks)? {
                order.push((spares, item));
            }
        }
        order.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut moved = false;
        for (_, item) in order {
            let looks = touch.read(self.view, &seats.at, item);
            moved |= self.improve(seats, touch, &[item], looks)?;
        }
        Some(moved)
    }

    /// Moves items whose traffic was read to where they spare most, if that is worth it.
    fn improve(
        &mut self,
        seats: &mut Seats,
        touch: &Touch,
        items: &[usize],
        looks: usize,
    ) -> Option<bool> {
        let best = self.best(seats, touch, items, looks)?;
        if let Some((_, node)) = best {
            items.iter().for_each(|item| seats.shift(*item, node));
        }
        Some(best.is_some())
    }

    /// The node with room where they spare most, and what; `None` inside if none is worth it.
    fn best(
        &mut self,
        seats: &Seats,
        touch: &Touch,
        items: &[usize],
        looks: usize,
    ) -> Option<Option<(Cost, usize)>> {
        let (view, classes) = (self.view, self.classes);
        let Some(at) = items.first().and_then(|item| seats.at[*item]) else { return Some(None) };
        let unit = Unit::new(view, seats, items, at);
        let here = touch.cost(view, at);
        let must_spare = unit.must_spare(view, here);
        let (mut best, mut tried) = (None, 0);
        for node in touch.near(view) {
            tried += 1;
            let spares = here.saturating_sub(touch.cost(view, node));
            let is_better = match best {
                None => spares > must_spare,
                Some((most, known)) => spares > most || (spares == most && node < known),
            };
            let fits = |unit: &Unit<'_>| {
                let may = |item: &usize| classes.allows(view.class[*item], view.nodes[node]);
                unit.items.iter().all(may)
                    && seats.room.fits_from(node, &unit.needs, Some(unit.at), unit.fill)
            };
            if is_better && node != at && fits(&unit) {
                best = Some((spares, node));
            }
        }
        self.budget.spend(looks + tried).then_some(best)
    }
}
