//! What a placement comes to: the fate of each item with its reason, the moves in order, the cost.

use super::situation::{ItemIndex, LinkCosts, NodeIndex, Resource};

/// Where everything goes, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// What becomes of each item, in the order of the situation's items.
    pub fates: Vec<Fate>,
    /// What is to be done, in order. After each step, and so after any number of first steps, no
    /// node is over its capacity that was not before.
    pub moves: Vec<Move>,
    /// Traffic between the items as they are now.
    pub before: Traffic,
    /// Traffic when all moves are done.
    pub after: Traffic,
    /// False if the work was cut short: there may be better places, and another call finds them.
    pub is_settled: bool,
}

impl Placement {
    /// The node an item is on when all moves are done, one that is down included; `None` for what
    /// has no place.
    #[must_use]
    pub fn node(&self, item: ItemIndex) -> Option<NodeIndex> {
        match self.fates[item] {
            Fate::Stays { node, .. } | Fate::Unavailable { node } => Some(node),
            Fate::Goes { to, .. } => Some(to),
            Fate::Unplaced { .. } => None,
        }
    }
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays where it is.
    Stays {
        /// The node.
        node: NodeIndex,
        /// Why it does not move.
        why: Staying,
    },
    /// It moves, or begins.
    Goes {
        /// Where it was.
        from: Option<NodeIndex>,
        /// Where it will be.
        to: NodeIndex,
        /// Why.
        why: Going,
    },
    /// Its node is down and its data is there.
    Unavailable {
        /// The node.
        node: NodeIndex,
    },
    /// No node can take it.
    Unplaced {
        /// The node it is on nevertheless, which is no place for it.
        on: Option<NodeIndex>,
        /// Why.
        why: Obstacle,
    },
}

/// Why an item stays. Costs are weighted bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staying {
    /// No other place spares anything.
    Best,
    /// Another place would spare less than a move must.
    NotWorth {
        /// The best other node.
        better: NodeIndex,
        /// What it would spare.
        spares: u64,
        /// What a move would have to spare.
        must_spare: u64,
    },
    /// A better place has no room.
    NoRoom {
        /// The better node.
        better: NodeIndex,
        /// What it would spare.
        spares: u64,
    },
    /// It may not move now.
    Held,
}

/// Why an item goes to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Going {
    /// It ran nowhere.
    New,
    /// It made room.
    MadeRoom {
        /// What its node or host has too little of; none if another item fits nowhere else.
        short: Option<Resource>,
    },
    /// It may not be where it was: another tenant's node, or a label that is gone.
    Forbidden,
    /// Its node is down, and its data is elsewhere.
    NodeDown,
    /// It spares more than it costs, alone or with others of its pipeline.
    Pays {
        /// Weighted bytes a second that it spares, everything else being as it will be.
        spares: u64,
    },
}

/// Why an item has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No node takes its tenant and has its labels.
    NoNode,
    /// It needs more than any node that may take it has, even empty.
    TooLarge {
        /// Of what.
        resource: Resource,
        /// What it needs.
        needs: u64,
        /// The most a node has.
        most: u64,
    },
    /// No node that may take it has room.
    Full,
    /// Where it is it may not be or there is no room, and it may not move now.
    Held,
}

/// A hand-over, or a beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// What moves.
    pub item: ItemIndex,
    /// From where; `None` if it begins.
    pub from: Option<NodeIndex>,
    /// To where.
    pub to: NodeIndex,
    /// From 0. Moves of one step wait for each other's room: all leave before any arrives.
    pub step: u32,
    /// Bytes of state that go with it.
    pub state_bytes: u64,
}

/// Bytes a second by how far they go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Within a node.
    pub in_node: u64,
    /// Between nodes of a host.
    pub in_host: u64,
    /// Between hosts.
    pub network: u64,
}

impl Traffic {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.in_node.saturating_add(self.in_host).saturating_add(self.network)
    }

    /// What it costs.
    #[must_use]
    pub fn cost(&self, links: LinkCosts) -> u128 {
        u128::from(self.in_node) * u128::from(links.node)
            + u128::from(self.in_host) * u128::from(links.host)
            + u128::from(self.network) * u128::from(links.network)
    }
}
