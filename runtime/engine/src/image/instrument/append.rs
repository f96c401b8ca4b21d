//! The component with what is added to it.
//!
//! What is added comes behind everything else, so that no index in the component changes; only
//! core modules are replaced, each by itself with more exports.

use wasm_encoder::{
    CanonicalFunctionSection, CanonicalOption, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentInstanceSection, ComponentSection, ComponentTypeSection,
    ComponentValType, Encode as _, ExportKind, InstanceSection, ModuleArg, PrimitiveValType,
};

use super::module::{self, of_memory};
use super::survey::{Counts, Source, Survey};
use super::{Reason, accessor_name, global_name, mark_name, memory_name};

/// The accessor's functions that open and drop a handle of a standard stream.
pub(crate) const OPEN_IN: &str = "open-in";
pub(crate) const DROP_IN: &str = "drop-in";
pub(crate) const OPEN_OUT: &str = "open-out";
pub(crate) const DROP_OUT: &str = "drop-out";

/// The component with an accessor.
pub(super) fn accessor(wasm: &[u8], found: &Survey, code: &[u8; 32]) -> Result<Vec<u8>, String> {
    let mut out = with_exports(wasm, found)?;
    // A module is one section, whose contents it is.
    let module = module::accessor(found);
    out.push(1);
    module.len().encode(&mut out);
    out.extend_from_slice(&module);
    let mut appended = Appended::new(found.counts);
    appended.instantiate(found);
    appended.lift(found);
    appended.streams(found);
    appended.finish(&mut out, &accessor_name(code));
    Ok(out)
}

/// The component with the reason why it has none.
pub(super) fn mark(wasm: &[u8], reason: Reason) -> Result<Vec<u8>, String> {
    let instances = super::survey::component_instances(wasm)?;
    let mut out = wasm.to_vec();
    let mut section = ComponentInstanceSection::new();
    let nothing: [(&str, ComponentExportKind, u32); 0] = [];
    section.export_items(nothing);
    section.append_to_component(&mut out);
    export(&mut out, &mark_name(reason), instances);
    Ok(out)
}

fn export(out: &mut Vec<u8>, name: &str, instance: u32) {
    let mut exports = ComponentExportSection::new();
    exports.export(name, ComponentExportKind::Instance, instance, None);
    exports.append_to_component(out);
}

/// Copies a component; its core modules get exports for what is theirs.
fn with_exports(wasm: &[u8], found: &Survey) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(wasm.len() + (8 << 10));
    let mut copied = 0;
    for module in &found.modules {
        let memories = module.memories.iter();
        let memories = memories.map(|index| (memory_name(*index), ExportKind::Memory, *index));
        let globals = module.globals.iter();
        let globals = globals.map(|(index, _)| (global_name(*index), ExportKind::Global, *index));
        let extra: Vec<_> = memories.chain(globals).collect();
        if extra.is_empty() {
            continue;
        }
        let body = module::export_more(&wasm[module.body.clone()], &extra)?;
        out.extend_from_slice(&wasm[copied..module.section.start]);
        out.push(1);
        body.len().encode(&mut out);
        out.extend_from_slice(&body);
        copied = module.section.end;
    }
    out.extend_from_slice(&wasm[copied..]);
    Ok(out)
}

/// Sections behind the accessor's module. Each function is lifted as it comes, since a type, an
/// alias and a lift only ever refer to what is before them.
struct Appended {
    next: Counts,
    /// The accessor's core instance.
    instance: u32,
    bytes: Vec<u8>,
    /// What the accessor's instance will export.
    exports: Vec<(String, u32)>,
}

/// A list of bytes and the numbers, as parameter or result.
#[derive(Debug, Clone, Copy)]
enum Kind {
    U32,
    U64,
    Bytes,
}

impl Appended {
    fn new(counts: Counts) -> Self {
        Self { next: counts, instance: 0, bytes: Vec::new(), exports: Vec::new() }
    }

    fn section(&mut self, section: &impl ComponentSection) {
        section.append_to_component(&mut self.bytes);
    }

    fn instantiate(&mut self, found: &Survey) {
        let mut args = Vec::new();
        for (at, module) in found.instances.iter().enumerate() {
            let Some(module) = module.map(|module| &found.modules[module]) else { continue };
            if !module.memories.is_empty() || !module.globals.is_empty() {
                args.push((module::instance_name(at), ModuleArg::Instance(at as u32)));
            }
        }
        let mut section = InstanceSection::new();
        section.instantiate(self.next.modules, args);
        self.section(&section);
        self.instance = self.next.core_instances;
    }

    fn core(&mut self, name: &str, kind: ExportKind) -> u32 {
        let mut section = ComponentAliasSection::new();
        section.alias(wasm_encoder::Alias::CoreInstanceExport {
            instance: self.instance,
            kind,
            name,
        });
        self.section(&section);
        let next = match kind {
            ExportKind::Memory => &mut self.next.core_memories,
            _ => &mut self.next.core_functions,
        };
        let index = *next;
        *next += 1;
        index
    }

    fn lift(&mut self, found: &Survey) {
        let memories = found.instances.iter().flatten();
        let memories: usize = memories.map(|module| found.modules[*module].memories.len()).sum();
        let realloc = self.core(module::REALLOC, ExportKind::Func);
        let plain = |this: &mut Self, name: &str, params: &[Kind], result| {
            let function = this.core(name, ExportKind::Func);
            this.lifted(name, function, (params, result), &[]);
        };
        plain(self, module::SEEK, &[Kind::U32], None);
        plain(self, module::COUNT, &[], Some(Kind::U32));
        plain(self, module::GET, &[Kind::U32], Some(Kind::U64));
        plain(self, module::SET, &[Kind::U32, Kind::U64], None);
        for at in 0..memories {
            let name = |name| of_memory(name, at);
            plain(self, &name(module::SIZE), &[], Some(Kind::U32));
            plain(self, &name(module::GROW), &[Kind::U32], Some(Kind::U32));
            let memory = self.core(&name("memory"), ExportKind::Memory);
            let write = self.core(&name(module::WRITE), ExportKind::Func);
            let options = [CanonicalOption::Memory(memory), CanonicalOption::Realloc(realloc)];
            self.lifted(&name(module::WRITE), write, (&[Kind::Bytes], None), &options);
            let read = self.core(&name(module::READ), ExportKind::Func);
            let done = self.core(&name(module::READ_DONE), ExportKind::Func);
            let options = [CanonicalOption::Memory(memory), CanonicalOption::PostReturn(done)];
            let params = [Kind::U32; 3];
            self.lifted(&name(module::READ), read, (&params, Some(Kind::Bytes)), &options);
        }
    }

    /// Handles of standard streams come from where the component gets its own.
    fn streams(&mut self, found: &Survey) {
        for (source, open, drop) in
            [(found.input, OPEN_IN, DROP_IN), (found.output, OPEN_OUT, DROP_OUT)]
        {
            let Some(Source { instance, get, resource }) = source else { continue };
            let mut aliases = ComponentAliasSection::new();
            let alias = |kind, name| wasm_encoder::Alias::InstanceExport { instance, kind, name };
            aliases.alias(alias(ComponentExportKind::Func, get));
            aliases.alias(alias(ComponentExportKind::Type, resource));
            self.section(&aliases);
            let mut lowered = CanonicalFunctionSection::new();
            lowered.lower(self.next.functions, []);
            lowered.resource_drop(self.next.types);
            self.section(&lowered);
            self.next.functions += 1;
            self.next.types += 1;
            let first = self.next.core_functions;
            self.next.core_functions += 2;
            self.lifted(open, first, (&[], Some(Kind::U32)), &[]);
            self.lifted(drop, first + 1, (&[Kind::U32], None), &[]);
        }
    }

    fn lifted(
        &mut self,
        name: &str,
        core: u32,
        (params, result): (&[Kind], Option<Kind>),
        options: &[CanonicalOption],
    ) {
        let mut types = ComponentTypeSection::new();
        types.defined_type().list(PrimitiveValType::U8);
        let bytes = self.next.types;
        let of = |kind: Kind| match kind {
            Kind::U32 => ComponentValType::Primitive(PrimitiveValType::U32),
            Kind::U64 => ComponentValType::Primitive(PrimitiveValType::U64),
            Kind::Bytes => ComponentValType::Type(bytes),
        };
        let names = ["a", "b", "c"];
        types
            .function()
            .params(names.into_iter().zip(params.iter().map(|kind| of(*kind))).collect::<Vec<_>>())
            .result(result.map(of));
        self.section(&types);
        let mut lifted = CanonicalFunctionSection::new();
        lifted.lift(core, bytes + 1, options.iter().copied());
        self.section(&lifted);
        self.next.types += 2;
        self.exports.push((name.to_owned(), self.next.functions));
        self.next.functions += 1;
    }

    fn finish(mut self, out: &mut Vec<u8>, name: &str) {
        let exports = std::mem::take(&mut self.exports);
        let mut section = ComponentInstanceSection::new();
        section.export_items(
            exports.iter().map(|(name, at)| (name.as_str(), ComponentExportKind::Func, *at)),
        );
        self.section(&section);
        export(&mut self.bytes, name, self.next.instances);
        out.extend_from_slice(&self.bytes);
    }
}
