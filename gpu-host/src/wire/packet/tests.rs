//! Packets are read as they were written, and nothing else is.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::device::{Info, Kind, Limits};
use crate::host::{Binding, Op, Owner, Part};
use crate::kernel::{Access, Slot};
use crate::slice::{Stage, Tenant};
use crate::wire::{
    Act, Answer, End, Figures, Refusal, StageFigures, TenantFigures, Terms, Used, Want,
};

fn owner() -> impl Strategy<Value = Owner> {
    let stage = (any::<u64>(), any::<u32>());
    (stage, any::<u64>()).prop_map(|((tenant, number), instance)| Owner {
        stage: Stage { tenant: Tenant(tenant), number },
        instance,
    })
}

fn part() -> impl Strategy<Value = Part> {
    any::<(u32, u64, u64)>().prop_map(|(slot, offset, bytes)| Part { slot, offset, bytes })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (any::<u64>(), any::<[u32; 3]>(), vec(any::<u32>(), 0..9))
            .prop_map(|(kernel, grid, slots)| Op::Dispatch { kernel, grid, slots }),
        (part(), part()).prop_map(|(from, to)| Op::Copy { from, to }),
        (part(), any::<u32>()).prop_map(|(at, word)| Op::Fill { at, word }),
    ]
}

fn binding() -> impl Strategy<Value = Binding> {
    let parts = any::<(u64, u64, Option<u64>)>();
    parts.prop_map(|(buffer, offset, bytes)| Binding { buffer, offset, bytes })
}

fn act() -> impl Strategy<Value = Act> {
    let number = any::<u64>();
    let hash = any::<[u8; 32]>();
    let submit = (any::<u64>(), vec(binding(), 0..5), any::<Duration>(), any::<bool>());
    prop_oneof![
        number.prop_map(|bytes| Act::Create { bytes }),
        any::<(u64, u64)>().prop_map(|(buffer, offset)| Act::Write { buffer, offset }),
        any::<(u64, u64, u64)>().prop_map(|(buffer, offset, bytes)| Act::Read {
            buffer,
            offset,
            bytes
        }),
        number.prop_map(|buffer| Act::Size { buffer }),
        hash.prop_map(|hash| Act::FindConstant { hash }),
        (hash, any::<u64>(), any::<u64>()).prop_map(|(hash, bytes, offset)| Act::Constant {
            hash,
            bytes,
            offset
        }),
        ".{0,20}".prop_map(|entry| Act::Kernel { entry }),
        number.prop_map(|kernel| Act::Slots { kernel }),
        vec(op(), 0..9).prop_map(|steps| Act::Record { steps }),
        submit.prop_map(|(graph, bindings, time_max, waits)| {
            Act::Submit { graph, bindings, time_max, waits }
        }),
        number.prop_map(|submission| Act::Cancel { submission }),
        any::<(u64, u64)>().prop_map(|(buffer, holder)| Act::Attach { buffer, holder }),
        number.prop_map(|handle| Act::Free { handle }),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let terms = any::<(u32, Option<u32>, u64, u64)>().prop_map(|parts| {
        let (weight, cap, guaranteed_bytes, borrowable_bytes) = parts;
        Terms { weight, cap, guaranteed_bytes, borrowable_bytes }
    });
    let stage = || owner().prop_map(|owner| owner.stage);
    let want = prop_oneof![
        (any::<u64>(), terms).prop_map(|(tenant, terms)| Want::Tenant { tenant, terms }),
        any::<u64>().prop_map(|tenant| Want::CloseTenant { tenant }),
        (stage(), any::<u32>()).prop_map(|(stage, weight)| Want::Stage { stage, weight }),
        stage().prop_map(|stage| Want::CloseStage { stage }),
        owner().prop_map(|owner| Want::DropOwner { owner }),
        any::<(u64, [u8; 32])>().prop_map(|(tenant, kernel)| Want::Quarantine { tenant, kernel }),
        Just(Want::Figures),
        (owner(), act()).prop_map(|(owner, act)| Want::Of(owner, act)),
    ];
    (any::<u64>(), want).prop_map(|(number, want)| Ask { number, want })
}

fn info() -> impl Strategy<Value = Info> {
    let kind = prop_oneof![
        Just(Kind::Discrete),
        Just(Kind::Integrated),
        Just(Kind::Software),
        Just(Kind::Fake)
    ];
    let limits = any::<([u32; 4], [u64; 2], Option<u64>)>().prop_map(|(small, large, last)| {
        let [groups, group_threads, group_bytes, bindings] = small;
        let [binding_bytes, offset_bytes] = large;
        let iterations = last;
        Limits {
            groups,
            group_threads,
            group_bytes,
            binding_bytes,
            bindings,
            offset_bytes,
            iterations,
        }
    });
    let waits = any::<[bool; 2]>();
    (".{0,20}", ".{0,20}", kind, any::<u64>(), limits, waits).prop_map(
        |(name, driver, kind, memory_bytes, limits, [copies_wait, loads_wait])| Info {
            name,
            driver,
            kind,
            memory_bytes,
            limits,
            copies_wait,
            loads_wait,
        },
    )
}

fn used() -> impl Strategy<Value = Used> {
    any::<[u64; 6]>().prop_map(|numbers| {
        let [device_nanos, chunks, copy_nanos, up_bytes, down_bytes, queued] = numbers;
        Used { device_nanos, chunks, copy_nanos, up_bytes, down_bytes, queued }
    })
}

fn stage_figures() -> impl Strategy<Value = StageFigures> {
    (any::<u32>(), used(), any::<[u64; 2]>()).prop_map(|(stage, used, numbers)| {
        let [held_bytes, memory_byte_seconds] = numbers;
        StageFigures { stage, used, held_bytes, memory_byte_seconds }
    })
}

fn figures() -> impl Strategy<Value = Figures> {
    let stages = vec(stage_figures(), 0..4);
    let tenant = (any::<[u64; 7]>(), used(), stages).prop_map(|(numbers, used, stages)| {
        let [tenant, held_bytes, kept_bytes, evictions, recalls, rest @ ..] = numbers;
        let [memory_byte_seconds, handles] = rest;
        TenantFigures {
            tenant,
            used,
            held_bytes,
            kept_bytes,
            evictions,
            recalls,
            memory_byte_seconds,
            handles,
            stages,
        }
    });
    (any::<[u64; 2]>(), vec(tenant, 0..4)).prop_map(|([busy_nanos, copy_nanos], tenants)| Figures {
        busy_nanos,
        copy_nanos,
        tenants,
    })
}

fn slot() -> impl Strategy<Value = Slot> {
    let access = prop_oneof![Just(Access::Uniform), Just(Access::Read), Just(Access::ReadWrite)];
    (any::<u32>(), access, any::<u64>()).prop_map(|(number, access, bytes_min)| Slot {
        number,
        access,
        bytes_min,
    })
}

fn reply() -> impl Strategy<Value = Reply> {
    let ends = [
        End::Whole,
        End::Fuel,
        End::Cancelled,
        End::Deadline,
        End::Overdue,
        End::Poisoned,
        End::Refused,
        End::Lost,
    ];
    let end = prop::sample::select(ends.to_vec());
    let answer = prop_oneof![
        (info(), any::<u32>()).prop_map(|(info, generation)| Answer::Begun { info, generation }),
        Just(Answer::Done),
        Just(Answer::Unknown),
        any::<u64>().prop_map(Answer::Handle),
        any::<u64>().prop_map(Answer::Bytes),
        vec(slot(), 0..9).prop_map(Answer::Slots),
        (end, any::<u64>()).prop_map(|(end, device_nanos)| Answer::Ended { end, device_nanos }),
        figures().prop_map(Answer::Figures),
        (".{0,20}", ".{0,99}").prop_map(|(code, text)| Answer::Refused(Refusal { code, text })),
        (option::of(any::<[u8; 32]>()), any::<u64>())
            .prop_map(|(kernel, tenant)| Answer::Hung { kernel, tenant }),
    ];
    (any::<u64>(), answer).prop_map(|(number, answer)| Reply { number, answer })
}

fn packet(mut head: Vec<u8>, tail: &[u8]) -> Vec<u8> {
    head.extend(tail);
    head
}

fn expect_again(data: &[u8]) {
    for reread in [reread_ask, reread_reply] {
        if let Ok(again) = reread(data) {
            assert_eq!(reread(&again), Ok(again.clone()));
        }
    }
}

proptest! {
    #[test]
    fn what_is_asked_is_read_as_it_was_written(
        ask in ask(),
        tail in vec(any::<u8>(), 0..40),
        cut in 0_usize..40,
    ) {
        let whole = packet(ask.head(tail.len()).unwrap(), &tail);
        prop_assert_eq!(Ask::read(&whole), Ok((ask.clone(), &tail[..])));
        let head = ask.head(0).unwrap();
        let short = &head[..head.len() - 1 - cut % head.len()];
        prop_assert_eq!(Ask::read(short), Err(Malformed::Short(short.len())));
    }

    #[test]
    fn what_is_answered_is_read_as_it_was_written(
        reply in reply(),
        tail in vec(any::<u8>(), 0..40),
    ) {
        let whole = packet(reply.head(tail.len()).unwrap(), &tail);
        prop_assert_eq!(Reply::read(&whole), Ok((reply, &tail[..])));
    }

    #[test]
    fn any_bytes_are_read_or_refused(data in vec(any::<u8>(), 0..80)) {
        expect_again(&data);
        let head = packet((data.len() as u32).to_le_bytes().to_vec(), &data);
        expect_again(&head);
    }

    #[test]
    fn a_packet_with_a_few_other_bytes_is_read_or_refused(
        ask in ask(),
        reply in reply(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for mut data in [ask.head(0).unwrap(), reply.head(0).unwrap()] {
            for (at, byte) in &changes {
                let at = at.index(data.len());
                data[at] = *byte;
            }
            expect_again(&data);
        }
    }
}

#[test]
fn what_is_too_long_is_neither_written_nor_read() {
    let owner = Owner { stage: Stage { tenant: Tenant(1), number: 2 }, instance: 3 };
    let kernel = |bytes| {
        let act = Act::Kernel { entry: "e".repeat(bytes) };
        Ask { number: 1, want: Want::Of(owner, act) }
    };
    // Number, want, owner, act, and the length of the text before it.
    let longest = ASK_BYTES_MAX - 9;
    assert_eq!(kernel(longest).head(0).map(|head| head.len()), Ok(ASK_BYTES_MAX + 4));
    let (found, most) = (ASK_BYTES_MAX + 1, ASK_BYTES_MAX);
    assert_eq!(kernel(longest + 1).head(0), Err(Malformed::Head { found, most }));
    let forged = packet((found as u32).to_le_bytes().to_vec(), &vec![0; found]);
    assert_eq!(Ask::read(&forged), Err(Malformed::Head { found, most }));

    let figures = Ask { number: 1, want: Want::Figures };
    let tail = vec![0; TAIL_BYTES_MAX + 1];
    assert_eq!(figures.head(tail.len()), Err(Malformed::Tail(tail.len())));
    let mut packet = packet(figures.head(TAIL_BYTES_MAX).unwrap(), &tail);
    assert_eq!(Ask::read(&packet), Err(Malformed::Tail(tail.len())));
    packet.pop();
    assert_eq!(Ask::read(&packet), Ok((figures, &tail[1..])));
}

#[test]
fn what_is_behind_a_head_is_refused() {
    let mut head = Ask { number: 1, want: Want::Figures }.head(0).unwrap();
    head.push(0);
    head[0] += 1;
    assert_eq!(Ask::read(&head), Err(Malformed::Longer(1)));
    head[5] = 99;
    assert_eq!(Ask::read(&head), Err(Malformed::Unknown(3)));
}

#[test]
fn a_list_that_claims_to_be_long_is_refused() {
    // Number, `Of`, owner, `Record`, and as many steps as can be said.
    let mut head = vec![1, 7, 1, 2, 3, 8];
    head.extend([0xFF; 9]);
    head.push(1);
    let packet = packet((head.len() as u32).to_le_bytes().to_vec(), &head);
    assert_eq!(Ask::read(&packet), Err(Malformed::Unknown(head.len())));
}

/// The seeds of the fuzzer, as they are written now.
#[test]
fn the_seeds_are_what_is_written() {
    let owner = Owner { stage: Stage { tenant: Tenant(1), number: 2 }, instance: 3 };
    let of = |act| Ask { number: 300, want: Want::Of(owner, act) }.head(4).unwrap();
    let terms = Terms {
        weight: 250_000,
        cap: Some(500_000),
        guaranteed_bytes: 1 << 28,
        borrowable_bytes: 0,
    };
    let dispatch = Op::Dispatch { kernel: 1 << 44, grid: [64, 64, 1], slots: vec![0, 1] };
    let part = Part { slot: 1, offset: 256, bytes: 1024 };
    let steps = vec![dispatch, Op::Copy { from: part, to: part }, Op::Fill { at: part, word: 7 }];
    let bindings = vec![Binding::whole(9), Binding { buffer: 8, offset: 4, bytes: Some(64) }];
    let time_max = Duration::from_millis(1_500);
    let stages = vec![StageFigures { stage: 2, ..Default::default() }];
    let tenants = vec![TenantFigures { stages, ..Default::default() }];
    let refusal = Refusal { code: "gpu.handle".to_owned(), text: "there is none".to_owned() };
    let reply = |answer| Reply { number: 300, answer }.head(4).unwrap();
    let seeds = [
        (
            "good-tenant",
            Ask { number: 1, want: Want::Tenant { tenant: 1, terms } }.head(4).unwrap(),
        ),
        ("good-record", of(Act::Record { steps })),
        ("good-submit", of(Act::Submit { graph: 1 << 44, bindings, time_max, waits: true })),
        ("good-constant", of(Act::Constant { hash: [7; 32], bytes: 8, offset: 4 })),
        ("good-attach", of(Act::Attach { buffer: 1 << 44, holder: 1 << 60 })),
        ("good-kernel", of(Act::Kernel { entry: "main".to_owned() })),
        (
            "good-figures",
            reply(Answer::Figures(Figures { busy_nanos: 1 << 40, copy_nanos: 1 << 38, tenants })),
        ),
        ("good-refused", reply(Answer::Refused(refusal))),
        ("good-ended", reply(Answer::Ended { end: End::Whole, device_nanos: 1 << 30 })),
    ];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/gpu_packet/seed-");
    for (name, head) in seeds {
        let bytes = packet(head, b"tail");
        if std::env::var_os("SLUICEBOX_BLESS").is_some() {
            std::fs::write(format!("{folder}{name}"), &bytes).unwrap();
        }
        assert_eq!(std::fs::read(format!("{folder}{name}")).unwrap(), bytes, "{name}");
    }
}
