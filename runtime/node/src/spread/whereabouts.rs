//! How parts learn where the other partitions of their pipeline are: they ask its home.
//!
//! - They do when the home says that some have moved, and on each new link to it. Whoever asks gets
//!   what is so at that moment; nothing that is old is ever told.
//! - Asked is one at a time, and again until there is an answer. Until then a part sends to where
//!   partitions were, and is told: later.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicebox_core::ids::PipelineId;
use tokio::sync::Notify;

use crate::error::Error;
use crate::mailbox::lock;
use crate::node::Node;

/// How long nobody is asked after nobody could be.
const PAUSE: Duration = Duration::from_millis(100);

/// The same after there was an answer, as others can say often that there are news.
const BREATH: Duration = Duration::from_millis(10);

/// The parts whose homes are to be asked. At most those that are here.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    wanted: Mutex<BTreeSet<PipelineId>>,
    news: Notify,
}

impl Whereabouts {
    /// The home of this one is to be asked.
    pub(crate) fn ask(&self, id: PipelineId) {
        lock(&self.wanted).insert(id);
        self.news.notify_one();
    }

    async fn next(&self) -> BTreeSet<PipelineId> {
        loop {
            let wanted = std::mem::take(&mut *lock(&self.wanted));
            if !wanted.is_empty() {
                return wanted;
            }
            self.news.notified().await;
        }
    }
}

/// Asks for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        let mut failed = false;
        for id in node.whereabouts().next().await {
            if let Err(error) = node.learn_where(id).await {
                tracing::debug!(pipeline = id.0, %error, "where partitions are is not known yet");
                node.whereabouts().ask(id);
                failed = true;
            }
        }
        tokio::time::sleep(if failed { PAUSE } else { BREATH }).await;
    }
}

impl Node {
    /// Asks a part's home where the others are, if it can be reached.
    async fn learn_where(&self, id: PipelineId) -> Result<(), Error> {
        let Some(running) = self.spread(id) else { return Ok(()) };
        let home = running.shared().part.as_ref().map(|reports| reports.home());
        let Some(trunk) = home.and_then(|home| self.trunks().get(home)) else { return Ok(()) };
        if !trunk.peer().is_up() {
            // The next link asks again.
            return Ok(());
        }
        let named = (running.tenant(), running.name());
        let placed = trunk.peer().whereabouts(named, id).await?;
        self.note_where((trunk.number, id), &placed).await
    }
}
