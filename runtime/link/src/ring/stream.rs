//! A connection of two processes of one machine: bytes both ways, by a ring each way and one socket
//! that both ends wake each other by. For what speaks HTTP or another protocol of streams, at half
//! the price of a socket, which copies into the kernel and out of it.
//!
//! - One end makes the rings and gives what the other needs; how that gets there is its affair. So
//!   there is no handshake, and who takes an end knows who made it.
//! - A stream ends as a socket does: what was written before the other end closed, or went, is
//!   read, then comes the end. What is written to an end that is gone is an error.
//! - Bytes go in packets of at most a quarter of a ring, so that one end writes while the other
//!   reads. Where packets begin means nothing.
//! - The other end is another trust domain, as with every ring; what cannot be is an error of
//!   reading or writing, and stays one.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bell::{Bell, Heard};
use super::format::{Sizes, WORD_BYTES, read_header, write_header};
use super::raw::{self, Mapping};
use super::reader::{Begun, Reader};
use super::writer::{Put, Writer};
use super::{Error, RINGS_MAX};

/// What is written at least while there is more: shorter pieces wait for more room.
const PIECE_BYTES_MIN: usize = 4096;

/// Parts of one write that are taken at once.
const PARTS_MAX: usize = 16;

/// What the other end makes its end of.
#[derive(Debug)]
pub struct Handed {
    /// Where both wake each other.
    pub socket: OwnedFd,
    /// The ring it reads, and the one it writes.
    pub rings: [OwnedFd; 2],
}

/// See the module.
#[derive(Debug)]
pub struct RingStream {
    incoming: Unpacked,
    outgoing: Writer<Mapping>,
    bell: Bell,
    /// The other end has no socket any more.
    is_gone: bool,
    /// It did what cannot be.
    broken: Option<Error>,
    tasks: Arc<Tasks>,
    /// Wakes both of them.
    waker: Waker,
}

impl RingStream {
    /// Makes both rings, of so many bytes each, a power of two. Gives this end, and what makes the
    /// other. In a runtime that drives sockets.
    ///
    /// # Errors
    /// [`Error::Setting`]: the size is none. What the system refuses.
    pub fn make(ring_bytes: usize) -> Result<(Self, Handed), Error> {
        let sizes = Sizes { ring_bytes, packet_bytes_max: ring_bytes / 4 };
        sizes.check()?;
        let make = || {
            let file = raw::make(sizes)?;
            let mapping = raw::map(&file, sizes.memory_bytes())?;
            write_header(&mapping, sizes);
            Ok((file, mapping))
        };
        let ((out, outgoing), (back, incoming)) = (make()?, make()?);
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("make a socket"))?;
        let stream = Self::new(ours, Reader::new(incoming, sizes), Writer::new(outgoing, sizes))?;
        Ok((stream, Handed { socket: theirs.into(), rings: [out, back] }))
    }

    /// The end that was handed over. In a runtime that drives sockets.
    ///
    /// # Errors
    /// What was handed over is none, or has larger rings than `ring_bytes_max`.
    pub fn take(handed: Handed, ring_bytes_max: usize) -> Result<Self, Error> {
        let take = |file: &OwnedFd| {
            let bytes = raw::inspect(file, ring_bytes_max)?;
            let mapping = raw::map(file, bytes)?;
            let sizes = read_header(&mapping)?;
            Ok((mapping, sizes))
        };
        let [incoming, outgoing] = &handed.rings;
        let ((incoming, to_read), (outgoing, to_write)) = (take(incoming)?, take(outgoing)?);
        let reader = Reader::new(incoming, to_read);
        Self::new(handed.socket.into(), reader, Writer::new(outgoing, to_write))
    }

    fn new(
        socket: UnixStream,
        reader: Reader<Mapping>,
        outgoing: Writer<Mapping>,
    ) -> Result<Self, Error> {
        let tasks = Arc::new(Tasks::default());
        let waker = Waker::from(Arc::clone(&tasks));
        let incoming = Unpacked { reader, left: 0, rest: Rest::default() };
        let bell = Bell::new(socket)?;
        Ok(Self { incoming, outgoing, bell, is_gone: false, broken: None, tasks, waker })
    }

    /// Listens; pending, the task is told of what is heard next.
    fn poll_heard(&mut self, side: Side, context: &Context<'_>) -> Poll<()> {
        self.tasks.note(side, context.waker());
        let heard = ready!(self.bell.poll_heard(&mut Context::from_waker(&self.waker)));
        self.is_gone |= heard == Heard::Gone;
        Poll::Ready(())
    }

    fn check(&self) -> io::Result<()> {
        match &self.broken {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
            None => Ok(()),
        }
    }

    /// What came of a look at the rings; an error is the end of both.
    fn sound<T>(&mut self, result: Result<T, Error>) -> io::Result<T> {
        result.map_err(|error| {
            self.broken = Some(error.clone());
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }

    fn wake(&mut self, sleeps: bool) {
        if sleeps {
            self.is_gone |= !self.bell.ring();
        }
    }

    /// Reads what is there. True if that was something, or nothing will come.
    fn read_now(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        self.check()?;
        let read = self.incoming.read(buffer);
        let read = self.sound(read)?;
        self.wake(read.wake);
        Ok(read.is_something)
    }

    /// Writes what there is room for; `None` if that is too little.
    fn write_now(&mut self, parts: &[&[u8]], bytes: usize) -> io::Result<Option<usize>> {
        self.check()?;
        if self.is_gone || self.outgoing.is_closed_by_reader() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let most = bytes.min(self.outgoing.sizes().packet_bytes_max);
        let least = most.min(PIECE_BYTES_MIN);
        let now = self.outgoing.room_for(most, least);
        let now = self.sound(now)?;
        if now < least {
            return Ok(None);
        }
        let mut left = now;
        let mut taken: [&[u8]; PARTS_MAX] = [&[]; PARTS_MAX];
        for (to, part) in taken.iter_mut().zip(parts) {
            *to = &part[..part.len().min(left)];
            left -= to.len();
        }
        let parts = &taken[..parts.len()];
        let put = self.outgoing.put(parts, now);
        match self.sound(put)? {
            Put::Done { wake } => {
                self.wake(wake);
                Ok(Some(now))
            }
            Put::Full => Ok(None),
        }
    }

    fn poll_put(&mut self, context: &mut Context<'_>, parts: &[&[u8]]) -> Poll<io::Result<usize>> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        if bytes == 0 {
            return Poll::Ready(Ok(0));
        }
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        for _ in 0..RINGS_MAX {
            if let Some(written) = self.write_now(parts, bytes)? {
                turn.made_progress();
                return Poll::Ready(Ok(written));
            }
            if self.poll_heard(Side::Write, context).is_pending() {
                // From here on the task is told, so now it may sleep, unless there is room by now.
                let has_room = self.outgoing.lie_down();
                if !self.sound(has_room)? {
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncRead for RingStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        for _ in 0..RINGS_MAX {
            if this.read_now(buffer)? || this.is_gone {
                turn.made_progress();
                return Poll::Ready(Ok(()));
            }
            if this.poll_heard(Side::Read, context).is_ready() {
                if this.is_gone {
                    // What it wrote before it went.
                    return Poll::Ready(this.read_now(buffer).map(|_read| ()));
                }
                continue;
            }
            // From here on the task is told, so now it may sleep, unless something came by now.
            this.incoming.reader.lie_down();
            if !this.read_now(buffer)? {
                return Poll::Pending;
            }
            this.incoming.reader.wake_up();
            turn.made_progress();
            return Poll::Ready(Ok(()));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for RingStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_put(context, &[bytes])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut parts: [&[u8]; PARTS_MAX] = [&[]; PARTS_MAX];
        let pieces = pieces.iter().filter(|piece| !piece.is_empty());
        parts.iter_mut().zip(pieces).for_each(|(part, piece)| *part = piece);
        self.get_mut().poll_put(context, &parts)
    }

    /// What is written is there.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outgoing.close();
        this.wake(true);
        Poll::Ready(Ok(()))
    }
}

/// The packets of a ring as the bytes in them.
#[derive(Debug)]
struct Unpacked {
    reader: Reader<Mapping>,
    /// Bytes of the packet that was begun which were not taken out.
    left: usize,
    rest: Rest,
}

/// What came of a look.
struct Read {
    /// Bytes, or the end.
    is_something: bool,
    /// The writer sleeps and is to be woken.
    wake: bool,
}

impl Unpacked {
    /// Reads as much as there is, and room for.
    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> Result<Read, Error> {
        let mut read = Read { is_something: self.rest.give(buffer), wake: false };
        while buffer.remaining() > 0 {
            if self.left == 0 {
                match self.reader.begin()? {
                    // Nobody writes any, and somebody could for ever.
                    Begun::Packet(0) => {
                        return Err(Error::Garbage { what: "a packet of a stream without bytes" });
                    }
                    Begun::Packet(bytes) => self.left = bytes,
                    Begun::Empty => break,
                    Begun::Closed => {
                        read.is_something = true;
                        break;
                    }
                }
            }
            let (words, bytes) = match buffer.remaining() {
                room if room >= self.left => (self.left.div_ceil(WORD_BYTES), self.left),
                room => (room / WORD_BYTES, room / WORD_BYTES * WORD_BYTES),
            };
            if words == 0 {
                let mut word = [0; WORD_BYTES];
                let mut whole = ReadBuf::new(&mut word);
                let bytes = self.left.min(WORD_BYTES);
                raw::copy_to(&mut whole, self.reader.words(1), bytes);
                self.rest = Rest { word, from: 0, to: bytes };
                read.wake |= self.pass(1, bytes);
                self.rest.give(buffer);
            } else {
                raw::copy_to(buffer, self.reader.words(words), bytes);
                read.wake |= self.pass(words, bytes);
            }
            read.is_something = true;
        }
        Ok(read)
    }

    fn pass(&mut self, words: usize, bytes: usize) -> bool {
        self.left -= bytes;
        self.reader.pass(words)
    }
}

/// Bytes of a word that found no room.
#[derive(Debug, Default)]
struct Rest {
    word: [u8; WORD_BYTES],
    from: usize,
    to: usize,
}

impl Rest {
    /// True if there were any.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let bytes = (self.to - self.from).min(buffer.remaining());
        buffer.put_slice(&self.word[self.from..self.from + bytes]);
        self.from += bytes;
        bytes > 0
    }
}

/// Who is told of what is heard.
#[derive(Debug, Clone, Copy)]
enum Side {
    Read,
    Write,
}

/// The tasks of a stream: one may read while another writes, and a socket tells only one of what
/// can be read.
#[derive(Debug, Default)]
struct Tasks(Mutex<[Option<Waker>; 2]>);

impl Tasks {
    fn note(&self, side: Side, waker: &Waker) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut tasks[side as usize];
        if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

impl Wake for Tasks {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tasks.iter().flatten().for_each(Waker::wake_by_ref);
    }
}

#[cfg(test)]
mod tests;
