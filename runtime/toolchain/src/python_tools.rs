//! Tools that come as Python packages, fetched below the folder of [`Tools`] and nowhere else.
//!
//! They are pinned, with hashes, in `pins/`. pip installs them into a folder that is then put on
//! Python's path; where there is no pip, a virtual environment brings one (some systems ship one of
//! the two separately).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::at;
use crate::process::{self, Progress};
use crate::{Error, Missing, Result, Tools};

/// The interpreter that runs the tools.
const PYTHON: &str = "python3";

/// How to get it.
const PYTHON_INSTALL: &str = "run `apt-get install python3 python3-venv`, or your system's \
                              equivalent";

/// Packages that are fetched together.
#[derive(Debug, Clone, Copy)]
pub struct Packages {
    /// Part of the name of their folder.
    pub name: &'static str,
    /// What they are, with versions.
    pub what: &'static str,
    /// What a download of them is: how much, from where.
    pub download: &'static str,
    /// A file of pip's requirements, with hashes.
    pub pins: &'static str,
}

impl Packages {
    /// What is missing before they can be used.
    #[must_use]
    pub fn missing(&self, tools: &Tools) -> Vec<Missing> {
        let mut missing = Vec::new();
        if !process::succeeds(Command::new(PYTHON).arg("-V")) {
            let (what, install) = (PYTHON.to_owned(), PYTHON_INSTALL.to_owned());
            missing.push(Missing { what, install, fetch: None });
        }
        if !self.place(tools).exists() {
            let home = tools.home().display();
            missing.push(Missing {
                what: self.what.to_owned(),
                install: format!("add --install to fetch it into {home} ({})", self.download),
                fetch: Some(format!("{}: {}", self.what, self.download)),
            });
        }
        missing
    }

    /// Fetches them.
    ///
    /// # Errors
    /// Python has no pip, or the packages cannot be had.
    pub fn fetch(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        tools.fill(&self.place(tools), progress, |folder, progress| {
            progress.say(&format!("fetching {} ({})", self.what, self.download));
            let pins = folder.join("pins.txt");
            std::fs::write(&pins, self.pins).map_err(at("write", &pins))?;
            if process::succeeds(Command::new(PYTHON).args(["-m", "pip", "-V"])) {
                return install(&mut Command::new(PYTHON), &pins, Some(&folder.join("packages")));
            }
            let environment = folder.join("venv");
            let made = Command::new(PYTHON).args(["-m", "venv"]).arg(&environment).output();
            if !made.is_ok_and(|made| made.status.success()) {
                return Err(Error::Tool {
                    what: format!("{PYTHON} has neither pip nor venv"),
                    fix: PYTHON_INSTALL.to_owned(),
                });
            }
            install(&mut Command::new(environment.join("bin/python")), &pins, None)
        })
    }

    /// Python, about to be told what to run of them.
    #[must_use]
    pub fn command(&self, tools: &Tools) -> Command {
        let place = self.place(tools);
        let environment = place.join("venv/bin/python");
        let in_environment = environment.exists();
        let mut command =
            if in_environment { Command::new(environment) } else { Command::new(PYTHON) };
        command.env_remove("PYTHONHOME").env_remove("PYTHONPATH");
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        if !in_environment {
            command.env("PYTHONPATH", place.join("packages"));
        }
        command
    }

    fn place(&self, tools: &Tools) -> PathBuf {
        tools.place(self.name, self.pins)
    }
}

fn install(python: &mut Command, pins: &Path, folder: Option<&Path>) -> Result<()> {
    python.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    python.args(["--require-hashes", "--only-binary", ":all:"]);
    // Nothing outside the folder is touched, so pip need not warn those who are root.
    python.env("PIP_ROOT_USER_ACTION", "ignore");
    if let Some(folder) = folder {
        python.arg("--target").arg(folder);
    }
    process::run(python.arg("--requirement").arg(pins)).map_err(|error| Error::Tool {
        what: format!("the packages could not be fetched: {error}"),
        fix: "is the Python package index reachable?".to_owned(),
    })
}
