//! Arguments of `push`, and of whatever else fetches components from registries.

use std::path::PathBuf;

use clap::Args;
use sluicebox_core::ids::Name;

use super::{Connection, name};

pub(crate) const PUSH_EXAMPLES: &str = "\
Examples:
  sluicebox push target/guests/split.wasm
  sluicebox push build/out.wasm --name split
  sluicebox push model.bin --asset
  sluicebox push oci://ghcr.io/acme/split@sha256:0f1e…

A component is stored by the digest of its bytes; pushing the same bytes again changes nothing.
Pipelines keep the digest they were applied with: apply again to use the new component. An asset
has no name; a manifest grants it to a stage by the digest that is printed.

From a registry comes an artifact whose one layer is a component, as `wkg oci push` and `oras push`
make them; the node asks no registry. A tag may be something else tomorrow: the digest it stands
for is printed. Credentials are those of `docker login`, or SLUICEBOX_REGISTRY_AUTH, which is
USER:PASSWORD@REGISTRY.";

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The component, a .wasm file or oci://REGISTRY/REPOSITORY@DIGEST, or the asset
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Push a read-only file for a stage's `assets` instead of a component
    #[arg(long, conflicts_with = "name")]
    pub(crate) asset: bool,
    /// Its name [default: the file's name without .wasm, or the last part of the repository's]
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<Name>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// How registries are spoken to.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryArgs {
    /// Speak with this registry without TLS, as with those of this machine; repeat for more
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) plain_registry: Vec<String>,
}
