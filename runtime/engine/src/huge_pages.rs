//! Large pages for large memories.
//!
//! A page that a guest touches for the first time costs a fault, on a virtual machine 1.4
//! microseconds for 4 KiB, and fuel does not see it: a guest that takes 64 MiB and writes to each
//! page of it kept its worker for 22 milliseconds within one slice. With pages of 2 MiB the same
//! takes 2.3. So the kernel is told that it may use them for the pool of memories.
//!
//! - It does so only where 2 MiB in a row are accessible, which a small instance's memory is not:
//!   its pages stay small. An instance is charged for what it may touch, whatever is behind it.
//! - It is advice. Without it, or where the pool is not found, all works as before.

use std::ffi::c_void;
use std::ops::Range;

use rustix::mm::{Advice, madvise};

/// Tells the kernel about every reservation of at least `bytes`: the pools of this process.
pub(crate) fn advise(bytes: u64) {
    let maps = match std::fs::read_to_string("/proc/self/maps") {
        Ok(maps) => maps,
        Err(error) => return tracing::debug!(%error, "no large pages: maps cannot be read"),
    };
    let pools = maps.lines().filter_map(reserved).filter(|range| range.end - range.start >= bytes);
    for pool in pools {
        let start = usize::try_from(pool.start).expect("an address of this process");
        let length = usize::try_from(pool.end - pool.start).expect("part of the address space");
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: this advice changes which pages the kernel puts behind a range, never what is
        // read from it or whether it may be accessed, so no range is wrong for it.
        #[expect(unsafe_code, reason = "advice to the kernel about memory the engine has reserved")]
        let advised = unsafe { madvise(start, length, Advice::LinuxHugepage) };
        if let Err(error) = advised {
            tracing::debug!(%error, "no large pages: the kernel does not take the advice");
        }
    }
}

/// The addresses of a line of `maps`, if nothing may be read or written there: a reservation.
fn reserved(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let mode = words.next()?;
    if mode != "---p" {
        return None;
    }
    let address = |text| u64::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_told_from_what_is_in_use() {
        let line = "7000000000-7200000000 ---p 00000000 00:00 0 ";
        assert_eq!(reserved(line), Some(0x70_0000_0000..0x72_0000_0000));
        for line in [
            "7000000000-7200000000 rw-p 00000000 00:00 0 ",
            "7200000000-7000000000 ---p 00000000 00:00 0 ",
            "7000000000 ---p 00000000 00:00 0 ",
            "x-y ---p",
            "",
        ] {
            assert_eq!(reserved(line), None, "{line:?}");
        }
    }
}
