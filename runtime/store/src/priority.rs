//! Threads that work behind those who answer: checkpoints, and the merging they bring with them.
//!
//! A worker that wakes up takes the core from such a thread at once, where it would wait for the
//! end of a turn otherwise. What such a thread must have of a core all the same is in the number.

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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

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
