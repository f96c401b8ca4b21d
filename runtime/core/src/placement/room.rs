//! What nodes and hosts have left. Nothing overflows, whatever needs and capacities are.

use super::situation::Resources;
use super::view::View;

/// Needs of one or more items together, in the order of `Resource::ALL`.
pub(super) type Amounts = [u128; 3];

/// Room above what is needed in all, so that there is a choice.
const CHOICE_PERCENT: u128 = 15;

/// What a target is raised to at most.
const FILL_PERCENT_MAX: u128 = 95;

/// How much of a capacity may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// For an item that moves only because it spares something: a tenth below the target, so that
    /// what had no room before does not move when needs are a little lower.
    Calm,
    /// The target.
    Target,
    /// All there is: for what has no place otherwise.
    All,
}

/// What one node or host has and uses.
#[derive(Debug, Clone)]
struct Share {
    calm: Amounts,
    target: Amounts,
    all: Amounts,
    used: Amounts,
}

impl Share {
    fn new(capacity: &Resources, fill: u128) -> Self {
        let all = capacity.amounts().map(u128::from);
        // Devices are not left idle for later: what needs one can go nowhere else.
        let part = |percent: u128| [all[0] * percent / 100, all[1] * percent / 100, all[2]];
        Self { calm: part(fill * 9 / 10), target: part(fill), all, used: [0; 3] }
    }

    const fn limit(&self, fill: Fill) -> &Amounts {
        match fill {
            Fill::Calm => &self.calm,
            Fill::Target => &self.target,
            Fill::All => &self.all,
        }
    }

    /// What is not needed is nobody's concern: a node short of memory takes items that need none.
    /// One that is fuller than the limit may become less full, but not while it is over capacity:
    /// who is there is to leave then.
    fn fits(&self, comes: &Amounts, leaves: &Amounts, fill: Fill) -> bool {
        let limit = self.limit(fill);
        (0..3).all(|at| {
            let becomes = self.used[at] - leaves[at] + comes[at];
            let is_less = comes[at] <= leaves[at] && self.used[at] <= self.all[at];
            comes[at] == 0 || becomes <= limit[at] || is_less
        })
    }

    /// Which resources are used beyond a limit.
    fn over(&self, fill: Fill) -> [bool; 3] {
        let limit = self.limit(fill);
        [0, 1, 2].map(|at| self.used[at] > limit[at])
    }

    /// Thousandths of the capacity that would be used of the scarcest resource.
    fn fullness_with(&self, comes: &Amounts) -> u128 {
        let full = |at: usize| match (self.used[at] + comes[at], self.all[at]) {
            (0, _) => 0,
            (_, 0) => u128::from(u64::MAX),
            (used, all) => used * 1000 / all,
        };
        full(0).max(full(1)).max(full(2))
    }

    fn add(&mut self, needs: &Amounts) {
        (0..3).for_each(|at| self.used[at] += needs[at]);
    }

    fn take(&mut self, needs: &Amounts) {
        (0..3).for_each(|at| self.used[at] -= needs[at]);
    }
}

/// The room of all nodes and hosts, by rank.
#[derive(Debug, Clone)]
pub(super) struct Room {
    nodes: Vec<Share>,
    hosts: Vec<Share>,
    host_of: Vec<usize>,
}

impl Room {
    pub(super) fn new(view: &View<'_>) -> Self {
        let fill = target_percent(view);
        let nodes = (0..view.nodes.len()).map(|rank| Share::new(&view.node(rank).capacity, fill));
        let hosts = view.host_capacities.iter().map(|capacity| Share::new(capacity, fill));
        Self { nodes: nodes.collect(), hosts: hosts.collect(), host_of: view.host_of.clone() }
    }

    pub(super) fn add(&mut self, node: usize, needs: &Amounts) {
        self.nodes[node].add(needs);
        self.hosts[self.host_of[node]].add(needs);
    }

    pub(super) fn take(&mut self, node: usize, needs: &Amounts) {
        self.nodes[node].take(needs);
        self.hosts[self.host_of[node]].take(needs);
    }

    /// True if the node has room for what comes from nowhere.
    pub(super) fn fits(&self, node: usize, comes: &Amounts, fill: Fill) -> bool {
        self.fits_from(node, comes, None, fill)
    }

    /// True if the node has room for what comes from another one.
    pub(super) fn fits_from(
        &self,
        node: usize,
        comes: &Amounts,
        from: Option<usize>,
        fill: Fill,
    ) -> bool {
        let host = self.host_of[node];
        let is_inside = from.is_some_and(|from| self.is_within(from, node));
        self.nodes[node].fits(comes, &[0; 3], fill)
            && (is_inside || self.hosts[host].fits(comes, &[0; 3], fill))
    }

    /// True if there is room for `leaves` on the other node once it makes way for `comes`.
    pub(super) fn fits_exchange(
        &self,
        nodes: [usize; 2],
        comes: &Amounts,
        leaves: &Amounts,
        fill: Fill,
    ) -> bool {
        let [a, b] = nodes;
        let hosts = [self.host_of[a], self.host_of[b]];
        self.nodes[b].fits(comes, leaves, fill)
            && self.nodes[a].fits(leaves, comes, fill)
            && (self.is_within(a, b)
                || (self.hosts[hosts[1]].fits(comes, leaves, fill)
                    && self.hosts[hosts[0]].fits(leaves, comes, fill)))
    }

    /// True if a change from one node to the other is none for their host. On a host that is over
    /// its capacity nothing changes places: what is said to have no place there has not moved.
    fn is_within(&self, a: usize, b: usize) -> bool {
        let host = self.host_of[a];
        host == self.host_of[b] && !self.hosts[host].over(Fill::All).contains(&true)
    }

    /// Which resources of a node, or of its host, are used beyond a limit.
    pub(super) fn over(&self, node: usize, fill: Fill) -> [bool; 3] {
        let (node, host) = (self.nodes[node].over(fill), self.hosts[self.host_of[node]].over(fill));
        [0, 1, 2].map(|at| node[at] || host[at])
    }

    /// How full the host and the node would be with `comes`, in thousandths.
    pub(super) fn fullness_with(&self, node: usize, comes: &Amounts) -> (u128, u128) {
        (self.hosts[self.host_of[node]].fullness_with(comes), self.nodes[node].fullness_with(comes))
    }

    /// The most an empty node can give of one resource.
    pub(super) fn most(&self, node: usize, at: usize) -> u128 {
        self.nodes[node].all[at].min(self.hosts[self.host_of[node]].all[at])
    }
}

/// How full nodes are made: as the policy says, unless the fleet as a whole is so full that this
/// leaves no room to choose. A target that cannot be kept would only scatter what belongs together.
fn target_percent(view: &View<'_>) -> u128 {
    let total = |amounts: &mut dyn Iterator<Item = [u64; 3]>| {
        amounts.fold([0_u128; 3], |sum, one| [0, 1, 2].map(|at| sum[at] + u128::from(one[at])))
    };
    let needs = total(&mut view.situation.items.iter().map(|item| item.needs.amounts()));
    let has = total(&mut view.host_capacities.iter().map(Resources::amounts));
    let used = |at: usize| needs[at] * 100 / has[at].max(1);
    let needed = used(0).max(used(1)) + CHOICE_PERCENT;
    u128::from(view.situation.policy.fill_percent.min(100)).max(needed.min(FILL_PERCENT_MAX))
}
