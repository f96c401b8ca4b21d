//! The link contract: the two ends of a bounded, ordered channel of packets.
//!
//! ```text
//!  try_send -> | under way, at most so many bytes | -> recv
//!      Full <- |                                  |
//! ```
//!
//! What an implementation promises, and `contract.rs` tests:
//!
//! - What [`Receiver`] gives is a prefix of what [`Sender`] took: whole, in order, none twice.
//! - Bytes under way are bounded. Beyond that [`Sender::try_send`] says [`Refusal::Full`] and has
//!   done nothing; whoever then polls [`Sender::poll_room`] is woken when there is room, at the
//!   latest when everything under way was given out.
//! - No call waits. Nobody spins: an end that has nothing to do sleeps, and is woken by the other.
//! - After [`Sender::poll_close`] the receiver gets everything that was taken, then
//!   [`End::Closed`]. If the other end goes in any other way, the end is [`End::Broken`], at the
//!   receiver behind what is known to be whole.
//! - An end is told once it is over, and stays over.
//! - A packet is in memory of our own before it is looked at, and memory is asked for only within
//!   the bounds this end was given.
//!
//! That a packet was taken says nothing of whether it arrives: only an answer does, in a packet of
//! another link, or the log.
//!
//! One task polls an end at a time; the one that polled last is woken. The bytes of a packet mean
//! nothing here.

use std::fmt::Debug;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::Error;

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// One end closed it. The receiver has everything that was taken, if it was the sender that
    /// closed; if it was the receiver, nobody knows how much of it was looked at.
    Closed,
    /// It broke. What was under way may have arrived or not.
    Broken(Error),
}

/// Why a packet was not taken. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room for it now; [`Sender::poll_room`] says when there may be.
    Full,
    /// It can never be taken.
    TooLarge {
        /// How many bytes a packet may have.
        bytes_max: usize,
    },
    /// Nothing is taken any more.
    Over(End),
}

/// Sums of one end since the link began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Packets taken, at a sender; given out, at a receiver.
    pub packets: u64,
    /// Bytes in them, without what the link adds.
    pub bytes: u64,
    /// How often a packet was refused as [`Refusal::Full`]. Of a sender.
    pub full: u64,
    /// How often this end woke the other, which slept.
    pub wakes: u64,
    /// How often this end lay down to sleep.
    pub sleeps: u64,
}

impl Figures {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// The end that packets go into. Dropping it before it is closed breaks the link.
pub trait Sender: Debug + Send {
    /// Takes a packet, which is these parts joined, and copies it. It may be empty. Never waits.
    ///
    /// # Errors
    /// Expected on the hot path, so a value: [`Refusal`].
    fn try_send(&mut self, parts: &[&[u8]]) -> Result<(), Refusal>;

    /// Ready when there may be room for the packet that was refused last; at once if none was.
    ///
    /// # Errors
    /// The link is over.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>>;

    /// Ready when the link is over, for a sender that has nothing to send. It is never
    /// ready while there is somebody to send to.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End>;

    /// Says that nothing more comes. Ready when everything that was taken is out of this end's
    /// hands, so that it may be dropped; from the first call on nothing is taken.
    ///
    /// # Errors
    /// The link broke. That the receiver closed it before is no error.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>>;

    /// How many bytes a packet may have, all parts together.
    fn packet_bytes_max(&self) -> usize;

    /// What it did so far.
    fn figures(&self) -> Figures;
}

/// The end that packets come out of. Dropping it without [`Receiver::close`] breaks the link.
pub trait Receiver: Debug + Send {
    /// The next packet if there is one, in memory of our own. Never waits.
    ///
    /// # Errors
    /// The link is over, and everything that arrived was given out.
    fn try_recv(&mut self) -> Result<Option<Bytes>, End>;

    /// Ready with the next packet.
    ///
    /// # Errors
    /// As [`Receiver::try_recv`].
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>>;

    /// Says that nothing more is wanted; the sender is told. What is under way is given up.
    fn close(&mut self);

    /// What it did so far.
    fn figures(&self) -> Figures;
}

/// Waits as [`Sender::poll_room`].
///
/// # Errors
/// The link is over.
pub async fn room(sender: &mut dyn Sender) -> Result<(), End> {
    poll_fn(|cx| sender.poll_room(cx)).await
}

/// Closes as [`Sender::poll_close`].
///
/// # Errors
/// The link broke.
pub async fn close(sender: &mut dyn Sender) -> Result<(), End> {
    poll_fn(|cx| sender.poll_close(cx)).await
}

/// Waits as [`Receiver::poll_recv`].
///
/// # Errors
/// The link is over.
pub async fn recv(receiver: &mut dyn Receiver) -> Result<Bytes, End> {
    poll_fn(|cx| receiver.poll_recv(cx)).await
}
