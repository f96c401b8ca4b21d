//! Who is where while a placement is made: the one thing all its parts change.

use super::room::{Amounts, Fill, Room};
use super::view::View;

/// Where items are now and where they were, by rank.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    /// The node each item is to be on.
    pub(super) at: Vec<Option<usize>>,
    /// The node each item runs on, up or down.
    pub(super) origin: Vec<Option<usize>>,
    /// Items that may not be touched.
    pub(super) is_held: Vec<bool>,
    /// Items that are where they run, though it is no place for them.
    pub(super) is_stuck: Vec<bool>,
    /// The items on each node, in order.
    pub(super) on: Vec<Vec<usize>>,
    pub(super) room: Room,
    pub(super) needs: Vec<Amounts>,
}

impl Seats {
    /// Nobody has a place yet.
    pub(super) fn new(view: &View<'_>) -> Self {
        let items = 0..view.items.len();
        let needs = |rank| view.item(rank).needs.amounts().map(u128::from);
        let origin = |rank| view.item(rank).now.map(|now| view.node_ranks[now.node]);
        Self {
            at: vec![None; view.items.len()],
            origin: items.clone().map(origin).collect(),
            is_held: vec![false; view.items.len()],
            is_stuck: vec![false; view.items.len()],
            on: vec![Vec::new(); view.nodes.len()],
            room: Room::new(view),
            needs: items.map(needs).collect(),
        }
    }

    /// Where everything runs that runs.
    pub(super) fn at_origin(&self) -> Vec<Option<usize>> {
        self.origin.clone()
    }

    /// Gives an item without a place one.
    pub(super) fn sit(&mut self, item: usize, node: usize) {
        debug_assert!(self.at[item].is_none(), "an item has one place");
        self.at[item] = Some(node);
        self.room.add(node, &self.needs[item]);
        if let Err(place) = self.on[node].binary_search(&item) {
            self.on[node].insert(place, item);
        }
    }

    /// Takes an item's place away.
    pub(super) fn leave(&mut self, item: usize) {
        let Some(node) = self.at[item].take() else { return };
        self.room.take(node, &self.needs[item]);
        if let Ok(place) = self.on[node].binary_search(&item) {
            self.on[node].remove(place);
        }
    }

    /// Gives an item another place.
    pub(super) fn shift(&mut self, item: usize, node: usize) {
        self.leave(item);
        self.sit(item, node);
    }

    /// True if it is where it runs, so that moving it has a price.
    pub(super) fn is_home(&self, item: usize) -> bool {
        self.at[item].is_some() && self.at[item] == self.origin[item]
    }

    /// True if it has a place that may be changed.
    pub(super) fn is_free(&self, item: usize) -> bool {
        self.at[item].is_some() && !self.is_held[item]
    }

    /// How full a node may be made by moving this item to spare something.
    pub(super) fn fill_for(&self, item: usize) -> Fill {
        if self.is_home(item) { Fill::Calm } else { Fill::Target }
    }
}

/// What several items need together.
pub(super) fn sum<'a>(needs: impl Iterator<Item = &'a Amounts>) -> Amounts {
    needs.fold([0; 3], |sum, needs| [0, 1, 2].map(|at| sum[at] + needs[at]))
}
