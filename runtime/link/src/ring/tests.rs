//! The ring: the contract, in one process and over two; what a hostile other end may do.

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::format::{HEADER_BYTES, WORD_BYTES, write_header};
use super::*;
use crate::contract::{self, Maker, Pair, Wants, every_promise, within};
use crate::ends::{close, recv, room};

mod hostile;
mod process;

const SMALL: Sizes = Sizes { ring_bytes: 4096, packet_bytes_max: 1024 };

fn small() -> Offer {
    Offer { sizes: SMALL, ..Offer::default() }
}

/// Both ends in this process.
async fn pair(sizes: Sizes) -> (RingSender, RingReceiver) {
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let offered = offer(one, Offer { sizes, ..Offer::default() });
    let (sender, receiver) = tokio::join!(offered, accept(two, Limits::default()));
    (sender.expect("it is taken"), receiver.expect("it is good"))
}

pub(crate) struct Rings;

impl Maker for Rings {
    async fn make(&self, wants: Wants) -> Pair {
        let Wants { packet_bytes_max, buffer_bytes: ring_bytes } = wants;
        let (sender, receiver) = pair(Sizes { ring_bytes, packet_bytes_max }).await;
        (Box::new(sender), Box::new(receiver))
    }

    fn under_way_bytes_max(&self, wants: Wants) -> usize {
        wants.buffer_bytes
    }
}

#[tokio::test]
async fn a_ring_keeps_every_promise_of_a_link() {
    every_promise(&Rings).await;
}

/// Each end on a thread of its own, so that their steps really meet.
#[test]
fn ends_on_two_threads_lose_nothing_and_no_wake_up() {
    const PACKETS: u64 = 200_000;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let sends = std::thread::spawn(move || {
        runtime().expect("a runtime").block_on(async move {
            let mut sender = offer(one, small()).await.expect("it is taken");
            for number in 0..PACKETS {
                let length = (number % 97) as usize;
                contract::send(&mut sender, &vec![number as u8; length]).await;
            }
            close(&mut sender).await.expect("the link is not over");
            sender.figures()
        })
    });
    let figures = runtime().expect("a runtime").block_on(async move {
        let mut receiver = accept(two, Limits::default()).await.expect("it is good");
        for number in 0..PACKETS {
            let packet = within("a packet", recv(&mut receiver)).await.expect("not over");
            let length = (number % 97) as usize;
            assert!(packet == vec![number as u8; length], "packet {number} came otherwise");
        }
        assert_eq!(within("the end", recv(&mut receiver)).await, Err(End::Closed));
        receiver.figures()
    });
    let sent = sends.join().expect("no panic");
    assert_eq!((sent.packets, sent.bytes), (figures.packets, figures.bytes));
}

#[tokio::test]
async fn an_end_that_is_awake_is_not_woken() {
    let (mut sender, mut receiver) = pair(SMALL).await;
    for _ in 0..10 {
        sender.try_send(&[b"x"]).expect("there is room");
    }
    assert_eq!(sender.figures().wakes, 0);
    while receiver.try_recv().expect("not over").is_some() {}
    assert_eq!(receiver.figures().wakes, 0);
    let sleeps = async { within("a packet", recv(&mut receiver)).await };
    let sends = async {
        tokio::task::yield_now().await;
        for _ in 0..10 {
            sender.try_send(&[b"x"]).expect("there is room");
        }
    };
    let (received, ()) = tokio::join!(sleeps, sends);
    received.expect("not over");
    assert_eq!((sender.figures().wakes, receiver.figures().sleeps), (1, 1), "once is enough");
}

#[tokio::test]
async fn a_writer_sleeps_until_half_of_the_ring_is_free() {
    let (mut sender, mut receiver) = pair(SMALL).await;
    while sender.try_send(&[&[1; 24]]).is_ok() {}
    let waits = async { within("room", room(&mut sender)).await };
    let receives = async {
        tokio::task::yield_now().await;
        for number in 0..128 {
            assert!(receiver.try_recv().expect("not over").is_some());
            assert_eq!(receiver.figures().wakes, u64::from(number >= 63), "at {number}");
        }
    };
    let (told, ()) = tokio::join!(waits, receives);
    told.expect("not over");
    assert_eq!(receiver.figures().wakes, 1);
    for _ in 0..64 {
        sender.try_send(&[&[1; 24]]).expect("half is free");
    }
}

#[tokio::test]
async fn what_the_ends_do_not_agree_on_is_refused_at_both() {
    let tries = async |sizes: Sizes, limits: Limits| {
        let (one, two) = UnixStream::pair().expect("a socket pair");
        let offered = offer(one, Offer { sizes, ..Offer::default() });
        let (sender, receiver) = tokio::join!(offered, accept(two, limits));
        (sender.map(drop), receiver.map(drop))
    };
    let default = Limits::default();
    let why = "the ring or its packets are larger than it takes";
    let less = Limits { ring_bytes_max: 2048, ..default };
    let refused = (Err(Error::Refused { why }), Err(Error::TooLarge { what: "a larger ring" }));
    assert_eq!(tries(SMALL, less).await, refused);
    let less = Limits { packet_bytes_max: 1023, ..default };
    let refused = (Err(Error::Refused { why }), Err(Error::TooLarge { what: "larger packets" }));
    assert_eq!(tries(SMALL, less).await, refused);
    let exactly = Limits { ring_bytes_max: 4096, packet_bytes_max: 1024, ..default };
    assert_eq!(tries(SMALL, exactly).await, (Ok(()), Ok(())));
    for wrong in [
        Sizes { ring_bytes: 5000, ..SMALL },
        Sizes { ring_bytes: 2048, ..SMALL },
        Sizes { packet_bytes_max: 4089, ..SMALL },
        Sizes { ring_bytes: 1 << 31, ..SMALL },
    ] {
        let (offered, accepted) = tries(wrong, default).await;
        assert!(matches!(offered, Err(Error::Setting { .. })), "{wrong:?}: {offered:?}");
        assert_eq!(accepted, Err(Error::Gone));
    }
}

/// Some bytes of each packet are enough where each step is followed.
const LONGEST: usize = if cfg!(miri) { 40 } else { 1024 };

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 6 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any packets through memory of our own, which Miri can follow.
    #[test]
    fn any_packets_come_out_as_they_went_in(
        packets in proptest::collection::vec((0..=LONGEST, 0..=LONGEST, 0..3_usize), 0..80),
    ) {
        let memory = forge::memory(SMALL);
        let mut writer = Writer::new(memory.clone(), SMALL);
        let mut reader = Reader::new(memory, SMALL);
        let mut queue = std::collections::VecDeque::new();
        for (number, (length, cut, takes)) in packets.into_iter().enumerate() {
            let packet: Vec<u8> = (0..length).map(|at| (number + at) as u8).collect();
            let (one, two) = packet.split_at(cut.min(length));
            match writer.put(&[one, two], length).unwrap() {
                Put::Done { .. } => queue.push_back(packet),
                Put::Full => prop_assert!(!queue.is_empty()),
            }
            for _ in 0..takes {
                match reader.take().unwrap() {
                    Taken::Packet { bytes, .. } => {
                        prop_assert_eq!(Some(bytes.to_vec()), queue.pop_front());
                    }
                    taken => prop_assert!(taken == Taken::Empty && queue.is_empty()),
                }
            }
        }
    }
}
