//! What the machine can do at best: the same work in plain Rust, without sandbox, batch or commit.

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::clock::{measure, median, take_turns};
use crate::events::{Generator, MARK, Made, Sum};
use crate::report::{figure, section};

const EVENTS: usize = 100_000;
const ROUNDS: usize = 21;
/// Events in a message of the channel.
const MESSAGE: usize = 64;
/// Messages the channel holds.
const CHANNEL: usize = 16;

/// An event as such a program would have it.
struct Owned {
    key: String,
    time: u64,
    payload: Vec<u8>,
}

pub(crate) fn run() {
    section("native, for comparison: the map in plain Rust");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime of one thread needs nothing special");
    let samples = take_turns(
        ROUNDS,
        &mut [Box::new(|| calls(EVENTS)), Box::new(|| channel(&runtime, EVENTS))],
    );
    for (what, samples) in ["plain calls", "tokio channel, 64 a message"].iter().zip(&samples) {
        figure(what, 1e3 / median(samples), "M events/s");
    }
}

/// Made, mapped and checked by calls; nanoseconds an event.
pub(crate) fn calls(events: usize) -> f64 {
    let mut generator = Generator::default();
    let (mut made, mut came) = (Sum::default(), Sum::default());
    let ((), took) = measure(|| {
        for _ in 0..events {
            let event = map(std::hint::black_box(owned(&generator.make(), &mut made)));
            check(&std::hint::black_box(event), &mut came);
        }
    });
    assert_eq!(made, came);
    took.cpu / events as f64
}

/// The same with a channel between maker and stage; nanoseconds an event.
#[expect(clippy::disallowed_methods, reason = "a task is what is measured")]
pub(crate) fn channel(runtime: &Runtime, events: usize) -> f64 {
    let ((made, came), took) = measure(|| {
        runtime.block_on(async {
            let (send, mut receive) = mpsc::channel::<Vec<Owned>>(CHANNEL);
            let maker = tokio::spawn(async move {
                let (mut generator, mut made) = (Generator::default(), Sum::default());
                for _ in 0..events / MESSAGE {
                    let make = |_| owned(&generator.make(), &mut made);
                    let message = (0..MESSAGE).map(make).collect();
                    send.send(message).await.unwrap_or_else(|_| panic!("somebody reads"));
                }
                made
            });
            let mut came = Sum::default();
            while let Some(message) = receive.recv().await {
                message.into_iter().map(map).for_each(|event| check(&event, &mut came));
            }
            (maker.await.expect("the maker comes to its end"), came)
        })
    });
    assert_eq!(made, came);
    took.cpu / came.events as f64
}

fn owned(made: &Made, sum: &mut Sum) -> Owned {
    sum.add(made.time, &made.key, &made.payload);
    let key = String::from_utf8_lossy(&made.key).into_owned();
    Owned { key, time: made.time, payload: made.payload.to_vec() }
}

fn map(event: Owned) -> Owned {
    let mark = u64::from(event.key.as_bytes()[0]) + event.key.len() as u64;
    Owned { payload: event.payload.clone(), time: event.time + mark, key: event.key }
}

fn check(event: &Owned, sum: &mut Sum) {
    sum.add(event.time - MARK, event.key.as_bytes(), &event.payload);
}
