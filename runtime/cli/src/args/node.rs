//! Arguments of the commands that run a node or work on its files.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;
use sluicebox_link::tls::NodeName;
use sluicebox_link::tls::authority::{AUTHORITY_DAYS, NODE_DAYS};
use sluicebox_node::tenants::Scopes;

use super::name;

pub(crate) const SERVE_EXAMPLES: &str = "\
Examples:
  sluicebox serve --dev
  sluicebox serve --config /etc/sluicebox.toml
  SLUICEBOX__HTTP__LISTEN=0.0.0.0:7411 sluicebox serve
  sluicebox serve --tls-certificate node.pem --tls-key node.key

Prints one line with its address when it is ready. SIGTERM or SIGINT makes it finish what it has
taken, for at most node.drain-time-max, and stop; a second one stops it at once. With TLS, SIGHUP
makes it read certificate and key again.

Without --dev there must be a tenant: `sluicebox tenant add NAME` makes one and prints its token.";

pub(crate) const DEMO_EXAMPLES: &str = "\
Examples:
  sluicebox demo
  sluicebox demo --only host-metrics --seconds 30

Starts a node in this process, on a free loopback port and with a directory that is removed
afterwards, uploads the example components, and
  word-count    counts the words of the licence texts on this machine, then checks the counts;
  host-metrics  watches this machine's processor, memory, disks and network for deviations.
From a clone of the project, `cargo xtask demo` builds everything and then runs this.";

pub(crate) const TENANT_EXAMPLES: &str = "\
Examples:
  sluicebox tenant add acme
  sluicebox tenant token add acme --id ci --scopes read,ingest
  sluicebox tenant quota set acme memory-bytes 512MiB
  sluicebox tenant list

A token is shown once, when it is made; the file keeps only its hash. Scopes are read, ingest, write
and admin. A running node picks changes up by itself.";

pub(crate) const CERTS_EXAMPLES: &str = "\
Examples:
  sluicebox certs a b c
  sluicebox certs --dir /secure/certs node-4.example.org
  sluicebox certs --days 90 --force a

Nodes that are joined know each other by certificates of one authority. The first time it is made
as well; later ones are signed by the one in the directory. Each node needs its own certificate and
key, and authority.crt. The file authority.key stays in a safe place: no node needs it to run, and
whoever has it can make a node.";

pub(crate) const CONFIG_EXAMPLES: &str = "\
Examples:
  sluicebox config show                     what a node would run with, and why
  sluicebox config check --config new.toml  every mistake at once
  sluicebox config reference > sluicebox.toml

Each field is taken from, in this order: a flag; the environment, as SLUICEBOX__SECTION__FIELD;
the file; the default.";

pub(crate) const LOG_EXAMPLES: &str = "\
Examples:
  sluicebox log inspect --data-dir /var/lib/sluicebox
  sluicebox log inspect --records | less
  sluicebox log inspect --records --output json | tail -n +2 | jq .says

Reads the files of the log, changes nothing and takes no lock, so that it can be used beside a
running node. Shows each file, what is in it, and whether the log is
  clean    everything in it is valid;
  torn     a write was cut short at its end, as by a kill: the next start leaves it out;
  damaged  something that was on disk is not there as it was written: no node starts with it.
Damage ends the command with exit code 74, and so does a record that only a newer version reads.";

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Configuration {
    /// The configuration file [default: sluicebox.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "SLUICEBOX_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Directory of everything the node keeps (node.data-dir)
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) configuration: Configuration,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

/// Settings that have a flag, because people change them by hand.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Overrides {
    /// Address and port to listen on; port 0 takes a free one (http.listen)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Speak TLS with this certificate, PEM (tls.certificate)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's private key, PEM (tls.key)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Name of this node among several (cluster.node)
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// All nodes, as NAME=HOST:PORT, separated by commas (cluster.nodes)
    #[arg(long, value_name = "LIST")]
    pub(crate) nodes: Option<String>,
    /// Worker threads [default: one a core] (node.workers)
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<u32>,
    /// For trying things: no tokens, one tenant named dev, this machine only (node.dev)
    #[arg(long)]
    pub(crate) dev: bool,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write the configuration in force, each field with where it came from
    Show(ConfigArgs),
    /// Say whether the configuration is right, and everything that is not
    Check(ConfigArgs),
    /// Write a configuration file with every field, its meaning, range and default
    Reference,
}

/// Arguments of `config show` and `config check`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    pub(crate) configuration: Configuration,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show its files, what is in them, and whether they are sound
    #[command(after_long_help = LOG_EXAMPLES)]
    Inspect(InspectArgs),
}

/// Arguments of `log inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) configuration: Configuration,
    /// Then show each record: where it is, its kind, its pipeline, what it says
    ///
    /// As JSON it is one record a line, behind the line of the log as a whole.
    #[arg(long)]
    pub(crate) records: bool,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Only this part
    #[arg(long, value_enum, value_name = "word-count|host-metrics", hide_possible_values = true)]
    pub(crate) only: Option<DemoPart>,
    /// How long to watch this machine
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Directory of the built example components
    #[arg(long, value_name = "DIR", default_value = "target/guests")]
    pub(crate) components: PathBuf,
    /// Directory of the examples' manifests
    #[arg(long, value_name = "DIR", default_value = "examples")]
    pub(crate) examples: PathBuf,
}

/// A part of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoPart {
    /// Words of the licence texts.
    WordCount,
    /// This machine's figures.
    HostMetrics,
}

/// Arguments of `tenant`.
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    pub(crate) configuration: Configuration,
    /// The tenants file (node.tenants-file)
    #[arg(long, value_name = "FILE", global = true, help_heading = "Configuration")]
    pub(crate) file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: TenantCommand,
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Add a tenant and print a token for it
    Add {
        /// Its name
        #[arg(value_parser = name)]
        tenant: Name,
        /// Make no token yet
        #[arg(long)]
        no_token: bool,
    },
    /// Remove a tenant with its tokens
    Remove {
        /// Its name
        #[arg(value_parser = name)]
        tenant: Name,
    },
    /// List tenants with their tokens, scopes, weights and quotas
    List,
    /// Make or revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Change what a tenant may use
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Set a tenant's share of the workers beside other tenants' weights
    Weight {
        /// Whose
        #[arg(value_parser = name)]
        tenant: Name,
        /// 1 to 100; 10 is usual
        weight: u8,
    },
    /// Set what a tenant shares with others
    Isolation {
        /// Whose
        #[arg(value_parser = name)]
        tenant: Name,
        /// A process of its own, the node's with others, or what the configuration says
        #[arg(value_enum)]
        isolation: IsolationArg,
    },
}

/// What a tenant shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IsolationArg {
    /// A process of its own
    Process,
    /// The node's process
    Shared,
    /// As `isolation.processes` says
    Default,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; it is shown this once
    Add {
        /// Whose
        #[arg(value_parser = name)]
        tenant: Name,
        /// What it is called in lists, logs and when revoked [default: a random name]
        #[arg(long, value_parser = name)]
        id: Option<Name>,
        /// What it may do, separated by commas
        #[arg(long, value_name = "SCOPES", default_value = "read,ingest,write",
              value_parser = Scopes::parse)]
        scopes: Scopes,
    },
    /// Revoke a token
    Revoke {
        /// Whose
        #[arg(value_parser = name)]
        tenant: Name,
        /// Its id, as `tenant list` shows it
        #[arg(value_parser = name)]
        id: Name,
    },
}

/// What to do with quotas.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Set one quota, or put it back to the node's default
    Set {
        /// Whose
        #[arg(value_parser = name)]
        tenant: Name,
        /// Which: events-per-second, bytes-per-second, memory-bytes, state-bytes, disk-bytes,
        /// component-bytes, pipelines, streams or connections
        #[arg(value_parser = resource)]
        resource: Resource,
        /// How much: 512MiB for bytes, 1000 for others, or default
        amount: String,
    },
}

/// Arguments of `certs`.
#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    /// Names of the nodes, as they call each other
    #[arg(value_name = "NAME", required = true, value_parser = node_name)]
    pub(crate) names: Vec<NodeName>,
    /// Directory of the files; it is made if there is none
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Days for which the certificates of the nodes hold
    #[arg(long, value_name = "N", default_value_t = NODE_DAYS,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(AUTHORITY_DAYS)))]
    pub(crate) days: u32,
    /// Replace certificates and keys that these nodes have; those of the authority never
    #[arg(long)]
    pub(crate) force: bool,
}

/// What the files of the authority are called, so that no node can be.
pub(crate) const AUTHORITY_NAME: &str = "authority";

/// Reads the name of a node, so that nothing else gets into a path.
fn node_name(text: &str) -> Result<NodeName, String> {
    let name = NodeName::new(text)
        .map_err(|_| "use letters, digits and '-', with dots between them, as in DNS".to_owned())?;
    if name.as_str() == AUTHORITY_NAME {
        return Err("the files of this name are those of the authority".to_owned());
    }
    Ok(name)
}

/// Reads the name of a quota.
fn resource(text: &str) -> Result<Resource, String> {
    Resource::parse(text).ok_or_else(|| {
        let all: Vec<&str> = Resource::ALL.into_iter().map(Resource::as_str).collect();
        format!("use one of {}", all.join(", "))
    })
}
