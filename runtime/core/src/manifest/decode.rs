//! From a value tree to a declaration and the list of its problems.
//!
//! The walk has already said what is wrong; decoding is silent and puts a default where it cannot
//! read. Only what two fields of one stage say to each other is judged here: settings that mean
//! nothing with the stage's scope. No list is taken beyond its allowed length.

mod connect;

use std::collections::BTreeMap;

use super::fields::MANIFEST;
use super::problem::{Problem, Problems};
use super::value::{Table, Value};
use super::walk::{Walk, member};
use super::words::{Reference, parse_component, parse_duration, parse_size};
use super::{Declaration, EdgeDeclaration, IngestDeclaration, OutputDeclaration, bounds};
use crate::json_key::Pointer;
use crate::origin::Origin;
use crate::pipeline::{
    Delivery, EdgeKey, EventTime, GpuGrant, Grants, HttpGrant, OnFailure, OnUpdate, ParkLimits,
    Scaling, Scope, Stage, StageLimits, StreamLimits, TimeUnit,
};

/// Reads a manifest. The declaration is complete if and only if there are no problems.
///
/// A manifest of another version is not looked at further: its other fields mean nothing here.
#[must_use]
pub fn read(manifest: &Value) -> (Declaration, Problems) {
    let mut problems = Problems::new();
    if let Some(version) = other_version(manifest) {
        let message = format!("is {version}, and this node reads version {}", bounds::VERSION);
        let fix = format!("write version = {}, or use a node that reads it", bounds::VERSION);
        problems.add(Problem::new("version", "manifest.version", message, fix));
        return (declaration(&View(None), &mut Problems::new()), problems);
    }
    Walk::new(&mut problems).table(&MANIFEST, manifest, "");
    let declaration = declaration(&View(Some(manifest)), &mut problems);
    (declaration, problems)
}

fn other_version(manifest: &Value) -> Option<i64> {
    let version = manifest.as_table()?.get("version")?.as_integer()?;
    (version != bounds::VERSION).then_some(version)
}

/// A value that may be absent, and its members; every question has an answer.
#[derive(Clone, Copy)]
struct View<'a>(Option<&'a Value>);

impl<'a> View<'a> {
    fn at(self, name: &str) -> Self {
        Self(self.0.and_then(Value::as_table).and_then(|table| table.get(name)))
    }

    const fn is_there(self) -> bool {
        self.0.is_some()
    }

    fn text(self) -> Option<&'a str> {
        self.0.and_then(Value::as_str)
    }

    fn word(self) -> String {
        self.text().unwrap_or_default().to_owned()
    }

    fn number(self) -> Option<u64> {
        self.0.and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok())
    }

    fn size(self, range: bounds::Range) -> u64 {
        let size = self.text().and_then(|text| parse_size(text).ok());
        size.unwrap_or(range.default)
    }

    fn duration(self, range: bounds::Range) -> u64 {
        let duration = self.text().and_then(|text| parse_duration(text).ok());
        duration.unwrap_or(range.default)
    }

    fn small<T: TryFrom<u64>>(self, default: T) -> T {
        self.number().and_then(|n| n.try_into().ok()).unwrap_or(default)
    }

    fn pointer(self) -> Option<Pointer> {
        self.text().and_then(Pointer::parse)
    }

    fn reference(self) -> Reference {
        self.text().map(Reference::parse).unwrap_or_default()
    }

    fn items(self, max: usize) -> impl Iterator<Item = Self> {
        let items = self.0.and_then(Value::as_array).unwrap_or_default();
        items.iter().take(max).map(|value| Self(Some(value)))
    }

    fn members(self, max: usize) -> impl Iterator<Item = (&'a String, Self)> {
        let table = self.0.and_then(Value::as_table);
        table
            .into_iter()
            .flat_map(Table::iter)
            .take(max)
            .map(|(name, value)| (name, Self(Some(value))))
    }

    fn texts(self, max: usize, default: &str) -> Vec<String> {
        if self.is_there() {
            self.items(max).map(Self::word).collect()
        } else {
            vec![default.to_owned()]
        }
    }

    fn text_map(self, max: usize) -> BTreeMap<String, String> {
        self.members(max).map(|(name, value)| (name.clone(), value.word())).collect()
    }
}

fn declaration(view: &View<'_>, problems: &mut Problems) -> Declaration {
    let stages = view.at("stages").members(bounds::STAGES_MAX);
    let outputs = view.at("outputs").members(bounds::OUTPUTS_MAX);
    Declaration {
        name: view.at("name").word(),
        delivery: match view.at("delivery").text() {
            Some(word) if word == Delivery::BestEffort.word() => Delivery::BestEffort,
            _ => Delivery::ExactlyOnce,
        },
        partitions: partitions(*view),
        scaling: scaling(view, problems),
        ingest: ingest(view.at("ingest"), problems),
        time: time(view.at("time")),
        stages: stages.map(|(name, view)| (name.clone(), stage(name, view, problems))).collect(),
        edges: view.at("edges").items(bounds::EDGES_MAX).map(edge).collect(),
        outputs: outputs.map(|(name, view)| (name.clone(), output(view))).collect(),
        sources: connect::sources(view.at("sources"), problems),
        sinks: connect::sinks(view.at("sinks"), problems),
    }
}

fn ingest(view: View<'_>, problems: &mut Problems) -> IngestDeclaration {
    if view.at("time-unit").is_there() && !view.at("time").is_there() {
        let message = "has a meaning only with ingest.time".to_owned();
        let fix = "remove it, or write where the time is: time = \"/pointer\"";
        problems.add(Problem::new("ingest.time-unit", "manifest.scope", message, fix));
    }
    IngestDeclaration {
        to: view.at("to").items(bounds::EDGES_MAX).map(View::reference).collect(),
        key: view.at("key").pointer(),
        time: view.at("time").pointer(),
        time_unit: match view.at("time-unit").text() {
            Some("s") => TimeUnit::Seconds,
            Some("us") => TimeUnit::Microseconds,
            _ => TimeUnit::Milliseconds,
        },
    }
}

fn partitions(view: View<'_>) -> Option<u16> {
    view.at("partitions").number().and_then(|n| u16::try_from(n).ok())
}

fn scaling(manifest: &View<'_>, problems: &mut Problems) -> Option<Scaling> {
    let view = manifest.at("scaling");
    let count = |name| view.at(name).number().and_then(|n| u16::try_from(n).ok());
    let scaling = view.is_there().then(|| Scaling {
        min: count("min").unwrap_or(1),
        max: count("max"),
        quiet_ms: view.at("quiet").duration(bounds::QUIET_MS),
        apart: view.at("apart").text().map(str::to_owned),
    })?;
    if let Some(max) = scaling.max.filter(|max| *max < scaling.min) {
        let message = format!("is {max}, less than scaling.min, which is {}", scaling.min);
        let fix = "write a number that is not less, or leave it out";
        problems.add(Problem::new("scaling.max", "manifest.range", message, fix));
    } else if let Some(out) = partitions(*manifest).filter(|at| scaling.clamp(*at) != *at) {
        let max = scaling.max.map_or_else(String::new, |max| format!(" and at most {max}"));
        let message = format!("is {out}, and scaling allows at least {}{max}", scaling.min);
        let fix = "write a number within its bounds, or leave it out";
        problems.add(Problem::new("partitions", "manifest.range", message, fix));
    }
    Some(scaling)
}

fn time(view: View<'_>) -> Option<EventTime> {
    view.is_there().then(|| EventTime {
        lateness_ms: view.at("lateness").duration(bounds::LATENESS_MS),
        idle_after_ms: view.at("idle-after").text().and_then(|text| parse_duration(text).ok()),
    })
}

fn stage(name: &str, view: View<'_>, problems: &mut Problems) -> Stage {
    let scope = match view.at("scope").text() {
        Some("key") => Scope::Key,
        Some("stream") => Scope::Stream,
        _ => Scope::Shared,
    };
    let path = member("stages", name);
    if !problems.names(&member(&path, "scope")) {
        scope_conflicts(view, scope, &path, problems);
        park_conflicts(view, scope, &path, problems);
    }
    let component = view.at("component").text().and_then(parse_component);
    Stage {
        name: name.to_owned(),
        from: view.at("from").text().map(str::to_owned),
        component: component.unwrap_or_default(),
        scope,
        config: view.at("config").text_map(bounds::CONFIG_ENTRIES_MAX),
        assets: view.at("assets").text_map(bounds::ASSETS_MAX),
        grants: grants(view.at("grants")),
        limits: limits(view.at("limits"), scope),
        state_ttl_ms: view.at("state-ttl").text().and_then(|text| parse_duration(text).ok()),
        on_failure: match view.at("on-failure").text() {
            Some("halt") => OnFailure::Halt,
            Some("park") => OnFailure::Park,
            _ => OnFailure::DeadLetter,
        },
        retries: view.at("retries").small(bounds::RETRIES_DEFAULT),
        ports: view.at("ports").texts(bounds::PORTS_MAX, bounds::PORT_DEFAULT),
        inputs: view.at("inputs").texts(bounds::PORTS_MAX, bounds::INPUT_DEFAULT),
        stream: if scope == Scope::Stream {
            stream(view.at("stream"))
        } else {
            StreamLimits::default()
        },
        park: park(view.at("park")),
    }
}

fn grants(view: View<'_>) -> Grants {
    let buckets = view.at("keyvalue").at("buckets").items(bounds::BUCKETS_MAX);
    Grants {
        gpu: gpu(view.at("gpu")),
        buckets: buckets.map(View::word).collect(),
        http: http(view.at("http")),
    }
}

fn http(view: View<'_>) -> Option<HttpGrant> {
    let origins = view.at("allow").items(bounds::ORIGINS_MAX);
    view.is_there().then(|| HttpGrant {
        allow: origins.filter_map(|origin| Origin::parse(origin.text()?)).collect(),
        in_flight: view.at("in-flight").small(bounds::HTTP_IN_FLIGHT.default as u16),
        deadline_ms: view.at("deadline").duration(bounds::HTTP_DEADLINE_MS),
        request_bytes: view.at("request-bytes").size(bounds::HTTP_REQUEST_BYTES),
        response_bytes: view.at("response-bytes").size(bounds::HTTP_RESPONSE_BYTES),
    })
}

fn gpu(view: View<'_>) -> Option<GpuGrant> {
    view.is_there().then(|| GpuGrant {
        weight: view.at("weight").small(1),
        deadline_ms: view.at("deadline").duration(bounds::GPU_DEADLINE_MS),
    })
}

/// Parking needs events that can be run again, and its settings need parking.
fn park_conflicts(view: View<'_>, scope: Scope, path: &str, problems: &mut Problems) {
    let parks = view.at("on-failure").text() == Some("park");
    if parks && scope == Scope::Stream {
        let message = "cannot be \"park\" with scope = \"stream\": the memory of a stream's \
                       instance cannot be taken back, so that its events cannot be run again";
        let fix = "write \"dead-letter\" or \"halt\", or another scope";
        let field = member(path, "on-failure");
        problems.add(Problem::new(field, "manifest.scope", message.to_owned(), fix));
    }
    if !parks && view.at("park").is_there() {
        let message = "has a meaning only with on-failure = \"park\"".to_owned();
        let fix = "remove it, or write on-failure = \"park\"";
        problems.add(Problem::new(member(path, "park"), "manifest.scope", message, fix));
    }
}

/// A setting that would be silently without effect is a mistake.
fn scope_conflicts(view: View<'_>, scope: Scope, path: &str, problems: &mut Problems) {
    let mut refuse = |field: String, needs: Scope| {
        let message = format!(
            "has a meaning only with scope = {:?}, and scope is {:?}",
            needs.word(),
            scope.word()
        );
        let fix = format!("remove it, or write scope = {:?}", needs.word());
        problems.add(Problem::new(field, "manifest.scope", message, fix));
    };
    if scope == Scope::Shared && view.at("limits").at("instances").is_there() {
        refuse(member(&member(path, "limits"), "instances"), Scope::Key);
    }
    if scope != Scope::Stream && view.at("stream").is_there() {
        refuse(member(path, "stream"), Scope::Stream);
    }
    if scope == Scope::Stream && view.at("grants").at("http").is_there() {
        let message = "cannot be with scope = \"stream\": the calls of a stream are made again \
                       when its instance is, and have to come to the same"
            .to_owned();
        let fix = "make the requests in a stage of another scope";
        let field = member(&member(path, "grants"), "http");
        problems.add(Problem::new(field, "manifest.scope", message, fix));
    }
    if scope == Scope::Stream && view.at("state-ttl").is_there() {
        let message = "has no meaning with scope = \"stream\": what a stream keeps goes when the \
                       stream ends"
            .to_owned();
        let fix = "remove it; stream.idle-timeout and stream.duration-max say when a stream ends";
        problems.add(Problem::new(member(path, "state-ttl"), "manifest.scope", message, fix));
    }
}

fn limits(view: View<'_>, scope: Scope) -> StageLimits {
    let instances = view.at("instances").small(bounds::INSTANCES_DEFAULT);
    StageLimits {
        memory: view.at("memory").size(bounds::MEMORY),
        fuel_per_event: view.at("fuel-per-event").small(bounds::FUEL_PER_EVENT.default),
        emit_bytes: view.at("emit-bytes").size(bounds::EMIT_BYTES),
        event_bytes: view.at("event-bytes").size(bounds::EVENT_BYTES),
        log_lines: view.at("log-lines").small(bounds::LOG_LINES_DEFAULT),
        state_bytes: view.at("state-bytes").size(bounds::STATE_BYTES),
        instances: if scope == Scope::Shared { bounds::INSTANCES_DEFAULT } else { instances },
    }
}

fn stream(view: View<'_>) -> StreamLimits {
    StreamLimits {
        idle_timeout_ms: view.at("idle-timeout").duration(bounds::IDLE_TIMEOUT_MS),
        events_max: view.at("events-max").small(bounds::EVENTS_MAX.default),
        bytes_max: view.at("bytes-max").size(bounds::BYTES_MAX),
        duration_max_ms: view.at("duration-max").duration(bounds::DURATION_MAX_MS),
        replay_bytes_max: view.at("replay-bytes-max").size(bounds::REPLAY_BYTES_MAX),
        on_update: match view.at("on-update").text() {
            Some("restart") => OnUpdate::Restart,
            Some("snapshot") => OnUpdate::Snapshot,
            _ => OnUpdate::Finish,
        },
    }
}

fn park(view: View<'_>) -> ParkLimits {
    ParkLimits {
        attempts: view.at("attempts").small(bounds::PARK_ATTEMPTS.default as u32),
        pause_ms: view.at("pause").duration(bounds::PARK_PAUSE_MS),
        pause_max_ms: view.at("pause-max").duration(bounds::PARK_PAUSE_MAX_MS),
        age_max_ms: view.at("age-max").duration(bounds::PARK_AGE_MAX_MS),
        events_max: view.at("events-max").small(bounds::PARK_EVENTS_MAX.default),
        bytes_max: view.at("bytes-max").size(bounds::PARK_BYTES_MAX),
    }
}

fn edge(view: View<'_>) -> EdgeDeclaration {
    EdgeDeclaration {
        from: view.at("from").reference(),
        to: view.at("to").reference(),
        key: edge_key(view.at("key")),
    }
}

fn output(view: View<'_>) -> OutputDeclaration {
    OutputDeclaration {
        from: view.at("from").reference(),
        key: edge_key(view.at("key")),
        retain_bytes: view.at("retain-bytes").size(bounds::RETAIN_BYTES),
    }
}

fn edge_key(view: View<'_>) -> EdgeKey {
    match view.text() {
        Some("emitted") => EdgeKey::Emitted,
        _ => view.at("json").pointer().map_or(EdgeKey::Cause, EdgeKey::Json),
    }
}
