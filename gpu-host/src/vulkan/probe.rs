//! What the driver does not say of itself: whether it cuts loops.
//!
//! Some drivers end the loops of an invocation behind so many iterations, without a word (Mesa's
//! llvmpipe at 65,535, up to a release that was not found out). Results are wrong, then.

use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::device::{Device, End, Run, Span, Step};
use crate::kernel::{Kernel, KernelLimits};

/// Iterations that are tried: above the limit that is known.
const TRIED: u32 = 70_000;

/// How long that may take on the slowest machine.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Counts in two words, the second of which depends on each step before: it cannot be left out.
const SOURCE: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32, 3>;

@compute @workgroup_size(1) fn count() {
    var seen = words[1];
    for (var i = 0u; i < words[0]; i++) {
        seen = (seen ^ (seen << 5u)) + i;
        words[2] = i + 1u;
    }
    words[1] = seen;
}
";

/// The iterations behind which the driver goes on; none if there is no such end.
///
/// # Errors
/// The device does not run the kernel.
pub(super) fn iterations(device: &mut impl Device) -> Result<Option<u64>, Error> {
    let kernel = Kernel::check(SOURCE, "count", &KernelLimits::default());
    let kernel = kernel.map_err(|why| Error::Driver(format!("the first kernel: {why}")))?;
    let kernel = device.load(&Arc::new(kernel))?;
    let block = device.allocate(12)?;
    device.write(block, 0, &TRIED.to_le_bytes())?;
    let run = Run {
        kernel,
        bindings: vec![Span { block, offset: 0, bytes: 12 }],
        grid: [1; 3],
        from: [0; 3],
        groups: [1; 3],
        fuel: TRIED * 2,
    };
    let ticket = device.submit(&[Step::Run(run)])?;
    let done = device.wait(ticket, TIME_MAX)?;
    if done.is_none_or(|done| done.end != End::Whole) {
        return Err(Error::Lost("it does not come to the end of its first kernel".to_owned()));
    }
    let mut counted = [0; 4];
    device.read(block, 8, &mut counted)?;
    device.free(block);
    device.unload(kernel);
    let counted = u32::from_le_bytes(counted);
    Ok((counted < TRIED).then_some(u64::from(counted)))
}
