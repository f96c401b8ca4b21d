//! What a diff shows, and what it refuses.

use proptest::prelude::*;

use super::*;
use crate::pipeline::sample::{pipeline, pipelines};

const OLD: &str = r#"{
    "version": 1, "name": "word-count", "delivery": "best-effort", "partitions": 4,
    "ingest": { "to": ["split"] },
    "stages": {
        "split": { "component": "split" },
        "count": { "component": "count", "config": { "greeting": "hi", "mood": "good" } }
    },
    "edges": [ { "from": "split", "to": "count", "key": "emitted" } ],
    "outputs": { "counts": { "from": "count" } }
}"#;

fn changed(old: &str, new: &str) -> Diff {
    assert!(OLD.contains(old), "{old:?} is in the example");
    diff(Some(&pipeline(OLD)), &pipeline(&OLD.replace(old, new)), &BTreeSet::new())
}

fn lines(diff: &Diff) -> Vec<String> {
    diff.changes.iter().map(ToString::to_string).collect()
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let diff = changed("split", "split");
    assert!(diff.is_empty());
    assert!(diff.refused.is_empty());
    assert_eq!(diff.to_string(), "no changes\n");
}

#[test]
fn what_scales_goes_on_at_the_scale_it_has() {
    let scaling = r#""scaling": { "max": 8 }, "partitions": 1"#;
    let text = OLD.replace(r#""partitions": 4"#, scaling);
    let mut runs = pipeline(&text);
    (runs.partitions, runs.scaling.as_mut().expect("it scales").apart) =
        (Some(6), Some("count".to_owned()));
    let next = |text: &str| lines(&diff(Some(&runs), &pipeline(text), &BTreeSet::new()));
    assert_eq!(next(&text), [""; 0], "neither number nor stage is changed by applying it again");
    let fewer = text.replace(r#""max": 8"#, r#""max": 4"#);
    assert_eq!(next(&fewer), ["~ partitions: 6 → 4", "~ scaling.max: 8 → 4"]);
    let fixed = text.replace(r#""scaling": { "max": 8 }, "partitions": 1"#, r#""partitions": 3"#);
    let all = next(&fixed);
    assert!(all.contains(&"~ partitions: 6 → 3".to_owned()), "{all:?}");
    let renamed = text
        .replace("count\"", "tally\"")
        .replace(r#""tally": { "component""#, r#""tally": { "from": "count", "component""#);
    let renamed = renamed.replace("word-tally", "word-count");
    let diff = diff(Some(&runs), &pipeline(&renamed), &BTreeSet::new());
    let mut new = pipeline(&renamed);
    go_on(&runs, &mut new, &diff.handover);
    assert_eq!(new.scaling.and_then(|own| own.apart).as_deref(), Some("tally"));
    assert!(!lines(&diff).iter().any(|line| line.contains("apart")), "{diff}");
}

#[test]
fn a_default_spelled_out_is_no_change() {
    let spelled = r#""from": "split.out", "to": "count.in""#;
    assert!(changed(r#""from": "split", "to": "count""#, spelled).is_empty());
    let spelled = r#""component": "split", "retries": 3, "limits": { "memory": "64MiB" }"#;
    assert!(changed(r#""component": "split""#, spelled).is_empty());
}

#[test]
fn a_changed_field_is_shown_with_both_values() {
    let diff = changed(r#""component": "count""#, r#""component": "count-fast""#);
    assert_eq!(lines(&diff), ["~ stages.count.component: count → count-fast"]);
    let diff = changed(r#""component": "split""#, r#""component": "split", "scope": "key""#);
    assert_eq!(
        lines(&diff),
        ["+ stages.split.limits.instances = 128", "~ stages.split.scope: shared → key"]
    );
    let diff = changed(r#""greeting": "hi", "mood": "good""#, r#""greeting": "ho\u001b[2J""#);
    assert_eq!(
        lines(&diff),
        ["~ stages.count.config.greeting: hi → ho\\u{1b}[2J", "- stages.count.config.mood = good"]
    );
    assert_eq!(diff.changes[1].kind, ChangeKind::Removed);
    assert_eq!(diff.changes[1].before.as_deref(), Some("good"));
}

#[test]
fn stages_edges_and_outputs_come_and_go_whole() {
    let diff = changed(r#""counts": { "from": "count" }"#, r#""words": { "from": "split" }"#);
    let fields: Vec<_> = diff.changes.iter().map(|c| (c.kind, c.field.as_str())).collect();
    assert_eq!(
        fields,
        [(ChangeKind::Removed, "outputs.counts"), (ChangeKind::Added, "outputs.words")]
    );
    let diff = changed(r#""key": "emitted""#, r#""key": "cause""#);
    assert_eq!(lines(&diff), ["~ edges.split.out → count.in.key: emitted → cause"]);
}

#[test]
fn everything_is_new_in_a_new_pipeline() {
    let diff = diff(None, &pipeline(OLD), &BTreeSet::new());
    assert!(diff.changes.iter().all(|c| c.kind == ChangeKind::Added && c.before.is_none()));
    let fields: Vec<_> = diff.changes.iter().map(|c| c.field.as_str()).collect();
    for field in ["stages.count", "stages.split", "edges.split.out → count.in", "partitions"] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
    }
}

#[test]
fn partitions_change_by_a_number_and_stay_without() {
    let diff = changed(r#""partitions": 4,"#, r#""partitions": 8,"#);
    assert!(diff.refused.is_empty(), "{diff}");
    assert_eq!(lines(&diff), ["~ partitions: 4 → 8"]);
    let diff = changed(r#""partitions": 4,"#, "");
    assert!(diff.is_empty() && diff.refused.is_empty(), "{diff}");
}

const RENAMED: &str = r#"{
    "version": 1, "name": "word-count", "delivery": "best-effort", "partitions": 4,
    "ingest": { "to": ["split"] },
    "stages": {
        "split": { "component": "split" },
        "tally": { "component": "count", "from": "count",
                   "config": { "greeting": "hi", "mood": "good" } }
    },
    "edges": [ { "from": "split", "to": "tally", "key": "emitted" } ],
    "outputs": { "counts": { "from": "tally" } }
}"#;

fn exactly_once(text: &str) -> Pipeline {
    pipeline(&text.replace("best-effort", "exactly-once"))
}

fn discarding(old: &str, new: &str, discard: &[&str]) -> Diff {
    let discard = discard.iter().map(|name| (*name).to_owned()).collect();
    diff(Some(&exactly_once(old)), &exactly_once(new), &discard)
}

fn refusals(diff: &Diff) -> Vec<(&str, &str)> {
    diff.refused.list().iter().map(|p| (p.field.as_str(), p.code)).collect()
}

#[test]
fn a_renamed_stage_is_one_change_and_takes_over_what_it_had() {
    let diff = discarding(OLD, RENAMED, &[]);
    assert!(diff.refused.is_empty(), "{diff}");
    assert_eq!(lines(&diff), ["~ stages.tally.name: count → tally"]);
    assert_eq!(diff.handover.heir("count"), Some("tally"));
    assert_eq!(diff.handover.forebear("tally"), Some("count"));
    assert_eq!(diff.handover.heir("split"), Some("split"));
    // The same again: the old name is gone, and nothing changes.
    let again = discarding(RENAMED, RENAMED, &[]);
    assert!(again.is_empty() && again.refused.is_empty(), "{again}");
    let without = discarding(RENAMED, &RENAMED.replace(r#""from": "count","#, ""), &[]);
    assert!(without.is_empty() && without.refused.is_empty(), "{without}");
    let first = diff_of_new(RENAMED);
    assert!(first.refused.is_empty(), "{first}");
}

fn diff_of_new(text: &str) -> Diff {
    diff(None, &exactly_once(text), &BTreeSet::new())
}

#[test]
fn a_former_name_is_one_that_runs_and_goes() {
    let missing = RENAMED.replace(r#""from": "count""#, r#""from": "cuont""#);
    let diff = discarding(OLD, &missing, &[]);
    assert_eq!(
        refusals(&diff),
        [("stages.tally.from", "plan.from"), ("stages.count", "plan.state")]
    );
    assert!(diff.refused.to_string().contains("did you mean \"count\"?"), "{diff}");
    // Both run, and would have to be one.
    let both = OLD.replace(
        r#""split": { "component": "split" },"#,
        r#""split": { "component": "split" }, "tally": { "component": "count" },"#,
    );
    let both = both.replace(r#"["split"]"#, r#"["split", "tally"]"#);
    let diff = discarding(&both, RENAMED, &[]);
    assert!(refusals(&diff).contains(&("stages.tally.from", "plan.from")), "{diff}");
    let diff = discarding(&both, RENAMED, &["count"]);
    assert!(diff.refused.is_empty(), "{diff}");
    assert_eq!(diff.handover.heir("tally"), Some("tally"));
    assert_eq!(diff.handover.heir("count"), None);
}

#[test]
fn state_goes_by_a_word_and_not_without() {
    let gone = OLD.replace("count", "tally").replace("word-tally", "word-count");
    let diff = discarding(OLD, &gone, &[]);
    assert_eq!(refusals(&diff), [("stages.count", "plan.state")]);
    let text = diff.refused.to_string();
    assert!(text.contains("from = \"count\"") && text.contains("--discard-state count"), "{text}");
    let diff = discarding(OLD, &gone, &["count"]);
    assert!(diff.refused.is_empty(), "{diff}");
    assert_eq!(lines(&diff)[0], "~ stages.count.state: kept → discarded");
    assert_eq!(diff.handover.heir("count"), None);
    // A stage that stays begins anew, and that alone is a change.
    let diff = discarding(OLD, OLD, &["count"]);
    assert_eq!(lines(&diff), ["~ stages.count.state: kept → discarded"]);
    assert_eq!(diff.handover.forebear("count"), None);
    for (new, name) in [(OLD, "cuont"), (RENAMED, "count")] {
        let diff = discarding(OLD, new, &[name]);
        assert_eq!(refusals(&diff), [("discard-state", "plan.discard")], "{diff}");
    }
}

#[test]
fn another_name_is_another_pipeline() {
    let diff = changed(r#""name": "word-count""#, r#""name": "words""#);
    assert_eq!(diff.refused.list()[0].code, "plan.name");
}

proptest! {
    #[test]
    fn a_pipeline_does_not_differ_from_itself_whatever_the_order_of_its_edges(
        old in pipelines(), turn in 0_usize..8,
    ) {
        let mut new = old.clone();
        let by = turn.min(new.edges.len());
        new.edges.rotate_left(by);
        prop_assert!(diff(Some(&old), &new, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn pipelines_that_differ_have_a_diff(old in pipelines(), new in pipelines()) {
        let mut sorted = (old.declaration(), new.declaration());
        // What a stage was called before is no part of what it is.
        let stages = sorted.0.stages.values_mut().chain(sorted.1.stages.values_mut());
        stages.for_each(|stage| stage.from = None);
        sorted.1.partitions = sorted.1.partitions.or(sorted.0.partitions);
        sorted.0.edges.sort_by_key(|e| (e.from.clone(), e.to.clone()));
        sorted.1.edges.sort_by_key(|e| (e.from.clone(), e.to.clone()));
        let diff = diff(Some(&old), &new, &BTreeSet::new());
        prop_assert_eq!(diff.is_empty(), sorted.0 == sorted.1);
    }
}
