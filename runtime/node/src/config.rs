//! One file, then environment, then flags, then checks; after this everything is typed and nothing
//! is read again.
//!
//! - A field is declared once, below: name, type, meaning, default and range. The reference that
//!   `sluicebox config reference` prints, the checks and the structs come from that one place.
//! - All mistakes are reported at once, each naming its field, where it was said and what is
//!   allowed.
//! - Unknown fields are refused, sizes and durations have units.
//! - A [`Config`] exists only if every rule holds, those between fields included: without tokens
//!   (`node.dev`) the node listens on a loopback address only.
//!
//! The limits of one stage are in its pipeline's manifest; a tenant's are in the tenants file.
//! Bounds that nobody may change are in `sluicebox_core::limits`.

mod cluster;
mod machine;
pub mod quantity;
mod quota;
mod reader;
mod rules;
mod sections;
mod shape;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sluicebox_core::error::{Classify, Kind};
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Allowance;
use sluicebox_link::tls::NodeName;

pub use self::bill::BillConfig;
pub use self::cluster::NodeAddress;
pub use self::connectors::{ConnectorsConfig, Folder, Grant};
pub use self::gpu::{GpuConfig, GpuDevice};
pub use self::isolation::{GroupPlace, IsolationConfig};
pub(crate) use self::machine::memory_share;
use self::machine::{cores, standard_data_dir};
use self::reader::Reader;
pub use self::reader::{Origin, Problem, Setting, Sources};
pub use self::sections::SECTIONS;
use self::shape::{
    Address, Bytes, Count, MaybeName, MaybeNode, MaybePlace, NodeList, Period, Place, Shape, Switch,
};
pub use crate::traces::Sampler;

pub use self::traces::{CollectorConfig, Otlp, Secret, TracesConfig, Url};

/// The file that is read when none is named.
pub const FILE: &str = "sluicebox.toml";

/// Port of a node unless another is configured.
pub const PORT: u16 = 7411;

/// The same of the port where other nodes connect.
pub const PEER_PORT: u16 = 7421;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const TIB: usize = 1 << 40;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Declares a section: the struct, and reading it. Fields may use those above them.
macro_rules! section {
    ($(#[doc = $about:literal])+ $name:ident in $section:literal {
        $($(#[doc = $help:literal])+ $field:ident: $type:ty = $shape:expr;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        impl $name {
            /// Its name in the file, and what it is about.
            pub(in crate::config) const SECTION: (&'static str, &'static str) =
                ($section, concat!($($about),+));

            pub(in crate::config) fn read(reader: &mut Reader) -> Self {
                $(let $field = {
                    let path = concat!($section, ".", stringify!($field)).replace('_', "-");
                    reader.field(&path, concat!($($help),+), &$shape)
                };)+
                Self { $($field),+ }
            }

            /// The section as a file has it.
            pub(in crate::config) fn write(&self, text: &mut String) {
                let Self { $($field),+ } = self;
                text.push_str(concat!("\n[", $section, "]\n"));
                $({
                    let name = stringify!($field).replace('_', "-");
                    let value = Shape::write(&$shape, $field);
                    text.push_str(&format!("{name} = {value}\n"));
                })+
            }
        }
    };
}

// Behind the macro, which it uses.
mod bill;
mod connectors;
mod gpu;
mod isolation;
mod traces;

section! {
    /// The node as a whole.
    NodeConfig in "node" {
        /// Directory that holds components, compiled artefacts and applied pipelines.
        data_dir: PathBuf = Place { default: standard_data_dir() };
        /// File with the tenants, their tokens (hashed), scopes and quotas.
        tenants_file: PathBuf = Place { default: data_dir.join("tenants.toml") };
        /// Worker threads; each serves connections and partitions.
        workers: u16 = Count { default: cores(), least: 1, most: 1024 };
        /// Development: no tokens, one tenant named dev, loopback addresses only.
        dev: bool = Switch { default: false };
        /// How long a node that was told to stop waits for requests and queued events.
        drain_time_max: Duration =
            Period { default: 30 * SECOND, least: Duration::ZERO, most: HOUR };
    }
}

section! {
    /// The HTTP edge.
    HttpConfig in "http" {
        /// Address and port to listen on; port 0 takes a free one.
        listen: SocketAddr = Address { default: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)) };
        /// Connections open at once; more wait until one ends.
        connections_max: usize = Count { default: 10_000, least: 1, most: 1_000_000 };
        /// Requests in flight on one HTTP/2 connection.
        streams_max: u32 = Count { default: 128, least: 1, most: 10_000 };
        /// Largest body of an ingest request or a manifest.
        body_bytes_max: usize = Bytes { default: 16 * MIB, least: 4 * KIB, most: GIB };
        /// Request line and headers together.
        header_bytes_max: usize = Bytes { default: 16 * KIB, least: 8 * KIB, most: MIB };
        /// Longest time until the headers of a request are there.
        header_time_max: Duration =
            Period { default: 10 * SECOND, least: 100 * MILLISECOND, most: HOUR };
        /// Longest time until the body of a request is there, however steadily it comes.
        body_time_max: Duration =
            Period { default: 5 * MINUTE, least: 100 * MILLISECOND, most: HOUR };
        /// Longest time a reply may wait for a client that does not read.
        write_time_max: Duration =
            Period { default: MINUTE, least: 100 * MILLISECOND, most: HOUR };
        /// Longest time a kept-alive connection may be silent between requests.
        idle_time_max: Duration =
            Period { default: 2 * MINUTE, least: 100 * MILLISECOND, most: 24 * HOUR };
        /// Longest wait a client may ask for, for a result or for new output.
        wait_time_max: Duration = Period { default: MINUTE, least: 30 * SECOND, most: HOUR };
        /// How often a client that follows an output hears something while there is nothing new.
        heartbeat_time: Duration =
            Period { default: 15 * SECOND, least: 100 * MILLISECOND, most: 5 * MINUTE };
        /// How long nothing may come or go on a stream session before it is suspended.
        session_idle_time_max: Duration =
            Period { default: 10 * MINUTE, least: SECOND, most: 24 * HOUR };
        /// Bytes of records in one page of an output.
        page_bytes_max: usize = Bytes { default: 4 * MIB, least: 64 * KIB, most: 256 * MIB };
    }
}

section! {
    /// TLS for all connections; without it the node speaks plain HTTP.
    TlsConfig in "tls" {
        /// File with the certificate and those that vouch for it, PEM; empty for plain HTTP.
        certificate: Option<PathBuf> = MaybePlace;
        /// File with the certificate's private key, PEM.
        key: Option<PathBuf> = MaybePlace;
    }
}

section! {
    /// What outlives the node: the log, and the checkpoints that keep it short.
    LogConfig in "log" {
        /// Bytes of log after which a checkpoint is made.
        checkpoint_log_bytes: usize = Bytes { default: 256 * MIB, least: MIB, most: 64 * GIB };
        /// How long after the last checkpoint the next one is made, if there is anything to keep.
        checkpoint_interval: Duration =
            Period { default: MINUTE, least: 250 * MILLISECOND, most: 24 * HOUR };
        /// Bytes a second that a checkpoint writes, so that commits beside it wait little.
        checkpoint_bytes_per_second: usize =
            Bytes { default: 20 * MIB, least: 64 * KIB, most: 64 * GIB };
        /// Bytes of the store that are kept in memory.
        store_cache_bytes: usize = Bytes { default: 64 * MIB, least: MIB, most: 64 * GIB };
        /// Bytes of one file of the log.
        segment_bytes: usize = Bytes { default: 64 * MIB, least: MIB, most: GIB };
    }
}

section! {
    /// The engine that runs components, and the process that compiles them.
    EngineConfig in "engine" {
        /// Component instances that may exist at once, over all tenants.
        instances: u32 = Count { default: 10_000, least: 1, most: 30_000 };
        /// Calls that may be in flight at once; each takes a stack.
        stacks: u32 = Count { default: 512, least: 1, most: 16_384 };
        /// Largest linear memory of any component; stages have smaller limits of their own.
        memory_bytes_max: usize = Bytes { default: GIB, least: MIB, most: 4 * GIB };
        /// Memory of all instances together.
        memory_bytes_total: usize =
            Bytes { default: memory_share(), least: 16 * MIB, most: 64 * TIB };
        /// Bytes of a dropped instance's memory that stay resident for the next one.
        keep_resident_bytes: usize = Bytes { default: MIB, least: 0, most: 64 * MIB };
        /// Instance slots kept for the component that used them last.
        warm_slots: u32 = Count { default: 256, least: 0, most: 30_000 };
        /// Largest component that may be uploaded.
        upload_bytes_max: usize = Bytes { default: 32 * MIB, least: 64 * KIB, most: GIB };
        /// Components compiled at once; each is a process of its own.
        compile_processes: u16 = Count { default: 1, least: 1, most: 256 };
        /// Uploads that wait for the compiler; more are refused.
        compile_waiting_max: u16 = Count { default: 16, least: 1, most: 4096 };
        /// Memory of one compile process.
        compile_memory_bytes_max: usize = Bytes { default: 3 * GIB, least: 128 * MIB, most: TIB };
        /// Processor time of one compilation.
        compile_cpu_max: Duration = Period { default: MINUTE, least: SECOND, most: HOUR };
        /// Longest compilation by the clock.
        compile_time_max: Duration = Period { default: 2 * MINUTE, least: SECOND, most: 2 * HOUR };
        /// Largest compiled artefact.
        compile_output_bytes_max: usize = Bytes { default: 128 * MIB, least: MIB, most: 4 * GIB };
    }
}

impl EngineConfig {
    /// The same in the engine's own form.
    #[must_use]
    pub const fn tuning(&self) -> sluicebox_engine::tuning::EngineConfig {
        sluicebox_engine::tuning::EngineConfig {
            instances: self.instances,
            stacks: self.stacks,
            memory_bytes_max: self.memory_bytes_max as u64,
            keep_resident_bytes: self.keep_resident_bytes,
            warm_slots: self.warm_slots,
        }
    }
}

section! {
    /// Memory between the parts; every queue and ring of the node is bounded by one of these.
    LimitsConfig in "limits" {
        /// Events queued for one partition.
        inbox_bytes: usize = Bytes { default: MIB, least: 64 * KIB, most: GIB };
        /// Bodies of ingest requests in memory at once, over all connections.
        ingest_bytes: usize = Bytes { default: 256 * MIB, least: MIB, most: TIB };
        /// Most an output may keep for its readers, whatever its manifest says.
        output_bytes_max: usize = Bytes { default: GIB, least: 64 * KIB, most: TIB };
        /// Dead letters kept by each pipeline; the oldest are dropped and counted.
        dead_letter_bytes: usize = Bytes { default: 4 * MIB, least: 64 * KIB, most: GIB };
        /// Requests that wait for a result at once.
        requests_max: usize = Count { default: 65_536, least: 1, most: 1_000_000 };
        /// Pipelines of the whole node.
        pipelines_max: usize = Count { default: 10_000, least: 1, most: 1_000_000 };
    }
}

section! {
    /// The nodes this one works with, each a process; see the guide, `cluster.md`.
    ClusterConfig in "cluster" {
        /// Name of this node, which its certificate has; empty for a node that is alone.
        node: Option<NodeName> = MaybeNode;
        /// All nodes, this one too, each as name=host:port; the same list on every node.
        nodes: Vec<NodeAddress> = NodeList;
        /// Address and port on which other nodes reach this one.
        listen: SocketAddr =
            Address { default: SocketAddr::from((Ipv4Addr::LOCALHOST, PEER_PORT)) };
        /// File with this node's certificate, PEM; `sluicebox certs` makes it.
        certificate: Option<PathBuf> = MaybePlace;
        /// File with the certificate's private key, PEM.
        key: Option<PathBuf> = MaybePlace;
        /// File with the certificate of the authority that signed those of all nodes, PEM.
        authority: Option<PathBuf> = MaybePlace;
        /// Folder where the nodes of one machine meet, to be linked through memory; empty: none is.
        meeting_dir: Option<PathBuf> = MaybePlace;
        /// Name of the machine this node is on, if the system does not tell which nodes share one,
        /// as with containers; nodes of others are not met. Empty: the start of the kernel says it.
        host: Option<Name> = MaybeName;
        /// How long another node may be silent before it counts as unreachable.
        silence_time_max: Duration =
            Period { default: 2 * SECOND, least: 200 * MILLISECOND, most: HOUR };
        /// What partitions may change while their state is copied to another node and that has not
        /// taken it: if it is more they stay where they are.
        copy_behind_max: usize = Bytes { default: 256 * MIB, least: MIB, most: 64 * GIB };
        /// Memory that partitions may hold here, state and events that wait: plans put no more on
        /// this node.
        memory_bytes: usize = Bytes { default: memory_share(), least: 16 * MIB, most: 64 * TIB };
        /// Whether this node moves partitions of its pipelines as `sluicebox plan` would.
        balance: bool = Switch { default: false };
        /// How long a turn of doing so is; the nodes take turns.
        balance_interval: Duration = Period { default: 30 * SECOND, least: SECOND, most: HOUR };
    }
}

section! {
    /// What a tenant may use unless the tenants file gives it other quotas.
    QuotaConfig in "quota" {
        /// Events accepted each second.
        events_per_second: u64 = Count {
            default: Allowance::DEFAULT.events.per_second, least: 0, most: QUOTA_MAX,
        };
        /// Bytes of request bodies accepted each second.
        bytes_per_second: usize = bytes_quota(Allowance::DEFAULT.bytes.per_second);
        /// Memory of instances, all together.
        memory_bytes: usize = bytes_quota(Allowance::DEFAULT.memory_bytes);
        /// Keyed state in memory.
        state_bytes: usize = bytes_quota(Allowance::DEFAULT.state_bytes);
        /// What pipelines keep on disk: state, outputs, dead letters, events that wait, known ids.
        disk_bytes: usize = bytes_quota(Allowance::DEFAULT.disk_bytes);
        /// Uploaded components together.
        component_bytes: usize = bytes_quota(Allowance::DEFAULT.component_bytes);
        /// Pipelines.
        pipelines: u64 = Count { default: Allowance::DEFAULT.pipelines, least: 0, most: QUOTA_MAX };
        /// Open streams.
        streams: u64 = Count { default: Allowance::DEFAULT.streams, least: 0, most: QUOTA_MAX };
        /// Open connections.
        connections: u64 =
            Count { default: Allowance::DEFAULT.connections, least: 0, most: QUOTA_MAX };
    }
}

/// The largest number a quota can be; what TOML can hold.
const QUOTA_MAX: u64 = i64::MAX as u64;

/// A quota in bytes, whatever the default of a tenant is.
const fn bytes_quota(default: u64) -> Bytes {
    Bytes { default: default as usize, least: 0, most: QUOTA_MAX as usize }
}

/// The configuration of a node; exists only if every rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node as a whole.
    pub node: NodeConfig,
    /// The HTTP edge.
    pub http: HttpConfig,
    /// See [`TlsConfig`].
    pub tls: TlsConfig,
    /// The engine and the compiler.
    pub engine: EngineConfig,
    /// See [`LogConfig`].
    pub log: LogConfig,
    /// Memory between the parts.
    pub limits: LimitsConfig,
    /// Tenants in processes of their own.
    pub isolation: IsolationConfig,
    /// The GPU, and what tenants have of it.
    pub gpu: GpuConfig,
    /// See [`ClusterConfig`].
    pub cluster: ClusterConfig,
    /// How much of its traffic a tenant may have traced.
    pub traces: TracesConfig,
    /// Where traces go; none if nobody wants any.
    pub otlp: Option<Otlp>,
    /// What sources, sinks and stages may reach.
    pub connectors: ConnectorsConfig,
    /// A tenant's quotas by default.
    pub quota: QuotaConfig,
    /// The bill.
    pub bill: BillConfig,
}

/// A configuration and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What the node runs with.
    pub config: Config,
    /// Every field with its value and origin, in order of declaration.
    pub settings: Vec<Setting>,
}

/// The configuration is wrong; nothing was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Every mistake, in the order of the fields; never empty.
    pub problems: Vec<Problem>,
}

impl Config {
    /// Makes a configuration of what was said, or lists everything that is wrong with it.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake found.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut reader = Reader::new(sources);
        let version = Count { default: 1_u32, least: 1, most: 1 };
        reader.field("version", " The format of the file.", &version);
        let config = Self {
            node: NodeConfig::read(&mut reader),
            http: HttpConfig::read(&mut reader),
            tls: TlsConfig::read(&mut reader),
            engine: EngineConfig::read(&mut reader),
            log: LogConfig::read(&mut reader),
            limits: LimitsConfig::read(&mut reader),
            isolation: IsolationConfig::read(&mut reader),
            gpu: GpuConfig::read(&mut reader),
            cluster: ClusterConfig::read(&mut reader),
            traces: TracesConfig::read(&mut reader),
            otlp: traces::read(&sources.otel, &mut reader),
            connectors: ConnectorsConfig::read(&mut reader),
            quota: QuotaConfig::read(&mut reader),
            bill: BillConfig::read(&mut reader),
        };
        config.check(&mut reader);
        let (settings, problems) = reader.finish();
        if problems.is_empty() {
            Ok(Loaded { config, settings })
        } else {
            Err(ConfigError { problems })
        }
    }

    /// The text of a file that says all of this.
    pub(crate) fn to_text(&self) -> String {
        let mut text = "version = 1\n".to_owned();
        self.node.write(&mut text);
        self.http.write(&mut text);
        self.tls.write(&mut text);
        self.engine.write(&mut text);
        self.log.write(&mut text);
        self.limits.write(&mut text);
        self.isolation.write(&mut text);
        self.gpu.write(&mut text);
        self.cluster.write(&mut text);
        self.traces.write(&mut text);
        self.connectors.write(&mut text);
        self.quota.write(&mut text);
        self.bill.write(&mut text);
        text
    }
}

impl Default for Config {
    /// What holds if nobody says anything.
    fn default() -> Self {
        Self::load(&Sources::default())
            .expect("the defaults keep every rule; a test says so")
            .config
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl Classify for ConfigError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn code(&self) -> &'static str {
        "config.invalid"
    }
}

#[cfg(test)]
mod tests;
