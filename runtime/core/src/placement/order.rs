//! In which order moves are made, so that no node is over its capacity on the way.
//!
//! What must go comes first, then what begins, then what spares most. A move is made when its
//! target has room. Moves that wait for each other's room are one step: all leave before any
//! arrives, which is how a hand-over of each goes anyway.

use std::cmp::Reverse;

use super::answer::{Fate, Going, Move};
use super::room::{Fill, Room};
use super::seats::Seats;
use super::view::View;

/// Times the list of what is left is gone through before the rest becomes one step.
const SCANS_MAX: usize = 64;

/// The moves that lead to the fates, in order.
pub(super) fn order(view: &View<'_>, seats: &Seats, fates: &[Fate]) -> Vec<Move> {
    let mut left: Vec<(u8, Reverse<u64>, usize)> = Vec::new();
    let mut room = Room::new(view);
    for item in 0..view.items.len() {
        match fates[view.items[item]] {
            Fate::Goes { why, .. } => left.push(rank(why, item)),
            // What has no place and runs takes room all the same.
            Fate::Unplaced { on: None, .. } => continue,
            _ => {}
        }
        let runs_on = seats.origin[item].filter(|node| view.node(*node).is_up);
        runs_on.into_iter().for_each(|node| room.add(node, &seats.needs[item]));
    }
    left.sort_unstable();
    let mut steps = Steps { view, seats, room, moves: Vec::new(), step: 0 };
    for _ in 0..SCANS_MAX {
        let before = left.len();
        left.retain(|(.., item)| !steps.make(*item));
        if left.is_empty() || left.len() == before {
            break;
        }
    }
    left.into_iter().for_each(|(.., item)| steps.push(item));
    steps.moves
}

fn rank(why: Going, item: usize) -> (u8, Reverse<u64>, usize) {
    match why {
        Going::MadeRoom { .. } | Going::Forbidden | Going::NodeDown => (0, Reverse(0), item),
        Going::New => (1, Reverse(0), item),
        Going::Pays { spares } => (2, Reverse(spares), item),
    }
}

struct Steps<'a> {
    view: &'a View<'a>,
    seats: &'a Seats,
    room: Room,
    moves: Vec<Move>,
    step: u32,
}

impl Steps<'_> {
    /// Makes a move if there is room for it now.
    fn make(&mut self, item: usize) -> bool {
        let Some(to) = self.seats.at[item] else { return true };
        let from = self.from(item);
        let fits = self.room.fits_from(to, &self.seats.needs[item], from, Fill::All);
        if fits {
            self.push(item);
            from.into_iter().for_each(|from| self.room.take(from, &self.seats.needs[item]));
            self.room.add(to, &self.seats.needs[item]);
            self.step += 1;
        }
        fits
    }

    /// Where it runs: on a node that is up.
    fn from(&self, item: usize) -> Option<usize> {
        self.seats.origin[item].filter(|node| self.view.node(*node).is_up)
    }

    fn push(&mut self, item: usize) {
        let Some(to) = self.seats.at[item] else { return };
        let nodes = &self.view.nodes;
        self.moves.push(Move {
            item: self.view.items[item],
            from: self.seats.origin[item].map(|from| nodes[from]),
            to: nodes[to],
            step: self.step,
            state_bytes: self.view.item(item).now.map_or(0, |now| now.state_bytes),
        });
    }
}
