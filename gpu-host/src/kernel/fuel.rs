//! Makes kernels end: gives loops counters, and the host a word by which to stop them.
//!
//! ```text
//!  entry point (ours)       a loop          one of known length     spend(cost)
//!    counters = fuel          if !spend(1)    if spend(all) {         past a multiple of 1024:
//!    if cancelled: none         { break }       loop { … }              cost > counter: false
//!    kernel(arguments)        …               }                         cancelled: false
//!    tell the host of a trap                                          counter - cost, true
//! ```
//!
//! Keeps true:
//! - An invocation makes at most twice as many iterations as it has fuel: so many in loops that are
//!   counted alone, so many in those that are counted together (`uniform`). Loops that are paid for
//!   from the beginning run also with less fuel than that, and are 64 iterations at most (`plan`).
//!   What comes between is bounded by the size of the kernel with its calls written out (`limits`).
//! - However loops pay (`plan`), a kernel that is not ended has used the same fuel. One that is
//!   ended has used no more than it was given, but for these.
//! - It looks whether it is cancelled at every 1024th iteration, or when it pays for that one and
//!   no more than 4095 others.
//! - The kernel's own entry point is a function that ours calls, so that every way out of it leads
//!   past the word that tells the host. A kernel without a trap leaves the control buffer as it is.
//! - Without a trap nothing that a kernel can see is changed, but for the number of workgroups,
//!   which is that of the whole dispatch however it is split.
//! - Invocations of a workgroup leave loops with a barrier in the same iteration. Whether they are
//!   cancelled they ask there by one of them, for all.
//! - In a kernel that was cancelled before it begins no loop begins that pays, if its fuel is a
//!   multiple of 1024: then loops that are counted together look at once as well. If what else
//!   there is is long, and without barriers, it does nothing at all. How much it is otherwise is
//!   told, so that who gives it work can bound how much of it there is at a time.
//!
//! There is as little control flow around the kernel as can be: drivers on the processor run both
//! sides of a branch, and read memory for each invocation apart where some may not be there.

use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, Arena, BinaryOperator, Block, Expression, Function, FunctionArgument,
    FunctionResult, GlobalVariable, Handle, Literal, MemoryDecorations, Module, ResourceBinding,
    Scalar, Span, Statement, StorageAccess, StructMember, Type, TypeInner,
};

use super::code::Code;
use super::uniform::{Counting, Counts};
use super::{CONTROL_GROUP, CONTROL_WORDS, LOOK_ITERATIONS, trap, word};
use plan::{Payment, Plan};

mod entry;
mod known;
mod plan;

/// Adds the passes to a module whose only entry point is the kernel's. Leaves what is not used.
/// How many operations an invocation makes at most that was cancelled before it began.
pub(super) fn apply(module: &mut Module, info: &ModuleInfo, counts: &Counts) -> u64 {
    let plan = Plan::of(module, info, counts);
    let variables = Variables::add(module, counts);
    let mut functions = Arena::new();
    let spends = Spends::add(&mut functions, &variables);
    let kernel = std::mem::take(&mut module.entry_points[0].function);
    let arguments = kernel.arguments.clone();
    let guests = std::mem::take(&mut module.functions).into_inner();
    let mut moved: Vec<Handle<Function>> = Vec::new();
    let loops = counts.loops.iter().zip(&plan.loops);
    for (function, (counting, payments)) in guests.into_iter().chain([kernel]).zip(loops) {
        let loops = counting.iter().copied().zip(payments.iter().copied());
        let mut rewrite = Rewrite { spends: &spends, moved: &moved, loops };
        let function = rewrite.function(function);
        moved.push(functions.append(function, Span::UNDEFINED));
    }
    module.functions = functions;
    let first = entry::First::of(&plan, &variables);
    if let Some(inner) = moved.last() {
        entry::wrap(module, &variables, &first, (*inner, arguments));
    }
    if first.is_skipped() { 0 } else { plan.rest }
}

/// Our variables.
struct Variables {
    types: Types,
    control: Handle<GlobalVariable>,
    /// Iterations left, counted alone.
    alone: Handle<GlobalVariable>,
    /// Iterations left, counted together.
    together: Handle<GlobalVariable>,
    /// Why it is trapped, or 0.
    trap: Handle<GlobalVariable>,
    /// For loops that are counted together.
    shared: Option<Shared>,
    has_barriers: bool,
}

/// How one asks for all.
struct Shared {
    /// Which invocation of its workgroup this is.
    lane: Handle<GlobalVariable>,
    /// The answer.
    answer: Handle<GlobalVariable>,
}

struct Types {
    word: Handle<Type>,
    truth: Handle<Type>,
    groups: Handle<Type>,
}

impl Variables {
    fn add(module: &mut Module, counts: &Counts) -> Self {
        let word = add_type(module, TypeInner::Scalar(Scalar::U32));
        let truth = add_type(module, TypeInner::Scalar(Scalar::BOOL));
        let size = naga::VectorSize::Tri;
        let groups = add_type(module, TypeInner::Vector { size, scalar: Scalar::U32 });
        let looks = counts.loops.iter().flatten().any(|it| *it == Counting::Together);
        let private = |module: &mut Module| add_word(module, word, AddressSpace::Private);
        let shared = looks.then(|| Shared {
            lane: private(module),
            answer: add_word(module, word, AddressSpace::WorkGroup),
        });
        Self {
            control: add_control(module, word),
            alone: private(module),
            together: private(module),
            trap: private(module),
            types: Types { word, truth, groups },
            shared,
            has_barriers: counts.has_barriers,
        }
    }
}

fn add_type(module: &mut Module, inner: TypeInner) -> Handle<Type> {
    module.types.insert(Type { name: None, inner }, Span::UNDEFINED)
}

fn add_word(module: &mut Module, ty: Handle<Type>, space: AddressSpace) -> Handle<GlobalVariable> {
    let memory_decorations = MemoryDecorations::empty();
    let variable =
        GlobalVariable { name: None, space, binding: None, ty, init: None, memory_decorations };
    module.global_variables.append(variable, Span::UNDEFINED)
}

/// The control buffer: two words that are changed while the kernel runs, the others are not.
fn add_control(module: &mut Module, word_type: Handle<Type>) -> Handle<GlobalVariable> {
    let atomic = add_type(module, TypeInner::Atomic(Scalar::U32));
    let members = (0..CONTROL_WORDS as u32).map(|at| {
        let ty = if at == word::CANCEL || at == word::TRAP { atomic } else { word_type };
        StructMember { name: None, ty, binding: None, offset: at * 4 }
    });
    let members = members.collect();
    let ty = add_type(module, TypeInner::Struct { members, span: CONTROL_WORDS as u32 * 4 });
    let variable = GlobalVariable {
        name: None,
        space: AddressSpace::Storage { access: StorageAccess::LOAD | StorageAccess::STORE },
        binding: Some(ResourceBinding { group: CONTROL_GROUP, binding: 0 }),
        ty,
        init: None,
        memory_decorations: MemoryDecorations::empty(),
    };
    module.global_variables.append(variable, Span::UNDEFINED)
}

/// Functions that spend some iterations, and say whether there were as many left. What is not
/// called is dropped afterwards.
struct Spends {
    alone: Handle<Function>,
    /// Not there where no loop is counted together.
    together: Option<Handle<Function>>,
}

impl Spends {
    fn add(functions: &mut Arena<Function>, variables: &Variables) -> Self {
        let mut append = |function| functions.append(function, Span::UNDEFINED);
        Self {
            alone: append(spend_alone(variables)),
            together: variables
                .shared
                .as_ref()
                .map(|shared| append(spend_together(variables, shared))),
        }
    }

    fn of(&self, counting: Counting) -> Handle<Function> {
        match (counting, self.together) {
            (Counting::Together, Some(together)) => together,
            (Counting::Alone | Counting::Together, _) => self.alone,
        }
    }
}

fn spend_alone(variables: &Variables) -> Function {
    let (mut code, spending) = Spending::begin(variables, variables.alone);
    code.when(spending.is_mark, |code| {
        spending.trap_if_short(code, variables);
        let is_cancelled = is_cancelled(code, variables);
        code.when(is_cancelled, |code| {
            code.store_word(variables.alone, 0);
            code.store_word(variables.trap, trap::CANCELLED);
        });
    });
    spending.end(code)
}

fn spend_together(variables: &Variables, shared: &Shared) -> Function {
    let (mut code, spending) = Spending::begin(variables, variables.together);
    code.when(spending.is_mark, |code| {
        spending.trap_if_short(code, variables);
        let lane = code.load_global(shared.lane);
        let is_first = code.equals(lane, 0);
        code.when(is_first, |code| {
            let pointer = control(code, variables, word::CANCEL);
            let cancel = code.load(pointer);
            code.store_global(shared.answer, cancel);
        });
        let pointer = code.global(shared.answer);
        let ty = variables.types.word;
        let answer = code.add_result(Expression::WorkGroupUniformLoadResult { ty });
        code.push(Statement::WorkGroupUniformLoad { pointer, result: answer });
        let zero = code.word(0);
        let is_cancelled = code.binary(BinaryOperator::NotEqual, answer, zero);
        code.when(is_cancelled, |code| {
            code.store_word(variables.alone, 0);
            code.store_word(variables.together, 0);
            code.store_word(variables.trap, trap::CANCELLED);
        });
    });
    spending.end(code)
}

/// What a function that spends has computed first. It returns only at its end: each other way out
/// would be one more branch around what was paid for.
struct Spending {
    counter: Handle<GlobalVariable>,
    left: Handle<Expression>,
    cost: Handle<Expression>,
    is_mark: Handle<Expression>,
}

impl Spending {
    fn begin(variables: &Variables, counter: Handle<GlobalVariable>) -> (Code, Self) {
        let argument = FunctionArgument { name: None, ty: variables.types.word, binding: None };
        let result = FunctionResult { ty: variables.types.truth, binding: None };
        let mut code = Code::of(Function {
            arguments: vec![argument],
            result: Some(result),
            ..Function::default()
        });
        let cost = code.argument(0);
        let left = code.load_global(counter);
        let less = code.binary(BinaryOperator::Subtract, left, cost);
        // The bits above those of a look change if a multiple is passed, and if there was less
        // than the cost, which comes out far above.
        let changed = code.binary(BinaryOperator::ExclusiveOr, left, less);
        let look = code.word(LOOK_ITERATIONS);
        let is_mark = code.binary(BinaryOperator::GreaterEqual, changed, look);
        (code, Self { counter, left, cost, is_mark })
    }

    fn trap_if_short(&self, code: &mut Code, variables: &Variables) {
        let is_short = code.binary(BinaryOperator::Less, self.left, self.cost);
        code.when(is_short, |code| {
            // Who was cancelled has none left either.
            let reason = code.load_global(variables.trap);
            let is_first = code.equals(reason, 0);
            code.when(is_first, |code| code.store_word(variables.trap, trap::FUEL));
        });
    }

    /// Spends, unless there is too little by now; nobody else is to spend that.
    fn end(&self, mut code: Code) -> Function {
        let left = code.load_global(self.counter);
        let can_pay = code.binary(BinaryOperator::GreaterEqual, left, self.cost);
        let less = code.binary(BinaryOperator::Subtract, left, self.cost);
        let zero = code.word(0);
        let less = code.choose(can_pay, less, zero);
        code.store_global(self.counter, less);
        code.ended(Some(can_pay))
    }
}

fn is_cancelled(code: &mut Code, variables: &Variables) -> Handle<Expression> {
    let pointer = control(code, variables, word::CANCEL);
    let cancel = code.load(pointer);
    let zero = code.word(0);
    code.binary(BinaryOperator::NotEqual, cancel, zero)
}

/// A pointer to a word of the control buffer.
fn control(code: &mut Code, variables: &Variables, word: u32) -> Handle<Expression> {
    let control = code.global(variables.control);
    code.member(control, word)
}

/// Changes a function of the kernel: what it calls has moved, and its loops are counted.
struct Rewrite<'a, L> {
    spends: &'a Spends,
    /// Where functions of the kernel are now, by their old numbers.
    moved: &'a [Handle<Function>],
    /// Those that have not begun.
    loops: L,
}

impl<L: Iterator<Item = (Counting, Payment)>> Rewrite<'_, L> {
    fn function(&mut self, mut function: Function) -> Function {
        for argument in &mut function.arguments {
            argument.binding = None;
        }
        for (_, expression) in function.expressions.iter_mut() {
            if let Expression::CallResult(callee) = expression {
                *callee = self.moved[callee.index()];
            }
        }
        let mut body = std::mem::take(&mut function.body);
        self.block(&mut body, &mut function.expressions);
        function.body = body;
        function
    }

    fn block(&mut self, block: &mut Block, expressions: &mut Arena<Expression>) {
        for statement in block.iter_mut() {
            match statement {
                Statement::Call { function, .. } => *function = self.moved[function.index()],
                Statement::Block(inner) => self.block(inner, expressions),
                Statement::If { accept, reject, .. } => {
                    self.block(accept, expressions);
                    self.block(reject, expressions);
                }
                Statement::Switch { cases, .. } => {
                    for case in cases {
                        self.block(&mut case.body, expressions);
                    }
                }
                Statement::Loop { .. } => self.iterate(statement, expressions),
                _ => {}
            }
        }
    }

    fn iterate(&mut self, statement: &mut Statement, expressions: &mut Arena<Expression>) {
        // There are as many as loops. One more would be stopped at once.
        let (counting, payment) = self.loops.next().unwrap_or((Counting::Alone, Payment::Each));
        let Statement::Loop { body, continuing, .. } = statement else { return };
        self.block(body, expressions);
        self.block(continuing, expressions);
        match payment {
            Payment::Each => {
                let (call, condition) = self.spend(counting, 1, expressions);
                let reject = Block::from_vec(vec![Statement::Break]);
                let guard = Statement::If { condition, accept: Block::new(), reject };
                body.splice(0..0, Block::from_vec(vec![call, guard]));
            }
            Payment::Once(cost) => {
                let (call, condition) = self.spend(counting, cost, expressions);
                let accept = Block::from_vec(vec![std::mem::replace(statement, Statement::Break)]);
                let guarded = Statement::If { condition, accept, reject: Block::new() };
                *statement = Statement::Block(Block::from_vec(vec![call, guarded]));
            }
            Payment::Paid(_) => {}
        }
    }

    /// A statement that spends, and whether it could.
    fn spend(
        &self,
        counting: Counting,
        cost: u32,
        expressions: &mut Arena<Expression>,
    ) -> (Statement, Handle<Expression>) {
        let function = self.spends.of(counting);
        let mut add = |expression| expressions.append(expression, Span::UNDEFINED);
        let cost = add(Expression::Literal(Literal::U32(cost)));
        let result = add(Expression::CallResult(function));
        (Statement::Call { function, arguments: vec![cost], result: Some(result) }, result)
    }
}

#[cfg(test)]
mod tests;
