//! What a partition holds between two batches: state and open streams, their bounds, and giving
//! them up to a new version.
//!
//! Whose allowance the bounds come from is the worker's business.

use super::park::Park;
use super::{Partition, Stage, layer_of};
use crate::layer::Layer;
use crate::state::KeyedState;

/// Behind a stage's name where what is parked there is meant. No name has such an end.
const PARKED: &str = "/parked";

/// Under which name what is parked at a stage is handed over, beside the stage's own state.
#[must_use]
pub fn name_of_parked(stage: &str) -> String {
    format!("{stage}{PARKED}")
}

/// The stage whose state is handed over under a name, and whether it is what is parked there.
#[must_use]
pub fn stage_of_state(name: &str) -> (&str, bool) {
    name.strip_suffix(PARKED).map_or((name, false), |stage| (stage, true))
}

impl Partition {
    /// Number of open streams, over all stages.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.stages.iter().map(|stage| stage.streams.len()).sum()
    }

    /// Bytes of state, over all stages.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let bytes = |stage: &Stage| {
            let own = stage.layer.as_ref().map_or(0, |layer| layer.state_ref().bytes());
            own + stage.park.state().bytes()
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

    /// Lets what is parked at each stage grow by at most `room` bytes from here.
    pub fn bound_parked(&mut self, room: usize) {
        self.stages.iter_mut().for_each(|stage| stage.park.bound(room));
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
                states.push((name_of_parked(&plan.name), stage.park.into_state()));
            }
            states.extend(stage.layer.map(|layer| (plan.name.clone(), layer.into_state())));
        }
        states
    }

    /// Takes over the state of the stage of this name, or what is parked there, if it is there.
    pub fn adopt(&mut self, name: &str, state: KeyedState) {
        let (name, is_parked) = stage_of_state(name);
        let at = self.plan.stages.iter().position(|plan| plan.name == name);
        if let Some(at) = at {
            if is_parked {
                self.stages[at].park = Park::new(state);
                return;
            }
            let plan = &self.plan.stages[at];
            let mut state = state;
            // What is there stays; bounds and time to live are those of the stage as it is now.
            state.set_limits(plan.state);
            state.set_ttl(plan.state_ttl);
            let layer = Layer::new(plan.ports.clone(), plan.limits, state);
            self.stages[at].layer = Some(Box::new(layer));
        }
    }
}
