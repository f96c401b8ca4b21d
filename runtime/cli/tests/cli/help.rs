//! The texts people learn from: every help text, and the reference of the configuration.

use super::support::command::alone;
use super::support::golden;

/// Every command people can type.
const COMMANDS: [&str; 35] = [
    "serve",
    "new",
    "build",
    "dev",
    "test",
    "up",
    "demo",
    "push",
    "apply",
    "rollback",
    "list",
    "nodes",
    "describe",
    "delete",
    "resume",
    "move",
    "plan",
    "gpu",
    "usage",
    "send",
    "stream",
    "top",
    "logs",
    "tail",
    "dead-letters",
    "dead-letters replay",
    "sample host",
    "tenant",
    "tenant token add",
    "certs",
    "config",
    "log",
    "log inspect",
    "doctor",
    "completion",
];

#[test]
fn every_help_text_is_as_reviewed() {
    let run = alone(&["--help"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    golden::check("help/sluicebox.txt", &run.out);
    for command in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let run = alone(&words);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{command}");
        golden::check(&format!("help/{}.txt", command.replace(' ', "-")), &run.out);
    }
}

#[test]
fn every_command_that_is_listed_has_a_reviewed_help_text() {
    let help = alone(&["--help"]).out;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for line in list.lines().filter(|line| !line.trim().is_empty()) {
        let name = line.split_whitespace().next().unwrap();
        let known = COMMANDS.iter().any(|command| command.split(' ').next() == Some(name));
        assert!(known || name == "help", "{name} has no golden help text");
    }
}

#[test]
fn the_reference_of_the_configuration_is_the_same_on_every_machine() {
    let run = alone(&["config", "reference"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    golden::check("config-reference.toml", &run.out);
}

#[test]
fn completion_scripts_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = alone(&["completion", shell]);
        assert_eq!(run.code, 0);
        assert!(run.out.contains("dead-letters"), "{shell}");
        assert!(!run.out.contains("sluicebox__compile"), "{shell} shows the hidden command");
    }
}
