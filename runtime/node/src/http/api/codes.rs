//! The codes of errors that routes answer with, in groups.

/// Of every route of a tenant.
pub(in crate::http) const TENANTS_CODES: &[&str] = &[
    "auth.token",
    "auth.scope",
    "auth.foreign-site",
    "tenant.unknown",
    "request.method",
    "quota.exhausted",
    "tenant.process",
    "peer.unavailable",
    "node.starting",
    "internal",
];

pub(super) const BODY: &[&str] =
    &["request.body", "request.coding", "request.slow", "request.too-large", "node.overloaded"];
pub(super) const QUERY: &[&str] = &["request.query"];
pub(super) const CHANGE: &[&str] =
    &["pipeline.conflict", "log.full", "log.no-checkpoint", "log.failed"];
pub(super) const PIPELINE: &[&str] = &["pipeline.unknown"];
pub(super) const COMPONENT: &[&str] = &["component.unknown"];
pub(super) const NAME: &[&str] = &["name.invalid"];
pub(super) const READING: &[&str] = &["output.cursor", "output.trimmed"];
pub(super) const MANIFEST: &[&str] = &["manifest.invalid"];
pub(super) const INGEST: &[&str] = &[
    "request.media-type",
    "request.producer",
    "request.wait",
    "request.deadline",
    "ingest.rejected",
    "ingest.repeat",
    "ingest.empty",
    "ingest.json",
    "ingest.key",
    "ingest.key-length",
    "ingest.key-utf8",
    "ingest.event-bytes",
    "ingest.time",
    "ingest.header",
    "ingest.attribute",
    "ingest.fields",
    "pipeline.busy",
    "quota.disk",
    "node.draining",
    "log.full",
    "log.no-checkpoint",
    "log.failed",
];
pub(super) const SESSION: &[&str] = &[
    "stream.key",
    "stream.chunk",
    "stream.output",
    "stream.gap",
    "stream.taken-over",
    "stream.cut-off",
    "stream.idle",
    "stream.event",
    "request.upgrade",
    "request.coding",
    "request.body",
    "request.too-large",
    "node.overloaded",
];
pub(super) const COMPILE: &[&str] = &[
    "component.conflict",
    "component.too-large",
    "component.not-wasm",
    "component.core-module",
    "component.malformed",
    "component.export",
    "component.import",
    "component.demand",
    "component.link",
    "compile.busy",
    "compile.cpu",
    "compile.memory",
    "compile.output",
    "compile.refused",
    "compile.timeout",
    "compile.killed",
    "compile.crash",
    "compile.start",
    "compile.mismatch",
    "artefact.io",
];
/// Of what keeps documents.
pub(super) const STORE: &[&str] = &[
    "store.full",
    "store.io",
    "store.poisoned",
    "store.read-only",
    "store.conflict",
    "store.corrupt",
    "store.too-large",
];
/// Of pipelines whose stages are granted a GPU.
pub(super) const DEVICE: &[&str] = &[
    "gpu.none",
    "gpu.terms",
    "gpu.oversold",
    "gpu.limit",
    "gpu.memory",
    "gpu.lost",
    "gpu.hung",
    "gpu.driver",
];
