//! From naga's module to flat code: each function once, in the order in which they are called.
//!
//! - Every value has a place of its own, so nothing is overwritten before it was used.
//! - What is constant lies in the image with which each invocation begins, equal ones once.
//! - Expressions are taken in the order of their list, in which operands come first: only blocks
//!   nest, and how deeply is bounded where a kernel is checked.

mod body;
mod pointer;
mod value;

use std::collections::HashMap;
use std::fmt::Debug;

use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, Binding, BuiltIn, EntryPoint, Expression, Function, FunctionArgument,
    GlobalVariable, Handle, Literal, Module, TypeInner,
};

use super::layout::Layouts;
use super::program::{At, Entry, Input, Op, Place, Program, Table};
use super::{Stuck, WORDS_MAX};
use body::Body;

/// Makes the program of an entry point. `bindings` are group and number of each binding, in the
/// order in which they are given when it runs.
///
/// # Errors
/// What the interpreter does not know, or a group that is too large.
pub(super) fn lower(
    module: &Module,
    info: &ModuleInfo,
    entry: usize,
    bindings: &[(u32, u32)],
) -> Result<Program, Stuck> {
    let Some(point) = module.entry_points.get(entry) else {
        return Err(Stuck::Unknown(format!("the entry point {entry}")));
    };
    let mut lowering = Lowering::new(module, info, bindings, point)?;
    lowering.constants();
    let inputs = lowering.inputs(&point.function)?;
    let arguments = inputs.arguments;
    Body::new(&mut lowering, &point.function, info.get_entry_point(entry), None, arguments)?
        .lower()?;
    // Calls come to this list while it is worked through.
    let mut functions = Vec::new();
    while let Some(frame) = lowering.frames.get(functions.len()).cloned() {
        functions.push(Entry { code: lowering.here(), back: frame.back });
        let (function, info) = (&module.functions[frame.function], &info[frame.function]);
        let arguments = frame.arguments.clone();
        Body::new(&mut lowering, function, info, Some(frame), arguments)?.lower()?;
    }
    Ok(Program {
        costs: lowering.ops.iter().map(Op::cost).collect(),
        ops: lowering.ops,
        tables: lowering.tables,
        functions,
        image: lowering.image,
        inputs: inputs.told,
        shared_words: lowering.shared_words,
        threads: point.workgroup_size,
    })
}

/// Names what is not known: what sort of thing, and the first word of it.
pub(super) fn unknown(sort: &str, what: &impl Debug) -> Stuck {
    let text = format!("{what:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    Stuck::Unknown(format!("{sort} {name}"))
}

/// Where a function has what it is given and what it gives.
#[derive(Debug, Clone)]
struct Frame {
    function: Handle<Function>,
    /// Where each argument lies.
    arguments: Vec<u32>,
    result: u32,
    /// The word that says where to go on after it.
    back: u32,
}

/// What an entry point is told.
struct Inputs {
    arguments: Vec<u32>,
    told: Vec<(u32, Input)>,
}

/// What all functions have in common while they are lowered.
struct Lowering<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    layouts: Layouts<'a>,
    bindings: &'a [(u32, u32)],
    image: Vec<u32>,
    /// The most words that the image may have.
    image_words_max: usize,
    /// Where constants are.
    interned: HashMap<Vec<u32>, u32>,
    /// Where the value of each expression outside of functions is.
    values: Vec<Result<u32, Stuck>>,
    globals: HashMap<Handle<GlobalVariable>, Place>,
    shared_words: u32,
    ops: Vec<Op>,
    tables: Vec<Table>,
    frames: Vec<Frame>,
    numbers: HashMap<Handle<Function>, u32>,
}

impl<'a> Lowering<'a> {
    fn new(
        module: &'a Module,
        info: &'a ModuleInfo,
        bindings: &'a [(u32, u32)],
        point: &EntryPoint,
    ) -> Result<Self, Stuck> {
        let threads = point.workgroup_size.iter().try_fold(1_u32, |all, n| all.checked_mul(*n));
        let words_max = threads.and_then(|threads| WORDS_MAX.checked_div(threads));
        Ok(Self {
            module,
            info,
            layouts: Layouts::of(module),
            bindings,
            image: Vec::new(),
            image_words_max: words_max.ok_or(Stuck::Large)? as usize,
            interned: HashMap::new(),
            values: Vec::new(),
            globals: HashMap::new(),
            shared_words: 0,
            ops: Vec::new(),
            tables: Vec::new(),
            frames: Vec::new(),
            numbers: HashMap::new(),
        })
    }

    /// Places for words, 0 when an invocation begins.
    fn reserve(&mut self, words: u32) -> Result<u32, Stuck> {
        let at = self.image.len();
        let end = at + words as usize;
        if end > self.image_words_max {
            return Err(Stuck::Large);
        }
        self.image.resize(end, 0);
        u32::try_from(at).map_err(|_| Stuck::Large)
    }

    /// The place of a constant.
    fn intern(&mut self, words: Vec<u32>) -> Result<u32, Stuck> {
        if let Some(&at) = self.interned.get(&words) {
            return Ok(at);
        }
        let at = self.reserve(u32::try_from(words.len()).map_err(|_| Stuck::Large)?)?;
        self.image[at as usize..].copy_from_slice(&words);
        self.interned.insert(words, at);
        Ok(at)
    }

    /// Finds the values of all expressions outside of functions. One that is not known matters
    /// only where it is used.
    fn constants(&mut self) {
        for (_, expression) in self.module.global_expressions.iter() {
            let known = |lowering: &Self, part: Handle<Expression>| {
                let at = lowering.values.get(part.index())?.clone().ok()?;
                let inner = lowering.info[part].inner_with(&lowering.module.types);
                Some((at, lowering.layouts.words(inner).ok()?))
            };
            let value = self.constant(expression, known);
            let value = value.and_then(|at| at.ok_or_else(|| unknown("the constant", expression)));
            self.values.push(value);
        }
    }

    /// The place of an expression if it is a constant. `known` gives place and words of those
    /// among its parts that are.
    fn constant(
        &mut self,
        expression: &Expression,
        known: impl Fn(&Self, Handle<Expression>) -> Option<(u32, u32)>,
    ) -> Result<Option<u32>, Stuck> {
        let mut words = Vec::new();
        match *expression {
            Expression::Literal(literal) => words.push(word_of(literal)?),
            Expression::ZeroValue(ty) => {
                let count = self.layouts.words_of(ty)? as usize;
                if count > self.image_words_max {
                    return Err(Stuck::Large);
                }
                words.resize(count, 0);
            }
            Expression::Constant(constant) => {
                let init = self.module.constants[constant].init;
                let value = self.values.get(init.index()).cloned();
                return value.unwrap_or_else(|| Err(unknown("the constant", expression))).map(Some);
            }
            Expression::Compose { ref components, .. } => {
                for &component in components {
                    let Some((at, count)) = known(self, component) else {
                        return Ok(None);
                    };
                    words.extend_from_slice(&self.image[at as usize..][..count as usize]);
                }
            }
            Expression::Splat { size, value } => {
                let Some((at, _)) = known(self, value) else {
                    return Ok(None);
                };
                words.resize(size as usize, self.image[at as usize]);
            }
            _ => return Ok(None),
        }
        self.intern(words).map(Some)
    }

    /// Where a global variable is.
    fn global(&mut self, handle: Handle<GlobalVariable>) -> Result<Place, Stuck> {
        if let Some(&place) = self.globals.get(&handle) {
            return Ok(place);
        }
        let variable = &self.module.global_variables[handle];
        let at = |add| At { base: None, add };
        let place = match variable.space {
            AddressSpace::Private => {
                let words = self.layouts.words_of(variable.ty)?;
                let place = self.reserve(words)?;
                if let Some(init) = variable.init {
                    let value = self.values.get(init.index()).cloned();
                    let from =
                        value.unwrap_or_else(|| Err(unknown("the initial value", &init)))? as usize;
                    self.image.copy_within(from..from + words as usize, place as usize);
                }
                Place::Own(at(place))
            }
            AddressSpace::WorkGroup => {
                let words = self.layouts.words_of(variable.ty)?;
                let place = self.shared_words;
                self.shared_words += words;
                if self.shared_words > WORDS_MAX {
                    return Err(Stuck::Large);
                }
                Place::Shared(at(place))
            }
            AddressSpace::Uniform | AddressSpace::Storage { .. } => {
                let named = variable.binding.as_ref().map(|at| (at.group, at.binding));
                let number = self.bindings.iter().position(|binding| Some(*binding) == named);
                let binding = number.and_then(|number| u32::try_from(number).ok());
                let binding = binding.ok_or_else(|| {
                    Stuck::Unknown(format!("the binding {:?}", named.unwrap_or_default()))
                })?;
                Place::Bound { binding, at: at(0) }
            }
            ref space => return Err(unknown("the address space", space)),
        };
        self.globals.insert(handle, place);
        Ok(place)
    }

    /// The number of a function, which is lowered some time later.
    fn called(&mut self, handle: Handle<Function>) -> Result<u32, Stuck> {
        if let Some(&number) = self.numbers.get(&handle) {
            return Ok(number);
        }
        let function = &self.module.functions[handle];
        let mut arguments = Vec::new();
        for argument in &function.arguments {
            let words = self.argument_words(argument)?;
            arguments.push(self.reserve(words)?);
        }
        let words = match &function.result {
            Some(result) => self.layouts.words_of(result.ty)?,
            None => 0,
        };
        let (result, back) = (self.reserve(words)?, self.reserve(1)?);
        let number = u32::try_from(self.frames.len()).map_err(|_| Stuck::Large)?;
        self.frames.push(Frame { function: handle, arguments, result, back });
        self.numbers.insert(handle, number);
        Ok(number)
    }

    /// A pointer that is passed is an offset into the invocation's own words.
    fn argument_words(&self, argument: &FunctionArgument) -> Result<u32, Stuck> {
        match self.module.types[argument.ty].inner {
            TypeInner::Pointer { space, .. } | TypeInner::ValuePointer { space, .. } => match space
            {
                AddressSpace::Function | AddressSpace::Private => Ok(1),
                ref space => Err(unknown("a pointer that is passed, into", space)),
            },
            ref inner => self.layouts.words(inner),
        }
    }

    /// Places for what the entry point is told.
    fn inputs(&mut self, function: &Function) -> Result<Inputs, Stuck> {
        let mut inputs = Inputs { arguments: Vec::new(), told: Vec::new() };
        for argument in &function.arguments {
            let mut at = self.reserve(self.layouts.words_of(argument.ty)?)?;
            inputs.arguments.push(at);
            let TypeInner::Struct { members, .. } = &self.module.types[argument.ty].inner else {
                inputs.told.push((at, input(argument.binding.as_ref())?));
                continue;
            };
            for member in members {
                inputs.told.push((at, input(member.binding.as_ref())?));
                at += self.layouts.words_of(member.ty)?;
            }
        }
        Ok(inputs)
    }

    fn emit(&mut self, op: Op) -> usize {
        self.ops.push(op);
        self.ops.len() - 1
    }

    /// Where the next operation comes to be.
    fn here(&self) -> u32 {
        // Each operation is at least a byte of source, or a word of the bounded image.
        u32::try_from(self.ops.len()).unwrap_or(u32::MAX)
    }
}

fn word_of(literal: Literal) -> Result<u32, Stuck> {
    match literal {
        Literal::F32(value) => Ok(value.to_bits()),
        Literal::U32(value) => Ok(value),
        Literal::I32(value) => Ok(value.cast_unsigned()),
        Literal::Bool(value) => Ok(u32::from(value)),
        ref other => Err(unknown("the literal", other)),
    }
}

fn input(binding: Option<&Binding>) -> Result<Input, Stuck> {
    match binding {
        Some(Binding::BuiltIn(BuiltIn::GlobalInvocationId)) => Ok(Input::Global),
        Some(Binding::BuiltIn(BuiltIn::LocalInvocationId)) => Ok(Input::Local),
        Some(Binding::BuiltIn(BuiltIn::LocalInvocationIndex)) => Ok(Input::Index),
        Some(Binding::BuiltIn(BuiltIn::WorkGroupId)) => Ok(Input::Group),
        Some(Binding::BuiltIn(BuiltIn::NumWorkGroups)) => Ok(Input::Groups),
        Some(Binding::BuiltIn(BuiltIn::WorkGroupSize)) => Ok(Input::Threads),
        Some(Binding::BuiltIn(other)) => Err(unknown("the builtin", other)),
        other => Err(unknown("the input", &other)),
    }
}
