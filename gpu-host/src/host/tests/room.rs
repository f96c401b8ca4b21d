//! What makes room for memory that is asked for: constants that nobody needs, and what was
//! borrowed.

use proptest::prelude::*;

use super::*;

const ZERO: Duration = Duration::ZERO;

fn with_memory(guaranteed: u64, borrowable: u64) -> TenantTerms {
    TenantTerms {
        guaranteed_bytes: guaranteed * BLOCK_BYTES,
        borrowable_bytes: borrowable * BLOCK_BYTES,
        ..terms()
    }
}

/// Bytes of a constant that no other number gives, and their hash.
fn constant(number: u8, bytes: u64) -> (Vec<u8>, [u8; 32]) {
    let bytes = vec![number; bytes as usize];
    let hash = *blake3::hash(&bytes).as_bytes();
    (bytes, hash)
}

impl Rig {
    /// Makes a constant, and lets go of it.
    fn keep(&mut self, who: Owner, number: u8, bytes: u64) {
        let (bytes, hash) = constant(number, bytes);
        let handle = self.host.constant(ZERO, who, hash, &bytes).unwrap();
        self.host.drop_handle(ZERO, who, handle).unwrap();
    }

    /// Whether a constant is there, which nobody has a handle of afterwards.
    fn has(&mut self, who: Owner, number: u8, bytes: u64) -> bool {
        let (expected, hash) = constant(number, bytes);
        let Some(handle) = self.host.find_constant(who, hash).unwrap() else { return false };
        let mut read = vec![0; bytes as usize];
        self.host.read(who, handle, 0, &mut read).unwrap();
        assert_eq!(read, expected);
        self.host.drop_handle(ZERO, who, handle).unwrap();
        true
    }

    fn blocks(&self, tenant: Tenant) -> u64 {
        self.host.held_bytes(tenant).unwrap() / BLOCK_BYTES
    }

    /// Kept bytes, constants that made room and buffers that were taken back.
    fn counts(&mut self, tenant: Tenant) -> (u64, u64, u64) {
        let figures = self.host.figures(ZERO);
        let figures = figures.iter().find(|figures| figures.tenant == tenant).unwrap();
        (figures.kept_bytes, figures.evictions, figures.recalls)
    }

    fn block(&mut self, who: Owner) -> Result<u64, Refused> {
        let now = self.now();
        self.host.create(now, who, BLOCK_BYTES)
    }
}

#[test]
fn the_constant_that_was_used_least_recently_makes_room() {
    let mut rig = Rig::new(with_memory(3, 0));
    let who = owner(A, 0, 0);
    (1..4).for_each(|number| rig.keep(who, number, BLOCK_BYTES));
    assert_eq!((rig.blocks(A), rig.counts(A)), (3, (3 * BLOCK_BYTES, 0, 0)));
    assert!(rig.has(owner(A, 1, 4), 1, BLOCK_BYTES), "it is there for all the tenant's");
    rig.block(who).unwrap();
    let are_there = [1, 2, 3].map(|number| rig.has(who, number, BLOCK_BYTES));
    assert_eq!(are_there, [true, false, true]);
    assert_eq!(rig.counts(A), (2 * BLOCK_BYTES, 1, 0));
    // What somebody has a handle of stays.
    let (bytes, hash) = constant(1, BLOCK_BYTES);
    let handle = rig.host.constant(ZERO, who, hash, &bytes).unwrap();
    rig.block(who).unwrap();
    assert_eq!(code(rig.block(who)), "gpu.limit");
    assert_eq!(rig.host.bytes(who, handle), Ok(BLOCK_BYTES));
    assert_eq!((rig.blocks(A), rig.counts(A)), (3, (0, 2, 0)));
    rig.close_all();
}

#[test]
fn a_constant_makes_room_inside_a_block() {
    let mut rig = Rig::new(with_memory(1, 0));
    let who = owner(A, 0, 0);
    rig.keep(who, 1, 256);
    rig.keep(who, 2, 256);
    // 14 places are left of 16, and then those of the constants.
    for _ in 0..14 {
        rig.host.create(ZERO, who, 256).unwrap();
    }
    assert_eq!(rig.counts(A), (512, 0, 0));
    let fresh = rig.host.create(ZERO, who, 256).unwrap();
    assert_eq!(rig.words(who, fresh), Ok(vec![0; 64]), "nothing of the constant is seen");
    assert_eq!((rig.has(who, 1, 256), rig.has(who, 2, 256)), (false, true));
    rig.close_all();
}

#[test]
fn what_is_kept_in_borrowed_memory_goes_before_who_is_guaranteed_it_waits() {
    let mut rig = Rig::empty();
    rig.open(A, with_memory(16, 48));
    rig.open(B, with_memory(48, 0));
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    (0..20).for_each(|number| rig.keep(who, number, BLOCK_BYTES));
    assert_eq!(rig.blocks(A), 20);
    for _ in 0..48 {
        rig.block(other).unwrap();
    }
    // What is within A's guarantee stays.
    assert_eq!((rig.blocks(A), rig.counts(A)), (16, (16 * BLOCK_BYTES, 4, 0)));
    let are_there = (0..20).map(|number| rig.has(who, number, BLOCK_BYTES));
    assert_eq!(are_there.collect::<Vec<_>>(), [[false; 4].as_slice(), &[true; 16]].concat());
    assert_eq!(code(rig.block(other)), "gpu.limit");
    assert_eq!((rig.blocks(A), rig.host.owed()), (16, vec![]));
    rig.close_all();
}

#[test]
fn who_borrows_has_what_others_keep_in_borrowed_memory() {
    let mut rig = Rig::empty();
    rig.open(A, with_memory(8, 56));
    rig.open(B, with_memory(8, 56));
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    // One block is shared with a buffer, so that it frees none.
    let small = rig.host.create(ZERO, who, 4).unwrap();
    rig.keep(who, 99, 256);
    (0..55).for_each(|number| rig.keep(who, number, BLOCK_BYTES));
    for _ in 0..8 {
        rig.block(other).unwrap();
    }
    assert_eq!((rig.blocks(A), rig.blocks(B), rig.counts(A).1), (56, 8, 0));
    for _ in 0..48 {
        rig.block(other).unwrap();
    }
    assert_eq!((rig.blocks(A), rig.counts(A).1), (8, 48));
    assert_eq!(code(rig.block(other)), "gpu.memory", "the rest is A's");
    assert!(rig.has(who, 99, 256) && rig.has(who, 54, BLOCK_BYTES));
    assert_eq!(rig.words(who, small), Ok(vec![0]));
    rig.close_all();
}

#[test]
fn what_is_kept_is_billed_to_its_tenant_and_to_no_stage() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    rig.keep(who, 1, BLOCK_BYTES);
    rig.host.create(ZERO, who, 1_024).unwrap();
    rig.advance(Duration::from_nanos(10));
    let now = rig.now();
    let bill = rig.host.bill(now, A).unwrap();
    let stage = rig.host.stage_bill(now, who.stage).unwrap();
    assert_eq!(bill.memory_byte_nanos, u128::from(2 * BLOCK_BYTES) * 10);
    assert_eq!(stage.memory_byte_nanos, 1_024 * 10);
    assert_eq!(stage.used, bill.used, "the stage has written it");
    rig.host.close_stage(now, who.stage).unwrap();
    rig.advance(Duration::from_nanos(10));
    let now = rig.now();
    // The constant is left.
    let memory = rig.host.bill(now, A).unwrap().memory_byte_nanos;
    assert_eq!(memory, u128::from(2 * BLOCK_BYTES + BLOCK_BYTES) * 10);
    rig.close_all();
}

#[test]
fn a_device_that_has_less_than_it_said_keeps_nothing() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    rig.keep(who, 1, BLOCK_BYTES);
    rig.keep(other, 2, BLOCK_BYTES);
    rig.probe().fake.fill_up_at_allocate(1);
    assert_eq!(code(rig.block(who)), "gpu.memory");
    assert_eq!((rig.counts(A), rig.counts(B)), ((0, 1, 0), (0, 1, 0)));
    rig.close_all();
}

#[test]
fn no_more_constants_are_kept_than_may_be() {
    let mut host = Host::new(settings(), || Ok(Fake::new(1 << 20))).unwrap();
    host.open(ZERO, A, with_memory(200, 0)).unwrap();
    let who = owner(A, 0, 0);
    host.open_stage(who.stage, 1).unwrap();
    for number in 0..1_100_u32 {
        let bytes = number.to_le_bytes();
        let hash = *blake3::hash(&bytes).as_bytes();
        let handle = host.constant(ZERO, who, hash, &bytes).unwrap();
        host.drop_handle(ZERO, who, handle).unwrap();
    }
    let figures = host.figures(ZERO);
    assert_eq!((figures[0].kept_bytes, figures[0].evictions), (1_024 * 256, 76));
}

#[test]
fn a_constant_goes_with_the_device_and_with_its_tenant() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    rig.keep(who, 1, 256);
    {
        let mut probe = rig.probe();
        probe.spares = 1;
        probe.fake.lose_at_submit(1);
    }
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[1]);
    rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(rig.ends().len(), 1);
    assert_eq!((rig.has(who, 1, 256), rig.counts(A)), (false, (0, 0, 0)));
    rig.keep(who, 1, 256);
    rig.close_all();
}

/// A has borrowed all that B is guaranteed: its buffers, oldest first.
fn lent() -> (Rig, Owner, Owner, Vec<u64>) {
    let mut rig = Rig::empty();
    rig.open(A, with_memory(16, 48));
    rig.open(B, with_memory(48, 0));
    let who = owner(A, 0, 0);
    let buffers = (0..64).map(|_| rig.block(who).unwrap()).collect();
    (rig, who, owner(B, 0, 0), buffers)
}

#[test]
fn borrowed_memory_is_given_to_whom_it_is_guaranteed() {
    let (mut rig, who, other, buffers) = lent();
    // The first is used again, so that the second goes.
    rig.host.write(who, buffers[0], 0, &[1]).unwrap();
    let made = rig.block(other).unwrap();
    assert_eq!(rig.words(other, made).unwrap().len(), 1_024);
    assert_eq!((rig.blocks(A), rig.blocks(B)), (63, 1));
    let gone = buffers[1];
    let graph = rig.graph(who, ADD, 1);
    assert_eq!(code(rig.words(who, gone)), "gpu.lost");
    assert_eq!(code(rig.host.write(who, gone, 0, &[1])), "gpu.lost");
    assert_eq!(code(rig.host.attach(who, gone, owner(A, 0, 9))), "gpu.lost");
    assert_eq!(code(rig.submit(who, graph, &[gone])), "gpu.lost");
    assert_eq!(code(rig.words(owner(A, 0, 1), gone)), "gpu.handle", "it is none of theirs");
    assert!(rig.words(who, buffers[0]).is_ok() && rig.words(who, buffers[2]).is_ok());
    rig.host.drop_handle(ZERO, who, gone).unwrap();
    assert_eq!(code(rig.words(who, gone)), "gpu.handle");
    for _ in 1..48 {
        rig.block(other).unwrap();
    }
    // No more goes than was borrowed.
    assert_eq!((rig.blocks(A), rig.counts(A)), (16, (0, 0, 48)));
    assert_eq!((code(rig.block(other)), code(rig.block(who))), ("gpu.limit", "gpu.memory"));
    assert_eq!((rig.blocks(A), rig.blocks(B)), (16, 48));
    rig.close_all();
}

#[test]
fn work_in_borrowed_memory_ends_first() {
    let mut rig = Rig::empty();
    rig.open(A, with_memory(0, 64));
    rig.open(B, with_memory(64, 0));
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    let (submission, busy) = rig.begin_endless(who);
    let kernel = rig.kernel(who, SUM);
    let op = Op::Dispatch { kernel, grid: [1; 3], slots: vec![0, 1] };
    let sum = rig.host.record(who, &[op]).unwrap();
    let rest: Vec<u64> = (0..63).map(|_| rig.block(who).unwrap()).collect();
    let behind = rig.submit(who, sum, &[busy, rest[62]]).unwrap();
    // All that nothing works with is there at once, and of the rest nothing.
    for _ in 0..62 {
        rig.block(other).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(code(rig.host.create(ZERO, other, 2 * BLOCK_BYTES)), "gpu.memory");
        assert_eq!((rig.blocks(A), rig.counts(A).2), (1, 64));
        assert_eq!(code(rig.host.create(ZERO, who, 4)), "gpu.memory", "it is kept for B");
    }
    assert_eq!(rig.ends(), [(behind, End::Recalled), (submission, End::Recalled)]);
    rig.host.create(ZERO, other, 2 * BLOCK_BYTES).unwrap();
    assert_eq!((rig.blocks(A), rig.blocks(B)), (0, 64));
    assert_eq!([busy, rest[62]].map(|it| code(rig.words(who, it))), ["gpu.lost"; 2]);
    rig.close_all();
}

#[test]
fn what_work_in_borrowed_memory_was_to_write_is_half_written() {
    let (mut rig, who, other, buffers) = lent();
    let source = "
        @group(0) @binding(0) var<storage, read_write> count: u32;
        @group(0) @binding(1) var<storage, read_write> all: array<u32>;
        @compute @workgroup_size(1) fn main() {
            loop { count = (count + 2u) | 1u; all[0] = count; if count == 0u { break; } }
        }";
    let kernel = rig.kernel(who, source);
    let op = Op::Dispatch { kernel, grid: [1; 3], slots: vec![0, 1] };
    let graph = rig.host.record(who, &[op]).unwrap();
    // The oldest but these are used once more, so that the work is what is left to be taken.
    let [first, second] = [buffers[0], buffers[1]];
    for holder in &buffers[2..] {
        rig.host.attach(who, *holder, owner(A, 0, 99)).unwrap();
    }
    rig.submit(who, graph, &[first, second]).unwrap();
    assert_eq!(rig.turn(Duration::from_millis(1)), Verdict::Busy);
    assert_eq!(code(rig.block(other)), "gpu.memory");
    assert!(matches!(rig.ends()[..], [(_, End::Recalled)]));
    assert_eq!(code(rig.words(who, first)), "gpu.lost");
    assert_eq!(code(rig.words(who, second)), "gpu.poisoned");
    rig.block(other).unwrap();
    rig.close_all();
}

#[test]
fn what_is_attached_goes_with_its_batch() {
    let (mut rig, who, other, buffers) = lent();
    let [holder, next] = [owner(A, 0, 99), owner(A, 1, 3)];
    for buffer in &buffers {
        rig.host.attach(who, *buffer, holder).unwrap();
    }
    assert_eq!(code(rig.block(other)), "gpu.memory");
    assert_eq!(rig.host.owed(), [(A, BLOCK_BYTES)]);
    assert!(buffers.iter().all(|buffer| rig.words(next, *buffer).is_ok()));
    rig.host.drop_owner(ZERO, holder);
    rig.block(other).unwrap();
    assert_eq!(rig.counts(A).2, 0);
    rig.close_all();
}

#[test]
fn a_constant_in_borrowed_memory_is_written_anew() {
    let mut rig = Rig::empty();
    rig.open(A, with_memory(0, 64));
    rig.open(B, with_memory(64, 0));
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    let (bytes, hash) = constant(7, BLOCK_BYTES);
    let first = rig.host.constant(ZERO, who, hash, &bytes).unwrap();
    let rest: Vec<u64> = (0..64).map(|_| rig.block(other).unwrap()).collect();
    assert_eq!(code(rig.words(who, first)), "gpu.lost");
    assert_eq!(rig.host.find_constant(who, hash), Ok(None));
    rig.host.drop_handle(ZERO, other, rest[0]).unwrap();
    let second = rig.host.constant(ZERO, who, hash, &bytes).unwrap();
    assert!(rig.words(who, second).is_ok());
    rig.close_all();
}

proptest! {
    /// Buffers of one block, so that what is taken back is exact.
    #[test]
    fn who_is_guaranteed_memory_gets_it_and_nobody_loses_more_than_was_borrowed(
        moves in prop::collection::vec((0_u64..3, 0_u8..8), 1..200),
    ) {
        let mut rig = Rig::empty();
        for tenant in 0..3 {
            rig.open(Tenant(tenant), with_memory(20, 30));
        }
        let mut handles: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (number, (tenant, what)) in moves.into_iter().enumerate() {
            let who = owner(Tenant(tenant), 0, 0);
            let before = [0, 1, 2].map(|tenant| rig.blocks(Tenant(tenant)));
            let theirs = handles.entry(tenant).or_default();
            match what {
                0 if !theirs.is_empty() => {
                    let handle = theirs.swap_remove(number % theirs.len());
                    rig.host.drop_handle(ZERO, who, handle).unwrap();
                }
                1 => {
                    let (bytes, hash) = constant(number as u8, BLOCK_BYTES);
                    let made = rig.host.constant(ZERO, who, hash, &bytes);
                    prop_assert!(made.is_ok() || before[tenant as usize] >= 20, "{made:?}");
                    if let Ok(handle) = made {
                        rig.host.drop_handle(ZERO, who, handle).unwrap();
                    }
                }
                _ => {
                    let made = rig.block(who);
                    prop_assert!(made.is_ok() || before[tenant as usize] >= 20, "{made:?}");
                    theirs.extend(made);
                }
            }
            let others = (0..3).zip(before).filter(|(at, _)| *at != tenant);
            for (at, before) in others {
                let after = rig.blocks(Tenant(at));
                prop_assert!(after >= before.min(20), "{at}: {before} blocks became {after}");
            }
            prop_assert_eq!(rig.host.owed(), []);
        }
        // What is not gone is still there.
        for (tenant, handles) in handles {
            let who = owner(Tenant(tenant), 0, 0);
            let there = handles.iter().filter(|handle| rig.words(who, **handle).is_ok()).count();
            let kept = rig.counts(Tenant(tenant)).0 / BLOCK_BYTES;
            prop_assert_eq!(there as u64 + kept, rig.blocks(Tenant(tenant)));
        }
        rig.close_all();
    }
}
