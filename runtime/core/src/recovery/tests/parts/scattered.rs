//! Two nodes with partitions that go to and fro, held against one that has them all.

use proptest::prelude::*;

use super::super::moving::{Written, any_ingest, any_piece, committed};
use super::*;

const NODES: [&str; 2] = ["a", "b"];
const PARTITIONS: u16 = 3;

struct Scattered {
    /// The pipeline as it would be on one node.
    whole: Log,
    /// The home and another one.
    nodes: [Log; 2],
    /// The node that has each partition.
    at: [usize; PARTITIONS as usize],
}

/// What waits: the reader, the source, the run, and how much of it is consumed.
type Waits = ((StageId, u16), Source, u64, u32);

fn waits(folded: &Folded) -> impl Iterator<Item = Waits> {
    folded.waiting().map(|(to, waiting)| (to, waiting.run.source, waiting.run.seq, waiting.skip))
}

impl Scattered {
    fn new() -> Self {
        let log = |next| Log { next, ..Log::default() };
        let (mut whole, mut nodes) = (log(0), [log(50_000), log(7)]);
        let record = ApplyRecord { partitions: PARTITIONS, ..word_count(ONE, 1) };
        for log in [&mut whole, &mut nodes[0]] {
            log.write(|writer| writer.apply(&record)).expect("new");
        }
        Self { whole, nodes, at: [0; PARTITIONS as usize] }
    }

    fn take(&mut self, node: usize, (kind, body): &Written) {
        assert_eq!(self.whole.take((*kind, body)), Ok(()));
        assert_eq!(self.nodes[node].take((*kind, body)), Ok(()));
    }

    fn step(&mut self, dice: [u16; 4]) {
        let to = ([SPLIT, COUNT][usize::from(dice[1] % 2)], dice[2] % PARTITIONS);
        let node = self.at[usize::from(to.1)];
        match dice[0] % 8 {
            0 | 1 => self.take(0, &any_ingest(&self.whole, (SPLIT, to.1), dice[3])),
            2..=5 => {
                let piece = any_piece(&self.whole, to, 1, dice[3] & 8 > 0);
                self.take(node, &committed(&self.whole, to, piece, dice));
            }
            6 => (0..2).for_each(|node| self.forward(node)),
            _ => self.go((to.1, node), dice[3]),
        }
    }

    /// A partition goes from the node that has it to the other.
    fn go(&mut self, (partition, from): (u16, usize), dice: u16) {
        let to = 1 - from;
        let before = self.nodes[from].part();
        self.nodes[from].leave(NODES[to], &[partition]).expect("it is here");
        let after = self.nodes[from].part();
        let kept = if dice & 1 > 0 { before } else { after };
        let home = (to == 1).then_some(NODES[0]);
        self.nodes[to].join((NODES[from], home), &[partition], &kept).expect("it came");
        if dice & 2 > 0 {
            self.nodes[from].release(&[partition]).expect("it left");
        }
        self.at[usize::from(partition)] = to;
    }

    /// Notes at a node what partitions elsewhere took of the runs that are there.
    fn forward(&mut self, node: usize) {
        for stage in [SPLIT, COUNT] {
            let at = self.at;
            for partition in (0..PARTITIONS).filter(|p| at[usize::from(*p)] != node) {
                self.forward_of(node, (stage, partition));
            }
        }
    }

    fn forward_of(&mut self, node: usize, to: (StageId, u16)) {
        let Some(folded) = self.nodes[node].fold.pipeline(ONE) else { return };
        let none = ReaderState::default();
        let whole = self.whole.folded();
        let taken = whole.readers.get(&to).unwrap_or(&none);
        let known = folded.readers.get(&to).unwrap_or(&none);
        let mut pieces: Vec<Piece> = Vec::new();
        for waiting in folded.backlog(to.0, to.1) {
            let (source, seq) = (waiting.run.source, waiting.run.seq);
            let reached = taken.positions.at(source);
            let index = if seq < reached.seq { waiting.events } else { reached.index };
            if seq > reached.seq || index <= waiting.skip {
                continue;
            }
            let (end, events) = (Place::within(seq, index, waiting.events), index - waiting.skip);
            match pieces.last_mut().filter(|last| last.source == source) {
                Some(last) => (last.to, last.events) = (end, last.events + events),
                None => pieces.push(of(source, (known.positions.at(source), end), events)),
            }
        }
        if pieces.is_empty() {
            return;
        }
        let left = |folded: &Folded| folded.offsets.get(&(COUNTS, to.1)).copied().unwrap_or(0);
        let sent = match left(whole).checked_sub(2).filter(|first| *first >= left(folded)) {
            Some(first) if to.0 == COUNT => Sent { dead_letters: None, ..counted(first) },
            _ => NOTHING,
        };
        let next = at(to.0, to.1, known.number + 1);
        self.nodes[node].shadow(next, &pieces, &sent).expect("it was taken elsewhere");
    }

    fn look(&self) {
        for (partition, node) in (0..PARTITIONS).zip(self.at) {
            let folded = self.nodes[node].folded();
            assert!(folded.is_here(partition));
            for (stage, leads) in [(SPLIT, Leads::Edge(WORDS)), (COUNT, Leads::Output(COUNTS))] {
                let stages = vec![StageIds { stage, leads: vec![leads] }];
                let ids = SegmentIds { pipeline: ONE, version: 1, partition, stages };
                assert_eq!(folded.progress(&ids), self.whole.folded().progress(&ids));
            }
        }
    }

    /// Each run that waits is in exactly one of the logs.
    fn look_at_runs(&mut self) {
        (0..2).for_each(|node| self.forward(node));
        let there = self.nodes.iter().filter_map(|log| log.fold.pipeline(ONE));
        let mut there: Vec<Waits> = there.flat_map(waits).collect();
        let mut whole: Vec<Waits> = waits(self.whole.folded()).collect();
        there.sort_unstable();
        whole.sort_unstable();
        assert_eq!(there, whole);
    }
}

proptest! {
    #[test]
    fn partitions_on_two_nodes_go_on_as_on_one(
        history in prop::collection::vec(any::<[u16; 4]>(), 0..120),
    ) {
        let mut scattered = Scattered::new();
        for dice in history {
            scattered.step(dice);
            scattered.look();
            scattered.nodes = scattered.nodes.map(Log::again);
        }
        scattered.look_at_runs();
    }
}
