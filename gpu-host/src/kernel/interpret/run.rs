//! One invocation: operations one after the other, up to a barrier, its end, or the end of what
//! may be spent now.

use super::buffers::Buffers;
use super::program::{Arg, At, Count, NOWHERE, Op, Place, Program, WHOLE_WORDS_MAX, Whole};

/// Why an invocation stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is at a barrier or its end, and stays there.
    Arrived,
    /// It has spent what it may for now.
    Paused,
}

/// What was spent, and up to where that may go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter {
    pub(super) spent: u64,
    /// It stops with the first operation that comes to this or more.
    pub(super) until: u64,
}

/// All that an invocation reaches.
pub(super) struct Memory<'a> {
    pub(super) own: &'a mut [u32],
    pub(super) shared: &'a mut [u32],
    pub(super) buffers: &'a mut Buffers,
}

/// Goes on from a place in the code, which is kept.
pub(super) fn run(
    program: &Program,
    code: &mut u32,
    memory: &mut Memory<'_>,
    meter: &mut Meter,
) -> Stop {
    while meter.spent < meter.until {
        let at = *code as usize;
        meter.spent += program.costs[at];
        *code += 1;
        match program.ops[at] {
            Op::Jump { to } => *code = to,
            Op::JumpUnless { word, to } => {
                if memory.word(word) == 0 {
                    *code = to;
                }
            }
            Op::Switch { word, table } => {
                let table = &program.tables[table as usize];
                let value = memory.word(word);
                let found = table.cases.binary_search_by_key(&value, |case| case.0);
                *code = found.map_or(table.otherwise, |case| table.cases[case].1);
            }
            Op::Call { function } => {
                let entry = program.functions[function as usize];
                memory.set(entry.back, *code);
                *code = entry.code;
            }
            Op::Return { word } => *code = memory.word(word),
            Op::Barrier | Op::End => {
                *code -= 1;
                return Stop::Arrived;
            }
            ref op => memory.compute(op),
        }
    }
    Stop::Paused
}

impl Memory<'_> {
    fn word(&self, at: u32) -> u32 {
        self.own[at as usize]
    }

    fn set(&mut self, at: u32, word: u32) {
        self.own[at as usize] = word;
    }

    /// What is neither control flow nor a barrier.
    fn compute(&mut self, op: &Op) {
        match *op {
            Op::Copy { to, from, words } => {
                let from = from as usize..(from + words) as usize;
                self.own.copy_within(from, to as usize);
            }
            Op::Zero { to, words } => self.own[to as usize..(to + words) as usize].fill(0),
            Op::Gather { to, from, words } => {
                for (to, from) in (to..to + words).zip(from) {
                    self.set(to, self.word(from));
                }
            }
            Op::Map1 { f, to, from, words } => {
                for at in 0..words {
                    self.set(to + at, f(self.word(from + at)));
                }
            }
            Op::Map2 { f, to, args: [left, right], words } => {
                for at in 0..words {
                    let result = f(self.component(left, at), self.component(right, at));
                    self.set(to + at, result);
                }
            }
            Op::Map4 { f, to, args, words } => {
                for at in 0..words {
                    self.set(to + at, f(args.map(|arg| self.component(arg, at))));
                }
            }
            Op::Fold { f, to, from, words } => {
                let first = self.word(from);
                let all = (from + 1..from + words).map(|at| self.word(at)).fold(first, f);
                self.set(to, all);
            }
            Op::Apply { f, to, words, args } => self.apply(f, to, words, args),
            Op::Product { to, left, right, rows, inner, columns } => {
                self.product(to, [left, right], [rows, inner, columns]);
            }
            _ => self.reach(op),
        }
    }

    /// What has to do with places that are known only now.
    fn reach(&mut self, op: &Op) {
        match *op {
            Op::Pick { to, from, index, count, words } => {
                let index = self.word(index);
                if index < count {
                    let from = (from + index * words) as usize;
                    self.own.copy_within(from..from + words as usize, to as usize);
                } else {
                    self.own[to as usize..(to + words) as usize].fill(0);
                }
            }
            Op::Element { to, array, index, count, stride } => {
                let offset = self.element(array, self.word(index), count, stride);
                self.set(to, offset.unwrap_or(NOWHERE));
            }
            Op::Offset { to, at } => self.set(to, self.offset(at).unwrap_or(NOWHERE)),
            Op::Length { to, binding, array, stride } => {
                self.set(to, self.length(binding, self.offset(array), stride));
            }
            Op::Load { to, from, words } => {
                for at in 0..words {
                    self.set(to + at, self.load(from, at).unwrap_or(0));
                }
            }
            Op::Store { to, from, words } => {
                for at in 0..words {
                    self.store(to, at, self.word(from + at));
                }
            }
            Op::Atomic { f, at, value, to } => {
                let old = self.load(at, 0).unwrap_or(0);
                self.store(at, 0, f(old, self.word(value)));
                self.set(to, old);
            }
            Op::Exchange { at, expected, value, to } => {
                let old = self.load(at, 0);
                let is_exchanged = old == Some(self.word(expected));
                if is_exchanged {
                    self.store(at, 0, self.word(value));
                }
                self.set(to, old.unwrap_or(0));
                self.set(to + 1, u32::from(is_exchanged));
            }
            // Those that `run` does itself.
            _ => {}
        }
    }

    fn component(&self, arg: Arg, at: u32) -> u32 {
        self.word(arg.at + at * arg.step)
    }

    fn apply(&mut self, f: Whole, to: u32, words: u32, args: [(u32, u32); 3]) {
        let mut given = [0; WHOLE_WORDS_MAX];
        let mut length = 0;
        for (at, words) in args {
            let (at, words) = (at as usize, words as usize);
            given[length..length + words].copy_from_slice(&self.own[at..at + words]);
            length += words;
        }
        f(&given[..length], &mut self.own[to as usize..(to + words) as usize]);
    }

    fn product(&mut self, to: u32, [left, right]: [u32; 2], [rows, inner, columns]: [u32; 3]) {
        for column in 0..columns {
            for row in 0..rows {
                let mut sum = 0.0;
                for at in 0..inner {
                    let left = f32::from_bits(self.word(left + at * rows + row));
                    let right = f32::from_bits(self.word(right + column * inner + at));
                    sum += left * right;
                }
                self.set(to + column * rows + row, sum.to_bits());
            }
        }
    }

    /// Where an offset is, unless out of range.
    fn offset(&self, at: At) -> Option<u32> {
        match at.base.map(|base| self.word(base)) {
            Some(NOWHERE) => None,
            Some(base) => base.checked_add(at.add),
            None => Some(at.add),
        }
    }

    fn element(&self, array: At, index: u32, count: Count, stride: u32) -> Option<u32> {
        let array = self.offset(array)?;
        let count = match count {
            Count::Fixed(count) => count,
            Count::Rest { binding } => self.length(binding, Some(array), stride),
        };
        let is_inside = index < count;
        is_inside.then(|| index.checked_mul(stride)?.checked_add(array)).flatten()
    }

    /// Whole elements between an offset and the end of a binding.
    fn length(&self, binding: u32, array: Option<u32>, stride: u32) -> u32 {
        let rest = array.map_or(0, |array| self.buffers.bytes(binding).saturating_sub(array));
        rest.checked_div(stride).unwrap_or(0)
    }

    /// A word behind a place, if it is in range.
    fn load(&self, place: Place, word: u32) -> Option<u32> {
        match place {
            Place::Own(at) => self.own.get(self.offset(at)?.checked_add(word)? as usize).copied(),
            Place::Shared(at) => {
                self.shared.get(self.offset(at)?.checked_add(word)? as usize).copied()
            }
            Place::Bound { binding, at } => {
                let offset = self.offset(at)?.checked_add(word * 4)?;
                self.buffers.has(binding, offset).then(|| self.buffers.load(binding, offset))
            }
        }
    }

    /// Changes a word behind a place, if it is in range.
    fn store(&mut self, place: Place, word: u32, value: u32) {
        let (Place::Own(at) | Place::Shared(at) | Place::Bound { at, .. }) = place;
        let Some(offset) = self.offset(at) else {
            return;
        };
        match place {
            Place::Own(_) => {
                if let Some(to) = self.own.get_mut((offset + word) as usize) {
                    *to = value;
                }
            }
            Place::Shared(_) => {
                if let Some(to) = self.shared.get_mut((offset + word) as usize) {
                    *to = value;
                }
            }
            Place::Bound { binding, .. } => {
                if let Some(offset) = offset.checked_add(word * 4) {
                    self.buffers.store(binding, offset, value);
                }
            }
        }
    }
}
