//! What a pipeline names in registries is brought to the node, and its manifest says what the node
//! has.
//!
//! - Only what is named by digest is taken: the same manifest is the same pipeline tomorrow.
//! - All references are looked at before anything is pushed, and all that is wrong with them is
//!   told at once.
//! - What was found once is not asked for again, as a digest stands for the same for ever; whether
//!   the node still has it is asked each time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sluicebox_core::ids::{Digest, Name};

use super::exchange::Transport;
use super::reference::{Reference, is_reference};
use super::{Found, held};
use crate::args::push::RegistryArgs;
use crate::client::Client;
use crate::deploy::{Manifest, push_bytes, pushed_text};
use crate::failure::{Cause, Failure, Mistake, printable};
use crate::screen::Screen;

/// The registries that pipelines name, as one command asks them.
pub(crate) struct Registries {
    screen: Screen,
    args: RegistryArgs,
    /// Which component each reference is.
    known: Mutex<BTreeMap<Reference, Digest>>,
}

/// A manifest as the node is to have it.
pub(crate) struct Brought<'a> {
    pub(crate) manifest: Cow<'a, Manifest>,
    /// What the node does not have, as nothing was to be changed: reference and name.
    missing: Vec<(Reference, Name)>,
}

impl Brought<'_> {
    /// Says what a refusal may come from.
    pub(crate) fn told(&self, mut failure: Failure) -> Failure {
        if !self.missing.is_empty() && failure.code == "manifest.invalid" {
            let push =
                |(from, name): &(Reference, Name)| format!("`sluicebox push {from} --name {name}`");
            let pushes: Vec<String> = self.missing.iter().map(push).collect();
            failure.fix = Some(format!(
                "with --dry-run nothing is pushed, and the node does not know what it does not \
                 have: {}",
                pushes.join(", ")
            ));
        }
        failure
    }
}

/// One of the references.
struct One<'a> {
    /// As the manifest has it.
    text: String,
    reference: Reference,
    /// At the node.
    name: Name,
    digest: Digest,
    /// If the registry was asked just now.
    found: Option<Found<'a>>,
}

impl Registries {
    pub(crate) fn new(screen: Screen, args: RegistryArgs) -> Self {
        Self { screen, args, known: Mutex::default() }
    }

    /// Brings what a manifest names in registries to the node; changes nothing if it is a trial.
    pub(crate) async fn bring<'a>(
        &self,
        client: &Client,
        manifest: &'a Manifest,
        is_trial: bool,
    ) -> Result<Brought<'a>, Failure> {
        let (mut missing, mut stand_for) = (Vec::new(), BTreeMap::new());
        let references = references(manifest)?;
        if references.is_empty() {
            return Ok(Brought { manifest: Cow::Borrowed(manifest), missing });
        }
        let transport = Transport::new(&self.args)?;
        for one in self.look(&transport, references).await? {
            stand_for.insert(one.text, format!("{}@{}", one.name, one.digest));
            if held(client, &one.name, &one.digest).await?.is_some() {
                continue;
            }
            if is_trial {
                let (name, digest, from) = (&one.name, &one.digest, &one.reference);
                self.screen.note(&format!("would push component {name} ({digest})\n  from {from}"));
                missing.push((one.reference, one.name));
                continue;
            }
            let found = match one.found {
                Some(found) => found,
                None => Found::of(&transport, &one.reference).await?,
            };
            let pushed = push_bytes(client, &one.name, found.component().await?).await?;
            let text = pushed_text(&one.name, &pushed);
            self.screen.hint(&format!("{text}\n  from {}", one.reference));
        }
        Ok(Brought { manifest: Cow::Owned(manifest.with_components(&stand_for)), missing })
    }

    /// Finds out which component each is.
    async fn look<'t>(
        &self,
        transport: &'t Transport,
        references: BTreeMap<String, Reference>,
    ) -> Result<Vec<One<'t>>, Failure> {
        let mut all: Vec<One<'t>> = Vec::new();
        for (text, reference) in references {
            let (digest, found) = match self.known(&reference) {
                Some(digest) => (digest, None),
                None => {
                    let found = Found::of(transport, &reference).await?;
                    (found.layer.digest, Some(found))
                }
            };
            self.lock().insert(reference.clone(), digest);
            let name = reference.name();
            if let Some(other) = all.iter().find(|one| one.name == name && one.digest != digest) {
                return Err(same_name(&other.reference, &reference));
            }
            all.push(One { text, reference, name, digest, found });
        }
        Ok(all)
    }

    fn known(&self, reference: &Reference) -> Option<Digest> {
        self.lock().get(reference).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Reference, Digest>> {
        // What is in it is whole whatever became of who wrote it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stages name in registries, by how they write it.
fn references(manifest: &Manifest) -> Result<BTreeMap<String, Reference>, Failure> {
    let (mut references, mut mistakes) = (BTreeMap::new(), Vec::new());
    for (stage, text) in manifest.stages_components().filter(|(_, text)| is_reference(text)) {
        let mut refuse = |what: String, fix: String| {
            let place = format!("stages.{}.component", printable(stage));
            mistakes.push(Mistake { place, what, fix: Some(fix) });
        };
        match Reference::parse(text) {
            Ok(reference) if reference.digest().is_some() => {
                references.insert(text.to_owned(), reference);
            }
            Ok(reference) => refuse(
                format!("{reference} may be something else tomorrow"),
                format!("name it by its digest, which `sluicebox push {reference}` shows"),
            ),
            Err(failure) => {
                refuse(failure.what.clone(), failure.fix.clone().unwrap_or_default());
            }
        }
    }
    if mistakes.is_empty() {
        return Ok(references);
    }
    let what = format!("pipeline {} cannot be applied", manifest.name);
    let mut failure = Failure::new(Cause::Invalid, what).code("oci.reference");
    failure.mistakes = mistakes;
    Err(failure)
}

/// Two components that would have one name at the node.
fn same_name(one: &Reference, other: &Reference) -> Failure {
    let name = one.name();
    Failure::new(Cause::Invalid, format!("{one} and {other} would both be called {name}"))
        .code("oci.reference")
        .fix(format!("`sluicebox push {one} --name NAME`, and write NAME in the manifest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(components: &[&str]) -> Manifest {
        let stage =
            |(at, text): (usize, &&str)| format!("[stages.s{at}]\ncomponent = \"{text}\"\n");
        let stages: String = components.iter().enumerate().map(stage).collect();
        Manifest::parse(format!("name = \"p\"\n{stages}").into_bytes(), "p.toml").unwrap()
    }

    #[test]
    fn all_that_is_wrong_with_references_is_told_at_once() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = format!("oci://h/a@{digest}");
        let found = references(&manifest(&[&pinned, &pinned, "split", &digest])).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&pinned]);
        let failure =
            references(&manifest(&[&pinned, "oci://h/a:t", "oci://h/A:t", "split"])).unwrap_err();
        assert_eq!((failure.cause, failure.code.as_str()), (Cause::Invalid, "oci.reference"));
        let [tag, bad] = failure.mistakes.as_slice() else { panic!("{failure:?}") };
        assert_eq!(
            (tag.place.as_str(), bad.place.as_str()),
            ("stages.s1.component", "stages.s2.component")
        );
        assert!(tag.fix.as_ref().unwrap().contains("sluicebox push oci://h/a:t"), "{tag:?}");
    }

    #[test]
    fn the_node_is_sent_what_it_knows() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = format!("oci://h/a@{digest}");
        let known = format!("oci-a@{digest}");
        let stand_for = BTreeMap::from([(pinned.clone(), known.clone())]);
        let sent = manifest(&[&pinned, "split", &pinned]).with_components(&stand_for);
        let components: Vec<(&str, &str)> = sent.stages_components().collect();
        assert_eq!(components, [("s0", known.as_str()), ("s1", "split"), ("s2", known.as_str())]);
        assert_eq!(sent.name.as_str(), "p");
    }
}
