//! The commands of `CONFORMANCE.md`, run natively. The suite in `tests/conformance.rs` runs them
//! in the engine.

use sluicebox_guest::Class;
use sluicebox_guest::testing::{Emitted, Handled, Harness, Input};

use super::*;

const TIME: u64 = 1_700_000_000_000_000;

fn harness() -> Harness {
    Harness::new(conform)
        .with_config("greeting", "hello")
        .with_asset("table", &b"0123456789abcdefghij"[..])
        .with_value_bytes_max(8)
}

fn command(harness: &mut Harness, payload: &[u8]) -> Handled {
    harness.handle([Input::data("key", payload).input(2).time(TIME).field(258, "text/plain")])
}

/// The payload of the only output.
fn answer_to(harness: &mut Harness, payload: &[u8]) -> Vec<u8> {
    let handled = command(harness, payload);
    assert_eq!(handled.failures, []);
    let [output] = handled.outputs.as_slice() else {
        panic!("one output, not {:?}", handled.outputs);
    };
    output.payload.clone()
}

fn output(payload: &[u8]) -> Emitted {
    let (key, payload) = ("key".to_owned(), payload.to_vec());
    Emitted { port: 0, cause: 0, time: TIME, key, payload, fields: Vec::new(), buffers: Vec::new() }
}

#[test]
fn commands_that_emit_say_what_and_where() {
    let mut harness = harness();
    let emitted = |harness: &mut Harness, payload| command(harness, payload).outputs;
    assert_eq!(emitted(&mut harness, b"ehello"), [output(b"hello")]);
    assert_eq!(emitted(&mut harness, b"e"), [output(b"")]);
    assert_eq!(emitted(&mut harness, b"n\x03"), [output(b"\0"), output(b"\x01"), output(b"\x02")]);
    assert_eq!(emitted(&mut harness, b"n\x00"), []);
    assert_eq!(emitted(&mut harness, b"p\x07x"), [Emitted { port: 7, ..output(b"x") }]);
    let keyed = Emitted { key: "own".to_owned(), ..output(b"x") };
    assert_eq!(emitted(&mut harness, b"k\x03ownx"), [keyed]);
    assert_eq!(emitted(&mut harness, b"u\0\0\0\0x"), [output(b"x")]);
    let fields = vec![(40_000, b"own".to_vec()), (258, b"text/plain".to_vec())];
    assert_eq!(emitted(&mut harness, b"fown"), [Emitted { fields, ..output(b"") }]);
    assert_eq!(emitted(&mut harness, b"lx"), [], "a level that does not exist emits nothing");
}

#[test]
fn an_event_describes_itself_and_so_does_one_that_is_not_data() {
    let mut harness = harness();
    let described = |kind: u8, input: u16| {
        [&[kind][..], &input.to_le_bytes(), &TIME.to_le_bytes(), b"key"].concat()
    };
    assert_eq!(answer_to(&mut harness, b"d"), described(0, 2));
    let others = [Input::timer("key", "t"), Input::open("key"), Input::end("key")];
    let handled = harness.handle(others.map(|input| input.time(TIME)));
    let payloads: Vec<Vec<u8>> = handled.outputs.into_iter().map(|out| out.payload).collect();
    assert_eq!(payloads, [described(1, 0), described(2, 0), described(3, 0)]);
}

#[test]
fn failures_have_class_and_message() {
    let mut harness = harness();
    let failures: [(&[u8], Class, &str); 8] = [
        (b"rlater", Class::Retry, "later"),
        (b"xnever", Class::Reject, "never"),
        (b"", Class::Reject, "unknown command"),
        (b"?", Class::Reject, "unknown command"),
        (b"n", Class::Reject, "unknown command"),
        (b"k\x09short", Class::Reject, "unknown command"),
        (b"a\x01x1234567", Class::Reject, "unknown command"),
        (b"lx", Class::Reject, "unknown command"),
    ];
    for (payload, class, message) in failures {
        let handled = command(&mut harness, payload);
        assert_eq!(handled.outputs, []);
        assert_eq!(handled.failures.len(), 1, "{payload:?}");
        let failure = &handled.failures[0].failure;
        assert_eq!((failure.class(), failure.message()), (class, message), "{payload:?}");
    }
}

#[test]
#[should_panic(expected = "trap on demand")]
fn a_trap_is_a_trap() {
    command(&mut harness(), b"t");
}

#[test]
fn state_is_read_and_written() {
    let mut harness = harness();
    let mut answer = |payload: &[u8]| answer_to(&mut harness, payload);
    assert_eq!(answer(b"gslot"), [0]);
    assert_eq!(answer(b"s\x04slotvalue"), [0]);
    assert_eq!(answer(b"gslot"), b"\x01value");
    assert_eq!(answer(b"s\x04slottoo large")[0], 2);
    assert_eq!(answer(b"a\x01n\x05\0\0\0\0\0\0\0"), b"\0\x05\0\0\0\0\0\0\0");
    assert_eq!(answer(b"a\x01n\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), b"\0\x04\0\0\0\0\0\0\0");
    assert_eq!(answer(b"a\x04slot\x05\0\0\0\0\0\0\0")[0], 2);
    assert_eq!(answer(b"Ss"), b"\x04slot\x05\0\0\0value");
    assert_eq!(answer(b"Snone"), b"");
    assert_eq!(answer(b"Dslot"), [1]);
    assert_eq!(answer(b"Dslot"), [0]);
}

#[test]
fn settings_assets_log_and_metrics_are_reached() {
    let mut harness = harness();
    assert_eq!(answer_to(&mut harness, b"cgreeting"), b"\x01hello");
    assert_eq!(answer_to(&mut harness, b"cnone"), [0]);
    let asset = [&20_u64.to_le_bytes()[..], b"0123456789abcdef"].concat();
    assert_eq!(answer_to(&mut harness, b"Atable"), asset);
    for silent in [&b"Anone"[..], b"l\x02careful", b"mseen"] {
        assert_eq!(command(&mut harness, silent), Handled::default());
    }
    assert_eq!(harness.log(), [(Level::Warn, "careful".to_owned())]);
    assert_eq!(harness.counts()["seen"], 1);
    assert_eq!(answer_to(&mut harness, b"w").len(), 8);
}
