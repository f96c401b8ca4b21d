//! Declarations for tests: small ones written by hand, and random ones that are valid.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    ComponentRef, Cron, Delivery, EdgeKey, EventTime, Facts, GpuGrant, Grants, HttpGrant, Missed,
    NatsSink, NatsSource, OnFailure, OnUpdate, ParkLimits, Pipeline, Scaling, Scope, Sink,
    SinkKind, Source, SourceKind, Stage, StageLimits, StreamLimits, TimeUnit, Webhook, WebhookForm,
    build,
};
use crate::ids::Digest;
use crate::json_key::Pointer;
use crate::manifest::bounds::{self, Range};
use crate::manifest::{
    Declaration, EdgeDeclaration, IngestDeclaration, OutputDeclaration, Reference, Value,
};
use crate::origin::Origin;

/// A manifest from JSON text; for tests, where the text is known to be good.
pub(crate) fn json(text: &str) -> Value {
    fn convert(value: serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(truth) => Value::Bool(truth),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Value::Integer(number),
                None => Value::Float(number.to_string()),
            },
            serde_json::Value::String(text) => Value::String(text),
            serde_json::Value::Array(items) => {
                Value::Array(items.into_iter().map(convert).collect())
            }
            serde_json::Value::Object(members) => {
                Value::Table(members.into_iter().map(|(n, v)| (n, convert(v))).collect())
            }
        }
    }
    convert(serde_json::from_str(text).expect("the test's text is JSON"))
}

/// The pipeline of a manifest that is known to be good.
pub(crate) fn pipeline(text: &str) -> Pipeline {
    build(&json(text), &Facts::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// An endless supply of small choices, drawn from a list that shrinks to zeros.
struct Choices<'a> {
    drawn: std::slice::Iter<'a, u64>,
}

impl Choices<'_> {
    fn next(&mut self) -> u64 {
        self.drawn.next().copied().unwrap_or(0)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn within(&mut self, range: Range) -> u64 {
        range.min + self.next() % (range.max - range.min + 1)
    }

    fn key(&mut self) -> EdgeKey {
        match self.below(4) {
            0 | 1 => EdgeKey::Cause,
            2 => EdgeKey::Emitted,
            _ => EdgeKey::Json(self.pointer()),
        }
    }

    fn pointer(&mut self) -> Pointer {
        let text = ["", "/user", "/a~1b/0", "/m~0n/"][self.below(4)];
        Pointer::parse(text).expect("one of four valid pointers")
    }

    fn digest(&mut self) -> String {
        Digest([self.below(256) as u8; 32]).to_string()
    }

    fn component(&mut self) -> ComponentRef {
        let which = self.below(3);
        ComponentRef {
            name: (which != 1).then(|| format!("c{}", self.below(5))),
            digest: (which != 0).then(|| self.digest()),
        }
    }

    fn state_ttl_ms(&mut self, scope: Scope) -> Option<u64> {
        let (min, max) = (bounds::STATE_TTL_MS_MIN, bounds::STATE_TTL_MS_MAX);
        let some = self.within(Range { min, max, default: min });
        (scope != Scope::Stream && self.one_in(3)).then_some(some)
    }

    fn stage(&mut self, name: String) -> Stage {
        let scope = [Scope::Shared, Scope::Key, Scope::Stream][self.below(3)];
        let mut limits = StageLimits {
            memory: self.within(bounds::MEMORY),
            fuel_per_event: self.within(bounds::FUEL_PER_EVENT),
            emit_bytes: self.within(bounds::EMIT_BYTES),
            event_bytes: self.within(bounds::EVENT_BYTES),
            log_lines: self.below(bounds::LOG_LINES_MAX as usize + 1) as u32,
            state_bytes: self.within(bounds::STATE_BYTES),
            ..StageLimits::default()
        };
        if scope != Scope::Shared {
            limits.instances = 1 + self.below(bounds::INSTANCES_MAX as usize) as u32;
        }
        let mut stream = StreamLimits::default();
        if scope == Scope::Stream {
            stream = StreamLimits {
                idle_timeout_ms: self.within(bounds::IDLE_TIMEOUT_MS),
                events_max: self.within(bounds::EVENTS_MAX),
                bytes_max: self.within(bounds::BYTES_MAX),
                duration_max_ms: self.within(bounds::DURATION_MAX_MS),
                replay_bytes_max: self.within(bounds::REPLAY_BYTES_MAX),
                on_update: [OnUpdate::Finish, OnUpdate::Restart, OnUpdate::Snapshot][self.below(3)],
            };
        }
        let policies = [OnFailure::DeadLetter, OnFailure::Halt, OnFailure::Park];
        let on_failure = policies[self.below(if scope == Scope::Stream { 2 } else { 3 })];
        let mut park = ParkLimits::default();
        if on_failure == OnFailure::Park {
            park = ParkLimits {
                attempts: self.within(bounds::PARK_ATTEMPTS) as u32,
                pause_ms: self.within(bounds::PARK_PAUSE_MS),
                pause_max_ms: self.within(bounds::PARK_PAUSE_MAX_MS),
                age_max_ms: self.within(bounds::PARK_AGE_MAX_MS),
                events_max: self.within(bounds::PARK_EVENTS_MAX),
                bytes_max: self.within(bounds::PARK_BYTES_MAX),
            };
        }
        let text = ["", "plain", "quote \" and \n ü", "{}"][self.below(4)].to_owned();
        let from = self.one_in(9).then(|| format!("was-{name}"));
        Stage {
            name,
            from,
            component: self.component(),
            scope,
            config: (0..self.below(3)).map(|i| (format!("k{i}"), text.clone())).collect(),
            assets: (0..self.below(2)).map(|i| (format!("a{i}"), self.digest())).collect(),
            grants: self.grants(scope),
            limits,
            state_ttl_ms: self.state_ttl_ms(scope),
            on_failure,
            park,
            retries: self.below(usize::from(bounds::RETRIES_MAX) + 1) as u8,
            ports: (0..1 + self.below(3)).map(|i| format!("p{i}")).collect(),
            inputs: (0..1 + self.below(2)).map(|i| format!("i{i}")).collect(),
            stream,
        }
    }

    fn grants(&mut self, scope: Scope) -> Grants {
        let gpu = self.one_in(4).then(|| GpuGrant {
            weight: 1 + self.below(bounds::GPU_WEIGHT_MAX as usize) as u32,
            deadline_ms: self.within(bounds::GPU_DEADLINE_MS),
        });
        let buckets = if self.one_in(4) { 1 + self.below(3) } else { 0 };
        let buckets = (0..buckets).map(|i| format!("b{i}")).collect();
        Grants { gpu, buckets, http: self.http(scope) }
    }

    fn http(&mut self, scope: Scope) -> Option<HttpGrant> {
        (scope != Scope::Stream && self.one_in(4)).then(|| HttpGrant {
            allow: (0..1 + self.below(3))
                .filter_map(|i| Origin::parse(&format!("https://*.h{i}.example:8443")))
                .collect(),
            in_flight: self.within(bounds::HTTP_IN_FLIGHT) as u16,
            deadline_ms: self.within(bounds::HTTP_DEADLINE_MS),
            request_bytes: self.within(bounds::HTTP_REQUEST_BYTES),
            response_bytes: self.within(bounds::HTTP_RESPONSE_BYTES),
        })
    }

    fn reference(&mut self, stage: &str, parts: &[String]) -> Reference {
        let part = self.below(parts.len());
        Reference { stage: stage.to_owned(), part: Some(parts[part].clone()) }
    }

    /// Stages in an order edges follow; their names sort otherwise.
    fn graph(&mut self) -> (Vec<Stage>, Vec<Reference>, Vec<EdgeDeclaration>) {
        let count = 1 + self.below(10);
        let mut stages: Vec<Stage> = Vec::new();
        let (mut to, mut edges) = (Vec::new(), Vec::new());
        let mut taken = BTreeSet::new();
        for i in 0..count {
            let letter = ["m", "a", "z"][self.below(3)];
            let stage = self.stage(format!("{letter}{i}"));
            for input in &stage.inputs {
                let target = Reference { stage: stage.name.clone(), part: Some(input.clone()) };
                // Mostly one edge, so that segments longer than one stage are common.
                let feeds = if i == 0 { 0 } else { [1, 1, 1, 2][self.below(4)] };
                for _ in 0..feeds {
                    let from = self.below(stages.len());
                    let (name, ports) = (stages[from].name.clone(), stages[from].ports.clone());
                    let from = self.reference(&name, &ports);
                    if taken.insert((from.clone(), target.clone())) {
                        edges.push(EdgeDeclaration { from, to: target.clone(), key: self.key() });
                    }
                }
                if feeds == 0 || self.one_in(8) {
                    to.push(target);
                }
            }
            stages.push(stage);
        }
        (stages, to, edges)
    }

    /// Without a log the node can keep no place in files.
    fn connectors(
        &mut self,
        outputs: &BTreeMap<String, OutputDeclaration>,
    ) -> (BTreeMap<String, Source>, BTreeMap<String, Sink>) {
        let source = |name: String, choices: &mut Self| {
            let missed = [Missed::Skip, Missed::Once, Missed::All][choices.below(3)];
            let cron = Cron { at: "0 3 * * *".to_owned(), zone: "UTC".to_owned(), missed };
            let key = choices.one_in(2).then(|| "k".to_owned());
            let kind = match choices.one_in(3) {
                true => SourceKind::Nats(choices.subject()),
                false => SourceKind::Cron(cron),
            };
            (name.clone(), Source { name, key, kind })
        };
        let sources = (0..self.below(3)).map(|i| source(format!("in{i}"), self)).collect();
        let mut sinks = BTreeMap::new();
        for output in outputs.keys() {
            if self.one_in(2) {
                continue;
            }
            let forms = [WebhookForm::Payload, WebhookForm::Event, WebhookForm::Lines];
            let form = forms[self.below(3)];
            let most = bounds::BATCH_EVENTS;
            let lines = form == WebhookForm::Lines;
            let hook = Webhook {
                url: "https://example.test/x".to_owned(),
                form,
                batch_events: if lines { self.within(most) } else { most.default },
                secret: self.one_in(2).then(|| "s".to_owned()),
                timeout_ms: self.within(bounds::SINK_TIMEOUT_MS),
                pause_max_ms: self.within(bounds::SINK_PAUSE_MAX_MS),
            };
            let name = format!("to-{output}");
            let (from, drops) = (output.clone(), self.one_in(2));
            let kind = match self.one_in(3) {
                true => SinkKind::Nats(self.published()),
                false => SinkKind::Webhook(hook),
            };
            sinks.insert(name.clone(), Sink { name, from, drops, kind });
        }
        (sources, sinks)
    }

    /// Without a log there is no place in a stream.
    fn subject(&mut self) -> NatsSource {
        NatsSource {
            url: "nats://nats.test".to_owned(),
            subject: Some("a.>".to_owned()),
            queue: self.one_in(2).then(|| "q".to_owned()),
            message_bytes: self.within(bounds::LINE_BYTES),
            secret: self.one_in(2).then(|| "s".to_owned()),
            ..NatsSource::default()
        }
    }

    fn published(&mut self) -> NatsSink {
        NatsSink {
            url: "tls://nats.test:4223".to_owned(),
            subject: "results".to_owned(),
            form: [WebhookForm::Payload, WebhookForm::Event][self.below(2)],
            by_stream: self.one_in(2),
            batch_events: self.within(bounds::BATCH_MESSAGES),
            secret: self.one_in(2).then(|| "s".to_owned()),
            timeout_ms: self.within(bounds::SINK_TIMEOUT_MS),
            pause_max_ms: self.within(bounds::SINK_PAUSE_MAX_MS),
        }
    }

    fn declaration(&mut self) -> Declaration {
        let (stages, to, edges) = self.graph();
        let key = self.one_in(2).then(|| self.pointer());
        let event_time = self.one_in(3).then(|| self.pointer());
        let time_unit = match (&event_time, self.below(3)) {
            (Some(_), 0) => TimeUnit::Seconds,
            (Some(_), 1) => TimeUnit::Microseconds,
            _ => TimeUnit::Milliseconds,
        };
        let time = self.one_in(3).then(|| EventTime {
            lateness_ms: self.within(bounds::LATENESS_MS),
            idle_after_ms: self.one_in(2).then_some(bounds::IDLE_AFTER_MS_MIN),
        });
        let streams = stages.iter().any(|stage| stage.scope == Scope::Stream);
        let scaling = (!streams && self.one_in(3)).then(|| {
            let min = 1 + self.below(1024) as u16;
            let quiet_ms = self.within(bounds::QUIET_MS);
            let max = self.one_in(2).then_some(1024);
            let at = self.below(stages.len());
            let apart = self.one_in(2).then(|| stages[at].name.clone());
            Scaling { min, max, quiet_ms, apart }
        });
        let partitions = self.one_in(2).then(|| 1 + self.below(1024) as u16);
        let within = |at| scaling.as_ref().map_or(at, |scaling: &Scaling| scaling.clamp(at));
        let partitions = partitions.map(within);
        let mut outputs = BTreeMap::new();
        for i in 0..self.below(4) {
            let stage = self.below(stages.len());
            let (name, ports) = (stages[stage].name.clone(), stages[stage].ports.clone());
            let from = self.reference(&name, &ports);
            let retain_bytes = self.within(bounds::RETAIN_BYTES);
            let output = OutputDeclaration { from, key: self.key(), retain_bytes };
            outputs.insert(format!("o{i}"), output);
        }
        let (sources, sinks) = self.connectors(&outputs);
        Declaration {
            name: "sample".to_owned(),
            delivery: Delivery::BestEffort,
            partitions,
            scaling,
            ingest: IngestDeclaration { to, key, time: event_time, time_unit },
            time,
            stages: stages.into_iter().map(|stage| (stage.name.clone(), stage)).collect(),
            edges,
            outputs,
            sources,
            sinks,
        }
    }
}

/// Any valid declaration.
pub(crate) fn declarations() -> impl Strategy<Value = Declaration> {
    let drawn = proptest::collection::vec(any::<u64>(), 0..400);
    drawn.prop_map(|drawn| Choices { drawn: drawn.iter() }.declaration())
}

/// Any pipeline.
pub(crate) fn pipelines() -> impl Strategy<Value = Pipeline> {
    declarations().prop_map(|declaration| {
        build(&declaration.write(), &Facts::default()).unwrap_or_else(|p| panic!("{p}"))
    })
}
