//! What holds for every Rust file: its doc, its size, its names, its imports.

use super::lexer::{only_code, without_texts};
use super::tree::File;

/// Characters in a line.
const LINE_CHARS_MAX: usize = 100;
/// The same if part of it is a text, which cannot always be broken.
const TEXT_LINE_CHARS_MAX: usize = 140;
/// Lines of a file without its tests.
const CODE_LINES_MAX: usize = 500;
/// Lines of a file with them.
const FILE_LINES_MAX: usize = 800;
/// Files with a limit of their own. The machine is where every branch would like to go.
const OWN_LINES_MAX: [(&str, usize); 1] = [("runtime/core/src/partition.rs", 300)];

/// Where unsafe code may be, and for what.
const UNSAFE_FILES: [&str; 5] = [
    // Loading code that this node compiled and sealed.
    "runtime/engine/src/artefact.rs",
    // Advice to the kernel about memory.
    "runtime/engine/src/huge_pages.rs",
    // Memory that two processes share.
    "runtime/link/src/ring/raw.rs",
    // Made by the bindings generator, or expanding to what it makes.
    "guest-sdk/src/__private/bindings.rs",
    "guest-sdk/macros/src/lib.rs",
];

/// Folder whose files may have unsafe code: calls of Vulkan, each with why it is right.
const UNSAFE_FOLDER: &str = "gpu-host/src/vulkan/";

/// Words that are wrong everywhere as a name; what to say instead is in the glossary.
const FORBIDDEN: [&str; 11] = [
    "topic",
    "shard",
    "operator",
    "topology",
    "savepoint",
    "namespace",
    "lsn",
    "manager",
    "helper",
    "util",
    "epoch",
];

/// Files whose struct fields are flags or settings, so that they are names for users.
const FLAG_FILES: [&str; 5] = [
    "runtime/cli/src/args.rs",
    "runtime/cli/src/args/node.rs",
    "runtime/cli/src/args/project.rs",
    "runtime/cli/src/args/traffic.rs",
    "runtime/node/src/config.rs",
];

/// Files in which the first text of a row is the name of a metric.
const METRIC_FILE: &str = "runtime/node/src/metrics.rs";

/// A file says what it is before anything else.
pub(crate) fn module_doc(file: &File) -> Vec<String> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{}: begin with `//!` and one sentence that says what this is", file.path)]
}

/// Lines fit a screen cut in two.
pub(crate) fn line_length(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    // Comments stay, so that a line differs only where it has a text.
    let without_texts = without_texts(&file.text);
    for (at, (line, bare)) in file.text.lines().zip(without_texts.lines()).enumerate() {
        let most = if line == bare { LINE_CHARS_MAX } else { TEXT_LINE_CHARS_MAX };
        if line.chars().count() > most {
            complaints.push(format!("{}:{}: longer than {most}", file.path, at + 1));
        }
    }
    complaints
}

/// A file is read in one sitting.
pub(crate) fn file_length(file: &File) -> Vec<String> {
    let all = file.text.lines().count();
    let code = file.code().lines().count();
    let own = OWN_LINES_MAX.iter().find(|(path, _)| *path == file.path);
    let most = own.map_or(CODE_LINES_MAX, |(_, most)| *most);
    let mut complaints = Vec::new();
    if code > most {
        complaints.push(format!("{}: {code} lines without tests, at most {most}", file.path));
    }
    if all > FILE_LINES_MAX {
        complaints.push(format!("{}: {all} lines, at most {FILE_LINES_MAX}", file.path));
    }
    complaints
}

/// `foo.rs` beside a folder `foo`, so that no two tabs have the same name.
pub(crate) fn module_file(file: &File) -> Vec<String> {
    let wrong = file.path.ends_with("/mod.rs");
    wrong
        .then(|| format!("{}: name it after its folder, beside it", file.path))
        .into_iter()
        .collect()
}

/// Who reads `Frame` finds out where it comes from. Tests may take all of what they test.
pub(crate) fn glob_imports(file: &File) -> Vec<String> {
    let code = only_code(&file.text);
    let mut complaints = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let line = line.trim();
        let is_import = line.starts_with("use ") || line.starts_with("pub use ");
        let in_tests = line == "use super::*;" || line == "use proptest::prelude::*;";
        if is_import && line.contains('*') && !in_tests {
            complaints.push(format!("{}:{}: import by name, not with `*`", file.path, at + 1));
        }
    }
    complaints
}

/// Safe Rust, but for the places that are listed.
pub(crate) fn unsafe_code(file: &File) -> Vec<String> {
    if UNSAFE_FILES.contains(&file.path.as_str()) || file.path.starts_with(UNSAFE_FOLDER) {
        return Vec::new();
    }
    let code = only_code(&file.text);
    let is_unsafe = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    let lines = code.lines().enumerate().filter(|(_, line)| is_unsafe(line));
    lines
        .map(|(at, _)| {
            format!("{}:{}: unsafe code; tests/tidy/source.rs lists who may", file.path, at + 1)
        })
        .collect()
}

/// One word for one idea, and none that means everything.
pub(crate) fn names(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    let stem = file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs"));
    for name in stem.into_iter().filter(|name| is_forbidden(name)) {
        complaints.push(format!("{}: `{name}` is no name for a file", file.path));
    }
    let code = only_code(&file.text);
    let is_flags = FLAG_FILES.contains(&file.path.as_str());
    for (at, line) in code.lines().enumerate() {
        let field = is_flags.then(|| field_of(line)).flatten();
        for name in type_of(line).into_iter().chain(field).filter(|name| is_forbidden(name)) {
            complaints.push(format!(
                "{}:{}: `{name}` uses a word of the wrong list",
                file.path,
                at + 1
            ));
        }
    }
    if file.path == METRIC_FILE {
        let rows = file.text.match_indices("Row::").map(|(at, _)| &file.text[at..]);
        let names = rows.filter_map(|row| row.split('"').nth(1));
        for name in names.filter(|name| is_forbidden(name)) {
            complaints
                .push(format!("{}: metric `{name}` uses a word of the wrong list", file.path));
        }
    }
    complaints
}

/// Nothing is promised for later in the code.
pub(crate) fn unfinished(file: &File) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X:"].concat()];
    let mut complaints = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        let open =
            marks.iter().any(|mark| line.contains(mark.as_str()) && !line.contains(" when "));
        if open {
            let rule = "do it, or say when it can be done (`… when …`)";
            complaints.push(format!("{}:{}: {rule}", file.path, at + 1));
        }
    }
    complaints
}

/// The name a line declares as a type, trait or module.
fn type_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let kind = words.next()?;
    let declares = ["struct", "enum", "trait", "type", "mod", "union"].contains(&kind);
    let name = words.next().filter(|_| declares)?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// The field a line declares.
fn field_of(line: &str) -> Option<&str> {
    let (name, _) = line.trim().split_once(": ")?;
    name.rsplit(' ').next()
}

fn is_forbidden(name: &str) -> bool {
    words_of(name).any(|word| {
        let singular = word.strip_suffix('s').unwrap_or(&word);
        FORBIDDEN.contains(&word.as_str()) || FORBIDDEN.contains(&singular)
    })
}

/// The words of a name or a line in small letters: `HttpServer` and `http_server` have two.
fn words_of(name: &str) -> impl Iterator<Item = String> {
    let mut words: Vec<String> = Vec::new();
    let mut before_is_small = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            words.push(String::new());
        } else if words.is_empty() || (c.is_uppercase() && before_is_small) {
            words.push(c.to_lowercase().collect());
        } else if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
        before_is_small = c.is_lowercase();
    }
    words.into_iter().filter(|word| !word.is_empty())
}

#[test]
fn a_file_that_breaks_a_rule_is_seen() {
    let file = |text: &str| File::sample("runtime/core/src/x.rs", text);
    assert_eq!(module_doc(&file("use a;")).len(), 1);
    assert_eq!(module_doc(&file("//! What it is.")), [""; 0]);
    assert_eq!(line_length(&file(&"ä".repeat(101))).len(), 1);
    assert_eq!(line_length(&file(&"ä".repeat(100))), [""; 0]);
    let text = |length| format!("x(\"{}\");", "y".repeat(length));
    assert_eq!(line_length(&file(&text(100))), [""; 0]);
    assert_eq!(line_length(&file(&text(140))).len(), 1);
    assert_eq!(module_file(&File::sample("a/mod.rs", "")).len(), 1);
    assert_eq!(glob_imports(&file("use a::*;\npub use b::{c, *};\nuse super::*;")).len(), 2);
    assert_eq!(unsafe_code(&file("let x = unsafe { y };")).len(), 1);
    assert_eq!(unsafe_code(&file("// unsafe\nlet x = \"unsafe\"; unsafe_code()")), [""; 0]);
    let mark = ["TO", "DO"].concat();
    assert_eq!(unfinished(&file(&format!("// {mark}: later"))).len(), 1);
    assert_eq!(unfinished(&file(&format!("// {mark} when the engine offers it"))), [""; 0]);
}

#[test]
fn length_counts_code_and_tests_apart() {
    let code = "let x = 1;\n".repeat(CODE_LINES_MAX);
    let with_tests = format!("{code}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "x();\n".repeat(100));
    assert_eq!(file_length(&File::sample("runtime/x.rs", &code)), [""; 0]);
    assert_eq!(file_length(&File::sample("runtime/x.rs", &format!("{code}x"))).len(), 1);
    assert_eq!(file_length(&File::sample("runtime/x.rs", &with_tests)).len(), 1);
    let tests = "x();\n".repeat(FILE_LINES_MAX);
    assert_eq!(file_length(&File::sample("runtime/x/tests.rs", &tests)), [""; 0]);
    assert_eq!(file_length(&File::sample("runtime/x/tests.rs", &format!("{tests}x"))).len(), 1);
    let machine = "x();\n".repeat(301);
    assert_eq!(file_length(&File::sample(OWN_LINES_MAX[0].0, &machine)).len(), 1);
}

#[test]
fn a_wrong_word_is_seen_in_every_sort_of_name() {
    let names_in = |path: &str, text: &str| names(&File::sample(path, text)).len();
    assert_eq!(names_in("a/b.rs", "pub(crate) struct StreamManager;\nenum Shards {}"), 2);
    assert_eq!(names_in("a/b.rs", "struct Utilisation; // a topic\nlet shard = 1;"), 0);
    assert_eq!(names_in("a/string_util.rs", ""), 1);
    assert_eq!(names_in(FLAG_FILES[0], "    pub(crate) topic: String,"), 1);
    assert_eq!(names_in(METRIC_FILE, "Row::gauge(\"shard_bytes\", \"Help\", |m| 1)"), 1);
    assert_eq!(names_in(METRIC_FILE, "Row::gauge(\n\"bytes\", \"Of a shard\", |m| 1)"), 0);
}
