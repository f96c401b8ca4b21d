//! Memory: what is read, who may, how much there is, and that it comes back.

use super::*;

const ZERO: Duration = Duration::ZERO;

#[test]
fn what_is_written_is_read() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let buffer = rig.buffer(who, &[1, 2, 3]);
    rig.host.write(who, buffer, 3, &[9, 8]).unwrap();
    assert_eq!(rig.words(who, buffer), Ok(vec![0x0900_0001, 0x0000_0008, 3]));
    let mut none = [];
    assert_eq!(rig.host.read(who, buffer, 12, &mut none), Ok(()));
    assert_eq!(code(rig.host.read(who, buffer, 9, &mut [0; 4])), "gpu.range");
    assert_eq!(code(rig.host.write(who, buffer, u64::MAX, &[0])), "gpu.range");
    let used = rig.host.stage_bill(ZERO, who.stage).unwrap().used;
    assert_eq!((used.up_bytes, used.down_bytes), (14, 12));
    rig.close_all();
}

#[test]
fn a_new_buffer_is_zeros_wherever_it_is() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    // Others keep the block from going back to the device.
    let kept = rig.buffer(who, &[5]);
    let sizes = [64, 1, 300, 17];
    for _ in 0..3 {
        let buffers = sizes.map(|words| rig.buffer(who, &vec![u32::MAX; words]));
        for buffer in buffers {
            rig.host.drop_handle(ZERO, who, buffer).unwrap();
        }
        let fresh = rig.host.create(ZERO, who, 1600).unwrap();
        assert_eq!(rig.words(who, fresh), Ok(vec![0; 400]));
        rig.host.drop_handle(ZERO, who, fresh).unwrap();
    }
    assert_eq!(rig.words(who, kept), Ok(vec![5]));
    assert_eq!(rig.probe().blocks.len(), 1);
    rig.close_all();
}

#[test]
fn a_handle_is_good_for_its_owner_alone() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let buffer = rig.buffer(who, &[1]);
    let graph = rig.graph(who, ADD, 1);
    let kernel = rig.kernel(who, ADD);
    let others = [owner(B, 0, 0), owner(A, 1, 0), owner(A, 0, 1)];
    for other in others {
        assert_eq!(code(rig.words(other, buffer)), "gpu.handle");
        assert_eq!(code(rig.host.write(other, buffer, 0, &[1])), "gpu.handle");
        assert_eq!(code(rig.host.attach(other, buffer, other)), "gpu.handle");
        assert_eq!(code(rig.submit(other, graph, &[buffer])), "gpu.handle");
        assert_eq!(code(rig.host.slots(other, kernel)), "gpu.handle");
        for handle in [buffer, graph, kernel] {
            assert_eq!(code(rig.host.drop_handle(ZERO, other, handle)), "gpu.handle");
        }
        let mine = rig.buffer(other, &[2]);
        let copied = rig.host.copy(other, Binding::whole(buffer), Binding::whole(mine));
        assert_eq!(code(copied), "gpu.handle");
        let theirs = rig.graph(other, ADD, 1);
        assert_eq!(code(rig.submit(other, theirs, &[buffer])), "gpu.handle");
        let op = Op::Dispatch { kernel, grid: [1; 3], slots: vec![0] };
        assert_eq!(code(rig.host.record(other, &[op])), "gpu.handle");
    }
    // One sort is not another, and what is near a handle is none.
    assert_eq!(code(rig.words(who, graph)), "gpu.handle");
    assert_eq!(code(rig.submit(who, kernel, &[buffer])), "gpu.handle");
    for forged in [0, buffer + 1, buffer | 1 << 50, u64::MAX, !buffer] {
        assert_ne!(rig.words(who, forged).map_err(|why| why.code()), Ok(vec![1]));
    }
    rig.host.drop_handle(ZERO, who, buffer).unwrap();
    assert_eq!(code(rig.words(who, buffer)), "gpu.handle");
    assert_eq!(code(rig.host.drop_handle(ZERO, who, buffer)), "gpu.handle");
    for nobody in [owner(Tenant(9), 0, 0), owner(A, 9, 0)] {
        let refused = code(rig.host.create(ZERO, nobody, 4));
        assert!(["gpu.tenant", "gpu.stage"].contains(&refused), "{refused}");
    }
    rig.close_all();
}

#[test]
fn lengths_that_are_none_are_refused() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    for bytes in [0, 1, 6] {
        assert_eq!(code(rig.host.create(ZERO, who, bytes)), "gpu.range");
    }
    for bytes in [u64::MAX - 3, 1 << 62, MEMORY_BYTES] {
        let refused = rig.host.create(ZERO, who, bytes).unwrap_err();
        assert_eq!(refused.code(), "gpu.limit", "{refused}");
    }
    assert_eq!(rig.host.held_bytes(A), Some(0));
    rig.close_all();
}

#[test]
fn memory_is_guaranteed_and_borrowed() {
    let mut rig = Rig::new(terms());
    let [who, other] = [A, B].map(|tenant| owner(tenant, 0, 0));
    // Two are guaranteed half of it, and the rest is there to be borrowed: all for A.
    let mut rest = terms();
    rest.borrowable_bytes = 64 * BLOCK_BYTES;
    rig.host.change(ZERO, A, rest).unwrap();
    for _ in 0..48 {
        rig.host.create(ZERO, who, BLOCK_BYTES).unwrap();
    }
    for _ in 0..15 {
        rig.host.create(ZERO, other, BLOCK_BYTES).unwrap();
    }
    assert_eq!(code(rig.host.create(ZERO, who, BLOCK_BYTES * 2)), "gpu.memory");
    let last = rig.host.create(ZERO, who, BLOCK_BYTES).unwrap();
    // It is B's, whoever has borrowed it.
    rig.host.create(ZERO, other, BLOCK_BYTES).unwrap();
    assert!(rig.host.bytes(who, last).is_ok(), "the oldest went");
    assert_eq!(code(rig.host.create(ZERO, who, BLOCK_BYTES)), "gpu.memory");
    assert_eq!(rig.host.owed(), []);
    rig.close_all();
}

#[test]
fn what_is_promised_already_is_not_promised_again() {
    let mut rig = Rig::new(terms());
    let mut greedy = terms();
    greedy.guaranteed_bytes = 33 * BLOCK_BYTES;
    assert_eq!(code(rig.host.open(ZERO, Tenant(3), greedy)), "gpu.oversold");
    assert_eq!(
        code(rig.host.change(ZERO, A, TenantTerms { weight: 750_001, ..terms() })),
        "gpu.oversold"
    );
    assert_eq!(
        code(rig.host.change(
            ZERO,
            A,
            TenantTerms { guaranteed_bytes: 49 * BLOCK_BYTES, ..terms() }
        )),
        "gpu.oversold"
    );
    assert_eq!(code(rig.host.open(ZERO, A, terms())), "gpu.exists");
    assert_eq!(
        code(rig.host.open(ZERO, Tenant(3), TenantTerms { weight: 0, ..terms() })),
        "gpu.terms"
    );
    let less = TenantTerms { weight: 750_001, guaranteed_bytes: 0, ..terms() };
    assert_eq!(code(rig.host.change(ZERO, A, less)), "gpu.oversold");
    assert_eq!(code(rig.host.open(ZERO, Tenant(3), greedy)), "gpu.oversold");
    // Nothing of what was refused is left behind.
    greedy.guaranteed_bytes = 32 * BLOCK_BYTES;
    rig.host.open(ZERO, Tenant(3), TenantTerms { weight: 500_000, ..greedy }).unwrap();
    rig.close_all();
}

#[test]
fn ten_thousand_buffers_end_at_the_limit() {
    let limits = TenantLimits { buffers: 500, ..TenantLimits::default() };
    let mut rig = Rig::new(with_limits(limits));
    let who = owner(A, 0, 0);
    let made: Vec<Result<u64, Refused>> =
        (0..10_000).map(|_| rig.host.create(ZERO, who, 4)).collect();
    assert!(made[..500].iter().all(Result::is_ok));
    let refused = made[500].as_ref().unwrap_err();
    assert_eq!(refused.to_string(), "501 buffers, at most 500: drop some, or make one of several");
    assert!(made[500..].iter().all(|made| made.as_ref() == Err(refused)));
    // 256 bytes for each.
    assert_eq!(rig.host.held_bytes(A), Some(500_u64.div_ceil(16) * BLOCK_BYTES));
    for handle in made[..500].iter().flatten() {
        rig.host.drop_handle(ZERO, who, *handle).unwrap();
    }
    assert_eq!((rig.host.held_bytes(A), rig.probe().held()), (Some(0), 0));
    // One after the other there is no end to them.
    for _ in 0..10_000 {
        let buffer = rig.host.create(ZERO, who, 4).unwrap();
        rig.host.drop_handle(ZERO, who, buffer).unwrap();
    }
    rig.close_all();
}

#[test]
fn a_constant_is_there_once_for_a_tenant() {
    let mut rig = Rig::new(terms());
    let [who, same, other] = [owner(A, 0, 0), owner(A, 1, 5), owner(B, 0, 0)];
    let bytes = bytes_of(&[3, 4]);
    let hash = *blake3::hash(&bytes).as_bytes();
    assert_eq!(code(rig.host.constant(ZERO, who, [7; 32], &bytes)), "gpu.constant");
    assert_eq!(rig.host.find_constant(who, hash), Ok(None));
    let first = rig.host.constant(ZERO, who, hash, &bytes).unwrap();
    let second = rig.host.constant(ZERO, same, hash, &bytes).unwrap();
    assert_eq!(rig.host.find_constant(other, hash), Ok(None), "it is another tenant's");
    let mut used = |who: Owner| rig.host.stage_bill(ZERO, who.stage).unwrap().used.up_bytes;
    assert_eq!((used(who), used(same)), (8, 0));
    assert_eq!(rig.words(same, second), Ok(vec![3, 4]));
    assert_eq!(code(rig.host.write(who, first, 0, &[0; 4])), "gpu.read-only");
    let buffer = rig.buffer(who, &[1, 1]);
    let copied = rig.host.copy(who, Binding::whole(buffer), Binding::whole(first));
    assert_eq!(code(copied), "gpu.read-only");
    let add = rig.graph(who, ADD, 1);
    assert_eq!(code(rig.submit(who, add, &[first])), "gpu.read-only");
    let kernel = rig.kernel(who, SUM);
    let op = Op::Dispatch { kernel, grid: [1; 3], slots: vec![0, 1] };
    let sum = rig.host.record(who, &[op]).unwrap();
    rig.submit(who, sum, &[first, buffer]).unwrap();
    // It stays for the submission, and for the other owner.
    rig.host.drop_handle(ZERO, who, first).unwrap();
    rig.host.drop_handle(ZERO, same, second).unwrap();
    assert_eq!(rig.ends().len(), 1);
    assert_eq!(rig.words(who, buffer), Ok(vec![4, 5]));
    // Nobody has it any more, and it is there for who comes next.
    let third = rig.host.find_constant(who, hash).unwrap().unwrap();
    assert_eq!(rig.words(who, third), Ok(vec![3, 4]));
    assert_eq!(rig.host.bill(ZERO, A).unwrap().used.up_bytes, 16, "it is not written again");
    rig.close_all();
}

#[test]
fn a_buffer_is_attached_as_it_is() {
    let mut rig = Rig::new(terms());
    let [who, next, holder] = [owner(A, 0, 0), owner(A, 1, 3), owner(A, 0, 99)];
    let buffer = rig.buffer(who, &[6]);
    assert_eq!(code(rig.host.attach(who, buffer, owner(B, 0, 99))), "gpu.foreign");
    assert_eq!(code(rig.host.attach(who, buffer, owner(A, 1, 99))), "gpu.foreign");
    let graph = rig.graph(who, ADD, 1);
    rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(code(rig.host.attach(who, buffer, holder)), "gpu.busy");
    assert_eq!(rig.ends().len(), 1);
    let submits = rig.probe().submits;
    rig.host.attach(who, buffer, holder).unwrap();
    // A call that is made again attaches it again, and for this holder only.
    assert_eq!(rig.host.attach(who, buffer, holder), Ok(()));
    assert_eq!(code(rig.host.attach(who, buffer, owner(A, 0, 98))), "gpu.handle");
    assert_eq!(code(rig.host.attach(next, buffer, owner(A, 1, 99))), "gpu.handle");
    rig.host.drop_owner(ZERO, who);
    for reader in [who, next, holder] {
        assert_eq!(rig.words(reader, buffer), Ok(vec![7]));
    }
    assert_eq!(code(rig.words(owner(B, 0, 0), buffer)), "gpu.handle");
    assert_eq!(rig.probe().submits, submits, "nothing is copied");
    assert_eq!(code(rig.host.drop_handle(ZERO, who, buffer)), "gpu.handle");
    assert_eq!(code(rig.host.drop_handle(ZERO, next, buffer)), "gpu.handle");
    rig.host.drop_owner(ZERO, holder);
    assert_eq!(code(rig.words(next, buffer)), "gpu.handle");
    assert_eq!((rig.host.held_bytes(A), rig.probe().held()), (Some(0), 0));
    rig.close_all();
}

#[test]
fn what_is_attached_is_read_by_all_and_written_by_nobody() {
    let mut rig = Rig::new(terms());
    let [who, next, holder] = [owner(A, 0, 0), owner(A, 1, 3), owner(A, 0, 99)];
    let buffer = rig.buffer(who, &[6, 7]);
    rig.host.attach(who, buffer, holder).unwrap();
    for writer in [who, next, holder] {
        assert_eq!(code(rig.host.write(writer, buffer, 0, &[1; 4])), "gpu.read-only");
        let add = rig.graph(writer, ADD, 1);
        assert_eq!(code(rig.submit(writer, add, &[buffer])), "gpu.read-only");
        let own = rig.buffer(writer, &[0, 0]);
        let copied = rig.host.copy(writer, Binding::whole(own), Binding::whole(buffer));
        assert_eq!(code(copied), "gpu.read-only");
        rig.host.copy(writer, Binding::whole(buffer), Binding::whole(own)).unwrap();
        // What is bound to be read is no reason to refuse anybody.
        assert_eq!(rig.host.attach(who, buffer, holder), Ok(()));
        assert_eq!(rig.ends().len(), 1);
        assert_eq!(rig.words(writer, own), Ok(vec![6, 7]));
    }
    // It stays for a submission, whoever goes.
    let own = rig.buffer(next, &[0, 0]);
    rig.host.copy(next, Binding::whole(buffer), Binding::whole(own)).unwrap();
    rig.host.drop_owner(ZERO, holder);
    assert_eq!(rig.ends().len(), 1);
    assert_eq!(rig.words(next, own), Ok(vec![6, 7]));
    rig.close_all();
}

#[test]
fn what_is_half_written_stays_so_when_it_is_attached() {
    let mut rig = Rig::new(terms());
    let [who, next, holder] = [owner(A, 0, 0), owner(A, 1, 3), owner(A, 0, 99)];
    let (submission, buffer) = rig.begin_endless(who);
    rig.host.cancel(ZERO, who, submission).unwrap();
    assert_eq!(rig.ends(), [(submission, End::Cancelled)]);
    rig.host.attach(who, buffer, holder).unwrap();
    assert_eq!(code(rig.words(who, buffer)), "gpu.poisoned");
    assert_eq!(code(rig.words(next, buffer)), "gpu.poisoned");
    let own = rig.buffer(next, &[0]);
    let copied = rig.host.copy(next, Binding::whole(buffer), Binding::whole(own));
    assert_eq!(code(copied), "gpu.poisoned");
    rig.close_all();
}

#[test]
fn the_handle_of_a_constant_is_attached_and_another_is_made() {
    let mut rig = Rig::new(terms());
    let [who, next, holder] = [owner(A, 0, 0), owner(A, 1, 3), owner(A, 0, 99)];
    let bytes = bytes_of(&[3, 4]);
    let hash = *blake3::hash(&bytes).as_bytes();
    let first = rig.host.constant(ZERO, who, hash, &bytes).unwrap();
    let kernel = rig.kernel(who, SUM);
    let op = Op::Dispatch { kernel, grid: [1; 3], slots: vec![0, 1] };
    let sum = rig.host.record(who, &[op]).unwrap();
    let buffer = rig.buffer(who, &[1, 1]);
    rig.submit(who, sum, &[first, buffer]).unwrap();
    // Nothing writes it, so that it may be in use.
    rig.host.attach(who, first, holder).unwrap();
    let second = rig.host.find_constant(who, hash).unwrap().unwrap();
    assert_eq!(rig.words(next, first), Ok(vec![3, 4]));
    assert_eq!(code(rig.words(next, second)), "gpu.handle");
    rig.host.drop_owner(ZERO, holder);
    assert_eq!(code(rig.words(next, first)), "gpu.handle");
    assert_eq!(rig.words(who, second), Ok(vec![3, 4]));
    assert_eq!(rig.ends().len(), 1);
    rig.close_all();
}

#[test]
fn memory_is_billed_while_it_is_held() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    rig.advance(Duration::from_nanos(10));
    let now = rig.now();
    let buffer = rig.host.create(now, who, 2 * BLOCK_BYTES + 4).unwrap();
    rig.advance(Duration::from_nanos(7));
    let now = rig.now();
    rig.host.drop_handle(now, who, buffer).unwrap();
    rig.advance(Duration::from_nanos(100));
    let now = rig.now();
    let bill = rig.host.bill(now, A).unwrap();
    assert_eq!(bill.memory_byte_nanos, u128::from(3 * BLOCK_BYTES) * 7);
    assert_eq!(rig.host.bill_in_all(now), bill);
    rig.close_all();
}

#[test]
fn a_device_without_memory_is_no_end() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    rig.probe().fake.fill_up_at_allocate(1);
    assert_eq!(code(rig.host.create(ZERO, who, 4)), "gpu.memory");
    assert_eq!(rig.host.held_bytes(A), Some(0));
    rig.close_all();
}

#[test]
fn what_is_read_behind_a_uniform_binding_is_nobodys() {
    for offset_bytes in [16, 64, 256] {
        let mut rig = Rig::new(terms());
        rig.host.info.limits.offset_bytes = offset_bytes;
        let who = owner(A, 0, 0);
        let full = |rig: &mut Rig, words| rig.buffer(who, &vec![u32::MAX; words]);
        // The piece stays while something is in it.
        full(&mut rig, 1);
        let old = [64, 1, 65, 200, 9].map(|words| full(&mut rig, words));
        for handle in old {
            rig.host.drop_handle(ZERO, who, handle).unwrap();
        }
        for bytes in [12, 64] {
            let constant = vec![0xFF; bytes];
            let hash = *blake3::hash(&constant).as_bytes();
            rig.host.constant(ZERO, who, hash, &constant).unwrap();
        }
        // The last but one begins a piece, and the last is all of one.
        for words in [63, 3, 64, 100, 700, 1024] {
            full(&mut rig, words);
        }
        let stores = rig.host.spaces[&A.0].stores.values();
        let ends = stores.map(|store| (store.place.block, store.place.offset, store.bytes));
        for (block, offset, bytes) in ends.collect::<Vec<_>>() {
            // Bindings may begin at any of these.
            let starts = (0..bytes).step_by(offset_bytes as usize);
            let reach = starts.map(|start| start + (bytes - start).next_multiple_of(256)).max();
            let end = (offset + reach.unwrap()).min(BLOCK_BYTES);
            let mut behind = vec![1; (end - offset - bytes) as usize];
            rig.probe().fake.read(block, offset + bytes, &mut behind).unwrap();
            assert!(behind.iter().all(|byte| *byte == 0), "{bytes} bytes at {offset}");
        }
        assert_eq!(rig.host.held_bytes(A), Some(3 * BLOCK_BYTES));
        rig.close_all();
    }
}
