//! Stages written as Rust closures; the reference invoker, for tests and simulation.
//!
//! A native stage has no memory of its own between calls, like a guest that keeps none, and is
//! bounded by nothing but its layer.

use std::fmt;
use std::sync::Arc;

use sluicebox_core::layer::Layer;
use sluicebox_core::partition::Verdict;

use crate::invoker::{Invocation, Invoker, Invoking, Outcome, Said, Usage};

/// What a native stage does with a call.
pub type Handler = Arc<dyn Fn(&mut Layer) -> Verdict>;

/// See the module.
pub struct NativeStage {
    handler: Handler,
}

impl NativeStage {
    /// A stage that does this.
    #[must_use]
    pub fn new(handler: Handler) -> Self {
        Self { handler }
    }
}

impl fmt::Debug for NativeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NativeStage")
    }
}

impl Invoker for NativeStage {
    fn invoke(&mut self, invocation: Invocation) -> Invoking<'_> {
        let mut layer = invocation.layer;
        let verdict = (self.handler)(&mut layer);
        let (usage, said) = (Usage::default(), Said::default());
        Box::pin(std::future::ready(Outcome { layer, verdict, usage, said }))
    }

    fn trim(&mut self) {}

    fn abandon(&mut self) {}

    fn live(&self) -> usize {
        0
    }
}
