//! Control groups of tenants' processes: each is held to what it may use by one, with all that it
//! starts, and what it uses is read there.
//!
//! - They are made in a group that has the number of the data directory in its name. Only one node
//!   has that directory, so that what is left in the group is of a node that is gone.
//! - With `isolation.cgroup` at `auto` a process goes on without where there can be none, which is
//!   said each time like every measure that is missing. If a group is named, it is not started.
//! - The kernel is waited for off the worker.
//!
//! What is written into which file: `sluicebox_confine::cgroup`.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluicebox_confine::Error as GroupError;
use sluicebox_confine::cgroup::{self, Group, Limits, MEASURE, Place};
use sluicebox_core::ids::Name;

use crate::config::{Config, GroupPlace};
use crate::error::{Error, shown};
use crate::mailbox::lock;
use crate::metrics::ProcessMetrics;

/// Of the memory of a group one part in so many is not for what its process writes: pages of its
/// program, stacks and tables of its pools, the kernel's own. So its own limit comes first, and
/// what the kernel ends is what gets around that.
const RESERVE: u64 = 8;

/// Weight in the group for each of the tenant's: 10 of those are the default, and so are 100 here.
const WEIGHT: u16 = 10;

/// For so long after the kernel ended something in a group it is the reason why all of it ended.
const RECENT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Groups {
    place: GroupPlace,
    data_dir: PathBuf,
    limits: Limits,
    /// Once there are some.
    open: Mutex<Option<Arc<cgroup::Groups>>>,
}

impl Groups {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        let isolation = &config.isolation;
        let percent = isolation.cpu_percent_max;
        let limits = Limits {
            memory_bytes: isolation.memory_bytes_max as u64,
            cpu_percent: (percent > 0).then_some(percent),
            tasks: isolation.tasks_max,
            weight: 10 * WEIGHT,
        };
        let (place, data_dir) = (isolation.cgroup.clone(), config.node.data_dir.clone());
        Arc::new(Self { place, data_dir, limits, open: Mutex::default() })
    }

    /// The groups, made if there are none yet; `None` if none are wanted.
    fn opened(&self) -> Result<Option<Arc<cgroup::Groups>>, GroupError> {
        let Some(wanted) = self.place.wanted() else { return Ok(None) };
        let mut open = lock(&self.open);
        if let Some(open) = &*open {
            return Ok(Some(Arc::clone(open)));
        }
        let of_data_dir = std::fs::metadata(&self.data_dir).map_err(|error| {
            GroupError::Groups { why: format!("the data directory cannot be looked at: {error}") }
        })?;
        let name = format!("sluicebox-{:x}-{:x}", of_data_dir.dev(), of_data_dir.ino());
        let made = Arc::new(Place::find(&wanted)?.open(&name)?);
        if !made.can_end() {
            tracing::warn!(
                "what a tenant's process leaves in its group cannot be ended: the \
                            kernel, before Linux 5.3 or told so, gives no hold on processes"
            );
        }
        *open = Some(Arc::clone(&made));
        Ok(Some(made))
    }

    /// Makes them when the node starts, while it has no process that would be in the way, and ends
    /// what another node left in them; also if no tenant has a process by then (`is_used`), as the
    /// first comes when it may be too late. Blocks.
    ///
    /// # Errors
    /// They cannot be made, and are to be in a group that was named.
    pub(super) fn begin(&self, is_used: bool) -> Result<(), Error> {
        match self.opened() {
            Ok(None) => {}
            Ok(Some(groups)) => tracing::info!("tenants' processes get groups: {groups}"),
            Err(error) if self.place == GroupPlace::Auto => {
                let what = "tenants' processes are bounded each by itself";
                if is_used {
                    tracing::warn!("{what}: {error}");
                } else {
                    tracing::debug!("{what}: {error}");
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Makes them before a process is started, if there are none yet: it would be in the way in
    /// the node's own group. What came of it is told by [`Self::hold`].
    pub(super) async fn prepare(self: &Arc<Self>) {
        let this = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || drop(this.opened())).await);
    }

    /// Puts a process into a group of its own; `None` if it has to do without.
    ///
    /// # Errors
    /// It is not to do without.
    pub(super) async fn hold(
        self: &Arc<Self>,
        tenant: &Name,
        weight: u8,
        process: u32,
    ) -> Result<Option<Held>, Error> {
        let (this, name) = (Arc::clone(self), tenant.clone());
        let limits = Limits { weight: u16::from(weight) * WEIGHT, ..self.limits };
        let made = tokio::task::spawn_blocking(move || {
            let Some(groups) = this.opened()? else { return Ok(None) };
            let group = groups.make(name.as_str(), &limits)?;
            if let Err(error) = group.put(process) {
                drop(group.end());
                return Err(error);
            }
            Ok(Some(group))
        });
        let made = made.await.map_err(|error| Error::Internal(error.to_string()))?;
        let why = match made {
            Ok(Some(group)) => {
                // With what the kernel refused this one.
                tracing::info!(%tenant, "held in by {MEASURE}: {}", shown(&group.to_string()));
                return Ok(Some(Held { group: Arc::new(group), kills: 0, killed: None }));
            }
            Ok(None) => "isolation.cgroup is off".to_owned(),
            Err(error) if self.place == GroupPlace::Auto => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        tracing::info!(%tenant, "NOT held in by {MEASURE}: {}", shown(&why));
        Ok(None)
    }

    /// Bytes of memory that a process may write to.
    pub(super) fn writable_bytes(&self, held: Option<&Held>) -> u64 {
        let all = self.limits.memory_bytes;
        let is_held = held.is_some_and(|held| held.group.holds_memory());
        all - if is_held { all / RESERVE } else { 0 }
    }

    /// Removes what was made for all, when there are no processes any more.
    pub(super) fn close(&self) {
        if let Some(open) = lock(&self.open).take() {
            open.close();
        }
    }
}

/// A process in its group.
#[derive(Debug)]
pub(super) struct Held {
    group: Arc<Group>,
    /// How often the kernel ended something in it, as there was no memory.
    kills: u64,
    /// When that was seen last.
    killed: Option<Instant>,
}

impl Held {
    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Looks whether the kernel has ended something in it.
    pub(super) fn look(&mut self, tenant: &Name, metrics: &ProcessMetrics) {
        let kills = self.group.memory_kills().unwrap_or(0);
        let new = kills.saturating_sub(self.kills);
        if new > 0 {
            (self.kills, self.killed) = (kills, Some(Instant::now()));
            metrics.memory_kills.add(new);
            tracing::warn!(%tenant, "the system ended {new} processes of the tenant's, which used \
                                     more memory than isolation.memory-bytes-max");
        }
    }

    /// Ends what is left in the group, and the group. True if it ended for want of memory.
    pub(super) async fn end(mut self, tenant: &Name, metrics: &ProcessMetrics) -> bool {
        self.look(tenant, metrics);
        // To empty the group may take longer than that.
        let for_memory = self.killed.is_some_and(|killed| killed.elapsed() < RECENT);
        let group = Arc::clone(&self.group);
        let ended = tokio::task::spawn_blocking(move || group.end()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%tenant, %error, "what the tenant's process left goes on");
        }
        for_memory
    }
}
