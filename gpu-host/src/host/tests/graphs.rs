//! Graphs: what can be recorded, and bound.

use super::*;
use crate::device::{Kind, Limits};
use crate::host::graph::{Bounds, Graph};
use crate::host::kernels::Ready;

const fn part(slot: u32, offset: u64, bytes: u64) -> Part {
    Part { slot, offset, bytes }
}

fn dispatch(kernel: u64, grid: [u32; 3], slots: &[u32]) -> Op {
    Op::Dispatch { kernel, grid, slots: slots.to_vec() }
}

#[test]
fn a_step_that_cannot_be_done_is_refused() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let kernel = rig.kernel(who, ADD);
    let fill = Op::Fill { at: part(0, 0, 8), word: 1 };
    let wrong = [
        dispatch(kernel, [1; 3], &[]),
        dispatch(kernel, [1; 3], &[0, 1]),
        dispatch(kernel, [65_536, 1, 1], &[0]),
        dispatch(kernel, [u32::MAX; 3], &[0]),
        dispatch(kernel, [65_535, 65_535, 1], &[0]),
        Op::Fill { at: part(0, 2, 4), word: 1 },
        Op::Fill { at: part(0, 0, 6), word: 1 },
        Op::Fill { at: part(0, u64::MAX - 3, 8), word: 1 },
        Op::Copy { from: part(0, 0, 4), to: part(1, 0, 8) },
        Op::Copy { from: part(0, 1, 4), to: part(1, 0, 4) },
    ];
    for op in wrong {
        let refused = rig.host.record(who, &[fill.clone(), op.clone()]).unwrap_err();
        assert!(matches!(refused, Refused::Graph { step: 1, .. }), "{op:?}: {refused}");
        assert_eq!(refused.code(), "gpu.graph");
    }
    let far = Op::Fill { at: part(u32::MAX, 0, 4), word: 1 };
    assert_eq!(code(rig.host.record(who, &[far])), "gpu.limit");
    assert_eq!(code(rig.host.record(who, &vec![fill; 65])), "gpu.limit");
    rig.close_all();
}

#[test]
fn what_is_bound_has_to_fit() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let kernel = rig.kernel(who, SUM);
    let ops =
        [dispatch(kernel, [1; 3], &[0, 1]), Op::Copy { from: part(1, 0, 16), to: part(2, 0, 16) }];
    let graph = rig.host.record(who, &ops).unwrap();
    let [small, large] = [rig.buffer(who, &[0; 3]), rig.buffer(who, &[0; 256])];
    let all = Binding::whole;
    let some = |buffer, offset, bytes| Binding { buffer, offset, bytes: Some(bytes) };
    let wrong = [
        (vec![all(large); 2], "gpu.binding"),
        (vec![all(small), all(large), all(small)], "gpu.binding"),
        // Slots that are written overlap nothing.
        (vec![all(large), all(large), some(large, 0, 16)], "gpu.binding"),
        (vec![all(small), some(large, 0, 32), some(large, 8, 16)], "gpu.binding"),
        (vec![all(small), some(large, 4, 64), some(large, 256, 16)], "gpu.binding"),
        (vec![all(small), some(large, 0, 18), some(large, 256, 16)], "gpu.range"),
        (vec![all(small), some(large, 0, 0), some(large, 256, 16)], "gpu.range"),
        (vec![all(small), some(large, 1024, 4), some(large, 256, 16)], "gpu.range"),
        (vec![all(small), some(large, 0, 1028), some(large, 256, 16)], "gpu.range"),
        (vec![all(small), some(large, u64::MAX, 4), some(large, 256, 16)], "gpu.range"),
        (vec![all(small), some(large, 2, 16), some(large, 256, 16)], "gpu.range"),
    ];
    for (bindings, expected) in wrong {
        let order = Order { graph, bindings, deadline: None };
        assert_eq!(code(rig.host.submit(who, &order)), expected, "{order:?}");
    }
    let bindings = vec![all(small), some(large, 0, 16), some(large, 256, 16)];
    rig.host.submit(who, &Order { graph, bindings, deadline: None }).unwrap();
    assert_eq!(rig.ends().len(), 1);
    rig.close_all();
}

#[test]
fn a_grid_of_nothing_does_nothing_and_one_of_the_most_is_done() {
    let groups = 20_000;
    let limits = TenantLimits { dispatch_groups: groups, ..TenantLimits::default() };
    let mut rig = Rig::new(with_limits(limits));
    let who = owner(A, 0, 0);
    let buffer = rig.buffer(who, &[1; 8]);
    let kernel = rig.kernel(who, ADD);
    for grid in [[0, 1, 1], [0, 0, 0], [65_535, 65_535, 0]] {
        let graph = rig.host.record(who, &[dispatch(kernel, grid, &[0])]).unwrap();
        let submission = rig.submit(who, graph, &[buffer]).unwrap();
        assert_eq!(rig.ends(), [(submission, End::Whole)]);
    }
    assert_eq!((rig.words(who, buffer), rig.probe().submits), (Ok(vec![1; 8]), 0));
    let more = dispatch(kernel, [groups as u32 + 1, 1, 1], &[0]);
    assert_eq!(code(rig.host.record(who, &[more])), "gpu.graph");
    let most = dispatch(kernel, [groups as u32, 1, 1], &[0]);
    let graph = rig.host.record(who, &[most]).unwrap();
    let submission = rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(rig.ends(), [(submission, End::Whole)]);
    assert_eq!(rig.words(who, buffer), Ok(vec![2; 8]));
    assert!(rig.probe().submits > 10, "it is done in pieces");
    rig.close_all();
}

#[test]
fn graphs_end_at_the_limit() {
    let limits = TenantLimits { graphs: 2, ..TenantLimits::default() };
    let mut rig = Rig::new(with_limits(limits));
    let who = owner(A, 0, 0);
    let graphs = [(); 2].map(|()| rig.host.record(who, &[]).unwrap());
    assert_eq!(code(rig.host.record(who, &[])), "gpu.limit");
    rig.host.drop_handle(Duration::ZERO, who, graphs[0]).unwrap();
    rig.host.record(who, &[]).unwrap();
    rig.close_all();
}

#[test]
fn groups_that_cannot_be_counted_are_refused() {
    let kernel = Arc::new(Kernel::check(ADD, "main", &Default::default()).unwrap());
    let ready = Arc::new(Ready { kernel, loaded: Loaded(1) });
    let device = Limits { groups: u32::MAX, ..Fake::new(1).info().limits };
    let bounds = Bounds { kind: Kind::Fake, device, dispatch_groups: u64::MAX };
    let grids = [([u32::MAX, u32::MAX, 1], true), ([u32::MAX, u32::MAX, 2], false)];
    for (grid, fits) in grids {
        let ops = [dispatch(1, grid, &[0])];
        let graph = Graph::record(&ops, &bounds, |_| Ok(Arc::clone(&ready)));
        assert_eq!(graph.is_ok(), fits, "{grid:?}");
    }
}

#[test]
fn what_cannot_be_cancelled_is_done_in_pieces_that_need_not_be() {
    let groups_max = |source: &str| {
        let kernel = Arc::new(Kernel::check(source, "main", &Default::default()).unwrap());
        let ready = Arc::new(Ready { kernel, loaded: Loaded(1) });
        let device = Fake::new(1).info().limits;
        let bounds = Bounds { kind: Kind::Software, device, dispatch_groups: 1 << 24 };
        let ops = [dispatch(1, [60_000; 3].map(|it| it / 300), &[0])];
        let graph = Graph::record(&ops, &bounds, |_| Ok(Arc::clone(&ready))).unwrap();
        graph.work().next().unwrap().chunk_groups_max
    };
    let body = |threads: u32, body: &str| {
        groups_max(&format!(
            "@group(0) @binding(0) var<storage, read_write> all: array<u32>;
            @compute @workgroup_size({threads}) fn main(@builtin(global_invocation_id) id: vec3u) {{
                {body} all[id.x] += 1u;
            }}"
        ))
    };
    let [few, many] = [1, 256].map(|threads| body(threads, ""));
    assert!(few > 1 << 20 && few / many == 256, "{few} {many}");
    // What is done in free loops counts as often as it is.
    let looped = body(256, "for (var i = 0u; i < 40u; i++) { all[i] *= 3u; }");
    assert!(many / looped > 20, "{many} {looped}");
    // One that is ended before it begins can be as much at once as there is.
    assert_eq!(body(256, &"all[id.x] += 1u;".repeat(500)), 1 << 26);
}
