//! Targets: what other processes say, on links between them.

use sluicebox_core::message::Message;
use sluicebox_gpu::wire::{reread_ask, reread_reply};
use sluicebox_link::ring::forge as ring_forge;
use sluicebox_link::tls::wire::reread_hello;

use super::expect_message;

/// The memory that another process shares with a link: moves of two honest ends, and of somebody
/// who writes into it between them. What must hold is beside the moves, in `play`.
pub fn link_ring(data: &[u8]) {
    let played = ring_forge::play(data);
    for end in [played.reader, played.writer].into_iter().flatten() {
        expect_message(&end.to_string());
    }
}

/// How another node begins a link. Names are read without regard to case.
pub fn link_hello(data: &[u8]) {
    match reread_hello(data) {
        Ok(again) => assert_eq!(reread_hello(&again), Ok(again.clone())),
        Err(error) => expect_message(&error.to_string()),
    }
}

/// What another node says of the partitions of a pipeline. There is one way to write it.
pub fn message(data: &[u8]) {
    match Message::decode(data) {
        Ok(message) => {
            let mut again = Vec::new();
            message.encode_head(&mut again);
            again.extend(message.frame());
            assert_eq!(again, data);
        }
        Err(error) => expect_message(&error.to_string()),
    }
}

/// What a node and the process that has its device say to each other.
pub fn gpu_packet(data: &[u8]) {
    for reread in [reread_ask, reread_reply] {
        match reread(data) {
            Ok(again) => assert_eq!(reread(&again), Ok(again.clone())),
            Err(error) => expect_message(&error.to_string()),
        }
    }
}
