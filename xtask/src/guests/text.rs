//! Guests in WebAssembly's text form. One file in a folder is one guest with the folder's name;
//! several are several guests, in a folder of that name.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

use super::{Guest, files_in, has_extension, publish, tools};

pub(super) fn build(workspace: &Workspace, guest: &Guest) -> Result<()> {
    let mut texts = files_in(&guest.folder)?;
    texts.retain(|path| has_extension(path, "wat"));
    let places = places(workspace, guest, &texts);
    let stamp = guest.stamp(workspace, "text", None)?;
    if places.iter().all(|place| stamp.is_current(place)) {
        guest.say("up to date");
        return Ok(());
    }
    guest.say("encoding the text form");
    let work = guest.work(workspace)?;
    let finished: Vec<PathBuf> =
        texts.iter().map(|text| work.join(text.file_name().unwrap_or_default())).collect();
    let pairs: Vec<_> = texts.into_iter().zip(finished.iter().cloned()).collect();
    tools::encode_text(workspace, &pairs)?;
    for (finished, place) in finished.iter().zip(&places) {
        publish(finished, place)?;
    }
    stamp.save()
}

fn places(workspace: &Workspace, guest: &Guest, texts: &[PathBuf]) -> Vec<PathBuf> {
    if texts.len() == 1 {
        return vec![guest.result(workspace)];
    }
    let folder = workspace.guests().join(&guest.name);
    let place = |text: &PathBuf| folder.join(text.file_name().unwrap_or_default());
    texts.iter().map(|text| place(text).with_extension("wasm")).collect()
}
