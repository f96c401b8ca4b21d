//! What a partition holds between two batches: state and open streams, their bounds, and giving
//! them up to a new version.
//!
//! Whose allowance the bounds come from is the worker's business.

use super::{Partition, Stage, layer_of};
use crate::layer::Layer;
use crate::state::KeyedState;

impl Partition {
    /// Number of open streams, over all stages.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.stages.iter().map(|stage| stage.streams.len()).sum()
    }

    /// Bytes of state, over all stages.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let bytes = |stage: &Stage| stage.layer.as_ref().map_or(0, |l| l.state_ref().bytes());
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

    /// Lets at most `room` more streams be opened in each stage.
    pub fn bound_streams(&mut self, room: usize) {
        self.stages.iter_mut().for_each(|stage| stage.streams.bound(room));
    }

    /// Gives up the state of each stage by name, to carry it over to a new version.
    #[must_use]
    pub fn into_states(self) -> Vec<(String, KeyedState)> {
        let names = self.plan.stages.iter().map(|plan| plan.name.clone());
        let states = self.stages.into_iter().filter_map(|stage| stage.layer);
        names.zip(states.map(|layer| layer.into_state())).collect()
    }

    /// Takes over the state of the stage of this name, if there is one.
    pub fn adopt(&mut self, name: &str, state: KeyedState) {
        let at = self.plan.stages.iter().position(|plan| plan.name == name);
        if let Some(at) = at {
            let plan = &self.plan.stages[at];
            let mut state = state;
            // What is there stays; the bounds are those of the stage as it is now.
            state.set_limits(plan.state);
            let layer = Layer::new(plan.ports.clone(), plan.limits, state);
            self.stages[at].layer = Some(Box::new(layer));
        }
    }
}
