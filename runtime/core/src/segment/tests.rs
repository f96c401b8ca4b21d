//! Where pipelines are cut, by example and by what must always hold.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::pipeline::sample::{pipeline, pipelines};

fn cut_of(stages: &str, edges: &str, to: &str) -> Vec<Vec<String>> {
    let text = format!(
        r#"{{ "version": 1, "name": "p", "delivery": "best-effort", "ingest": {{ "to": [{to}] }},
        "stages": {{ {stages} }}, "edges": [{edges}] }}"#
    );
    let pipeline = pipeline(&text);
    let name = |stage: &StageIndex| pipeline.stages[*stage].name.clone();
    cut(&pipeline).segments.iter().map(|s| s.stages.iter().map(name).collect()).collect()
}

const ABCD: &str = r#""a": { "component": "c" }, "b": { "component": "c" },
    "c": { "component": "c" }, "d": { "component": "c" }"#;

#[test]
fn a_chain_and_a_tree_are_one_segment() {
    let edges =
        r#"{ "from": "d", "to": "c" }, { "from": "c", "to": "b" }, { "from": "c", "to": "a" }"#;
    assert_eq!(cut_of(ABCD, edges, r#""d""#), [["d", "c", "a", "b"]]);
}

#[test]
fn a_stage_that_is_set_apart_is_a_segment() {
    let text = format!(
        r#"{{ "version": 1, "name": "p", "delivery": "best-effort", "ingest": {{ "to": ["a"] }},
        "stages": {{ {ABCD} }}, "edges": [{{ "from": "a", "to": "b" }},
        {{ "from": "b", "to": "c" }}, {{ "from": "a", "to": "d" }}] }}"#
    );
    let cut = |scaling: &str| -> Vec<Vec<StageIndex>> {
        let text = text.replacen('{', &format!(r#"{{ "scaling": {{ {scaling} }},"#), 1);
        cut(&pipeline(&text)).segments.into_iter().map(|s| s.stages).collect()
    };
    assert_eq!(cut(""), [[0, 1, 2, 3]]);
    assert_eq!(cut(r#""apart": "b""#), [vec![0, 3], vec![1], vec![2]]);
    assert_eq!(cut(r#""apart": "c""#), [vec![0, 1, 3], vec![2]]);
}

#[test]
fn an_edge_with_another_key_cuts() {
    let edges = r#"{ "from": "a", "to": "b", "key": "emitted" }, { "from": "b", "to": "c" },
        { "from": "c", "to": "d", "key": { "json": "/k" } }"#;
    assert_eq!(cut_of(ABCD, edges, r#""a""#), [vec!["a"], vec!["b", "c"], vec!["d"]]);
}

#[test]
fn a_join_begins_a_segment_and_so_does_a_second_entry() {
    let edges = r#"{ "from": "a", "to": "b" }, { "from": "a", "to": "c" },
        { "from": "b", "to": "d" }, { "from": "c", "to": "d" }"#;
    assert_eq!(cut_of(ABCD, edges, r#""a""#), [vec!["a", "b", "c"], vec!["d"]]);
    let edges =
        r#"{ "from": "a", "to": "b" }, { "from": "b", "to": "c" }, { "from": "c", "to": "d" }"#;
    assert_eq!(cut_of(ABCD, edges, r#""a", "c""#), [["a", "b"], ["c", "d"]]);
}

#[test]
fn two_edges_between_the_same_stages_are_a_join() {
    let stages = r#""a": { "component": "c", "ports": ["x", "y"] }, "b": { "component": "c" }"#;
    let edges = r#"{ "from": "a.x", "to": "b" }, { "from": "a.y", "to": "b" }"#;
    assert_eq!(cut_of(stages, edges, r#""a""#), [["a"], ["b"]]);
}

#[test]
fn ingest_is_told_to_the_root() {
    let text = r#"{ "version": 1, "name": "p", "delivery": "best-effort",
        "ingest": { "to": ["a.r", "a.l"] },
        "stages": { "a": { "component": "c", "inputs": ["l", "r"] } } }"#;
    assert_eq!(cut(&pipeline(text)).segments[0].ingest, [1, 0]);
}

/// What must hold of any cut; `needs` says what resources a stage needs.
fn holds(
    pipeline: &Pipeline,
    plan: &Plan,
    needs: impl Fn(&Stage) -> u8,
) -> Result<(), TestCaseError> {
    let mut placed = vec![0; pipeline.stages.len()];
    let mut edges = BTreeSet::new();
    for (index, segment) in plan.segments.iter().enumerate() {
        prop_assert_eq!(segment.stages.first(), Some(&segment.root));
        let place = |stage: StageIndex| segment.stages.iter().position(|s| *s == stage);
        for stage in &segment.stages {
            placed[*stage] += 1;
            prop_assert_eq!(plan.of_stage[*stage], index);
            let feeders = segment.inside.iter().filter(|e| pipeline.edges[**e].to == *stage);
            prop_assert_eq!(feeders.count(), usize::from(*stage != segment.root));
        }
        for edge in &segment.inside {
            prop_assert!(edges.insert(*edge));
            let edge = &pipeline.edges[*edge];
            // A tree in topological order: whoever feeds a stage is in the segment, before it.
            prop_assert!(place(edge.from) < place(edge.to) && place(edge.from).is_some());
            prop_assert_eq!(&edge.key, &EdgeKey::Cause);
            prop_assert_eq!(needs(&pipeline.stages[edge.from]), needs(&pipeline.stages[edge.to]));
        }
        for edge in &segment.entering {
            prop_assert!(edges.insert(*edge));
            prop_assert_eq!(pipeline.edges[*edge].to, segment.root);
            prop_assert!(plan.of_stage[pipeline.edges[*edge].from] < index);
        }
        let targets = pipeline.ingest.targets.iter().filter(|(s, _)| plan.of_stage[*s] == index);
        prop_assert!(targets.clone().all(|(stage, _)| *stage == segment.root));
        prop_assert_eq!(
            targets.map(|(_, input)| *input).collect::<Vec<_>>(),
            segment.ingest.clone()
        );
        maximal(pipeline, segment, &needs)?;
    }
    prop_assert!(placed.iter().all(|times| *times == 1));
    prop_assert_eq!(edges.len(), pipeline.edges.len());
    let all = |of: fn(&Segment) -> &Vec<EdgeIndex>| -> BTreeSet<EdgeIndex> {
        plan.segments.iter().flat_map(of).copied().collect()
    };
    prop_assert_eq!(all(|s| &s.entering), all(|s| &s.leaving));
    Ok(())
}

/// No root could have stayed with the stage before it.
fn maximal(
    pipeline: &Pipeline,
    segment: &Segment,
    needs: &impl Fn(&Stage) -> u8,
) -> Result<(), TestCaseError> {
    if let ([only], []) = (segment.entering.as_slice(), segment.ingest.as_slice()) {
        let edge = &pipeline.edges[*only];
        let same = needs(&pipeline.stages[edge.from]) == needs(&pipeline.stages[edge.to]);
        prop_assert!(edge.key != EdgeKey::Cause || !same);
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_stage_is_in_one_tree_and_other_edges_cross(pipeline in pipelines()) {
        let apart = pipeline.scaling.as_ref().and_then(|scaling| scaling.apart.as_deref());
        let needs = |stage: &Stage| {
            u8::from(apart == Some(&*stage.name)) + 2 * u8::from(stage.grants.gpu.is_some())
        };
        holds(&pipeline, &cut(&pipeline), needs)?;
    }

    #[test]
    fn a_change_of_resources_cuts(pipeline in pipelines()) {
        let needs = |stage: &Stage| stage.retries % 2;
        holds(&pipeline, &cut_by(&pipeline, needs), needs)?;
    }
}
