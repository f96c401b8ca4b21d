//! Components in OCI registries: the command fetches and checks them, and gives them to the node.
//!
//! - The node asks no registry. What a pipeline names by `oci://…@sha256:…` is fetched here and
//!   pushed, and the node is sent what it knows it by, `name@digest`.
//! - Nothing is believed before it is checked: sizes before and while bytes are read, the manifest
//!   against the digest that names it, the component against the digest in the manifest.
//! - Nothing is kept on this machine. A component's digest is that of its layer, so what the node
//!   has is not fetched again.
//!
//! `oci/reference.rs` is how a component is named, `oci/manifest.rs` which layer it is,
//! `oci/exchange.rs` what is said to whom, `oci/credentials.rs` as whom, `oci/brought.rs` what
//! becomes of a pipeline's manifest. Pushing to registries is left to others' tools.

mod brought;
mod credentials;
mod exchange;
mod manifest;
mod reference;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use sluicebox_core::ids::{Digest, Name};

pub(crate) use self::brought::Registries;
use self::exchange::{Exchange, Transport};
use self::manifest::{Layer, MANIFEST_BYTES_MAX, MEDIA_ACCEPTED};
use self::reference::Reference;
pub(crate) use self::reference::is_reference;
use crate::args::push::RegistryArgs;
use crate::client::{Call, Client};
use crate::deploy::{Pushed, push_bytes, pushed_text};
use crate::failure::{Cause, Failure};
use crate::screen::Screen;

/// Something in a registry that is a component.
struct Found<'a> {
    /// What was asked for, by the digest of its manifest.
    pinned: Reference,
    layer: Layer,
    exchange: Exchange<'a>,
}

impl<'a> Found<'a> {
    /// Asks the registry what a reference stands for.
    async fn of(transport: &'a Transport, reference: &Reference) -> Result<Self, Failure> {
        let mut exchange = Exchange::new(transport, reference);
        let what = format!("manifests/{}", reference.version);
        let text = exchange.get(&what, MEDIA_ACCEPTED, MANIFEST_BYTES_MAX).await?;
        let is = digest_of(&text);
        if let Some(named) = reference.digest().filter(|named| *named != is) {
            return Err(altered(&format!("the manifest of {reference}"), named, is));
        }
        let pinned = reference.pinned(is);
        let layer = Layer::of(&text, &pinned)?;
        Ok(Self { pinned, layer, exchange })
    }

    /// The component itself.
    async fn component(mut self) -> Result<Bytes, Failure> {
        let Layer { digest, bytes } = self.layer;
        let component = self.exchange.get(&format!("blobs/{digest}"), "*/*", bytes).await?;
        let is = digest_of(&component);
        if is != digest {
            return Err(altered(&format!("the component of {}", self.pinned), digest, is));
        }
        Ok(component)
    }

    /// Brings it to the node under a name, unless it has it so.
    async fn push(self, client: &Client, name: &Name) -> Result<Pushed, Failure> {
        if let Some(info) = held(client, name, &self.layer.digest).await? {
            return Ok(Pushed { info, changed: false });
        }
        push_bytes(client, name, self.component().await?).await
    }
}

/// What the node knows of a name, if it stands for these bytes.
async fn held(client: &Client, name: &Name, digest: &Digest) -> Result<Option<Value>, Failure> {
    let path = client.path(&format!("components/{name}"));
    let info = match client.send(Call::new(Method::GET, path)).await {
        Ok(reply) => reply.json()?,
        Err(failure) if failure.cause == Cause::NotFound => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let known = info.get("digest").and_then(Value::as_str);
    Ok(if known == Some(digest.to_string().as_str()) { Some(info) } else { None })
}

/// `push oci://…`
pub(crate) async fn push(
    screen: Screen,
    client: &Client,
    (text, name): (&str, Option<Name>),
    args: &RegistryArgs,
) -> Result<(), Failure> {
    let reference = Reference::parse(text)?;
    let name = match name {
        Some(name) => name,
        None => reference.short_name()?,
    };
    let transport = Transport::new(args)?;
    let found = Found::of(&transport, &reference).await?;
    let pinned = found.pinned.to_string();
    let mut pushed = found.push(client, &name).await?;
    if let Some(info) = pushed.info.as_object_mut() {
        info.insert("from".to_owned(), json!(pinned));
    }
    let text = format!("{}\n  from {pinned}", pushed_text(&name, &pushed));
    screen.result(&pushed.info, &text)?;
    if reference.digest().is_none() {
        screen.note(&format!(
            "hint: {reference} may be something else tomorrow; name {pinned} to have the same \
             again"
        ));
    }
    Ok(())
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(<sha2::Sha256 as sha2::Digest>::digest(bytes).into())
}

/// Bytes are not those that their digest names.
fn altered(what: &str, named: Digest, is: Digest) -> Failure {
    let what = format!("{what} is not what was named: its digest is {is}, not {named}");
    Failure::new(Cause::Invalid, what)
        .code("oci.digest")
        .fix("nothing was pushed; the registry has damaged or changed bytes: ask who runs it")
}
