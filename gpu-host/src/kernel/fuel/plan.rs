//! Which loops pay for each of their iterations, which for all of them before they begin, and which
//! are paid for already.
//!
//! - A loop of unknown length pays for each iteration as it comes.
//! - A loop of a known length (`known`) pays once, if it comes to no more than `ONCE_MAX` with all
//!   that it pays for: loops in it that are known as well and run in each of its iterations. So no
//!   iterations multiply beyond that between two payments. Nor does work: what is done for one
//!   payment is at most `ONCE_WORK_MAX`, else it pays for each iteration.
//! - What of this runs in each invocation, whatever it is told, is paid for by the entry point with
//!   all the rest of it, up to `FREE_MAX` of a kernel. There is no branch then that the driver
//!   would see: it can do with these loops as if they were written out.
//!
//! A loop that is counted together pays for each iteration, unless the entry point pays: beside a
//! barrier that is little, and drivers on the processor do worse with what they write out within.
//!
//! What is paid is what is done, to the iteration, and the same in each of the three ways: a loop
//! costs its iterations and one for the last look. Whoever cannot pay does not begin.
//!
//! Relies on the compiler's order: functions come before those that call them.

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{Block, Expression, Function, Handle, Module, Statement, TypeInner};

use super::known::{ITERATIONS_MAX, Known, Locals, Site};
use crate::kernel::limits::type_bytes;
use crate::kernel::uniform::{Counting, Counts};

/// The most that is paid for at once, in iterations.
pub(super) const ONCE_MAX: u32 = ITERATIONS_MAX + 1;
/// The most that each invocation is charged for whatever it does: what drivers write out.
pub(super) const FREE_MAX: u32 = 64;
/// The most operations that are done for one payment.
const ONCE_WORK_MAX: u64 = 1 << 19;
/// Operations that an invocation may take to find out by itself that it was cancelled before it
/// began, rather than be kept from beginning.
const LIGHT_MAX: u64 = 2048;

/// How a loop pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payment {
    /// For each iteration.
    Each,
    /// So many iterations before it begins.
    Once(u32),
    /// Not at all: what is around it has, for so many iterations each time.
    Paid(u32),
}

/// How all loops of a kernel pay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// By function, the entry point last: its loops in the order in which they begin in the source.
    pub(super) loops: Vec<Vec<Payment>>,
    /// Iterations that the entry point pays for.
    pub(super) free: u32,
    /// Operations of an invocation outside of loops that pay, at most.
    pub(super) rest: u64,
}

impl Plan {
    /// Of a module whose only entry point is the kernel's.
    pub(super) fn of(module: &Module, info: &ModuleInfo, counts: &Counts) -> Self {
        let functions = module.functions.iter().map(|(at, it)| Weights::of(module, it, &info[at]));
        let entries = module.entry_points.iter().enumerate();
        let entries =
            entries.map(|(at, it)| Weights::of(module, &it.function, info.get_entry_point(at)));
        let functions: Vec<Weights<'_>> = functions.chain(entries).collect();
        let mut walks: Vec<Walk<'_>> = Vec::with_capacity(functions.len());
        let mut work = Vec::with_capacity(functions.len());
        for weights in &functions {
            let walk = Walk::of(*weights, &work);
            work.push(weights.function_work(&walk.loops, &work));
            walks.push(walk);
        }
        let free = pay_first(&mut walks);
        for (walk, counts) in walks.iter_mut().zip(&counts.loops) {
            walk.pay_at_barriers(counts);
        }
        // Now with what is paid for by the entry point.
        work.clear();
        for (walk, weights) in walks.iter().zip(functions) {
            work.push(weights.function_work(&walk.loops, &work));
        }
        let loops = walks.into_iter().map(|walk| walk.loops.iter().map(|it| it.payment).collect());
        let loops = loops.collect();
        Self { loops, free, rest: work.last().copied().unwrap_or_default() }
    }

    /// Without the loops that pay an invocation is done soon.
    pub(super) fn is_light(&self) -> bool {
        self.rest <= LIGHT_MAX
    }

    /// Whether any loop pays for itself.
    pub(super) fn has_payers(&self) -> bool {
        self.loops.iter().flatten().any(|it| !matches!(it, Payment::Paid(_)))
    }
}

/// Lets the entry point pay for what every invocation does. How much that is.
fn pay_first(walks: &mut [Walk<'_>]) -> u32 {
    // How often each function is called by every invocation; none if by some, or in a loop.
    let mut times = vec![Some(0_u32); walks.len()];
    if let Some(entry) = times.last_mut() {
        *entry = Some(1);
    }
    let mut free = 0;
    // Callers first.
    for (at, walk) in walks.iter_mut().enumerate().rev() {
        for (callee, is_sure) in &walk.calls {
            let more = times[at].filter(|_| *is_sure);
            times[*callee] = times[*callee].zip(more).map(|(a, b)| a.saturating_add(b));
        }
        let Some(times) = times[at] else { continue };
        for it in walk.loops.iter_mut().filter(|it| it.is_sure && it.parent.is_none()) {
            let Payment::Once(cost) = it.payment else { continue };
            let cost = cost.saturating_mul(times);
            if cost <= FREE_MAX - free {
                free += cost;
                it.payment = Payment::Paid(it.iterations);
            }
        }
    }
    free
}

/// A loop of a function.
struct Loop {
    /// The loop around it.
    parent: Option<usize>,
    /// It runs in each iteration of that, or whenever the function does.
    is_sure: bool,
    /// If it is known: how many, and what it costs with what it pays for.
    iterations: u32,
    cost: u32,
    /// Operations for that.
    work: u64,
    payment: Payment,
}

/// Ways out of a block.
#[derive(Clone, Copy, Default)]
struct Ways {
    breaks: bool,
    continues: bool,
    returns: bool,
}

/// Where a block is.
#[derive(Clone, Copy)]
struct Place {
    parent: Option<usize>,
    is_sure: bool,
}

/// The loops and calls of one function.
struct Walk<'m> {
    weights: Weights<'m>,
    /// Operations of functions before.
    callees: Vec<u64>,
    locals: Locals<'m>,
    loops: Vec<Loop>,
    /// Which function, and whether in each run of this one, outside of loops.
    calls: Vec<(usize, bool)>,
}

impl<'m> Walk<'m> {
    fn of(weights: Weights<'m>, callees: &[u64]) -> Self {
        let Weights { module, function, .. } = weights;
        let (locals, callees) = (Locals::of(module, function), callees.to_vec());
        let (loops, calls) = (Vec::new(), Vec::new());
        let mut walk = Self { weights, callees, locals, loops, calls };
        walk.block(&function.body, 0, Place { parent: None, is_sure: true });
        walk
    }

    /// From one of its statements on.
    fn block(&mut self, block: &Block, from: usize, place: Place) -> Ways {
        let mut ways = Ways::default();
        for at in from..block.len() {
            let here = Place { is_sure: place.is_sure && !ways.any(), ..place };
            ways = ways.or(self.statement(block, at, here));
        }
        ways
    }

    fn statement(&mut self, block: &Block, at: usize, place: Place) -> Ways {
        let unsure = Place { is_sure: false, ..place };
        match &block[at] {
            Statement::Block(inner) => self.block(inner, 0, place),
            Statement::If { accept, reject, .. } => {
                let ways = self.block(accept, 0, unsure);
                ways.or(self.block(reject, 0, unsure))
            }
            Statement::Switch { cases, .. } => {
                let ways = cases
                    .iter()
                    .fold(Ways::default(), |ways, case| ways.or(self.block(&case.body, 0, unsure)));
                Ways { breaks: false, ..ways }
            }
            Statement::Loop { body, continuing, break_if } => {
                let before = &block[..at];
                let is_in_loop = place.parent.is_some();
                let site = Site { before, body, continuing, is_in_loop };
                self.iterate(&site, break_if.is_some(), place)
            }
            Statement::Break => Ways { breaks: true, ..Ways::default() },
            Statement::Continue => Ways { continues: true, ..Ways::default() },
            Statement::Return { .. } | Statement::Kill => Ways { returns: true, ..Ways::default() },
            Statement::Call { function, .. } => {
                let is_sure = place.is_sure && place.parent.is_none();
                self.calls.push((function.index(), is_sure));
                Ways::default()
            }
            _ => Ways::default(),
        }
    }

    fn iterate(&mut self, site: &Site<'_>, breaks_at_end: bool, place: Place) -> Ways {
        let at = self.loops.len();
        let Place { parent, is_sure } = place;
        let payment = Payment::Each;
        self.loops.push(Loop { parent, is_sure, iterations: 0, cost: 0, work: 0, payment });
        let known = self.locals.known(site);
        let inside = Place { parent: Some(at), is_sure: true };
        // The test is the one way out that it may have.
        let ways = self.block(site.body, known.map_or(0, |known| known.from), inside);
        let ways = ways.or(self.block(site.continuing, 0, inside));
        let is_as_known = |known: &Known| {
            let has_other = ways.breaks || ways.returns || breaks_at_end;
            let may_pass_step = known.steps_in_body && ways.continues;
            !has_other && !may_pass_step
        };
        if let Some(known) = known.filter(is_as_known) {
            let (loops, callees) = (self.loops[at + 1..].iter(), &self.callees[..]);
            let mut measure = Measure { weights: self.weights, loops, callees };
            let work = measure.block(site.body).saturating_add(measure.block(site.continuing));
            self.pay(at, known.iterations, work);
        }
        Ways { returns: ways.returns, ..Ways::default() }
    }

    /// A loop that is known pays for all, and for what is known in it, if an iteration is so much
    /// work without that.
    fn pay(&mut self, at: usize, iterations: u32, work: u64) {
        let mut cost = iterations + 1;
        let mut work = work.saturating_mul(cost.into());
        if work > ONCE_WORK_MAX {
            return;
        }
        for it in &mut self.loops[at + 1..] {
            let Payment::Once(inner) = it.payment else { continue };
            if it.parent != Some(at) || !it.is_sure {
                continue;
            }
            let with_it = inner.checked_mul(iterations).and_then(|more| cost.checked_add(more));
            let work_with_it = it.work.saturating_mul(iterations.into()).saturating_add(work);
            let with_it = with_it.filter(|cost| *cost <= ONCE_MAX && work_with_it <= ONCE_WORK_MAX);
            if let Some(with_it) = with_it {
                (cost, work) = (with_it, work_with_it);
                it.payment = Payment::Paid(it.iterations);
            }
        }
        let it = &mut self.loops[at];
        it.iterations = iterations;
        it.cost = cost;
        it.work = work;
        it.payment = Payment::Once(cost);
    }

    /// Lets loops that are counted together pay for each iteration, and loops in them for
    /// themselves.
    fn pay_at_barriers(&mut self, counts: &[Counting]) {
        for (at, counting) in counts.iter().enumerate() {
            let is_alone = *counting == Counting::Alone;
            if is_alone || !matches!(self.loops[at].payment, Payment::Once(_)) {
                continue;
            }
            self.loops[at].payment = Payment::Each;
            let inner = self.loops[at + 1..].iter_mut().filter(|it| it.parent == Some(at));
            for it in inner.filter(|it| matches!(it.payment, Payment::Paid(_))) {
                it.payment = Payment::Once(it.cost);
            }
        }
    }
}

impl Ways {
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

/// What is counted of a function.
#[derive(Clone, Copy)]
struct Weights<'m> {
    module: &'m Module,
    function: &'m Function,
    info: &'m FunctionInfo,
}

impl<'m> Weights<'m> {
    fn of(module: &'m Module, function: &'m Function, info: &'m FunctionInfo) -> Self {
        Self { module, function, info }
    }

    /// Operations of the function. Its variables are all zeros at first.
    fn function_work(self, loops: &[Loop], callees: &[u64]) -> u64 {
        let locals = self.function.local_variables.iter();
        let types = locals.map(|(_, local)| &self.module.types[local.ty].inner);
        let cleared = types.map(|inner| self.words(inner)).fold(0, u64::saturating_add);
        let mut measure = Measure { weights: self, loops: loops.iter(), callees };
        measure.block(&self.function.body).saturating_add(cleared)
    }

    /// What it is to have a value.
    fn value(self, value: Handle<Expression>) -> u64 {
        self.words(self.info[value].ty.inner_with(&self.module.types))
    }

    /// A value that is no number is as many as it has words.
    fn words(self, inner: &TypeInner) -> u64 {
        match inner {
            TypeInner::Array { .. } | TypeInner::Struct { .. } | TypeInner::Matrix { .. } => {
                type_bytes(self.module, inner).div_ceil(4)
            }
            _ => 1,
        }
    }
}

/// Counts the operations of a function outside of loops that pay, on all its ways together.
struct Measure<'a> {
    weights: Weights<'a>,
    /// Loops that have not begun.
    loops: std::slice::Iter<'a, Loop>,
    /// By function.
    callees: &'a [u64],
}

impl Measure<'_> {
    fn block(&mut self, block: &Block) -> u64 {
        let work = block.iter().map(|statement| self.statement(statement));
        work.fold(0, u64::saturating_add)
    }

    fn statement(&mut self, statement: &Statement) -> u64 {
        let more = match statement {
            Statement::Emit(range) => {
                let values = range.clone().map(|value| self.weights.value(value));
                values.fold(0, u64::saturating_add)
            }
            Statement::Store { value, .. } => self.weights.value(*value),
            Statement::Call { function, .. } => self.callees[function.index()],
            Statement::If { accept, reject, .. } => {
                let accept = self.block(accept);
                accept.saturating_add(self.block(reject))
            }
            Statement::Block(inner) => self.block(inner),
            Statement::Switch { cases, .. } => {
                cases.iter().map(|case| self.block(&case.body)).fold(0, u64::saturating_add)
            }
            Statement::Loop { body, continuing, .. } => {
                let payment = self.loops.next().map(|it| it.payment);
                let work = self.block(body).saturating_add(self.block(continuing));
                match payment {
                    Some(Payment::Paid(iterations)) => {
                        work.saturating_mul(u64::from(iterations) + 1)
                    }
                    _ => 0,
                }
            }
            _ => 0,
        };
        more.saturating_add(1)
    }
}
