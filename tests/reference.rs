//! The references in `docs/reference`, and the tables of `docs/guide/limits.md`: made of what the
//! program is, and the same as what is published.
//!
//! - A page is a function of its source: the schema of manifests, the declared settings, the help
//!   of the real program, the description of the HTTP interface, the files of `wit`, the limits in
//!   the source. Nothing is listed here that the source lists: what is new there is on the page.
//! - A page that differs fails with its first line that does. `cargo xtask docs` writes all pages,
//!   which sets `SLUICEBOX_BLESS` for this test.

#[path = "reference/cli.rs"]
mod cli;
#[path = "reference/configuration.rs"]
mod configuration;
#[path = "reference/http.rs"]
mod http;
#[path = "reference/limits.rs"]
mod limits;
#[path = "reference/manifest.rs"]
mod manifest;
#[path = "reference/wit.rs"]
mod wit;

use std::fs;

use serde_json::Value;
use sluicebox_tests::root;

/// Stands below the heading of each page.
const MADE: &str = "<!-- Made by `cargo xtask docs`; a test holds it against the source. -->";

/// A file of the repository.
fn file(path: &str) -> String {
    let read = fs::read_to_string(root().join(path));
    read.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A document of the repository, which has a test of its own that it is what the source says.
fn document(path: &str) -> Value {
    serde_json::from_str(&file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Text as a cell of a table has it, on one line.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Text as code in a cell.
fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

/// Holds a page against what is published; writes it if that was asked for.
#[track_caller]
fn is_published(path: &str, now: &str) {
    if std::env::var_os("SLUICEBOX_BLESS").is_some() {
        fs::write(root().join(path), now).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let published = fs::read_to_string(root().join(path)).unwrap_or_default();
    if published == now {
        return;
    }
    let differs = now.lines().zip(published.lines()).position(|(now, before)| now != before);
    let at = differs.unwrap_or_else(|| now.lines().count().min(published.lines().count()));
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
    panic!(
        "{path} is not what the source says; `cargo xtask docs` writes it anew\n\
         line {}, published: {}\n     the source says: {}",
        at + 1,
        line(&published),
        line(now)
    );
}

#[test]
fn the_reference_of_manifests_is_that_of_their_schema() {
    let schema = document("docs/manifest.schema.json");
    is_published("docs/reference/manifest.md", &manifest::page(&schema));
}

#[test]
fn the_reference_of_the_configuration_is_that_of_the_settings() {
    is_published("docs/reference/configuration.md", &configuration::page());
}

#[test]
fn every_variable_of_the_environment_is_in_the_reference() {
    let page = configuration::page();
    let missing: Vec<_> = configuration::variables_in_the_source()
        .into_iter()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "no row in tests/reference/configuration.rs: {missing:?}");
}

#[test]
fn the_reference_of_the_command_is_its_help() {
    is_published("docs/reference/cli.md", &cli::page());
}

#[test]
fn the_reference_of_the_http_interface_is_its_description() {
    let description = document("docs/openapi.json");
    is_published("docs/reference/http.md", &http::page(&description));
}

#[test]
fn the_reference_of_the_contract_is_that_of_its_files() {
    is_published("docs/reference/wit.md", &wit::page());
}

#[test]
fn the_tables_of_limits_are_those_of_the_source() {
    let path = "docs/guide/limits.md";
    is_published(path, &limits::with_tables(&file(path)));
}
