//! Items without a place, put together along their heaviest edges: a forest of clusters.
//!
//! In each sweep a cluster is joined with the neighbour it has the most bytes with for what the two
//! need, heaviest pairs first (heavy-edge matching). A cluster whose neighbours are all taken joins
//! one of those, so that a star takes few sweeps. A pipeline ends as one tree, whatever its size:
//! packing splits it where it must, at the joints that were made last, which are the lightest.

use super::classes::{Class, Classes};
use super::room::Amounts;
use super::seats::{Seats, sum};
use super::view::View;

/// Sweeps after which clusters stay as they are. Each at least halves a chain.
const SWEEPS_MAX: usize = 40;

/// Clusters that become one in a sweep.
const JOINED_MAX: usize = 8;

/// Sizes are millionths of the largest node.
const MILLION: u128 = 1_000_000;

/// A cluster, or an item.
#[derive(Debug)]
pub(super) struct Tree {
    /// The clusters it is made of; none for an item.
    pub(super) children: Vec<usize>,
    /// The item, by rank.
    pub(super) item: Option<usize>,
    pub(super) needs: Amounts,
    pub(super) class: Class,
    /// What it needs of the largest node, of the scarcest resource, in millionths; at least 1.
    pub(super) size: u128,
}

/// All clusters; `roots` are those that are in no other.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) trees: Vec<Tree>,
    pub(super) roots: Vec<usize>,
}

impl Forest {
    /// The items of a tree.
    pub(super) fn items(&self, tree: usize) -> Vec<usize> {
        let (mut items, mut open) = (Vec::new(), vec![tree]);
        while let Some(tree) = open.pop() {
            let tree = &self.trees[tree];
            items.extend(tree.item);
            open.extend(&tree.children);
        }
        items
    }
}

/// Clusters all items that have no place.
pub(super) fn cluster(view: &View<'_>, classes: &mut Classes, seats: &Seats) -> Forest {
    let homeless: Vec<usize> =
        (0..view.items.len()).filter(|item| seats.at[*item].is_none()).collect();
    let scale = Scale::of(view);
    let mut vertex_of = vec![usize::MAX; view.items.len()];
    homeless.iter().enumerate().for_each(|(vertex, item)| vertex_of[*item] = vertex);
    let leaf = |item: &usize| {
        let (needs, class) = (seats.needs[*item], view.class[*item]);
        Tree { children: Vec::new(), item: Some(*item), needs, class, size: scale.size(&needs) }
    };
    let mut forest = Forest { trees: homeless.iter().map(leaf).collect(), roots: Vec::new() };
    let edges = homeless.iter().map(|item| {
        let row = view.ties.row(*item).iter().map(|(other, bytes)| (vertex_of[*other], *bytes));
        row.filter(|(vertex, _)| *vertex != usize::MAX).collect()
    });
    let mut sweep = Sweep { trees: (0..homeless.len()).collect(), edges: edges.collect() };
    for _ in 0..SWEEPS_MAX {
        let groups = sweep.groups(&forest, classes);
        if groups.is_empty() {
            break;
        }
        sweep = sweep.contract(&mut forest, &groups, &scale);
    }
    forest.roots = sweep.trees;
    forest
}

/// What the largest node has, resource by resource.
struct Scale(Amounts);

impl Scale {
    fn of(view: &View<'_>) -> Self {
        let capacities = (0..view.nodes.len()).map(|rank| view.node(rank).capacity.amounts());
        Self(
            capacities.fold([0; 3], |most, have| [0, 1, 2].map(|at| most[at].max(have[at].into()))),
        )
    }

    fn size(&self, needs: &Amounts) -> u128 {
        let part = |at: usize| needs[at] * MILLION / self.0[at].max(1);
        part(0).max(part(1)).max(part(2)).max(1)
    }
}

/// Clusters that become one, and what kind it is.
struct Group {
    members: Vec<usize>,
    class: Class,
}

/// Whom a vertex joins, and what class the two are then.
struct Join {
    rating: u128,
    other: usize,
    class: Class,
}

/// The groups of a sweep.
struct Groups {
    /// The group of each vertex.
    of: Vec<Option<usize>>,
    all: Vec<Group>,
}

impl Groups {
    fn join(&mut self, vertex: usize, join: &Join) {
        let at = self.of[join.other].unwrap_or(self.all.len());
        if at == self.all.len() {
            self.all.push(Group { members: vec![join.other], class: join.class });
            self.of[join.other] = Some(at);
        }
        let group = &mut self.all[at];
        group.members.push(vertex);
        group.class = join.class;
        self.of[vertex] = Some(at);
    }
}

/// The graph of clusters between two sweeps: which tree each vertex is, and its edges.
struct Sweep {
    trees: Vec<usize>,
    edges: Vec<Vec<(usize, u64)>>,
}

impl Sweep {
    /// Bytes for what two clusters need, so that many small ones come before one large one.
    fn rating(&self, forest: &Forest, a: usize, b: usize, bytes: u64) -> u128 {
        let size = |vertex: usize| forest.trees[self.trees[vertex]].size;
        (u128::from(bytes) << 32) / size(a).saturating_add(size(b))
    }

    /// Who joins whom in this sweep. Heaviest first.
    fn groups(&self, forest: &Forest, classes: &mut Classes) -> Vec<Group> {
        let best = |vertex: usize| {
            let edges = self.edges[vertex].iter();
            edges.map(|(other, bytes)| self.rating(forest, vertex, *other, *bytes)).max()
        };
        let mut order: Vec<(u128, usize)> =
            (0..self.trees.len()).filter_map(|at| best(at).map(|best| (best, at))).collect();
        order.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut groups = Groups { of: vec![None; self.trees.len()], all: Vec::new() };
        for (_, vertex) in order {
            if groups.of[vertex].is_some() {
                continue;
            }
            let Some(join) = self.partner(forest, classes, &groups, vertex) else { continue };
            groups.join(vertex, &join);
        }
        groups.all
    }

    /// Whom a vertex joins: its nearest free neighbour, unless one that is taken is much nearer.
    fn partner(
        &self,
        forest: &Forest,
        classes: &mut Classes,
        groups: &Groups,
        vertex: usize,
    ) -> Option<Join> {
        let class = forest.trees[self.trees[vertex]].class;
        let (mut free, mut taken): (Option<Join>, Option<Join>) = (None, None);
        for (other, bytes) in &self.edges[vertex] {
            let rating = self.rating(forest, vertex, *other, *bytes);
            let group = groups.of[*other].map(|group| &groups.all[group]);
            let best = if group.is_none() { &mut free } else { &mut taken };
            let is_better = best.as_ref().is_none_or(|best| rating > best.rating);
            let has_room = group.is_none_or(|group| group.members.len() < JOINED_MAX);
            if !is_better || !has_room {
                continue;
            }
            let theirs = group.map_or(forest.trees[self.trees[*other]].class, |group| group.class);
            if let Some(class) = classes.meet(class, theirs) {
                *best = Some(Join { rating, other: *other, class });
            }
        }
        match (free, taken) {
            (Some(free), Some(taken)) if taken.rating / 2 > free.rating => Some(taken),
            (free, taken) => free.or(taken),
        }
    }

    /// The graph in which each group is one vertex.
    fn contract(self, forest: &mut Forest, groups: &[Group], scale: &Scale) -> Self {
        let mut next_of = vec![usize::MAX; self.trees.len()];
        let mut trees = Vec::with_capacity(groups.len());
        let mut members: Vec<Vec<usize>> = Vec::with_capacity(groups.len());
        for group in groups {
            let children: Vec<usize> = group.members.iter().map(|m| self.trees[*m]).collect();
            let needs = sum(children.iter().map(|child| &forest.trees[*child].needs));
            group.members.iter().for_each(|member| next_of[*member] = trees.len());
            trees.push(forest.trees.len());
            members.push(group.members.clone());
            let (class, size) = (group.class, scale.size(&needs));
            forest.trees.push(Tree { children, item: None, needs, class, size });
        }
        for (vertex, next) in next_of.iter_mut().enumerate() {
            if *next == usize::MAX {
                *next = trees.len();
                trees.push(self.trees[vertex]);
                members.push(vec![vertex]);
            }
        }
        let edges = members.iter().enumerate().map(|(next, members)| {
            let all = members.iter().flat_map(|member| &self.edges[*member]);
            let mut row: Vec<(usize, u64)> =
                all.map(|(other, bytes)| (next_of[*other], *bytes)).collect();
            row.retain(|(other, _)| *other != next);
            row.sort_unstable_by_key(|(other, _)| *other);
            row.dedup_by(|from, into| {
                let same = from.0 == into.0;
                if same {
                    into.1 = into.1.saturating_add(from.1);
                }
                same
            });
            row
        });
        let edges = edges.collect();
        Self { trees, edges }
    }
}
