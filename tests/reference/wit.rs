//! `docs/reference/wit.md`, from the files of `wit`: each item with what is said above it.
//!
//! The files are cut by their lines: they are ours, formatted, with one item a line or one in
//! braces. What is cut is shown as it stands, so the page cannot say another type than the file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sluicebox_tests::root;

use super::{MADE, file};

/// The page.
pub(super) fn page() -> String {
    let mut out = format!(
        "# Contract reference\n\n{MADE}\n\nEverything a stage may import and has to export, from \
         [wit](../../wit/README.md), which also says what may change in it. How events lie in a \
         frame: [FRAME.md](../../wit/FRAME.md). SDKs hide all of this: \
         [stages](../guide/stages.md).\n"
    );
    for path in files() {
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy();
        out.push_str(&of_file(&file(&name), &name));
    }
    out
}

/// The files, those of the package itself first.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    gather(&root().join("wit"), &mut found);
    found.sort_by_key(|path| (path.components().count(), path.clone()));
    found
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "wit") {
            found.push(path);
        }
    }
}

/// An item of a file or of an interface: what is said of it, and its lines.
struct Item<'a> {
    about: Vec<&'a str>,
    lines: Vec<&'a str>,
}

/// The items of some lines, which lie at no depth.
fn items<'a>(lines: &[&'a str]) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    let (mut about, mut open) = (Vec::new(), Vec::new());
    let mut depth = 0;
    for line in lines.iter().copied() {
        let text = line.trim();
        if let Some(said) = text.strip_prefix("///").filter(|_| depth == 0) {
            about.push(said.trim());
            continue;
        }
        if text.is_empty() && depth == 0 && open.is_empty() {
            continue;
        }
        let code = text.split("//").next().unwrap_or_default();
        depth += code.matches('{').count();
        depth = depth.checked_sub(code.matches('}').count()).expect("braces are in pairs");
        open.push(line);
        if depth == 0 && (code.ends_with(';') || code.ends_with('}')) {
            let (about, lines) = (std::mem::take(&mut about), std::mem::take(&mut open));
            items.push(Item { about, lines });
        }
    }
    assert!(depth == 0 && open.is_empty(), "an item without an end: {open:?}");
    items
}

fn of_file(text: &str, path: &str) -> String {
    let mut out = String::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut package = "";
    for item in items(&lines) {
        let head = item.lines.first().copied().unwrap_or_default();
        if let Some(name) = head.strip_prefix("package ") {
            package = name.trim_end_matches(';');
            continue;
        }
        let title = head.trim_end_matches(['{', '}', ' ']);
        write!(out, "\n## `{title}`\n\n").expect("to a text");
        if !item.about.is_empty() {
            write!(out, "{}\n\n", item.about.join("\n")).expect("to a text");
        }
        writeln!(out, "Of `{package}`, in [{path}](../../{path}).").expect("to a text");
        if head.starts_with("interface ") && item.lines.len() > 2 {
            let inside = &item.lines[1..item.lines.len() - 1];
            items(inside).iter().for_each(|item| within(&mut out, item));
        } else {
            write!(out, "\n```wit\n{}\n```\n", item.lines.join("\n")).expect("to a text");
        }
    }
    out
}

/// An item of an interface.
fn within(out: &mut String, item: &Item<'_>) {
    let head = item.lines.first().map_or("", |line| line.trim());
    let name = head.split([':', '{', '=', ';']).next().unwrap_or(head).trim_end();
    write!(out, "\n### `{name}`\n\n").expect("to a text");
    if !item.about.is_empty() {
        write!(out, "{}\n\n", item.about.join("\n")).expect("to a text");
    }
    let lines = item.lines.iter().map(|line| line.strip_prefix("    ").unwrap_or(line));
    write!(out, "```wit\n{}\n```\n", lines.collect::<Vec<_>>().join("\n")).expect("to a text");
}

#[test]
fn each_item_is_cut_out_with_what_is_said_of_it() {
    let text = "package a:b@1.0.0;\n\n/// About x,\n/// more.\ninterface x {\n    /// A kind.\n    \
                enum kind {\n        /// One.\n        one,\n    }\n\n    /// Does.\n    \
                f: func(a: u32)\n        -> u32;\n}\n\nworld w {\n    import x;\n}\n";
    let page = of_file(text, "wit/x.wit");
    assert!(page.contains("## `interface x`\n\nAbout x,\nmore.\n\nOf `a:b@1.0.0`"), "{page}");
    let kind = "### `enum kind`\n\nA kind.\n\n```wit\nenum kind {\n    /// One.\n    one,\n}\n```";
    assert!(page.contains(kind), "{page}");
    let f = "### `f`\n\nDoes.\n\n```wit\nf: func(a: u32)\n    -> u32;\n```";
    assert!(page.contains(f), "{page}");
    assert!(page.contains("## `world w`"), "{page}");
}
