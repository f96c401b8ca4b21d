//! Every command and flag with its help text.
//!
//! The help is meant to be enough to learn from: `-h` lists, `--help` explains and shows examples.
//! Names are checked here, so that a mistyped one never becomes part of a URL.

pub(crate) mod node;
pub(crate) mod project;
pub(crate) mod push;
pub(crate) mod traffic;
pub(crate) mod usage;
pub(crate) mod watch;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sluicebox_core::ids::Name;

pub(crate) use self::node::{
    CertsArgs, ConfigCommand, DemoArgs, LogCommand, ServeArgs, TenantArgs,
};
pub(crate) use self::traffic::{SampleCommand, SendArgs, StreamArgs, TailArgs};

const ABOUT: &str = "Runs WebAssembly components as stages of stream pipelines.

Begin a stage with `new`, run it while you write with `dev`. Upload components with `push`, \
join them to a pipeline with `apply`, feed it with `send`, read its outputs with `tail`. \
`sluicebox demo` shows all of it at work on this machine's own data; `sluicebox serve --dev` \
starts a node to try things on.";

const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  a bug in sluicebox, or an answer that makes no sense
   2  the command line is wrong
  64  the request can never succeed as written (a manifest with mistakes, not a component)
  65  some events were refused; the others went in
  66  there is no such pipeline, component, output or tenant
  69  the node does not answer, or not in time
  70  a component failed
  73  somebody else got there first, or it is in use
  74  a file or stream of this machine cannot be read or written
  75  a quota or bound is reached: try again later
  77  not allowed with this token
  78  the configuration is wrong
 130  stopped by a signal before it was done";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "sluicebox",
    version,
    about = "Runs WebAssembly components as stages of stream pipelines",
    long_about = ABOUT,
    after_long_help = EXIT_CODES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Globals {
    /// Form of results and errors [default: text; records that nobody watches: json]
    #[arg(long, global = true, value_enum, hide_possible_values = true, value_name = "json|text")]
    pub(crate) output: Option<Format>,
    /// No progress and no hints
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Form of log lines, which go to standard error; SLUICEBOX_LOG says which [default: text]
    #[arg(long, global = true, value_enum, hide_possible_values = true, value_name = "json|text")]
    pub(crate) log_format: Option<Format>,
}

/// The form of something written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON document, or one a line.
    Json,
    /// For people.
    Text,
}

/// Which node, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Where the node listens
    #[arg(
        long,
        env = "SLUICEBOX_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:7411"
    )]
    pub(crate) url: String,
    /// File with the certificates that vouch for the node's, PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "SLUICEBOX_CA_CERT", hide_env_values = true)]
    pub(crate) ca_cert: Option<PathBuf>,
    /// On whose behalf
    #[arg(
        long,
        env = "SLUICEBOX_TENANT",
        hide_env_values = true,
        default_value = "dev",
        value_parser = name
    )]
    pub(crate) tenant: Name,
    /// The tenant's token; other users of this machine can see flags, so prefer the variable
    #[arg(long, env = "SLUICEBOX_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// File that holds the token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node
    #[command(after_long_help = node::SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Show sluicebox at work on this machine's own data
    #[command(after_long_help = node::DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Make a new stage, in a folder of its own
    #[command(after_long_help = project::NEW_EXAMPLES)]
    New(project::NewArgs),
    /// Build stages from their folders
    #[command(after_long_help = project::BUILD_EXAMPLES)]
    Build(project::BuildArgs),
    /// Build and run what is in a folder, and again whenever a source changes
    #[command(after_long_help = project::DEV_EXAMPLES)]
    Dev(project::UpArgs),
    /// Try pipelines with recorded events, and compare what comes
    #[command(after_long_help = project::TEST_EXAMPLES)]
    Test(project::TestArgs),
    /// Build and run everything in a folder
    #[command(after_long_help = project::UP_EXAMPLES)]
    Up(project::UpOnceArgs),
    /// Upload a component
    #[command(after_long_help = push::PUSH_EXAMPLES)]
    Push(push::PushArgs),
    /// Create or update a pipeline
    #[command(after_long_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// Apply an earlier version of a pipeline again
    #[command(after_long_help = ROLLBACK_EXAMPLES)]
    Rollback(RollbackArgs),
    /// List components and pipelines
    List(ListArgs),
    /// Show a pipeline: stages, partitions, outputs, counts
    Describe(DescribeArgs),
    /// Delete a pipeline or a component
    Delete(DeleteArgs),
    /// Let a halted pipeline go on
    ///
    /// A pipeline halts when a stage with `on-failure = "halt"` fails for good. Resuming tries the
    /// failed event again; put a better component in place first with `push` and `apply`. Events
    /// that are parked are tried at once as well, instead of when their pause is over.
    Resume(PipelineArgs),
    /// Move a pipeline, or some of its partitions, to another node
    #[command(after_long_help = MOVE_EXAMPLES)]
    Move(MoveArgs),
    /// Show why partitions are where they are, and which moves would spare traffic
    #[command(after_long_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
    /// Show the node's GPU, the tenant's share of it, and what its stages have used
    Gpu(GpuArgs),
    /// Show what a tenant has used, and what it costs
    #[command(after_long_help = usage::EXAMPLES)]
    Usage(usage::UsageArgs),
    /// Send events into a pipeline
    #[command(after_long_help = traffic::SEND_EXAMPLES)]
    Send(SendArgs),
    /// Send a file or standard input as one stream, and write what comes of it
    #[command(after_long_help = traffic::STREAM_EXAMPLES)]
    Stream(StreamArgs),
    /// Watch what a tenant's pipelines, or the stages of one, do at the moment
    #[command(after_long_help = watch::TOP_EXAMPLES)]
    Top(watch::TopArgs),
    /// Show what the stages of a pipeline said last
    #[command(after_long_help = watch::LOGS_EXAMPLES)]
    Logs(watch::LogsArgs),
    /// Follow an output of a pipeline
    #[command(after_long_help = traffic::TAIL_EXAMPLES)]
    Tail(TailArgs),
    /// Follow the events a pipeline could not handle, or replay them
    ///
    /// Each record is the event as it was, and says which stage failed and why. They are kept in a
    /// bounded ring: the oldest are dropped, and counted.
    DeadLetters(traffic::DeadLettersArgs),
    /// Write this machine's figures as events
    #[command(after_long_help = traffic::SAMPLE_EXAMPLES, subcommand)]
    Sample(SampleCommand),
    /// Manage tenants, their tokens and quotas, in the node's tenants file
    #[command(after_long_help = node::TENANT_EXAMPLES)]
    Tenant(TenantArgs),
    /// Make certificates by which nodes know each other
    #[command(after_long_help = node::CERTS_EXAMPLES)]
    Certs(CertsArgs),
    /// Show, check or explain a node's configuration
    #[command(subcommand, after_long_help = node::CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Look at the log of a data directory
    #[command(subcommand, after_long_help = node::LOG_EXAMPLES)]
    Log(LogCommand),
    /// List the nodes of a cluster, as one of them sees them
    Nodes(NodesArgs),
    /// Check whether this machine and the node are fit
    Doctor(DoctorArgs),
    /// Write a completion script for a shell
    ///
    /// For bash: `sluicebox completion bash > ~/.local/share/bash-completion/completions/sluicebox`
    Completion(CompletionArgs),
    /// The compiler process of a node; not for people
    #[command(hide = true)]
    Compile,
    /// The process of a tenant that has one of its own; not for people
    #[command(hide = true)]
    TenantProcess,
    /// The process of a node that has its GPU; not for people
    #[command(hide = true)]
    GpuHost {
        /// What it is to be
        orders: String,
    },
    /// A process that starts those that try kernels; not for people
    #[command(hide = true)]
    GpuStarter {
        /// What they are to be
        orders: String,
    },
    /// A process that tries a kernel; not for people
    #[command(hide = true)]
    GpuTrial {
        /// What it is to be
        orders: String,
        /// The kernel's entry point
        entry: String,
    },
}

const APPLY_EXAMPLES: &str = "\
Examples:
  sluicebox apply pipeline.toml
  sluicebox apply pipeline.toml --dry-run
  sluicebox apply examples/word-count/pipeline.toml --push target/guests
  sluicebox apply pipeline.toml --discard-state count
  generate-manifest | sluicebox apply -

Applying the same manifest twice changes nothing. Every mistake is reported at once.

What a stage names in a registry, component = \"oci://REGISTRY/REPOSITORY@sha256:DIGITS\", is fetched
and pushed first, as `push` does; the node is sent the name it has there.";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  sluicebox rollback word-count --dry-run
  sluicebox rollback word-count
  sluicebox rollback word-count --to 7

The manifest of the earlier version becomes a new one, with the components it ran by their digests. \
It is refused where applying that manifest would be refused. State, results and offsets do not go \
back. `sluicebox describe` shows the versions that are kept.";

const MOVE_EXAMPLES: &str = "\
Examples:
  sluicebox move word-count --to b
  sluicebox move word-count --to c --partitions 0,2,5-7
  sluicebox nodes

What it keeps goes along: state, timers, open streams, outputs with their offsets, dead letters and
known ids. Producers wait for the moment in which it is on its way. It takes a token with the scope \
admin, and a pipeline whose delivery is exactly-once.

With --partitions the pipeline stays at home on its node, which takes its events in and keeps its
outputs; these partitions run on the other node, with their state. Moved to its home, all of its
partitions come back.";

const PLAN_EXAMPLES: &str = "\
Examples:
  sluicebox plan
  sluicebox plan word-count
  sluicebox plan --apply

A plan is made from what all nodes do at that moment: time of processors and bytes a second,
smoothed over some ten seconds. So ask under the load it is for. It takes a token with the scope
admin; with --apply, write as well.";

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The manifest, TOML or JSON; - reads standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Check everything and show what would change, but change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Give up what this stage of the running version keeps, whether the stage stays or goes;
    /// repeat for more stages. There is no way back
    #[arg(long, value_name = "STAGE", value_parser = name)]
    pub(crate) discard_state: Vec<Name>,
    /// First push every component the manifest names: DIR/<component>.wasm, or
    /// DIR/<pipeline>-<component>.wasm
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    pub(crate) push: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: push::RegistryArgs,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// The version to go back to [default: the one before that which runs]
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<u32>,
    /// Show what would change, but change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Give up what this stage of the running version keeps; repeat for more stages
    #[arg(long, value_name = "STAGE", value_parser = name)]
    pub(crate) discard_state: Vec<Name>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only these
    #[arg(value_enum, value_name = "components|pipelines", hide_possible_values = true)]
    pub(crate) what: Option<Listed>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    /// Uploaded components.
    Components,
    /// Applied pipelines.
    Pipelines,
}

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// Write only the manifest it runs with
    #[arg(long)]
    pub(crate) manifest: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// What it is
    #[arg(value_enum, value_name = "pipeline|component", hide_possible_values = true)]
    pub(crate) what: Deleted,
    /// Its name
    #[arg(value_parser = name)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What can be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deleted {
    /// A pipeline, with its state and what its outputs keep.
    Pipeline,
    /// A component; pipelines that run it go on with it.
    Component,
}

/// Arguments of commands that need a pipeline and nothing else.
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `move`.
#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// The node to move it to
    #[arg(long, value_name = "NODE")]
    pub(crate) to: String,
    /// Move these of its partitions alone, as in 0,2,5-7
    #[arg(long, value_name = "LIST")]
    pub(crate) partitions: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Of this pipeline alone
    #[arg(value_parser = name)]
    pub(crate) pipeline: Option<Name>,
    /// Carry the moves out, one after the other
    #[arg(long)]
    pub(crate) apply: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `gpu`.
#[derive(Debug, Args)]
pub(crate) struct GpuArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) configuration: node::Configuration,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Reads a name, so that nothing else gets into a URL.
pub(crate) fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_name_that_is_none_is_refused_before_it_becomes_a_url() {
        for bad in ["../../metrics", "a?b", "A", "", "a/b"] {
            let parsed = Cli::try_parse_from(["sluicebox", "describe", bad]);
            assert_eq!(parsed.unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
