//! The one place where an engine is configured: what guests may use, how their code is made, how
//! many of them fit.
//!
//! Keeps true: the engine that runs guests and the engine that compiles them in a process of its
//! own agree on everything that shapes code (equal compatibility hash), and differ only in how they
//! allocate. No number in [`EngineConfig`] shapes code, so that a compiled component stays valid
//! when a node is given another size. Proposals that no supported guest needs are off. The pool's
//! reservation fits into the address space, or the engine is refused with the numbers.
//!
//! Leaves to others: limits of one stage and the permits that keep demand below the pool's size
//! (`limits`, `pool`), what to do with a warning (`node`).

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;

use rustix::process::{Resource, getrlimit};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, OptLevel,
    PoolingAllocationConfig, RegallocAlgorithm, Strategy, WasmBacktraceDetails, WasmFeatures,
};

use crate::error::{Error, engine_text};
use crate::huge_pages;

/// Address space of one linear memory. With 4 GiB a 32-bit access needs no bounds check, which is
/// worth a third of the time of a branchy loop.
pub const MEMORY_RESERVATION: u64 = 4 << 30;

/// Unmapped space behind each memory, so that the constant offset of an access needs no check.
pub const MEMORY_GUARD: u64 = 32 << 20;

/// Stack a guest may use. A guest that recurses without end traps there.
pub const GUEST_STACK_BYTES: usize = 512 << 10;

/// Stack of one call: the guest's and, behind it, that of the host functions it calls. Address
/// space only until touched; a host function that ran out of it would end the process.
pub const STACK_BYTES: usize = 2 << 20;

/// Core instances one component may have. A Python guest has about twenty, a composed one more.
pub const CORE_INSTANCES_MAX: u32 = 256;

/// Linear memories one component may have; composed components have one for each part.
pub const MEMORIES_MAX: u32 = 64;

/// Tables one component may have.
pub const TABLES_MAX: u32 = 128;

/// Linear memories one core module may define.
pub const MODULE_MEMORIES_MAX: u32 = 8;

/// Tables one core module may define.
pub const MODULE_TABLES_MAX: u32 = 8;

/// Elements of one table: an interpreter has a few ten thousand functions.
pub const TABLE_ELEMENTS_MAX: usize = 200_000;

/// Bookkeeping of one component instance, all of its core instances included.
pub const INSTANCE_BYTES_MAX: usize = 4 << 20;

/// Frames kept of a trap's backtrace.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(32).expect("32 is not zero");

/// Tables in the pool for each instance: twice what most components have.
const TABLES_PER_INSTANCE: u32 = 4;

/// Mappings of one instance: the image of its data, the memory behind it, and two more at their
/// edges.
const MAPPINGS_PER_INSTANCE: u64 = 4;

/// Mappings of one pooled stack: the stack and its guard page.
const MAPPINGS_PER_STACK: u64 = 2;

/// Mappings of everything else: the program, threads, compiled code, buffers.
const MAPPINGS_OF_THE_REST: u64 = 4_096;

/// Address space a process has on the smallest of our machines, less a tebibyte for the rest.
const ADDRESS_SPACE: u64 = (1 << 47) - (1 << 40);

/// What guests may use of WebAssembly, for the engines and for the validator of uploads alike:
/// what the toolchains of supported languages emit. Not in it: threads, garbage collection,
/// exceptions, 64-bit memories, relaxed SIMD (its results differ between machines), async
/// component functions (they make every call several times dearer, used or not).
pub const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .difference(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::COMPONENT_MODEL);

/// How large the engine is built. Every field is a bound; none of them shapes compiled code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Component instances that may exist at once.
    pub instances: u32,
    /// Calls that may be in flight at once, instantiations included: each has a stack in use.
    pub stacks: u32,
    /// Largest linear memory of any guest, in bytes. Stages have smaller limits of their own.
    pub memory_bytes_max: u64,
    /// Bytes of a dropped instance's memory that stay resident for the next one.
    pub keep_resident_bytes: usize,
    /// Slots last used by one component that are not given to another while fresh ones are left.
    pub warm_slots: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            instances: 10_000,
            stacks: 512,
            memory_bytes_max: 1 << 30,
            keep_resident_bytes: 1 << 20,
            warm_slots: 256,
        }
    }
}

impl EngineConfig {
    /// A small engine for tests: quick to make, little address space.
    #[must_use]
    pub fn small() -> Self {
        Self { instances: 64, stacks: 16, warm_slots: 16, ..Self::default() }
    }

    /// Checks each field and that the pool fits into an address space.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn check(&self) -> Result<(), Error> {
        range("instances", u64::from(self.instances), 1, 40_000)?;
        range("stacks", u64::from(self.stacks), 1, 16_384)?;
        range("memory_bytes_max", self.memory_bytes_max, 1 << 20, MEMORY_RESERVATION)?;
        range("keep_resident_bytes", self.keep_resident_bytes as u64, 0, 64 << 20)?;
        let need = self.address_space();
        if need > ADDRESS_SPACE {
            let message = format!(
                "{} instances reserve {} GiB of address space, a process has {} GiB; at most {} \
                 instances fit",
                self.instances,
                need >> 30,
                ADDRESS_SPACE >> 30,
                self.instances_that_fit(ADDRESS_SPACE),
            );
            return Err(Error::Config { field: "instances", message });
        }
        Ok(())
    }

    /// Linear memories in the pool: one for each instance, as [`weight`] counts them, and some in
    /// reserve.
    #[must_use]
    pub fn memories(&self) -> u32 {
        self.instances + MEMORIES_MAX
    }

    /// Stacks in the pool. The engine keeps the stack of a store's last call in the store, for the
    /// next one, and gives it back with the store only: so every instance holds one, idle or not.
    #[must_use]
    pub fn pooled_stacks(&self) -> u32 {
        self.instances.max(self.stacks)
    }

    /// Tables in the pool. A component has two as a rule: its own and the one of its lowered
    /// imports.
    #[must_use]
    pub fn tables(&self) -> u32 {
        self.instances * TABLES_PER_INSTANCE + TABLES_MAX
    }

    /// Bytes of address space the pool reserves.
    #[must_use]
    pub fn address_space(&self) -> u64 {
        let memories = (u64::from(self.memories()) + 1) * (MEMORY_RESERVATION + MEMORY_GUARD);
        memories + self.writable_space()
    }

    /// Bytes of it that can be written to from the start, used or not: what a limit on writable
    /// memory counts before there is any instance.
    #[must_use]
    pub fn writable_space(&self) -> u64 {
        let tables = u64::from(self.tables()) * (TABLE_ELEMENTS_MAX as u64 * 8 + 4_096);
        tables + u64::from(self.pooled_stacks()) * (STACK_BYTES as u64 + 4_096)
    }

    /// Memory mappings the process may come to hold.
    #[must_use]
    pub fn mappings(&self) -> u64 {
        u64::from(self.memories()) * MAPPINGS_PER_INSTANCE
            + u64::from(self.pooled_stacks()) * MAPPINGS_PER_STACK
            + MAPPINGS_OF_THE_REST
    }

    /// What to tell the operator when the kernel allows fewer mappings than a full pool needs.
    /// Nothing if there are enough, or if the kernel does not say.
    #[must_use]
    pub fn mappings_warning(&self) -> Option<String> {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
        self.mappings_shortage(text.trim().parse().ok()?)
    }

    fn mappings_shortage(&self, allowed: u64) -> Option<String> {
        let need = self.mappings();
        if allowed >= need {
            return None;
        }
        let fit = allowed.saturating_sub(MAPPINGS_OF_THE_REST)
            / (MAPPINGS_PER_INSTANCE + MAPPINGS_PER_STACK);
        Some(format!(
            "vm.max_map_count is {allowed}, but {} instances and their stacks may need {need} \
             mappings; instantiation may fail beyond about {fit} instances. Set it with \
             `sysctl -w vm.max_map_count={}`, or configure fewer instances",
            self.instances,
            need.next_multiple_of(65_536),
        ))
    }

    fn instances_that_fit(&self, space: u64) -> u64 {
        let tables = u64::from(TABLES_PER_INSTANCE) * (TABLE_ELEMENTS_MAX as u64 * 8 + 4_096);
        let each = MEMORY_RESERVATION + MEMORY_GUARD + STACK_BYTES as u64 + 4_096 + tables;
        // One memory is the guard before all others.
        (space / each).saturating_sub(u64::from(MEMORIES_MAX) + 1)
    }
}

/// What an instance takes of the pool, in the unit of [`EngineConfig::instances`]: as many permits
/// as this, and neither memories nor tables can run out before the permits do.
#[must_use]
pub fn weight(memories: u32, tables: u32) -> u32 {
    memories.max(tables.div_ceil(TABLES_PER_INSTANCE)).max(1)
}

fn range(field: &'static str, value: u64, least: u64, most: u64) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let message = format!("{value} is out of range; it must be from {least} to {most}");
    Err(Error::Config { field, message })
}

/// The engine that runs guests: pooled, so that an instance costs microseconds.
///
/// # Errors
/// [`Error::Config`] if a setting is out of range, [`Error::Start`] if the machine refuses the
/// reservation.
pub fn runtime_engine(config: &EngineConfig) -> Result<Engine, Error> {
    config.check()?;
    check_address_limit(config, getrlimit(Resource::As).current)?;
    let mut engine = shared();
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    let engine = Engine::new(&engine).map_err(|error| Error::Start(engine_text(&error)))?;
    huge_pages::advise(u64::from(config.memories()) * MEMORY_RESERVATION);
    Ok(engine)
}

/// The engine that compiles guests in a process of its own: the same code, but nothing reserved,
/// so that the process can live under a limit on its address space.
///
/// # Errors
/// [`Error::Start`] if this machine cannot compile.
pub fn compile_engine(threads: usize) -> Result<Engine, Error> {
    let mut engine = shared();
    engine.parallel_compilation(threads > 1);
    Engine::new(&engine).map_err(|error| Error::Start(engine_text(&error)))
}

/// Identifies everything that shapes compiled code: version and settings of the compiler, features
/// of the processor, and how a component is made ready for images before. An artefact runs only in
/// an engine with the fingerprint it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of an engine.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        let mut hasher = WideHasher(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        crate::image::VERSION.hash(&mut hasher);
        Self(*hasher.0.finalize().as_bytes())
    }
}

/// Keeps all of what is hashed: 64 bits and a hash that may change with the standard library would
/// do for a cache in memory, not for names of files.
struct WideHasher(blake3::Hasher);

impl Hasher for WideHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        let (head, _) = hash.as_bytes().split_first_chunk().expect("32 bytes begin with 8");
        u64::from_le_bytes(*head)
    }
}

/// A pool under `ulimit -v` fails with a bare "out of memory"; say it better, and before.
fn check_address_limit(config: &EngineConfig, limit: Option<u64>) -> Result<(), Error> {
    let need = config.address_space();
    match limit {
        Some(limit) if limit < need => Err(Error::Start(format!(
            "the process may use {limit} bytes of address space (`ulimit -v`), {} instances \
             reserve {need}; lift the limit or configure fewer instances. Reserved space is not \
             used memory: limit memory with a control group instead",
            config.instances,
        ))),
        _ => Ok(()),
    }
}

/// Everything that shapes code or meaning, and what both engines have in common.
fn shared() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .concurrency_support(false)
        .consume_fuel(true)
        .operator_cost(prices())
        .memory_reservation(MEMORY_RESERVATION)
        .memory_guard_size(MEMORY_GUARD)
        .memory_may_move(false)
        .memory_init_cow(true)
        .guard_before_linear_memory(true)
        .signals_based_traps(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(STACK_BYTES);
    // A trap names its functions; lines would mean to parse debug information from strangers.
    config
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .native_unwind_info(false)
        .debug_symbols(false);
    config.wasm_features(WasmFeatures::all(), false).wasm_features(FEATURES, true);
    config
}

/// What instructions cost in fuel. One for each, as the engine has it, but for those that enter
/// the kernel or fault in pages: at a price of one, a loop around them would be nearly free.
fn prices() -> OperatorCost {
    let mut cost = OperatorCost::new();
    cost.MemoryGrow = u8::MAX;
    cost.TableGrow = u8::MAX;
    cost.variable.memory_grow_per_page = u8::MAX;
    cost
}

fn pool(config: &EngineConfig) -> PoolingAllocationConfig {
    let memory_bytes_max = usize::try_from(config.memory_bytes_max)
        .expect("checked to be at most 4 GiB, and addresses have 64 bits here");
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(config.instances)
        .total_memories(config.memories())
        .total_tables(config.tables())
        .total_stacks(config.pooled_stacks())
        // Only counted, nothing is reserved for them.
        .total_core_instances(config.instances.saturating_mul(CORE_INSTANCES_MAX))
        .max_memory_size(memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MODULE_MEMORIES_MAX)
        .max_tables_per_module(MODULE_TABLES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_unused_warm_slots(config.warm_slots)
        // Keeping pages pays only where the kernel can say which of them were touched; without
        // that the whole kept range is cleared on every drop.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(config.keep_resident_bytes)
        .table_keep_resident(64 << 10);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_agree_on_everything_that_shapes_code() {
        let run = runtime_engine(&EngineConfig::small()).unwrap();
        assert_eq!(Fingerprint::of(&run), Fingerprint::of(&compile_engine(1).unwrap()));
        assert_eq!(Fingerprint::of(&run), Fingerprint::of(&compile_engine(4).unwrap()));
    }

    #[test]
    fn no_setting_of_the_engine_shapes_code() {
        let one = runtime_engine(&EngineConfig::small()).unwrap();
        let other = EngineConfig {
            instances: 3,
            stacks: 2,
            memory_bytes_max: 4 << 30,
            keep_resident_bytes: 0,
            warm_slots: 0,
        };
        assert_eq!(Fingerprint::of(&one), Fingerprint::of(&runtime_engine(&other).unwrap()));
    }

    #[test]
    fn the_default_engine_starts_and_fits_the_usual_kernel() {
        let config = EngineConfig::default();
        assert_eq!(config.mappings_shortage(65_530), None);
        runtime_engine(&config).unwrap();
    }

    #[test]
    fn the_engine_allows_the_listed_features_and_no_other() {
        let engine = compile_engine(1).unwrap();
        assert_eq!(engine.get_wasm_features(), FEATURES);
    }

    #[test]
    fn an_instance_of_many_tables_weighs_as_much_as_the_tables_it_takes() {
        assert_eq!(weight(1, 2), 1);
        assert_eq!(weight(0, 0), 1);
        assert_eq!(weight(3, 2), 3);
        let config = EngineConfig::default();
        let instances = config.instances / weight(1, TABLES_MAX);
        assert!(instances * TABLES_MAX <= config.tables());
    }

    #[test]
    fn too_few_mappings_are_reported_with_what_to_set() {
        let config = EngineConfig { instances: 20_000, ..EngineConfig::default() };
        let warning = config.mappings_shortage(65_530).unwrap();
        assert!(warning.contains("sysctl -w vm.max_map_count=131072"), "{warning}");
        assert!(warning.contains("about 10239 instances"), "{warning}");
    }

    #[test]
    fn a_pool_larger_than_the_address_space_is_refused_with_the_number_that_fits() {
        let config = EngineConfig { instances: 39_999, ..EngineConfig::default() };
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("`instances`") && error.contains("at most 32"), "{error}");
        let fit = config.instances_that_fit(ADDRESS_SPACE);
        let fitting = EngineConfig { instances: u32::try_from(fit).unwrap(), ..config };
        fitting.check().unwrap();
    }

    #[test]
    fn a_limit_on_address_space_is_named() {
        let config = EngineConfig::small();
        assert!(check_address_limit(&config, None).is_ok());
        assert!(check_address_limit(&config, Some(config.address_space())).is_ok());
        let error = check_address_limit(&config, Some(1 << 30)).unwrap_err().to_string();
        assert!(error.contains("ulimit -v"), "{error}");
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        for (config, field) in [
            (EngineConfig { instances: 0, ..EngineConfig::default() }, "instances"),
            (EngineConfig { stacks: 0, ..EngineConfig::default() }, "stacks"),
            (EngineConfig { memory_bytes_max: 5 << 30, ..EngineConfig::default() }, "memory_bytes"),
        ] {
            let error = runtime_engine(&config).err().unwrap().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
