//! Arguments of the commands that make, build, try and run stages from their folders.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use sluicebox_core::ids::Name;
use sluicebox_toolchain::LANGUAGES;

use super::push::RegistryArgs;
use super::traffic::duration;
use super::{Connection, name};

pub(crate) const NEW_EXAMPLES: &str = "\
Examples:
  sluicebox new --lang rust my-stage
  sluicebox new --lang python greet --dir stages/greet

Writes a stage that works, a pipeline of this one stage, events to try it with and the outputs
they should come to. What the stage imports is in this program and is put into .sluicebox/sdk;
`build` keeps it at the program's version. Nothing that is there is written over.";

pub(crate) const BUILD_EXAMPLES: &str = "\
Examples:
  sluicebox build
  sluicebox build stages/split stages/count
  sluicebox build --install

A stage is a folder with stage.toml. Its component is build/NAME.wasm beside it. A stage whose
sources are as they were is not built again. `sluicebox doctor` says which toolchains are there.";

pub(crate) const TEST_EXAMPLES: &str = "\
Examples:
  sluicebox test
  sluicebox test --bless
  sluicebox tail my-stage reply --from oldest --no-follow > my-stage/events.ndjson

Runs each pipeline.toml that has events.ndjson beside it, on a node of its own that keeps nothing,
and compares what comes with outputs.ndjson.

A line of events.ndjson is {\"key\", \"data\"}: data is JSON, or text, or bytes as \"data_base64\";
\"time\" may say when it was. So is what `sluicebox tail` writes. A line of outputs.ndjson is
{\"output\", \"key\", \"data\"} and may have \"port\" and \"time\"; only what it says is compared. Outputs
of a key come in order, those of different keys in any. A dead letter is
{\"output\": \"dead-letters\", \"key\", \"stage\", \"class\"}.

Ends with 65 if something differs.";

pub(crate) const UP_EXAMPLES: &str = "\
Examples:
  sluicebox up
  sluicebox up examples --once
  sluicebox up --url http://127.0.0.1:8000

Builds every stage in the folder and below it, uploads what pipelines use, applies every
pipeline.toml and shows what comes out, until Ctrl-C. If no node answers at the URL, and it is of
this machine, one is started in this process, for development: its data lies in .sluicebox/data and
is there the next time. Components that a pipeline names in registries are fetched; see `sluicebox
push --help`. With --output json everything is a line of JSON.";

pub(crate) const DEV_EXAMPLES: &str = "\
Examples:
  sluicebox dev
  sluicebox dev my-stage --install
  sluicebox send my-stage --key ada --data hi --wait 5s      (in another terminal)

As `up`, and stays at it: when a source changes its stage is built again and takes the place of
the one that runs, while events flow; none is lost and none counts twice. If it does not build, the
error is shown and the old one runs on. What stages log and what fails is shown with what comes out.";

/// Arguments of `new`.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The stage's name
    #[arg(value_parser = name)]
    pub(crate) name: Name,
    /// The language
    #[arg(
        long,
        value_name = "LANGUAGE",
        value_parser = PossibleValuesParser::new(LANGUAGES.iter().map(|language| language.name()))
    )]
    pub(crate) lang: String,
    /// The folder [default: the name]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Folders with stages in them or below them
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dirs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) installing: Installing,
}

/// Whether tools may be fetched.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Installing {
    /// Fetch tools that are missing, where that is possible, into a folder of the user's cache
    #[arg(long)]
    pub(crate) install: bool,
}

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The folder with pipelines in it or below it
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Write what comes as what is expected from now on
    #[arg(long)]
    pub(crate) bless: bool,
    /// How long to wait for what is expected, and for more
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) installing: Installing,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Arguments of `up` and `dev`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The folder with stages and pipelines in it or below it
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Directory of a node that is started [default: .sluicebox/data in DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) installing: Installing,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `up` alone.
#[derive(Debug, Args)]
pub(crate) struct UpOnceArgs {
    #[command(flatten)]
    pub(crate) up: UpArgs,
    /// End when everything is applied; takes a node that runs
    #[arg(long)]
    pub(crate) once: bool,
}
