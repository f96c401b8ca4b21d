//! How parts learn where the other partitions of their pipeline are: they ask its home.
//!
//! - They do when the home says that some have moved, and on each new link to it. Whoever asks gets
//!   what is so at that moment; nothing that is old is ever told.
//! - A home is asked about one at a time, and again until there is an answer; one that is slow
//!   holds up no other. Until then a part sends to where partitions were, and is told: later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicebox_core::ids::PipelineId;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::mailbox::lock;
use crate::node::Node;

/// How long a home is not asked after it could not be.
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
    let mut waiting: BTreeMap<u16, BTreeSet<PipelineId>> = BTreeMap::new();
    let mut asked: JoinSet<u16> = JoinSet::new();
    let mut busy = BTreeSet::new();
    loop {
        for (home, ids) in &mut waiting {
            if !busy.contains(home)
                && let Some(id) = ids.pop_first()
            {
                busy.insert(*home);
                asked.spawn_local(learn(node.clone(), *home, id));
            }
        }
        waiting.retain(|_, ids| !ids.is_empty());
        tokio::select! {
            ids = node.whereabouts().next() => for id in ids {
                // Of what is no part any more nobody has to know.
                if let Some(home) = node.home_of_part(id) {
                    waiting.entry(home).or_default().insert(id);
                }
            },
            Some(done) = asked.join_next() => match done {
                Ok(home) => drop(busy.remove(&home)),
                // It panicked, and does not say whom it asked.
                Err(_) => busy.clear(),
            },
        }
    }
}

/// Asks a home once, and lets it rest.
async fn learn(node: Arc<Node>, home: u16, id: PipelineId) -> u16 {
    let pause = match node.learn_where(id).await {
        Ok(()) => BREATH,
        Err(error) => {
            tracing::debug!(pipeline = id.0, %error, "where partitions are is not known yet");
            node.whereabouts().ask(id);
            PAUSE
        }
    };
    tokio::time::sleep(pause).await;
    home
}

impl Node {
    fn home_of_part(&self, id: PipelineId) -> Option<u16> {
        Some(self.spread(id)?.shared().part.as_ref()?.home())
    }

    /// Asks a part's home where the others are, if it can be reached.
    async fn learn_where(&self, id: PipelineId) -> Result<(), Error> {
        let Some(running) = self.spread(id) else { return Ok(()) };
        let home = self.home_of_part(id);
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
