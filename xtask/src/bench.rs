//! `cargo xtask bench`: lists the workspace's benches, or runs one of them.

use anyhow::{Result, ensure};

use crate::clips;
use crate::guests;
use crate::process::{self, say};
use crate::workspace::Workspace;

/// The package whose benches start the program itself.
const DRIVER: &str = "sluicebox-bench";

/// Lists without arguments; otherwise runs the named bench, or `all`, with the other arguments.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let benches: Vec<(&str, &str)> = workspace
        .packages()
        .iter()
        .flat_map(|package| package.benches.iter().map(|bench| (&*package.name, &**bench)))
        .collect();
    let Some((wanted, rest)) = arguments.split_first() else {
        for (package, bench) in benches {
            println!("{bench:<24} {package}");
        }
        return Ok(());
    };
    let mut chosen = benches;
    chosen.retain(|(_, bench)| wanted == "all" || wanted == bench);
    ensure!(!chosen.is_empty(), "there is no bench `{wanted}`; `cargo xtask bench` lists them");
    guests::build_rust(workspace)?;
    if chosen.iter().any(|(_, bench)| *bench == "clips") {
        clips::run(workspace, &[])?;
    }
    if chosen.iter().any(|(package, _)| *package == DRIVER) {
        say("bench: building the program");
        let build = ["build", "--release", "--package", "sluicebox", "--bin", "sluicebox"];
        process::run(&mut workspace.cargo(&build))?;
    }
    for (package, bench) in chosen {
        say(&format!("bench: {bench} of {package}"));
        let mut command = workspace.cargo(&["bench"]);
        command.args(["--package", package, "--bench", bench, "--"]);
        process::run(command.args(rest))?;
    }
    Ok(())
}
