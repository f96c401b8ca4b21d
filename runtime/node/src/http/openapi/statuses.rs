//! The status of each code that the description names. What a reply has is decided in `respond`; a
//! test holds the two against the guide to errors, and the fuzzer holds replies against these.

/// Codes by status.
pub(super) const STATUSES: [(u16, &[&str]); 14] = [
    (
        400,
        &[
            "component.core-module",
            "component.demand",
            "component.export",
            "component.import",
            "component.link",
            "component.malformed",
            "component.not-wasm",
            "compile.cpu",
            "compile.memory",
            "compile.output",
            "compile.refused",
            "gpu.terms",
            "ingest.attribute",
            "ingest.empty",
            "ingest.event-bytes",
            "ingest.fields",
            "ingest.header",
            "ingest.json",
            "ingest.key",
            "ingest.key-length",
            "ingest.key-utf8",
            "ingest.rejected",
            "ingest.time",
            "manifest.invalid",
            "name.invalid",
            "output.cursor",
            "request.body",
            "request.producer",
            "request.query",
            "request.upgrade",
            "request.wait",
            "stream.chunk",
            "stream.cut-off",
            "stream.event",
            "stream.key",
            "stream.output",
        ],
    ),
    (401, &["auth.token"]),
    (403, &["auth.foreign-site", "auth.scope"]),
    (
        404,
        &[
            "component.unknown",
            "output.unknown",
            "pipeline.unknown",
            "pipeline.unknown-version",
            "stage.unknown",
            "tenant.unknown",
        ],
    ),
    (405, &["request.method"]),
    (408, &["request.slow", "stream.idle"]),
    (
        409,
        &[
            "component.conflict",
            "ingest.repeat",
            "pipeline.conflict",
            "store.conflict",
            "stream.gap",
            "stream.taken-over",
        ],
    ),
    (410, &["output.trimmed"]),
    (413, &["component.too-large", "request.too-large", "store.too-large"]),
    (415, &["request.coding", "request.media-type"]),
    (
        429,
        &[
            "compile.busy",
            "gpu.limit",
            "gpu.memory",
            "gpu.oversold",
            "pipeline.busy",
            "quota.exhausted",
        ],
    ),
    (500, &["compile.crash", "gpu.driver", "internal", "store.corrupt"]),
    (
        503,
        &[
            "artefact.io",
            "compile.killed",
            "compile.mismatch",
            "compile.start",
            "compile.timeout",
            "gpu.hung",
            "gpu.lost",
            "gpu.none",
            "log.failed",
            "log.full",
            "log.no-checkpoint",
            "node.draining",
            "node.overloaded",
            "node.starting",
            "peer.unavailable",
            "store.full",
            "store.io",
            "store.poisoned",
            "store.read-only",
            "tenant.process",
        ],
    ),
    (504, &["request.deadline"]),
];

/// The status of a tenant's own disk quota stands alone: what has to be done is not to wait.
pub(super) const DISK_QUOTA: (u16, &[&str]) = (507, &["quota.disk"]);

/// The status of a code; 0 if it has no row.
pub(super) fn status_of(code: &str) -> u16 {
    let mut rows = STATUSES.iter().chain([&DISK_QUOTA]);
    rows.find(|(_, codes)| codes.contains(&code)).map_or(0, |(status, _)| *status)
}
