//! The nodes that work together: who they are, and which of them has what.
//!
//! ```text
//!  client ─► any node (token, scope) ─► where is it? ─► here: handled
//!                                          └─► another node: passed on (http/pass), token and all
//! ```
//!
//! - The list of nodes is fixed, and the same on each. They know each other by certificates of
//!   one authority; a node believes another what it says it has, and nothing about who a client is.
//! - A pipeline lives on one node, its home; a tenant's components, and everything of a tenant with
//!   a process of its own, live on one node as well. What somebody has stays with who has it.
//! - Something new comes to the node its name points to (`choice`), and to no other, so that
//!   nothing is made twice. Nothing is made or said to be missing while a node is unknown that may
//!   have it.
//! - Without a store that all share, what a node has that cannot be reached is unavailable until it
//!   is back; everything else goes on, and nothing new is made meanwhile.
//!
//! `watch` is how nodes learn of each other, `peer` is another node, `ask` what is asked of one,
//! `held` what a node says it has, `seldom` how often the log speaks of what others do. See ADR
//! 0037.

mod ask;
pub(crate) mod held;
mod peer;
mod seldom;
mod watch;

use std::cmp::Reverse;
use std::sync::Arc;

use sluicebox_core::key;
use sluicebox_link::tls::{Identity, NodeName};

use crate::config::{ClusterConfig, NodeAddress};
use crate::error::Error;
use crate::metrics::Metrics;

pub(crate) use held::Subject;
pub(crate) use peer::Peer;
pub(crate) use seldom::Seldom;
pub(crate) use watch::watch;

/// See the module.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: NodeName,
    identity: Arc<Identity>,
    /// The others, by name.
    peers: Vec<Arc<Peer>>,
    /// Their names, for their certificates.
    names: Vec<NodeName>,
    /// What of the list has to be the same everywhere.
    list: String,
}

/// Where something is.
#[derive(Debug)]
pub(crate) enum Place {
    /// On this node.
    Here,
    /// On another one.
    There(Arc<Peer>),
    /// Nowhere; this node would make it.
    Nowhere,
    /// Nowhere, as far as is known here; this one would make it, and knows.
    NowhereYet(Arc<Peer>),
}

impl Cluster {
    /// Reads what is configured; none for a node that is alone.
    ///
    /// # Errors
    /// A certificate or key cannot be used; the message names the setting.
    pub(crate) fn load(config: &ClusterConfig, metrics: &Metrics) -> Result<Option<Self>, Error> {
        let Some(name) = &config.node else { return Ok(None) };
        let identity = Arc::new(identity::read(name, config)?);
        let others = config.nodes.iter().filter(|node| node.name != *name);
        let peer = |node: &NodeAddress| {
            let figures = metrics.peer(&node.name);
            Arc::new(Peer::new(node.clone(), Arc::clone(&identity), config, figures))
        };
        let peers: Vec<_> = others.map(peer).collect();
        let names = peers.iter().map(|peer| peer.name().clone()).collect();
        let list: Vec<String> = config.nodes.iter().map(|node| node.name.to_string()).collect();
        Ok(Some(Self { name: name.clone(), identity, peers, names, list: list.join(",") }))
    }

    /// What this node is called.
    pub(crate) fn name(&self) -> &NodeName {
        &self.name
    }

    /// What it shows others, and whom it trusts.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The other nodes, by name.
    pub(crate) fn peers(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// Their names.
    pub(crate) fn names(&self) -> &[NodeName] {
        &self.names
    }

    /// The names of all nodes.
    pub(crate) fn list(&self) -> &str {
        &self.list
    }

    /// Where something is that is not here, as far as others have said.
    pub(crate) fn there(&self, subject: &Subject) -> Option<&Arc<Peer>> {
        self.peers.iter().find(|peer| peer.has(subject))
    }

    /// Where something is. `is_here` says of this node.
    ///
    /// # Errors
    /// [`Error::Peer`]: a node that may have it cannot be reached.
    pub(crate) fn find(&self, subject: &Subject, is_here: bool) -> Result<Place, Error> {
        if is_here {
            return Ok(Place::Here);
        }
        if let Some(peer) = self.there(subject) {
            return Ok(Place::There(Arc::clone(peer)));
        }
        if let Some(unknown) = self.peers.iter().find(|peer| !peer.is_known()) {
            return Err(unknown.unreachable(false));
        }
        // It may have been made a moment ago, and then only there.
        Ok(match choice(subject, &self.name, &self.peers) {
            None => Place::Nowhere,
            Some(peer) => Place::NowhereYet(Arc::clone(peer)),
        })
    }

    /// Refuses to speak for what is not here, unless this is the node that would make it.
    ///
    /// # Errors
    /// [`Error::Peer`]: another one knows better.
    pub(crate) fn may_deny(&self, subject: &Subject) -> Result<(), Error> {
        if let Some(peer) = self.there(subject).or_else(|| choice(subject, &self.name, &self.peers))
        {
            return Err(peer.failed("knows of it, and this one does not", false));
        }
        match self.peers.iter().find(|peer| !peer.is_known()) {
            Some(unknown) => Err(unknown.unreachable(false)),
            None => Ok(()),
        }
    }

    /// The other nodes, those first that would be chosen first ([`choice`]).
    pub(crate) fn ranked(&self, subject: &Subject) -> Vec<Arc<Peer>> {
        let mut ranked = self.peers.clone();
        ranked.sort_by_key(|peer| Reverse(rank(subject, peer.name())));
        ranked
    }

    /// Refuses to make something new here while it may be elsewhere.
    ///
    /// # Errors
    /// [`Error::Peer`]: another node has it, or has another list, or cannot be asked.
    pub(crate) fn may_make(&self, subject: &Subject) -> Result<(), Error> {
        if let Some(peer) = choice(subject, &self.name, &self.peers) {
            return Err(peer.failed("is the one to make it", false));
        }
        for peer in &self.peers {
            if peer.has(subject) {
                return Err(peer.failed("has it", false));
            }
            if !peer.is_known() {
                return Err(peer.unreachable(false));
            }
            if !peer.agrees() {
                return Err(peer.failed("has another list of nodes (cluster.nodes)", false));
            }
        }
        Ok(())
    }
}

/// The node that makes what nobody has; `None` for this one. The highest hash of node and name
/// together wins, so that a list that grows changes the choice for few (Thaler and Ravishankar, "A
/// name-based mapping scheme for rendezvous", 1996).
fn choice<'a>(subject: &Subject, own: &NodeName, peers: &'a [Arc<Peer>]) -> Option<&'a Arc<Peer>> {
    let best = peers.iter().max_by_key(|peer| rank(subject, peer.name()))?;
    (rank(subject, best.name()) > rank(subject, own)).then_some(best)
}

fn rank(subject: &Subject, node: &NodeName) -> (u64, Reverse<NodeName>) {
    (key::hash(subject.text(node).as_bytes()), Reverse(node.clone()))
}

/// The node's files.
mod identity {
    use std::fs::File;
    use std::io::Read as _;
    use std::path::Path;

    use super::{ClusterConfig, Error, Identity, NodeName};

    /// Largest file; a certificate has a kilobyte.
    const FILE_BYTES_MAX: u64 = 1024 * 1024;

    pub(super) fn read(name: &NodeName, config: &ClusterConfig) -> Result<Identity, Error> {
        let file = |field, file: &Option<_>| contents(field, file.as_deref());
        let certificate = file("cluster.certificate", &config.certificate)?;
        let key = file("cluster.key", &config.key)?;
        let authority = file("cluster.authority", &config.authority)?;
        Ok(Identity::from_pem(name.clone(), &certificate, &key, &authority)?)
    }

    fn contents(field: &'static str, path: Option<&Path>) -> Result<Vec<u8>, Error> {
        let path = path.unwrap_or_else(|| Path::new(""));
        let unusable = |why: String| Error::Tls { field, file: path.display().to_string(), why };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| unusable(error.to_string()))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(unusable(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::ids::Name;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn nodes(count: usize) -> Vec<NodeName> {
        (0..count).map(|at| NodeName::new(&format!("node-{at}")).expect("a name")).collect()
    }

    fn chosen(subject: &Subject, nodes: &[NodeName]) -> NodeName {
        let rank = |node: &NodeName| key::hash(subject.text(node).as_bytes());
        nodes.iter().max_by_key(|node| rank(node)).expect("there are some").clone()
    }

    #[test]
    fn a_node_more_takes_its_share_and_moves_nothing_else() {
        let (three, four) = (nodes(3), nodes(4));
        let (mut moved, all) = (0, 4000);
        for at in 0..all {
            let subject = Subject::Pipeline(name("acme"), name(&format!("p{at}")));
            let (before, after) = (chosen(&subject, &three), chosen(&subject, &four));
            if before != after {
                assert_eq!(after, four[3], "what moves goes to the new one");
                moved += 1;
            }
        }
        assert!((all / 5..all / 3).contains(&moved), "{moved} of {all}");
    }
}
