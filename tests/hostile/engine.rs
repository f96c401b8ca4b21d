//! Hostile guests in the engine, without a node.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_core::error::{Classify as _, Kind};
use sluicebox_core::pipeline::{Scope, StageLimits};
use sluicebox_engine::sandbox::SLICE_FUEL;
use sluicebox_engine::stage::{MemoryMeter, TenantSlots};
use sluicebox_tests::events::{self, Dead, Given, Out, frame};
use sluicebox_tests::guests;
use sluicebox_tests::rig::{Batch, Chain, Guest, Rig, Spec};

/// What one call may use here. A guest that uses up all of it is over in a fraction of a second.
pub(crate) const LIMITS: StageLimits = StageLimits {
    memory: 16 << 20,
    fuel_per_event: 10_000_000,
    emit_bytes: 1 << 20,
    event_bytes: 256 << 10,
    log_lines: 10,
    state_bytes: 64 << 10,
    instances: 4,
};

/// Longest any one event may keep a thread busy under these limits, with much to spare: the fuel
/// alone is 10 ms.
const CALL_TIME_MAX: Duration = Duration::from_secs(4);

/// How a call with one event ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// A trap whose text has these words.
    Trap(&'static str),
    /// It returns and emits so many events.
    Returns(usize),
}

use End::{Returns, Trap};

/// Fuel or bytes, whichever is used up first: what a call of the host costs decides.
const A_LIMIT: End = Trap("(limits.");
const FUEL: End = Trap("(limits.fuel-per-event)");
const NOT_A_FRAME: End = Trap("it does not begin with the 16-byte header");
const BAD_SIZE: End = Trap("event 0: its size is not 32 + key + payload + fields");
const OUT_OF_BOUNDS: End = Trap("pointer/length out of bounds of memory");
const COPIED: End = Trap("was given more data than limits.emit-bytes");

/// Guest, first byte of the payload, and how it ends.
pub(crate) const ENDS: &[(&str, u8, End)] = &[
    ("bad-frame", b'-', Returns(1)),
    ("bad-frame", b'm', NOT_A_FRAME),
    ("bad-frame", b'v', Trap("the frame needs a reader of format 2")),
    ("bad-frame", b'c', Trap("event 1: the frame ends inside it")),
    ("bad-frame", b'C', Trap("event 1: the frame ends inside it")),
    ("bad-frame", b'z', Trap("46 bytes follow the last event")),
    ("bad-frame", b'l', Trap("the header says 63 bytes, there are 62")),
    ("bad-frame", b'x', Trap("the header says 62 bytes, there are 63")),
    ("bad-frame", b'h', NOT_A_FRAME),
    ("bad-frame", b'0', NOT_A_FRAME),
    ("bad-frame", b's', Trap("event 0: it is larger than the 262144 bytes allowed")),
    ("bad-frame", b'S', BAD_SIZE),
    ("bad-frame", b'p', BAD_SIZE),
    ("bad-frame", b'f', Trap("event 0: its extension fields are malformed")),
    ("bad-frame", b'F', BAD_SIZE),
    ("bad-frame", b'k', Trap("event 0: its key is not UTF-8")),
    ("bad-frame", b'K', Trap("event 0: its key is longer than 512 bytes")),
    ("bad-frame", b'd', Trap("event 0: its kind is none of")),
    ("bad-frame", b'g', Trap("event 0: its flags are not 0")),
    ("bad-frame", b't', Trap("event 0: its time is not below 2^53")),
    ("bad-frame", b'u', Trap("names event 256 as its cause, the call has 1")),
    ("bad-frame", b'U', Trap("names event 4294967295 as its cause, the call has 1")),
    ("bad-frame", b'a', Trap("leads out of its segment")),
    ("call-flood", b'x', FUEL),
    ("echo", b'x', Returns(1)),
    ("emit-huge", b'x', Trap("event 0: it is larger than the 262144 bytes allowed")),
    ("emit-many", b'x', A_LIMIT),
    ("extra-exports", b'x', Returns(1)),
    ("giant-argument", b'-', Returns(0)),
    ("giant-argument", b'E', OUT_OF_BOUNDS),
    ("giant-argument", b'L', OUT_OF_BOUNDS),
    ("giant-argument", b'r', OUT_OF_BOUNDS),
    ("giant-argument", b'e', COPIED),
    ("giant-argument", b'l', COPIED),
    ("giant-argument", b'm', COPIED),
    ("giant-argument", b'c', COPIED),
    ("giant-argument", b'k', COPIED),
    ("giant-argument", b's', COPIED),
    ("giant-argument", b'b', COPIED),
    ("giant-argument", b'R', COPIED),
    ("giant-random", b'x', Trap("wasi:random was asked for more than 65536 bytes at once")),
    ("grow-one", b'x', Returns(0)),
    ("handle-flood", b'x', Trap("more than 1000 handles of WASI at once")),
    ("log-flood", b'x', FUEL),
    ("panic-nth", b'x', Returns(1)),
    ("recurse", b'x', Trap("the stack overflowed: recursion too deep")),
    ("slow", b'x', Returns(1)),
    ("spin", b'x', FUEL),
    ("spin-clock", b'x', FUEL),
    ("spin-start", b'x', Trap("units to start")),
    ("stdout-flood", b'x', FUEL),
    ("table-grow", b'x', Trap("(limits.memory)")),
    ("trap-always", b'x', Trap("`unreachable` instruction executed")),
    ("trap-start", b'x', Trap("`unreachable` instruction executed")),
];

/// In tests of their own.
const ELSEWHERE: [&str; 2] = ["grow-many", "sleep"];

fn rig() -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_sluicebox-tests-compile"))
}

async fn hostile(rig: &Rig, name: &str) -> Guest {
    rig.guest(&format!("hostile/{name}")).await
}

fn spec() -> Spec {
    Spec { limits: LIMITS, ..Spec::default() }
}

fn outputs(batch: &Batch) -> Vec<Out> {
    events::outputs(batch.commit.as_ref().expect("nothing here halts"))
}

fn dead(batch: &Batch) -> Vec<Dead> {
    events::dead(batch.commit.as_ref().expect("nothing here halts"))
}

/// Events with these payloads' first bytes, all different behind that.
fn given(first: u8, count: u16) -> Vec<Given> {
    (0..count).map(|n| Given::new("k", [&[first][..], &n.to_le_bytes()].concat())).collect()
}

#[tokio::test]
async fn every_guest_ends_as_its_owner_was_promised() {
    let rig = rig();
    let mut seen: BTreeSet<&str> = ELSEWHERE.into();
    for (name, first, end) in ENDS {
        seen.insert(name);
        let guest = hostile(&rig, name).await;
        let mut chain = rig.stage(&guest, &spec());
        let what = format!("{name} {}", char::from(*first));
        for _ in 0..2 {
            ends_as_promised(&mut chain, &what, *first, *end).await;
        }
        let tenant = chain.tenant.clone();
        drop(chain);
        assert_eq!(tenant.memory.used(), 0, "{what}: memory stays charged");
        assert_eq!(tenant.instances.available_permits(), 32, "{what}: an instance stays charged");
    }
    let there: BTreeSet<String> = guests::names("hostile").into_iter().collect();
    assert!(there.iter().all(|name| seen.contains(name.as_str())), "not in the table: {there:?}");
}

async fn ends_as_promised(chain: &mut Chain, what: &str, first: u8, end: End) {
    let began = Instant::now();
    let batch = chain.batch(frame(&given(first, 1)), 1).await;
    let took = began.elapsed();
    let [call] = batch.calls.as_slice() else { panic!("{what}: {:?}", batch.calls) };
    assert!(took < CALL_TIME_MAX, "{what}: one event took {took:?}, {call:?}");
    assert!(call.usage.memory_bytes <= LIMITS.memory, "{what}: {call:?}");
    assert!(call.usage.fuel <= LIMITS.fuel_per_event * 2, "{what}: {call:?}");
    assert!(batch.lines.len() <= LIMITS.log_lines as usize, "{what}: {} lines", batch.lines.len());
    match (end, &call.trap) {
        (Returns(events), None) => {
            assert_eq!((outputs(&batch).len(), dead(&batch)), (events, vec![]), "{what}");
        }
        (Trap(words), Some(text)) => {
            assert!(text.contains(words), "{what}: not {words:?}: {text}");
            assert!(text.len() <= 1_200, "{what}: a message is short: {} bytes", text.len());
            assert_eq!(outputs(&batch), vec![], "{what}");
            let dead = dead(&batch);
            assert_eq!(dead.len(), 1, "{what}");
            assert_eq!((dead[0].class.as_str(), &dead[0].message), ("trap", text), "{what}");
        }
        (end, found) => panic!("{what}: not {end:?}: {found:?}"),
    }
}

/// Runs a good stage until `hog` is done; gives what `hog` gave and how many batches it was.
async fn beside<T>(rig: &Rig, hog: impl Future<Output = T>) -> (T, u64) {
    let echo = hostile(rig, "echo").await;
    let mut victim = rig.stage(&echo, &spec());
    let done = Cell::new(false);
    let hog = async {
        let result = hog.await;
        done.set(true);
        result
    };
    let good = async {
        let mut batches = 0;
        while !done.get() {
            let batch = victim.batch(frame(&given(b'v', 10)), 1).await;
            assert_eq!((outputs(&batch).len(), dead(&batch)), (10, vec![]));
            batches += 1;
            tokio::task::yield_now().await;
        }
        batches
    };
    tokio::join!(hog, good)
}

#[tokio::test]
async fn a_good_stage_gets_its_turn_beside_each_of_them() {
    let rig = rig();
    // Of the variants of a guest the last.
    let hogs: BTreeMap<&str, (u8, End)> = ENDS.iter().map(|(n, v, end)| (*n, (*v, *end))).collect();
    for (name, (first, end)) in hogs {
        let guest = hostile(&rig, name).await;
        let mut chain = rig.stage(&guest, &spec());
        let hog = async { chain.batch(frame(&given(first, 20)), 1).await };
        let (batch, turns) = beside(&rig, hog).await;
        let fuel: u64 = batch.calls.iter().map(|call| call.usage.fuel).sum();
        // Each slice of the hog is a turn of the other; a single instruction may cost several.
        assert!(turns >= fuel / SLICE_FUEL / 8, "{name}: {turns} turns in {fuel} units of fuel");
        let resolved = outputs(&batch).len() + dead(&batch).len();
        let expected = if matches!(end, Returns(0)) { 0 } else { 20 };
        assert_eq!(resolved, expected, "{name}");
    }
}

#[tokio::test]
async fn recursion_in_a_chain_costs_the_stage_it_is_in() {
    let rig = rig();
    let (recurse, echo) = (hostile(&rig, "recurse").await, hostile(&rig, "echo").await);
    let stages = [&echo, &echo, &echo, &recurse].map(|guest| (guest, spec()));
    let batch = rig.chain(&stages).batch(frame(&given(b'x', 3)), 1).await;
    let dead = dead(&batch);
    assert_eq!(dead.iter().map(|d| d.stage.as_str()).collect::<Vec<_>>(), ["stage-3"; 3]);
    assert!(dead.iter().all(|dead| dead.message.contains("recursion too deep")), "{dead:?}");
    assert_eq!(outputs(&batch), vec![]);
}

#[tokio::test]
async fn recursion_in_four_stages_at_once_is_four_errors() {
    let rig = rig();
    let recurse = hostile(&rig, "recurse").await;
    let mut chains = [(); 4].map(|()| rig.stage(&recurse, &spec()));
    let [a, b, c, d] = &mut chains;
    let all = async {
        tokio::join!(
            a.batch(frame(&given(b'x', 10)), 1),
            b.batch(frame(&given(b'x', 10)), 1),
            c.batch(frame(&given(b'x', 10)), 1),
            d.batch(frame(&given(b'x', 10)), 1),
        )
    };
    let ((a, b, c, d), _) = beside(&rig, all).await;
    for batch in [a, b, c, d] {
        let dead = dead(&batch);
        assert_eq!(dead.len(), 10);
        assert!(dead.iter().all(|dead| dead.message.contains("recursion too deep")), "{dead:?}");
    }
}

#[tokio::test]
async fn many_small_memories_are_one_sum() {
    let rig = rig();
    let refused = rig.upload(guests::bytes("hostile/grow-many")).await.unwrap_err();
    assert_eq!((refused.code(), refused.kind()), ("component.demand", Kind::Invalid), "{refused}");
    assert!(refused.to_string().contains("65 Wasm linear memories"), "{refused}");
    // As many as fit, each small: together they stop at the limit.
    let text =
        std::fs::read_to_string(sluicebox_tests::root().join("tests/guests/hostile/grow-many.wat"));
    let fewer = fewer_memories(&text.unwrap(), 32);
    let guest = rig.upload(fewer.into()).await.unwrap();
    let mut chain = rig.stage(&guest, &spec());
    let batch = chain.batch(frame(&given(b'x', 1)), 1).await;
    let [call] = batch.calls.as_slice() else { panic!("{:?}", batch.calls) };
    assert_eq!(call.trap, None);
    assert!(call.usage.memory_bytes > LIMITS.memory / 2, "{call:?}");
    assert!(call.usage.memory_bytes <= LIMITS.memory, "{call:?}");
}

/// The guest with a shorter chain of memories.
fn fewer_memories(text: &str, count: usize) -> Vec<u8> {
    let beyond = |line: &&str| {
        let number = line.trim().strip_prefix("(core instance $m").and_then(|rest| {
            rest.split(' ').next().and_then(|number| number.parse::<usize>().ok())
        });
        number.is_none_or(|number| number <= count)
    };
    let text: Vec<&str> = text.lines().filter(beyond).collect();
    let text = text.join("\n").replace("$m64", &format!("$m{count}"));
    wat::parse_str(&text).expect("it is the same with fewer lines")
}

#[tokio::test]
async fn a_panic_on_every_nth_event_costs_only_the_events_it_hits() {
    let rig = rig();
    let guest = hostile(&rig, "panic-nth").await;
    let mut chain = rig.stage(&guest, &spec());
    for _ in 0..5 {
        let given = given(b'x', 200);
        let batch = chain.batch(frame(&given), 1).await;
        let mut handled: Vec<Vec<u8>> = outputs(&batch).into_iter().map(|o| o.payload).collect();
        let lost: Vec<Vec<u8>> = dead(&batch).into_iter().map(|d| d.payload).collect();
        assert!(handled.is_sorted_by_key(|p| u16::from_le_bytes([p[1], p[2]])), "order is kept");
        assert!(lost.len() <= 40, "{} of 200 events are lost", lost.len());
        assert!(batch.calls.len() < 600, "{} calls for 200 events", batch.calls.len());
        handled.extend(lost);
        let resolved: BTreeSet<Vec<u8>> = handled.iter().cloned().collect();
        let all: BTreeSet<Vec<u8>> = given.into_iter().map(|given| given.payload).collect();
        assert_eq!((handled.len(), resolved), (200, all), "each event is resolved once");
    }
}

#[tokio::test]
async fn a_storm_of_traps_leaves_nothing_behind() {
    let rig = rig();
    for scope in [Scope::Shared, Scope::Key, Scope::Stream] {
        let guest = hostile(&rig, "trap-always").await;
        let mut chain = rig.stage(&guest, &Spec { scope, ..spec() });
        let storm = async {
            for _ in 0..5 {
                let batch = chain.batch(frame(&given(b'x', 200)), 1).await;
                let dead = dead(&batch);
                assert!(dead.len() >= 200, "{scope:?}: {} of 200 events", dead.len());
                assert!(dead.iter().all(|dead| dead.message.contains("unreachable")));
                assert!(batch.calls.len() <= 800, "{scope:?}: {} calls", batch.calls.len());
            }
        };
        let ((), turns) = beside(&rig, storm).await;
        assert!(turns > 0);
        assert_eq!((chain.live(), chain.tenant.memory.used()), (0, 0), "{scope:?}");
    }
}

#[tokio::test]
async fn a_sleeper_is_woken_by_its_deadline_and_disturbs_nobody() {
    let rig = rig();
    let guest = hostile(&rig, "sleep").await;
    let mut chain = rig.stage(&guest, &spec());
    let began = Instant::now();
    let (batch, turns) = beside(&rig, chain.batch(frame(&given(b'x', 1)), 1)).await;
    let took = began.elapsed();
    let [call] = batch.calls.as_slice() else { panic!("{:?}", batch.calls) };
    let text = call.trap.as_deref().unwrap_or_default();
    assert!(text.contains("waited for more than"), "{text}");
    assert!(took < Duration::from_secs(25), "it slept for {took:?}");
    assert!(turns > 100, "{turns}");
    assert_eq!(dead(&batch).len(), 1);
}

#[tokio::test]
async fn a_tenant_that_holds_all_it_may_holds_nothing_of_others() {
    let rig = rig();
    let (sleep, echo) = (hostile(&rig, "sleep").await, hostile(&rig, "echo").await);
    // Two calls at a time, three of which want to sleep; those behind them wait for a slot.
    let hog = Arc::new(TenantSlots::new(2, 2, MemoryMeter::new(1 << 20, None)));
    let mut chains = [(); 3].map(|()| rig.chain_of(&[(&sleep, spec())], &hog));
    let [a, b, c] = &mut chains;
    let all = async {
        tokio::join!(
            a.batch(frame(&given(b'x', 1)), 1),
            b.batch(frame(&given(b'x', 1)), 1),
            c.batch(frame(&given(b'x', 1)), 1),
        )
    };
    let mut victim = rig.stage(&echo, &spec());
    let good = async {
        for _ in 0..100 {
            let batch = victim.batch(frame(&given(b'v', 10)), 1).await;
            assert_eq!(outputs(&batch).len(), 10);
            tokio::task::yield_now().await;
        }
    };
    // The good one is through long before the first sleeper is woken.
    tokio::select! {
        biased;
        _ = all => panic!("a sleeper was done before a hundred batches"),
        () = good => {}
    }
    drop(chains);
    assert_eq!((hog.calls.available_permits(), hog.instances.available_permits()), (2, 2));
}

#[tokio::test]
async fn a_tenants_memory_is_bounded_over_all_its_stages() {
    let rig = rig();
    let (grow, giant) = (hostile(&rig, "grow-one").await, hostile(&rig, "giant-argument").await);
    let tenant = Arc::new(TenantSlots::new(8, 8, MemoryMeter::new(2 << 20, None)));
    let mut chain = rig.chain_of(&[(&grow, spec())], &tenant);
    let batch = chain.batch(frame(&given(b'x', 1)), 1).await;
    assert_eq!(batch.calls[0].trap, None);
    assert!(batch.calls[0].usage.memory_bytes <= 2 << 20, "{:?}", batch.calls);
    let mut chain = rig.chain_of(&[(&giant, spec())], &tenant);
    let batch = chain.batch(frame(&given(b'e', 1)), 1).await;
    let text = batch.calls[0].trap.as_deref().unwrap_or_default();
    assert!(text.contains("(memory-bytes)"), "the owner is told which quota: {text}");
}

#[tokio::test]
async fn what_could_never_run_is_refused_when_it_is_uploaded() {
    let rig = rig();
    let refusals = [
        ("core-module", "component.core-module", Kind::Invalid, "wasm32-wasip2"),
        ("http-import", "component.import", Kind::Denied, "`wasi:http/incoming-handler@0.2.0`"),
        ("no-handle", "component.export", Kind::Invalid, "exports no function `handle`"),
        ("unknown-import", "component.import", Kind::Denied, "`example:secrets/vault@1.0.0`"),
        ("wrong-handle", "component.export", Kind::Invalid, "func(frame: u32) -> u32"),
        ("wrong-import", "component.link", Kind::Invalid, "`emit` has the wrong type"),
    ];
    let mut seen = Vec::new();
    for (name, code, kind, words) in refusals {
        let error =
            rig.upload(guests::bytes(&format!("hostile-refused/{name}"))).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, kind), "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        seen.push(name.to_owned());
    }
    assert_eq!(guests::names("hostile-refused"), seen);
}
