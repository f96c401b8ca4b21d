//! Texts of manifests, good, bad and hostile.

use sluicebox_core::manifest::read;
use sluicebox_core::pipeline::{Facts, build};

use super::*;

const WORD_COUNT: &str = r#"
version = 1
name = "word-count"
delivery = "best-effort"
partitions = 4

[ingest]
to = ["split"]
key = "/user"

[stages.split]
component = "split"
ports = ["words"]

[stages.count]
component = "count"
on-failure = "dead-letter"
retries = 3
config = { greeting = "hi" }
limits = { memory = "64MiB", fuel-per-event = 1_000_000 }

[[edges]]
from = "split.words"
to = "count"
key = "emitted"

[outputs.counts]
from = "count"
"#;

fn toml(text: &str) -> Result<Value, Problems> {
    parse(text.as_bytes(), Format::Toml)
}

fn json(text: &str) -> Result<Value, Problems> {
    parse(text.as_bytes(), Format::Json)
}

fn only(result: Result<Value, Problems>) -> Problem {
    let problems = result.expect_err("the text is wrong");
    let [one] = problems.list() else { panic!("expected one problem:\n{problems}") };
    one.clone()
}

#[test]
fn the_same_manifest_in_both_languages_is_the_same_pipeline() {
    let from_toml = toml(WORD_COUNT).expect("the example is TOML");
    let from_json = json(&from_toml.to_json()).expect("the canonical text is JSON");
    assert_eq!(from_toml, from_json);
    let pipeline = build(&from_toml, &Facts::default()).unwrap_or_else(|p| panic!("{p}"));
    let canonical = pipeline.declaration().write().to_json();
    let again = json(&canonical).expect("the canonical text is JSON");
    let again = build(&again, &Facts::default()).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(again, pipeline);
    assert_eq!(again.declaration().write().to_json(), canonical);
}

#[test]
fn the_language_is_told_by_type_name_and_text() {
    assert_eq!(Format::of_content_type("application/JSON; charset=utf-8"), Some(Format::Json));
    assert_eq!(Format::of_content_type("application/toml"), Some(Format::Toml));
    assert_eq!(Format::of_content_type("text/plain"), None);
    assert_eq!(Format::of_file_name("a.b/pipeline.TOML"), Some(Format::Toml));
    assert_eq!(Format::of_file_name("pipeline.json"), Some(Format::Json));
    assert_eq!(Format::of_file_name("pipeline"), None);
    assert_eq!(Format::of_text(b"\n  {\"version\": 1}"), Format::Json);
    assert_eq!(Format::of_text("\u{feff}{".as_bytes()), Format::Json);
    assert_eq!(Format::of_text(b"version = 1"), Format::Toml);
    assert_eq!(Format::of_text(b""), Format::Toml);
}

#[test]
fn every_mistake_of_toml_is_told_with_line_and_column() {
    let problems = toml("version = 1\nname = \"a\ndelivery = \n[stages.x\n").expect_err("broken");
    let fields: Vec<&str> = problems.list().iter().map(|p| p.field.as_str()).collect();
    for line in ["line 2, ", "line 3, ", "line 4, "] {
        assert!(fields.iter().any(|field| field.starts_with(line)), "{line} is not in\n{problems}");
    }
    assert!(problems.list().iter().all(|p| p.code == "manifest.syntax"), "{problems}");
}

#[test]
fn columns_count_characters() {
    let problem = only(toml("name = \"ü\" x"));
    assert_eq!(problem.field, "line 1, column 12");
}

#[test]
fn a_mistake_of_json_is_told_with_line_and_column() {
    let problem = only(json("{\n  \"version\": 1,\n  \"name\" \"a\"\n}"));
    assert_eq!((problem.field.as_str(), problem.code), ("line 3, column 10", "manifest.syntax"));
    assert_eq!(problem.message, "expected `:`");
    let problem = only(json("{} {}"));
    assert_eq!(
        (problem.message.as_str(), problem.code),
        ("trailing characters", "manifest.syntax")
    );
    let problem = only(json(""));
    assert_eq!(problem.field, "line 1, column 1");
}

#[test]
fn a_name_given_twice_is_refused() {
    let problem = only(toml("name = \"a\"\nname = \"b\"\n"));
    assert_eq!((problem.field.as_str(), problem.code), ("line 2, column 1", "manifest.duplicate"));
    let problem = only(toml("[stages.a]\nx = 1\n[stages.a]\ny = 1\n"));
    assert_eq!(problem.code, "manifest.duplicate");
    let problems = json(r#"{ "a": 1, "a": 2, "b": [{ "c": 1, "c": 1 }] }"#).expect_err("twice");
    let fields: Vec<&str> = problems.list().iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["a", "b[0].c"]);
}

#[test]
fn nesting_is_bounded_in_both_languages() {
    let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(toml(&format!("x = {}", arrays(16))).is_ok());
    assert!(json(&format!("{{\"x\": {}}}", arrays(16))).is_ok());
    assert_eq!(only(toml(&format!("x = {}", arrays(17)))).code, "manifest.depth");
    assert_eq!(only(json(&format!("{{\"x\": {}}}", arrays(17)))).code, "manifest.depth");
    for depth in [70, 80, 1000, 100_000] {
        assert!(toml(&format!("x = {}", arrays(depth))).is_err());
        assert!(json(&format!("{{\"x\": {}}}", arrays(depth))).is_err());
        assert!(json(&"[".repeat(depth)).is_err());
        assert!(json(&"{\"a\":".repeat(depth)).is_err());
        assert!(toml(&format!("x = {}", "[".repeat(depth))).is_err());
        assert!(toml(&format!("x = {}", "{a=".repeat(depth / 2))).is_err());
        assert!(toml(&format!("{}a = 1", "a.".repeat(depth))).is_err());
        assert!(toml(&format!("[{}a]", "a.".repeat(depth))).is_err());
        assert!(toml(&format!("[[{}a]]", "a.".repeat(depth))).is_err());
    }
}

#[test]
fn text_that_is_too_large_is_not_parsed() {
    let text = " ".repeat(bounds::TEXT_BYTES_MAX + 1);
    assert_eq!(only(toml(&text)).code, "manifest.too-large");
    assert_eq!(only(json(&text)).code, "manifest.too-large");
    assert!(toml(&text[1..]).is_ok());
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    let problem = only(parse(b"version = 1\nname = \"\xff\"", Format::Toml));
    assert_eq!((problem.field.as_str(), problem.code), ("line 2, column 9", "manifest.encoding"));
}

#[test]
fn a_byte_order_mark_is_no_mistake() {
    assert!(toml(&format!("\u{feff}{}", WORD_COUNT.trim_start())).is_ok());
    assert!(json("\u{feff}{}").is_ok());
}

#[test]
fn numbers_no_field_takes_are_kept_for_the_message() {
    let manifest = toml("a = 1.5\nb = inf\nc = 2026-11-20\nd = 99999999999999999999\ne = 0xff");
    let manifest = manifest.unwrap_or_else(|p| panic!("{p}"));
    let member = |name: &str| manifest.as_table().and_then(|t| t.get(name)).cloned();
    assert_eq!(member("a"), Some(Value::Float("1.5".to_owned())));
    assert_eq!(member("b"), Some(Value::Float("inf".to_owned())));
    assert_eq!(member("c"), Some(Value::Date("2026-11-20".to_owned())));
    assert_eq!(member("d"), Some(Value::Float("99999999999999999999".to_owned())));
    assert_eq!(member("e"), Some(Value::Integer(255)));
    let manifest = json(r#"{ "a": 1.5, "b": 18446744073709551615, "c": 1e400 }"#);
    assert_eq!(only(manifest).code, "manifest.syntax");
    let manifest =
        json(r#"{ "partitions": 18446744073709551615 }"#).unwrap_or_else(|p| panic!("{p}"));
    let problems = read(&manifest).1;
    let partitions = problems.list().iter().find(|p| p.field == "partitions").expect("told");
    assert_eq!(partitions.code, "manifest.type");
}

#[test]
fn a_text_full_of_mistakes_gives_a_short_answer() {
    let text = "= = = \u{1b}[2J\n".repeat(20_000);
    let problems = toml(&text).expect_err("broken");
    assert!(problems.list().len() <= SYNTAX_PROBLEMS_MAX);
    assert!(problems.to_string().len() < 8_000, "{problems}");
    assert!(!problems.to_string().contains('\u{1b}'));
}

#[test]
fn the_manifests_of_the_examples_are_valid() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut seen = 0;
    for folder in std::fs::read_dir(examples).expect("the examples are there").flatten() {
        let path = folder.path().join("pipeline.toml");
        let Ok(text) = std::fs::read(&path) else { continue };
        let manifest = parse(&text, Format::Toml);
        let manifest = manifest.unwrap_or_else(|p| panic!("{}:\n{p}", path.display()));
        if let Err(problems) = build(&manifest, &Facts::default()) {
            panic!("{}:\n{problems}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 0, "no example has a pipeline.toml");
}

#[test]
fn the_manifest_in_the_guide_is_valid() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/pipelines.md");
    let guide = std::fs::read_to_string(guide).expect("the guide is there");
    let blocks: Vec<&str> = guide.split("```toml\n").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let (text, _) = block.split_once("```").expect("a block ends");
        let manifest = toml(text).unwrap_or_else(|p| panic!("{p}"));
        build(&manifest, &Facts::default()).unwrap_or_else(|p| panic!("{p}"));
    }
}
