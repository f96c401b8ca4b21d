//! Clusters onto nodes: whole if any node has room, else split where they were joined last.
//!
//! What few nodes can take comes first, then what is large. A cluster goes where its traffic costs
//! least with what is placed already; where that is equal, to the host and the node with the most
//! left, and not to a node with devices it does not need. Capacity is checked, never assumed. What
//! fits nowhere even alone is left to `squeeze`.

use std::cmp::Reverse;

use super::classes::{Class, Classes};
use super::cluster::Forest;
use super::room::{Amounts, Fill};
use super::seats::Seats;
use super::touch::{Cost, Touch};
use super::view::View;

/// Gives the items of a forest their places.
pub(super) fn pack(view: &View<'_>, classes: &Classes, seats: &mut Seats, forest: &Forest) {
    let mut roots = forest.roots.clone();
    roots.sort_by_key(|root| {
        let tree = &forest.trees[*root];
        (tree.needs[2] == 0, classes.breadth(tree.class), Reverse(tree.size))
    });
    let mut touch = Touch::new(view);
    for root in roots {
        let mut open = vec![root];
        while let Some(at) = open.pop() {
            let tree = &forest.trees[at];
            let wants = Wants { class: tree.class, needs: &tree.needs, fill: Fill::Target };
            if !wants.any(view, classes, seats) {
                let mut children = tree.children.clone();
                children.sort_by_key(|child| (forest.trees[*child].size, Reverse(*child)));
                open.append(&mut children);
                continue;
            }
            let items = forest.items(at);
            // Members have no place yet, so that what they send each other is not read.
            touch.read_all(view, &seats.at, &items, |_| false);
            if let Some(node) = wants.best(view, classes, seats, &touch) {
                items.into_iter().for_each(|item| seats.sit(item, node));
            }
        }
    }
}

/// What looks for a node.
pub(super) struct Wants<'a> {
    pub(super) class: Class,
    pub(super) needs: &'a Amounts,
    pub(super) fill: Fill,
}

impl Wants<'_> {
    fn nodes<'v>(
        &'v self,
        view: &'v View<'_>,
        classes: &'v Classes,
        seats: &'v Seats,
    ) -> impl Iterator<Item = usize> + 'v {
        (0..view.nodes.len()).filter(|node| {
            classes.allows(self.class, view.nodes[*node])
                && seats.room.fits(*node, self.needs, self.fill)
        })
    }

    /// True if there is a node with room.
    pub(super) fn any(&self, view: &View<'_>, classes: &Classes, seats: &Seats) -> bool {
        self.nodes(view, classes, seats).next().is_some()
    }

    /// The node with room where the traffic that was read costs least.
    pub(super) fn best(
        &self,
        view: &View<'_>,
        classes: &Classes,
        seats: &Seats,
        touch: &Touch,
    ) -> Option<usize> {
        let key = |node: &usize| -> (Cost, bool, (u128, u128)) {
            let wastes = self.needs[2] == 0 && view.node(*node).capacity.gpu_milli > 0;
            (touch.cost(view, *node), wastes, seats.room.fullness_with(*node, self.needs))
        };
        self.nodes(view, classes, seats).min_by_key(key)
    }
}
