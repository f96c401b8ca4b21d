//! A link through memory that two processes of one machine share: one ring, one way.
//!
//! - `format` is what lies where, drawn in `docs/format/ring.md`; `raw` makes, seals, checks
//!   and maps it; `writer` and `reader` are the two ends; `wake` is who sleeps and who wakes;
//!   `bell` the socket by which; `handover` how it begins.
//! - `stream` is two rings as a connection, for bytes instead of packets.
//! - The other end is another trust domain. It may write anything into the memory and the socket,
//!   at any time: then the link ends with the reason. It can make this end look for nothing, once
//!   for each byte it sends; that costs it more than us.
//! - A packet is copied twice: into the ring, and out of it.
//!
//! Leaves to others: who may connect to the socket, which is for the rights of its folder and its
//! caller to say; two ways are two rings.

use std::os::unix::net::UnixStream;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::ends::{End, Figures, Receiver, Refusal, Sender};
use crate::error::Error;

mod bell;
#[cfg(any(test, feature = "contract"))]
pub mod forge;
mod format;
mod handover;
mod raw;
mod reader;
pub mod stream;
mod wake;
mod writer;

use bell::{Bell, Heard};
pub use format::Sizes;
use raw::Mapping;
use reader::{Reader, Taken};
use writer::{Put, Writer};

/// How long an end waits for the other while the link is made, unless told otherwise.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// The largest packet unless told otherwise: a frame of a batch, with some kilobytes before it.
const PACKET_BYTES: usize = 1024 * 1024 + 64 * 1024;

/// How often an end listens before others of its thread get their turn, if the other end rings
/// without a pause.
const RINGS_MAX: usize = 16;

/// What a sender asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The ring, which it makes.
    pub sizes: Sizes,
    /// How long the other end may take for an answer.
    pub handshake_time_max: Duration,
}

impl Default for Offer {
    fn default() -> Self {
        let sizes = Sizes { ring_bytes: 4 * 1024 * 1024, packet_bytes_max: PACKET_BYTES };
        Self { sizes, handshake_time_max: HANDSHAKE_TIME }
    }
}

/// What a receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a ring: memory that may be used here because the other end says so.
    pub ring_bytes_max: usize,
    /// Bytes of a packet: what one packet may ask for besides.
    pub packet_bytes_max: usize,
    /// How long the other end may take for its offer.
    pub handshake_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring_bytes_max: 16 * 1024 * 1024,
            packet_bytes_max: PACKET_BYTES,
            handshake_time_max: HANDSHAKE_TIME,
        }
    }
}

/// Makes a ring and hands it over on a connected socket, which is the link's from then on. In a
/// runtime that drives sockets.
///
/// # Errors
/// The settings, the system, or what the other end answers.
pub async fn offer(socket: UnixStream, offer: Offer) -> Result<RingSender, Error> {
    let (socket, writer) = blocking(move || {
        let writer = handover::offer(&socket, &offer)?;
        Ok((socket, writer))
    })
    .await?;
    Ok(RingSender { writer, common: Common::new(socket)? })
}

/// Takes the ring that is handed over on a connected socket, which is the link's from then on. In
/// a runtime that drives sockets.
///
/// # Errors
/// The system, or what is wrong with the offer; the other end is told that it was not taken.
pub async fn accept(socket: UnixStream, limits: Limits) -> Result<RingReceiver, Error> {
    let (socket, reader) = blocking(move || {
        let reader = handover::accept(&socket, &limits)?;
        Ok((socket, reader))
    })
    .await?;
    Ok(RingReceiver { reader, common: Common::new(socket)? })
}

async fn blocking<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or_else(|why| Err(Error::Io { doing: "make an end", why: why.to_string() }))
}

/// What both ends have.
#[derive(Debug)]
struct Common {
    bell: Bell,
    /// The other end has no socket any more.
    is_gone: bool,
    end: Option<End>,
    figures: Figures,
}

impl Common {
    fn new(socket: UnixStream) -> Result<Self, Error> {
        let bell = Bell::new(socket)?;
        Ok(Self { bell, is_gone: false, end: None, figures: Figures::default() })
    }

    /// Rings if the other end sleeps.
    fn wake(&mut self, sleeps: bool) {
        if sleeps {
            self.figures.wakes += 1;
            self.is_gone |= !self.bell.ring();
        }
    }

    /// From now on it is over, for the reason that was first.
    fn over(&mut self, end: End) -> End {
        self.end.get_or_insert(end).clone()
    }

    fn broken(&mut self, error: Error) -> End {
        self.over(End::Broken(error))
    }
}

/// See the module.
#[derive(Debug)]
pub struct RingSender {
    writer: Writer<Mapping>,
    common: Common,
}

impl RingSender {
    /// How it ended, if it did.
    fn look_for_end(&mut self) -> Option<End> {
        if self.common.end.is_none() && self.writer.is_closed_by_reader() {
            self.common.over(End::Closed);
        } else if self.common.end.is_none() && self.common.is_gone {
            self.common.broken(Error::Gone);
        }
        self.common.end.clone()
    }

    /// Listens until there is nothing to be heard; what is heard next wakes the task.
    fn listen(&mut self, cx: &mut Context<'_>) {
        for _ in 0..RINGS_MAX {
            match self.common.bell.poll_heard(cx) {
                Poll::Ready(Heard::Ring) => {}
                Poll::Ready(Heard::Gone) => {
                    self.common.is_gone = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }
}

impl Sender for RingSender {
    fn try_send(&mut self, parts: &[&[u8]]) -> Result<(), Refusal> {
        let bytes = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let bytes_max = self.packet_bytes_max();
        if let Some(end) = self.look_for_end() {
            return Err(Refusal::Over(end));
        }
        if bytes > bytes_max {
            return Err(Refusal::TooLarge { bytes_max });
        }
        match self.writer.put(parts, bytes) {
            Ok(Put::Done { wake }) => {
                self.common.figures.count(bytes);
                self.common.wake(wake);
                Ok(())
            }
            Ok(Put::Full) => {
                self.common.figures.full += 1;
                Err(Refusal::Full)
            }
            Err(error) => Err(Refusal::Over(self.common.broken(error))),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.writer.wake_up();
        self.listen(cx);
        if let Some(end) = self.look_for_end() {
            return Poll::Ready(Err(end));
        }
        match self.writer.lie_down() {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                self.common.figures.sleeps += 1;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(self.common.broken(error))),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.listen(cx);
        self.look_for_end().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let before = self.look_for_end();
        self.writer.close();
        self.common.wake(true);
        let end = self.common.over(End::Closed);
        Poll::Ready(match (before, end) {
            // Once it was closed here it stays so.
            (None, _) | (_, End::Closed) => Ok(()),
            (_, end) => Err(end),
        })
    }

    fn packet_bytes_max(&self) -> usize {
        self.writer.sizes().packet_bytes_max
    }

    fn figures(&self) -> Figures {
        self.common.figures
    }
}

/// See the module.
#[derive(Debug)]
pub struct RingReceiver {
    reader: Reader<Mapping>,
    common: Common,
}

impl RingReceiver {
    /// What is there, or how it ended.
    fn take(&mut self) -> Result<Option<Bytes>, End> {
        if let Some(end) = &self.common.end {
            return Err(end.clone());
        }
        match self.reader.take() {
            Ok(Taken::Packet { bytes, wake }) => {
                self.common.figures.count(bytes.len());
                self.common.wake(wake);
                Ok(Some(bytes))
            }
            Ok(Taken::Empty) => Ok(None),
            Ok(Taken::Closed) => Err(self.common.over(End::Closed)),
            Err(error) => Err(self.common.broken(error)),
        }
    }
}

impl Receiver for RingReceiver {
    fn try_recv(&mut self) -> Result<Option<Bytes>, End> {
        if let Some(packet) = self.take()? {
            return Ok(Some(packet));
        }
        // Whoever never waits learns of the end as well.
        self.common.is_gone |= matches!(self.common.bell.hear(), Some((Heard::Gone, _)));
        if !self.common.is_gone {
            return Ok(None);
        }
        // What it wrote before it went.
        match self.take()? {
            Some(packet) => Ok(Some(packet)),
            None => Err(self.common.broken(Error::Gone)),
        }
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        // A sender that is never out of packets leaves others of this thread their turn.
        let turn = std::task::ready!(tokio::task::coop::poll_proceed(cx));
        for _ in 0..RINGS_MAX {
            match self.take() {
                Ok(Some(packet)) => {
                    turn.made_progress();
                    return Poll::Ready(Ok(packet));
                }
                Ok(None) => {}
                Err(end) => return Poll::Ready(Err(end)),
            }
            if self.common.is_gone {
                return Poll::Ready(Err(self.common.broken(Error::Gone)));
            }
            match self.common.bell.poll_heard(cx) {
                Poll::Ready(Heard::Ring) => {}
                Poll::Ready(Heard::Gone) => self.common.is_gone = true,
                Poll::Pending => {
                    // The task is told of what is heard from here on, so now it may sleep, unless
                    // something came before this was said.
                    self.reader.lie_down();
                    let taken = self.take();
                    if taken == Ok(None) {
                        self.common.figures.sleeps += 1;
                        return Poll::Pending;
                    }
                    self.reader.wake_up();
                    turn.made_progress();
                    return Poll::Ready(taken.map(Option::unwrap_or_default));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn close(&mut self) {
        if self.common.end.is_none() {
            self.reader.close();
            self.common.wake(true);
            self.common.over(End::Closed);
        }
    }

    fn figures(&self) -> Figures {
        self.common.figures
    }
}

#[cfg(test)]
pub(crate) mod tests;
