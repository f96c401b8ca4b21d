"""What the fuzzer is told besides its settings: bodies of media types it does not know, and checks
that are stricter than its own.

In the folder that `SLUICEBOX_FUZZ` names are a manifest, a component and a frame that are good.
"""

import json
import os
import pathlib

import jsonschema_rs
import schemathesis
from hypothesis import strategies as st

LINES = ("application/x-ndjson", "application/cloudevents+ndjson")
FRAMES = "application/vnd.sluicebox.frame"
GOOD = pathlib.Path(os.environ["SLUICEBOX_FUZZ"])


@schemathesis.serializer(*LINES, FRAMES, "application/toml", "application/wasm")
def as_bytes(context, value):
    if not isinstance(value, bytes):
        text = value if isinstance(value, str) else json.dumps(value)
        value = text.encode("utf-8", "surrogatepass")
    return {"data": value}


def damaged(good):
    """Bytes that are good, cut somewhere, or with one that is another."""
    cut = st.integers(0, len(good)).map(lambda at: good[:at])
    place = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255))
    other = place.map(lambda it: good[: it[0]] + bytes([it[1]]) + good[it[0] + 1 :])
    return st.just(good) | cut | other | st.binary(max_size=200)


def lines(one):
    return st.lists(one, max_size=4).map(lambda all: b"".join(line + b"\n" for line in all))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
EVENT = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": st.text(), "source": st.text(), "type": st.text()},
    optional={"data": JSON, "time": st.text(), "subject": st.text(), "partitionkey": st.text()},
)


def encoded(values):
    return values.map(lambda value: json.dumps(value).encode())


schemathesis.openapi.media_type(LINES[0], lines(encoded(JSON) | st.binary(max_size=50)))
schemathesis.openapi.media_type(LINES[1], lines(encoded(EVENT) | encoded(JSON)))
schemathesis.openapi.media_type("application/toml", damaged((GOOD / "manifest.toml").read_bytes()))
schemathesis.openapi.media_type("application/wasm", damaged((GOOD / "component.wasm").read_bytes()))
schemathesis.openapi.media_type(FRAMES, damaged((GOOD / "frame").read_bytes()))


@schemathesis.check
def its_status_is_named(context, response, case):
    """The fuzzer takes `default` for a description of any status; what a node means is listed."""
    named = case.operation.definition.raw["responses"]
    assert str(response.status_code) in named, f"{response.status_code} is not among {list(named)}"


@schemathesis.check
def every_line_is_as_described(context, response, case):
    """The description says of lines what one of them is."""
    content_type = response.headers.get("content-type", [""])[0].split(";")[0]
    if response.status_code != 200 or content_type != LINES[0]:
        return
    raw = case.operation.schema.raw_schema
    content = case.operation.definition.raw["responses"]["200"]["content"]
    schema = {**content[content_type]["schema"], "components": raw["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    for line in response.text.splitlines():
        validator.validate(json.loads(line))
