//! What becomes of the state of each stage when a version takes the place of another.
//!
//! - A stage that keeps its name keeps its state. One that says `from` takes over the state of the
//!   stage of that name, which must be in the version that runs and not in the next.
//! - A version that has been applied can be applied again: `from` is then fulfilled, and means
//!   nothing.
//! - With exactly-once no state goes without a word: a stage is renamed, or given up by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Declaration, Problem, Problems, member, nearest, show};
use crate::pipeline::{Delivery, Pipeline, Stage};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handover {
    /// Stages of the version that runs, and what they are called in the next.
    renamed: BTreeMap<String, String>,
    /// Stages of the version that runs whose state is given up, whether they stay or go.
    discarded: BTreeSet<String>,
}

impl Handover {
    /// The stage of the next version that takes the state of a stage that runs; `None` if its
    /// state is given up. The next version need not have the stage.
    #[must_use]
    pub fn heir<'a>(&'a self, stage: &'a str) -> Option<&'a str> {
        if self.discarded.contains(stage) {
            return None;
        }
        Some(self.renamed.get(stage).map_or(stage, String::as_str))
    }

    /// What a stage of the next version is called in the one that runs; `None` if it begins empty
    /// whatever runs.
    #[must_use]
    pub fn forebear<'a>(&'a self, stage: &'a str) -> Option<&'a str> {
        let renamed = self.renamed.iter().find(|(_, new)| *new == stage);
        let name = renamed.map_or(stage, |(old, _)| old.as_str());
        (!self.discarded.contains(name)).then_some(name)
    }

    /// Stages of the version that runs, with the names they go on under.
    pub fn renamed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.renamed.iter().map(|(old, new)| (old.as_str(), new.as_str()))
    }

    /// Stages of the version that runs whose state is given up.
    pub fn discarded(&self) -> impl Iterator<Item = &str> {
        self.discarded.iter().map(String::as_str)
    }

    /// The declaration of the version that runs, with its stages called as in the next.
    pub(super) fn rename(&self, declaration: &mut Declaration) {
        let stages = std::mem::take(&mut declaration.stages);
        let renamed = |name: &String| self.renamed.get(name).unwrap_or(name).clone();
        for (name, stage) in stages {
            let name = renamed(&name);
            declaration.stages.insert(name.clone(), Stage { name, ..stage });
        }
        if let Some(apart) = declaration.scaling.as_mut().and_then(|own| own.apart.as_mut()) {
            *apart = renamed(apart);
        }
        let edges = declaration.edges.iter_mut();
        let ends = edges.flat_map(|edge| [&mut edge.from, &mut edge.to]);
        let outputs = declaration.outputs.values_mut().map(|output| &mut output.from);
        for end in ends.chain(outputs).chain(&mut declaration.ingest.to) {
            end.stage = renamed(&end.stage);
        }
    }
}

/// Judges what becomes of the stages of `old`; `discard` names those whose state is given up.
pub(super) fn judge(
    old: Option<&Pipeline>,
    new: &Pipeline,
    discard: &BTreeSet<String>,
    refused: &mut Problems,
) -> Handover {
    let mut judge = Judge { old, new, discard, refused, handover: Handover::default() };
    new.stages.iter().for_each(|stage| judge.rename(stage));
    discard.iter().for_each(|name| judge.discard(name));
    judge.keep();
    judge.handover
}

struct Judge<'a> {
    old: Option<&'a Pipeline>,
    new: &'a Pipeline,
    discard: &'a BTreeSet<String>,
    refused: &'a mut Problems,
    handover: Handover,
}

impl Judge<'_> {
    fn runs(&self, stage: &str) -> bool {
        self.old.is_some_and(|old| old.stage_index(stage).is_some())
    }

    fn refuse(&mut self, field: String, code: &'static str, (message, fix): (String, String)) {
        self.refused.add(Problem::new(field, code, message, fix));
    }

    /// In a pipeline that is new there is nothing to take over, and nothing to lose.
    fn rename(&mut self, stage: &Stage) {
        let (Some(from), Some(old)) = (&stage.from, self.old) else { return };
        let field = member(&member("stages", &stage.name), "from");
        match (self.runs(&stage.name), self.runs(from)) {
            (true, false) => {}
            // What is called so now has a state of its own; the other's goes if that was said.
            (true, true) if self.discard.contains(from) => {}
            (true, true) => {
                let message = format!(
                    "names {}, whose state cannot be joined to that of {}: both run",
                    show(from),
                    show(&stage.name)
                );
                let fix = format!("keep {from:?}, or give its state up: {}", word(from));
                self.refuse(field, "plan.from", (message, fix));
            }
            (false, true) => {
                self.handover.renamed.insert(from.clone(), stage.name.clone());
            }
            (false, false) => {
                let message = format!("names {}, and no stage that runs is called so", show(from));
                let names = old.stages.iter().map(|stage| stage.name.as_str());
                let fix = nearest(from, names).map_or_else(
                    || "remove it, and the stage begins empty".to_owned(),
                    |meant| format!("did you mean {meant:?}?"),
                );
                self.refuse(field, "plan.from", (message, fix));
            }
        }
    }

    fn discard(&mut self, stage: &str) {
        let heir = self.handover.renamed.get(stage);
        let problem = if let Some(heir) = heir {
            let message = format!(
                "names {}, whose state stage {} takes over by `from`",
                show(stage),
                show(heir)
            );
            Some((message, "say one of the two".to_owned()))
        } else if self.runs(stage) {
            None
        } else {
            let message = format!("names {}, and no stage that runs is called so", show(stage));
            let mut names = self.old.iter().flat_map(|old| &old.stages).map(|s| s.name.as_str());
            let fix = nearest(stage, names.by_ref()).map_or_else(
                || "leave it out: there is no state of this name".to_owned(),
                |meant| format!("did you mean {meant:?}?"),
            );
            Some((message, fix))
        };
        match problem {
            Some(problem) => self.refuse("discard-state".to_owned(), "plan.discard", problem),
            None => drop(self.handover.discarded.insert(stage.to_owned())),
        }
    }

    fn keep(&mut self) {
        let Some(old) = self.old.filter(|old| old.delivery == Delivery::ExactlyOnce) else {
            return;
        };
        for Stage { name, .. } in &old.stages {
            let heir = self.handover.heir(name);
            if heir.is_none_or(|heir| self.new.stage_index(heir).is_some()) {
                continue;
            }
            let message = "goes, and its state with it".to_owned();
            let fix = format!(
                "keep it, write from = {name:?} in the stage that is it now, or give its state \
                 up: {}",
                word(name)
            );
            self.refuse(member("stages", name), "plan.state", (message, fix));
        }
    }
}

/// How state is given up, in both places where it is said.
fn word(stage: &str) -> String {
    format!("`apply --discard-state {stage}`, over HTTP `?discard-state={stage}`")
}
