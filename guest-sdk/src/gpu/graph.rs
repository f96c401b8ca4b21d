//! Steps that are checked once and done often.
//!
//! - A graph is recorded whole before the host sees any of it, and is refused or made whole.
//! - It names slots and no buffers; a submission binds a buffer to each.

use std::time::Duration;

use super::{Binding, Error, Handle, Kernel, Outcome, Result, Submission};
use crate::host;

/// A step as the host takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Dispatch { kernel: u64, groups: [u32; 3], slots: Vec<u32> },
    Copy { from: Place, to: Place, bytes: u64 },
    Fill { to: Place, bytes: u64, word: u32 },
}

/// A place in what is bound to a slot of a graph. A slot alone is its beginning, `(slot, offset)`
/// any other place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) slot: u32,
    pub(crate) offset: u64,
}

impl From<u32> for Place {
    fn from(slot: u32) -> Self {
        Self { slot, offset: 0 }
    }
}

impl From<(u32, u64)> for Place {
    fn from((slot, offset): (u32, u64)) -> Self {
        Self { slot, offset }
    }
}

/// The steps of a graph, being recorded. Given to the function of [`Graph::record`].
#[derive(Debug, Default)]
pub struct Steps {
    steps: Vec<Step>,
}

impl Steps {
    /// Runs a kernel with so many workgroups on each axis. `slots` says for each slot of the
    /// kernel, in their order, which slot of the graph it is.
    pub fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], slots: &[u32]) -> &mut Self {
        let (kernel, slots) = (kernel.handle(), slots.to_vec());
        self.steps.push(Step::Dispatch { kernel, groups, slots });
        self
    }

    /// Copies bytes, a multiple of 4, from one place to another.
    pub fn copy(&mut self, from: impl Into<Place>, to: impl Into<Place>, bytes: u64) -> &mut Self {
        self.steps.push(Step::Copy { from: from.into(), to: to.into(), bytes });
        self
    }

    /// Writes `word` again and again, over so many bytes, a multiple of 4.
    pub fn fill(&mut self, to: impl Into<Place>, bytes: u64, word: u32) -> &mut Self {
        self.steps.push(Step::Fill { to: to.into(), bytes, word });
        self
    }
}

/// Steps that are done one after the other, each with what those before have written. Which
/// buffers they use is said at each submission. Freed when this is dropped.
///
/// ```
/// # use sluicebox_guest::gpu::{Buffer, Graph, Kernel, Result};
/// # fn twice(kernel: &Kernel) -> Result<Vec<f32>> {
/// let graph = Graph::record(|steps| {
///     steps.fill(1, 256, 0).dispatch(kernel, [1, 1, 1], &[0, 1]).copy(1, (1, 256), 256);
/// })?;
/// let (input, output) = (Buffer::of(&[1.0_f32; 64])?, Buffer::new(512)?);
/// graph.submit(&[input.whole(), output.whole()])?.whole()?;
/// output.read_all()
/// # }
/// ```
#[derive(Debug)]
pub struct Graph {
    handle: Handle,
    deadline_ms: u32,
}

impl Graph {
    /// The steps that the function records, at most 64 with 32 slots.
    ///
    /// # Errors
    ///
    /// A step cannot be done; the message says which one and why.
    pub fn record(record: impl FnOnce(&mut Steps)) -> Result<Self> {
        let mut steps = Steps::default();
        record(&mut steps);
        let handle = Handle(host::gpu::graph(&steps.steps).map_err(Error::new)?);
        Ok(Self { handle, deadline_ms: 0 })
    }

    /// Ends what is submitted from now on after so long, in whole milliseconds. Without it, it may
    /// take as long as the stage may.
    #[must_use]
    pub fn deadline(self, time: Duration) -> Self {
        let deadline_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
        Self { deadline_ms, ..self }
    }

    /// The host's number for it.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle.0
    }

    /// Does the steps once, with these bytes for its slots, and waits until that has ended. If the
    /// stage has as many submissions as it may, it waits for its turn.
    ///
    /// # Errors
    ///
    /// It was not begun. If it was, its outcome says how it has ended.
    pub fn submit(&self, bindings: &[Binding<'_>]) -> Result<Outcome> {
        host::gpu::submit(self.handle.0, &parts(bindings), self.deadline_ms).map_err(Error::new)
    }

    /// Begins that and does not wait. What is bound is not to be written, or read if it is
    /// written, until it has ended.
    ///
    /// # Errors
    ///
    /// It was not begun; [`Error::is_would_block`] if the stage has as many submissions as it may.
    pub fn try_submit(&self, bindings: &[Binding<'_>]) -> Result<Submission> {
        let bindings = parts(bindings);
        let begun = host::gpu::try_submit(self.handle.0, &bindings, self.deadline_ms);
        Ok(Submission::new(begun.map_err(Error::new)?))
    }
}

fn parts(bindings: &[Binding<'_>]) -> Vec<(u64, u64, u64)> {
    bindings.iter().map(|binding| binding.parts()).collect()
}
