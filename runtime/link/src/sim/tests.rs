//! The contract on links inside a test; and whether what they do wrong would be noticed.

use super::*;
use crate::contract::{Maker, Pair, every_promise, within};
use crate::ends::{recv, room};

const SMALL: Wants = Wants { packet_bytes_max: 100, buffer_bytes: 1024 };

pub(crate) struct Sims(pub(crate) Faults);

impl Maker for Sims {
    async fn make(&self, wants: Wants) -> Pair {
        let (sender, receiver) = Network::new(7, self.0).link(wants);
        (Box::new(sender), Box::new(receiver))
    }

    fn under_way_bytes_max(&self, wants: Wants) -> usize {
        wants.buffer_bytes
    }
}

#[tokio::test]
async fn a_link_inside_a_test_keeps_every_promise_of_a_link() {
    every_promise(&Sims(Faults::default())).await;
}

#[tokio::test]
async fn late_packets_break_no_promise() {
    every_promise(&Sims(Faults { break_once_in: 0, looks_max: 4 })).await;
}

/// What came of sending numbers over links that break.
#[derive(Debug, Default, PartialEq, Eq)]
struct Came {
    numbers: Vec<u64>,
    links: u64,
    repeats: u64,
}

/// A sender with a log, and a reader that knows how far it is, as ADR 0014 has them: each packet
/// says its number; whoever links again begins at what the reader has. A reader that does not look
/// at numbers takes what comes.
fn numbers_over(seed: u64, faults: Faults, looks_at_numbers: bool) -> Came {
    const COUNT: u64 = 200;
    let network = Network::new(seed, faults);
    let mut came = Came::default();
    // A reader may hold links of before beside the newest one: they have packets still.
    let mut receivers: Vec<SimReceiver> = Vec::new();
    let (mut sender, mut next) = (None, COUNT);
    let mut known = 0;
    while known < COUNT {
        if next == COUNT || sender.is_none() {
            let (fresh, receiver) = network.link(SMALL);
            receivers.push(receiver);
            // The one before is dropped now, after the reader has the fresh one.
            sender = Some(fresh);
            came.links += 1;
            next = known;
        }
        let link = sender.as_mut().expect("made above");
        while next < COUNT {
            match link.try_send(&[&next.to_le_bytes()]) {
                Ok(()) => next += 1,
                Err(Refusal::Full) => break,
                Err(_) => {
                    sender = None;
                    break;
                }
            }
        }
        // The newest first, so that what was late comes after what overtook it.
        for receiver in receivers.iter_mut().rev() {
            while let Ok(Some(packet)) = receiver.try_recv() {
                let number = u64::from_le_bytes(packet[..].try_into().expect("a number"));
                came.repeats += u64::from(number < known);
                if number == known || !looks_at_numbers {
                    came.numbers.push(number);
                    known = known.max(number + 1);
                }
            }
        }
    }
    came
}

#[test]
fn numbers_make_up_for_links_that_break() {
    let faults = Faults { break_once_in: 20, looks_max: 3 };
    let all: Vec<u64> = (0..200).collect();
    let (mut repeats, mut wrong) = (0, 0);
    for seed in 0..100 {
        let came = numbers_over(seed, faults, true);
        assert!(came.numbers == all, "seed {seed}: {came:?}");
        assert!(came.links > 1, "seed {seed}: nothing broke");
        repeats += came.repeats;
        wrong += u64::from(numbers_over(seed, faults, false).numbers != all);
    }
    assert!(repeats > 100, "packets come twice, but only {repeats} did");
    assert!(wrong > 50, "a reader that does not look at numbers gets it wrong, but only {wrong}");
}

#[test]
fn the_same_seed_gives_the_same() {
    let faults = Faults { break_once_in: 15, looks_max: 5 };
    for seed in 0..10 {
        assert_eq!(numbers_over(seed, faults, true), numbers_over(seed, faults, true));
    }
    assert_ne!(numbers_over(1, faults, true), numbers_over(2, faults, true));
}

#[tokio::test]
async fn a_split_holds_everything_up_until_it_heals() {
    let network = Network::new(1, Faults::default());
    let (mut sender, mut receiver) = network.link(SMALL);
    network.split();
    while sender.try_send(&[&[1; 100]]).is_ok() {}
    assert_eq!(receiver.try_recv(), Ok(None));
    let heals = async {
        tokio::task::yield_now().await;
        network.heal();
    };
    let (received, ()) = tokio::join!(within("a packet", recv(&mut receiver)), heals);
    assert_eq!(received, Ok(Bytes::from(vec![1; 100])));
    within("room", room(&mut sender)).await.expect("not over");
}

#[tokio::test]
async fn a_split_that_lasts_breaks_both_ends() {
    let network = Network::new(1, Faults::default());
    let (mut sender, mut receiver) = network.link(SMALL);
    sender.try_send(&[b"lost"]).expect("there is room");
    network.split();
    network.give_up();
    network.heal();
    let gone = End::Broken(Error::Gone);
    assert_eq!(sender.try_send(&[b"x"]), Err(Refusal::Over(gone.clone())));
    assert_eq!(within("the end", recv(&mut receiver)).await, Err(gone));
}
