//! What a node has, as it tells others: small, and told anew only when it has changed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sluicebox_core::ids::Name;
use sluicebox_link::tls::NodeName;

/// Something that lives on one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A tenant's components and assets; all of a tenant with a process of its own.
    Tenant(Name),
    /// A tenant's pipeline.
    Pipeline(Name, Name),
}

impl Subject {
    pub(crate) fn tenant(&self) -> &Name {
        match self {
            Self::Tenant(tenant) | Self::Pipeline(tenant, _) => tenant,
        }
    }

    pub(crate) fn pipeline(&self) -> Option<&Name> {
        match self {
            Self::Tenant(_) => None,
            Self::Pipeline(_, pipeline) => Some(pipeline),
        }
    }

    /// What is hashed to see which node makes it.
    pub(super) fn text(&self, node: &NodeName) -> String {
        let pipeline = self.pipeline().map_or("", Name::as_str);
        format!("{node}\0{}\0{pipeline}", self.tenant())
    }
}

/// Everything a node has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Held {
    /// Tenants with components here, or with their process.
    pub(crate) tenants: BTreeSet<String>,
    /// Pipelines, by tenant.
    pub(crate) pipelines: BTreeSet<(String, String)>,
}

impl Held {
    pub(crate) fn has(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Tenant(tenant) => self.tenants.contains(tenant.as_str()),
            Subject::Pipeline(tenant, pipeline) => {
                // No allocation but for what is asked once a request.
                self.pipelines.contains(&(tenant.to_string(), pipeline.to_string()))
            }
        }
    }
}

/// What a node says when it is asked how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct State {
    /// The names of all nodes, as it has them.
    pub(crate) nodes: String,
    /// It has restored what it had.
    pub(crate) ready: bool,
    /// The machine it is on, if it was told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) host: Option<String>,
    /// Changes whenever `held` does.
    pub(crate) tag: String,
    /// Left out if the asker has seen it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) held: Option<Held>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_and_its_tenant_are_two_things() {
        let name = |text| Name::new(text).expect("a name");
        let mut held = Held::default();
        held.pipelines.insert(("acme".to_owned(), "p".to_owned()));
        assert!(held.has(&Subject::Pipeline(name("acme"), name("p"))));
        assert!(!held.has(&Subject::Pipeline(name("other"), name("p"))));
        assert!(!held.has(&Subject::Tenant(name("acme"))));
        let text = serde_json::to_string(&held).expect("it can be written");
        assert_eq!(serde_json::from_str::<Held>(&text).expect("it can be read"), held);
    }
}
