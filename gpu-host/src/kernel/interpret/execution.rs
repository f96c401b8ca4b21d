//! Some groups of a dispatch, one after the other, with a pause wherever one is wanted.

use std::sync::Arc;

use super::Stuck;
use super::buffers::Buffers;
use super::program::{Input, Op, Program};
use super::run::{Memory, Meter, Stop, run};

/// Words of an invocation that begin for the price of an operation.
const BEGIN_WORDS: usize = 64;

/// Which groups of which dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatch {
    /// Groups of the whole dispatch.
    pub(crate) grid: [u32; 3],
    /// The first that are run, and how many. They are inside of the whole.
    pub(crate) from: [u32; 3],
    pub(crate) groups: [u32; 3],
}

/// Work that goes on whenever it is told to; see the module.
#[derive(Debug)]
pub(crate) struct Execution {
    program: Arc<Program>,
    dispatch: Dispatch,
    /// The next group, counted from the first that is run; none if there is no more.
    next: Option<[u32; 3]>,
    group: Group,
    /// The group was begun and has not ended.
    is_inside: bool,
    meter: Meter,
}

/// All invocations of one group.
#[derive(Debug)]
struct Group {
    /// Words of each invocation, one after the other.
    words: Vec<u32>,
    shared: Vec<u32>,
    /// Where each is in the code.
    codes: Vec<u32>,
    /// The one whose turn it is.
    turn: usize,
}

impl Execution {
    /// Work that has not begun.
    pub(crate) fn new(program: Arc<Program>, dispatch: Dispatch) -> Self {
        let is_empty = dispatch.groups.contains(&0);
        let group = Group { words: Vec::new(), shared: Vec::new(), codes: Vec::new(), turn: 0 };
        Self {
            program,
            dispatch,
            next: (!is_empty).then_some([0; 3]),
            group,
            is_inside: false,
            meter: Meter::default(),
        }
    }

    /// What was spent: operations, and more for those that move much.
    pub(crate) fn spent(&self) -> u64 {
        self.meter.spent
    }

    /// Goes on until so much is spent in all, or a little more. Says whether all is done.
    ///
    /// # Errors
    /// A barrier that not all invocations reach; then there is no going on.
    pub(crate) fn run(&mut self, buffers: &mut Buffers, until: u64) -> Result<bool, Stuck> {
        self.meter.until = until;
        loop {
            if !self.is_inside {
                let Some(next) = self.next else {
                    return Ok(true);
                };
                if self.meter.spent >= until {
                    return Ok(false);
                }
                self.begin(next);
            }
            if !self.group.run(&self.program, buffers, &mut self.meter)? {
                return Ok(false);
            }
            self.is_inside = false;
        }
    }

    fn begin(&mut self, next: [u32; 3]) {
        let [x, y, z] = self.dispatch.groups;
        self.next = match next {
            [a, b, c] if a + 1 < x => Some([a + 1, b, c]),
            [_, b, c] if b + 1 < y => Some([0, b + 1, c]),
            [_, _, c] if c + 1 < z => Some([0, 0, c + 1]),
            _ => None,
        };
        let number = std::array::from_fn(|axis| self.dispatch.from[axis] + next[axis]);
        self.group.begin(&self.program, number, self.dispatch.grid);
        // That they begin is not free either: their words are copied.
        let each = 1 + self.program.image.len() / BEGIN_WORDS;
        self.meter.spent += (self.group.codes.len() * each) as u64;
        self.is_inside = true;
    }
}

impl Group {
    fn begin(&mut self, program: &Program, number: [u32; 3], grid: [u32; 3]) {
        let [x, y, z] = program.threads;
        let count = (x * y * z) as usize;
        self.words.clear();
        self.shared.clear();
        self.shared.resize(program.shared_words as usize, 0);
        self.codes.clear();
        self.codes.resize(count, 0);
        self.turn = 0;
        for index in 0..x * y * z {
            let begins = self.words.len();
            self.words.extend_from_slice(&program.image);
            let local = [index % x, index / x % y, index / (x * y)];
            for &(word, input) in &program.inputs {
                let values = match input {
                    Input::Local => local,
                    Input::Group => number,
                    Input::Groups => grid,
                    Input::Threads => program.threads,
                    Input::Global => std::array::from_fn(|axis| {
                        number[axis].wrapping_mul(program.threads[axis]).wrapping_add(local[axis])
                    }),
                    Input::Index => [index, 0, 0],
                };
                let words = if input == Input::Index { 1 } else { 3 };
                let at = begins + word as usize;
                self.words[at..at + words].copy_from_slice(&values[..words]);
            }
        }
    }

    /// Whether all of it is done.
    fn run(
        &mut self,
        program: &Program,
        buffers: &mut Buffers,
        meter: &mut Meter,
    ) -> Result<bool, Stuck> {
        let length = program.image.len();
        loop {
            while let Some(code) = self.codes.get_mut(self.turn) {
                let own = &mut self.words[self.turn * length..][..length];
                let mut memory = Memory { own, shared: &mut self.shared, buffers: &mut *buffers };
                if run(program, code, &mut memory, meter) == Stop::Paused {
                    return Ok(false);
                }
                self.turn += 1;
            }
            if self.codes.iter().all(|&code| matches!(program.ops[code as usize], Op::End)) {
                return Ok(true);
            }
            let first = self.codes.first().copied();
            if self.codes.iter().any(|&code| Some(code) != first) {
                return Err(Stuck::Barrier);
            }
            for code in &mut self.codes {
                *code += 1;
            }
            self.turn = 0;
        }
    }
}
