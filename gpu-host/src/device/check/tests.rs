//! Steps against a device of two blocks and one kernel.

use proptest::prelude::*;

use super::*;

const SLOTS: [Slot; 2] = [
    Slot { number: 0, access: Access::Read, bytes_min: 16 },
    Slot { number: 3, access: Access::ReadWrite, bytes_min: 4 },
];

struct Two;

impl Stock for Two {
    fn limits(&self) -> &Limits {
        const {
            &Limits {
                groups: 100,
                group_threads: 64,
                group_bytes: 1024,
                binding_bytes: 512,
                bindings: 8,
                offset_bytes: 16,
                iterations: None,
            }
        }
    }

    fn block_bytes(&self, block: Block) -> Option<u64> {
        [1024, 60].get(usize::try_from(block.0).ok()?).copied()
    }

    fn slots(&self, kernel: Loaded) -> Option<&[Slot]> {
        (kernel == Loaded(7)).then_some(&SLOTS[..])
    }
}

fn span(block: u64, offset: u64, bytes: u64) -> Span {
    Span { block: Block(block), offset, bytes }
}

fn run() -> Run {
    Run {
        kernel: Loaded(7),
        bindings: vec![span(0, 0, 64), span(0, 512, 512)],
        grid: [100, 2, 1],
        from: [40, 1, 0],
        groups: [60, 1, 1],
        fuel: 0,
    }
}

/// Why a step is refused, behind which step it is.
fn why(step: Step) -> String {
    let checked = check(&[Step::Fill { at: span(0, 0, 4), word: 0 }, step], &Two);
    let Err(Error::Wrong(why)) = checked else {
        return String::new();
    };
    why.strip_prefix("step 1: ").expect("it is the second step").to_owned()
}

fn why_run(change: impl FnOnce(&mut Run)) -> String {
    let mut run = run();
    change(&mut run);
    why(Step::Run(run))
}

#[test]
fn what_fits_passes() {
    assert_eq!(why(Step::Run(run())), "");
    assert_eq!(why_run(|run| run.groups = [0, 0, 0]), "");
    assert_eq!(why(Step::Fill { at: span(1, 60, 0), word: 1 }), "");
    assert_eq!(why(Step::Copy { from: span(0, 0, 512), to: Block(0), offset: 512 }), "");
}

#[test]
fn each_thing_that_is_wrong_is_named() {
    let fill = |at| why(Step::Fill { at, word: 0 });
    assert_eq!(fill(span(2, 0, 4)), "there is no block 2");
    assert!(fill(span(1, 56, 8)).contains("not in block 1, which has 60"));
    assert!(fill(span(1, u64::MAX - 3, 4)).contains("not in block 1"));
    assert!(fill(span(1, 2, 4)).contains("no words"));
    assert!(fill(span(1, 4, 5)).contains("no words"));
    let copy = |from, to, offset| why(Step::Copy { from, to: Block(to), offset });
    assert!(copy(span(0, 0, 64), 1, 0).contains("not in block 1"));
    assert!(copy(span(0, 0, 64), 0, 60).contains("overlaps"));
    assert!(copy(span(0, 0, 8), 0, 66).contains("no words"));
    assert_eq!(why_run(|run| run.kernel = Loaded(8)), "there is no kernel 8");
    assert_eq!(why_run(|run| run.bindings.truncate(1)), "1 bindings for 2 slots");
    assert!(why_run(|run| run.bindings[1].offset = 520).contains("slot 3: 512 bytes from 520"));
    assert!(why_run(|run| run.bindings[0].offset = 8).contains("slot 0: the offset 8"));
    assert!(why_run(|run| run.bindings[0].bytes = 12).contains("12 bytes, at least 16"));
    assert!(why_run(|run| run.bindings[1].bytes = 0).contains("0 bytes, at least 4"));
    assert!(why_run(|run| run.bindings[0].bytes = 516).contains("516 bytes, at most 512"));
    assert_eq!(
        why_run(|run| run.bindings[1].offset = 48),
        "slots 0 and 3 overlap, and one is written"
    );
    assert!(why_run(|run| run.grid[0] = 101).contains("101 groups on axis 0, at most 100"));
    assert!(why_run(|run| run.from[1] = 2).contains("1 groups from 2 on axis 1, of 2"));
    assert!(why_run(|run| run.from[2] = u32::MAX).contains("axis 2"));
}

/// Mostly words of a block, and anything at times.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => (0..300_u64).prop_map(|words| words * 4), 1 => any::<u64>()]
}

proptest! {
    #[test]
    fn what_passes_is_inside(
        block in 0..3_u64,
        offset in number(),
        bytes in number(),
        to in number(),
    ) {
        let from = span(block, offset, bytes);
        if check(&[Step::Copy { from, to: Block(0), offset: to }], &Two).is_ok() {
            let end = |at| u128::from(at) + u128::from(bytes);
            prop_assert!(end(offset) <= [1024, 60][block as usize] && end(to) <= 1024);
            let apart = end(offset) <= to.into() || end(to) <= offset.into();
            prop_assert!(block == 1 || bytes == 0 || apart);
        }
    }
}
