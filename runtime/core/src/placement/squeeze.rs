//! What found no room up to the target: into what is left up to the capacity, or into the place of
//! items that can go elsewhere.

use std::cmp::Reverse;

use super::budget::Budget;
use super::classes::Classes;
use super::pack::Wants;
use super::room::Fill;
use super::seats::Seats;
use super::touch::Touch;
use super::view::View;

/// Nodes on which others are asked to make way for one item.
const NODES_ASKED_MAX: usize = 16;

/// Items that make way for one.
const MAKING_WAY_MAX: usize = 16;

/// Items in a pass for which nobody could make way, after which nobody is asked any more: where
/// that many ask in vain the fleet is full, and asking is dear.
const IN_VAIN_MAX: usize = 16;

/// Gives places to items that have none. True if one was found.
pub(super) fn squeeze(
    view: &View<'_>,
    classes: &Classes,
    seats: &mut Seats,
    budget: &mut Budget,
) -> bool {
    let mut homeless: Vec<usize> =
        (0..view.items.len()).filter(|item| seats.at[*item].is_none()).collect();
    homeless.sort_by_key(|item| {
        let needs = seats.needs[*item];
        (needs[2] == 0, classes.breadth(view.class[*item]), Reverse(needs))
    });
    let mut touch = Touch::new(view);
    let (mut found, mut in_vain) = (false, 0);
    for item in homeless {
        if !budget.spend(view.nodes.len()) {
            break;
        }
        touch.read(view, &seats.at, item);
        let needs = seats.needs[item];
        let wants = Wants { class: view.class[item], needs: &needs, fill: Fill::All };
        if let Some(node) = wants.best(view, classes, seats, &touch) {
            seats.sit(item, node);
            found = true;
        } else if in_vain < IN_VAIN_MAX {
            let made = Way { view, classes, budget }.make(seats, item);
            found |= made;
            in_vain += usize::from(!made);
        }
    }
    found
}

/// Making way for an item.
struct Way<'a, 'b> {
    view: &'a View<'b>,
    classes: &'a Classes,
    budget: &'a mut Budget,
}

impl Way<'_, '_> {
    /// Places the item where others can go elsewhere; true if there is such a node.
    fn make(&mut self, seats: &mut Seats, item: usize) -> bool {
        let needs = seats.needs[item];
        let is_large_enough = |node: &usize| {
            let allows = self.classes.allows(self.view.class[item], self.view.nodes[*node]);
            allows && (0..3).all(|at| needs[at] <= seats.room.most(*node, at))
        };
        let mut nodes: Vec<usize> = (0..self.view.nodes.len()).filter(is_large_enough).collect();
        nodes.sort_by_key(|node| seats.room.fullness_with(*node, &needs));
        nodes.truncate(NODES_ASKED_MAX);
        nodes.into_iter().any(|node| self.make_on(seats, item, node))
    }

    fn make_on(&mut self, seats: &mut Seats, item: usize, node: usize) -> bool {
        let needs = seats.needs[item];
        let mut gone: Vec<usize> = Vec::new();
        // Those first that need least of what the item needs besides: they find room elsewhere.
        // Not by who runs here already: the next placement, to which all do, would ask in another
        // order and might find what this one did not.
        let mut others: Vec<usize> =
            seats.on[node].iter().copied().filter(|other| seats.is_free(*other)).collect();
        others.sort_by_key(|other| (seats.needs[*other][2], *other));
        for other in others {
            if seats.room.fits(node, &needs, Fill::All) || gone.len() == MAKING_WAY_MAX {
                break;
            }
            if !self.budget.spend(self.view.nodes.len()) {
                break;
            }
            let theirs = seats.needs[other];
            let class = self.view.class[other];
            let target = (0..self.view.nodes.len()).find(|to| {
                *to != node
                    && self.classes.allows(class, self.view.nodes[*to])
                    && seats.room.fits_from(*to, &theirs, Some(node), Fill::All)
            });
            if let Some(target) = target {
                seats.shift(other, target);
                gone.push(other);
            }
        }
        if seats.room.fits(node, &needs, Fill::All) {
            seats.sit(item, node);
            return true;
        }
        gone.into_iter().for_each(|other| seats.shift(other, node));
        false
    }
}
