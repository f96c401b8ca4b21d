//! What a bench is asked on its command line.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The arguments of a bench.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// At most about ten seconds in all; figures are rougher.
    pub quick: bool,
    /// As long as the target says, where that is longer than a minute.
    pub full: bool,
    /// How long a part takes that is meant to go on for long; none: what `quick` and `full` say.
    pub minutes: Option<u32>,
    /// Only the parts whose names contain one of these; all if there are none.
    pub only: Vec<String>,
}

impl Options {
    /// Reads the arguments. `None` if the bench is not meant to run: test runners start benches
    /// without the argument that `cargo bench` gives them.
    ///
    /// # Errors
    /// An argument that no bench has.
    pub fn read() -> Result<Option<Self>> {
        let mut options = Self::default();
        let mut bench = false;
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--bench" => bench = true,
                "--quick" => options.quick = true,
                "--full" => options.full = true,
                flag if let Some(minutes) = flag.strip_prefix("--minutes=") => {
                    options.minutes = Some(minutes.parse().context("--minutes takes a number")?);
                }
                flag if flag.starts_with('-') => bail!(
                    "{flag} means nothing here; there are --quick, --full, --minutes=N and names \
                     of parts"
                ),
                part => options.only.push(part.to_owned()),
            }
        }
        Ok(bench.then_some(options))
    }

    /// True if this part is to run.
    #[must_use]
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| part.contains(only.as_str()))
    }

    /// The time a part takes: `usual`, or `quick` if asked for.
    #[must_use]
    pub const fn time(&self, usual: Duration, quick: Duration) -> Duration {
        if self.quick { quick } else { usual }
    }
}
