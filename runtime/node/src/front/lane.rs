//! A connection between the front and a tenant's process, from either end: two rings in memory that
//! both have, which spares the kernel's copies; or a socket, once a process has as many rings as it
//! may.
//!
//! The front makes the memory and so pays for it; [`RINGS_MAX`] bounds what one tenant's clients
//! can make it pay. Connections are kept for the next request, so that those who send much have a
//! ring, and whatever lasts and says little is as well off with a socket.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use sluicebox_link::ring::stream::{Handed, RingStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Bytes of the ring of each direction.
const RING_BYTES: usize = 128 * 1024;

/// Connections to one process that have rings: 8 MiB of memory.
const RINGS_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) enum Lane {
    /// And at the front's end, what counts it.
    Ring(Box<RingStream>, #[expect(dead_code, reason = "dropped with the ring")] Option<Place>),
    Socket(UnixStream),
}

/// What the process makes its end of.
#[derive(Debug)]
pub(crate) struct Theirs(Vec<OwnedFd>);

impl Theirs {
    /// Files that came with the news of a connection.
    pub(super) const fn new(files: Vec<OwnedFd>) -> Self {
        Self(files)
    }

    pub(super) fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|file| file.as_fd()).collect()
    }

    /// The process's end. In a runtime that drives sockets.
    ///
    /// # Errors
    /// The files are none that the front sends; what the system refuses.
    pub(crate) fn open(self) -> io::Result<Lane> {
        match <[OwnedFd; 3]>::try_from(self.0) {
            Ok([socket, first, second]) => {
                let handed = Handed { socket, rings: [first, second] };
                let stream = RingStream::take(handed, RING_BYTES).map_err(io::Error::other)?;
                Ok(Lane::Ring(Box::new(stream), None))
            }
            Err(mut files) => match (files.pop(), files.len()) {
                (Some(socket), 0) => {
                    let stream = StdUnixStream::from(socket);
                    stream.set_nonblocking(true)?;
                    Ok(Lane::Socket(UnixStream::from_std(stream)?))
                }
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is no connection")),
            },
        }
    }
}

/// How many rings a process has.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<AtomicUsize>);

/// One of them, given back when its connection ends.
#[derive(Debug)]
pub(crate) struct Place(Places);

impl Places {
    fn take(&self) -> Option<Place> {
        let add = |count: usize| (count < RINGS_MAX).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lane {
    /// The front's end of a new one, and what the other is made of. In a runtime that drives
    /// sockets; does not block.
    ///
    /// # Errors
    /// What the system refuses.
    pub(super) fn make(places: &Places) -> io::Result<(Self, Theirs)> {
        // A system without the memory for it may have a socket's.
        if let Some(place) = places.take()
            && let Ok((stream, Handed { socket, rings: [first, second] })) =
                RingStream::make(RING_BYTES)
        {
            return Ok((
                Self::Ring(Box::new(stream), Some(place)),
                Theirs(vec![socket, first, second]),
            ));
        }
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self::Socket(UnixStream::from_std(ours)?), Theirs(vec![theirs.into()])))
    }
}

/// Does the same with whichever it is.
macro_rules! either {
    ($lane:expr, $stream:ident => $what:expr) => {
        match $lane {
            Lane::Ring($stream, _) => $what,
            Lane::Socket($stream) => $what,
        }
    };
}

impl AsyncRead for Lane {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Lane {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, pieces))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn talk(mut ours: Lane, theirs: Theirs) {
        let mut theirs = theirs.open().expect("an end");
        ours.write_all(b"asked").await.expect("written");
        let mut heard = [0; 5];
        theirs.read_exact(&mut heard).await.expect("read");
        assert_eq!(&heard, b"asked");
        drop(theirs);
        assert_eq!(ours.read(&mut heard).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn so_many_have_rings_and_the_others_sockets() {
        let places = Places::default();
        let mut kept = Vec::new();
        for _ in 0..RINGS_MAX {
            let (lane, theirs) = Lane::make(&places).expect("a lane");
            assert!(matches!(lane, Lane::Ring(..)));
            kept.push((lane, theirs));
        }
        let (lane, theirs) = Lane::make(&places).expect("a lane");
        assert!(matches!(lane, Lane::Socket(_)));
        talk(lane, theirs).await;
        let (lane, theirs) = kept.pop().expect("one of them");
        talk(lane, theirs).await;
        let (lane, _theirs) = Lane::make(&places).expect("a lane");
        assert!(matches!(lane, Lane::Ring(..)), "its place was given back");
    }

    #[tokio::test]
    async fn other_files_are_no_connection() {
        let (one, two) = StdUnixStream::pair().expect("a pair");
        assert!(Theirs(vec![one.into(), two.into()]).open().is_err());
        assert!(Theirs(Vec::new()).open().is_err());
        let files = || StdUnixStream::pair().expect("a pair");
        let ((one, two), (three, _)) = (files(), files());
        assert!(Theirs(vec![one.into(), two.into(), three.into()]).open().is_err());
    }
}
