//! The tools that come as Python packages, installed below `target/guests` and nowhere else.
//!
//! They are pinned, with hashes, in `guests-requirements.txt`. Preferred is a virtual environment;
//! where Python cannot make one (some systems ship the module separately), pip installs to a
//! folder that is then put on Python's path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, say};
use crate::stamp::Stamp;
use crate::workspace::Workspace;

use super::tools;

/// A Python that finds the pinned packages.
pub(super) struct PythonTools {
    program: PathBuf,
    /// Where the packages are, if there is no virtual environment.
    path: Option<PathBuf>,
}

impl PythonTools {
    /// Finds the installed tools, or installs them.
    pub(super) fn ensure(workspace: &Workspace) -> Result<Self> {
        let environment = workspace.guests().join("venv");
        let folder = workspace.guests().join("python-packages");
        let version = process::output_of(Command::new("python3").arg("--version"))?;
        let stamp = Stamp::new(
            &workspace.guests().join("stamps"),
            "python-tools",
            &version,
            &[tools::pins(workspace)],
        )?;
        let in_environment = Self { program: environment.join("bin").join("python"), path: None };
        let in_folder = Self { program: "python3".into(), path: Some(folder.clone()) };
        if stamp.is_current(&in_environment.program) {
            return Ok(in_environment);
        }
        if stamp.is_current(&folder) {
            return Ok(in_folder);
        }
        say("guests: installing ziglang and componentize-py (about 150 MB, once)");
        let pins = tools::pins(workspace);
        remove(&environment)?;
        remove(&folder)?;
        let python = if make_environment(&environment) {
            install(&mut in_environment.command(), &pins, None)?;
            in_environment
        } else {
            remove(&environment)?;
            install(&mut Command::new("python3"), &pins, Some(&folder))?;
            in_folder
        };
        stamp.save()?;
        Ok(python)
    }

    /// Python, about to be told what to run.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_remove("PYTHONHOME").env_remove("PYTHONPATH");
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(path) = &self.path {
            command.env("PYTHONPATH", path);
        }
        command
    }
}

fn make_environment(folder: &Path) -> bool {
    process::succeeds(Command::new("python3").args(["-m", "venv"]).arg(folder))
}

fn install(python: &mut Command, pins: &Path, folder: Option<&Path>) -> Result<()> {
    if folder.is_some() && !process::succeeds(Command::new("python3").args(["-m", "pip", "-V"])) {
        bail!(
            "python3 has neither `venv` nor `pip`; run `apt-get install python3-venv`, or your \
             system's equivalent"
        );
    }
    python.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    python.args(["--require-hashes", "--only-binary", ":all:"]);
    // Nothing outside the folder is touched, so pip need not warn those who are root.
    python.env("PIP_ROOT_USER_ACTION", "ignore");
    if let Some(folder) = folder {
        python.arg("--target").arg(folder);
    }
    process::run(python.arg("--requirement").arg(pins))
        .context("the guests' tools cannot be installed; is the Python package index reachable?")
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))
}
