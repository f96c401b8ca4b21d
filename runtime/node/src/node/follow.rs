//! The tenants file, followed while the node runs: who may do what changes without a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Node;
use crate::tenants;

/// How often the file is looked at.
const TENANTS_POLL: Duration = Duration::from_secs(1);

impl Node {
    /// Follows the tenants file while the node runs.
    pub(crate) async fn follow_tenants(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TENANTS_POLL).await;
            let this = self.clone();
            let reloaded = tokio::task::spawn_blocking(move || this.tenants.reload_if_changed());
            match reloaded.await {
                Ok(Ok(true)) => self.tenants_changed(&self.tenants.current()),
                Ok(Err(error)) => tracing::error!("tenants file, the old one stays: {error}"),
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }

    pub(super) fn tenants_changed(&self, set: &tenants::Set) {
        self.admission.refresh(set);
        // Whose process is where is said anew.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.front.tenants_changed(&self.tenants, &self.metrics);
        for tenant in set.iter() {
            self.gpus.adjust(&tenant.name, Some(&tenant.gpu));
        }
        for entry in &self.tenancies {
            let allowance = self.allowance(entry.key());
            let weight = set.tenant(entry.key()).map_or(1, |known| known.weight);
            entry.value().adjust(weight, &allowance);
        }
    }
}
