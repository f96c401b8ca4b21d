//! Messages over each sort of link; what a hostile other end may put into packets.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::contract::{Maker, Pair, Wants, within};
use crate::ring::tests::Rings;
use crate::sim::{Faults, Network, tests::Sims};
use crate::tls::tests::Connections;

const WANTS: Wants = Wants { packet_bytes_max: 1000, buffer_bytes: 4096 };
const BYTES_MAX: usize = 100_000;

fn ends((sender, receiver): Pair) -> (Outgoing, Incoming) {
    (Outgoing::new(sender).expect("there is room"), Incoming::new(receiver, BYTES_MAX))
}

/// A message that says which it is.
fn message(length: usize) -> Vec<u8> {
    (0..length).map(|at| (length * 31 + at) as u8).collect()
}

async fn next(incoming: &mut Incoming) -> Result<Bytes, End> {
    within("a message", incoming.next()).await
}

async fn messages_arrive_whole_and_in_order(maker: &impl Maker) {
    let (mut outgoing, mut incoming) = ends(maker.make(WANTS).await);
    let lengths = [0, 1, 998, 999, 1000, 1998, 1999, 5000, 0, BYTES_MAX, 7];
    let sends = async {
        for length in lengths {
            let message = message(length);
            // In parts of which some are empty, or end where a packet does.
            let (one, two) = message.split_at(length.min(999));
            let (two, three) = two.split_at(two.len() / 2);
            outgoing.send(&[&[], one, two, &[], three, &[]]).await.expect("the link is not over");
        }
        outgoing.close().await.expect("nothing is left of a message");
        outgoing
    };
    let receives = async {
        for length in lengths {
            let came = next(&mut incoming).await.expect("the link is not over");
            assert!(came == message(length), "the message of {length} bytes came otherwise");
        }
        assert_eq!(next(&mut incoming).await, Err(End::Closed));
        assert_eq!(next(&mut incoming).await, Err(End::Closed), "it does not stay over");
    };
    let (_outgoing, ()) = Box::pin(async { tokio::join!(sends, receives) }).await;
}

#[tokio::test]
async fn messages_of_any_length_go_by_every_way() {
    messages_arrive_whole_and_in_order(&Rings).await;
    messages_arrive_whole_and_in_order(&Connections::new()).await;
    messages_arrive_whole_and_in_order(&Sims(Faults::default())).await;
    messages_arrive_whole_and_in_order(&Sims(Faults { break_once_in: 0, looks_max: 3 })).await;
}

/// What comes of packets that the other end has made up.
async fn made_up(maker: &impl Maker, packets: &[&[u8]]) -> (Vec<Bytes>, End) {
    let (mut sender, receiver) = maker.make(WANTS).await;
    let mut incoming = Incoming::new(receiver, 10);
    for packet in packets {
        sender.try_send(&[packet]).expect("there is room");
    }
    within("the close", ends::close(&mut *sender)).await.expect("all of it is taken");
    let mut came = Vec::new();
    loop {
        match next(&mut incoming).await {
            Ok(message) => came.push(message),
            Err(end) => {
                assert_eq!(next(&mut incoming).await, Err(end.clone()), "it does not stay over");
                return (came, end);
            }
        }
    }
}

async fn what_cannot_be_ends_the_link(maker: &impl Maker) {
    let garbage = |what| End::Broken(Error::Garbage { what });
    let good: &[u8] = b"\0good";
    let adds_nothing = garbage("a packet adds nothing to its message");
    let neither = garbage("a packet that is neither the last of a message nor another");
    let too_large = End::Broken(Error::TooLarge { what: "longer messages" });
    let cases: [(&[&[u8]], End); 10] = [
        (&[b""], garbage("a packet without its first byte")),
        (&[b"\x01ab", b""], garbage("a packet without its first byte")),
        (&[b"\x02ab"], neither.clone()),
        (&[b"\x01ab", b"\xFFab"], neither),
        (&[b"\x01"], adds_nothing.clone()),
        (&[b"\x01ab", b"\0"], adds_nothing),
        (&[b"\x01ab"], garbage("it closed within a message")),
        (&[b"\0elevenbytes"], too_large.clone()),
        (&[b"\x01five.", b"\x01five.", b"\x011"], too_large.clone()),
        (&[b"\x01five.", b"\0sixsix"], too_large),
    ];
    for (packets, end) in cases {
        let packets = [&[good], packets].concat();
        assert_eq!(made_up(maker, &packets).await, (vec!["good".into()], end), "{packets:?}");
    }
    let whole: [&[u8]; 4] = [b"\0", b"\x01five.", b"\0five.", b"\0tenbytes.."];
    let came = made_up(maker, &whole[..3]).await;
    assert_eq!(came, (vec!["".into(), "five.five.".into()], End::Closed));
}

#[tokio::test]
async fn what_cannot_be_ends_the_link_by_every_way() {
    what_cannot_be_ends_the_link(&Rings).await;
    what_cannot_be_ends_the_link(&Connections::new()).await;
    what_cannot_be_ends_the_link(&Sims(Faults::default())).await;
}

#[tokio::test]
async fn a_message_without_end_is_cut_off_and_takes_no_more_memory_than_it_may() {
    let (mut sender, receiver) = Rings.make(WANTS).await;
    let mut incoming = Incoming::new(receiver, BYTES_MAX);
    let sends = async {
        loop {
            match sender.try_send(&[&[MORE], &[7; 600]]) {
                Ok(()) => {}
                Err(Refusal::Full) => match within("room", ends::room(&mut *sender)).await {
                    Ok(()) => {}
                    Err(end) => return end,
                },
                Err(Refusal::Over(end)) => return end,
                Err(refusal) => panic!("{refusal:?}"),
            }
            assert!(sender.figures().bytes < 2 * BYTES_MAX as u64, "nobody ends it");
        }
    };
    let receives = async {
        let end = next(&mut incoming).await;
        assert_eq!(end, Err(End::Broken(Error::TooLarge { what: "longer messages" })));
        assert_eq!(incoming.begun.capacity(), 0, "what came of it is kept");
    };
    let (told, ()) = tokio::join!(sends, receives);
    assert_eq!(told, End::Closed, "the other end is told");
}

#[test]
fn memory_is_asked_for_as_packets_come() {
    let (_sender, receiver) = Network::new(1, Faults::default()).link(WANTS);
    let mut incoming = Incoming::new(Box::new(receiver), BYTES_MAX);
    for packets in 1..=99 {
        let packet = Bytes::from([&[MORE][..], &[0; 999]].concat());
        assert_eq!(incoming.join(packet), Ok(None));
        let (came, has) = (packets * 999, incoming.begun.capacity());
        assert!(has >= came && has <= (2 * came).min(BYTES_MAX), "{has} for {came}");
    }
}

#[test]
fn a_message_of_one_packet_is_not_copied() {
    let (_sender, receiver) = Network::new(1, Faults::default()).link(WANTS);
    let mut incoming = Incoming::new(Box::new(receiver), BYTES_MAX);
    let packet = Bytes::from(b"\0message".to_vec());
    let at = packet[1..].as_ptr();
    let message = incoming.join(packet).expect("it can be").expect("it is whole");
    assert_eq!((message.as_ptr(), &message[..]), (at, &b"message"[..]));
}

#[tokio::test]
async fn a_message_that_is_waited_for_in_pieces_is_whole() {
    let (mut outgoing, mut incoming) = ends(Rings.make(WANTS).await);
    let long = message(50_000);
    let sends = async {
        outgoing.send(&[&long]).await.expect("the link is not over");
    };
    let receives = async {
        // Given up again and again, whatever came of it.
        loop {
            let waits = tokio::time::timeout(Duration::ZERO, incoming.next()).await;
            match waits {
                Ok(came) => return came.expect("the link is not over"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let ((), came) = within("the message", async { tokio::join!(sends, receives) }).await;
    assert!(came == long);
}

#[tokio::test]
async fn a_message_that_was_given_up_half_way_is_not_joined_to_the_next() {
    let (mut outgoing, mut incoming) = ends(Rings.make(WANTS).await);
    let long = message(50_000);
    let waits = tokio::time::timeout(Duration::from_millis(20), outgoing.send(&[&long])).await;
    assert!(waits.is_err(), "nobody takes it");
    let refused = outgoing.send(&[b"next"]).await;
    assert!(matches!(refused, Err(End::Broken(Error::Io { .. }))), "{refused:?}");
    assert!(outgoing.close().await.is_err(), "the rest is missing");
    drop(outgoing);
    assert_eq!(next(&mut incoming).await, Err(End::Broken(Error::Gone)));
}

#[tokio::test]
async fn a_message_that_was_given_up_before_it_began_was_not_sent() {
    let (mut outgoing, mut incoming) = ends(Rings.make(WANTS).await);
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(20), outgoing.send(&[&[1; 500]])).await.is_ok()
    {
        sent += 1;
    }
    for _ in 0..sent {
        assert!(next(&mut incoming).await.expect("the link is not over") == [1; 500][..]);
    }
    outgoing.send(&[b"next"]).await.expect("nothing is left of a message");
    assert_eq!(next(&mut incoming).await, Ok("next".into()));
}

#[tokio::test]
async fn both_ends_learn_how_it_ended() {
    let (mut outgoing, mut incoming) = ends(Rings.make(WANTS).await);
    incoming.close();
    assert_eq!(within("the end", outgoing.end()).await, End::Closed);
    assert_eq!(outgoing.send(&[b"late"]).await, Err(End::Closed));
    assert_eq!(next(&mut incoming).await, Err(End::Closed));
    let (outgoing, mut incoming) = ends(Rings.make(WANTS).await);
    drop(outgoing);
    assert_eq!(next(&mut incoming).await, Err(End::Broken(Error::Gone)));
}

#[test]
fn a_link_whose_packets_have_no_room_carries_no_messages() {
    let wants = Wants { packet_bytes_max: 1, buffer_bytes: 100 };
    let (sender, _receiver) = Network::new(1, Faults::default()).link(wants);
    let refused = Outgoing::new(Box::new(sender)).err();
    assert!(matches!(refused, Some(Error::Setting { .. })));
}

#[tokio::test]
async fn messages_over_a_link_that_breaks_are_whole_and_in_order() {
    for seed in 0..50 {
        let network = Network::new(seed, Faults { break_once_in: 40, looks_max: 3 });
        let (sender, receiver) = network.link(Wants { packet_bytes_max: 16, buffer_bytes: 512 });
        let (mut outgoing, mut incoming) = ends((Box::new(sender), Box::new(receiver)));
        let sends = async {
            let mut length = 0;
            while outgoing.send(&[&message(length)]).await.is_ok() {
                length += 1;
            }
        };
        let receives = async {
            let mut length = 0;
            let end = loop {
                match next(&mut incoming).await {
                    Ok(came) => assert!(came == message(length), "seed {seed}, {length} bytes"),
                    Err(end) => break end,
                }
                length += 1;
            };
            assert_eq!(end, End::Broken(Error::Gone), "seed {seed}");
        };
        tokio::join!(sends, receives);
    }
}

proptest! {
    #[test]
    fn packets_joined_are_the_message(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        bytes_max in 2_usize..50,
    ) {
        let whole = parts.concat();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (_sender, receiver) = Network::new(1, Faults::default()).link(WANTS);
        let mut incoming = Incoming::new(Box::new(receiver), whole.len());
        let mut rest = Rest { parts: &parts, taken: 0 };
        let mut packets = 0;
        let joined = loop {
            let packet = rest.cut(bytes_max).concat();
            prop_assert!(packet.len() <= bytes_max);
            packets += 1;
            match incoming.join(packet.into()) {
                Ok(Some(message)) => break message,
                joined => prop_assert_eq!(joined, Ok(None)),
            }
        };
        prop_assert!(rest.is_empty());
        prop_assert_eq!(packets, whole.len().div_ceil(bytes_max - 1).max(1));
        prop_assert_eq!(joined, whole);
    }
}
