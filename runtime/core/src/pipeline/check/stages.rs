//! What a stage says that has to fit the rest of its manifest, or what the node knows: former
//! names, what the pipeline promises, components and assets.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Facts, KnownComponents};
use crate::manifest::{Problem, member, nearest, show};
use crate::pipeline::Stage;

impl Check<'_> {
    /// A stage is renamed from a name that is free then, and one takes what it had.
    pub(super) fn renames(&mut self) {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for stage in self.declaration.stages.values() {
            let Some(from) = stage.from.as_deref() else { continue };
            let field = member(&member("stages", &stage.name), "from");
            let (message, fix) = if self.declaration.stages.contains_key(from) {
                let message = format!("names {}, which is a stage of this manifest", show(from));
                (message, "name what the stage was called before, or remove it")
            } else if let Some(other) = taken.insert(from, &stage.name) {
                let message = format!("names {}, and so does stage {}", show(from), show(other));
                (message, "let one of the two take over what the stage had")
            } else {
                continue;
            };
            self.problems.add(Problem::new(field, "pipeline.from", message, fix));
        }
    }

    /// The stages with their components resolved to digests, as far as the facts go.
    pub(super) fn known_stages(&mut self, facts: &Facts) -> Vec<Stage> {
        let mut stages = Vec::with_capacity(self.stages.len());
        for stage in self.stages.clone() {
            let mut stage = stage.clone();
            if let Some(known) = &facts.components {
                self.component(&mut stage, known);
            }
            if let Some(known) = &facts.assets {
                self.assets(&stage, known);
            }
            stages.push(stage);
        }
        stages
    }

    fn component(&mut self, stage: &mut Stage, known: &KnownComponents) {
        let reference = &mut stage.component;
        let (message, fix) = match (&reference.name, &reference.digest) {
            (_, Some(digest)) if known.digests.contains(digest) => return,
            (_, Some(digest)) => {
                let message = format!("no component with the digest {digest} has been uploaded");
                (message, "upload it, or name one that has been".to_owned())
            }
            (Some(name), None) => {
                if let Some(digest) = known.names.get(name) {
                    reference.digest = Some(digest.clone());
                    return;
                }
                let names = known.names.keys().map(String::as_str);
                let fix = nearest(name, names).map_or_else(
                    || "upload one under this name first".to_owned(),
                    |meant| format!("did you mean {meant:?}? Otherwise upload it first"),
                );
                (format!("no component called {} has been uploaded", show(name)), fix)
            }
            // Missing or unreadable, which has been said.
            (None, None) => return,
        };
        let field = member(&member("stages", &stage.name), "component");
        self.problems.add(Problem::new(field, "pipeline.unknown-component", message, fix));
    }

    fn assets(&mut self, stage: &Stage, known: &BTreeSet<String>) {
        let list = member(&member("stages", &stage.name), "assets");
        for (name, digest) in stage.assets.iter().filter(|(_, digest)| !known.contains(*digest)) {
            let message = format!("no asset {} has been uploaded", show(digest));
            let field = member(&list, name);
            let code = "pipeline.unknown-asset";
            self.problems.add(Problem::new(field, code, message, "upload it first"));
        }
    }
}
