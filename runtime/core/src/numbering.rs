//! The numbers by which the log knows the stages, edges and outputs of a pipeline.
//!
//! - A stage or an output is known by its name, an edge by its two ends: what is called the same in
//!   the next version keeps its number, and with it its state, its place or its offsets. A stage
//!   that is renamed keeps it too.
//! - A number is given out once in the life of a pipeline. What goes and comes back later is new,
//!   and so is a stage that stays without its state.
//!
//! The numbers stand in the record of each version; this only gives them out.

use std::collections::BTreeMap;

use crate::codec::{EdgeEnds, NameTable};
use crate::ids::{EdgeId, Name, NameError, OutputId, StageId};
use crate::pipeline::{Edge, Pipeline};
use crate::plan::Handover;

/// The numbers of one version of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbering {
    /// What each stands for.
    pub names: NameTable,
    /// The highest given out so far, of a stage, an edge and an output.
    pub highest: [Option<u32>; 3],
}

impl Numbering {
    /// The numbers of `pipeline`, going on from those of the version before as `handover` says.
    ///
    /// # Errors
    /// A stage, port, input or output has no proper name; a checked pipeline has.
    pub fn of(pipeline: &Pipeline, before: &Self, handover: &Handover) -> Result<Self, NameError> {
        let mut next = Giver { highest: before.highest };
        let names = pipeline.stages.iter().map(|stage| Name::new(&stage.name));
        let names: Vec<Name> = names.collect::<Result<_, _>>()?;
        let mut stages = BTreeMap::new();
        for name in &names {
            let known = handover.forebear(name.as_str()).and_then(|name| before.stage(name));
            let id = known.unwrap_or_else(|| StageId(next.give(0)));
            stages.insert(id, name.clone());
        }
        let ids: Vec<StageId> = names.iter().filter_map(|name| id_of(&stages, name)).collect();
        let mut edges = BTreeMap::new();
        for edge in &pipeline.edges {
            let ends = ends(pipeline, edge, &ids)?;
            let known = before.names.edges.iter().find(|(_, known)| *known == ends);
            let id = known.map_or_else(|| EdgeId(next.give(1)), |(id, _)| *id);
            edges.insert(id, ends);
        }
        let mut outputs = BTreeMap::new();
        for output in &pipeline.outputs {
            let name = Name::new(&output.name)?;
            let known = before.names.outputs.iter().find(|(_, known)| *known == name);
            let id = known.map_or_else(|| OutputId(next.give(2)), |(id, _)| *id);
            outputs.insert(id, name);
        }
        let names = NameTable {
            stages: stages.into_iter().collect(),
            edges: edges.into_iter().collect(),
            outputs: outputs.into_iter().collect(),
        };
        Ok(Self { names, highest: next.highest })
    }

    /// The number of a stage.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<StageId> {
        let mut stages = self.names.stages.iter();
        stages.find(|(_, known)| known.as_str() == name).map(|(id, _)| *id)
    }

    /// The number of an edge of the pipeline these numbers are of.
    #[must_use]
    pub fn edge(&self, pipeline: &Pipeline, edge: &Edge) -> Option<EdgeId> {
        let ids = pipeline.stages.iter().map(|stage| self.stage(&stage.name));
        let ends = ends(pipeline, edge, &ids.collect::<Option<Vec<_>>>()?).ok()?;
        let mut edges = self.names.edges.iter();
        edges.find(|(_, known)| *known == ends).map(|(id, _)| *id)
    }

    /// The numbers of stages whose state is given up by the version behind this one, in order.
    #[must_use]
    pub fn given_up(&self, handover: &Handover) -> Vec<StageId> {
        let mut given: Vec<_> = handover.discarded().filter_map(|name| self.stage(name)).collect();
        given.sort_unstable();
        given
    }

    /// The number of an output.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<OutputId> {
        let mut outputs = self.names.outputs.iter();
        outputs.find(|(_, known)| known.as_str() == name).map(|(id, _)| *id)
    }
}

struct Giver {
    highest: [Option<u32>; 3],
}

impl Giver {
    fn give(&mut self, what: usize) -> u32 {
        let number = self.highest[what].map_or(0, |highest| highest + 1);
        self.highest[what] = Some(number);
        number
    }
}

fn id_of(stages: &BTreeMap<StageId, Name>, name: &Name) -> Option<StageId> {
    stages.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
}

/// The ends of an edge. `ids` are those of the stages, in the pipeline's order.
fn ends(pipeline: &Pipeline, edge: &Edge, ids: &[StageId]) -> Result<EdgeEnds, NameError> {
    let part = |names: &[String], at: u16| {
        Name::new(names.get(usize::from(at)).map_or("", String::as_str))
    };
    Ok(EdgeEnds {
        from: ids[edge.from],
        port: part(&pipeline.stages[edge.from].ports, edge.port)?,
        to: ids[edge.to],
        input: part(&pipeline.stages[edge.to].inputs, edge.input)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::sample;
    use crate::plan;

    fn pipeline(stages: &[&str], edges: &[(&str, &str)], outputs: &[(&str, &str)]) -> Pipeline {
        let stages = stages.iter().map(|name| format!(r#""{name}": {{ "component": "c" }}"#));
        let edges =
            edges.iter().map(|(from, to)| format!(r#"{{ "from": "{from}", "to": "{to}" }}"#));
        let outputs =
            outputs.iter().map(|(name, from)| format!(r#""{name}": {{ "from": "{from}" }}"#));
        let join = |items: Vec<String>| items.join(", ");
        let text = format!(
            r#"{{ "version": 1, "name": "p", "delivery": "exactly-once",
                 "ingest": {{ "to": ["a"] }}, "stages": {{ {} }}, "edges": [{}],
                 "outputs": {{ {} }} }}"#,
            join(stages.collect()),
            join(edges.collect()),
            join(outputs.collect())
        );
        sample::pipeline(&text)
    }

    fn numbers(pipeline: &Pipeline, before: &Numbering) -> Numbering {
        Numbering::of(pipeline, before, &Handover::default()).expect("names")
    }

    fn handed_over(old: &Pipeline, new: &Pipeline, discard: &[&str]) -> Handover {
        let discard = discard.iter().map(|name| (*name).to_owned()).collect();
        let diff = plan::diff(Some(old), new, &discard);
        assert!(diff.refused.is_empty(), "{diff}");
        diff.handover
    }

    #[test]
    fn a_renamed_stage_keeps_its_number_and_those_of_its_edges() {
        let first = pipeline(&["a", "b"], &[("a", "b")], &[("x", "b")]);
        let one = numbers(&first, &Numbering::default());
        let mut second = pipeline(&["a", "c"], &[("a", "c")], &[("x", "c")]);
        second.stages[1].from = Some("b".to_owned());
        let handover = handed_over(&first, &second, &[]);
        let two = Numbering::of(&second, &one, &handover).expect("names");
        assert_eq!((two.stage("b"), two.stage("c")), (None, one.stage("b")));
        assert_eq!(two.edge(&second, &second.edges[0]), one.edge(&first, &first.edges[0]));
        assert_eq!((two.highest, two.given_up(&handover)), (one.highest, Vec::new()));
        assert_eq!(one.given_up(&handover), []);
    }

    #[test]
    fn a_stage_that_stays_without_its_state_is_another_one() {
        let first = pipeline(&["a", "b"], &[("a", "b")], &[("x", "b")]);
        let one = numbers(&first, &Numbering::default());
        let handover = handed_over(&first, &first, &["b"]);
        let two = Numbering::of(&first, &one, &handover).expect("names");
        assert_eq!((two.stage("a"), two.stage("b")), (one.stage("a"), Some(StageId(2))));
        assert_eq!(two.edge(&first, &first.edges[0]), Some(EdgeId(1)));
        assert_eq!(two.output("x"), one.output("x"));
        assert_eq!(one.given_up(&handover), [StageId(1)]);
    }

    #[test]
    fn what_stays_keeps_its_number_and_what_comes_gets_one_never_used() {
        let first = pipeline(&["a", "b"], &[("a", "b")], &[("x", "b"), ("y", "b")]);
        let one = numbers(&first, &Numbering::default());
        assert_eq!((one.stage("a"), one.stage("b")), (Some(StageId(0)), Some(StageId(1))));
        assert_eq!(one.edge(&first, &first.edges[0]), Some(EdgeId(0)));
        assert_eq!(one.highest, [Some(1), Some(0), Some(1)]);
        // "aa" comes before "b" in the order of names, the edge and an output go.
        let second = pipeline(&["a", "aa", "b"], &[("a", "aa"), ("aa", "b")], &[("y", "b")]);
        let two = numbers(&second, &one);
        assert_eq!((two.stage("b"), two.stage("aa")), (Some(StageId(1)), Some(StageId(2))));
        assert_eq!((two.output("x"), two.output("y")), (None, one.output("y")));
        let edges: Vec<_> = second.edges.iter().map(|e| two.edge(&second, e)).collect();
        assert_eq!(edges, [Some(EdgeId(1)), Some(EdgeId(2))]);
        // What went comes back as something new.
        let three = numbers(&first, &two);
        assert_eq!(three.edge(&first, &first.edges[0]), Some(EdgeId(3)));
        assert_ne!(three.output("x"), one.output("x"));
    }
}
