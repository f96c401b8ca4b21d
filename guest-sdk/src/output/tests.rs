//! Emitting: what arrives at the host, when, and what never does.

use crate::event::{Event, Events, field};
use crate::failure::{Class, Failure};
use crate::output::{FLUSH_BYTES, Output};
use crate::testing::{Harness, Input};

#[test]
fn an_event_has_the_time_and_key_of_its_cause_unless_it_has_its_own() {
    fn stage(event: Event<'_>, out: &mut Output) {
        out.emit(&event, "plain");
        out.draft(&event).port(3).key("own").time(9).field(40_000, [1, 2]).emit("draft");
        out.json(&event, &[1, 2]);
    }
    let handled = Harness::new(stage).handle([Input::data("k", "").time(5)]);
    let [plain, draft, json] = handled.outputs.as_slice() else {
        panic!("three outputs, not {}", handled.outputs.len());
    };
    assert_eq!((plain.port, plain.time, plain.key.as_str(), plain.text()), (0, 5, "k", "plain"));
    assert_eq!((draft.port, draft.time, draft.key.as_str(), draft.text()), (3, 9, "own", "draft"));
    assert_eq!(draft.fields, [(40_000, vec![1, 2])]);
    assert_eq!((json.key.as_str(), json.text()), ("k", "[1,2]"));
    assert_eq!(json.fields, [], "the fields of a draft are not those of the next event");
}

#[test]
fn the_cause_is_the_index_of_the_event() {
    fn stage(event: Event<'_>, out: &mut Output) {
        out.emit(&event, event.payload());
        out.draft(&event).cause(0).emit("first");
    }
    let handled = Harness::new(stage).handle(["a", "b"].map(|payload| Input::data("", payload)));
    let causes: Vec<(u32, &str)> =
        handled.outputs.iter().map(|output| (output.cause, output.text())).collect();
    assert_eq!(causes, [(0, "a"), (0, "first"), (1, "b"), (0, "first")]);
}

#[test]
#[should_panic(expected = "trap: the call has no event 1")]
fn a_cause_that_does_not_exist_traps() {
    fn stage(event: Event<'_>, out: &mut Output) {
        out.draft(&event).cause(1).emit("");
    }
    Harness::new(stage).send("", "");
}

#[test]
fn many_large_events_arrive_whole_and_in_order() {
    // Larger than the buffer in all, and some of them larger than it alone.
    const SIZES: [usize; 6] = [100_000, 200_000, 0, FLUSH_BYTES * 2, 5, FLUSH_BYTES - 48];
    fn stage(events: Events<'_>, out: &mut Output) {
        for event in events {
            for (n, size) in SIZES.into_iter().enumerate() {
                out.emit(&event, vec![n as u8; size]);
            }
        }
    }
    let mut harness = Harness::new(stage);
    for _ in 0..2 {
        let handled = harness.send("", "");
        let payloads: Vec<&[u8]> = handled.outputs.iter().map(|output| &*output.payload).collect();
        let expected: Vec<Vec<u8>> =
            SIZES.into_iter().enumerate().map(|(n, size)| vec![n as u8; size]).collect();
        assert!(payloads == expected, "payloads differ");
    }
}

#[test]
fn attachments_are_packed_as_the_host_packs_them() {
    fn stage(event: Event<'_>, out: &mut Output) {
        let handles: Vec<u64> = event.attachments().collect();
        out.draft(&event).attachments(&handles).emit("");
    }
    let handles = [7_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
    let given = Input::data("", "").field(field::ATTACHMENTS, &handles);
    let handled = Harness::new(stage).handle([given]);
    assert_eq!(handled.outputs[0].fields, [(field::ATTACHMENTS, handles)]);
}

#[test]
fn an_event_no_frame_can_carry_fails_its_cause() {
    fn stage(event: Event<'_>, out: &mut Output) {
        match event.payload() {
            b"key" => out.draft(&event).key(&"k".repeat(513)).emit(""),
            b"time" => out.draft(&event).time(1 << 53).emit(""),
            b"fields" => out.draft(&event).field(40_000, [0; 16_381]).emit(""),
            b"field" => out.draft(&event).field(40_000, vec![0; 65_536]).emit(""),
            b"payload" => out.emit(&event, vec![0; (15 << 20) + 1]),
            b"json" => out.json(&event, &std::collections::BTreeMap::from([((1, 2), 3)])),
            _ => {
                out.draft(&event).key(&"k".repeat(512)).time((1 << 53) - 1).emit("");
                out.draft(&event).field(40_000, [0; 16_380]).emit("");
            }
        }
    }
    let mut harness = Harness::new(stage);
    let refused = [
        ("key", "a key of 513 bytes"),
        ("time", "the time 9007199254740992"),
        ("fields", "16385 bytes of fields"),
        ("field", "longer than 65,535 bytes"),
        ("payload", "a payload of 15728641 bytes"),
        ("json", "key must be a string"),
    ];
    for (payload, message) in refused {
        let handled = harness.send("", payload);
        assert_eq!(handled.outputs, [], "{payload}");
        assert_eq!(handled.failures.len(), 1, "{payload}");
        let failure = &handled.failures[0].failure;
        assert_eq!(failure.class(), Class::Reject);
        assert!(failure.message().contains(message), "{payload}: {failure}");
    }
    let handled = harness.send("", "as large as can be");
    assert_eq!((handled.outputs.len(), handled.failures), (2, vec![]));
}

#[test]
fn the_first_failure_of_an_event_counts() {
    fn stage(event: Event<'_>, out: &mut Output) -> crate::Result {
        out.fail(&event, Failure::retry("first"));
        out.fail(&event, Failure::reject("second"));
        Err(Failure::reject("third"))
    }
    let handled = Harness::new(stage).send("", "");
    let messages: Vec<&str> =
        handled.failures.iter().map(|failed| failed.failure.message()).collect();
    assert_eq!(messages, ["first"]);
}
