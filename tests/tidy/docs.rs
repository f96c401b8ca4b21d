//! What the documents say, held against the source: codes, folders, links, decisions.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::texts;
use super::tree::{File, Tree};

const ERRORS: &str = "docs/guide/errors.md";
const ARGS: &str = "runtime/cli/src/args.rs";
const XTASK: &str = "xtask/src/main.rs";
const MANIFEST_GUIDE: &str = "docs/guide/pipelines.md";
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const ADR: &str = "docs/adr/";
const DOCUMENTS: &str = "docs/README.md";

/// Beginnings of codes that are written where the mistake is found, by folder. The others stand in
/// a function `code`.
const CODES_IN_PLACE: [(&str, &[&str]); 4] = [
    ("runtime/core/", &["manifest.", "pipeline.", "plan.", "stream.", "park.", "commit."]),
    ("runtime/node/src/http/", &["ingest.", "request.", "route.", "output.", "stream."]),
    ("runtime/node/", &["manifest.", "pipeline.", "tenants.", "connector."]),
    ("runtime/cli/", &["client.", "manifest.", "oci.", "tenants."]),
];

/// Sections every decision record has.
const ADR_SECTIONS: [&str; 4] =
    ["## Context", "## Decision", "## Consequences", "## What would change our mind"];

/// Codes in the source and codes in the guide are the same.
pub(crate) fn error_codes(tree: &Tree) -> Vec<String> {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let ours = ["runtime/", "gpu-host/"];
    for file in tree.rust().filter(|file| ours.iter().any(|at| file.path.starts_with(at))) {
        known.extend(codes_of(file).into_iter().map(|code| (code, file.path.as_str())));
    }
    let documented = first_column(tree.text(ERRORS), is_code);
    let in_manifest_guide = first_column(tree.text(MANIFEST_GUIDE), is_code);
    let mut complaints = Vec::new();
    for (code, path) in &known {
        if !documented.contains(code) {
            complaints.push(format!("{path}: the code `{code}` is not in {ERRORS}"));
        }
    }
    for (guide, codes) in [(ERRORS, documented), (MANIFEST_GUIDE, in_manifest_guide)] {
        for code in codes.iter().filter(|code| !known.contains_key(**code)) {
            complaints.push(format!("{guide}: no source has the code `{code}`"));
        }
    }
    complaints
}

/// The codes a file can give.
fn codes_of(file: &File) -> BTreeSet<&str> {
    let code = file.code();
    let mut codes = BTreeSet::new();
    for (at, _) in code.match_indices("fn code(&self) -> &'static str {") {
        let body = &code[at..];
        let end = body.find("\n    }\n").unwrap_or(body.len());
        codes.extend(texts(&body[..end]).filter(|text| is_code(text)));
    }
    let starts: Vec<&str> = CODES_IN_PLACE
        .iter()
        .filter(|(folder, _)| file.path.starts_with(folder))
        .flat_map(|(_, starts)| starts.iter().copied())
        .collect();
    let in_place =
        |text: &&str| is_code(text) && starts.iter().any(|start| text.starts_with(start));
    codes.extend(texts(code).filter(in_place));
    codes
}

/// `word.words-of-more`; a name of a file looks alike and is none.
fn is_code(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match text.split_once('.') {
        Some((first, rest)) => part(first) && part(rest) && !["toml", "js", "css"].contains(&rest),
        None => text == "internal",
    }
}

/// The first cells of a document's tables, where they are of a sort.
fn first_column(document: &str, is: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" |").next());
    cells.map(|cell| cell.trim().trim_matches('`')).filter(|cell| is(cell)).collect()
}

/// The exit codes of the command and those in the guide are the same.
pub(crate) fn exit_codes(tree: &Tree) -> Vec<String> {
    let main = tree.text("runtime/cli/src/main.rs");
    let numbers = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let after = |mark: &str| -> BTreeSet<String> {
        let found = main.match_indices(mark).map(|(at, _)| &main[at + mark.len()..]);
        found.map(|text| numbers(text.trim_start_matches(|c: char| !c.is_ascii_digit()))).collect()
    };
    let table = main.find("const fn exit_code").map_or("", |at| &main[at..]);
    let table = &table[..table.find("\n}").unwrap_or(0)];
    let arms = table.lines().filter_map(|line| line.split_once(" => "));
    let mut used: BTreeSet<String> = arms.map(|(_, code)| numbers(code)).collect();
    used.extend(after("const EXIT_AT_ONCE: u8 ="));
    used.insert("0".to_owned());
    let is_number = |cell: &str| !cell.is_empty() && cell.bytes().all(|b| b.is_ascii_digit());
    let documented = first_column(tree.text(ERRORS), is_number);
    let documented = documented.into_iter().map(str::to_owned).collect();
    let differ = used.symmetric_difference(&documented);
    differ
        .map(|code| format!("exit code {code}: only in one of cli/src/main.rs and {ERRORS}"))
        .collect()
}

/// Commands that documents tell people to type exist.
pub(crate) fn commands(tree: &Tree) -> Vec<String> {
    let verbs = variants(tree.text(ARGS), "pub(crate) enum Command {");
    let tasks: BTreeSet<String> =
        texts(tree.text(XTASK)).filter(|text| !text.contains(' ')).map(str::to_owned).collect();
    let mut complaints = Vec::new();
    for file in tree.ending(".md") {
        for (start, known) in [("sluicebox ", &verbs), ("cargo xtask ", &tasks)] {
            let unknown = typed(&file.text, start).filter(|word| !known.contains(*word));
            complaints.extend(
                unknown.map(|word| format!("{}: there is no command `{start}{word}`", file.path)),
            );
        }
    }
    complaints
}

/// The variants of an enum, as the command line spells them.
fn variants(source: &str, head: &str) -> BTreeSet<String> {
    let body = source.find(head).map_or("", |at| &source[at + head.len()..]);
    let body = &body[..body.find("\n}").unwrap_or(0)];
    let names = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = names.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let words = names.filter_map(|line| line.split(['(', ',', ' ']).next());
    words.map(kebab).collect()
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Words that follow `start` where something is meant to be typed: in a span, or in a line of a
/// block after the prompt.
fn typed<'a>(document: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let prompts = document.lines().filter_map(|line| line.strip_prefix("$ "));
    let commands = prompts.flat_map(|line| line.split(['|', '&'])).chain(spans(document));
    let rest = commands.filter_map(move |command| command.trim().strip_prefix(start));
    let words = rest.filter_map(|rest| rest.split_whitespace().next());
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Folders a newcomer meets, and paths the overview names.
pub(crate) fn architecture(tree: &Tree) -> Vec<String> {
    let document = tree.text(ARCHITECTURE);
    let named: BTreeSet<&str> = spans(document).map(|span| span.trim_end_matches('/')).collect();
    let mut complaints = Vec::new();
    for folder in folders(tree).into_iter().filter(|folder| !named.contains(folder.as_str())) {
        complaints.push(format!("{ARCHITECTURE}: does not name the folder `{folder}`"));
    }
    for path in named.iter().filter(|span| is_path(span)) {
        if !places(path).iter().any(|place| tree.has(place)) {
            complaints.push(format!("{ARCHITECTURE}: `{path}` does not exist"));
        }
    }
    complaints
}

/// Top-level folders and crates.
fn folders(tree: &Tree) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for file in tree.files.iter().filter(|file| !file.path.starts_with('.')) {
        let mut parts = file.path.split('/');
        let (first, second, third) = (parts.next(), parts.next(), parts.next());
        if let (Some(first), Some(second)) = (first, second) {
            folders.insert(first.to_owned());
            if first == "runtime" && third.is_some() {
                folders.insert(format!("{first}/{second}"));
            }
        }
    }
    folders
}

/// What stands between backticks.
fn spans(document: &str) -> impl Iterator<Item = &str> {
    document.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// True for what can only be meant as a path in the repository.
fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let is_file = [".rs", ".toml", ".md", ".wit", ".json"].iter().any(|end| span.ends_with(end));
    let elsewhere = span.starts_with('/') || span.starts_with("application/");
    span.chars().all(plain) && !elsewhere && (is_file || span.contains('/'))
}

/// Where a path of the overview may lead: `core/key.rs` is short for `runtime/core/src/key.rs`.
fn places(path: &str) -> Vec<String> {
    let mut places = vec![path.to_owned()];
    if !path.contains('/') {
        let crates = ["core", "store", "engine", "link", "node", "cli"];
        places.extend(crates.map(|name| format!("runtime/{name}/src/{path}")));
    }
    if let Some((package, inside)) = path.split_once('/') {
        places.push(format!("runtime/{package}/src/{inside}"));
        places.push(format!("runtime/{path}"));
        places.push(format!("{package}/src/{inside}"));
    }
    places
}

/// Links from one document to another.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let documents = tree.ending(".md");
    let broken = |file: &File| -> Vec<String> {
        let wrong = targets(&file.text).filter(|target| !tree.has(&resolve(&file.path, target)));
        wrong.map(|target| format!("{}: the link to {target} leads nowhere", file.path)).collect()
    };
    documents.flat_map(broken).collect()
}

/// Every document that people are to find is in the list of all documents.
pub(crate) fn listed(tree: &Tree) -> Vec<String> {
    let list = tree.text(DOCUMENTS);
    let linked: BTreeSet<String> = targets(list).map(|to| resolve(DOCUMENTS, to)).collect();
    let found = tree.ending(".md").filter(|file| {
        ["docs/guide/", "docs/tutorial/", "docs/reference/"]
            .iter()
            .any(|at| file.path.starts_with(at))
    });
    let missing = found.filter(|file| !linked.contains(&file.path));
    missing.map(|file| format!("{}: no link in {DOCUMENTS}", file.path)).collect()
}

/// Relative targets of a document's links, without the place inside them.
fn targets(document: &str) -> impl Iterator<Item = &str> {
    let links = document.match_indices("](").map(|(at, mark)| &document[at + mark.len()..]);
    let inside = links.filter_map(|rest| rest.split([')', ' ', '\n']).next());
    let files = inside.filter_map(|target| target.split('#').next());
    files.filter(|target| !target.is_empty() && !target.contains(':'))
}

/// The path a link of a document leads to.
fn resolve(document: &str, target: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Decision records count up from 1 and have the same four sections.
pub(crate) fn decisions(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let records = tree.files.iter().filter(|file| file.path.starts_with(ADR));
    for (at, file) in records.enumerate() {
        let number = format!("{:04}", at + 1);
        if !file.path[ADR.len()..].starts_with(&format!("{number}-")) {
            complaints.push(format!("{}: the next number is {number}", file.path));
        }
        if !file.text.starts_with(&format!("# {number} ")) {
            complaints.push(format!("{}: begin with `# {number} ` and the decision", file.path));
        }
        let missing = ADR_SECTIONS.iter().filter(|section| !file.text.contains(**section));
        complaints.extend(missing.map(|section| format!("{}: `{section}` is missing", file.path)));
    }
    complaints
}

/// Paths and hosts that only one machine or one network knows.
pub(crate) fn machine_traces(tree: &Tree) -> Vec<String> {
    tree.files.iter().flat_map(traces_of).collect()
}

/// A folder of the root only counts where a path begins.
fn has_trace(line: &str, trace: &str) -> bool {
    line.match_indices(trace).any(|(at, _)| {
        let inside = line[..at].ends_with(|c: char| c.is_alphanumeric() || "_.}-".contains(c));
        !(trace.starts_with('/') && inside)
    })
}

fn traces_of(file: &File) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let parts = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/Us", "ers/"],
        ["C:", "\\"],
        ["py", "pi.org"],
        ["pythonhos", "ted.org"],
        ["registry.", "npmjs"],
        ["static.", "crates.io"],
        ["index.", "crates.io"],
        ["arti", "factory"],
        ["192.", "168."],
    ];
    let traces: Vec<String> = parts.iter().map(|part| part.concat()).collect();
    let mut complaints = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for trace in traces.iter().filter(|trace| has_trace(line, trace)) {
            complaints.push(format!("{}:{}: `{trace}` is of one machine only", file.path, at + 1));
        }
    }
    complaints
}

#[test]
fn codes_are_found_where_they_are_given() {
    let text = "impl X {\n    fn code(&self) -> &'static str {\n        \"a.b-c\"\n    }\n}\n\
                fn y() { Fault::new(\"ingest.json\", \"not.this\") }\n\
                #[cfg(test)]\nmod tests {\n    const Z: &str = \"ingest.no\";\n}";
    let file = File::sample("runtime/node/src/http/x.rs", text);
    assert_eq!(codes_of(&file), BTreeSet::from(["a.b-c", "ingest.json"]));
    assert!(!is_code("pipeline.toml") && !is_code("A.b") && !is_code("a.b.c") && !is_code("ab"));
    assert_eq!(first_column("| `a.b` | x |\n| c | d |\n`e.f`", is_code), BTreeSet::from(["a.b"]));
}

#[test]
fn a_document_that_is_not_true_is_seen() {
    let sample = |path: &str, text: &str| File::sample(path, text);
    let tree = Tree {
        files: vec![
            sample("README.md", "[a](docs/guide/errors.md#b) [c](docs/none.md) [d](https://x)"),
            sample("docs/ARCHITECTURE.md", "`docs` `runtime/core` `core/key.rs` `core/none.rs`"),
            sample("docs/adr/0002-x.md", "# 0002 X\n## Context\n"),
            sample("docs/guide/errors.md", "| `a.b` | x |\n| 3 | x |"),
            sample("docs/guide/new.md", "x"),
            sample("docs/README.md", "[e](guide/errors.md)"),
            sample("runtime/core/src/key.rs", "//! Keys: \"/et"),
            sample("runtime/core/src/error.rs", "fn code(&self) -> &'static str { \"c.d\" }"),
        ],
    };
    assert_eq!(links(&tree).len(), 1);
    assert_eq!(listed(&tree), ["docs/guide/new.md: no link in docs/README.md"]);
    assert_eq!(architecture(&tree).len(), 2, "runtime is not named, core/none.rs is not there");
    assert_eq!(decisions(&tree).len(), 5);
    assert_eq!(error_codes(&tree).len(), 2);
    assert_eq!(exit_codes(&tree).len(), 2, "0 is not documented, 3 is not used");
    let typed = File::sample("x.md", "`sluicebox serve` `sluicebox`\n$ a | sluicebox sent x\n");
    let args = File::sample(ARGS, "pub(crate) enum Command {\n    Serve(X),\n    DeadLetters,\n}");
    let mut found = commands(&Tree { files: vec![typed, args] });
    assert_eq!(found.pop().as_deref(), Some("x.md: there is no command `sluicebox sent`"));
    assert_eq!(found, [""; 0]);
    let trace = ["cd /wo", "rk/main"].concat();
    assert_eq!(traces_of(&sample("x.md", &trace)).len(), 1);
    let inside = ["target/wo", "rk/main"].concat();
    assert_eq!(traces_of(&sample("x.md", &inside)), [""; 0]);
}

#[test]
fn links_are_followed_from_their_document() {
    assert_eq!(resolve("docs/guide/a.md", "../b.json"), "docs/b.json");
    assert_eq!(resolve("README.md", "docs/guide/"), "docs/guide");
    assert_eq!(resolve("wit/README.md", "./FRAME.md"), "wit/FRAME.md");
}
