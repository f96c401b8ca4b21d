//! Where barriers are: in which functions, and in which loops.
//!
//! A call of a function with a barrier is a barrier. Loops are listed in the order in which they
//! begin in the source, which is the order everywhere in this crate.

use naga::{Block, Module, Statement};

use super::super::limits::inner_blocks;
use super::functions;

/// See the module.
pub(in super::super) struct Barriers {
    /// By function, the entry point last.
    functions: Vec<bool>,
    /// Whether each loop of each of these functions has one within.
    pub(super) loops: Vec<Vec<bool>>,
}

impl Barriers {
    pub(super) fn of(module: &Module) -> Self {
        let mut barriers = Self { functions: Vec::new(), loops: Vec::new() };
        for function in functions(module) {
            let mut loops = Vec::new();
            let holds = barriers.look(&function.body, &mut loops);
            barriers.functions.push(holds);
            barriers.loops.push(loops);
        }
        barriers
    }

    pub(super) fn are_any(&self) -> bool {
        self.functions.iter().any(|holds| *holds)
    }

    fn look(&self, block: &Block, loops: &mut Vec<bool>) -> bool {
        let mut holds = false;
        for statement in block.iter() {
            let at = loops.len();
            let is_loop = matches!(statement, Statement::Loop { .. });
            if is_loop {
                loops.push(false);
            }
            let mut here = match statement {
                Statement::ControlBarrier(_)
                | Statement::MemoryBarrier(_)
                | Statement::WorkGroupUniformLoad { .. } => true,
                // Callees come first.
                Statement::Call { function, .. } => self.functions[function.index()],
                _ => false,
            };
            for inner in inner_blocks(statement) {
                here |= self.look(inner, loops);
            }
            if is_loop {
                loops[at] = here;
            }
            holds |= here;
        }
        holds
    }
}
