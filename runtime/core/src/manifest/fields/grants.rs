//! Fields of `grants`: what a stage may do besides the imports every stage has.

use super::{Field, Kind, Need, bounds, count, duration, field, size};

pub(super) static GRANTS: [Field; 3] = [
    field(
        "gpu",
        Kind::Table(&GPU),
        Need::Optional,
        "With this table, even an empty one, the stage may use the node's GPU, within the tenant's \
         slice: the imports of sluicebox:gpu.",
    ),
    field(
        "keyvalue",
        Kind::Table(&KEYVALUE),
        Need::Optional,
        "With this table the stage may open buckets of wasi:keyvalue. What is in them is part of \
         the state of its keys.",
    ),
    field(
        "http",
        Kind::Table(&HTTP),
        Need::Optional,
        "With this table the stage may make HTTP requests: the imports of wasi:http. A request is \
         made again if its event is run again. Not with scope stream.",
    ),
];

static GPU: [Field; 2] = [
    field(
        "weight",
        Kind::Integer { min: 1, max: bounds::GPU_WEIGHT_MAX },
        Need::Number(1),
        "Its share of the device's time beside the tenant's other stages that want it.",
    ),
    duration("deadline", bounds::GPU_DEADLINE_MS, "How long a submission may take, wait and all."),
];

static KEYVALUE: [Field; 1] = [field(
    "buckets",
    Kind::List { of: &Kind::Name, min: 1, max: bounds::BUCKETS_MAX, unique: true },
    Need::Required,
    "Names of the buckets it may open; what is kept in one is in slots that begin with its name \
     and a slash.",
)];

static HTTP: [Field; 5] = [
    field(
        "allow",
        Kind::List { of: &Kind::Origin, min: 1, max: bounds::ORIGINS_MAX, unique: true },
        Need::Required,
        "Where requests may go: scheme, host and port, all of them exactly; *. before a name \
         stands for every name below it.",
    ),
    count(
        "in-flight",
        bounds::HTTP_IN_FLIGHT,
        "Requests under way at once, in all instances on a node; further ones wait.",
    ),
    duration(
        "deadline",
        bounds::HTTP_DEADLINE_MS,
        "How long a request may take, to the end of its answer. Those of one call together may \
         take as much for each of its events.",
    ),
    size("request-bytes", bounds::HTTP_REQUEST_BYTES, "The body of a request."),
    size("response-bytes", bounds::HTTP_RESPONSE_BYTES, "The body of an answer."),
];
