//! What comes into a partition from other nodes: each run once, in the order of its source.
//!
//! A node sends again whatever it has no answer to, so that the same run may come more than once,
//! and one that is behind others may come before them when their way was another. What has come is
//! noted here before it is queued; what is consumed, and on disk, when that is so.

use std::collections::BTreeMap;

use sluicebox_core::codec::Piece;
use sluicebox_core::position::{Arrival, Place, Positions, RunHeader, Source};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// What is queued, or was.
    entered: Positions,
    /// What is consumed, by commits that are on disk.
    settled: Positions,
    /// The peers that have sent runs of a source, since this node was started.
    senders: BTreeMap<Source, Vec<u16>>,
}

impl Gate {
    /// Of a partition that has consumed so much, and has nothing else queued.
    pub(crate) fn new(consumed: &Positions) -> Self {
        let senders = BTreeMap::new();
        Self { entered: consumed.clone(), settled: consumed.clone(), senders }
    }

    /// What a run is that comes now.
    pub(crate) fn look_at(&self, run: &RunHeader) -> Arrival {
        self.entered.classify(run)
    }

    /// A run is queued; everything of its source before it was.
    pub(crate) fn enter(&mut self, source: Source, seq: u64) {
        // One that came before changes nothing.
        let _moved = self.entered.advance(source, Place::after(seq));
    }

    /// A peer has sent a run of a source, and is told how far that is consumed.
    pub(crate) fn note_sender(&mut self, source: Source, peer: u16) {
        let senders = self.senders.entry(source).or_default();
        if !senders.contains(&peer) {
            senders.push(peer);
        }
    }

    /// A commit with these pieces is on disk. Gives what peers are to be told.
    pub(crate) fn settle(&mut self, pieces: &[Piece]) -> BTreeMap<u16, Vec<(Source, Place)>> {
        let mut told: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for piece in pieces {
            let _moved = self.settled.advance(piece.source, piece.to);
            let _known = self.entered.advance(piece.source, piece.to);
            for peer in self.senders.get(&piece.source).into_iter().flatten() {
                told.entry(*peer).or_default().push((piece.source, piece.to));
            }
        }
        told
    }

    /// How far a source is consumed on disk.
    pub(crate) fn settled(&self, source: Source) -> Place {
        self.settled.at(source)
    }

    /// The same of every source a peer has sent runs of.
    pub(crate) fn settled_of(&self, peer: u16) -> Vec<(Source, Place)> {
        let its = self.senders.iter().filter(|(_, senders)| senders.contains(&peer));
        its.map(|(source, _)| (*source, self.settled.at(*source))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seq: u64, previous: u64) -> RunHeader {
        RunHeader { source: Source::Ingest, seq, previous }
    }

    #[test]
    fn a_run_enters_once_and_none_before_those_it_follows() {
        let mut gate = Gate::default();
        assert_eq!(gate.look_at(&run(2, 0)), Arrival::Next { skip: 0 });
        gate.enter(Source::Ingest, 2);
        assert_eq!(gate.look_at(&run(2, 0)), Arrival::Repeat);
        assert!(matches!(gate.look_at(&run(5, 4)), Arrival::Gap { .. }), "4 is on its way");
        gate.enter(Source::Ingest, 4);
        assert_eq!(gate.look_at(&run(5, 4)), Arrival::Next { skip: 0 });
        assert_eq!(gate.settled(Source::Ingest), Place::START);
        let to = Place { seq: 4, index: 1 };
        let piece = Piece { source: Source::Ingest, from: Place::START, to, events: 3 };
        gate.note_sender(Source::Ingest, 7);
        assert_eq!(gate.settle(&[piece]), BTreeMap::from([(7, vec![(Source::Ingest, to)])]));
        assert_eq!(gate.settled(Source::Ingest), to);
        assert_eq!(gate.settled_of(7), [(Source::Ingest, to)]);
        assert!(gate.settled_of(8).is_empty());
        assert_eq!(gate.look_at(&run(4, 2)), Arrival::Repeat, "what is queued is not taken again");
    }

    #[test]
    fn what_was_half_consumed_before_goes_on_where_it_was() {
        let mut consumed = Positions::default();
        consumed.advance(Source::Ingest, Place { seq: 3, index: 2 }).expect("forward");
        let gate = Gate::new(&consumed);
        assert_eq!(gate.look_at(&run(3, 1)), Arrival::Next { skip: 2 });
        assert_eq!(gate.look_at(&run(2, 1)), Arrival::Repeat);
    }
}
