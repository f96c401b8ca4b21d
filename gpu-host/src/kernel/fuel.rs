//! Makes kernels end: gives each loop a counter, and the host a word by which to stop them.
//!
//! ```text
//!  entry point (ours)            a loop of the kernel         spend
//!    counters = fuel               if !spend() { break }        every 1024th: is it cancelled?
//!    kernel(arguments)             …                            counter 0: false
//!    tell the host of a trap       …                            counter - 1, true
//! ```
//!
//! Keeps true:
//! - An invocation makes at most twice as many iterations as it has fuel: so many in loops that are
//!   counted alone, so many in those that are counted together (`uniform`). What comes between is
//!   bounded by the size of the kernel with its calls written out (`limits`).
//! - The kernel's own entry point is a function that ours calls, so that every way out of it leads
//!   past the word that tells the host. A kernel without a trap leaves the control buffer as it is.
//! - Without a trap nothing that a kernel can see is changed, but for the number of workgroups,
//!   which is that of the whole dispatch however it is split.
//! - Invocations of a workgroup leave loops with a barrier in the same iteration. Whether they are
//!   cancelled they ask there by one of them, for all.
//! - A kernel that was cancelled before it begins does nothing, unless it has barriers: then its
//!   loops without one end at once.

use naga::{
    AddressSpace, Arena, BinaryOperator, Block, Expression, Function, FunctionResult,
    GlobalVariable, Handle, MemoryDecorations, Module, ResourceBinding, Scalar, Span, Statement,
    StorageAccess, StructMember, Type, TypeInner,
};

use super::code::Code;
use super::uniform::{Counting, Counts};
use super::{CONTROL_GROUP, CONTROL_WORDS, trap, word};

mod entry;

/// Iterations from one look at the cancel word to the next; a power of two.
const LOOK_ITERATIONS: u32 = 1024;

/// Adds the passes to a module whose only entry point is the kernel's. Leaves what is not used.
pub(super) fn apply(module: &mut Module, counts: &Counts) {
    let variables = Variables::add(module, counts);
    let mut functions = Arena::new();
    let spends = Spends::add(&mut functions, &variables);
    let kernel = std::mem::take(&mut module.entry_points[0].function);
    let arguments = kernel.arguments.clone();
    let guests = std::mem::take(&mut module.functions).into_inner();
    let mut moved: Vec<Handle<Function>> = Vec::new();
    for (function, counting) in guests.into_iter().chain([kernel]).zip(&counts.loops) {
        let mut rewrite = Rewrite { spends: &spends, moved: &moved, counting: counting.iter() };
        let function = rewrite.function(function);
        moved.push(functions.append(function, Span::UNDEFINED));
    }
    module.functions = functions;
    if let Some(inner) = moved.last() {
        entry::wrap(module, &variables, *inner, arguments);
    }
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
    /// For loops that look together.
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
        let looking = Counting::Together { looks: true };
        let looks = counts.loops.iter().flatten().any(|it| *it == looking);
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

/// Functions that spend one iteration, and say whether there was one left. What is not called is
/// dropped afterwards.
struct Spends {
    alone: Handle<Function>,
    together: Handle<Function>,
    /// Not there where no loop looks.
    looking: Option<Handle<Function>>,
}

impl Spends {
    fn add(functions: &mut Arena<Function>, variables: &Variables) -> Self {
        let mut append = |function| functions.append(function, Span::UNDEFINED);
        Self {
            alone: append(spend_alone(variables)),
            together: append(spend_together(variables, None)),
            looking: variables
                .shared
                .as_ref()
                .map(|shared| append(spend_together(variables, Some(shared)))),
        }
    }

    fn of(&self, counting: Counting) -> Handle<Function> {
        match (counting, self.looking) {
            (Counting::Alone, _) => self.alone,
            (Counting::Together { looks: true }, Some(looking)) => looking,
            (Counting::Together { .. }, _) => self.together,
        }
    }
}

fn spend_alone(variables: &Variables) -> Function {
    let mut code = spending(variables);
    let left = code.load_global(variables.alone);
    let is_mark = is_mark(&mut code, left);
    code.when(is_mark, |code| {
        give_up_if_spent(code, variables, left);
        let is_cancelled = is_cancelled(code, variables);
        code.when(is_cancelled, |code| {
            code.store_word(variables.alone, 0);
            code.store_word(variables.trap, trap::CANCELLED);
            let no = code.truth(false);
            code.returns(no);
        });
    });
    spent(code, variables.alone, left)
}

fn spend_together(variables: &Variables, shared: Option<&Shared>) -> Function {
    let mut code = spending(variables);
    let left = code.load_global(variables.together);
    let Some(shared) = shared else {
        give_up_if_spent(&mut code, variables, left);
        return spent(code, variables.together, left);
    };
    let is_mark = is_mark(&mut code, left);
    code.when(is_mark, |code| {
        give_up_if_spent(code, variables, left);
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
            let no = code.truth(false);
            code.returns(no);
        });
    });
    spent(code, variables.together, left)
}

fn spending(variables: &Variables) -> Code {
    let result = FunctionResult { ty: variables.types.truth, binding: None };
    Code::of(Function { result: Some(result), ..Function::default() })
}

/// Whether so many iterations are left that it is time to look; none is such a number.
fn is_mark(code: &mut Code, left: Handle<Expression>) -> Handle<Expression> {
    let mask = code.word(LOOK_ITERATIONS - 1);
    let low = code.binary(BinaryOperator::And, left, mask);
    code.equals(low, 0)
}

fn give_up_if_spent(code: &mut Code, variables: &Variables, left: Handle<Expression>) {
    let is_spent = code.equals(left, 0);
    code.when(is_spent, |code| {
        // Who was cancelled has none left either.
        let reason = code.load_global(variables.trap);
        let is_first = code.equals(reason, 0);
        code.when(is_first, |code| code.store_word(variables.trap, trap::FUEL));
        let no = code.truth(false);
        code.returns(no);
    });
}

fn spent(mut code: Code, counter: Handle<GlobalVariable>, left: Handle<Expression>) -> Function {
    let one = code.word(1);
    let less = code.binary(BinaryOperator::Subtract, left, one);
    code.store_global(counter, less);
    let yes = code.truth(true);
    code.ended(Some(yes))
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
struct Rewrite<'a> {
    spends: &'a Spends,
    /// Where functions of the kernel are now, by their old numbers.
    moved: &'a [Handle<Function>],
    /// Of the loops that have not begun.
    counting: std::slice::Iter<'a, Counting>,
}

impl Rewrite<'_> {
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
                Statement::Loop { body, continuing, .. } => {
                    let guard = self.guard(expressions);
                    self.block(body, expressions);
                    self.block(continuing, expressions);
                    body.splice(0..0, guard);
                }
                _ => {}
            }
        }
    }

    /// What a loop begins with.
    fn guard(&mut self, expressions: &mut Arena<Expression>) -> Block {
        // There are as many as loops. One more would be stopped at once.
        let counting = self.counting.next().copied().unwrap_or(Counting::Alone);
        let function = self.spends.of(counting);
        let result = expressions.append(Expression::CallResult(function), Span::UNDEFINED);
        let reject = Block::from_vec(vec![Statement::Break]);
        Block::from_vec(vec![
            Statement::Call { function, arguments: Vec::new(), result: Some(result) },
            Statement::If { condition: result, accept: Block::new(), reject },
        ])
    }
}

#[cfg(test)]
mod tests;
