//! What the fields of a manifest may say to one another.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::sample::{declarations, json, pipeline};
use super::*;
use crate::ids::Digest;
use crate::manifest::Problems;

/// A manifest of the given stages (JSON members), edges and ingest targets.
fn manifest(stages: &str, edges: &str, to: &str) -> String {
    format!(
        r#"{{ "version": 1, "name": "p", "delivery": "best-effort", "ingest": {{ "to": [{to}] }},
        "stages": {{ {stages} }}, "edges": [{edges}] }}"#
    )
}

fn problems(text: &str) -> Problems {
    build(&json(text), &Facts::default()).expect_err("the manifest is wrong")
}

fn only(text: &str) -> (String, &'static str, String, String) {
    let problems = problems(text);
    let [one] = problems.list() else { panic!("expected one problem:\n{problems}") };
    (one.field.clone(), one.code, one.message.clone(), one.fix.clone())
}

const ABC: &str = r#""a": { "component": "c" }, "b": { "component": "c" },
    "c": { "component": "c", "ports": ["left", "right"] }"#;

#[test]
fn names_become_indices() {
    let pipeline = pipeline(&manifest(
        r#""z": { "component": "c", "ports": ["x", "y"] },
           "a": { "component": "c", "inputs": ["l", "r"] }"#,
        r#"{ "from": "z.y", "to": "a.r", "key": "emitted" }, { "from": "z", "to": "a" }"#,
        r#""z""#,
    ));
    assert_eq!(pipeline.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "z"]);
    assert_eq!(pipeline.ingest.targets, [(1, 0)]);
    assert_eq!(
        pipeline.edges,
        [
            Edge { from: 1, port: 1, to: 0, input: 1, key: EdgeKey::Emitted },
            Edge { from: 1, port: 0, to: 0, input: 0, key: EdgeKey::Cause },
        ]
    );
    assert_eq!(pipeline.stage_index("z"), Some(1));
    assert_eq!(pipeline.stage_index("q"), None);
}

#[test]
fn a_former_name_is_free_and_taken_once() {
    let stages = r#""a": { "component": "c", "from": "b" }, "b": { "component": "c" }"#;
    let edges = r#"{ "from": "a", "to": "b" }"#;
    let (field, code, ..) = only(&manifest(stages, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("stages.a.from", "pipeline.from"));
    let stages =
        r#""a": { "component": "c", "from": "x" }, "b": { "component": "c", "from": "x" }"#;
    let (field, code, message, _) = only(&manifest(stages, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("stages.b.from", "pipeline.from"));
    assert!(message.contains("\"a\""), "{message}");
}

#[test]
fn an_unknown_stage_is_named_with_the_one_that_was_meant() {
    let stages = r#""split": { "component": "c" }, "count": { "component": "c" }"#;
    let edges = r#"{ "from": "split", "to": "cuont" }"#;
    let (field, code, message, fix) = only(&manifest(stages, edges, r#""split""#));
    assert_eq!((field.as_str(), code), ("edges[0].to", "pipeline.unknown-stage"));
    assert_eq!(message, "there is no stage \"cuont\"");
    assert_eq!(fix, "did you mean \"count\"?");
}

#[test]
fn an_unknown_port_and_an_unknown_input_are_told_apart() {
    let edges = r#"{ "from": "a", "to": "b" }, { "from": "c.rigth", "to": "b.side" }"#;
    let found = problems(&manifest(ABC, edges, r#""a", "c""#));
    let codes: Vec<_> = found.list().iter().map(|p| (p.field.as_str(), p.code)).collect();
    assert_eq!(
        codes,
        [("edges[1].from", "pipeline.unknown-port"), ("edges[1].to", "pipeline.unknown-input")]
    );
    assert_eq!(found.list()[0].fix, "did you mean \"c.right\"?");
    assert!(found.list()[1].fix.contains("its inputs are \"in\""));
}

#[test]
fn a_stage_without_ports_emits_nowhere() {
    let stages = r#""a": { "component": "c", "ports": [] }, "b": { "component": "c" }"#;
    let (field, code, ..) = only(&manifest(stages, r#"{ "from": "a", "to": "b" }"#, r#""a""#));
    assert_eq!((field.as_str(), code), ("edges[0].from", "pipeline.unknown-port"));
}

#[test]
fn a_cycle_is_named_with_its_stages_and_edges() {
    let edges = r#"{ "from": "a", "to": "b" }, { "from": "b", "to": "c" },
        { "from": "c.right", "to": "a", "key": "emitted" }"#;
    let (field, code, message, fix) = only(&manifest(ABC, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("edges[2]", "pipeline.cycle"));
    assert_eq!(message, "closes the cycle a → b → c → a");
    assert_eq!(fix, "remove one of edges[0], edges[1], edges[2]");
}

#[test]
fn a_stage_that_feeds_itself_is_a_cycle() {
    let edges = r#"{ "from": "a", "to": "a" }"#;
    let stages = r#""a": { "component": "c" }"#;
    let (field, code, message, _) = only(&manifest(stages, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("edges[0]", "pipeline.cycle"));
    assert_eq!(message, "closes the cycle a → a");
}

#[test]
fn a_stage_no_event_reaches_is_refused() {
    let edges = r#"{ "from": "b", "to": "c" }"#;
    let found = problems(&manifest(ABC, edges, r#""a""#));
    let codes: Vec<_> = found.list().iter().map(|p| (p.field.as_str(), p.code)).collect();
    assert_eq!(codes, [("stages.b", "pipeline.unreachable"), ("stages.c", "pipeline.unreachable")]);
}

#[test]
fn a_misspelt_source_does_not_make_its_target_unreachable() {
    let edges = r#"{ "from": "nowhere-at-all", "to": "b" }, { "from": "b", "to": "c" }"#;
    let (field, code, ..) = only(&manifest(ABC, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("edges[0].from", "pipeline.unknown-stage"));
}

#[test]
fn the_same_edge_twice_is_refused_even_with_another_key() {
    let edges = r#"{ "from": "a", "to": "b" }, { "from": "b", "to": "c" },
        { "from": "a.out", "to": "b.in", "key": "emitted" }"#;
    let (field, code, message, _) = only(&manifest(ABC, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("edges[2]", "pipeline.duplicate-edge"));
    assert!(message.ends_with("edges[0]"));
    let edges = r#"{ "from": "a", "to": "b" }, { "from": "b", "to": "c" }"#;
    let (field, code, ..) = only(&manifest(ABC, edges, r#""a", "a.in""#));
    assert_eq!((field.as_str(), code), ("ingest.to[1]", "pipeline.duplicate-edge"));
}

#[test]
fn an_input_nothing_feeds_is_refused() {
    let stages = r#""a": { "component": "c" },
        "join": { "component": "c", "inputs": ["left", "right"] }"#;
    let edges = r#"{ "from": "a", "to": "join" }"#;
    let (field, code, message, fix) = only(&manifest(stages, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("stages.join.inputs[1]", "pipeline.unfed-input"));
    assert_eq!(message, "nothing feeds the input \"right\"");
    assert!(fix.contains("\"join.right\""));
    // A misspelt input is one mistake, not two.
    let edges = r#"{ "from": "a", "to": "join" }, { "from": "a", "to": "join.rihgt" }"#;
    let (field, code, ..) = only(&manifest(stages, edges, r#""a""#));
    assert_eq!((field.as_str(), code), ("edges[1].to", "pipeline.unknown-input"));
}

#[test]
fn a_list_that_cannot_be_read_makes_no_other_mistakes() {
    let text = manifest(ABC, "", r#""a""#);
    let broken = text.replace(r#""edges": []"#, r#""edges": "a -> b""#);
    let (field, code, ..) = only(&broken);
    assert_eq!((field.as_str(), code), ("edges", "manifest.type"));
    let broken = text.replace(r#""ports": ["left", "right"]"#, r#""ports": "left""#);
    let edges = r#""edges": [{ "from": "a", "to": "b" }, { "from": "b", "to": "c" },
        { "from": "c.right", "to": "b" }]"#;
    let found = problems(&broken.replace(r#""edges": []"#, edges));
    assert_eq!(found.list()[0].field, "stages.c.ports");
    assert!(found.list().iter().all(|p| p.code != "pipeline.unknown-port"), "{found}");
}

#[test]
fn components_are_resolved_to_digests() {
    let (new, old) = (Digest([1; 32]).to_string(), Digest([2; 32]).to_string());
    let facts = Facts {
        components: Some(KnownComponents {
            names: BTreeMap::from([("split".to_owned(), new.clone())]),
            digests: BTreeSet::from([new.clone(), old.clone()]),
        }),
        assets: Some(BTreeSet::new()),
    };
    let text = |component: &str| {
        manifest(&format!(r#""a": {{ "component": "{component}" }}"#), "", r#""a""#)
    };
    let resolved = |component: &str| {
        build(&json(&text(component)), &facts).map(|p| p.stages[0].component.to_string())
    };
    assert_eq!(resolved("split"), Ok(format!("split@{new}")));
    assert_eq!(resolved(&format!("split@{old}")), Ok(format!("split@{old}")));
    assert_eq!(resolved(&old), Ok(old.clone()));
    let problems = resolved("spilt").expect_err("there is none");
    assert_eq!(problems.list()[0].code, "pipeline.unknown-component");
    assert!(problems.list()[0].fix.starts_with("did you mean \"split\"?"));
    let strange = Digest([3; 32]).to_string();
    let problems = resolved(&format!("split@{strange}")).expect_err("there is none");
    assert_eq!(problems.list()[0].field, "stages.a.component");
    let asset = text("split")
        .replace(r#""component""#, &format!(r#""assets": {{ "t": "{strange}" }}, "component""#));
    let problems = build(&json(&asset), &facts).expect_err("no such asset");
    assert_eq!(problems.list()[0].field, "stages.a.assets.t");
    assert_eq!(problems.list()[0].code, "pipeline.unknown-asset");
}

#[test]
fn partitions_are_fixed_once() {
    let mut pipeline = pipeline(&manifest(r#""a": { "component": "c" }"#, "", r#""a""#));
    assert_eq!(pipeline.partitions, None);
    pipeline.fix_partitions(8);
    pipeline.fix_partitions(16);
    assert_eq!(pipeline.partitions, Some(8));
}

fn scaled(scaling: &str) -> String {
    let stages = r#""a": { "component": "c" }, "b": { "component": "c" }"#;
    let text = manifest(stages, r#"{ "from": "a", "to": "b" }"#, r#""a""#);
    text.replacen('{', &format!(r#"{{ "scaling": {{ {scaling} }},"#), 1)
}

#[test]
fn what_scales_has_bounds_and_begins_at_the_least() {
    let mut first = pipeline(&scaled(r#""min": 2, "max": 6"#));
    assert_eq!((first.first_partitions(16), first.partitions), (2, None));
    first.fix_partitions(16);
    assert_eq!(first.partitions, Some(6));
    let open = pipeline(&scaled("")).scaling.expect("a table is enough");
    assert_eq!((open.min, open.max, open.quiet_ms, open.apart.as_deref()), (1, None, 60_000, None));
    assert_eq!((open.clamp(1), open.clamp(1024)), (1, 1024));
    let wrong = |scaling: &str| {
        let problems = build(&json(&scaled(scaling)), &Facts::default()).expect_err("it is wrong");
        let first = &problems.list()[0];
        (first.field.clone(), first.code)
    };
    let code = "manifest.range";
    assert_eq!(wrong(r#""min": 3, "max": 2"#), ("scaling.max".to_owned(), code));
    assert_eq!(wrong(r#""min": 0"#), ("scaling.min".to_owned(), code));
    let outside = scaled(r#""min": 3"#).replacen('{', r#"{ "partitions": 2,"#, 1);
    let problems = build(&json(&outside), &Facts::default()).expect_err("it is less than 3");
    assert_eq!((&*problems.list()[0].field, problems.list()[0].code), ("partitions", code));
    let unknown = "pipeline.unknown-stage";
    assert_eq!(wrong(r#""apart": "bb""#), ("scaling.apart".to_owned(), unknown));
    let streams = scaled("").replace(r#""a": { "#, r#""a": { "scope": "stream", "#);
    let problems = build(&json(&streams), &Facts::default()).expect_err("its streams would end");
    assert_eq!(problems.list()[0].code, "pipeline.scaled-streams");
    let logged = streams.replace("best-effort", "exactly-once");
    assert!(build(&json(&logged), &Facts::default()).is_ok());
}

proptest! {
    #[test]
    fn a_valid_declaration_is_checked_and_can_be_written_again(declaration in declarations()) {
        let pipeline = check(&declaration, &Facts::default());
        let pipeline = pipeline.map_err(|p| TestCaseError::fail(p.to_string()))?;
        prop_assert_eq!(&pipeline.declaration(), &declaration);
        for edge in &pipeline.edges {
            prop_assert!(usize::from(edge.port) < pipeline.stages[edge.from].ports.len());
            prop_assert!(usize::from(edge.input) < pipeline.stages[edge.to].inputs.len());
        }
    }
}
