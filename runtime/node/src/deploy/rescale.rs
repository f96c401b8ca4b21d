//! The same version of a pipeline at another scale: with other partitions, or cut otherwise.
//!
//! It is a switch like that to another version, with the same code: a record of the log under the
//! number of the version that runs, from which on it runs so, also after a restart. Partitions that
//! are elsewhere come home before it, and those that there still are go back behind it.

use std::sync::Arc;

use sluicebox_core::plan::Handover;

use super::switch::Next;
use crate::error::Error;
use crate::node::Node;
use crate::running::Running;
use crate::scale::Scale;

impl Node {
    /// Takes a pipeline to another scale. False if it is not what runs any more, or is about to be
    /// something else.
    ///
    /// # Errors
    /// It does not come to rest; the log refuses.
    pub(crate) async fn rescale(
        self: &Arc<Self>,
        running: &Arc<Running>,
        scale: &Scale,
    ) -> Result<bool, Error> {
        let (tenant, name) = (running.tenant(), running.name());
        let turn = self.deploying(tenant, name);
        // Whoever has the turn changes it, and then this was decided from something else.
        let Ok(_turn) = turn.try_lock() else { return Ok(false) };
        let current = self.running(tenant, name.as_str());
        if !current.is_some_and(|current| Arc::ptr_eq(&current, running)) {
            return Ok(false);
        }
        self.may_gather(running)?;
        let mut pipeline = running.pipeline().clone();
        pipeline.partitions = Some(scale.partitions);
        if let Some(scaling) = &mut pipeline.scaling {
            scaling.apart.clone_from(&scale.apart);
        }
        let next = Next {
            version: running.version(),
            pipeline,
            code: running.code(),
            codes: running.codes(),
            handover: Handover::default(),
            restored: None,
        };
        // What brings partitions home is large, and seldom needed.
        let switching = self.switch_gathered(Some(running), (tenant, name), next);
        Box::pin(switching).await.map(|()| true)
    }
}
