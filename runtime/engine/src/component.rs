//! From uploaded bytes to a verdict: is this a component we would run, in which world, with what.
//!
//! Keeps true: nothing is compiled or run here. The validator allows exactly what the engine
//! allows. Work and memory are bounded by the size of the upload, by limits on nesting, function
//! size and declarations, and by the validator's own limits; at worst a few hundred megabytes and
//! about a second for the largest upload, so that callers keep it off the workers. Every refusal
//! says what was found and what to do, and all refused imports come at once.
//!
//! Leaves to others: compiling in a process of its own (`compile`), what a component needs once
//! its parts are instantiated more than once (the pool says so when the artefact is loaded), types
//! of imported functions (the linker).
//!
//! Interfaces that need a grant pass here, as a component may be uploaded before any manifest names
//! it: what it needs is in what it imports ([`StageCode::wants`](crate::stage::StageCode)), and
//! who applies a manifest looks at it.

mod contract;
mod shape;

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use sluicebox_core::ids::Digest;
use wasmparser::{
    Chunk, Encoding, FuncValidatorAllocations, Parser, Payload, TypeRef, ValidPayload, Validator,
};

use crate::error::{Error, shown};
use crate::image::RESERVED;
use crate::tuning::{FEATURES, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// Components inside components: a handful in practice. Each level costs the validator memory.
const NESTING_MAX: usize = 16;

/// Core modules and components in one upload, at all levels.
const PARTS_MAX: u32 = 512;

/// Types, imports, exports, aliases and instances together. Each of these bytes may cost the
/// validator some fifty; a Python guest, the largest known, has well under one mebibyte.
const DECLARATION_BYTES_MAX: u64 = 4 << 20;

/// Code of one function. An interpreter's main loop has a few hundred kilobytes; compilers take
/// more than proportionally longer for larger ones.
const FUNCTION_BYTES_MAX: usize = 2 << 20;

/// Bytes of the validator's complaint that are shown.
const COMPLAINT_BYTES_MAX: usize = 512;

/// Which of the two worlds a component is written for, told from the type of its `handle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum World {
    /// `stage`: one packed frame in, packed frames out.
    Framed,
    /// `stage-typed`: lists of records.
    Typed,
}

impl World {
    /// The world's name in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Framed => "stage",
            Self::Typed => "stage-typed",
        }
    }
}

/// What an upload may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the upload.
    pub bytes_max: u64,
    /// Largest minimum of a linear memory: what the engine's pool gives.
    pub memory_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let engine = crate::tuning::EngineConfig::default();
        Self { bytes_max: 32 << 20, memory_bytes_max: engine.memory_bytes_max }
    }
}

/// What the name of the interface of snapshots begins with, in every version this node speaks.
pub(crate) const SNAPSHOT_TRACK: &str = "sluicebox:stage/snapshot@0.1.";

/// What is known of a component that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// SHA-256 of the bytes: its name for ever.
    pub digest: Digest,
    /// Which world it is written for.
    pub world: World,
    /// It exports `sluicebox:stage/snapshot`.
    pub snapshots: bool,
    /// The interfaces it imports, as written, sorted.
    pub imports: BTreeSet<String>,
    /// Bytes of the upload.
    pub bytes: u64,
    /// What it declares.
    pub declared: Declared,
}

/// What a component declares, each core module counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Declared {
    /// Core modules in it.
    pub core_modules: u32,
    /// Functions with code.
    pub functions: u32,
    /// Linear memories.
    pub memories: u32,
    /// All memories' minimum sizes together: what an instance has before its first instruction.
    pub memory_bytes_min: u64,
    /// Tables.
    pub tables: u32,
    /// All tables' minimum sizes together.
    pub table_elements_min: u64,
}

/// The name under which bytes are known.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Decides whether an upload is a component we would run.
///
/// # Errors
/// One of the `component.*` errors.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Inspection, Error> {
    if bytes.len() as u64 > limits.bytes_max {
        return Err(Error::TooLarge { bytes: bytes.len() as u64, max: limits.bytes_max });
    }
    check_header(bytes)?;
    let mut scan = Scan::new(limits);
    let types = scan.run(bytes)?;
    scan.check_demand()?;
    let types = types.as_ref();
    contract::check_imports(types, &scan.imports)?;
    let world = contract::world(types, &scan.exports)?;
    contract::check_world_imports(world, &scan.imports)?;
    let snapshots = contract::snapshots(types, &scan.exports)?;
    Ok(Inspection {
        digest: digest(bytes),
        world,
        snapshots,
        imports: scan.imports.into_iter().collect(),
        bytes: bytes.len() as u64,
        declared: scan.declared,
    })
}

/// The same checks of a component this node has added to: it is still what it would run, and has
/// names that only the engine may give.
pub(crate) fn check_instrumented(bytes: &[u8]) -> Result<(), Error> {
    let limits = Limits { bytes_max: u64::MAX, memory_bytes_max: u64::MAX };
    let mut scan = Scan::new(&limits);
    scan.reserved = true;
    scan.run(bytes)?;
    scan.check_demand()
}

/// Tells apart what people upload by mistake, before the validator's terse "unknown version".
fn check_header(bytes: &[u8]) -> Result<(), Error> {
    let not_wasm = |text: &str| Err(Error::NotWasm(text.to_owned()));
    if Parser::is_component(bytes) {
        return Ok(());
    }
    if Parser::is_core_wasm(bytes) {
        return Err(Error::CoreModule);
    }
    match bytes {
        [] => not_wasm("the upload is empty"),
        [0, b'a', b's', b'm', rest @ ..] if rest.len() < 4 => not_wasm("the upload is cut off"),
        [0, b'a', b's', b'm', ..] => {
            not_wasm("it is of a version of WebAssembly that this node does not know")
        }
        [0x7f, b'E', b'L', b'F', ..] => not_wasm(
            "it is native code. Upload the `.wasm` file; the node compiles it itself and takes no \
             compiled code from outside",
        ),
        [0x1f, 0x8b, ..] | [b'P', b'K', ..] => not_wasm("it is an archive; unpack it first"),
        bytes if is_text(bytes) => not_wasm(
            "it looks like the text format; turn it into a component with `wasm-tools parse`",
        ),
        _ => not_wasm("it does not begin with the bytes `\\0asm`"),
    }
}

fn is_text(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    bytes.starts_with(b"(component") || bytes.starts_with(b"(module") || bytes.starts_with(b";;")
}

/// One pass over the bytes: validates, counts, and collects the names at the top level.
struct Scan<'a> {
    limits: &'a Limits,
    declared: Declared,
    declaration_bytes: u64,
    parts: u32,
    imports: Vec<String>,
    exports: Vec<String>,
    /// Names that only the engine may give are allowed.
    reserved: bool,
}

impl<'a> Scan<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            declared: Declared::default(),
            declaration_bytes: 0,
            parts: 0,
            imports: Vec::new(),
            exports: Vec::new(),
            reserved: false,
        }
    }

    fn run(&mut self, bytes: &[u8]) -> Result<wasmparser::types::Types, Error> {
        let mut validator = Validator::new_with_features(FEATURES);
        let mut allocations = FuncValidatorAllocations::default();
        let mut parser = Parser::new(0);
        parser.set_features(FEATURES);
        let mut outer = Vec::new();
        let mut rest = bytes;
        loop {
            // With all bytes at hand the parser never asks for more than there are.
            let (payload, consumed) = match parser.parse(rest, true).map_err(malformed)? {
                Chunk::Parsed { consumed, payload } => (payload, consumed),
                Chunk::NeedMoreData(_) => return Err(Error::Malformed("it is cut off".to_owned())),
            };
            rest = &rest[consumed..];
            self.note(&payload, outer.len())?;
            match validator.payload(&payload).map_err(malformed)? {
                ValidPayload::Ok => {}
                ValidPayload::Parser(inner) => outer.push(std::mem::replace(&mut parser, inner)),
                ValidPayload::Func(function, body) => {
                    let mut function = function.into_validator(allocations);
                    function.validate(&body).map_err(malformed)?;
                    allocations = function.into_allocations();
                }
                ValidPayload::End(types) => match outer.pop() {
                    Some(resumed) => parser = resumed,
                    None => return Ok(types),
                },
            }
        }
    }

    /// Counts one payload against the limits, before the validator spends memory on it.
    fn note(&mut self, payload: &Payload<'_>, depth: usize) -> Result<(), Error> {
        if let Some(range) = declarations(payload) {
            self.declaration_bytes += range.len() as u64;
            if self.declaration_bytes > DECLARATION_BYTES_MAX {
                return Err(Error::Malformed(format!(
                    "its types, imports, exports and instances take more than \
                     {DECLARATION_BYTES_MAX} bytes"
                )));
            }
        }
        match payload {
            Payload::Version { encoding, .. } => self.part(*encoding, depth),
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let memory = memory.map_err(malformed)?;
                    let page = 1_u64 << memory.page_size_log2.unwrap_or(16).min(16);
                    self.memory(memory.initial.saturating_mul(page))?;
                }
                Ok(())
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    self.table(table.map_err(malformed)?.ty.initial)?;
                }
                Ok(())
            }
            Payload::ImportSection(section) => no_shared_memory(section.clone()),
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    self.free_name(export.map_err(malformed)?.name)?;
                }
                Ok(())
            }
            Payload::CodeSectionStart { count, .. } => {
                self.declared.functions = self.declared.functions.saturating_add(*count);
                Ok(())
            }
            Payload::CodeSectionEntry(body) if body.range().len() > FUNCTION_BYTES_MAX => {
                Err(Error::Malformed(format!(
                    "the function at offset {} has {} bytes of code; at most {FUNCTION_BYTES_MAX} \
                     are compiled",
                    body.range().start,
                    body.range().len(),
                )))
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section.clone() {
                    self.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
                Ok(())
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section.clone() {
                    let name = export.map_err(malformed)?.name.name;
                    self.free_name(name)?;
                    self.exports.push(name.to_owned());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Refuses a name that only the engine may give.
    fn free_name(&self, name: &str) -> Result<(), Error> {
        if self.reserved || !name.starts_with(RESERVED) {
            return Ok(());
        }
        Err(Error::Malformed(format!(
            "it exports `{}`; names that begin with `{RESERVED}` are the engine's own, and what \
             the node has compiled cannot be uploaded again",
            shown(name, 128)
        )))
    }

    fn part(&mut self, encoding: Encoding, depth: usize) -> Result<(), Error> {
        if depth > NESTING_MAX {
            return Err(Error::Malformed(format!(
                "components are nested more than {NESTING_MAX} deep"
            )));
        }
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(Error::Malformed(format!(
                "it consists of more than {PARTS_MAX} modules and components"
            )));
        }
        if encoding == Encoding::Module {
            self.declared.core_modules += 1;
        }
        Ok(())
    }

    fn memory(&mut self, bytes: u64) -> Result<(), Error> {
        self.declared.memories = self.declared.memories.saturating_add(1);
        self.declared.memory_bytes_min = self.declared.memory_bytes_min.saturating_add(bytes);
        if bytes <= self.limits.memory_bytes_max {
            return Ok(());
        }
        Err(Error::Demand(vec![format!(
            "a linear memory begins with {bytes} bytes; this node gives at most {}",
            self.limits.memory_bytes_max
        )]))
    }

    fn table(&mut self, elements: u64) -> Result<(), Error> {
        self.declared.tables = self.declared.tables.saturating_add(1);
        self.declared.table_elements_min =
            self.declared.table_elements_min.saturating_add(elements);
        if elements <= TABLE_ELEMENTS_MAX as u64 {
            return Ok(());
        }
        Err(Error::Demand(vec![format!(
            "a table begins with {elements} elements; this node gives at most {TABLE_ELEMENTS_MAX}"
        )]))
    }

    fn check_demand(&self) -> Result<(), Error> {
        let mut lines = Vec::new();
        let Declared { memories, tables, .. } = self.declared;
        if memories > MEMORIES_MAX {
            lines.push(format!("it has {memories} linear memories, at most {MEMORIES_MAX} fit"));
        }
        if tables > TABLES_MAX {
            lines.push(format!("it has {tables} tables, at most {TABLES_MAX} fit"));
        }
        if lines.is_empty() { Ok(()) } else { Err(Error::Demand(lines)) }
    }
}

/// The section's bytes if the validator keeps something for each item in it.
fn declarations(payload: &Payload<'_>) -> Option<std::ops::Range<usize>> {
    match payload {
        Payload::TypeSection(s) => Some(s.range()),
        Payload::ImportSection(s) => Some(s.range()),
        Payload::FunctionSection(s) => Some(s.range()),
        Payload::TableSection(s) => Some(s.range()),
        Payload::MemorySection(s) => Some(s.range()),
        Payload::TagSection(s) => Some(s.range()),
        Payload::GlobalSection(s) => Some(s.range()),
        Payload::ExportSection(s) => Some(s.range()),
        Payload::InstanceSection(s) => Some(s.range()),
        Payload::CoreTypeSection(s) => Some(s.range()),
        Payload::ComponentInstanceSection(s) => Some(s.range()),
        Payload::ComponentAliasSection(s) => Some(s.range()),
        Payload::ComponentTypeSection(s) => Some(s.range()),
        Payload::ComponentCanonicalSection(s) => Some(s.range()),
        Payload::ComponentImportSection(s) => Some(s.range()),
        Payload::ComponentExportSection(s) => Some(s.range()),
        _ => None,
    }
}

/// The usual sign of a build with threads, which the validator reports less plainly.
fn no_shared_memory(section: wasmparser::ImportSectionReader<'_>) -> Result<(), Error> {
    for import in section.into_imports() {
        if let TypeRef::Memory(memory) = import.map_err(malformed)?.ty
            && memory.shared
        {
            let text = "it is built for threads; build it without them";
            return Err(Error::Malformed(text.to_owned()));
        }
    }
    Ok(())
}

fn malformed(error: wasmparser::BinaryReaderError) -> Error {
    let complaint = shown(error.message(), COMPLAINT_BYTES_MAX);
    Error::Malformed(format!("{complaint} (at byte {:#x})", error.offset()))
}

#[cfg(test)]
mod tests;
