//! What sources, sinks and stages may reach: the operator's say, for all tenants or for one.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use sluicebox_core::ids::Name;
use sluicebox_core::origin::Host;

use super::reader::{Raw, Reader};
use super::shape::{Count, MaybePlace, Place, Shape, Wrong, wrong};
use crate::egress::Network;

/// Entries of one list.
const ENTRIES_MAX: usize = 1000;

/// Where systems keep the authorities that everybody trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

const FOLDERS: Texts<Grant<Folder>> =
    Texts::of("folders from the root, or tenant=folder, as [\"/srv/in\", …]");
const HOSTS: Texts<Grant<Host>> =
    Texts::of("hosts, or tenant=host, as [\"hooks.example.com:443\", \"*.example.org\", …]");
const NETWORKS: Texts<Network> = Texts::of("networks, as [\"10.1.0.0/16\", …]");

section! {
    /// What sources, sinks and stages of pipelines may reach; nothing unless it is here.
    ConnectorsConfig in "connectors" {
        /// Folders that sources may read files of, and move them in, each for all tenants or one.
        folders: Vec<Grant<Folder>> = FOLDERS;
        /// Hosts that sources, sinks, and stages with the grant `http` may connect to, each for all
        /// tenants or one; `*.` stands for all below.
        hosts: Vec<Grant<Host>> = HOSTS;
        /// Networks of one's own that those hosts may be in; else their addresses are public ones.
        networks: Vec<Network> = NETWORKS;
        /// Folder with secrets of connectors, each a file tenant/name; empty for none.
        secrets: Option<PathBuf> = MaybePlace;
        /// File with the authorities that certificates of hosts are held against, PEM.
        authorities: PathBuf = Place { default: PathBuf::from(AUTHORITIES) };
        /// Connections that stages may have at once, over all tenants; one tenant has a quarter.
        connections_max: usize = Count { default: 1_024, least: 4, most: 100_000 };
    }
}

impl ConnectorsConfig {
    /// The same without anything that may be reached.
    #[must_use]
    pub(crate) fn closed(&self) -> Self {
        let (folders, hosts, networks, secrets) = Default::default();
        let (authorities, connections_max) = (self.authorities.clone(), self.connections_max);
        Self { folders, hosts, networks, secrets, authorities, connections_max }
    }
}

/// Something that all tenants may reach, or one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant<T> {
    tenant: Option<Name>,
    what: T,
}

impl<T> Grant<T> {
    /// What it is, for a tenant who may.
    #[must_use]
    pub fn of(&self, tenant: &Name) -> Option<&T> {
        self.tenant.as_ref().is_none_or(|known| known == tenant).then_some(&self.what)
    }
}

impl<T: FromStr<Err = ()>> FromStr for Grant<T> {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some((tenant, what)) = text.split_once('=')
            && let Ok(tenant) = Name::new(tenant)
        {
            return Ok(Self { tenant: Some(tenant), what: what.parse()? });
        }
        Ok(Self { tenant: None, what: text.parse()? })
    }
}

impl<T: fmt::Display> fmt::Display for Grant<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{tenant}={}", self.what),
            None => self.what.fmt(f),
        }
    }
}

/// A folder, from the root, without detours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Folder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let path = PathBuf::from(text);
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let good = path.is_absolute() && path.components().all(is_plain);
        (good && !text.contains(char::is_control)).then_some(Self(path)).ok_or(())
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// The shape of a list of texts that stand for something.
struct Texts<T> {
    what: &'static str,
    of: PhantomData<T>,
}

impl<T> Texts<T> {
    const fn of(what: &'static str) -> Self {
        Self { what, of: PhantomData }
    }
}

impl<T: FromStr<Err = ()> + fmt::Display> Shape for Texts<T> {
    type Value = Vec<T>;

    fn default(&self) -> Vec<T> {
        Vec::new()
    }

    fn read(&self, raw: &Raw) -> Result<Vec<T>, Wrong> {
        let texts: Vec<&str> = match raw {
            Raw::List(items) => items.iter().map(String::as_str).collect(),
            Raw::Word(text) => text.split(',').filter(|item| !item.trim().is_empty()).collect(),
            _ => return Err(wrong(self, raw)),
        };
        if texts.len() > ENTRIES_MAX {
            return Err(wrong(self, raw));
        }
        let all: Result<Vec<T>, ()> = texts.iter().map(|text| text.trim().parse()).collect();
        all.map_err(|()| wrong(self, raw))
    }

    fn write(&self, value: &Vec<T>) -> String {
        let text = |item: &T| toml::Value::String(item.to_string()).to_string();
        format!("[{}]", value.iter().map(text).collect::<Vec<_>>().join(", "))
    }

    fn allowed(&self) -> String {
        format!("{}; with commas between them outside of a file", self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_for_all_or_for_one() {
        let (one, other) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let read = |text: &str| FOLDERS.read(&Raw::Word(text.to_owned()));
        let folders = read("/srv/in, a=/srv/a=b").unwrap();
        let of = |tenant: &Name| -> Vec<PathBuf> {
            folders.iter().filter_map(|f| f.of(tenant)).map(|f| f.path().to_owned()).collect()
        };
        assert_eq!(of(&one), [PathBuf::from("/srv/in"), PathBuf::from("/srv/a=b")]);
        assert_eq!(of(&other), [PathBuf::from("/srv/in")]);
        let written = FOLDERS.write(&folders);
        assert_eq!(written, r#"["/srv/in", "a=/srv/a=b"]"#);
        for wrong in ["srv", "/srv/../etc", "a=srv", "/a\nb"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(HOSTS.read(&Raw::List(vec!["a=x:1".to_owned(), "*.com".to_owned()])).is_err());
        assert!(NETWORKS.read(&Raw::Integer(3)).is_err());
    }
}
