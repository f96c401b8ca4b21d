//! `docs/reference/cli.md`: the help of the command and of every command below it, asked of the
//! real program.

use std::fmt::Write as _;

use sluicebox_tests::node;

use super::MADE;

/// The page.
pub(super) fn page() -> String {
    let mut out = format!(
        "# Command reference\n\n{MADE}\n\nWhat `sluicebox COMMAND --help` says, of every command. \
         The guides say what to use when: [writing stages](../guide/dev.md), \
         [operating](../guide/operate.md).\n"
    );
    add(&mut out, &[]);
    out
}

/// A command, then those below it, in the order of its list.
fn add(out: &mut String, words: &[&str]) {
    let help = help(words);
    let title = ["sluicebox"].iter().chain(words).copied().collect::<Vec<_>>().join(" ");
    // Ends of lines have no blanks, so that editors leave the page as it is.
    let text: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    write!(out, "\n## `{title}`\n\n```text\n{}\n```\n", text.join("\n")).expect("to a text");
    for below in commands(&help) {
        add(out, &[words, &[below]].concat());
    }
}

fn help(words: &[&str]) -> String {
    let output = node::run(&[words, &["--help"]].concat());
    assert!(output.status.success(), "{words:?} --help: {output:?}");
    String::from_utf8(output.stdout).expect("it writes text")
}

/// The commands that a help text lists, but for `help` itself.
fn commands(help: &str) -> Vec<&str> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let list = list.split("\n\n").next().unwrap_or_default();
    let named = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

#[test]
fn the_commands_of_a_help_text_are_found() {
    let help = "A\n\nCommands:\n  one   Does this\n        and that\n  two   Does\n  help  X\n\n\
                Options:\n  -h";
    assert_eq!(commands(help), ["one", "two"]);
    assert_eq!(commands("A\n\nOptions:\n  -h"), [""; 0]);
}
