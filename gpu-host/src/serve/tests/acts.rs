//! What is asked for, and by whom.

use super::*;
use crate::host::{Binding, Op, Part};
use crate::kernel::{Access, Slot};
use crate::slice;
use crate::wire::{Figures, Reply, StageFigures, TenantFigures, Used};

#[test]
fn a_kernel_runs_from_a_packet_to_a_packet() {
    let mut rig = Rig::new();
    let who = owner(1, 0, 7);
    let kernel = rig.kernel(who, ADD);
    let slots = vec![Slot { number: 0, access: Access::ReadWrite, bytes_min: 4 }];
    assert_eq!(rig.does(who, Act::Slots { kernel }), Answer::Slots(slots));
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[1, 2, 3, 4]);
    let number = rig.asks(who, submit(graph, buffer, 1_000, false));
    let replies = rig.run();
    assert_eq!(replies.len(), 2, "{replies:?}");
    assert_eq!(replies[0].0, number);
    let submission = handle(replies[0].1.clone());
    let (ended, Answer::Ended { end, device_nanos }, _) = &replies[1] else {
        panic!("{replies:?}")
    };
    assert_eq!((*ended, *end), (number, End::Whole));
    assert!(*device_nanos > 0);
    assert_eq!(rig.words(who, buffer), [2, 3, 4, 5]);
    assert_eq!(code(rig.does(who, Act::Cancel { submission })), "gpu.handle");
}

#[test]
fn bytes_are_read_and_written_in_part() {
    let mut rig = Rig::new();
    let who = owner(1, 0, 7);
    let buffer = rig.buffer(who, &[1, 2, 3]);
    let write = Want::Of(who, Act::Write { buffer, offset: 4 });
    assert_eq!(rig.answer(write, &[9, 0, 0, 0]), (Answer::Done, Vec::new()));
    let read = |offset, bytes| Want::Of(who, Act::Read { buffer, offset, bytes });
    assert_eq!(rig.answer(read(4, 8), &[]), (Answer::Done, vec![9, 0, 0, 0, 3, 0, 0, 0]));
    assert_eq!(code(rig.says(read(8, 8))), "gpu.range");
    for bytes in [TAIL_BYTES_MAX as u64 + 1, u64::MAX] {
        assert_eq!(code(rig.says(read(0, bytes))), "gpu.range");
    }
    let write = Want::Of(who, Act::Write { buffer, offset: 4 });
    assert_eq!(code(rig.answer(write, &[0; 12]).0), "gpu.range");
    assert_eq!(code(rig.does(who, Act::Create { bytes: 3 })), "gpu.range");
    assert_eq!(code(rig.does(who, Act::Create { bytes: 33 * BLOCK_BYTES })), "gpu.limit");
}

#[test]
fn no_number_reaches_what_another_has() {
    let mut rig = Rig::new();
    let who = owner(1, 0, 7);
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[1]);
    for (other, expected) in [
        (owner(1, 0, 8), "gpu.handle"),
        (owner(1, 1, 7), "gpu.handle"),
        (owner(2, 0, 7), "gpu.handle"),
        (owner(3, 0, 7), "gpu.tenant"),
        (owner(1, 2, 7), "gpu.stage"),
    ] {
        let part = Part { slot: 0, offset: 0, bytes: 4 };
        let acts = [
            Act::Write { buffer, offset: 0 },
            Act::Read { buffer, offset: 0, bytes: 4 },
            Act::Size { buffer },
            Act::Slots { kernel: graph },
            Act::Record {
                steps: vec![Op::Dispatch { kernel: graph, grid: [1; 3], slots: vec![0] }],
            },
            submit(graph, buffer, 1_000, true),
            Act::Cancel { submission: buffer },
            Act::Attach { buffer, holder: other.instance },
            Act::Free { handle: buffer },
        ];
        for act in acts {
            let said = rig.does(other, act.clone());
            assert_eq!(code(said), expected, "{act:?} of {other:?}");
        }
        let makes = [
            Act::Create { bytes: 4 },
            Act::FindConstant { hash: [1; 32] },
            Act::Constant { hash: [1; 32], bytes: 4, offset: 0 },
            Act::Kernel { entry: "main".to_owned() },
            Act::Record { steps: vec![Op::Fill { at: part, word: 1 }] },
        ];
        if expected != "gpu.handle" {
            for act in makes {
                let said = rig.answer(Want::Of(other, act.clone()), ADD.as_bytes()).0;
                assert_eq!(code(said), expected, "{act:?} of {other:?}");
            }
        }
    }
    assert_eq!(rig.words(who, buffer), [1]);
}

#[test]
fn what_is_attached_is_read_by_all_of_the_tenant_until_its_holder_goes() {
    let mut rig = Rig::new();
    let (from, next, other) = (owner(1, 0, 7), owner(1, 1, 3), owner(2, 0, 7));
    let holder = owner(1, 0, 1 << 60);
    let buffer = rig.buffer(from, &[5]);
    assert_eq!(rig.does(from, Act::Attach { buffer, holder: holder.instance }), Answer::Done);
    // The instance may go: the buffer is not its own any more.
    assert_eq!(rig.says(Want::DropOwner { owner: from }), Answer::Done);
    for reader in [from, next] {
        assert_eq!(rig.does(reader, Act::Size { buffer }), Answer::Bytes(4));
        assert_eq!(rig.words(reader, buffer), [5]);
        let written = rig.answer(Want::Of(reader, Act::Write { buffer, offset: 0 }), &[0; 4]).0;
        assert_eq!(code(written), "gpu.read-only");
        assert_eq!(code(rig.does(reader, Act::Free { handle: buffer })), "gpu.handle");
    }
    assert_eq!(code(rig.does(other, Act::Size { buffer })), "gpu.handle");
    assert_eq!(rig.says(Want::DropOwner { owner: holder }), Answer::Done);
    assert_eq!(code(rig.does(next, Act::Size { buffer })), "gpu.handle");
    let Answer::Figures(figures) = rig.says(Want::Figures) else { panic!() };
    assert!(figures.tenants.iter().all(|tenant| (tenant.held_bytes, tenant.handles) == (0, 0)));
}

#[test]
fn tenants_and_stages_come_and_go() {
    let mut rig = Rig::new();
    let stage = owner(1, 5, 0).stage;
    let open = |weight| Want::Stage { stage, weight };
    assert_eq!(code(rig.says(open(0))), "gpu.terms");
    assert_eq!(rig.says(open(1)), Answer::Done);
    assert_eq!(code(rig.says(open(1))), "gpu.exists");
    let buffer = rig.buffer(owner(1, 5, 1), &[5]);
    assert_eq!(rig.says(Want::CloseStage { stage }), Answer::Done);
    assert_eq!(code(rig.does(owner(1, 5, 1), Act::Size { buffer })), "gpu.stage");
    assert_eq!(code(rig.says(Want::CloseStage { stage })), "gpu.stage");
    assert_eq!(rig.says(open(1)), Answer::Done);

    let tenant = |tenant, terms| Want::Tenant { tenant, terms };
    let dear = Terms { weight: 900_000, ..terms() };
    assert_eq!(code(rig.says(tenant(3, dear))), "gpu.oversold");
    assert_eq!(code(rig.says(tenant(1, dear))), "gpu.oversold", "it has other terms then");
    let capped = |cap| Terms { cap: Some(cap), ..terms() };
    assert_eq!(code(rig.says(tenant(1, capped(0)))), "gpu.terms");
    assert_eq!(code(rig.says(tenant(1, capped(u32::MAX)))), "gpu.terms");
    assert_eq!(rig.says(tenant(1, capped(500_000))), Answer::Done);
    assert_eq!(rig.says(Want::CloseTenant { tenant: 1 }), Answer::Done);
    assert_eq!(code(rig.says(Want::CloseTenant { tenant: 1 })), "gpu.tenant");
    assert_eq!(code(rig.says(Want::Stage { stage, weight: 1 })), "gpu.tenant");
    assert_eq!(rig.says(tenant(3, terms())), Answer::Done, "its part is free");
}

#[test]
fn what_was_used_is_said_by_tenant_and_stage() {
    let mut rig = Rig::new();
    let who = owner(1, 0, 7);
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[1, 2]);
    rig.asks(who, submit(graph, buffer, 1_000, false));
    let Answer::Ended { device_nanos, .. } = rig.run()[1].1 else { panic!() };
    for _ in 0..3 {
        rig.asks(who, submit(graph, buffer, 1_000, true));
    }
    rig.replies();
    let Answer::Figures(figures) = rig.says(Want::Figures) else { panic!() };
    let Figures { busy_nanos, copy_nanos, tenants } = figures;
    assert_eq!((busy_nanos, tenants.len()), (device_nanos, 2));
    let [one, two] = [&tenants[0], &tenants[1]];
    assert_eq!((one.tenant, one.held_bytes, one.handles), (1, BLOCK_BYTES, 2));
    assert_eq!((one.used.device_nanos, one.used.queued), (device_nanos, 3));
    assert_eq!((one.used.up_bytes, one.used.chunks), (8, 1));
    // 5 µs for the copy, and 8 bytes at 64 a microsecond.
    assert_eq!((one.used.copy_nanos, copy_nanos), (5_125, 5_125));
    let [first, second] = one.stages[..] else { panic!() };
    assert_eq!((first.stage, first.used, first.held_bytes), (0, one.used, 256));
    assert_eq!(second, StageFigures { stage: 1, ..Default::default() });
    assert_eq!((two.tenant, two.held_bytes, two.handles), (2, 0, 0));
    rig.run();
    let second = Duration::from_secs(1);
    rig.advance(second);
    let Answer::Figures(figures) = rig.says(Want::Figures) else { panic!() };
    assert!(figures.tenants[0].memory_byte_seconds >= BLOCK_BYTES);
    assert!((256..300).contains(&figures.tenants[0].stages[0].memory_byte_seconds));
    assert_eq!(figures.tenants[0].used.queued, 0);
}

#[test]
fn figures_of_as_many_as_may_be_fit_into_a_reply() {
    let most = u64::MAX;
    let used = Used {
        device_nanos: most,
        chunks: most,
        copy_nanos: most,
        up_bytes: most,
        down_bytes: most,
        queued: most,
    };
    let (stage, held_bytes, memory_byte_seconds) = (u32::MAX, most, most);
    let stage = StageFigures { stage, used, held_bytes, memory_byte_seconds };
    let tenants_max = slice::Settings::default().tenants_max;
    let tenant = TenantFigures {
        tenant: most,
        used,
        held_bytes,
        kept_bytes: most,
        evictions: most,
        recalls: most,
        memory_byte_seconds,
        handles: most,
        stages: vec![stage; STAGES_MAX / tenants_max],
    };
    let tenants = vec![tenant; tenants_max];
    let figures = Figures { busy_nanos: most, copy_nanos: most, tenants };
    assert!(Reply { number: most, answer: Answer::Figures(figures) }.head(0).is_ok());
}

#[test]
fn a_quarantined_kernel_is_refused() {
    let mut rig = Rig::new();
    let kernel = Kernel::hash_of(ADD, "main");
    assert_eq!(rig.says(Want::Quarantine { tenant: 1, kernel }), Answer::Done);
    let ask = |tenant| Want::Of(owner(tenant, 0, 1), Act::Kernel { entry: "main".to_owned() });
    assert_eq!(code(rig.answer(ask(1), ADD.as_bytes()).0), "gpu.quarantined");
    rig.kernel(owner(2, 0, 1), ADD);
}

#[test]
fn a_graph_and_what_is_bound_to_it_are_checked() {
    let mut rig = Rig::new();
    let who = owner(1, 0, 7);
    let part = Part { slot: 0, offset: 0, bytes: 6 };
    let steps = vec![Op::Fill { at: part, word: 1 }];
    assert_eq!(code(rig.does(who, Act::Record { steps })), "gpu.graph");
    let graph = rig.graph(who, ADD, 1);
    let time_max = Duration::from_secs(1);
    let none = Act::Submit { graph, bindings: Vec::new(), time_max, waits: true };
    assert_eq!(code(rig.does(who, none)), "gpu.binding");
    let bindings = vec![Binding::whole(graph)];
    let wrong = Act::Submit { graph, bindings, time_max, waits: true };
    assert_eq!(code(rig.does(who, wrong)), "gpu.handle");
}

#[test]
fn what_is_no_packet_is_an_error() {
    let mut rig = Rig::new();
    let now = rig.now();
    assert_eq!(rig.server.take(now, &[1, 2]), Err(Malformed::Short(2)));
    assert_eq!(rig.replies(), []);
}
