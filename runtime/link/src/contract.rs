//! What every link must show; run by the tests of each implementation.
//!
//! A promise that breaks is a panic that names it. Everything that is waited for has a bound.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::ends::{End, Receiver, Refusal, Sender, close, recv, room};
use crate::error::Error;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long something is watched that must not come.
const WATCH: Duration = Duration::from_millis(20);

/// Both ends of one link.
pub type Pair = (Box<dyn Sender>, Box<dyn Receiver>);

/// What a test wants of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// Bytes of the largest packet.
    pub packet_bytes_max: usize,
    /// Bytes each buffer of the link has, a power of two.
    pub buffer_bytes: usize,
}

/// Packets of up to 1,000 bytes, in buffers of 4 KiB.
const SMALL: Wants = Wants { packet_bytes_max: 1000, buffer_bytes: 4096 };

/// Makes links of one sort.
pub trait Maker {
    /// A fresh link.
    fn make(&self, wants: Wants) -> impl Future<Output = Pair>;

    /// The most bytes of packets that such a link may hold, at both ends and between.
    fn under_way_bytes_max(&self, wants: Wants) -> usize;
}

/// Runs every test.
///
/// # Panics
/// A promise is broken.
pub async fn every_promise(maker: &impl Maker) {
    packets_arrive_whole_and_in_order(maker).await;
    packets_of_every_length_arrive(maker).await;
    a_large_packet_arrives(maker).await;
    a_packet_that_is_too_large_is_refused(maker).await;
    what_is_under_way_is_bounded(maker).await;
    there_is_room_again(maker).await;
    sleepers_are_woken(maker).await;
    what_was_taken_arrives_before_a_close(maker).await;
    a_sender_learns_that_nothing_more_is_wanted(maker).await;
    a_sender_that_vanishes_breaks_the_link(maker).await;
    a_receiver_that_vanishes_breaks_the_link(maker).await;
    for seed in 0..8 {
        it_is_a_queue(maker, seed).await;
    }
}

/// What comes within the bound.
///
/// # Panics
/// It does not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// Sends, waiting for room.
///
/// # Panics
/// It is refused for another reason.
pub async fn send(sender: &mut dyn Sender, packet: &[u8]) {
    loop {
        match sender.try_send(&[packet]) {
            Ok(()) => return,
            Err(Refusal::Full) => {
                let told = within("room", room(sender)).await;
                told.expect("the link is not over");
            }
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }
}

async fn next(receiver: &mut dyn Receiver) -> Bytes {
    let received = within("a packet", recv(receiver)).await;
    received.expect("the link is not over")
}

/// Receives until the link is over.
async fn rest(receiver: &mut dyn Receiver) -> (Vec<Bytes>, End) {
    let mut all = Vec::new();
    loop {
        match within("the end", recv(receiver)).await {
            Ok(packet) => all.push(packet),
            Err(end) => {
                let again = receiver.try_recv();
                assert_eq!(again, Err(end.clone()), "an end that is over does not stay over");
                return (all, end);
            }
        }
    }
}

async fn end(sender: &mut dyn Sender) -> End {
    within("the end", poll_fn(|cx| sender.poll_end(cx))).await
}

/// A packet that says which it is.
fn packet(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number * 7 + at) as u8).collect()
}

/// Sends until the link is full and stays so with nobody receiving.
async fn fill(sender: &mut dyn Sender, length: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let packet = packet(all.len(), length);
        match sender.try_send(&[&packet]) {
            Ok(()) => all.push(packet),
            Err(Refusal::Full) => match timeout(WATCH, room(sender)).await {
                Ok(told) => told.expect("the link is not over"),
                Err(_) => return all,
            },
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }
}

async fn packets_arrive_whole_and_in_order(maker: &impl Maker) {
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    assert_eq!(receiver.try_recv(), Ok(None), "something came out of nothing");
    let parts: [&[u8]; 5] = [b"in ", b"", b"four", b" p", b"arts"];
    sender.try_send(&parts).expect("there is room");
    sender.try_send(&[]).expect("there is room");
    sender.try_send(&[b"next"]).expect("there is room");
    assert_eq!(next(&mut *receiver).await, "in four parts");
    assert_eq!(next(&mut *receiver).await, "");
    assert_eq!(next(&mut *receiver).await, "next");
    assert_eq!(receiver.try_recv(), Ok(None), "more came than was sent");
    let (sent, received) = (sender.figures(), receiver.figures());
    assert_eq!((sent.packets, sent.bytes, sent.full), (3, 17, 0));
    assert_eq!((received.packets, received.bytes), (3, 17));
}

async fn packets_of_every_length_arrive(maker: &impl Maker) {
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    for length in 0..=SMALL.packet_bytes_max {
        let packet = packet(length, length);
        // In two parts, so that each length of the first is met as well.
        let (one, two) = packet.split_at(length * 31 % (length + 1));
        sender.try_send(&[one, two]).expect("there is room, as nothing is under way");
        assert!(next(&mut *receiver).await == packet, "a packet of {length} bytes came otherwise");
    }
}

async fn a_large_packet_arrives(maker: &impl Maker) {
    let wants = Wants { packet_bytes_max: 1 << 20, buffer_bytes: 1 << 21 };
    let (mut sender, mut receiver) = maker.make(wants).await;
    let packets: Vec<_> = (0..5).map(|number| packet(number, (1 << 20) - number)).collect();
    let all = async {
        for packet in &packets {
            send(&mut *sender, packet).await;
        }
    };
    let received = async {
        for packet in &packets {
            assert!(next(&mut *receiver).await == *packet, "a large packet came otherwise");
        }
    };
    tokio::join!(all, received);
}

async fn a_packet_that_is_too_large_is_refused(maker: &impl Maker) {
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    let bytes_max = sender.packet_bytes_max();
    assert_eq!(bytes_max, SMALL.packet_bytes_max);
    let largest = vec![1; bytes_max];
    let refused = sender.try_send(&[&largest, &[2]]);
    assert_eq!(refused, Err(Refusal::TooLarge { bytes_max }));
    sender.try_send(&[&largest]).expect("it is not too large");
    assert!(next(&mut *receiver).await == largest);
    assert_eq!(receiver.try_recv(), Ok(None), "something of what was refused came");
}

async fn what_is_under_way_is_bounded(maker: &impl Maker) {
    for length in [0, 1, 100, 1000] {
        let (mut sender, mut receiver) = maker.make(SMALL).await;
        let sent = fill(&mut *sender, length).await;
        assert!(!sent.is_empty(), "it is full with nothing in it");
        let bytes_max = maker.under_way_bytes_max(SMALL);
        assert!(sent.len() * length <= bytes_max, "{} packets of {length}", sent.len());
        // Without a bound of their own, empty packets would be as many as one likes.
        assert!(sent.len() <= bytes_max, "{} packets of {length}", sent.len());
        assert!(sender.figures().full > 0);
        for packet in sent {
            assert!(next(&mut *receiver).await == packet, "what was refused left a trace");
        }
        assert_eq!(receiver.try_recv(), Ok(None), "something of what was refused came");
    }
}

async fn there_is_room_again(maker: &impl Maker) {
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    // Nothing was refused: there is no reason to wait.
    within("room", room(&mut *sender)).await.expect("the link is not over");
    for round in 0..20 {
        let sent = fill(&mut *sender, 100 + round).await;
        let waits = async { within("room", room(&mut *sender)).await };
        let receives = async {
            for packet in sent {
                assert!(next(&mut *receiver).await == packet);
            }
        };
        let (told, ()) = tokio::join!(waits, receives);
        told.expect("the link is not over");
        let largest = packet(round, SMALL.packet_bytes_max);
        send(&mut *sender, &largest).await;
        assert!(next(&mut *receiver).await == largest);
    }
}

/// Both ends run dry again and again, each in a task of its own.
async fn sleepers_are_woken(maker: &impl Maker) {
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    let sends = async {
        for number in 0..3000 {
            send(&mut *sender, &packet(number, number % 300)).await;
            if number % 17 == 0 {
                tokio::task::yield_now().await;
            }
        }
        within("the close", close(&mut *sender)).await.expect("the link is not over");
    };
    let receives = async {
        for number in 0..3000 {
            assert!(next(&mut *receiver).await == packet(number, number % 300));
            if number % 23 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(rest(&mut *receiver).await, (Vec::new(), End::Closed));
    };
    tokio::join!(sends, receives);
    let figures = sender.figures();
    assert_eq!(figures.packets, 3000);
    assert!(figures.wakes <= 3000 + 1, "nobody is woken who does not sleep");
}

async fn what_was_taken_arrives_before_a_close(maker: &impl Maker) {
    for is_dropped in [false, true] {
        let (mut sender, mut receiver) = maker.make(SMALL).await;
        let sent = fill(&mut *sender, 100).await;
        let closes = async {
            within("the close", close(&mut *sender)).await.expect("the link is not over");
            assert_eq!(sender.try_send(&[b"late"]), Err(Refusal::Over(End::Closed)));
            close(&mut *sender).await.expect("closing twice is no error");
            if is_dropped {
                drop(sender);
                return None;
            }
            Some(sender)
        };
        let (_kept, (received, end)) = tokio::join!(closes, rest(&mut *receiver));
        assert!(received == sent, "a close took what was under way");
        assert_eq!(end, End::Closed);
    }
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    // The receiver sleeps when it comes, and goes as soon as it knows.
    let receives = async move {
        let received = rest(&mut *receiver).await;
        drop(receiver);
        received
    };
    let closes = async { within("the close", close(&mut *sender)).await };
    let (closed, received) = tokio::join!(closes, receives);
    assert_eq!((closed, received), (Ok(()), (Vec::new(), End::Closed)));
}

async fn a_sender_learns_that_nothing_more_is_wanted(maker: &impl Maker) {
    // One that has nothing to send.
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    assert!(timeout(WATCH, poll_fn(|cx| sender.poll_end(cx))).await.is_err(), "it is over");
    receiver.close();
    assert_eq!(end(&mut *sender).await, End::Closed);
    assert_eq!(sender.try_send(&[b"x"]), Err(Refusal::Over(End::Closed)));
    assert_eq!(room(&mut *sender).await, Err(End::Closed));
    assert_eq!(receiver.try_recv(), Err(End::Closed));
    // One that waits for room.
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    let sent = fill(&mut *sender, 500).await;
    let waits = async { within("the end", room(&mut *sender)).await };
    let closes = async {
        assert!(next(&mut *receiver).await == sent[0]);
        receiver.close();
        receiver.close();
        drop(receiver);
    };
    let (told, ()) = tokio::join!(waits, closes);
    // Room may have come just before.
    if told.is_ok() {
        assert_eq!(end(&mut *sender).await, End::Closed);
    } else {
        assert_eq!(told, Err(End::Closed));
    }
    assert_eq!(sender.try_send(&[b"x"]), Err(Refusal::Over(End::Closed)));
}

async fn a_sender_that_vanishes_breaks_the_link(maker: &impl Maker) {
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    let sent: Vec<_> = (0..5).map(|number| packet(number, 300)).collect();
    for packet in &sent {
        send(&mut *sender, packet).await;
    }
    assert!(next(&mut *receiver).await == sent[0]);
    drop(sender);
    let (received, end) = rest(&mut *receiver).await;
    let is_prefix = received.iter().zip(&sent[1..]).all(|(received, sent)| received == sent);
    assert!(is_prefix && received.len() < sent.len(), "what arrived is no prefix of what was sent");
    assert_eq!(end, End::Broken(Error::Gone));
    // While the receiver sleeps.
    let (sender, mut receiver) = maker.make(SMALL).await;
    let vanishes = async {
        tokio::task::yield_now().await;
        drop(sender);
    };
    let ((received, end), ()) = tokio::join!(rest(&mut *receiver), vanishes);
    assert_eq!((received.len(), end), (0, End::Broken(Error::Gone)));
}

async fn a_receiver_that_vanishes_breaks_the_link(maker: &impl Maker) {
    let gone = End::Broken(Error::Gone);
    let (mut sender, receiver) = maker.make(SMALL).await;
    drop(receiver);
    assert_eq!(end(&mut *sender).await, gone);
    assert_eq!(sender.try_send(&[b"x"]), Err(Refusal::Over(gone.clone())));
    assert_eq!(close(&mut *sender).await, Err(gone.clone()), "it is broken, not closed");
    // While the sender waits for room.
    let (mut sender, receiver) = maker.make(SMALL).await;
    let _sent = fill(&mut *sender, 500).await;
    let waits = async { within("the end", room(&mut *sender)).await };
    let vanishes = async {
        tokio::task::yield_now().await;
        drop(receiver);
    };
    let (told, ()) = tokio::join!(waits, vanishes);
    assert_eq!(told, Err(gone));
}

/// Xorshift: enough to choose by.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// One that rolls as this seed says.
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end
    }
}

/// Against a queue: any sequence of sends and receives gives the same.
async fn it_is_a_queue(maker: &impl Maker, seed: u64) {
    let (mut sender, mut receiver) = maker.make(SMALL).await;
    let mut dice = Dice::new(seed);
    let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
    for number in 0..600 {
        // In stretches, so that it is full at times and empty at times.
        let sends = dice.below(10) < if number / 50 % 2 == 0 { 8 } else { 2 };
        if sends {
            let packet = packet(number, dice.below(SMALL.packet_bytes_max as u64 + 1) as usize);
            match sender.try_send(&[&packet]) {
                Ok(()) => queue.push_back(packet),
                Err(Refusal::Full) if queue.is_empty() => {
                    send(&mut *sender, &packet).await;
                    queue.push_back(packet);
                }
                Err(refusal) => assert_eq!(refusal, Refusal::Full, "seed {seed}"),
            }
        } else if let Some(expected) = queue.pop_front() {
            assert!(next(&mut *receiver).await == expected, "seed {seed}, move {number}");
        } else {
            assert_eq!(receiver.try_recv(), Ok(None), "seed {seed}, move {number}");
        }
    }
    let (closed, (received, end)) = tokio::join!(close(&mut *sender), rest(&mut *receiver));
    assert_eq!((closed, end), (Ok(()), End::Closed), "seed {seed}");
    assert!(received.iter().eq(&queue), "seed {seed}: the rest is not what was sent");
}
