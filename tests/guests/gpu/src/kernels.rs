//! Commands that make kernels and submit them.

use std::cell::RefCell;

use sluicebox_guest::gpu::{Buffer, Graph, Kernel, Outcome, Submission};

use crate::{Answer, sources};

thread_local! {
    /// What `begin` left under way, with what it uses.
    static UNDER_WAY: RefCell<Option<(Submission, Graph, Buffer)>> = const { RefCell::new(None) };
}

thread_local! {
    /// Constants there were; on the device as long as somebody has them.
    static CONSTANTS: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of the buffer that kernels write to.
const BYTES: u64 = 256;

/// A graph of one dispatch, whose one slot is what the kernel writes to.
fn graph(source: &str, entry: &str, groups: u64) -> Result<Graph, sluicebox_guest::gpu::Error> {
    let kernel = Kernel::new(source, entry)?;
    let groups = u32::try_from(groups).unwrap_or(u32::MAX);
    Graph::record(|steps| {
        steps.dispatch(&kernel, [groups, 1, 1], &[0]);
    })
}

fn ended(outcome: Outcome) -> String {
    format!("ended {}", outcome.end.name())
}

/// Runs a loop without end: `ended E`.
pub(crate) fn endless(groups: u64) -> Answer {
    let buffer = Buffer::new(BYTES)?;
    Ok(ended(graph(sources::ENDLESS, "endless", groups)?.submit(&[buffer.whole()])?))
}

/// Writes out of bounds: `ended E sum S`, the sum of the buffer and of those beside it, which is
/// that of the one word it writes within.
pub(crate) fn out_of_bounds() -> Answer {
    let (before, buffer, after) = (Buffer::new(BYTES)?, Buffer::new(BYTES)?, Buffer::new(BYTES)?);
    let outcome = graph(sources::OUT_OF_BOUNDS, "out_of_bounds", 1)?.submit(&[buffer.whole()])?;
    let mut sum = 0_u64;
    for buffer in [&before, &buffer, &after] {
        sum += buffer.read_all::<u32>()?.into_iter().map(u64::from).sum::<u64>();
    }
    Ok(format!("{} sum {sum}", ended(outcome)))
}

/// Makes numbers that are none: `ended E third T`, the third being an ordinary one.
pub(crate) fn nan() -> Answer {
    let buffer = Buffer::of(&[0.0_f32; 4])?;
    let outcome = graph(sources::NAN, "nan", 1)?.submit(&[buffer.whole()])?;
    let third = buffer.read::<f32>(8, 1)?;
    Ok(format!("{} third {}", ended(outcome), third.first().copied().unwrap_or_default()))
}

/// Dispatches no workgroups: `ended E` or the refusal of it.
pub(crate) fn zero() -> Answer {
    let buffer = Buffer::new(BYTES)?;
    Ok(ended(graph(sources::ADD, "add", 0)?.submit(&[buffer.whole()])?))
}

/// A fill, two dispatches and a copy: `ended E words W...`, those of both buffers.
pub(crate) fn two() -> Answer {
    let kernel = Kernel::new(sources::ADD, "add")?;
    let graph = Graph::record(|steps| {
        steps
            .fill(0, 16, 1)
            .dispatch(&kernel, [1, 1, 1], &[0])
            .dispatch(&kernel, [1, 1, 1], &[0])
            .copy((0, 4), 1, 12);
    })?;
    let (buffer, copied) = (Buffer::new(16)?, Buffer::new(16)?);
    let outcome = graph.submit(&[buffer.whole(), copied.whole()])?;
    let mut words = buffer.read_all::<u32>()?;
    words.extend(copied.read_all::<u32>()?);
    let words: Vec<String> = words.iter().map(u32::to_string).collect();
    Ok(format!("{} words {}", ended(outcome), words.join(" ")))
}

/// Sums the words of an asset, and keeps it: `sum S`, after how it ended.
pub(crate) fn constant(asset: &str) -> Answer {
    let (table, sum) = (Buffer::constant(asset)?, Buffer::new(4)?);
    CONSTANTS.with_borrow_mut(|kept| kept.push(table));
    let table = Buffer::constant(asset)?;
    let kernel = Kernel::new(sources::SUM, "total")?;
    let graph = Graph::record(|steps| {
        steps.dispatch(&kernel, [1, 1, 1], &[0, 1]);
    })?;
    let outcome = graph.submit(&[table.whole(), sum.whole()])?;
    let sum = sum.read_all::<u32>()?;
    Ok(format!("{} sum {}", ended(outcome), sum.first().copied().unwrap_or_default()))
}

/// Makes a kernel that is a bomb for compilers: `made 1`, or the refusal.
pub(crate) fn bomb() -> Answer {
    Kernel::new(&sources::bomb(), "bomb").map(|_| "made 1".to_owned())
}

/// Makes so many kernels that differ and keeps them until the end: `made N`, and the code of what
/// was refused. Numbers begin with `first`, so that two calls differ too.
pub(crate) fn many(count: u64, first: Option<&str>) -> Answer {
    let first: u64 = first.and_then(|word| word.parse().ok()).unwrap_or_default();
    let mut kernels = Vec::new();
    for number in first..first.saturating_add(count) {
        match Kernel::new(&sources::numbered(number), "numbered") {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => return Ok(format!("made {} {}", kernels.len(), error.code())),
        }
    }
    Ok(format!("made {}", kernels.len()))
}

fn begun() -> Result<(Submission, Graph, Buffer), sluicebox_guest::gpu::Error> {
    let (graph, buffer) = (graph(sources::ENDLESS, "endless", 1 << 14)?, Buffer::new(BYTES)?);
    let submission = graph.try_submit(&[buffer.whole()])?;
    Ok((submission, graph, buffer))
}

/// Begins a loop without end and leaves it under way: `begun`.
pub(crate) fn begin() -> Answer {
    // What was under way before is cancelled.
    drop(UNDER_WAY.take());
    UNDER_WAY.set(Some(begun()?));
    Ok("begun".to_owned())
}

/// Cancels what is under way and waits for it: `ended E`; `nothing` without it.
pub(crate) fn wait() -> Answer {
    let Some((submission, _graph, _buffer)) = UNDER_WAY.take() else {
        return Ok("nothing".to_owned());
    };
    submission.cancel()?;
    Ok(ended(submission.wait()?))
}

/// Begins loops without end until it is refused: `begun N`, and the code. Ends them then.
pub(crate) fn flood(count: u64) -> Answer {
    let mut all = Vec::new();
    for _ in 0..count {
        match begun() {
            Ok(one) => all.push(one),
            Err(error) => return Ok(format!("begun {} {}", all.len(), error.code())),
        }
    }
    Ok(format!("begun {}", all.len()))
}

/// Begins a loop without end and traps.
pub(crate) fn die() -> Answer {
    let _begun = begun()?;
    panic!("told to die with a submission under way");
}
