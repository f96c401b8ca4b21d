//! One process that runs pipelines: introduces the parts to each other.
//!
//! `http` is the edge, `worker` runs partitions, `running` is a pipeline in memory, `deploy`
//! decides which version runs. A tenant's requests, figures, files and keys carry its name from
//! the edge on.
//!
//! Keeps true: no queue without a bound; no request of one tenant reaches what another owns;
//! nothing reads configuration after the start; no guest is called while a lock is held.
//!
//! Leaves to others: every decision about events (`sluicebox-core`), guests (`sluicebox-engine`),
//! files (`sluicebox-store`).

pub mod admission;
mod backing;
mod bill;
mod checkpoint;
mod cluster;
pub mod components;
pub mod config;
mod connectors;
mod counted;
pub mod deploy;
pub mod describe;
mod disk_use;
mod durable;
pub mod egress;
pub mod error;
mod front;
mod gpu;
pub mod http;
pub mod inspect;
mod mailbox;
pub mod manifest_text;
pub mod metrics;
pub mod moving;
pub mod node;
mod plan;
mod recover;
pub mod requests;
pub mod ring;
pub mod running;
pub mod scale;
mod sessions;
mod spread;
mod stage_log;
pub mod start;
pub mod tenancy;
pub mod tenants;
mod traces;
mod worker;

pub use config::Config;
pub use front::tenant_process::TenantProcess;
pub use gpu::confined::GpuProcess;
pub use gpu::process::main as gpu_main;
pub use gpu::starter::main as gpu_starter_main;
pub use gpu::trial::main as gpu_trial_main;
pub use node::Node;
pub use sluicebox_engine::compile::compile_main;
pub use start::RunningNode;
