//! No wake-up is lost: every order of the steps of two ends is tried.
//!
//! The bell is as the real one: it rings once or many times for one who hears later. Few positions
//! are enough, as an end looks at nothing but the last. In each run a thread is interrupted at most
//! two or three times in a row of steps; `--ignored` tries more, for half a minute.

use loom::sync::atomic::AtomicU64;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::{Ordering, Word, lie_down, publish, wake_up};

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Heard once, however often it rang.
#[derive(Debug, Default)]
struct Bell {
    rang: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rang.lock().expect("no panic") = true;
        self.heard.notify_one();
    }

    fn hear(&self) {
        let mut rang = self.rang.lock().expect("no panic");
        while !*rang {
            rang = self.heard.wait(rang).expect("no panic");
        }
        *rang = false;
    }
}

/// One way of a ring: a position, who sleeps for it, and by what that end is woken.
#[derive(Debug)]
struct Way {
    position: AtomicU64,
    sleeper: AtomicU64,
    bell: Bell,
}

impl Default for Way {
    fn default() -> Self {
        Self { position: AtomicU64::new(0), sleeper: AtomicU64::new(0), bell: Bell::default() }
    }
}

impl Way {
    fn come_to(&self, position: u64) {
        if publish(&self.position, position, &self.sleeper) {
            self.bell.ring();
        }
    }

    /// Sleeps until the other end has come so far, as the ends of a ring do.
    fn wait_for(&self, position: u64) {
        while self.position.load(Ordering::Acquire) < position {
            if lie_down(&self.sleeper, position, &self.position) >= position {
                wake_up(&self.sleeper);
                return;
            }
            self.bell.hear();
        }
    }
}

/// One end comes step by step to `steps`; the other waits for each of `waits`. If a wake-up was
/// lost it would sleep for ever, which loom sees.
fn one_way(steps: u64, waits: &'static [u64], preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let way = Arc::new(Way::default());
        let other = way.clone();
        let sleeper = thread::spawn(move || waits.iter().for_each(|to| other.wait_for(*to)));
        (1..=steps).for_each(|step| way.come_to(step));
        sleeper.join().expect("no panic");
    });
}

/// A writer and a reader with room for `room` at a time, each of which may sleep for the other.
fn both_ways(steps: u64, room: u64, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let (heads, tails) = (Arc::new(Way::default()), Arc::new(Way::default()));
        let (heads_there, tails_there) = (heads.clone(), tails.clone());
        let reader = thread::spawn(move || {
            for step in 1..=steps {
                heads_there.wait_for(step);
                tails_there.come_to(step);
            }
        });
        for step in 1..=steps {
            tails.wait_for(step.saturating_sub(room));
            heads.come_to(step);
        }
        reader.join().expect("no panic");
    });
}

#[test]
fn no_wake_up_is_lost_when_each_step_is_waited_for() {
    one_way(2, &[1, 2], Some(3));
}

#[test]
fn no_wake_up_is_lost_when_the_last_step_is_waited_for() {
    one_way(2, &[2], Some(3));
}

#[test]
fn no_wake_up_is_lost_when_both_ends_sleep() {
    both_ways(2, 1, Some(2));
}

#[test]
#[ignore = "half a minute: cargo test -p sluicebox-link --release -- --ignored every_order"]
fn every_order_of_more_steps_loses_no_wake_up() {
    one_way(2, &[1, 2], None);
    one_way(3, &[1, 2, 3], Some(4));
    one_way(4, &[2, 4], Some(4));
    both_ways(3, 1, Some(3));
    both_ways(3, 2, Some(3));
}
