//! The few questions asked of a small directed graph: what is reachable, where are its cycles, in
//! which order can it be walked.
//!
//! Nodes are numbers below a count, arcs are pairs of them. Every answer is the same for the same
//! question: ties go to the smaller number. Graphs have at most a few hundred arcs, so simple beats
//! clever here.

use std::collections::{BTreeSet, VecDeque};

/// From a node to a node.
pub(crate) type Arc = (usize, usize);

/// Which nodes can be reached from the seeds, the seeds included.
pub(crate) fn reached(nodes: usize, seeds: &[usize], arcs: &[Arc]) -> Vec<bool> {
    let mut reached = vec![false; nodes];
    let mut open: Vec<usize> = seeds.to_vec();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut reached[node], true) {
            open.extend(arcs.iter().filter(|(from, _)| *from == node).map(|(_, to)| *to));
        }
    }
    reached
}

/// One shortest cycle for each knot of cycles, as indices of its arcs in walking order, beginning
/// at the smallest node of the knot.
pub(crate) fn cycles(nodes: usize, arcs: &[Arc]) -> Vec<Vec<usize>> {
    let mut told = vec![false; nodes];
    let mut found = Vec::new();
    for node in 0..nodes {
        if told[node] {
            continue;
        }
        let Some(cycle) = cycle_at(node, nodes, arcs) else { continue };
        let after = reached(nodes, &[node], arcs);
        let back: Vec<Arc> = arcs.iter().map(|(from, to)| (*to, *from)).collect();
        let before = reached(nodes, &[node], &back);
        for other in 0..nodes {
            told[other] |= after[other] && before[other];
        }
        found.push(cycle);
    }
    found
}

/// The shortest way from a node back to itself.
fn cycle_at(start: usize, nodes: usize, arcs: &[Arc]) -> Option<Vec<usize>> {
    let mut by: Vec<Option<usize>> = vec![None; nodes];
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        for (index, (from, to)) in arcs.iter().enumerate() {
            if *from != node || by[*to].is_some() {
                continue;
            }
            by[*to] = Some(index);
            open.push_back(*to);
        }
        if by[start].is_some() {
            break;
        }
    }
    let mut cycle = Vec::new();
    let mut arc = by[start]?;
    loop {
        cycle.push(arc);
        let (from, _) = arcs[arc];
        if from == start {
            break;
        }
        arc = by[from]?;
    }
    cycle.reverse();
    Some(cycle)
}

/// The nodes so that every arc goes forwards, the smallest possible node first each time. Nodes on
/// a cycle, and behind one, are left out.
pub(crate) fn topological(nodes: usize, arcs: &[Arc]) -> Vec<usize> {
    let mut waiting = vec![0_usize; nodes];
    for (_, to) in arcs {
        waiting[*to] += 1;
    }
    let mut ready: BTreeSet<usize> = (0..nodes).filter(|node| waiting[*node] == 0).collect();
    let mut order = Vec::with_capacity(nodes);
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for (_, to) in arcs.iter().filter(|(from, _)| *from == node) {
            waiting[*to] -= 1;
            if waiting[*to] == 0 {
                ready.insert(*to);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_loop_is_a_cycle_of_one_arc() {
        assert_eq!(cycles(2, &[(0, 1), (1, 1)]), [[1]]);
    }

    #[test]
    fn a_knot_of_cycles_is_told_once_by_its_shortest() {
        let arcs = [(0, 1), (1, 2), (2, 0), (1, 0), (3, 4), (4, 3), (2, 3)];
        assert_eq!(cycles(5, &arcs), [vec![0, 3], vec![4, 5]]);
    }

    #[test]
    fn a_graph_without_cycles_has_none_and_an_order() {
        let arcs = [(2, 0), (2, 1), (0, 3), (1, 3)];
        assert!(cycles(4, &arcs).is_empty());
        assert_eq!(topological(4, &arcs), [2, 0, 1, 3]);
    }

    #[test]
    fn nodes_on_a_cycle_and_behind_it_have_no_place_in_the_order() {
        assert_eq!(topological(4, &[(0, 1), (1, 2), (2, 1), (2, 3)]), [0]);
    }

    #[test]
    fn only_what_arcs_lead_to_is_reached() {
        assert_eq!(reached(4, &[1], &[(1, 2), (0, 3)]), [false, true, true, false]);
        assert_eq!(reached(2, &[], &[(0, 1)]), [false, false]);
    }
}
