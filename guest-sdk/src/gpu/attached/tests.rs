//! Buffers from stage to stage: who may do what with them, and when they are freed.

use super::*;
use crate::event::{Events, field};
use crate::failure::Failure;
use crate::gpu::{End, Graph};
use crate::output::Output;
use crate::testing::{Emitted, Harness, Input};

/// A harness whose kernels nobody runs.
fn harness(stage: impl Fn(Event<'_>, &mut Output) -> crate::Result + 'static) -> Harness {
    Harness::new(stage).with_gpu(|_, _, _| {})
}

/// Gives buffers away, as many as the payload says.
fn giver(event: Event<'_>, out: &mut Output) -> crate::Result {
    for first in 0..event.json::<u32>()? {
        let buffer = Buffer::of(&[first, 7])?;
        out.draft(&event).attach(buffer).emit(b"given");
    }
    Ok(())
}

#[test]
fn a_buffer_is_read_by_the_next_stage_and_passed_on() {
    let mut first = harness(giver);
    let given = first.send("k", "2");
    assert_eq!(given.outputs[1].buffers, [[1, 0, 0, 0, 7, 0, 0, 0]]);
    assert_eq!(first.gpu_handles(), 0, "freed with the batch");

    let mut second = harness(|event, out| {
        let (mut draft, mut sum) = (out.draft(&event), 0);
        for buffer in event.buffers() {
            assert_eq!((buffer.bytes()?, buffer.read::<u32>(4, 1)?), (8, vec![7]));
            sum += buffer.read_all::<u32>()?.iter().sum::<u32>();
            draft = draft.attach(buffer);
        }
        draft.emit(sum.to_string());
        Ok(())
    });
    let inputs: Vec<Input> = given.outputs.iter().map(Input::from).collect();
    let passed = second.handle(inputs);
    let texts: Vec<&str> = passed.outputs.iter().map(Emitted::text).collect();
    assert_eq!(texts, ["7", "8"]);
    assert_eq!(passed.outputs[1].buffers, given.outputs[1].buffers);
    assert_eq!(second.gpu_handles(), 0);
}

#[test]
fn what_is_attached_is_bound_to_be_read_and_not_to_be_written() {
    let mut stage = harness(|event, _| {
        let buffers: Vec<Attached<'_>> = event.buffers().collect();
        let own = Buffer::new(8)?;
        let copy = Graph::record(|steps| {
            steps.copy((0, 4), 1, 4);
        })?;
        assert_eq!(copy.submit(&[buffers[0].whole(), own.whole()])?.end, End::Whole);
        assert_eq!(copy.submit(&[buffers[1].range(0, 8), own.range(4, 4)])?.end, End::Whole);
        assert_eq!(own.read_all::<u32>()?, [2, 4]);
        let refused = [
            copy.submit(&[own.whole(), buffers[0].whole()]).map(drop),
            host::gpu::write(buffers[0].handle(), 0, &[0; 4]).map_err(Error::new),
        ];
        for error in refused {
            assert_eq!(error.unwrap_err().code(), "gpu.read-only");
        }
        assert!(host::gpu::free(buffers[0].handle()).is_err(), "the batch has it");
        Ok(())
    });
    let input = Input::data("k", "").buffer([1, 0, 0, 0, 2, 0, 0, 0]);
    let handled = stage.handle([input.buffer([3, 0, 0, 0, 4, 0, 0, 0])]);
    assert_eq!(handled.failures, []);
}

#[test]
fn what_was_not_emitted_is_freed() {
    for (payload, failures) in [("dropped", 0), ("json", 1), ("key", 1), ("field", 1)] {
        let mut stage = harness(|event, out| {
            let draft = out.draft(&event).attach(Buffer::new(4)?);
            match event.payload() {
                b"json" => draft.json(&std::collections::BTreeMap::from([((1, 2), 3)])),
                b"key" => draft.key(&"k".repeat(513)).emit(""),
                b"field" => draft.field(40_000, vec![0; 65_536]).emit(""),
                _ => drop(draft),
            }
            Ok(())
        });
        let handled = stage.send("k", payload);
        assert_eq!((handled.outputs.len(), handled.failures.len()), (0, failures), "{payload}");
        assert_eq!(stage.gpu_handles(), 0, "{payload}");
    }
}

#[test]
fn a_call_that_is_made_again_attaches_again() {
    let mut stage = harness(|event, out| {
        out.draft(&event).attach(Buffer::of(event.payload())?).emit("");
        if event.payload() == b"fail" { Err(Failure::reject("told to")) } else { Ok(()) }
    });
    let handled = stage.handle(["kept", "fail"].map(|payload| Input::data("k", payload)));
    assert_eq!((handled.outputs.len(), handled.failures.len()), (1, 1));
    assert_eq!(handled.outputs[0].buffers, [b"kept"]);
    assert_eq!(stage.gpu_handles(), 0);
}

#[test]
fn one_buffer_goes_with_more_than_one_event_by_its_number() {
    let mut stage = harness(|event, out| {
        let (one, other) = (Buffer::of(b"once")?, Buffer::of(b"both")?);
        let handle = other.handle();
        out.draft(&event).attach(one).attach(other).emit("");
        out.draft(&event).attachments(&[handle]).emit("");
        out.emit(&event, "none");
        Ok(())
    });
    let outputs = stage.send("k", "").outputs;
    assert_eq!(outputs[0].buffers, [b"once", b"both"]);
    assert_eq!(outputs[0].fields.len(), 1, "one field has all of them");
    assert_eq!(outputs[1].buffers, [b"both"]);
    assert_eq!(outputs[2].fields, []);
}

#[test]
fn a_frame_has_no_more_attachments_than_the_host_takes() {
    let mut stage = harness(giver);
    assert_eq!(stage.send("k", "600").outputs.len(), 600);
    let mut many = harness(|event, out| {
        let mut draft = out.draft(&event);
        for _ in 0..event.json::<u32>()? {
            draft = draft.attach(Buffer::new(4)?);
        }
        draft.emit("");
        Ok(())
    });
    assert_eq!(many.send("k", "256").outputs[0].buffers.len(), 256);
    let refused = many.send("k", "257");
    assert_eq!(refused.failures[0].failure.message(), "emitted 257 attachments, the limit is 256");
    assert_eq!(many.gpu_handles(), 0);
}

#[test]
#[should_panic(expected = "trap: the call has nothing 0x4d that it could attach")]
fn what_the_call_does_not_hold_traps() {
    harness(|event, out| {
        out.draft(&event).attachments(&[77]).emit("");
        Ok(())
    })
    .send("k", "");
}

#[test]
#[should_panic(expected = "that it could attach")]
fn what_was_attached_in_an_earlier_batch_traps() {
    let stage = |events: Events<'_>, out: &mut Output| {
        let all: Vec<Event<'_>> = events.iter().collect();
        let old = all[0].payload().try_into().map(u64::from_le_bytes);
        match old {
            Ok(handle) => out.draft(&all[0]).attachments(&[handle]).emit(""),
            Err(_) => out.draft(&all[0]).attach(Buffer::new(4).unwrap()).emit(""),
        }
    };
    let mut harness = Harness::new(stage).with_gpu(|_, _, _| {});
    let given = harness.send("k", "").outputs.remove(0);
    assert_eq!(given.fields[0].0, field::ATTACHMENTS);
    harness.send("k", &given.fields[0].1);
}
