//! The tutorials of every first-class language, done word for word through the real program.
//!
//! Toolchains are those of `cargo xtask guests`, which installs them below `target/guests`; without
//! them a tutorial's own `--install` would fetch them.

use std::fs;

use sluicebox_tests::{root, tutorial};

fn is_done(language: &str) {
    tutorial::is_done(&root().join(format!("docs/tutorial/{language}.md")));
}

#[test]
fn the_tutorial_for_rust_does_what_it_says() {
    is_done("rust");
}

#[test]
fn the_tutorial_for_python_does_what_it_says() {
    is_done("python");
}

#[test]
fn the_tutorial_for_javascript_does_what_it_says() {
    is_done("javascript");
}

#[test]
fn the_tutorial_for_go_does_what_it_says() {
    is_done("go");
}

#[test]
fn the_tutorial_for_c_does_what_it_says() {
    is_done("c");
}

#[test]
fn every_tutorial_is_done_here() {
    let pages = fs::read_dir(root().join("docs/tutorial")).expect("they are in docs");
    let mut names: Vec<_> = pages.map(|page| page.expect("it can be read").file_name()).collect();
    names.sort();
    assert_eq!(names, ["c.md", "go.md", "javascript.md", "python.md", "rust.md"]);
}
