//! What a component is made of, as far as images go, and whether memories and globals are all of
//! it that can change.
//!
//! Keeps true: what is not known to be without state stops the survey. Functions are not validated
//! here, the compiler does that; their instructions are read all the same.

use std::ops::Range;

use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::{Types, TypesRef};
use wasmparser::{
    CanonicalFunction, Chunk, ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind,
    ComponentTypeRef, FunctionBody, Instance, Operator, Parser, Payload, TypeRef, ValType,
    ValidPayload, Validator,
};

use super::Reason;
use crate::image::head::{GLOBALS_MAX, MEMORIES_MAX};
use crate::tuning::{CORE_INSTANCES_MAX, FEATURES};

/// Why there is no survey.
#[derive(Debug)]
pub(super) enum Stop {
    /// There is more to the component than memories and globals.
    Reason(Reason),
    /// It is none.
    Invalid(String),
}

impl From<wasmparser::BinaryReaderError> for Stop {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// A component whose memories and globals are all that changes in it.
#[derive(Debug)]
pub(super) struct Survey {
    /// Core modules, by index.
    pub(super) modules: Vec<Module>,
    /// Core instances, by index: of which module, if of any.
    pub(super) instances: Vec<Option<usize>>,
    /// How many of everything there are, which is the index of what comes next.
    pub(super) counts: Counts,
    /// Where standard input comes from.
    pub(super) input: Option<Source>,
    /// Where standard output or error comes from.
    pub(super) output: Option<Source>,
}

/// A core module.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Its section in the component, head included.
    pub(super) section: Range<usize>,
    /// The module alone.
    pub(super) body: Range<usize>,
    /// Its own memories, by index.
    pub(super) memories: Vec<u32>,
    /// Its own mutable globals, by index.
    pub(super) globals: Vec<(u32, ValType)>,
    memories_seen: u32,
    globals_seen: u32,
}

/// Sizes of the component's index spaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) modules: u32,
    pub(super) core_instances: u32,
    pub(super) core_functions: u32,
    pub(super) core_memories: u32,
    pub(super) types: u32,
    pub(super) functions: u32,
    pub(super) instances: u32,
}

/// An imported interface that gives handles of a standard stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// The imported instance.
    pub(super) instance: u32,
    /// The function that gives one.
    pub(super) get: &'static str,
    /// The type of the handle.
    pub(super) resource: &'static str,
}

/// The interfaces of standard streams: name, function, type.
const SOURCES: [(&str, &str, &str); 3] = [
    ("wasi:cli/stdin@0.2.", "get-stdin", "input-stream"),
    ("wasi:cli/stdout@0.2.", "get-stdout", "output-stream"),
    ("wasi:cli/stderr@0.2.", "get-stderr", "output-stream"),
];

/// Where in the component a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Module,
    Nested,
}

struct Walk {
    modules: Vec<Module>,
    instances: Vec<Option<usize>>,
    imports: Vec<(String, u32)>,
    memories: usize,
    globals: usize,
}

pub(super) fn survey(bytes: &[u8]) -> Result<Survey, Stop> {
    let mut walk = Walk {
        modules: Vec::new(),
        instances: Vec::new(),
        imports: Vec::new(),
        memories: 0,
        globals: 0,
    };
    let types = visit(bytes, |part| walk.part(&part))?;
    let types = types.as_ref();
    if walk.memories == 0 || walk.memories > MEMORIES_MAX {
        return Err(Stop::Reason(Reason::Memories));
    }
    if walk.globals > GLOBALS_MAX {
        return Err(Stop::Reason(Reason::Globals));
    }
    if walk.instances.len() >= CORE_INSTANCES_MAX as usize {
        return Err(Stop::Reason(Reason::Size));
    }
    let [input, stdout, stderr] = SOURCES.map(|source| walk.source(types, source));
    Ok(Survey {
        counts: Counts {
            modules: types.module_count(),
            core_instances: types.core_instance_count(),
            core_functions: types.function_count(),
            core_memories: types.memory_count(),
            types: types.component_type_count(),
            functions: types.component_function_count(),
            instances: types.component_instance_count(),
        },
        modules: walk.modules,
        instances: walk.instances,
        input,
        output: stdout.or(stderr),
    })
}

/// How many component instances there are, of whatever else the component is made.
pub(super) fn component_instances(bytes: &[u8]) -> Result<u32, String> {
    match visit(bytes, |_| Ok(())) {
        Ok(types) => Ok(types.as_ref().component_instance_count()),
        Err(Stop::Invalid(text)) => Err(text),
        Err(Stop::Reason(reason)) => Err(reason.text().to_owned()),
    }
}

/// A part of the component, just before it is validated.
struct Part<'a, 'b> {
    payload: &'b Payload<'a>,
    place: Place,
    /// Where it begins.
    at: usize,
    validator: &'b Validator,
}

/// Shows every part; gives the types of the whole.
fn visit(
    bytes: &[u8],
    mut each: impl FnMut(Part<'_, '_>) -> Result<(), Stop>,
) -> Result<Types, Stop> {
    let mut validator = Validator::new_with_features(FEATURES);
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES);
    let mut outer: Vec<(Parser, Place)> = Vec::new();
    let mut place = Place::Top;
    let mut at = 0;
    loop {
        let (payload, consumed) = match parser.parse(&bytes[at..], true)? {
            Chunk::Parsed { consumed, payload } => (payload, consumed),
            Chunk::NeedMoreData(_) => return Err(Stop::Invalid("it is cut off".to_owned())),
        };
        each(Part { payload: &payload, place, at, validator: &validator })?;
        at += consumed;
        match validator.payload(&payload)? {
            ValidPayload::Ok | ValidPayload::Func(..) => {}
            ValidPayload::Parser(inner) => {
                let is_module = matches!(payload, Payload::ModuleSection { .. });
                let inside = match place {
                    Place::Top if is_module => Place::Module,
                    _ => Place::Nested,
                };
                outer.push((std::mem::replace(&mut parser, inner), place));
                place = inside;
            }
            ValidPayload::End(types) => match outer.pop() {
                Some(resumed) => (parser, place) = resumed,
                None => return Ok(types),
            },
        }
    }
}

impl Walk {
    fn part(&mut self, part: &Part<'_, '_>) -> Result<(), Stop> {
        match part.place {
            Place::Top => self.top(part.payload, part.at, part.validator),
            Place::Module => self.module(part.payload),
            Place::Nested => nested(part.payload),
        }
    }

    fn top(&mut self, payload: &Payload<'_>, at: usize, validator: &Validator) -> Result<(), Stop> {
        let nested = Err(Stop::Reason(Reason::Nested));
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => self.modules.push(Module {
                section: at..unchecked_range.end,
                body: unchecked_range.clone(),
                ..Module::default()
            }),
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    self.instance(&instance?)?;
                }
            }
            Payload::ComponentImportSection(section) => {
                let mut next = validator.types(0).map_or(0, |t| t.component_instance_count());
                for import in section.clone() {
                    let import = import?;
                    match import.ty {
                        ComponentTypeRef::Instance(_) => {
                            self.imports.push((import.name.name.to_owned(), next));
                            next += 1;
                        }
                        ComponentTypeRef::Module(_) | ComponentTypeRef::Component(_) => {
                            return nested;
                        }
                        _ => {}
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    let brings_code = match alias? {
                        ComponentAlias::InstanceExport { kind, .. } => is_code(kind),
                        ComponentAlias::CoreInstanceExport { .. } => false,
                        ComponentAlias::Outer { kind, .. } => {
                            kind == ComponentOuterAliasKind::CoreModule
                        }
                    };
                    if brings_code {
                        return nested;
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    // Each export is one more of its kind, and modules are counted here.
                    if is_code(export?.kind) {
                        return nested;
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    match function? {
                        CanonicalFunction::Lift { .. }
                        | CanonicalFunction::Lower { .. }
                        | CanonicalFunction::ResourceDrop { .. }
                        | CanonicalFunction::ResourceRep { .. } => {}
                        _ => return Err(Stop::Reason(Reason::Resources)),
                    }
                }
            }
            Payload::ComponentStartSection { .. } => return nested,
            _ => {}
        }
        Ok(())
    }

    fn instance(&mut self, instance: &Instance<'_>) -> Result<(), Stop> {
        let module = match instance {
            Instance::FromExports(_) => None,
            Instance::Instantiate { module_index, .. } => {
                let index = *module_index as usize;
                let module = self.modules.get(index);
                let module = module.ok_or_else(|| Stop::Invalid("no such module".to_owned()))?;
                self.memories += module.memories.len();
                self.globals += module.globals.iter().map(|(_, ty)| values(*ty)).sum::<usize>();
                Some(index)
            }
        };
        self.instances.push(module);
        Ok(())
    }

    fn module(&mut self, payload: &Payload<'_>) -> Result<(), Stop> {
        let Some(module) = self.modules.last_mut() else { return Ok(()) };
        match payload {
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    match import?.ty {
                        TypeRef::Memory(_) => module.memories_seen += 1,
                        TypeRef::Global(_) => module.globals_seen += 1,
                        _ => {}
                    }
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let memory = memory?;
                    if memory.shared || memory.memory64 || memory.page_size_log2.is_some() {
                        return Err(Stop::Reason(Reason::Memories));
                    }
                    module.memories.push(module.memories_seen);
                    module.memories_seen += 1;
                }
            }
            Payload::GlobalSection(section) => {
                for global in section.clone() {
                    let ty = global?.ty;
                    if ty.mutable {
                        if matches!(ty.content_type, ValType::Ref(_)) {
                            return Err(Stop::Reason(Reason::Globals));
                        }
                        module.globals.push((module.globals_seen, ty.content_type));
                    }
                    module.globals_seen += 1;
                }
            }
            Payload::CodeSectionEntry(body) => code(body)?,
            _ => {}
        }
        Ok(())
    }

    /// The interface of this name, if it is imported and has what we need of it.
    fn source(
        &self,
        types: TypesRef<'_>,
        (name, get, resource): (&str, &'static str, &'static str),
    ) -> Option<Source> {
        let (import, instance) =
            self.imports.iter().find(|(import, _)| import.starts_with(name))?;
        let item = types.component_item_for_import(import)?;
        let ComponentEntityType::Instance(id) = item.ty else { return None };
        let exports = &types[id].exports;
        (exports.contains_key(get) && exports.contains_key(resource)).then_some(Source {
            instance: *instance,
            get,
            resource,
        })
    }
}

/// Values of 64 bits a global takes.
pub(super) fn values(ty: ValType) -> usize {
    if ty == ValType::V128 { 2 } else { 1 }
}

fn is_code(kind: ComponentExternalKind) -> bool {
    matches!(kind, ComponentExternalKind::Module | ComponentExternalKind::Component)
}

/// Components inside may name types, as toolchains make them to give exports a type; no more.
fn nested(payload: &Payload<'_>) -> Result<(), Stop> {
    match payload {
        Payload::Version { .. }
        | Payload::ComponentTypeSection(_)
        | Payload::CoreTypeSection(_)
        | Payload::ComponentImportSection(_)
        | Payload::ComponentExportSection(_)
        | Payload::ComponentAliasSection(_)
        | Payload::CustomSection(_)
        | Payload::End(_) => Ok(()),
        _ => Err(Stop::Reason(Reason::Nested)),
    }
}

/// Looks for instructions whose effect is neither in a memory nor in a global.
fn code(body: &FunctionBody<'_>) -> Result<(), Stop> {
    for operator in body.get_operators_reader()? {
        let reason = match operator? {
            Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. } => Reason::Tables,
            Operator::ElemDrop { .. } | Operator::DataDrop { .. } => Reason::Segments,
            _ => continue,
        };
        return Err(Stop::Reason(reason));
    }
    Ok(())
}
