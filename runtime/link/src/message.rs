//! Messages larger than a packet: cut at one end of a link, joined at the other.
//!
//! ```text
//!  message   | head | frame ............................ |
//!  packets   | 1 | head | frame .. |  | 1 | .. |  | 0 | .. |     0 the last of its message
//!                                                                1 more of it follows
//! ```
//!
//! Keeps true: messages arrive whole and in order, as the packets do, or the link is over. A
//! message that is begun waits for its own packets alone, since a link has one sender. The other
//! end says what it likes: a message that is too long, a packet with nothing in it where there
//! must be something, or with another first byte, ends the link with the reason. Memory for a
//! message is asked for as its packets come, never beyond the bound, and one that fits into a
//! packet is given out in the packet's own memory.
//!
//! Leaves to others: what is in a message.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::ends::{self, End, Figures, Receiver, Refusal, Sender};
use crate::error::Error;

/// First byte of the last packet of a message.
const LAST: u8 = 0;
/// First byte of all packets before it.
const MORE: u8 = 1;

/// The end of a link that messages go into.
#[derive(Debug)]
pub struct Outgoing {
    sender: Box<dyn Sender>,
    /// A message was begun, and not all of it was taken.
    is_within: bool,
}

impl Outgoing {
    /// Of a link that carried nothing yet.
    ///
    /// # Errors
    /// [`Error::Setting`]: its packets have no room.
    pub fn new(sender: Box<dyn Sender>) -> Result<Self, Error> {
        if sender.packet_bytes_max() < 2 {
            return Err(Error::Setting { what: "a packet has room for two bytes at least" });
        }
        Ok(Self { sender, is_within: false })
    }

    /// Sends a message, which is these parts joined, as soon as there is room. It may be empty.
    ///
    /// Whoever gives this up while it waits has sent nothing if no packet of it was taken.
    /// Otherwise the other end has half of a message: nothing more is sent, and closing says that
    /// the link broke.
    ///
    /// # Errors
    /// The link is over, or a message was given up half-way before.
    pub async fn send(&mut self, parts: &[&[u8]]) -> Result<(), End> {
        if self.is_within {
            return Err(half_sent());
        }
        let mut rest = Rest { parts, taken: 0 };
        loop {
            let packet = rest.cut(self.sender.packet_bytes_max());
            self.put(&packet).await?;
            self.is_within = !rest.is_empty();
            if !self.is_within {
                return Ok(());
            }
        }
    }

    async fn put(&mut self, packet: &[&[u8]]) -> Result<(), End> {
        loop {
            match self.sender.try_send(packet) {
                Ok(()) => return Ok(()),
                Err(Refusal::Full) => ends::room(&mut *self.sender).await?,
                Err(Refusal::Over(end)) => return Err(end),
                Err(Refusal::TooLarge { .. }) => {
                    let what = "a link takes packets of the size that it names";
                    return Err(End::Broken(Error::Setting { what }));
                }
            }
        }
    }

    /// Waits until the link is over, as [`Sender::poll_end`].
    pub async fn end(&mut self) -> End {
        poll_fn(|cx| self.sender.poll_end(cx)).await
    }

    /// Says that nothing more comes, as [`Sender::poll_close`].
    ///
    /// # Errors
    /// The link broke, or a message was given up half-way.
    pub async fn close(&mut self) -> Result<(), End> {
        if self.is_within {
            return Err(half_sent());
        }
        ends::close(&mut *self.sender).await
    }

    /// What it did so far, in packets.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.sender.figures()
    }
}

#[cold]
fn half_sent() -> End {
    let why = "it was given up half-way, so that the link cannot be used any more".to_owned();
    End::Broken(Error::Io { doing: "send the rest of a message", why })
}

/// What is left of a message.
struct Rest<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first part that are gone.
    taken: usize,
}

impl<'a> Rest<'a> {
    /// True if there is nothing left but parts that are empty.
    fn is_empty(&self) -> bool {
        let left = self.parts.iter().skip(1).all(|part| part.is_empty());
        left && self.parts.first().is_none_or(|part| part.len() == self.taken)
    }

    /// The next packet, its first byte included.
    fn cut(&mut self, bytes_max: usize) -> Vec<&'a [u8]> {
        let mut packet: Vec<&'a [u8]> = Vec::with_capacity(self.parts.len() + 1);
        packet.push(&[LAST]);
        let mut room = bytes_max - 1;
        while let Some((part, after)) = self.parts.split_first() {
            let part = &part[self.taken..];
            let fits = part.len().min(room);
            packet.push(&part[..fits]);
            room -= fits;
            if fits < part.len() {
                self.taken += fits;
                break;
            }
            (self.parts, self.taken) = (after, 0);
        }
        if !self.is_empty() {
            packet[0] = &[MORE];
        }
        packet
    }
}

/// The end of a link that messages come out of.
#[derive(Debug)]
pub struct Incoming {
    receiver: Box<dyn Receiver>,
    message_bytes_max: usize,
    /// What came of the message that is not whole.
    begun: Vec<u8>,
    /// How it ended here, which the link itself need not know.
    end: Option<End>,
}

impl Incoming {
    /// Of a link that gave out nothing yet. A message has at most so many bytes.
    #[must_use]
    pub fn new(receiver: Box<dyn Receiver>, message_bytes_max: usize) -> Self {
        Self { receiver, message_bytes_max, begun: Vec::new(), end: None }
    }

    /// The next message. What came of one is kept if this is given up while it waits.
    ///
    /// # Errors
    /// The link is over, and stays so.
    pub async fn next(&mut self) -> Result<Bytes, End> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Ready with the next message.
    ///
    /// # Errors
    /// As [`Incoming::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        if let Some(end) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        loop {
            let packet = match ready!(self.receiver.poll_recv(cx)) {
                Ok(packet) => packet,
                // It says that all was said, and it was not.
                Err(End::Closed) if !self.begun.is_empty() => {
                    let what = "it closed within a message";
                    return Poll::Ready(Err(self.over(End::Broken(Error::Garbage { what }))));
                }
                Err(end) => return Poll::Ready(Err(self.over(end))),
            };
            match self.join(packet) {
                Ok(Some(message)) => return Poll::Ready(Ok(message)),
                Ok(None) => {}
                Err(error) => {
                    self.receiver.close();
                    return Poll::Ready(Err(self.over(End::Broken(error))));
                }
            }
        }
    }

    /// Puts a packet behind what there is, and gives out the message if it is whole now.
    fn join(&mut self, packet: Bytes) -> Result<Option<Bytes>, Error> {
        let garbage = |what| Err(Error::Garbage { what });
        let Some((first, part)) = packet.split_first() else {
            return garbage("a packet without its first byte");
        };
        let is_last = match *first {
            LAST => true,
            MORE => false,
            _ => return garbage("a packet that is neither the last of a message nor another"),
        };
        let is_alone = is_last && self.begun.is_empty();
        if part.is_empty() && !is_alone {
            return garbage("a packet adds nothing to its message");
        }
        if part.len() > self.message_bytes_max - self.begun.len() {
            return Err(Error::TooLarge { what: "longer messages" });
        }
        if is_alone {
            return Ok(Some(packet.slice(1..)));
        }
        self.make_room(part.len());
        self.begun.extend_from_slice(part);
        Ok(is_last.then(|| std::mem::take(&mut self.begun).into()))
    }

    /// Room for so many bytes more: as much again as there is, but no more than may ever be needed.
    fn make_room(&mut self, more: usize) {
        let needed = self.begun.len() + more;
        if needed > self.begun.capacity() {
            let doubled = (self.begun.capacity() * 2).min(self.message_bytes_max);
            self.begun.reserve_exact(needed.max(doubled) - self.begun.len());
        }
    }

    /// Ends it, for a reason that the link itself may not know.
    fn over(&mut self, end: End) -> End {
        self.begun = Vec::new();
        self.end.insert(end).clone()
    }

    /// Says that nothing more is wanted; the sender is told.
    pub fn close(&mut self) {
        if self.end.is_none() {
            self.receiver.close();
            self.over(End::Closed);
        }
    }

    /// What it did so far, in packets.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.receiver.figures()
    }
}

#[cfg(test)]
mod tests;
