//! Which layer of an artifact is the component.
//!
//! Two layouts are read: that of the CNCF's working group for Wasm, whose layer is
//! `application/wasm`, and the one that was there before. Either has one layer and no other. What
//! the configuration says is not asked: the node inspects the component itself.

use serde::Deserialize;
use sluicebox_core::ids::Digest;

use super::reference::Reference;
use crate::failure::{Cause, Failure, printable};
use crate::render::grouped;

/// What is asked for. A list of manifests is asked for as well, to be able to say that it is one.
pub(super) const MEDIA_ACCEPTED: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json;q=0.1";

/// Largest manifest; registries take none that is larger.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Largest component that is fetched; the node's own limit is lower unless somebody raised it.
const COMPONENT_BYTES_MAX: u64 = 512 << 20;

/// What a layer is called that is a component.
const MEDIA_LAYERS: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];

/// How to put a component into a registry so that it is one.
const TOOLS: &str =
    "push one component with `wkg oci push` or `oras push REF component.wasm:application/wasm`";

/// The layer that is the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// What is read of a manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u64,
    layers: Option<Vec<Descriptor>>,
    /// Of a list.
    manifests: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Layer {
    /// Reads a manifest that is known to be the one that was meant.
    pub(super) fn of(text: &[u8], reference: &Reference) -> Result<Self, Failure> {
        let refuse = |what: String, fix: &str| {
            Failure::new(Cause::Invalid, format!("{reference} {what}")).code("oci.layout").fix(fix)
        };
        let manifest: Manifest = serde_json::from_slice(text)
            .map_err(|error| refuse(format!("has no manifest that can be read: {error}"), TOOLS))?;
        if manifest.manifests.is_some() {
            let what = "is a list of manifests and not one".to_owned();
            return Err(refuse(what, "name the digest of the manifest with the component"));
        }
        if manifest.schema_version != 2 {
            let what = format!("has a manifest of version {}, not 2", manifest.schema_version);
            return Err(refuse(what, TOOLS));
        }
        let layers = manifest.layers.unwrap_or_default();
        let [layer] = layers.as_slice() else {
            return Err(refuse(format!("has {} layers, and not one", layers.len()), TOOLS));
        };
        if !MEDIA_LAYERS.contains(&layer.media_type.as_str()) {
            let is = printable(&layer.media_type);
            return Err(refuse(format!("is no component: its layer is {is}"), TOOLS));
        }
        let digest = Digest::parse(&layer.digest).ok_or_else(|| {
            let is = printable(&layer.digest);
            refuse(format!("names its layer by {is}, which is no SHA-256"), TOOLS)
        })?;
        if layer.size > COMPONENT_BYTES_MAX {
            let (is, most) = (grouped(layer.size), grouped(COMPONENT_BYTES_MAX));
            let what = format!("{reference} has {is} bytes, and at most {most} are fetched");
            return Err(Failure::new(Cause::Invalid, what)
                .code("oci.size")
                .fix("build the component for size, or strip it"));
        }
        Ok(Self { digest, bytes: layer.size })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reference() -> Reference {
        Reference::parse("oci://h/a:t").unwrap()
    }

    fn layer(media_type: &str, size: u64) -> Value {
        let digest = format!("sha256:{}", "0a".repeat(32));
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    fn read(manifest: &Value) -> Result<Layer, Failure> {
        Layer::of(manifest.to_string().as_bytes(), &reference())
    }

    #[test]
    fn both_layouts_are_read() {
        for (config, media) in [
            ("application/vnd.wasm.config.v0+json", MEDIA_LAYERS[0]),
            ("application/vnd.wasm.config.v1+json", MEDIA_LAYERS[1]),
        ] {
            let manifest = json!({ "schemaVersion": 2, "config": layer(config, 2),
                                   "layers": [layer(media, 7)], "annotations": {} });
            assert_eq!(read(&manifest).unwrap().bytes, 7);
        }
    }

    #[test]
    fn what_is_not_one_component_is_refused_by_what_it_is() {
        let wasm = layer(MEDIA_LAYERS[0], 7);
        let mut md5 = wasm.clone();
        md5["digest"] = json!("md5:00");
        for (manifest, code, reason) in [
            (json!({ "schemaVersion": 2, "layers": [wasm, wasm] }), "oci.layout", "2 layers"),
            (json!({ "schemaVersion": 2, "layers": [] }), "oci.layout", "0 layers"),
            (json!({ "schemaVersion": 2 }), "oci.layout", "0 layers"),
            (json!({ "schemaVersion": 1, "layers": [wasm] }), "oci.layout", "version 1"),
            (
                json!({ "schemaVersion": 2, "layers": [layer("application/gzip", 7)] }),
                "oci.layout",
                "application/gzip",
            ),
            (json!({ "schemaVersion": 2, "layers": [md5] }), "oci.layout", "md5"),
            (json!({ "schemaVersion": 2, "manifests": [] }), "oci.layout", "a list"),
            (
                json!({ "schemaVersion": 2, "layers": [layer(MEDIA_LAYERS[0], u64::MAX)] }),
                "oci.size",
                "18,446,744,073,709,551,615 bytes",
            ),
            (json!([]), "oci.layout", "can be read"),
        ] {
            let failure = read(&manifest).unwrap_err();
            assert_eq!(failure.code, code, "{manifest}");
            assert!(failure.what.contains(reason), "{manifest}: {}", failure.what);
            assert!(failure.fix.is_some());
        }
    }
}
