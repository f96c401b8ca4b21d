//! The behaviour every invoker must show; call [`every_promise`] from its tests.
//!
//! - What a call did comes back with the layer, and nothing else does.
//! - The limits of the stage hold, whatever the stage does.
//! - A trap leaves no trace but its verdict, and the next call is served.
//! - Equal calls of a stage that keeps nothing have equal outcomes.
//! - Where instances have a memory: it lasts for a stream, is a bounded cache for a key, and is
//!   reused by anybody otherwise; the last call of a stream ends it.
//! - Streams that are more than there may be instances have their memory as well.
//! - Where they have images: who goes on from one does what the other would have done, and what is
//!   no image of the code leaves nobody. The same of snapshots, which are the stage's own.
//!
//! Each promise gets invokers of its own. One that is not kept panics with what was expected.
//! Leaves to others: which calls are made, and what is done about a trap (`sluicebox-core`).

mod images;

use std::sync::Arc;

use sluicebox_core::frame::{FrameBuilder, Head, Kind, NO_CAUSE};
use sluicebox_core::layer::{Failure, FailureClass, KeyRule, Layer, LayerLimits, Ports, Run};
use sluicebox_core::layer::{Spread, Target};
use sluicebox_core::partition::{Serves, Verdict};
use sluicebox_core::pipeline::StageLimits;
use sluicebox_core::state::{KeyedState, StateLimits};

use crate::invoker::{Invocation, Invoker, Outcome};

/// What the stage behind an invoker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// What the first byte of each event's payload says, as in `tests/guests/CONFORMANCE.md`: `e`
    /// emits the rest, `x` rejects with the rest as message, `t` traps, `a` adds to a counter.
    Obey,
    /// Traps on every seventh event an instance sees, and emits the others again.
    Remember,
    /// Emits without end.
    Flood,
    /// Writes log lines without end.
    Talk,
    /// Never returns.
    Spin,
    /// Calls itself without end.
    Recurse,
    /// Takes all the memory it can get, and returns.
    Grow,
}

/// A kind of invoker, under test.
pub trait Subject {
    /// An invoker of a stage that behaves like this; `None` if the kind cannot have such a stage.
    fn invoker(&self, behaviour: Behaviour, limits: &StageLimits) -> Option<Box<dyn Invoker>>;
}

/// Checks all promises of the invoker contract.
///
/// # Panics
/// If one is not kept.
pub async fn every_promise(subject: &dyn Subject) {
    what_a_call_did_comes_back_with_the_layer(subject).await;
    failures_name_their_event(subject).await;
    a_trap_leaves_no_trace(subject).await;
    equal_calls_have_equal_outcomes(subject).await;
    emitted_bytes_are_bounded(subject).await;
    log_lines_are_bounded(subject).await;
    time_stack_and_memory_are_bounded(subject).await;
    instances_of_anybody_are_reused(subject).await;
    a_stream_keeps_its_memory_to_its_last_call(subject).await;
    a_stream_is_not_served_by_a_stranger(subject).await;
    streams_beyond_their_number_keep_their_memory(subject).await;
    instances_of_keys_are_kept_and_bounded(subject).await;
    images::a_stream_goes_on_from_its_image(subject).await;
    images::an_image_replaces_what_is_there(subject).await;
    images::what_is_no_image_of_the_code_leaves_nobody(subject).await;
    images::a_stream_goes_on_from_a_snapshot(subject).await;
}

/// Every stage can do this much.
fn obedient(subject: &dyn Subject) -> Box<dyn Invoker> {
    let made = subject.invoker(Behaviour::Obey, &limits());
    made.expect("every kind of invoker can run a stage that obeys")
}

/// Small enough that breaking one is over soon.
pub(crate) fn limits() -> StageLimits {
    StageLimits {
        memory: 4 << 20,
        fuel_per_event: 2_000_000,
        emit_bytes: 64 << 10,
        event_bytes: 64 << 10,
        log_lines: 5,
        state_bytes: 4 << 10,
        instances: 2,
    }
}

pub(crate) fn layer() -> Box<Layer> {
    let target =
        Target { port: 0, input: 0, key: KeyRule::Cause, spread: Spread::One, inside: false };
    let bounds = limits();
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let limits = LayerLimits {
        emit_bytes: bytes(bounds.emit_bytes),
        event_bytes: bytes(bounds.event_bytes),
        reply_bytes: 1 << 16,
    };
    let state = StateLimits { key_bytes: bytes(bounds.state_bytes), total_bytes: 1 << 20 };
    let ports = Arc::new(Ports::new(1, vec![target]));
    Box::new(Layer::new(ports, limits, KeyedState::new(1, state)))
}

/// A call of data events with these payloads, all of the key `k`.
pub(crate) fn call(mut layer: Box<Layer>, serves: Serves, payloads: &[&[u8]]) -> Invocation {
    let mut builder = FrameBuilder::new();
    for (at, payload) in payloads.iter().enumerate() {
        builder.push(&Head::data(at as u64), b"k", payload, &[]);
    }
    layer.begin(builder.finish());
    Invocation { serves, layer, last: false, time: 1_700_000_000_000_000, seed: 7 }
}

/// A call of one event that only a stream gets.
pub(crate) fn turn(layer: Box<Layer>, serial: u64, kind: Kind) -> Invocation {
    let mut invocation = call(layer, stream(serial), &[]);
    let mut builder = FrameBuilder::new();
    let head = Head { kind, input: 0, port: 0, cause: NO_CAUSE, time: 1 };
    builder.push(&head, b"k", b"e", &[]);
    invocation.layer.begin(builder.finish());
    invocation.last = kind == Kind::End;
    invocation
}

fn key(name: &str) -> Serves {
    Serves::Key(Arc::from(name.as_bytes()))
}

pub(crate) fn stream(serial: u64) -> Serves {
    Serves::Stream(Arc::from(&b"k"[..]), serial)
}

/// What counter `n` becomes when 5 is added.
const ADD_5: &[u8] = b"a\x01n\x05\0\0\0\0\0\0\0";

pub(crate) fn returned(outcome: &Outcome) {
    assert_eq!(outcome.verdict, Verdict::Returned(Vec::new()));
}

/// The words of a trap.
pub(crate) fn trapped(outcome: &Outcome) -> &str {
    match &outcome.verdict {
        Verdict::Trapped(text) | Verdict::Lost(text) => text,
        Verdict::Returned(failures) => panic!("it returned {failures:?} and should have trapped"),
    }
}

/// The payloads of everything the accepted calls emitted.
pub(crate) fn emitted(layer: &mut Layer) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    layer.take_runs(|Run { frame, .. }| {
        payloads.extend(frame.events().map(|event| event.payload.to_vec()));
    });
    payloads
}

async fn what_a_call_did_comes_back_with_the_layer(subject: &dyn Subject) {
    let mut invoker = obedient(subject);
    let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"eone", ADD_5, b"etwo"])).await;
    returned(&outcome);
    let mut layer = outcome.layer;
    assert_eq!(layer.frame().len(), 3, "the layer still knows the events of its call");
    layer.accept();
    assert_eq!(layer.state().get(b"k", b"n"), Some(&5_i64.to_le_bytes()[..]));
    let answer = [&[0][..], &5_i64.to_le_bytes()].concat();
    assert_eq!(emitted(&mut layer), [b"one".to_vec(), answer, b"two".to_vec()]);
    // The state goes with the layer: another call sees it.
    let outcome = invoker.invoke(call(layer, Serves::Any, &[ADD_5])).await;
    returned(&outcome);
    let mut layer = outcome.layer;
    assert_eq!(layer.state().get(b"k", b"n"), Some(&10_i64.to_le_bytes()[..]));
}

async fn failures_name_their_event(subject: &dyn Subject) {
    let mut invoker = obedient(subject);
    let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"e", b"xfirst", b"xother"])).await;
    let failure = |event, text: &str| Failure::new(event, FailureClass::Reject, text.to_owned());
    let expected = vec![failure(1, "first"), failure(2, "other")];
    assert_eq!(outcome.verdict, Verdict::Returned(expected));
}

async fn a_trap_leaves_no_trace(subject: &dyn Subject) {
    let mut invoker = obedient(subject);
    let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"eold", ADD_5])).await;
    returned(&outcome);
    let mut layer = outcome.layer;
    layer.accept();
    let outcome = invoker.invoke(call(layer, Serves::Any, &[b"enew", ADD_5, b"t", ADD_5])).await;
    assert!(!trapped(&outcome).is_empty(), "a trap says what happened");
    let mut layer = outcome.layer;
    assert_eq!(layer.frame().len(), 4, "the layer comes back with the events of the call");
    layer.discard();
    assert_eq!(layer.state().get(b"k", b"n"), Some(&5_i64.to_le_bytes()[..]));
    let outcome = invoker.invoke(call(layer, Serves::Any, &[b"ebehind"])).await;
    returned(&outcome);
    let mut layer = outcome.layer;
    layer.accept();
    let answer = [&[0][..], &5_i64.to_le_bytes()].concat();
    assert_eq!(emitted(&mut layer), [b"old".to_vec(), answer, b"behind".to_vec()]);
}

async fn equal_calls_have_equal_outcomes(subject: &dyn Subject) {
    let payloads: [&[u8]; 5] = [b"eone", ADD_5, b"xno", b"", ADD_5];
    let mut seen = Vec::new();
    let mut invoker = obedient(subject);
    // A fresh invoker, the same once more, and then a used one.
    for fresh in [true, true, false] {
        if fresh {
            invoker = obedient(subject);
        }
        let outcome = invoker.invoke(call(layer(), Serves::Any, &payloads)).await;
        let Outcome { mut layer, verdict, said, .. } = outcome;
        layer.accept();
        let counter = layer.state().get(b"k", b"n").map(<[u8]>::to_vec);
        let state = layer.state_ref().bytes();
        seen.push((verdict, emitted(&mut layer), counter, state, said.lines, said.metrics));
    }
    assert_eq!(seen[0], seen[1], "two fresh invokers do the same");
    assert_eq!(seen[1], seen[2], "what was called before makes no difference");
}

async fn emitted_bytes_are_bounded(subject: &dyn Subject) {
    let Some(mut invoker) = subject.invoker(Behaviour::Flood, &limits()) else { return };
    let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"x"])).await;
    let text = trapped(&outcome);
    assert!(text.contains("limits.emit-bytes"), "the owner is told which limit: {text}");
    let mut layer = outcome.layer;
    layer.discard();
    assert_eq!(emitted(&mut layer), Vec::<Vec<u8>>::new());
}

async fn log_lines_are_bounded(subject: &dyn Subject) {
    let Some(mut invoker) = subject.invoker(Behaviour::Talk, &limits()) else { return };
    let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"x"])).await;
    trapped(&outcome);
    assert_eq!(outcome.said.lines.len(), limits().log_lines as usize);
    assert!(outcome.said.lines_dropped > 0, "what was dropped is counted");
}

async fn time_stack_and_memory_are_bounded(subject: &dyn Subject) {
    let limits = limits();
    if let Some(mut invoker) = subject.invoker(Behaviour::Spin, &limits) {
        let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"x"])).await;
        let text = trapped(&outcome);
        assert!(text.contains("limits.fuel-per-event"), "{text}");
        let used = outcome.usage.fuel;
        let fair = limits.fuel_per_event..=limits.fuel_per_event * 2;
        assert!(fair.contains(&used), "{used} units of fuel were used");
        // Twice the events, twice the fuel: a full frame is not cut short.
        let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"x", b"x"])).await;
        assert!(outcome.usage.fuel >= limits.fuel_per_event * 2);
    }
    if let Some(mut invoker) = subject.invoker(Behaviour::Recurse, &limits) {
        let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"x"])).await;
        let text = trapped(&outcome);
        assert!(text.contains("stack"), "{text}");
    }
    if let Some(mut invoker) = subject.invoker(Behaviour::Grow, &limits) {
        let outcome = invoker.invoke(call(layer(), Serves::Any, &[b"x"])).await;
        returned(&outcome);
        let used = outcome.usage.memory_bytes;
        assert!(used > limits.memory / 2 && used <= limits.memory, "{used} bytes were used");
        assert_eq!(invoker.live(), 0, "an instance that has grown to its limit is not kept");
    }
}

async fn instances_of_anybody_are_reused(subject: &dyn Subject) {
    let Some(mut invoker) = subject.invoker(Behaviour::Remember, &limits()) else { return };
    let mut layer = layer();
    for round in 1..=14 {
        let outcome = invoker.invoke(call(layer, Serves::Any, &[b"x"])).await;
        assert_eq!(outcome.usage.cold, round % 7 == 1, "round {round}");
        if round % 7 == 0 {
            trapped(&outcome);
            assert_eq!(invoker.live(), 0, "a trap takes its instance with it");
        } else {
            returned(&outcome);
            assert_eq!(invoker.live(), 1);
        }
        layer = outcome.layer;
        layer.discard();
    }
    returned(&invoker.invoke(call(layer, Serves::Any, &[b"x"])).await);
    invoker.trim();
    assert_eq!(invoker.live(), 0, "an instance that only saves time can be dropped");
}

async fn a_stream_keeps_its_memory_to_its_last_call(subject: &dyn Subject) {
    let Some(mut invoker) = subject.invoker(Behaviour::Remember, &limits()) else { return };
    let mut layer = layer();
    for round in 1..=6 {
        let kind = if round == 1 { Kind::Open } else { Kind::Data };
        let outcome = invoker.invoke(turn(layer, 1, kind)).await;
        returned(&outcome);
        invoker.trim();
        assert_eq!(invoker.live(), 1, "the memory of a stream is not a cache");
        layer = outcome.layer;
        layer.discard();
    }
    // The seventh event traps, so the memory was there; the trap ends it.
    let outcome = invoker.invoke(turn(layer, 1, Kind::Data)).await;
    trapped(&outcome);
    assert_eq!(invoker.live(), 0);
    let mut layer = outcome.layer;
    layer.discard();
    for kind in [Kind::Open, Kind::Data] {
        let outcome = invoker.invoke(turn(layer, 2, kind)).await;
        returned(&outcome);
        layer = outcome.layer;
        layer.discard();
    }
    let outcome = invoker.invoke(turn(layer, 2, Kind::End)).await;
    returned(&outcome);
    assert_eq!(invoker.live(), 0, "the last call ends the instance");
}

async fn streams_beyond_their_number_keep_their_memory(subject: &dyn Subject) {
    let Some(mut invoker) = subject.invoker(Behaviour::Remember, &limits()) else { return };
    let streams = u64::from(limits().instances) * 2;
    let mut layer = layer();
    for round in 1..=7 {
        for serial in 1..=streams {
            let kind = if round == 1 { Kind::Open } else { Kind::Data };
            let outcome = invoker.invoke(turn(layer, serial, kind)).await;
            let trapped = matches!(outcome.verdict, Verdict::Trapped(_));
            assert_eq!(trapped, round == 7, "round {round} of {serial}: {:?}", outcome.verdict);
            assert_eq!(invoker.holds(&stream(serial)), !trapped);
            layer = outcome.layer;
            layer.discard();
        }
        if round % 2 == 0 {
            invoker.put_away().await;
        }
    }
    assert_eq!(invoker.live(), 0, "all of them have trapped");
}

async fn a_stream_is_not_served_by_a_stranger(subject: &dyn Subject) {
    let Some(mut invoker) = subject.invoker(Behaviour::Remember, &limits()) else { return };
    let outcome = invoker.invoke(turn(layer(), 1, Kind::Open)).await;
    returned(&outcome);
    let outcome = invoker.invoke(turn(outcome.layer, 2, Kind::Data)).await;
    let text = trapped(&outcome);
    assert!(text.contains("the stream's instance is gone"), "{text}");
    invoker.abandon();
    assert_eq!(invoker.live(), 0, "whoever gives streams up gets their memory back");
    let outcome = invoker.invoke(turn(outcome.layer, 1, Kind::Data)).await;
    trapped(&outcome);
}

async fn instances_of_keys_are_kept_and_bounded(subject: &dyn Subject) {
    let Some(mut invoker) = subject.invoker(Behaviour::Remember, &limits()) else { return };
    let mut layer = layer();
    // Two keys fit: each finds its own instance again, until its seventh event.
    for round in 1..=7 {
        for name in ["a", "b"] {
            let outcome = invoker.invoke(call(layer, key(name), &[b"x"])).await;
            assert_eq!(outcome.usage.cold, round == 1, "round {round} of {name}");
            let trapped = matches!(outcome.verdict, Verdict::Trapped(_));
            assert_eq!(trapped, round == 7, "round {round} of {name}: {:?}", outcome.verdict);
            layer = outcome.layer;
            layer.discard();
        }
    }
    assert_eq!(invoker.live(), 0);
    // Three do not: the one that was not used for longest goes, and nobody gets another's.
    for round in 1..=8 {
        for name in ["a", "b", "c"] {
            let outcome = invoker.invoke(call(layer, key(name), &[b"x"])).await;
            returned(&outcome);
            assert!(outcome.usage.cold, "round {round} of {name}");
            assert!(invoker.live() <= limits().instances as usize);
            layer = outcome.layer;
            layer.discard();
        }
    }
    invoker.trim();
    assert_eq!(invoker.live(), 0);
}

#[cfg(test)]
mod tests;
