//! Fields of `grants`: what a stage may do besides the imports every stage has.

use super::{Field, Kind, Need, bounds, duration, field};

pub(super) static GRANTS: [Field; 2] = [
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
