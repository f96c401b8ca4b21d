//! What the operator allows a tenant's sources and sinks to reach.
//!
//! Nothing, unless it is in the configuration. In development mode this machine's loopback
//! addresses may be reached as well, as whoever is there may do so anyway.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use sluicebox_core::ids::Name;
use sluicebox_core::manifest::show;

use super::Fault;
use crate::config::ConnectorsConfig;
use crate::egress::{self, Network};
use crate::node::Node;

/// Why something may not be reached, or cannot be as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The field of the source or sink.
    pub field: &'static str,
    pub code: &'static str,
    pub message: String,
    pub fix: String,
}

impl Refused {
    pub(super) fn new(
        field: &'static str,
        code: &'static str,
        message: String,
        fix: impl Into<String>,
    ) -> Self {
        Self { field, code, message, fix: fix.into() }
    }

    /// A kind that this program does not know.
    pub(super) fn unknown() -> Self {
        let message = "is of a kind this node does not know".to_owned();
        Self::new("", "connector.kind", message, "use a node that does")
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let Refused { field, code, message, fix } = refused;
        Self::new(code, format!("{field} {message}; {fix}"))
    }
}

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Grants<'a> {
    config: &'a ConnectorsConfig,
    tenant: &'a Name,
    dev: bool,
}

/// Names of this machine for itself.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl<'a> Grants<'a> {
    pub(super) fn of(node: &'a Node, tenant: &'a Name) -> Self {
        Self { config: &node.config().connectors, tenant, dev: node.dev_mode() }
    }

    #[cfg(test)]
    pub(super) fn new(config: &'a ConnectorsConfig, tenant: &'a Name) -> Self {
        Self { config, tenant, dev: false }
    }

    /// The folder that was allowed and has a path in it, and the way from there; `.` if it is the
    /// folder itself.
    pub(super) fn place(&self, path: &str) -> Result<(PathBuf, PathBuf), Refused> {
        let wanted = Path::new(path);
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !wanted.is_absolute() || !wanted.components().all(is_plain) || path.contains('\0') {
            let message = format!("is {}, which is no path from the root", show(path));
            let fix = "write it from the root, without `.` and `..`";
            return Err(Refused::new("path", "connector.path", message, fix));
        }
        let allowed = self.config.folders.iter().filter_map(|grant| grant.of(self.tenant));
        let mut allowed: Vec<&Path> = allowed.map(|folder| folder.path()).collect();
        // The innermost: a link that leads out of it is not followed.
        allowed.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
        for folder in allowed {
            if let Ok(rest) = wanted.strip_prefix(folder) {
                let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
                return Ok((folder.to_owned(), rest.to_owned()));
            }
        }
        let message = format!("is {}, which is in no folder that is allowed", show(path));
        let fix = "ask the operator to add its folder to connectors.folders of the node";
        Err(Refused::new("path", "connector.folder", message, fix))
    }

    /// Whether a host may be connected to.
    pub(super) fn host(&self, host: &str, port: u16) -> Result<(), Refused> {
        let mut allowed = self.config.hosts.iter().filter_map(|grant| grant.of(self.tenant));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_own = self.dev && LOOPBACK_NAMES.contains(&bare);
        if is_own || allowed.any(|known| known.is(host, port)) {
            return Ok(());
        }
        let message = format!("leads to {}, port {port}, which is not allowed", show(host));
        let fix = "ask the operator to add it to connectors.hosts of the node";
        Err(Refused::new("url", "connector.host", message, fix))
    }

    /// Networks that are not for everybody and may be reached all the same.
    pub(super) fn networks(&self) -> Vec<Network> {
        let own = ["127.0.0.0/8", "::1/128"].into_iter().filter(|_| self.dev);
        let own = own.filter_map(|network| network.parse().ok());
        self.config.networks.iter().copied().chain(own).collect()
    }

    /// Where a secret is.
    pub(super) fn secret(&self, name: &str) -> Result<PathBuf, Refused> {
        let folder = self.config.secrets.as_ref().ok_or_else(|| {
            let message = format!("is {}, and this node keeps no secrets", show(name));
            let fix = "ask the operator to set connectors.secrets of the node";
            Refused::new("secret", "connector.secret", message, fix)
        })?;
        Ok(folder.join(self.tenant.as_str()).join(name))
    }

    /// File with the authorities that hosts' certificates are held against.
    pub(super) fn authorities(&self) -> &Path {
        &self.config.authorities
    }
}

/// Whether an address that a host turned out to have may be connected to.
pub(super) fn may_reach(address: IpAddr, networks: &[Network]) -> Result<(), Fault> {
    if egress::may_reach(address, networks) {
        return Ok(());
    }
    let message = format!(
        "the host has the address {address}, which is in a network of one's own; the operator can \
         allow it (connectors.networks)"
    );
    Err(Fault::new("connector.address", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn config(field: &str, value: &str) -> ConnectorsConfig {
        let mut sources = Sources::default();
        sources.flag("--x", field, value);
        Config::load(&sources).expect("a good configuration").config.connectors
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    #[test]
    fn a_path_is_in_a_folder_that_was_allowed_to_the_tenant() {
        let config = config("connectors.folders", "/srv/in,a=/srv/in/a");
        let (a, b) = (name("a"), name("b"));
        let of = |tenant, path: &str| Grants::new(&config, tenant).place(path);
        let place = |folder: &str, rest: &str| Ok((PathBuf::from(folder), PathBuf::from(rest)));
        assert_eq!(of(&a, "/srv/in/a/x"), place("/srv/in/a", "x"));
        assert_eq!(of(&b, "/srv/in/a/x"), place("/srv/in", "a/x"));
        assert_eq!(of(&b, "/srv/in"), place("/srv/in", "."));
        for wrong in ["/srv/inside/x", "/srv", "/etc/passwd", "/"] {
            assert_eq!(of(&a, wrong).map_err(|refused| refused.code), Err("connector.folder"));
        }
        for wrong in ["srv/in/x", "/srv/in/../x", "", "/srv/in/\0"] {
            assert_eq!(of(&a, wrong).map_err(|refused| refused.code), Err("connector.path"));
        }
        let none = ConnectorsConfig::closed(&config);
        assert!(Grants::new(&none, &a).place("/srv/in/x").is_err());
    }

    #[test]
    fn a_host_is_reached_if_it_was_allowed_and_its_address_is_public() {
        let config = config("connectors.hosts", "a=hooks.test:443");
        let (a, b) = (name("a"), name("b"));
        assert!(Grants::new(&config, &a).host("hooks.test", 443).is_ok());
        assert!(Grants::new(&config, &a).host("hooks.test", 80).is_err());
        assert!(Grants::new(&config, &b).host("hooks.test", 443).is_err());
        assert!(Grants::new(&config, &a).host("127.0.0.1", 80).is_err());
        let dev = Grants { dev: true, ..Grants::new(&config, &a) };
        assert!(dev.host("127.0.0.1", 80).is_ok() && dev.host("[::1]", 80).is_ok());
        assert!(dev.host("10.0.0.1", 80).is_err());
        let own: IpAddr = "127.0.0.1".parse().expect("an address");
        assert!(may_reach(own, &dev.networks()).is_ok());
        let none = Grants::new(&config, &a).networks();
        assert_eq!(may_reach(own, &none).map_err(|fault| fault.code), Err("connector.address"));
    }
}
