//! Where the ports of a stage lead.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::json_key::Pointer;

/// How the key of an emitted event is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRule {
    /// The key of the event that caused it, whatever the stage wrote.
    Cause,
    /// The key the stage wrote.
    Emitted,
    /// From the JSON payload. An event without it fails its cause, class reject.
    Json(Pointer),
}

/// How a target's events are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All in one run: the next stage of the segment, the same partition elsewhere, or an output.
    One,
    /// By key group over this many partitions.
    Groups(u16),
}

/// One edge or output a port leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Port it leaves by.
    pub port: u16,
    /// Input it arrives at.
    pub input: u16,
    /// How its key is found.
    pub key: KeyRule,
    /// How it is divided.
    pub spread: Spread,
    /// Events that leave by it leave the segment and stay in the pipeline: a waiting request waits
    /// for them too.
    pub inside: bool,
}

impl Target {
    fn is_straight(&self) -> bool {
        self.key == KeyRule::Cause && self.spread == Spread::One
    }
}

/// All ports of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    targets: Vec<Target>,
    by_port: Vec<Route>,
    /// First sink of each target, and their number behind the last.
    first_sink: Vec<usize>,
}

/// What a port leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// One sink for all events, which go on with the key of their cause: the usual case, and one
    /// that needs no look at targets.
    Straight { sink: u32, input: u16, inside: bool },
    /// These targets; none if the port leads nowhere.
    Targets(Vec<usize>),
}

impl Ports {
    /// `declared` is the number of ports the stage has; targets of other ports are ignored.
    #[must_use]
    pub fn new(declared: u16, targets: Vec<Target>) -> Self {
        let mut by_port: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        let mut first_sink = vec![0];
        let mut sinks = 0;
        for (index, target) in targets.iter().enumerate() {
            by_port.entry(target.port).or_default().push(index);
            sinks += match target.spread {
                Spread::One => 1,
                Spread::Groups(n) => usize::from(n),
            };
            first_sink.push(sinks);
        }
        let route = |port| {
            let indices = by_port.remove(&port).unwrap_or_default();
            match indices.as_slice() {
                [only] if targets[*only].is_straight() => Route::Straight {
                    sink: first_sink[*only] as u32,
                    input: targets[*only].input,
                    inside: targets[*only].inside,
                },
                _ => Route::Targets(indices),
            }
        };
        let by_port = (0..declared).map(route).collect();
        Self { targets, by_port, first_sink }
    }

    /// The targets, in the order they were given.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Where a port leads; `None` if the stage has no such port.
    #[inline]
    pub(super) fn of_port(&self, port: u16) -> Option<&Route> {
        self.by_port.get(usize::from(port))
    }

    /// Of each port whether all its targets, by their indices, are such.
    pub(super) fn leads_to(&self, is_such: impl Fn(usize) -> bool) -> Arc<[bool]> {
        let mut ports = vec![true; self.by_port.len()];
        for (index, target) in self.targets.iter().enumerate() {
            if let Some(port) = ports.get_mut(usize::from(target.port)) {
                *port &= is_such(index);
            }
        }
        ports.into()
    }

    pub(super) fn first_sink(&self, target: usize) -> usize {
        self.first_sink[target]
    }

    pub(super) fn sinks(&self) -> usize {
        self.first_sink.last().copied().unwrap_or(0)
    }

    /// Target and partition of a sink.
    pub(super) fn target_of(&self, sink: usize) -> (usize, u16) {
        let target = self.first_sink.partition_point(|first| *first <= sink) - 1;
        (target, (sink - self.first_sink[target]) as u16)
    }
}
