//! The accessor's core module, and more exports for a module that is there.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, Encode as _, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, ImportSection, InstructionSink, MemArg,
    MemoryType, Module, TypeSection, ValType,
};
use wasmparser::BinaryReader;

use super::survey::{Survey, values};
use super::{global_name, memory_name};

/// Values one function gives out; more take one for each so many.
const CHUNK: usize = 64;

/// Exports of the accessor that are there once.
pub(super) const REALLOC: &str = "realloc";
pub(crate) const SEEK: &str = "seek";
pub(crate) const COUNT: &str = "count";
pub(crate) const GET: &str = "get";
pub(crate) const SET: &str = "set";

/// Exports that are there for each memory; its letter follows.
pub(crate) const SIZE: &str = "size";
pub(crate) const GROW: &str = "grow";
pub(crate) const WRITE: &str = "write";
pub(crate) const READ: &str = "read";
pub(super) const READ_DONE: &str = "read-done";

/// The name of something of one memory.
pub(crate) fn of_memory(name: &str, memory: usize) -> String {
    let letter = (b'a'..=b'z').nth(memory).map_or('z', char::from);
    format!("{name}-{letter}")
}

/// What the accessor calls a core instance it imports from.
pub(super) fn instance_name(instance: usize) -> String {
    format!("i{instance}")
}

/// A value of 64 bits the accessor gives: of which global, and which part of it.
#[derive(Debug, Clone, Copy)]
struct Value {
    global: u32,
    ty: ValType,
    lane: u8,
}

/// A module with more exports. Its other sections are copied as they are.
pub(super) fn export_more(
    module: &[u8],
    extra: &[(String, ExportKind, u32)],
) -> Result<Vec<u8>, String> {
    const EXPORTS: u8 = 7;
    /// Sections that come behind it.
    const BEHIND: [u8; 5] = [8, 9, 10, 11, 12];
    let fault = |error: wasmparser::BinaryReaderError| error.to_string();
    let (head, sections) = module.split_at_checked(8).ok_or("a module is cut off")?;
    let mut out = head.to_vec();
    let mut done = false;
    let mut reader = BinaryReader::new(sections, 0);
    while !reader.eof() {
        let start = reader.current_position();
        let id = reader.read_u8().map_err(fault)?;
        let bytes = reader.read_var_u32().map_err(fault)?;
        let body = reader.read_bytes(bytes as usize).map_err(fault)?;
        if !done && (id == EXPORTS || BEHIND.contains(&id)) {
            let old = if id == EXPORTS { body } else { &[0] };
            push_exports(&mut out, old, extra)?;
            done = true;
        }
        if id != EXPORTS {
            out.extend_from_slice(&sections[start..reader.current_position()]);
        }
    }
    if !done {
        push_exports(&mut out, &[0], extra)?;
    }
    Ok(out)
}

fn push_exports(
    out: &mut Vec<u8>,
    old: &[u8],
    extra: &[(String, ExportKind, u32)],
) -> Result<(), String> {
    let mut reader = BinaryReader::new(old, 0);
    let count = reader.read_var_u32().map_err(|error| error.to_string())?;
    let mut body = Vec::new();
    (count as usize + extra.len()).encode(&mut body);
    body.extend_from_slice(&old[reader.current_position()..]);
    for (name, kind, index) in extra {
        name.as_str().encode(&mut body);
        kind.encode(&mut body);
        index.encode(&mut body);
    }
    out.push(7);
    body.len().encode(out);
    out.extend_from_slice(&body);
    Ok(())
}

/// The accessor.
pub(super) fn accessor(found: &Survey) -> Vec<u8> {
    let mut maker = Maker::default();
    maker.import(found);
    maker.fixed();
    for memory in 0..maker.memories {
        maker.memory(memory);
    }
    maker.globals();
    maker.finish()
}

#[derive(Default)]
struct Maker {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    exports: ExportSection,
    code: CodeSection,
    memories: u32,
    values: Vec<Value>,
    /// Imported globals, before the accessor's own three.
    globals: u32,
}

impl Maker {
    fn import(&mut self, found: &Survey) {
        for (at, module) in found.instances.iter().enumerate() {
            let Some(module) = module.map(|module| &found.modules[module]) else { continue };
            let instance = instance_name(at);
            for memory in &module.memories {
                let ty = MemoryType {
                    minimum: 0,
                    maximum: None,
                    memory64: false,
                    shared: false,
                    page_size_log2: None,
                };
                self.imports.import(&instance, &memory_name(*memory), EntityType::Memory(ty));
                let name = of_memory("memory", self.memories as usize);
                self.exports.export(&name, ExportKind::Memory, self.memories);
                self.memories += 1;
            }
            for (global, ty) in &module.globals {
                let lanes = values(*ty);
                let ty = match ty {
                    wasmparser::ValType::I32 => ValType::I32,
                    wasmparser::ValType::F32 => ValType::F32,
                    wasmparser::ValType::F64 => ValType::F64,
                    wasmparser::ValType::V128 => ValType::V128,
                    // References stopped the survey.
                    wasmparser::ValType::I64 | wasmparser::ValType::Ref(_) => ValType::I64,
                };
                let entity = GlobalType { val_type: ty, mutable: true, shared: false };
                self.imports.import(&instance, &global_name(*global), EntityType::Global(entity));
                for lane in 0..lanes {
                    let value = Value { global: self.globals, ty, lane: lane as u8 };
                    self.values.push(value);
                }
                self.globals += 1;
            }
        }
    }

    fn function(
        &mut self,
        params: &[ValType],
        result: Option<ValType>,
        body: impl FnOnce(&mut InstructionSink<'_>),
    ) -> u32 {
        let index = self.functions.len();
        self.types.ty().function(params.iter().copied(), result);
        self.functions.function(index);
        let mut function = Function::new([]);
        let mut code = function.instructions();
        body(&mut code);
        code.end();
        self.code.function(&function);
        index
    }

    fn export(&mut self, name: &str, function: u32) {
        self.exports.export(name, ExportKind::Func, function);
    }

    /// Where the next bytes go, what the scratch held, and the functions that need no memory.
    fn fixed(&mut self) {
        let (cursor, count) = (self.globals, self.values.len() as i32);
        // Bytes are put where the host has sought to, one list behind the other.
        let realloc = self.function(&[ValType::I32; 4], Some(ValType::I32), |code| {
            code.global_get(cursor).global_get(cursor).local_get(3).i32_add().global_set(cursor);
        });
        self.export(REALLOC, realloc);
        let seek = self.function(&[ValType::I32], None, |code| {
            code.local_get(0).global_set(cursor);
        });
        self.export(SEEK, seek);
        let counted = self.function(&[], Some(ValType::I32), |code| {
            code.i32_const(count);
        });
        self.export(COUNT, counted);
    }

    fn memory(&mut self, memory: u32) {
        let saved = self.globals + 1;
        let at = |offset| MemArg { offset, align: 0, memory_index: memory };
        let name = |name| of_memory(name, memory as usize);
        let size = self.function(&[], Some(ValType::I32), |code| {
            code.memory_size(memory);
        });
        self.export(&name(SIZE), size);
        let grow = self.function(&[ValType::I32], Some(ValType::I32), |code| {
            code.local_get(0).memory_grow(memory);
        });
        self.export(&name(GROW), grow);
        // The bytes are there when it is called: lowering the list put them there.
        let write = self.function(&[ValType::I32; 2], None, |_| {});
        self.export(&name(WRITE), write);
        // A list is returned by the address of its address and length, which need eight bytes of
        // the memory: those at the third parameter, given back when the host has seen the list.
        let read = self.function(&[ValType::I32; 3], Some(ValType::I32), |code| {
            code.local_get(2).i64_load(at(0)).global_set(saved);
            code.local_get(2).local_get(0).i32_store(at(0));
            code.local_get(2).local_get(1).i32_store(at(4));
            code.local_get(2);
        });
        self.export(&name(READ), read);
        let done = self.function(&[ValType::I32], None, |code| {
            code.local_get(0).global_get(saved).i64_store(at(0));
        });
        self.export(&name(READ_DONE), done);
    }

    fn globals(&mut self) {
        let values = std::mem::take(&mut self.values);
        let (i32, i64) = (ValType::I32, ValType::I64);
        let mut getters = Vec::new();
        let mut setters = Vec::new();
        for chunk in values.chunks(CHUNK) {
            getters.push(self.function(&[i32], Some(i64), |code| {
                select(code, 0, chunk.len(), |code, at| get(code, chunk[at]));
            }));
            setters.push(self.function(&[i32, i64], None, |code| {
                select(code, 0, chunk.len(), |code, at| set(code, chunk[at]));
            }));
        }
        let within = CHUNK as i32 - 1;
        let shift = CHUNK.ilog2();
        let get = self.function(&[i32], Some(i64), |code| {
            select(code, shift, getters.len(), |code, at| {
                code.local_get(0).i32_const(within).i32_and().call(getters[at]);
            });
        });
        self.export(GET, get);
        let set = self.function(&[i32, i64], None, |code| {
            select(code, shift, setters.len(), |code, at| {
                code.local_get(0).i32_const(within).i32_and();
                code.local_get(1).call(setters[at]);
            });
        });
        self.export(SET, set);
    }

    fn finish(self) -> Vec<u8> {
        let mut own = GlobalSection::new();
        let global = |val_type| GlobalType { val_type, mutable: true, shared: false };
        own.global(global(ValType::I32), &ConstExpr::i32_const(0));
        own.global(global(ValType::I64), &ConstExpr::i64_const(0));
        let mut module = Module::new();
        module
            .section(&self.types)
            .section(&self.imports)
            .section(&self.functions)
            .section(&own)
            .section(&self.exports)
            .section(&self.code);
        module.finish()
    }
}

/// One arm for each value of the first parameter, shifted; any other traps.
fn select(
    code: &mut InstructionSink<'_>,
    shift: u32,
    arms: usize,
    arm: impl Fn(&mut InstructionSink<'_>, usize),
) {
    let count = arms as u32;
    for _ in 0..=count {
        code.block(BlockType::Empty);
    }
    code.local_get(0).i32_const(shift as i32).i32_shr_u().br_table(0..count, count);
    for at in 0..arms {
        code.end();
        arm(code, at);
        code.return_();
    }
    code.end().unreachable();
}

fn get(code: &mut InstructionSink<'_>, value: Value) {
    code.global_get(value.global);
    match value.ty {
        ValType::I32 => code.i64_extend_i32_u(),
        ValType::F32 => code.i32_reinterpret_f32().i64_extend_i32_u(),
        ValType::F64 => code.i64_reinterpret_f64(),
        ValType::V128 => code.i64x2_extract_lane(value.lane),
        ValType::I64 | ValType::Ref(_) => code,
    };
}

fn set(code: &mut InstructionSink<'_>, value: Value) {
    match value.ty {
        ValType::I32 => code.local_get(1).i32_wrap_i64(),
        ValType::F32 => code.local_get(1).i32_wrap_i64().f32_reinterpret_i32(),
        ValType::F64 => code.local_get(1).f64_reinterpret_i64(),
        ValType::V128 => code.global_get(value.global).local_get(1).i64x2_replace_lane(value.lane),
        ValType::I64 | ValType::Ref(_) => code.local_get(1),
    };
    code.global_set(value.global);
}
