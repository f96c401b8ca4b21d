//! A submission on the fake device, as far as it has come, and the memory it works on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Costs, nanos};
use crate::Error;
use crate::device::{Block, End, Span};
use crate::kernel::interpret::{Bound, Buffers, Dispatch, Execution, Program};
use crate::kernel::{CONTROL_WORDS, trap, word};

/// All blocks that are there, those that were given back but are in use as well.
#[derive(Debug, Default)]
pub(super) struct Memory {
    blocks: BTreeMap<Block, Vec<u8>>,
}

impl Memory {
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// A new block, all zeros.
    ///
    /// # Errors
    /// This machine has no such memory.
    pub(super) fn add(&mut self, block: Block, bytes: u64) -> Result<(), Error> {
        let full = || Error::Memory { bytes };
        let length = usize::try_from(bytes).map_err(|_| full())?;
        let mut zeros = Vec::new();
        zeros.try_reserve_exact(length).map_err(|_| full())?;
        zeros.resize(length, 0);
        self.blocks.insert(block, zeros);
        Ok(())
    }

    pub(super) fn keep(&mut self, is_kept: impl Fn(Block) -> bool) {
        self.blocks.retain(|block, _| is_kept(*block));
    }

    /// Bytes that were found to be there.
    ///
    /// # Panics
    /// If they are not.
    pub(super) fn at(&mut self, span: &Span) -> &mut [u8] {
        let block = self.blocks.get_mut(&span.block).expect("the span was checked");
        &mut block[range(span)]
    }
}

fn range(span: &Span) -> std::ops::Range<usize> {
    // What is in memory fits.
    span.offset as usize..(span.offset + span.bytes) as usize
}

/// A step that was checked, with all it needs.
#[derive(Debug)]
pub(super) enum Job {
    Fill {
        at: Span,
        word: u32,
    },
    Copy {
        from: Span,
        to: Span,
    },
    Run {
        program: Arc<Program>,
        /// And whether it writes each.
        bindings: Vec<(Span, bool)>,
        grid: [u32; 3],
        from: [u32; 3],
        groups: [u32; 3],
        fuel: u32,
    },
}

/// A dispatch that was begun.
#[derive(Debug)]
struct Running {
    execution: Execution,
    /// Each block once.
    blocks: Vec<Block>,
    bindings: Vec<Bound>,
    control: Vec<u8>,
    /// What the work had taken when this began.
    began: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Work {
    jobs: VecDeque<Job>,
    running: Option<Running>,
    /// Nanoseconds until now. What is paid for in advance is not among them.
    took: u64,
    /// Nanoseconds that the next step still takes before it does something.
    due: Option<u64>,
    end: End,
    is_cancelled: bool,
    uses: [Vec<Span>; 2],
}

impl Work {
    pub(super) fn new(jobs: VecDeque<Job>) -> Self {
        let [mut reads, mut writes] = [Vec::new(), Vec::new()];
        for job in &jobs {
            match job {
                Job::Fill { at, .. } => writes.push(*at),
                Job::Copy { from, to } => {
                    reads.push(*from);
                    writes.push(*to);
                }
                Job::Run { bindings, .. } => {
                    for (span, is_written) in bindings {
                        let spans = if *is_written { &mut writes } else { &mut reads };
                        spans.push(*span);
                    }
                }
            }
        }
        Self {
            jobs,
            running: None,
            took: 0,
            due: None,
            end: End::Whole,
            is_cancelled: false,
            uses: [reads, writes],
        }
    }

    /// What it has taken, in nanoseconds.
    pub(super) fn took(&self) -> u64 {
        self.took
    }

    /// What it reads, and what it writes.
    pub(super) fn uses(&self) -> [&[Span]; 2] {
        [&self.uses[0], &self.uses[1]]
    }

    pub(super) fn take_uses(&mut self) -> [Vec<Span>; 2] {
        std::mem::take(&mut self.uses)
    }

    /// Has its kernels end when they look.
    pub(super) fn cancel(&mut self) {
        self.is_cancelled = true;
        if let Some(running) = &mut self.running {
            set_word(&mut running.control, word::CANCEL, 1);
        }
    }

    /// Goes on for so many nanoseconds, or a little more. How it ended, if it has.
    pub(super) fn advance(
        &mut self,
        memory: &mut Memory,
        costs: &Costs,
        time: u64,
    ) -> Option<Result<End, Error>> {
        let until = self.took.saturating_add(time);
        while self.running.is_some() || !self.jobs.is_empty() {
            if self.took >= until {
                return None;
            }
            let Some(mut running) = self.running.take() else {
                self.begin(memory, costs, until);
                continue;
            };
            match running.advance(memory, costs, &mut self.took, until) {
                Ok(true) => self.note(word_at(&running.control, word::TRAP)),
                Ok(false) => self.running = Some(running),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(self.end))
    }

    /// Pays for the next step and does it, or begins it if it is a dispatch.
    fn begin(&mut self, memory: &mut Memory, costs: &Costs, until: u64) {
        let due = self.due.take().unwrap_or_else(|| {
            let bytes = match self.jobs.front() {
                Some(Job::Fill { at, .. }) => at.bytes,
                Some(Job::Copy { from, .. }) => from.bytes,
                Some(Job::Run { .. }) | None => 0,
            };
            nanos(costs.step).saturating_add(time_of(bytes, costs.bytes_per_micro))
        });
        let paid = due.min(until - self.took);
        self.took += paid;
        if paid < due {
            self.due = Some(due - paid);
            return;
        }
        match self.jobs.pop_front() {
            Some(Job::Fill { at, word }) => {
                for bytes in memory.at(&at).chunks_exact_mut(4) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
            }
            Some(Job::Copy { from, to }) => {
                let bytes = memory.at(&from).to_vec();
                memory.at(&to).copy_from_slice(&bytes);
            }
            Some(Job::Run { program, bindings, grid, from, groups, fuel }) => {
                let dispatch = Dispatch { grid, from, groups };
                let mut running = Running::new(program, dispatch, &bindings, self.took);
                let control = &mut running.control;
                set_word(control, word::CANCEL, u32::from(self.is_cancelled));
                set_word(control, word::FUEL, fuel);
                for (at, groups) in word::GROUPS.into_iter().zip(grid) {
                    set_word(control, at, groups);
                }
                self.running = Some(running);
            }
            None => {}
        }
    }

    /// The first that was ended early says how the work ended.
    fn note(&mut self, why: u32) {
        self.end = match (self.end, why) {
            (End::Whole, 0) => End::Whole,
            (End::Whole, trap::FUEL) => End::Fuel,
            (End::Whole, _) => End::Cancelled,
            (end, _) => end,
        };
    }
}

impl Running {
    fn new(program: Arc<Program>, dispatch: Dispatch, spans: &[(Span, bool)], began: u64) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let mut bindings = Vec::new();
        for (span, _) in spans {
            let found = blocks.iter().position(|block| *block == span.block);
            let block = found.unwrap_or_else(|| {
                blocks.push(span.block);
                blocks.len() - 1
            });
            let range = range(span);
            bindings.push(Bound { block, from: range.start, bytes: range.len() });
        }
        // The control buffer comes behind all of them.
        let control = vec![0; CONTROL_WORDS * 4];
        bindings.push(Bound { block: blocks.len(), from: 0, bytes: control.len() });
        let execution = Execution::new(program, dispatch);
        Self { execution, blocks, bindings, control, began }
    }

    /// Goes on. Whether it is done.
    fn advance(
        &mut self,
        memory: &mut Memory,
        costs: &Costs,
        took: &mut u64,
        until: u64,
    ) -> Result<bool, Error> {
        let rate = costs.operations_per_micro.max(1);
        let time = u128::from(until - self.began);
        let operations = u64::try_from(time * u128::from(rate) / 1000).unwrap_or(u64::MAX);
        // At least one, so that it comes to an end.
        let operations = operations.max(self.execution.spent().saturating_add(1));
        let mut take = |block| memory.blocks.get_mut(block).map(std::mem::take).unwrap_or_default();
        let mut blocks: Vec<Vec<u8>> = self.blocks.iter().map(&mut take).collect();
        blocks.push(std::mem::take(&mut self.control));
        let mut buffers = Buffers { blocks, bindings: std::mem::take(&mut self.bindings) };
        let done = self.execution.run(&mut buffers, operations);
        self.bindings = buffers.bindings;
        self.control = buffers.blocks.pop().unwrap_or_default();
        for (block, bytes) in self.blocks.iter().zip(buffers.blocks) {
            memory.blocks.insert(*block, bytes);
        }
        *took = self.began.saturating_add(time_of(self.execution.spent(), rate));
        done.map_err(|why| Error::Driver(why.to_string()))
    }
}

/// Nanoseconds for so many, at so many in a microsecond, rounded up.
fn time_of(count: u64, per_micro: u64) -> u64 {
    let time = (u128::from(count) * 1000).div_ceil(u128::from(per_micro.max(1)));
    u64::try_from(time).unwrap_or(u64::MAX)
}

fn word_at(bytes: &[u8], at: u32) -> u32 {
    let word = bytes.get(at as usize * 4..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

fn set_word(bytes: &mut [u8], at: u32, word: u32) {
    if let Some(to) = bytes.get_mut(at as usize * 4..).and_then(<[u8]>::first_chunk_mut) {
        *to = word.to_le_bytes();
    }
}
