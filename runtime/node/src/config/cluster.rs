//! The list of nodes: how one is written, and what has to fit together.

use std::fmt;
use std::str::FromStr;

use sluicebox_link::tls::NodeName;

use super::ClusterConfig;

/// Nodes there may be; each watches all others.
pub(super) const NODES_MAX: usize = 256;

/// A node, and where others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// What its certificate calls it.
    pub name: NodeName,
    /// `host:port`; the host is looked up for each connection.
    pub address: String,
}

impl FromStr for NodeAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, address) = text.trim().split_once('=').ok_or(())?;
        let (host, port) = address.rsplit_once(':').ok_or(())?;
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
        if host.is_empty() || host.len() > 255 || !host.chars().all(is_host) {
            return Err(());
        }
        port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(())?;
        let name = NodeName::new(name).map_err(|_| ())?;
        Ok(Self { name, address: address.to_owned() })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.address)
    }
}

impl ClusterConfig {
    /// Says what does not fit together, with the field and the fix.
    pub(super) fn check(&self, refuse: &mut impl FnMut(&str, String, &str)) {
        let Some(node) = &self.node else {
            if !self.nodes.is_empty() {
                let message = "there are nodes, and it is not said which of them this is";
                refuse("cluster.node", message.to_owned(), "give the name of this node");
            }
            return;
        };
        if !self.nodes.iter().any(|other| other.name == *node) {
            let message = format!("{node} is not among them");
            let fix = "list all nodes, this one too: the list is the same on every node";
            refuse("cluster.nodes", message, fix);
        }
        let files = [
            ("cluster.certificate", &self.certificate),
            ("cluster.key", &self.key),
            ("cluster.authority", &self.authority),
        ];
        for (field, _) in files.iter().filter(|(_, file)| file.is_none()) {
            let message = "nodes know each other by certificates, and there is none".to_owned();
            refuse(field, message, "make them with `sluicebox certs` and name the file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_name_and_an_address() {
        for text in ["a=127.0.0.1:7421", "b.example=host-1:80", "c=[::1]:9"] {
            let node: NodeAddress = text.parse().unwrap();
            assert_eq!(node.to_string(), text);
        }
        for text in ["", "a", "a=", "a=host", "a=host:0", "a=:80", "=h:1", "a b=h:1", "a=h/x:1"] {
            assert!(text.parse::<NodeAddress>().is_err(), "{text:?}");
        }
    }
}
