//! Whether a node may end because it has nothing to do: what the front asks a tenant's process.
//!
//! All there is must be on disk, nothing may be at work, and it is known when time brings the next
//! thing to do. The front looks at requests; here is what goes on without one.

use super::Node;
use crate::error::Error;
use crate::running::Running;

impl Node {
    /// Until when nothing happens here unless a request comes, in microseconds since 1970, and all
    /// there is will be found on disk; `None` if that is not so.
    pub(crate) fn rest_until(&self) -> Option<u64> {
        // A change goes on by itself when its client is gone.
        let is_changing = self.deploying.iter().any(|lock| lock.strong_count() > 0);
        if self.requests.waiting() > 0 || is_changing {
            return None;
        }
        let running = self.all_running();
        running.iter().try_fold(u64::MAX, |least, one| Some(least.min(rests_until(one)?)))
    }

    /// The front says something else of the one tenant there is.
    ///
    /// # Errors
    /// It cannot be read; the tenant stays as it was.
    pub(crate) fn replace_tenant(&self, text: &str) -> Result<(), Error> {
        self.tenants.replace(text)?;
        self.tenants_changed(&self.tenants.current());
        Ok(())
    }
}

/// The same for one pipeline. One without a log is in memory only and never rests.
fn rests_until(running: &Running) -> Option<u64> {
    // What has a source or a sink is at work without a request.
    let pipeline = running.pipeline();
    let is_alone = pipeline.sources.is_empty() && pipeline.sinks.is_empty();
    if running.durable().is_none() || !running.is_idle() || !is_alone {
        return None;
    }
    let mut partitions = running.mailboxes().iter().flatten();
    partitions.try_fold(u64::MAX, |least, one| Some(least.min(one.rests_until()?)))
}
