//! Manifests as the suites write them.

use std::fmt::Write as _;

use sluicebox_core::pipeline::Scope;

use crate::rig::{CAUSE_KEY_PORT, PORTS, Spec};

/// The stage of [`single`] and [`of_spec`].
pub const STAGE: &str = "stage-0";

/// A pipeline of one stage in one partition, whose first port is the output `reply`. `more` is
/// said of the stage: `scope = "key"`.
#[must_use]
pub fn single(name: &str, component: &str, more: &str) -> String {
    format!(
        "version = 1\nname = \"{name}\"\ndelivery = \"best-effort\"\npartitions = 1\n\
         [ingest]\nto = [\"{STAGE}\"]\n\
         [outputs.reply]\nfrom = \"{STAGE}\"\n\
         [stages.{STAGE}]\ncomponent = \"{component}\"\n{more}\n"
    )
}

/// A pipeline in which a stage runs as the [`rig`](crate::rig) would run it: port `p3` is the
/// output `p3`, and the keys are those the rig gives.
#[must_use]
pub fn of_spec(name: &str, component: &str, spec: &Spec) -> String {
    let ports: Vec<String> = (0..PORTS).map(|port| format!("p{port}")).collect();
    let (scope, on_failure) = (spec.scope.word(), spec.on_failure.word());
    let mut text = format!(
        "version = 1\nname = \"{name}\"\ndelivery = \"best-effort\"\npartitions = 1\n\
         [ingest]\nto = [\"{STAGE}\"]\n"
    );
    for port in &ports {
        let key = if *port == ports[usize::from(CAUSE_KEY_PORT)] { "cause" } else { "emitted" };
        writeln!(text, "[outputs.{port}]\nfrom = \"{STAGE}.{port}\"\nkey = \"{key}\"").unwrap();
    }
    writeln!(
        text,
        "[stages.{STAGE}]\ncomponent = \"{component}\"\nports = {ports:?}\nscope = \"{scope}\"\n\
         on-failure = \"{on_failure}\"\nretries = {}",
        spec.retries
    )
    .unwrap();
    if spec.scope == Scope::Stream {
        let stream = &spec.stream;
        let (idle, events) = (stream.idle_timeout_ms, stream.events_max);
        writeln!(text, "stream = {{ idle-timeout = \"{idle}ms\", events-max = {events} }}")
            .unwrap();
    }
    let limits = &spec.limits;
    write!(
        text,
        "[stages.{STAGE}.limits]\nmemory = \"{}B\"\nfuel-per-event = {}\nevent-bytes = \"{}B\"\n\
         emit-bytes = \"{}B\"\nstate-bytes = \"{}B\"\nlog-lines = {}\n[stages.{STAGE}.config]\n",
        limits.memory,
        limits.fuel_per_event,
        limits.event_bytes,
        limits.emit_bytes,
        limits.state_bytes,
        limits.log_lines,
    )
    .unwrap();
    for (name, value) in &spec.config {
        writeln!(text, "{name} = {value:?}").unwrap();
    }
    text
}
