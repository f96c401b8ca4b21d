//! What a partition holds between two batches: state, timers and open streams, their bounds, and
//! giving them up to a new version.
//!
//! Whose allowance the bounds come from is the worker's business.

use std::collections::BTreeSet;

use super::park::Park;
use super::streams::Streams;
use super::{Partition, Stage, layer_of};
use crate::ids::Part;
use crate::layer::Layer;
use crate::pipeline::Scope;
use crate::state::KeyedState;
use crate::timers::Timers;

/// Behind a stage's name where a part of what is kept of it is meant. No name has such an end.
const PARKED: &str = "/parked";
const STREAMS: &str = "/streams";
const TIMERS: &str = "/timers";

/// Under which name a part of what is kept of a stage is handed over.
#[must_use]
pub fn name_of_part(stage: &str, part: Part) -> String {
    let end = match part {
        Part::Own => "",
        Part::Parked => PARKED,
        Part::Timers => TIMERS,
        Part::Streams => STREAMS,
    };
    format!("{stage}{end}")
}

/// The stage of which something is handed over under a name, and which part of it.
#[must_use]
pub fn stage_of_state(name: &str) -> (&str, Part) {
    if let Some(stage) = name.strip_suffix(PARKED) {
        return (stage, Part::Parked);
    }
    if let Some(stage) = name.strip_suffix(STREAMS) {
        return (stage, Part::Streams);
    }
    name.strip_suffix(TIMERS).map_or((name, Part::Own), |stage| (stage, Part::Timers))
}

impl Partition {
    /// Number of open streams, over all stages.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.stages.iter().map(|stage| stage.streams.len()).sum()
    }

    /// Those of them that have a code of before.
    #[must_use]
    pub fn streams_of_before(&self) -> usize {
        self.stages.iter().map(|stage| stage.streams.earlier()).sum()
    }

    /// The codes that streams of each stage are open with.
    #[must_use]
    pub fn open_codes(&self) -> Vec<BTreeSet<u32>> {
        self.stages.iter().map(|stage| stage.streams.codes()).collect()
    }

    /// Bytes of state, over all stages.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let bytes = |stage: &Stage| {
            let layer = stage.layer.as_ref();
            let own = layer.map_or(0, |l| l.state_ref().bytes() + l.timers_ref().bytes());
            own + stage.park.state().bytes() + stage.streams.index().bytes()
        };
        self.stages.iter().map(bytes).sum()
    }

    /// Lets the state of each stage grow by at most `room` bytes from here.
    pub fn bound_state(&mut self, room: usize) {
        for stage in &mut self.stages {
            let state = layer_of(stage).state();
            let total = state.bytes().saturating_add(room);
            state.bound_total(total);
        }
    }

    /// Bytes of what is parked, over all stages; they are among those of the state.
    #[must_use]
    pub fn parked_bytes(&self) -> usize {
        self.stages.iter().map(|stage| stage.park.state().bytes()).sum()
    }

    /// Bytes of what never leaves memory, over all stages: parked events, timers and the lists of
    /// open streams.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let held = |stage: &Stage| stage.park.state().bytes() + stage.streams.index().bytes();
        self.stages.iter().map(held).sum::<usize>() + self.timers_bytes()
    }

    /// Lets what is parked at each stage grow by at most `room` bytes from here.
    pub fn bound_parked(&mut self, room: usize) {
        self.stages.iter_mut().for_each(|stage| stage.park.bound(room));
    }

    /// Bytes of timers, over all stages; they are among those of the state.
    #[must_use]
    pub fn timers_bytes(&self) -> usize {
        let layers = self.stages.iter().filter_map(|stage| stage.layer.as_ref());
        layers.map(|layer| layer.timers_ref().bytes()).sum()
    }

    /// Lets the timers of each stage grow by at most `room` bytes from here.
    pub fn bound_timers(&mut self, room: usize) {
        self.stages.iter_mut().for_each(|stage| layer_of(stage).timers().bound(room));
    }

    /// Lets at most `room` more streams be opened in each stage.
    pub fn bound_streams(&mut self, room: usize) {
        self.stages.iter_mut().for_each(|stage| stage.streams.bound(room));
    }

    /// Gives up the state of each stage by name, to carry it over to a new version.
    #[must_use]
    pub fn into_states(self) -> Vec<(String, KeyedState)> {
        let mut states = Vec::new();
        for (plan, stage) in self.plan.stages.iter().zip(self.stages) {
            if !stage.park.is_empty() {
                states.push((name_of_part(&plan.name, Part::Parked), stage.park.into_state()));
            }
            if stage.streams.len() > 0 {
                let index = stage.streams.into_index();
                states.push((name_of_part(&plan.name, Part::Streams), index));
            }
            let Some((own, timers)) = stage.layer.map(|layer| layer.into_kept()) else { continue };
            if !timers.is_empty() {
                states.push((name_of_part(&plan.name, Part::Timers), timers.into_state()));
            }
            states.push((plan.name.clone(), own));
        }
        states
    }

    /// Takes over what is kept of the stage under this name, if the stage is there.
    pub fn adopt(&mut self, name: &str, state: KeyedState) {
        let (name, part) = stage_of_state(name);
        let Some(at) = self.plan.stages.iter().position(|plan| plan.name == name) else { return };
        let (plan, stage) = (&self.plan.stages[at], &mut self.stages[at]);
        let mut state = state;
        match part {
            Part::Parked => stage.park = Park::new(state),
            Part::Streams => stage.streams = Streams::new(state, plan.codes),
            Part::Timers => *layer_of(stage).timers() = Timers::new(state),
            Part::Own => {
                // What is there stays; bounds and time to live are those of the stage as it is now.
                state.set_limits(plan.state);
                state.set_ttl(plan.state_ttl);
                state.set_hosted(plan.scope == Scope::Stream);
                let timers = std::mem::replace(layer_of(stage).timers(), Timers::none());
                let layer = Layer::new(plan.ports.clone(), plan.limits, state);
                let layer = layer.in_segment(&plan.inside).with_timers(timers);
                stage.layer = Some(Box::new(layer));
            }
        }
    }
}
