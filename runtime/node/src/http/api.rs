//! The table of routes: what the node answers, and what may come of it.
//!
//! - The router of the control routes is built from it, and so is the published description
//!   (`openapi`). The paths with events are matched by hand in `route`; a test holds them against
//!   the table, and one from outside asks for every row.
//! - A row says everything a client can be told with: parameters, media types, statuses, codes.

mod codes;

use crate::tenants::Scope;
pub(super) use codes::TENANTS_CODES;
use codes::{
    BODY, CHANGE, COMPILE, COMPONENT, DEVICE, INGEST, MANIFEST, NAME, PIPELINE, QUERY, READING,
    SESSION, STORE,
};

/// Where everything of a tenant is.
pub(super) const TENANT: &str = "/v1/tenants/{tenant}";

/// Where the description is.
pub(super) const DESCRIPTION: &str = "/v1/openapi.json";

/// Where the nodes of the cluster are.
pub(super) const NODES: &str = "/v1/nodes";

/// One method of one path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Names of the caller's choice in braces.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// What the token has to allow; none where no tenant is concerned.
    pub(super) scope: Option<Scope>,
    pub(super) parameters: &'static [Parameter],
    /// Media types of the body; none if there is no body.
    pub(super) body: &'static [&'static str],
    pub(super) replies: &'static [Reply],
    /// Codes besides those of every route of its sort.
    pub(super) codes: &'static [&'static [&'static str]],
}

/// A parameter of the query, or a header.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) header: bool,
    /// A request without it is refused.
    pub(super) needed: bool,
    pub(super) sort: Sort,
    pub(super) about: &'static str,
}

/// What the value of a parameter may be.
#[derive(Debug)]
pub(super) enum Sort {
    Text,
    Flag,
    /// A whole number, from this one on.
    From(u64),
    /// One of these.
    Word(&'static [&'static str]),
    /// A text like this expression.
    Like(&'static str),
}

/// A number of seconds, or a duration with its unit.
const DURATION: Sort = Sort::Like("^[0-9]{1,10}(ms|s|m|h|d)?$");

/// A reply that is no error.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) about: &'static str,
    /// Media types, with the name of a schema.
    pub(super) content: &'static [(&'static str, &'static str)],
}

const fn query(name: &'static str, sort: Sort, about: &'static str) -> Parameter {
    Parameter { name, header: false, needed: false, sort, about }
}

const fn header(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, header: true, needed: false, sort: Sort::Text, about }
}

impl Parameter {
    const fn needed(mut self) -> Self {
        self.needed = true;
        self
    }
}

const fn json(status: u16, about: &'static str, schema: &'static [(&str, &str)]) -> Reply {
    Reply { status, about, content: schema }
}

const NOTHING: Reply = Reply { status: 204, about: "Done", content: &[] };

const EVENTS: &[&str] = &[
    "application/json",
    "application/octet-stream",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/cloudevents+ndjson",
    "application/vnd.sluicebox.frame",
];
const STREAMED: &[(&str, &str)] = &[
    ("application/x-ndjson", "Session"),
    ("application/vnd.sluicebox.frame", "Frames"),
    ("text/event-stream", "ServerSent"),
];
const PAGES: &[(&str, &str)] = &[
    ("application/x-ndjson", "Record"),
    ("application/vnd.sluicebox.frame", "Frames"),
    ("text/event-stream", "ServerSent"),
];
const STREAM: &[Parameter] = &[
    query(
        "chunk",
        Sort::Like("^([1-9][0-9]{0,9}|prefixed)$"),
        "How raw bytes are cut: a number of bytes, or `prefixed`",
    ),
    query("output", Sort::Text, "The output that comes back; `reply` or the only one unless said"),
    query(
        "from",
        Sort::From(0),
        "The ordinal of the body's first unit; where the key stands unless said",
    ),
    query("cursor", Sort::Text, "What comes behind this cursor first; from now on unless said"),
    header("Accept", "The form of the reply; lines of JSON unless another is named"),
    header("traceparent", "The W3C trace context that goes with the events"),
];
const READ: &[Parameter] = &[
    query("cursor", Sort::Text, "Where to begin: a cursor, `oldest` (the default) or `latest`"),
    query("limit", Sort::From(1), "At most so many events, from 1"),
    query("wait", DURATION, "How long to wait if there is nothing: `5s`, `500ms`; pages only"),
    header("Accept", "The form of the reply; lines of JSON unless another is named"),
    header("Accept-Encoding", "With gzip, large pages are compressed"),
    header("Last-Event-ID", "The last id that was seen; counts before `cursor`, to follow only"),
];
const SEND: &[Parameter] = &[
    query("key", Sort::Text, "The key of events that have none of their own"),
    query("wait", DURATION, "How long to wait for the result of the one event: `5s`"),
    query("usage", Sort::Flag, "With `wait`: what the event cost, in the header Sluicebox-Usage"),
    header("Prefer", "`wait=5`, the same"),
    header("Content-Encoding", "gzip or zstd"),
    header("Sluicebox-Key", "The key of the one event"),
    header("Sluicebox-Id", "Its id"),
    header("Sluicebox-Time", "Its time, RFC 3339 or microseconds since 1970"),
    header("Sluicebox-End", "`true`: it ends its stream"),
    header("Sluicebox-Producer", "Who numbers these requests"),
    header("Sluicebox-Sequence", "The number of this one; it only grows"),
    header("traceparent", "The W3C trace context that goes with the events"),
    header("ce-specversion", "`1.0`: a CloudEvent in binary mode, its attributes in `ce-` headers"),
    header("ce-id", "Its id"),
    header("ce-source", "Its source"),
    header("ce-type", "Its type"),
    header("ce-subject", "Its subject"),
    header("ce-time", "Its time"),
    header("ce-partitionkey", "Its key"),
    header("ce-traceparent", "Its trace context, before that of the request"),
];
const DRY_RUN: Parameter = query("dry-run", Sort::Flag, "Check and show what would change");
const DISCARD: Parameter =
    query("discard-state", Sort::Text, "A stage whose state is given up; may come several times");
const CODED: &[Parameter] = &[header("Content-Encoding", "gzip or zstd")];

/// A route of a tenant, as far as most are alike.
const fn route(
    (method, path): (&'static str, &'static str),
    (id, summary): (&'static str, &'static str),
    scope: Scope,
    replies: &'static [Reply],
    codes: &'static [&'static [&'static str]],
) -> Route {
    let (parameters, body) = (&[], &[]);
    Route { method, path, id, summary, scope: Some(scope), parameters, body, replies, codes }
}

impl Route {
    const fn takes(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters = parameters;
        self
    }

    const fn body(mut self, body: &'static [&'static str]) -> Self {
        self.body = body;
        self
    }

    const fn plain(mut self) -> Self {
        self.scope = None;
        self
    }
}

/// Every route there is.
pub(super) const ROUTES: &[Route] = &[
    route(
        ("GET", "/healthz"),
        ("health", "Whether the process runs"),
        Scope::Read,
        &[Reply { status: 200, about: "It does", content: &[("text/plain", "Line")] }],
        &[],
    )
    .plain(),
    route(
        ("GET", "/readyz"),
        ("readiness", "Whether the node is ready"),
        Scope::Read,
        &[
            Reply { status: 200, about: "It is", content: &[("text/plain", "Line")] },
            Reply { status: 503, about: "It is not, and why", content: &[("text/plain", "Line")] },
        ],
        &[],
    )
    .plain(),
    route(
        ("GET", "/metrics"),
        ("metrics", "Figures of the node"),
        Scope::Admin,
        &[Reply {
            status: 200,
            about: "OpenMetrics",
            content: &[("application/openmetrics-text", "Line")],
        }],
        &[&["auth.token", "auth.scope", "auth.foreign-site"]],
    )
    .plain(),
    route(
        ("GET", DESCRIPTION),
        ("describeApi", "This description"),
        Scope::Read,
        &[json(200, "OpenAPI 3.1", &[("application/json", "Object")])],
        &[],
    )
    .plain(),
    route(
        ("GET", NODES),
        ("listNodes", "The nodes of the cluster, as this one sees them"),
        Scope::Admin,
        &[json(200, "This one first", &[("application/json", "Nodes")])],
        &[&["auth.token", "auth.scope", "auth.foreign-site"]],
    )
    .plain(),
    route(
        ("POST", "/v1/tenants/{tenant}/pipelines/{name}/events"),
        ("sendEvents", "Send events"),
        Scope::Ingest,
        &[
            json(200, "The result of the one event that was waited for", &[("*/*", "Any")]),
            json(202, "Taken", &[("application/json", "Accepted")]),
            Reply { status: 204, about: "Handled, without a result", content: &[] },
        ],
        &[PIPELINE, QUERY, BODY, INGEST],
    )
    .takes(SEND)
    .body(EVENTS),
    route(
        ("POST", "/v1/tenants/{tenant}/pipelines/{name}/streams/{key}"),
        ("streamSession", "Send a stream, and read what comes of it, in one request"),
        Scope::Ingest,
        &[json(200, "Events of the output, as they come", STREAMED)],
        &[PIPELINE, &["output.unknown"], QUERY, READING, INGEST, SESSION],
    )
    .takes(STREAM)
    .body(&[
        "application/x-ndjson",
        "application/vnd.sluicebox.frame",
        "application/octet-stream",
    ]),
    route(
        ("GET", "/v1/tenants/{tenant}/pipelines/{name}/streams/{key}"),
        ("readStream", "How far the streams of a key have come"),
        Scope::Read,
        &[json(200, "The ordinal of its next unit", &[("application/json", "Standing")])],
        &[PIPELINE, &["stream.key"]],
    ),
    route(
        ("GET", "/v1/tenants/{tenant}/pipelines/{name}/outputs/{output}"),
        ("readOutput", "Read an output, or follow it"),
        Scope::Read,
        &[json(200, "A page, or events as they come", PAGES)],
        &[PIPELINE, &["output.unknown"], QUERY, READING],
    )
    .takes(READ),
    route(
        ("GET", "/v1/tenants/{tenant}/pipelines/{name}/dead-letters"),
        ("readDeadLetters", "Read what stages could not handle, or follow it"),
        Scope::Read,
        &[json(200, "A page, or events as they come", PAGES)],
        &[PIPELINE, QUERY, READING],
    )
    .takes(READ),
    route(
        ("GET", "/v1/tenants/{tenant}/pipelines/{name}/logs"),
        ("readLogs", "Read what stages said last"),
        Scope::Read,
        &[json(200, "A page of lines", &[("application/x-ndjson", "LogLine")])],
        &[PIPELINE, QUERY, &["output.cursor"]],
    )
    .takes(&[
        query("cursor", Sort::Text, "Where to begin: a cursor, `oldest` (the default) or `latest`"),
        query("limit", Sort::From(1), "At most so many lines, 1 to 10000"),
        query("wait", DURATION, "How long to wait if there is nothing: `5s`, `500ms`"),
        query("stage", Sort::Text, "Only those of this stage"),
        query(
            "level",
            Sort::Word(&["debug", "info", "warn", "error"]),
            "None less grave; all of them unless said",
        ),
    ]),
    route(
        ("POST", "/v1/tenants/{tenant}/pipelines/{name}/dead-letters/replay"),
        ("replayDeadLetters", "Give dead letters to their stage again"),
        Scope::Write,
        &[json(200, "A page of them was replayed", &[("application/json", "Replayed")])],
        &[PIPELINE, &["stage.unknown", "pipeline.busy", "quota.disk"], QUERY, READING, CHANGE],
    )
    .takes(&[
        query("cursor", Sort::Text, "Where to begin"),
        query("until", Sort::Text, "Where to end; as the first reply said"),
        query("stage", Sort::Text, "Only those of this stage"),
        query("limit", Sort::From(1), "At most so many, from 1"),
    ]),
    route(
        ("POST", "/v1/tenants/{tenant}/pipelines/{name}/resume"),
        ("resumePipeline", "Let a halted pipeline go on"),
        Scope::Write,
        &[NOTHING],
        &[PIPELINE],
    ),
    route(
        ("POST", "/v1/tenants/{tenant}/pipelines/{name}/rollback"),
        ("rollBackPipeline", "Apply an earlier version again"),
        Scope::Write,
        &[json(200, "Applied, or what would be", &[("application/json", "Applied")])],
        &[PIPELINE, &["pipeline.unknown-version"], QUERY, MANIFEST, CHANGE, STORE, DEVICE],
    )
    .takes(&[
        query("to", Sort::From(1), "The version; the one before that which runs unless said"),
        DRY_RUN,
        DISCARD,
    ]),
    route(
        ("POST", "/v1/tenants/{tenant}/pipelines/{name}/move"),
        ("movePipeline", "Move a pipeline, or some of its partitions, to another node"),
        Scope::Admin,
        &[json(200, "It is there", &[("application/json", "Moved")])],
        &[PIPELINE, QUERY, CHANGE],
    )
    .takes(&[
        query("to", Sort::Text, "The name of the node").needed(),
        query(
            "partitions",
            Sort::Like("^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$"),
            "Which partitions, as in 0,2,5-7; all of it if left out",
        ),
    ]),
    route(
        ("GET", "/v1/tenants/{tenant}/plan"),
        (
            "planPartitions",
            "Why partitions are where they are, and which moves would spare traffic",
        ),
        Scope::Admin,
        &[json(200, "Made from what all nodes say now", &[("application/json", "Plan")])],
        &[PIPELINE, NAME, QUERY],
    )
    .takes(&[query(
        "pipeline",
        Sort::Text,
        "Of one pipeline; of all of the tenant if left out",
    )]),
    route(
        ("GET", "/v1/tenants/{tenant}/usage"),
        ("describeTenant", "The tenant's quotas, and what its pipelines on this node have used"),
        Scope::Read,
        &[json(200, "As of now", &[("application/json", "Tenant")])],
        &[],
    ),
    route(
        ("GET", "/v1/tenants/{tenant}/bill"),
        ("describeBill", "What the tenant has used, and what it costs, on all nodes"),
        Scope::Read,
        &[json(200, "As of a second ago", &[("application/json", "Bill"), ("text/csv", "Line")])],
        &[QUERY],
    )
    .takes(&[
        query(
            "from",
            Sort::Text,
            "A day, or the beginning of an hour; all that is known unless said",
        ),
        query("to", Sort::Text, "The same, not in it any more; now unless said"),
        query("by", Sort::Text, "Which rows: pipeline, stage, hour, day, month, as in stage,day"),
        query(
            "format",
            Sort::Word(&["json", "csv"]),
            "json or csv; what the header Accept wants unless said",
        ),
    ]),
    route(
        ("GET", "/v1/tenants/{tenant}/gpu"),
        ("describeGpu", "The GPU, the tenant's share of it, and what it has used"),
        Scope::Read,
        &[json(200, "As of a second ago", &[("application/json", "Gpu")])],
        &[],
    ),
    route(
        ("GET", "/v1/tenants/{tenant}/pipelines"),
        ("listPipelines", "List pipelines"),
        Scope::Read,
        &[json(200, "All of the tenant", &[("application/json", "Pipelines")])],
        &[],
    ),
    route(
        ("PUT", "/v1/tenants/{tenant}/pipelines/{name}"),
        ("applyPipeline", "Create a pipeline, or put another version in its place"),
        Scope::Write,
        &[
            json(200, "Applied, or what would be", &[("application/json", "Applied")]),
            json(201, "Made", &[("application/json", "Applied")]),
        ],
        &[NAME, QUERY, BODY, MANIFEST, CHANGE, STORE, DEVICE],
    )
    .takes(&[DRY_RUN, DISCARD, header("Content-Encoding", "gzip or zstd")])
    .body(&["application/toml", "application/json"]),
    route(
        ("GET", "/v1/tenants/{tenant}/pipelines/{name}"),
        ("describePipeline", "Describe a pipeline"),
        Scope::Read,
        &[json(200, "The pipeline in detail", &[("application/json", "PipelineDetail")])],
        &[PIPELINE],
    ),
    route(
        ("DELETE", "/v1/tenants/{tenant}/pipelines/{name}"),
        ("deletePipeline", "Delete a pipeline with all it keeps"),
        Scope::Write,
        &[NOTHING],
        &[PIPELINE, CHANGE, STORE],
    ),
    route(
        ("GET", "/v1/tenants/{tenant}/components"),
        ("listComponents", "List components"),
        Scope::Read,
        &[json(200, "All of the tenant", &[("application/json", "Components")])],
        &[],
    ),
    route(
        ("PUT", "/v1/tenants/{tenant}/components/{name}"),
        ("pushComponent", "Upload a component"),
        Scope::Write,
        &[
            json(
                200,
                "The name stood for these bytes already",
                &[("application/json", "Component")],
            ),
            json(201, "Taken", &[("application/json", "Component")]),
        ],
        &[NAME, BODY, COMPILE, STORE],
    )
    .takes(CODED)
    .body(&["application/wasm"]),
    route(
        ("GET", "/v1/tenants/{tenant}/components/{name}"),
        ("describeComponent", "Describe a component"),
        Scope::Read,
        &[json(200, "The component", &[("application/json", "Component")])],
        &[COMPONENT],
    ),
    route(
        ("DELETE", "/v1/tenants/{tenant}/components/{name}"),
        ("deleteComponent", "Delete a component"),
        Scope::Write,
        &[NOTHING],
        &[COMPONENT, &["component.conflict"], STORE],
    ),
    route(
        ("POST", "/v1/tenants/{tenant}/assets"),
        ("pushAsset", "Upload a file for stages"),
        Scope::Write,
        &[json(201, "Taken", &[("application/json", "Asset")])],
        &[BODY, &["component.too-large"], STORE],
    )
    .takes(CODED)
    .body(&["application/octet-stream"]),
];
