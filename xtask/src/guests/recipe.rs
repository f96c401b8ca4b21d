//! Guests in the languages of `sluicebox-toolchain`, built by its recipes and with its tools, which
//! go below `target/guests`.

use anyhow::Result;
use sluicebox_toolchain::Language;

use crate::workspace::Workspace;

use super::{Guest, tools};

pub(super) fn build(workspace: &Workspace, guest: &Guest, language: &dyn Language) -> Result<()> {
    let result = guest.result(workspace);
    let world = guest.world(language)?;
    let sdk = Some(workspace.root().join("guest-sdk").join(language.sdk()));
    let sdk = sdk.filter(|folder| folder.is_dir());
    let stamp = guest.stamp(workspace, &format!("{} {world}", language.name()), sdk)?;
    if stamp.is_current(&result) {
        guest.say("up to date");
        return Ok(());
    }
    tools::build(workspace, language.name(), &guest.name, &guest.folder, &world)?;
    stamp.save()
}
