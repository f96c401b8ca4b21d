//! What the operator allows a tenant's sources, sinks and stages to reach, told as problems of a
//! manifest.
//!
//! Nothing, unless it is in the configuration. Hosts and networks are looked at in `egress`.

use std::path::{Component, Path, PathBuf};

use sluicebox_core::ids::Name;
use sluicebox_core::manifest::show;
use sluicebox_core::origin::Origin;

use super::Fault;
use crate::config::ConnectorsConfig;
use crate::egress::reach::Reach;
use crate::egress::target::Target;
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
    /// In the tenant's own process.
    apart: bool,
}

impl<'a> Grants<'a> {
    pub(super) fn of(node: &'a Node, tenant: &'a Name) -> Self {
        let dev = node.dev_mode();
        let apart = !dev && node.tenants().is_alone();
        Self { config: &node.config().connectors, tenant, dev, apart }
    }

    #[cfg(test)]
    pub(super) fn new(config: &'a ConnectorsConfig, tenant: &'a Name) -> Self {
        Self { config, tenant, dev: false, apart: false }
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

    /// Whether a target may be connected to, by its name.
    pub(super) fn host(&self, target: &Target) -> Result<(), Refused> {
        if self.reach().has(&target.host, target.port) {
            return Ok(());
        }
        let Target { host, port, .. } = target;
        let message = format!("leads to {}, port {port}, which is not allowed", show(host));
        Err(Refused::new("url", "connector.host", message, self.ask()))
    }

    /// Whether a stage may make requests to all of an origin.
    pub(super) fn origin(&self, origin: &Origin) -> Result<(), Refused> {
        if self.reach().covers(origin) {
            return Ok(());
        }
        let (host, port) = origin.at();
        let message = format!("leads to {}, port {port}, which is not allowed", show(&host));
        Err(Refused::new("allow", "connector.host", message, self.ask()))
    }

    /// Whom to ask for a host.
    fn ask(&self) -> &'static str {
        match self.apart {
            true => {
                "do without: the tenant has a process of its own, which has no network; the \
                 operator may end that (sluicebox tenant isolation)"
            }
            false => "ask the operator to add it to connectors.hosts of the node",
        }
    }

    /// The hosts and networks.
    pub(super) fn reach(&self) -> Reach {
        Reach::new(self.config, self.tenant, self.dev)
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
    fn who_may_not_reach_a_host_is_told_whom_to_ask() {
        let config = config("connectors.hosts", "a=hooks.test:443");
        let (a, b) = (name("a"), name("b"));
        let target = |url: &str| Target::of(&url.parse().expect("a URL")).expect("a target");
        let hooks = target("https://hooks.test/");
        assert!(Grants::new(&config, &a).host(&hooks).is_ok());
        let refused = Grants::new(&config, &b).host(&hooks).expect_err("another tenant's");
        assert_eq!((refused.field, refused.code), ("url", "connector.host"));
        assert!(refused.fix.contains("connectors.hosts"), "{}", refused.fix);
        assert!(Grants::new(&config, &a).host(&target("http://hooks.test/")).is_err());
        let own = target("http://127.0.0.1/");
        assert!(Grants::new(&config, &a).host(&own).is_err());
        assert!(Grants { dev: true, ..Grants::new(&config, &a) }.host(&own).is_ok());
        let apart = Grants { apart: true, ..Grants::new(&config, &b) };
        let all = Origin::parse("https://*.test.example").expect("an origin");
        let refused = apart.origin(&all).expect_err("it has no network");
        assert_eq!((refused.field, refused.code), ("allow", "connector.host"));
        assert!(refused.fix.contains("process of its own"), "{}", refused.fix);
    }
}
