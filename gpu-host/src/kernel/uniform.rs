//! Whether all invocations of a workgroup reach a barrier together, and how loops are counted so
//! that they still do when fuel runs out.
//!
//! A value is *uniform* if it is the same in all invocations of a workgroup, control flow if all of
//! them take it. What is not known to be uniform *varies*. Assumed at first is that nothing varies
//! but what is read from memory that can be written, and what is told each invocation of itself;
//! then all that follows is found, again and again, until nothing new comes. Variables vary or not
//! as a whole and for good, whatever the order of what is done to them; functions have one answer
//! for all their calls. So kernels may be refused that would do, but none is taken that would not.
//! The rules are those of the analysis in the WGSL specification, coarser. See also Coutinho,
//! Sampaio, Pereira and Meira, "Divergence Analysis and Optimizations" (2011), for the same idea in
//! compilers.
//!
//! Loops that run out of fuel end early, at another iteration in each invocation unless all have
//! made as many before. So there are two ways to count them (`Counting`):
//!
//! - *Alone*: for each invocation, in loops which need not be uniform. What is written in such a
//!   loop varies.
//! - *Together*: in loops that hold a barrier, which are uniform. A second counter is spent by
//!   these alone, and so is the same in all invocations of a workgroup at any time.
//!
//! If a kernel is only right with other loops uniform as well, all that can be are counted
//! together. All of these look together whether they are cancelled: where they begin an iteration
//! a barrier is in place.
//!
//! Relies on buffers: no two that a kernel is given overlap, unless it only reads both.

mod barriers;
mod values;

use naga::{
    AddressSpace, Block, Expression, Function, GlobalVariable, Handle, LocalVariable, Module, Span,
    Statement,
};

use super::limits::line;
use super::rejected::Rejected;
use barriers::Barriers;
use values::Root;

/// How the iterations of a loop are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// By each invocation for itself.
    Alone,
    /// By all invocations of a workgroup alike, which look together whether they are cancelled.
    Together,
}

/// How all loops of a kernel are counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// By function, the entry point last: its loops in the order in which they begin in the source.
    pub loops: Vec<Vec<Counting>>,
    pub has_barriers: bool,
}

/// Refuses barriers that are not in uniform control flow.
pub(super) fn check(module: &Module, source: &str) -> Result<Counts, Rejected> {
    let barriers = Barriers::of(module);
    if !barriers.are_any() {
        let alone = barriers.loops.iter().map(|loops| vec![Counting::Alone; loops.len()]);
        return Ok(Counts { loops: alone.collect(), has_barriers: false });
    }
    let mut flow = Flow::new(module, &barriers, true);
    flow.settle();
    if flow.wrong.is_some() {
        flow = Flow::new(module, &barriers, false);
        flow.settle();
    }
    if let Some((span, why)) = flow.wrong {
        return Err(Rejected::Barrier { line: line(span, source), why });
    }
    Ok(Counts { loops: flow.counting(), has_barriers: true })
}

/// Which ways out of a construct some invocations may take and others not.
#[derive(Clone, Copy, Default)]
struct Exits {
    breaks: bool,
    continues: bool,
    returns: bool,
}

impl Exits {
    fn any(self) -> bool {
        self.breaks || self.continues || self.returns
    }

    fn or(self, other: Self) -> Self {
        Self {
            breaks: self.breaks || other.breaks,
            continues: self.continues || other.continues,
            returns: self.returns || other.returns,
        }
    }
}

/// What varies; only ever more of it.
struct Flow<'m> {
    module: &'m Module,
    functions: Vec<&'m Function>,
    /// By function, the entry point last.
    arguments: Vec<Vec<bool>>,
    locals: Vec<Vec<bool>>,
    loops: Vec<Vec<bool>>,
    /// Results of functions.
    results: Vec<bool>,
    /// Functions that not all invocations may call together.
    calls: Vec<bool>,
    /// Variables of invocations; others are not looked up.
    globals: Vec<bool>,
    has_changed: bool,
    /// A barrier that varies, and why it does.
    wrong: Option<(Span, &'static str)>,
}

/// One function on one way through all of them.
struct Place {
    function: usize,
    /// Which of its expressions vary.
    values: Vec<bool>,
    /// Loops that have begun so far.
    loops: usize,
}

impl<'m> Flow<'m> {
    /// `is_free` leaves loops without a barrier out of what has to be uniform.
    fn new(module: &'m Module, barriers: &Barriers, is_free: bool) -> Self {
        let functions = || functions(module);
        let loops = barriers.loops.iter();
        Self {
            module,
            functions: functions().collect(),
            arguments: functions().map(|it| vec![false; it.arguments.len()]).collect(),
            locals: functions().map(|it| vec![false; it.local_variables.len()]).collect(),
            loops: loops
                .map(|loops| loops.iter().map(|holds| is_free && !holds).collect())
                .collect(),
            results: vec![false; functions().count()],
            calls: vec![false; functions().count()],
            globals: vec![false; module.global_variables.len()],
            has_changed: false,
            wrong: None,
        }
    }

    /// Goes through all functions until nothing more is found: as often as there are things that
    /// may vary, at most.
    fn settle(&mut self) {
        loop {
            self.has_changed = false;
            self.wrong = None;
            // Callers first: what they pass on is then known.
            for at in (0..self.functions.len()).rev() {
                let function = self.functions[at];
                let values = self.values(at, function);
                let mut place = Place { function: at, values, loops: 0 };
                self.block(&mut place, &function.body, self.calls[at]);
            }
            if !self.has_changed {
                return;
            }
        }
    }

    fn counting(&self) -> Vec<Vec<Counting>> {
        let counting = |varies: &bool| match varies {
            true => Counting::Alone,
            false => Counting::Together,
        };
        self.loops.iter().map(|loops| loops.iter().map(counting).collect()).collect()
    }

    fn block(&mut self, place: &mut Place, block: &Block, varies: bool) -> Exits {
        let mut exits = Exits::default();
        for (statement, span) in block.span_iter() {
            // Behind a way out that only some take, the others are alone.
            let varies = varies || exits.any();
            exits = exits.or(self.statement(place, (statement, *span), varies));
        }
        exits
    }

    fn statement(
        &mut self,
        place: &mut Place,
        (statement, span): (&Statement, Span),
        varies: bool,
    ) -> Exits {
        match statement {
            Statement::Block(block) => return self.block(place, block, varies),
            Statement::If { condition, accept, reject } => {
                let varies = varies || place.varies(*condition);
                let exits = self.block(place, accept, varies);
                return exits.or(self.block(place, reject, varies));
            }
            Statement::Switch { selector, cases } => {
                let mut varies = varies || place.varies(*selector);
                let mut exits = Exits::default();
                for case in cases {
                    exits = exits.or(self.block(place, &case.body, varies));
                    varies |= case.fall_through && exits.any();
                }
                // All come together behind it.
                return Exits { breaks: false, ..exits };
            }
            Statement::Loop { body, continuing, break_if } => {
                let last = break_if.is_some_and(|condition| place.varies(condition));
                return self.iterate(place, [body, continuing], last, varies);
            }
            Statement::Break => return Exits { breaks: varies, ..Exits::default() },
            Statement::Continue => return Exits { continues: varies, ..Exits::default() },
            Statement::Return { value } => {
                let value_varies = value.is_some_and(|value| place.varies(value));
                self.result_varies(place.function, varies || value_varies);
                return Exits { returns: varies, ..Exits::default() };
            }
            Statement::Store { pointer, value }
                if varies || place.varies(*pointer) || place.varies(*value) =>
            {
                self.root_varies(place.function, *pointer);
            }
            Statement::Call { function, arguments, .. } => {
                self.call(place, *function, arguments, varies);
            }
            Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) if varies => {
                let why = "a barrier that not all invocations of a workgroup may reach";
                self.wrong.get_or_insert((span, why));
            }
            Statement::WorkGroupUniformLoad { pointer, .. } => {
                let why = "a uniform load that not all invocations of a workgroup may make alike";
                if varies || place.varies(*pointer) {
                    self.wrong.get_or_insert((span, why));
                }
            }
            _ => {}
        }
        Exits::default()
    }

    /// A loop varies as a whole: who has left it misses what the others do.
    fn iterate(
        &mut self,
        place: &mut Place,
        blocks: [&Block; 2],
        last_varies: bool,
        varies: bool,
    ) -> Exits {
        let at = place.loops;
        place.loops += 1;
        let inside = varies || self.loops[place.function][at];
        let [body, continuing] = blocks;
        let exits = self.block(place, body, inside);
        let exits = exits.or(self.block(place, continuing, inside));
        if inside || last_varies || exits.any() {
            note(&mut self.loops[place.function][at], &mut self.has_changed);
        }
        Exits { returns: exits.returns, ..Exits::default() }
    }

    fn call(
        &mut self,
        place: &Place,
        callee: Handle<Function>,
        arguments: &[Handle<Expression>],
        varies: bool,
    ) {
        if varies {
            note(&mut self.calls[callee.index()], &mut self.has_changed);
        }
        for (at, argument) in arguments.iter().enumerate() {
            if place.varies(*argument) {
                note(&mut self.arguments[callee.index()][at], &mut self.has_changed);
            }
            // By a pointer anything may be written.
            self.root_varies(place.function, *argument);
        }
    }

    fn result_varies(&mut self, function: usize, varies: bool) {
        if varies {
            note(&mut self.results[function], &mut self.has_changed);
        }
    }

    /// The variable that an expression points into varies, if it points into one.
    fn root_varies(&mut self, function: usize, pointer: Handle<Expression>) {
        match self.root(function, pointer) {
            Root::Local(local) => {
                note(&mut self.locals[function][local.index()], &mut self.has_changed);
            }
            Root::Global(global) => {
                note(&mut self.globals[global.index()], &mut self.has_changed);
            }
            Root::Argument | Root::None => {}
        }
    }

    fn root(&self, function: usize, pointer: Handle<Expression>) -> Root {
        Root::of(&self.functions[function].expressions, pointer)
    }

    fn local_varies(&self, function: usize, local: Handle<LocalVariable>) -> bool {
        self.locals[function][local.index()]
    }

    /// Whether what is read from a variable may vary even where all read the same part of it.
    fn global_varies(&self, handle: Handle<GlobalVariable>) -> bool {
        match self.module.global_variables[handle].space {
            AddressSpace::Uniform => false,
            AddressSpace::Storage { access } => access.contains(naga::StorageAccess::STORE),
            AddressSpace::Private => self.globals[handle.index()],
            _ => true,
        }
    }
}

impl Place {
    fn varies(&self, expression: Handle<Expression>) -> bool {
        self.values[expression.index()]
    }
}

/// All functions, the entry point last.
fn functions(module: &Module) -> impl Iterator<Item = &Function> {
    let entry = module.entry_points.iter().map(|entry| &entry.function);
    module.functions.iter().map(|(_, function)| function).chain(entry)
}

fn note(flag: &mut bool, has_changed: &mut bool) {
    *has_changed |= !*flag;
    *flag = true;
}

#[cfg(test)]
mod tests;
