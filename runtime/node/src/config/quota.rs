//! Quotas as they are configured, and as draws are counted against them.

use sluicebox_core::quota::{Allowance, Rate};

use super::QuotaConfig;

impl QuotaConfig {
    /// The same, as what draws are counted against.
    #[must_use]
    pub const fn allowance(&self) -> Allowance {
        Allowance {
            events: Rate::per_second(self.events_per_second),
            bytes: Rate::per_second(self.bytes_per_second as u64),
            memory_bytes: self.memory_bytes as u64,
            state_bytes: self.state_bytes as u64,
            disk_bytes: self.disk_bytes as u64,
            component_bytes: self.component_bytes as u64,
            pipelines: self.pipelines,
            streams: self.streams,
            connections: self.connections,
        }
    }
}
