//! Threads that work behind those who answer: checkpoints, and the merging they bring with them.
//!
//! - They run at a lower priority: of a core that is busy they get a quarter.
//! - They rest now and then, unless they are in a hurry. A scheduler may let a thread that runs
//!   finish its turn of some milliseconds, whatever its priority, and a request wakes up one
//!   thread after the other.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How much lower. At 5 a thread still gets a quarter of a core beside one that is always busy,
/// which is what it takes to follow a million changed slots a second; at 10 it would get a tenth,
/// and the log would grow for as long as the load lasts.
const NICENESS: i32 = 5;

/// Puts the calling thread, and every thread it starts from now on, behind the others. False if the
/// system refuses; the work is done then all the same, and others feel it.
pub fn give_way() -> bool {
    // Elsewhere it is the process whose priority would change.
    !cfg!(target_os = "linux") || rustix::process::nice(NICENESS).is_ok()
}

/// Work between two rests: what a thread that wakes up waits at most, about.
const STRETCH: Duration = Duration::from_micros(500);
/// Long enough for whoever waits to have the core, and no time to speak of.
const REST: Duration = Duration::from_micros(50);
/// Steps between two looks at the clock.
const STEPS: u32 = 64;

thread_local! {
    static IN_HURRY: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread has to be done soon: from now on it rests no more, or again.
pub fn hurry(is_in_hurry: bool) {
    IN_HURRY.set(is_in_hurry);
}

/// Cuts long work into stretches.
#[derive(Debug)]
pub struct Stretches {
    begun: Instant,
    steps: u32,
}

impl Stretches {
    /// A stretch begins.
    #[must_use]
    pub fn begin() -> Self {
        Self { begun: Instant::now(), steps: 0 }
    }

    /// A step of some microseconds at most was done. Rests if a stretch is over.
    #[inline]
    pub fn step(&mut self) {
        self.steps += 1;
        if self.steps >= STEPS {
            self.look();
        }
    }

    #[cold]
    fn look(&mut self) {
        self.steps = 0;
        if self.begun.elapsed() >= STRETCH && !IN_HURRY.get() {
            std::thread::sleep(REST);
            self.begun = Instant::now();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_of_a_thread_is_interrupted_by_rests() {
        let switches = || -> u64 {
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("it is there");
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            line.and_then(|number| number.trim().parse().ok()).expect("a number")
        };
        let (before, begun) = (switches(), Instant::now());
        let mut stretches = Stretches::begin();
        while begun.elapsed() < 20 * STRETCH {
            stretches.step();
        }
        let rests = switches() - before;
        assert!((1..=20).contains(&rests), "{rests} rests in twenty stretches");
        hurry(true);
        let (before, begun) = (switches(), Instant::now());
        while begun.elapsed() < 20 * STRETCH {
            stretches.step();
        }
        hurry(false);
        assert_eq!(switches(), before, "no rest in a hurry");
    }

    #[test]
    fn a_thread_and_those_it_starts_give_way_and_others_do_not() {
        let nice = || rustix::process::nice(0).expect("it can be asked");
        let before = nice();
        let behind = std::thread::spawn(move || {
            assert!(give_way());
            (nice(), std::thread::spawn(nice).join().expect("it ends"))
        });
        let lower = before + NICENESS;
        assert_eq!(behind.join().expect("it ends"), (lower, lower));
        assert_eq!(nice(), before);
    }
}
