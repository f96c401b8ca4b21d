//! A placement in words: why an item is where it is, and what would move.

use std::fmt;

use super::answer::{Fate, Going, Obstacle, Placement, Staying};
use super::situation::{ItemIndex, NodeIndex, Resource, Situation};

/// One item of a placement, shown as one line for people. Showing it reads all edges: meant for the
/// items somebody asks about.
#[derive(Debug, Clone, Copy)]
pub struct Explained<'a> {
    /// What was decided from.
    pub situation: &'a Situation,
    /// What was decided.
    pub placement: &'a Placement,
    /// What to speak of.
    pub item: ItemIndex,
}

impl Explained<'_> {
    fn name(&self, node: NodeIndex) -> &str {
        self.situation.nodes[node].name.as_str()
    }

    fn stays(&self, f: &mut fmt::Formatter<'_>, node: NodeIndex, why: Staying) -> fmt::Result {
        write!(f, "stays on {}", self.name(node))?;
        match why {
            Staying::Best => write!(f, ": no other node would spare traffic"),
            Staying::NotWorth { better, spares, must_spare } => write!(
                f,
                ": {} would spare {spares}, and a move must spare more than {must_spare}",
                self.name(better)
            ),
            Staying::NoRoom { better, spares } => {
                write!(f, ": {} would spare {spares}, and has no room", self.name(better))
            }
            Staying::Held => write!(f, ": it may not move now"),
        }
    }

    fn goes(&self, f: &mut fmt::Formatter<'_>, nodes: [NodeIndex; 2], why: Going) -> fmt::Result {
        let [from, to] = nodes.map(|node| self.name(node));
        match why {
            Going::New => write!(f, "begins on {to}"),
            Going::MadeRoom { short: None } => {
                write!(f, "goes from {from} to {to}: it makes room")
            }
            Going::MadeRoom { short: Some(short) } => {
                let word = short.word();
                write!(f, "goes from {from} to {to}: it makes room, as {from} is short of {word}")
            }
            Going::Forbidden => {
                write!(f, "goes from {from} to {to}: it may not be on {from} any more")
            }
            Going::NodeDown => {
                write!(f, "goes from {from} to {to}: {from} is down, and its data is elsewhere")
            }
            Going::Pays { spares } => write!(f, "goes from {from} to {to}: spares {spares}"),
        }
    }

    fn unplaced(
        &self,
        f: &mut fmt::Formatter<'_>,
        on: Option<NodeIndex>,
        why: Obstacle,
    ) -> fmt::Result {
        match on {
            Some(on) => write!(f, "is on {}, which is no place for it", self.name(on))?,
            None => write!(f, "has no place")?,
        }
        match why {
            Obstacle::NoNode => write!(f, ": no node takes its tenant and has its labels"),
            Obstacle::TooLarge { resource, needs, most } => {
                let (word, unit) = (resource.word(), unit(resource));
                write!(f, ": needs {needs} {unit} of {word}, and no node has more than {most}")
            }
            Obstacle::Full => write!(f, ": every node that may take it is full"),
            Obstacle::Held => write!(f, ", and may not move now"),
        }
    }

    /// How much of its traffic stays in its node and its host, per cent.
    fn locality(&self, f: &mut fmt::Formatter<'_>, node: NodeIndex) -> fmt::Result {
        let (mut total, mut in_node, mut in_host) = (0_u128, 0_u128, 0_u128);
        let host = |node: NodeIndex| self.situation.nodes[node].host;
        let mut count = |other: Option<NodeIndex>, bytes: u64| {
            let Some(other) = other else { return };
            let bytes = u128::from(bytes);
            total += bytes;
            in_node += if other == node { bytes } else { 0 };
            in_host += if host(other) == host(node) { bytes } else { 0 };
        };
        for edge in &self.situation.edges {
            let other = match self.item {
                item if item == edge.from && item != edge.to => edge.to,
                item if item == edge.to && item != edge.from => edge.from,
                _ => continue,
            };
            count(self.placement.node(other), edge.bytes_per_second);
        }
        for front in self.situation.fronts.iter().filter(|front| front.item == self.item) {
            count(Some(front.node), front.bytes_per_second);
        }
        if total == 0 {
            return Ok(());
        }
        let (node, host) = (in_node * 100 / total, in_host * 100 / total);
        write!(f, "; {node} % of {total} bytes/s in the node, {host} % in the host")
    }
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = &self.situation.items[self.item];
        let (tenant, pipeline) = (&item.tenant, &item.pipeline);
        write!(f, "{tenant}/{pipeline}/{}[{}] ", item.segment, item.partition)?;
        match self.placement.fates[self.item] {
            Fate::Stays { node, why } => {
                self.stays(f, node, why)?;
                self.locality(f, node)
            }
            Fate::Goes { from, to, why } => {
                self.goes(f, [from.unwrap_or(to), to], why)?;
                self.locality(f, to)
            }
            Fate::Unavailable { node } => {
                write!(f, "is unavailable: {} is down and has its data", self.name(node))
            }
            Fate::Unplaced { on, why } => self.unplaced(f, on, why),
        }
    }
}

const fn unit(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "thousandths of a core",
        Resource::Memory => "bytes",
        Resource::Gpu => "thousandths of a device",
    }
}
