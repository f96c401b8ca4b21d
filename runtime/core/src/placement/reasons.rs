//! What everything came to, with a reason for each item.

use super::answer::{Fate, Going, Obstacle, Placement, Staying, Traffic};
use super::classes::Classes;
use super::keep::Left;
use super::seats::Seats;
use super::situation::Resource;
use super::touch::{Cost, Touch, price, share};
use super::view::View;

/// The fates of all items, and the traffic there will be.
pub(super) fn give(view: &View<'_>, classes: &Classes, seats: &Seats, left: &Left) -> Placement {
    let mut touch = Touch::new(view);
    let unplaced = Fate::Unplaced { on: None, why: Obstacle::NoNode };
    let mut fates = vec![unplaced; view.items.len()];
    for item in 0..view.items.len() {
        let reasons = Reasons { view, classes, seats, item };
        fates[view.items[item]] = match seats.at[item] {
            None => Fate::Unplaced { on: None, why: reasons.obstacle() },
            Some(node) if seats.is_stuck[item] => reasons.stuck(node),
            Some(node) => reasons.placed(node, left[item], &mut touch),
        };
    }
    Placement { fates, after: traffic(view, &seats.at), ..Placement::default() }
}

/// How far what the items send each other goes, as far as both ends are somewhere.
pub(super) fn traffic(view: &View<'_>, at: &[Option<usize>]) -> Traffic {
    let mut traffic = Traffic::default();
    let mut add = |a: usize, b: usize, bytes: u64| {
        let sum = if a == b {
            &mut traffic.in_node
        } else if view.host_of[a] == view.host_of[b] {
            &mut traffic.in_host
        } else {
            &mut traffic.network
        };
        *sum = sum.saturating_add(bytes);
    };
    for item in 0..view.items.len() {
        let Some(node) = at[item] else { continue };
        for (other, bytes) in view.ties.row(item).iter().filter(|(other, _)| *other > item) {
            if let Some(to) = at[*other] {
                add(node, to, *bytes);
            }
        }
        view.anchors.row(item).iter().for_each(|(to, bytes)| add(node, *to, *bytes));
    }
    traffic
}

struct Reasons<'a> {
    view: &'a View<'a>,
    classes: &'a Classes,
    seats: &'a Seats,
    item: usize,
}

impl Reasons<'_> {
    fn placed(&self, node: usize, left: Option<Going>, touch: &mut Touch) -> Fate {
        let (view, item) = (self.view, self.item);
        touch.read(view, &self.seats.at, item);
        let origin = self.seats.origin[item];
        let to = view.nodes[node];
        if origin == Some(node) {
            return Fate::Stays { node: to, why: self.staying(node, touch) };
        }
        let spared = |origin| touch.cost(view, origin).checked_sub(touch.cost(view, node));
        let why = match (origin, left) {
            (None, _) => Going::New,
            (_, Some(why)) => why,
            (Some(origin), None) => match spared(origin) {
                Some(spares) if spares > 0 => Going::Pays { spares: shown(spares) },
                _ => Going::MadeRoom { short: None },
            },
        };
        Fate::Goes { from: origin.map(|origin| view.nodes[origin]), to, why }
    }

    fn staying(&self, at: usize, touch: &Touch) -> Staying {
        let (view, seats, item) = (self.view, self.seats, self.item);
        if seats.is_held[item] {
            return Staying::Held;
        }
        let here = touch.cost(view, at);
        let mut best: [Option<(Cost, usize)>; 2] = [None; 2];
        for node in touch.near(view).filter(|node| *node != at) {
            if !self.classes.allows(view.class[item], view.nodes[node]) {
                continue;
            }
            let spares = here.saturating_sub(touch.cost(view, node));
            let needs = &seats.needs[item];
            let fits = seats.room.fits_from(node, needs, Some(at), seats.fill_for(item));
            let best = &mut best[usize::from(!fits)];
            let is_better =
                best.is_none_or(|(most, known)| spares > most || (spares == most && node < known));
            if spares > 0 && is_better {
                *best = Some((spares, node));
            }
        }
        match best {
            [Some((spares, node)), _] => Staying::NotWorth {
                better: view.nodes[node],
                spares: shown(spares),
                must_spare: shown(price(view, item) + share(view, here)),
            },
            [None, Some((spares, node))] => {
                Staying::NoRoom { better: view.nodes[node], spares: shown(spares) }
            }
            [None, None] => Staying::Best,
        }
    }

    /// It is on a node that is no place for it.
    fn stuck(&self, node: usize) -> Fate {
        let at = self.view.nodes[node];
        if !self.view.node(node).is_up {
            return Fate::Unavailable { node: at };
        }
        let is_held = self.seats.is_held[self.item];
        let why = if is_held { Obstacle::Held } else { self.obstacle() };
        Fate::Unplaced { on: Some(at), why }
    }

    fn obstacle(&self) -> Obstacle {
        let (view, class) = (self.view, self.view.class[self.item]);
        let nodes =
            || (0..view.nodes.len()).filter(|node| self.classes.allows(class, view.nodes[*node]));
        if nodes().next().is_none() {
            return Obstacle::NoNode;
        }
        for (at, resource) in Resource::ALL.into_iter().enumerate() {
            let needs = self.seats.needs[self.item][at];
            let most = nodes().map(|node| self.seats.room.most(node, at)).max().unwrap_or(0);
            if needs > most {
                return Obstacle::TooLarge { resource, needs: shown(needs), most: shown(most) };
            }
        }
        Obstacle::Full
    }
}

/// Costs are shown as far as a `u64` goes.
fn shown(cost: Cost) -> u64 {
    u64::try_from(cost).unwrap_or(u64::MAX)
}
