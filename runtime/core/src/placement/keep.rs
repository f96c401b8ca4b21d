//! What stays where it runs before anything is improved, and what has to leave.
//!
//! Everything begins where it is. Where a node or host is over its capacity, items leave until it
//! is filled to the target again, so that it is not over the next time a rate rises by a little;
//! those leave first that lose least. What may not be where it is leaves too. What finds no place
//! stays where it is and takes its room there: it is said to have no place, and nobody moves in.

use super::answer::Going;
use super::classes::Classes;
use super::pack::Wants;
use super::room::Fill;
use super::seats::Seats;
use super::situation::Resource;
use super::touch::{Cost, Touch, price};
use super::view::View;

/// Why items left, by rank; `None` for those that did not have to.
pub(super) type Left = Vec<Option<Going>>;

/// Gives each item the place where it runs, if it can run there.
pub(super) fn keep(view: &View<'_>, seats: &mut Seats) -> Left {
    let mut left: Left = vec![None; view.items.len()];
    for (item, left) in left.iter_mut().enumerate() {
        let (Some(now), Some(node)) = (view.item(item).now, seats.origin[item]) else { continue };
        let is_up = view.node(node).is_up;
        if !is_up && now.is_copied {
            *left = Some(Going::NodeDown);
            continue;
        }
        seats.is_held[item] = !is_up || !now.may_move;
        seats.sit(item, node);
    }
    left
}

/// Moves what has to leave. True if anything did.
pub(super) fn relieve(
    view: &View<'_>,
    classes: &Classes,
    seats: &mut Seats,
    left: &mut Left,
) -> bool {
    let mut leaving = Leaving { view, classes, touch: Touch::new(view), left };
    let mut moved = leaving.forbidden(seats);
    for node in (0..view.nodes.len()).filter(|node| view.node(*node).is_up) {
        if is_over(seats, node, Fill::All) {
            moved |= leaving.surplus(seats, node);
        }
    }
    moved
}

/// Marks what is no place for whom it has: not allowed there, or more than the capacity.
pub(super) fn mark_stuck(view: &View<'_>, classes: &Classes, seats: &mut Seats) {
    let mut spare = seats.room.clone();
    for surplus in [false, true] {
        for item in (0..view.items.len()).rev() {
            let Some(node) = seats.at[item].filter(|_| !seats.is_stuck[item]) else { continue };
            let over = spare.over(node, Fill::All);
            let is_stuck = if surplus {
                (0..3).any(|of| over[of] && seats.needs[item][of] > 0)
            } else {
                !classes.allows(view.class[item], view.nodes[node])
            };
            if is_stuck {
                seats.is_stuck[item] = true;
                spare.take(node, &seats.needs[item]);
            }
        }
    }
}

fn is_over(seats: &Seats, node: usize, fill: Fill) -> bool {
    seats.room.over(node, fill).contains(&true)
}

struct Leaving<'a, 'b> {
    view: &'a View<'b>,
    classes: &'a Classes,
    touch: Touch,
    left: &'a mut Left,
}

impl Leaving<'_, '_> {
    /// What may not be where it is.
    fn forbidden(&mut self, seats: &mut Seats) -> bool {
        let mut moved = false;
        for item in 0..self.view.items.len() {
            let Some(node) = seats.at[item].filter(|_| seats.is_free(item)) else { continue };
            if self.classes.allows(self.view.class[item], self.view.nodes[node]) {
                continue;
            }
            if self.go(seats, item, &[Fill::Target, Fill::All]) {
                self.left[item] = Some(Going::Forbidden);
                moved = true;
            }
        }
        moved
    }

    /// What is too much for a node or its host. Of a host, the items of all its nodes may leave.
    fn surplus(&mut self, seats: &mut Seats, node: usize) -> bool {
        let siblings = &self.view.nodes_of[self.view.host_of[node]];
        let on = siblings.iter().flat_map(|sibling| seats.on[*sibling].iter().copied());
        let free: Vec<usize> = on.filter(|item| seats.is_free(*item)).collect();
        let mut order: Vec<(Cost, usize)> =
            free.into_iter().map(|item| (self.loss(seats, item), item)).collect();
        order.sort_unstable();
        let mut moved = false;
        for (_, item) in order {
            let Some(at) = seats.at[item] else { continue };
            let must = is_over(seats, at, Fill::All);
            let over = seats.room.over(at, if must { Fill::All } else { Fill::Target });
            let short = (0..3).find(|of| over[*of] && seats.needs[item][*of] > 0);
            let fills: &[Fill] = if must { &[Fill::Target, Fill::All] } else { &[Fill::Target] };
            if short.is_some() && (must || at == node) && self.go(seats, item, fills) {
                let short = short.map(|of| Resource::ALL[of]);
                self.left[item] = Some(Going::MadeRoom { short });
                moved = true;
            }
        }
        moved
    }

    /// Moves an item to the best node with room, filled as little as possible.
    fn go(&mut self, seats: &mut Seats, item: usize, fills: &[Fill]) -> bool {
        let (view, needs) = (self.view, seats.needs[item]);
        let Some(at) = seats.at[item] else { return false };
        seats.leave(item);
        self.touch.read(view, &seats.at, item);
        let target = fills.iter().find_map(|fill| {
            let wants = Wants { class: view.class[item], needs: &needs, fill: *fill };
            wants.best(view, self.classes, seats, &self.touch)
        });
        seats.sit(item, target.unwrap_or(at));
        target.is_some_and(|target| target != at)
    }

    /// What an item loses by leaving, at worst.
    fn loss(&mut self, seats: &Seats, item: usize) -> Cost {
        self.touch.read(self.view, &seats.at, item);
        let here = seats.at[item].map_or(0, |node| self.touch.cost(self.view, node));
        self.touch.cost_far() - here + price(self.view, item)
    }
}
