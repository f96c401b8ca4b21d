//! Several nodes of one cluster on this machine: their certificates, addresses and settings.
//!
//! - Certificates are made by `sluicebox certs`, as an operator would.
//! - Each cluster has loopback addresses of its own, so that tests run beside each other and an
//!   address is free again for the node that is started anew.
//! - Nodes of a [`Lan`] are each on a machine of it, as far as the network goes. Their clients are
//!   not on the same machine, and so have tokens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use crate::client::Client;
use crate::eventually::{SOON, eventually};
use crate::lan::Lan;
use crate::node::{Home, Node, Setup, run};

/// Where nodes reach each other, on addresses of their own.
const PORT: u16 = 7421;

/// Where clients reach nodes of a [`Lan`].
const CLIENT_PORT: u16 = 7411;

/// The tenant of nodes of a [`Lan`].
const TENANT: &str = "acme";

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    certificates: TempDir,
    nodes: Vec<(&'static str, SocketAddr)>,
    /// Its nodes meet in a folder of this machine.
    meets: bool,
    apart: Option<Apart>,
}

/// What nodes have that are on machines of their own.
#[derive(Debug)]
struct Apart {
    lan: Arc<Lan>,
    /// With the tenants file of all of them.
    owner: Arc<Home>,
    token: String,
}

impl Cluster {
    /// Of nodes with these names; none is started.
    ///
    /// # Panics
    /// If there are no certificates.
    #[must_use]
    pub fn of(names: &[&'static str]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let certificates = certificates(names);
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = |name: &&'static str| {
            let last = NEXT.fetch_add(1, Ordering::Relaxed);
            let ip = IpAddr::V4(Ipv4Addr::new(127, high, low, last));
            (*name, SocketAddr::new(ip, PORT))
        };
        let nodes = names.iter().map(address).collect();
        Self { certificates, nodes, meets: false, apart: None }
    }

    /// Of nodes on the machines of these names; none is started.
    ///
    /// # Panics
    /// If there are no certificates.
    #[must_use]
    pub fn on(lan: &Arc<Lan>, names: &[&'static str]) -> Self {
        let address = |name: &&'static str| {
            (*name, SocketAddr::new(IpAddr::V4(lan.machine(name).address()), PORT))
        };
        let nodes = names.iter().map(address).collect();
        let (lan, owner) = (lan.clone(), Home::new());
        let _made = owner.tenant(&["add", TENANT]);
        // From another machine, the list of nodes is an administrator's.
        let token = owner.token(TENANT, "read,ingest,write,admin");
        let apart = Some(Apart { lan, owner, token });
        Self { certificates: certificates(names), nodes, meets: false, apart }
    }

    /// The same with nodes that are linked through memory.
    #[must_use]
    pub fn that_meets(self) -> Self {
        Self { meets: true, ..self }
    }

    /// Makes a certificate for a node more, which is in no list.
    ///
    /// # Panics
    /// If there is none.
    pub fn issue(&self, name: &str) {
        let dir = self.certificates.path().to_str().expect("a plain name");
        let made = run(&["certs", "--dir", dir, name]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// A file of the authority or of a node: `a.crt`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.certificates.path().join(name)
    }

    /// Where a node is reached by others.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn address(&self, name: &str) -> SocketAddr {
        self.nodes.iter().find(|(known, _)| *known == name).expect("a node of this cluster").1
    }

    /// The list of nodes, as a setting.
    #[must_use]
    pub fn list(&self) -> String {
        let nodes = self.nodes.iter().map(|(name, address)| format!("{name}={address}"));
        nodes.collect::<Vec<_>>().join(",")
    }

    /// A node in a directory of its own, as those of this cluster are: in development mode, or with
    /// the tenant that all have.
    #[must_use]
    pub fn fresh(&self) -> Setup {
        match &self.apart {
            None => Setup::dev(),
            Some(apart) => Setup::with_tokens(&[(TENANT, &apart.token)]),
        }
    }

    /// How a node is started that is `name` here.
    #[must_use]
    pub fn setup(&self, setup: Setup, name: &str) -> Setup {
        let path = |path: &Path| path.to_str().expect("a plain name").to_owned();
        let setup = match self.meets {
            true => setup.set("cluster.meeting-dir", &path(&self.file("meeting"))),
            false => setup,
        };
        let setup = match &self.apart {
            None => setup,
            Some(Apart { lan, owner, .. }) => setup
                .at(SocketAddr::new(self.address(name).ip(), CLIENT_PORT))
                .within(lan.machine(name))
                .set("cluster.host", name)
                .set("node.tenants-file", &path(&owner.tenants())),
        };
        setup
            .set("cluster.node", name)
            .set("cluster.nodes", &self.list())
            .set("cluster.listen", &self.address(name).to_string())
            .set("cluster.certificate", &path(&self.file(&format!("{name}.crt"))))
            .set("cluster.key", &path(&self.file(&format!("{name}.key"))))
            .set("cluster.authority", &path(&self.file("authority.crt")))
            // Short, so that tests are; long enough for a machine with other things to do.
            .set_unless_set("cluster.silence-time-max", "1500ms")
    }

    /// Starts all nodes, each as `setup` says, and waits until they know each other.
    pub async fn start(&self, setup: impl Fn() -> Setup) -> Vec<Node> {
        let mut nodes = Vec::new();
        for (name, _) in &self.nodes {
            nodes.push(self.setup(setup(), name).start().await);
        }
        for node in &nodes {
            until_up(&node.client(), self.nodes.len()).await;
        }
        nodes
    }
}

/// Of these nodes, and their authority.
fn certificates(names: &[&'static str]) -> TempDir {
    let certificates = tempfile::tempdir().expect("a temporary directory");
    let dir = certificates.path().to_str().expect("temporary directories have plain names");
    let made = run(&[&["certs", "--dir", dir], names].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    certificates
}

/// Waits until a node reaches so many, itself among them.
pub async fn until_up(client: &Client, count: usize) {
    eventually("the nodes reach each other", SOON, || async {
        let nodes = client.plain("/v1/nodes").await.is(200).json();
        let nodes = nodes.as_array().expect("a list").clone();
        let up = nodes.iter().filter(|node| node["state"] != "unreachable").count();
        (up == count).then_some(())
    })
    .await;
}
