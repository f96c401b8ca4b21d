//! What was used of the device, as the node counts it.

use std::time::Duration;

use super::Server;
use crate::device::Device;
use crate::host;
use crate::wire::{Figures, StageFigures, TenantFigures, Used};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

impl<D: Device> Server<D> {
    /// Of all tenants that are not gone, with those of their stages that are not.
    pub(super) fn figures(&mut self, now: Duration) -> Figures {
        let tenants = self.host.figures(now).into_iter().map(|figures| {
            let stages = figures.stages.iter().map(|stage| {
                // Those that wait for a place are not with the host yet.
                let queued = stage.queue + self.parked.count(stage.stage);
                StageFigures {
                    stage: stage.stage.number,
                    used: said(stage.bill.used, queued as u64),
                    held_bytes: stage.held_bytes,
                    memory_byte_seconds: seconds(stage.bill.memory_byte_nanos),
                }
            });
            let stages: Vec<_> = stages.collect();
            let queued = stages.iter().map(|stage| stage.used.queued).sum();
            TenantFigures {
                tenant: figures.tenant.0,
                used: said(figures.bill.used, queued),
                held_bytes: figures.held_bytes,
                kept_bytes: figures.kept_bytes,
                evictions: figures.evictions,
                recalls: figures.recalls,
                memory_byte_seconds: seconds(figures.bill.memory_byte_nanos),
                handles: figures.handles as u64,
                stages,
            }
        });
        let tenants = tenants.collect();
        let used = self.host.bill_in_all(now).used;
        let (busy_nanos, copy_nanos) = (narrow(used.device_nanos), narrow(used.copy_nanos));
        Figures { busy_nanos, copy_nanos, tenants }
    }
}

fn said(used: host::Used, queued: u64) -> Used {
    let host::Used { device_nanos, chunks, copy_nanos, up_bytes, down_bytes } = used;
    let (device_nanos, copy_nanos) = (narrow(device_nanos), narrow(copy_nanos));
    Used { device_nanos, chunks, copy_nanos, up_bytes, down_bytes, queued }
}

fn seconds(byte_nanos: u128) -> u64 {
    narrow(byte_nanos / NANOS_PER_SECOND)
}

/// A sum that no device comes to.
fn narrow(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}
