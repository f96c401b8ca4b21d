//! Where runs come from, how they are numbered, and how far a reader has got: the whole of
//! exactly-once between two partitions.
//!
//! ```text
//!   a source's commits:  1   2   3   4   5   6        each has a seq
//!   data for reader r:   ■   ·   ■   ·   ·   ■        run 6 says: previous 3
//!   place of r {3, 2}:   runs 1 and 2, and the first two events of run 3, are consumed
//! ```
//!
//! - A source gives each commit that carries data a number, from 1 without gaps; a destination sees
//!   only some of them, and each run names the one before it for the same destination.
//! - A run is a repeat, the next one, or behind a gap, and its header and the reader's place say
//!   which. Nothing else is needed to consume each event once.
//! - Places and numbers only grow; whatever would not is refused, and changes nothing.
//!
//! Where a missing run is read from, and who keeps the numbers over a restart, is the business of
//! the log.

use std::collections::BTreeMap;

use crate::ids::EdgeId;

/// Who numbers runs: the ingest of a pipeline, or a partition that sends over an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Events from outside.
    Ingest,
    /// What one partition sends over one edge.
    Edge {
        /// The edge.
        edge: EdgeId,
        /// The partition that sends.
        partition: u16,
    },
}

/// How far a reader has got in the runs of a source: every run before `seq` and the first `index`
/// events of run `seq` are consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The first run that is not consumed as a whole.
    pub seq: u64,
    /// Its events that are.
    pub index: u32,
}

impl Place {
    /// Nothing is consumed.
    pub const START: Self = Self { seq: 1, index: 0 };

    /// Behind the first `index` of the `events` of run `seq`. There is one way to write a place:
    /// the end of a run is the beginning of the next.
    #[must_use]
    pub const fn within(seq: u64, index: u32, events: u32) -> Self {
        if index >= events { Self::after(seq) } else { Self { seq, index } }
    }

    /// Behind run `seq`.
    #[must_use]
    pub const fn after(seq: u64) -> Self {
        Self { seq: seq.saturating_add(1), index: 0 }
    }
}

/// What a run says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunHeader {
    /// Who numbered it.
    pub source: Source,
    /// Its number there.
    pub seq: u64,
    /// The run before it for the same destination; 0 if it is the first.
    pub previous: u64,
}

/// What a run is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// All of it is consumed.
    Repeat,
    /// It is the one to read next.
    Next {
        /// Its first events that are consumed.
        skip: u32,
    },
    /// Runs before it are missing.
    Gap {
        /// The first event that is missing.
        from: Place,
    },
}

/// A reader's place in each of its sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<Source, Place>);

/// A place that lies before the one that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the place in {source_of:?} would go from {at:?} back to {to:?}")]
pub struct Backwards {
    /// Of which source.
    pub source_of: Source,
    /// Where the reader is.
    pub at: Place,
    /// Where it would go.
    pub to: Place,
}

impl Positions {
    /// The place in a source; the start, if nothing of it was consumed.
    #[must_use]
    pub fn at(&self, source: Source) -> Place {
        self.0.get(&source).copied().unwrap_or(Place::START)
    }

    /// What a run is to this reader.
    #[must_use]
    pub fn classify(&self, run: &RunHeader) -> Arrival {
        let at = self.at(run.source);
        if run.seq < at.seq {
            Arrival::Repeat
        } else if run.seq == at.seq {
            Arrival::Next { skip: at.index }
        } else if at.index > 0 || run.previous >= at.seq {
            Arrival::Gap { from: at }
        } else {
            Arrival::Next { skip: 0 }
        }
    }

    /// Moves on in a source.
    ///
    /// # Errors
    /// `to` lies before the place that was reached.
    pub fn advance(&mut self, source: Source, to: Place) -> Result<(), Backwards> {
        let at = self.at(source);
        if to < at {
            return Err(Backwards { source_of: source, at, to });
        }
        if to > at {
            self.0.insert(source, to);
        }
        Ok(())
    }

    /// Forgets the sources that `keep` does not hold: their edges are gone for good.
    pub fn retain(&mut self, mut keep: impl FnMut(Source) -> bool) {
        self.0.retain(|source, _| keep(*source));
    }

    /// Every source something was consumed of, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Source, Place)> {
        self.0.iter().map(|(source, place)| (*source, *place))
    }

    /// The sources something was consumed of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing was consumed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The numbers of one source: its last seq, and the last one with data for each destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter<D> {
    last: u64,
    previous: BTreeMap<D, u64>,
}

impl<D> Default for Counter<D> {
    fn default() -> Self {
        Self { last: 0, previous: BTreeMap::new() }
    }
}

/// A number that does not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("seq {seq} does not follow seq {last}, or its destination has it already")]
pub struct OutOfOrder {
    /// The number.
    pub seq: u64,
    /// The last one of this source.
    pub last: u64,
}

impl<D: Ord + Copy> Counter<D> {
    /// The number of the last commit that carried data; 0 if there was none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number the next commit that carries data will have.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.last.saturating_add(1)
    }

    /// The last run for a destination; 0 if there was none.
    #[must_use]
    pub fn previous(&self, to: D) -> u64 {
        self.previous.get(&to).copied().unwrap_or(0)
    }

    /// Numbers a run for `to` in commit `seq`, which is the last one or the next. Gives the run
    /// before it for that destination.
    ///
    /// # Errors
    /// `seq` is neither, or has a run for `to` already.
    pub fn send(&mut self, to: D, seq: u64) -> Result<u64, OutOfOrder> {
        let previous = self.previous(to);
        let follows = seq == self.last || self.last.checked_add(1) == Some(seq);
        if !follows || previous >= seq {
            return Err(OutOfOrder { seq, last: self.last });
        }
        self.last = seq;
        self.previous.insert(to, seq);
        Ok(previous)
    }

    /// Every destination that was sent to, with its last run.
    pub fn iter(&self) -> impl Iterator<Item = (D, u64)> {
        self.previous.iter().map(|(to, seq)| (*to, *seq))
    }

    /// A counter as it was: `iter` gave the destinations. `None` if they do not fit `last`.
    pub fn restore(last: u64, previous: impl IntoIterator<Item = (D, u64)>) -> Option<Self> {
        let previous: BTreeMap<D, u64> = previous.into_iter().collect();
        let fits = previous.values().all(|seq| (1..=last).contains(seq));
        fits.then_some(Self { last, previous })
    }
}

/// The numbers of everything one partition sends; destinations are partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(BTreeMap<EdgeId, Counter<u16>>);

impl Numbers {
    /// The number the next commit with data for this edge will have.
    #[must_use]
    pub fn next(&self, edge: EdgeId) -> u64 {
        self.0.get(&edge).map_or(1, Counter::next)
    }

    /// The last run over `edge` to a partition; 0 if there was none.
    #[must_use]
    pub fn previous(&self, edge: EdgeId, to: u16) -> u64 {
        self.0.get(&edge).map_or(0, |counter| counter.previous(to))
    }

    /// Numbers a run over `edge` to a partition, as [`Counter::send`].
    ///
    /// # Errors
    /// As [`Counter::send`].
    pub fn send(&mut self, edge: EdgeId, to: u16, seq: u64) -> Result<u64, OutOfOrder> {
        self.0.entry(edge).or_default().send(to, seq)
    }

    /// Takes over the numbers of an edge.
    pub fn insert(&mut self, edge: EdgeId, counter: Counter<u16>) {
        self.0.insert(edge, counter);
    }

    /// Every edge that was sent over, in order.
    pub fn iter(&self) -> impl Iterator<Item = (EdgeId, &Counter<u16>)> {
        self.0.iter().map(|(edge, counter)| (*edge, counter))
    }
}

#[cfg(test)]
mod tests;
