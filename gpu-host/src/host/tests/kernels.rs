//! Kernels: checked once, refused once, kept within a bound.

use super::*;

const ZERO: Duration = Duration::ZERO;

fn limited(kernels: usize) -> Rig {
    Rig::new(with_limits(TenantLimits { kernels, ..TenantLimits::default() }))
}

/// A kernel like no other.
fn source(number: usize) -> String {
    format!("@compute @workgroup_size(1) fn main() {{ let x = {number}u; }}")
}

#[test]
fn a_kernel_is_loaded_once_for_a_tenant() {
    let mut rig = limited(8);
    let [who, same, other] = [owner(A, 0, 0), owner(A, 1, 1), owner(B, 0, 0)];
    let handles = [who, same, who].map(|who| rig.kernel(who, ADD));
    assert_eq!((handles[0] != handles[1], rig.probe().loads), (true, 1));
    rig.kernel(other, ADD);
    assert_eq!(rig.probe().loads, 2, "nobody learns what another tenant has");
    assert_eq!(rig.host.slots(who, handles[0]).unwrap().len(), 1);
    assert_eq!(rig.host.find_kernel(who, Kernel::hash_of(SUM, "main")), Ok(None));
    rig.close_all();
}

#[test]
fn what_was_refused_is_known() {
    let mut rig = limited(8);
    let who = owner(A, 0, 0);
    assert_eq!(code(rig.host.kernel(who, "hm", "main")), "kernel.invalid");
    assert_eq!(code(rig.host.kernel(who, ADD, "other")), "kernel.entry");
    let hash = Kernel::hash_of("hm", "main");
    assert_eq!(code(rig.host.find_kernel(who, hash)), "kernel.invalid");
    // What the device refuses it refuses once.
    let wide = "
        var<workgroup> all: array<u32, 16384>;
        @compute @workgroup_size(1) fn main() { all[0] = 1u; }";
    let mut loose = terms();
    loose.limits.kernel.group_bytes = 1 << 20;
    rig.host.change(ZERO, A, loose).unwrap();
    for _ in 0..2 {
        assert_eq!(code(rig.host.kernel(who, wide, "main")), "gpu.wrong");
    }
    assert_eq!(rig.probe().loads, 1);
    rig.close_all();
}

#[test]
fn what_was_checked_elsewhere_is_admitted() {
    let mut rig = limited(8);
    let who = owner(A, 0, 0);
    let hash = Kernel::hash_of(ADD, "main");
    let kernel = Arc::new(Kernel::check(ADD, "main", &Default::default()).unwrap());
    assert_eq!(kernel.hash(), hash);
    let first = rig.host.admit_kernel(who, hash, Ok(Arc::clone(&kernel))).unwrap();
    let second = rig.host.admit_kernel(who, hash, Ok(kernel)).unwrap();
    assert_eq!((first != second, rig.probe().loads), (true, 1));
    rig.close_all();
}

#[test]
fn ten_thousand_kernels_make_room_for_each_other() {
    let mut rig = limited(4);
    let who = owner(A, 0, 0);
    let kept = rig.kernel(who, ADD);
    let graph = rig.graph(who, SUM_ONE, 1);
    for number in 0..10_000 {
        let kernel = rig.kernel(who, &source(number));
        rig.host.drop_handle(ZERO, who, kernel).unwrap();
        assert!(rig.probe().kernels.len() <= 4);
    }
    // What is in use was kept, by a handle or by a graph.
    let buffer = rig.buffer(who, &[1]);
    rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(rig.ends().len(), 1);
    assert_eq!(rig.words(who, buffer), Ok(vec![3]));
    assert!(rig.host.slots(who, kept).is_ok());
    rig.close_all();
}

/// Adds 2 to a word.
const SUM_ONE: &str = "
    @group(0) @binding(0) var<storage, read_write> one: u32;
    @compute @workgroup_size(1) fn main() { one += 2u; }";

#[test]
fn kernels_in_use_end_at_the_limit() {
    let mut rig = limited(3);
    let who = owner(A, 0, 0);
    let handles: Vec<u64> = (0..3).map(|number| rig.kernel(who, &source(number))).collect();
    let refused = rig.host.kernel(who, &source(3), "main").unwrap_err();
    assert_eq!(refused.to_string(), "4 kernels in use, at most 3: drop handles and graphs of some");
    assert_eq!(refused.code(), "gpu.limit");
    rig.host.drop_handle(ZERO, who, handles[1]).unwrap();
    rig.kernel(who, &source(3));
    assert_eq!(rig.probe().kernels.len(), 3);
    rig.close_all();
}

#[test]
fn what_made_room_in_vain_is_given_back() {
    let mut rig = limited(3);
    let who = owner(A, 0, 0);
    let handles: Vec<u64> = (0..3).map(|number| rig.kernel(who, &source(number))).collect();
    rig.host.drop_handle(ZERO, who, handles[0]).unwrap();
    let limits = TenantLimits { kernels: 1, ..TenantLimits::default() };
    rig.host.change(ZERO, A, with_limits(limits)).unwrap();
    assert_eq!(code(rig.host.kernel(who, &source(3), "main")), "gpu.limit");
    assert_eq!(rig.probe().kernels.len(), 2);
    rig.close_all();
}

#[test]
fn what_was_too_much_is_looked_at_again_when_more_is_allowed() {
    let mut strict = terms();
    strict.limits.kernel.size = 1;
    let mut rig = Rig::new(strict);
    let who = owner(A, 0, 0);
    assert_eq!(code(rig.host.kernel(who, ADD, "main")), "kernel.limit");
    rig.host.change(ZERO, A, terms()).unwrap();
    rig.kernel(who, ADD);
    rig.close_all();
}

#[test]
fn handles_of_kernels_end_at_the_limit() {
    let limits = TenantLimits { kernel_handles: 2, ..TenantLimits::default() };
    let mut rig = Rig::new(with_limits(limits));
    let who = owner(A, 0, 0);
    rig.kernel(who, ADD);
    rig.kernel(who, ADD);
    assert_eq!(code(rig.host.kernel(who, ADD, "main")), "gpu.limit");
    rig.close_all();
}

#[test]
fn a_quarantined_kernel_is_refused_to_its_tenant() {
    let mut rig = limited(8);
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    rig.host.quarantine(A, Kernel::hash_of(ADD, "main"));
    assert_eq!(code(rig.host.kernel(who, ADD, "main")), "gpu.quarantined");
    rig.kernel(other, ADD);
    rig.close_all();
}
