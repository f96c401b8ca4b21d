//! Properties of the source itself: what a reader may rely on in every file of the repository.
//!
//! - Each test is one property, and says with every complaint the file, the line and the rule.
//! - Each check is a function of text, tried at the bottom of its file on text that breaks the
//!   rule, so that a check that sees nothing any more is found out.
//! - Nothing is built and no program is started: all of it together takes well under a second.
//!
//! What the rules are for is in `docs/STYLE.md`; who may import whom, in `docs/ARCHITECTURE.md`.

#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tree.rs"]
mod tree;

use tree::{File, Tree};

/// Runs a check on every Rust file.
fn each_rust_file(check: impl Fn(&File) -> Vec<String>) -> Vec<String> {
    Tree::of_repository().rust().flat_map(check).collect()
}

/// Fails with all complaints at once.
#[track_caller]
fn expect_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_file_opens_with_its_module_doc() {
    expect_none(&each_rust_file(source::module_doc));
}

#[test]
fn no_line_is_longer_than_a_hundred() {
    expect_none(&each_rust_file(source::line_length));
}

#[test]
fn no_file_is_too_long() {
    expect_none(&each_rust_file(source::file_length));
}

#[test]
fn modules_are_files_of_their_own_name() {
    expect_none(&each_rust_file(source::module_file));
}

#[test]
fn imports_name_what_they_take() {
    expect_none(&each_rust_file(source::glob_imports));
}

#[test]
fn unsafe_code_is_only_where_it_is_expected() {
    expect_none(&each_rust_file(source::unsafe_code));
}

#[test]
fn names_use_the_words_of_the_glossary() {
    expect_none(&each_rust_file(source::names));
}

#[test]
fn no_unfinished_work_is_left() {
    expect_none(&each_rust_file(source::unfinished));
}

#[test]
fn crates_import_only_those_below_them() {
    expect_none(&crates::edges(Tree::of_repository()));
}

#[test]
fn every_dependency_has_its_home() {
    expect_none(&crates::homes(Tree::of_repository()));
}

#[test]
fn every_crate_takes_part_in_the_lints() {
    expect_none(&crates::lints(Tree::of_repository()));
}

#[test]
fn packages_are_named_after_their_folders() {
    expect_none(&crates::names(Tree::of_repository()));
}

#[test]
fn every_error_code_is_documented_and_every_documented_code_exists() {
    expect_none(&docs::error_codes(Tree::of_repository()));
}

#[test]
fn every_exit_code_is_documented() {
    expect_none(&docs::exit_codes(Tree::of_repository()));
}

#[test]
fn the_architecture_names_every_folder_and_no_other() {
    expect_none(&docs::architecture(Tree::of_repository()));
}

#[test]
fn commands_in_documents_exist() {
    expect_none(&docs::commands(Tree::of_repository()));
}

#[test]
fn links_between_documents_lead_somewhere() {
    expect_none(&docs::links(Tree::of_repository()));
}

#[test]
fn every_document_is_in_the_list_of_documents() {
    expect_none(&docs::listed(Tree::of_repository()));
}

#[test]
fn decision_records_are_numbered_and_complete() {
    expect_none(&docs::decisions(Tree::of_repository()));
}

#[test]
fn nothing_points_at_one_machine() {
    expect_none(&docs::machine_traces(Tree::of_repository()));
}
