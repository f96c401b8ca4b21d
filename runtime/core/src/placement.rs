//! Where each partition goes: a pure function from live rates, nodes and needs to an assignment.
//!
//! ```text
//! Situation ─► view ─► keep ─► cluster ─► pack ─► refine ─► Placement
//!              (one    (what   (heavy     (whole  (moves,   (fates with reasons,
//!              order)  stays)  edges)     first)  swaps)    steps in order)
//! ```
//!
//! Keeps true:
//! - No node and no host is given more than its capacity. What cannot stay is moved, or said to be
//!   without a place.
//! - A partition of a tenant that is isolated by process is only on nodes bound to that tenant.
//! - A partition on a node that is down stays where its data is, unless the data is elsewhere too.
//! - A partition that runs moves only if that spares more than the move costs and a share of what
//!   is there to spare: equal inputs, and rates a little different, move nothing.
//! - The order of hosts, nodes, items and edges in the input changes nothing. Integers only.
//! - The work is bounded (`budget`); what was found until then is a valid answer.
//!
//! The method: clustering by heavy edges and refinement on the way back are those of multilevel
//! graph partitioning (Karypis and Kumar 1998); gains of moves and exchanges are those of Kernighan
//! and Lin (1970) and Fiduccia and Mattheyses (1982). See ADR 0035.
//!
//! Leaves to the node: measuring rates and smoothing them, carrying moves out by hand-over, and
//! how many of them at a time: any number of first steps of a placement is safe.

mod answer;
mod budget;
mod classes;
mod cluster;
mod explain;
mod keep;
mod order;
mod pack;
mod reasons;
mod refine;
mod room;
mod seats;
mod situation;
mod squeeze;
mod swap;
mod touch;
mod view;

pub use answer::{Fate, Going, Move, Obstacle, Placement, Staying, Traffic};
pub use explain::Explained;
pub use situation::{
    Edge, Front, Host, HostIndex, Item, ItemIndex, LinkCosts, Node, NodeIndex, Now, Policy,
    Resource, Resources, Situation,
};

use budget::Budget;
use classes::Classes;
use refine::Refinement;
use seats::Seats;
use view::View;

/// Rounds of refining and of trying once more what had no room; each round places something new.
const ROUNDS_MAX: usize = 4;

/// Decides where each item of a situation goes.
///
/// # Panics
/// If an index in the situation points at nothing, or two hosts, nodes or items have one name: the
/// caller makes both from its own tables.
#[must_use]
pub fn place(situation: &Situation) -> Placement {
    let mut classes = Classes::of(situation);
    let view = View::of(situation, &classes);
    let mut seats = Seats::new(&view);
    // Each its own: many without a place must not leave nothing to refine what has one.
    let [mut squeezing, mut refining] = [Budget::for_view(&view), Budget::for_view(&view)];
    let before = reasons::traffic(&view, &seats.at_origin());

    let mut left = keep::keep(&view, &mut seats);
    keep::relieve(&view, &classes, &mut seats, &mut left);
    let forest = cluster::cluster(&view, &mut classes, &seats);
    pack::pack(&view, &classes, &mut seats, &forest);
    squeeze::squeeze(&view, &classes, &mut seats, &mut squeezing);
    let mut is_settled = false;
    for _ in 0..ROUNDS_MAX {
        let refinement = Refinement { view: &view, classes: &classes, budget: &mut refining };
        is_settled = refinement.run(&mut seats);
        let mut found = keep::relieve(&view, &classes, &mut seats, &mut left);
        found |= squeeze::squeeze(&view, &classes, &mut seats, &mut squeezing);
        if !found {
            break;
        }
        is_settled = false;
    }
    keep::mark_stuck(&view, &classes, &mut seats);
    let mut placement = reasons::give(&view, &classes, &seats, &left);
    placement.before = before;
    placement.is_settled = is_settled && !squeezing.is_spent();
    placement.moves = order::order(&view, &seats, &placement.fates);
    placement
}

#[cfg(test)]
mod tests;
