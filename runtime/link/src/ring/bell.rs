//! The socket beside a ring: how one end wakes the other, and learns that it is gone.
//!
//! A byte on it means: look again. It has no other meaning, so that bytes nobody needed do no harm.
//! A socket and not an eventfd, as each end has a file description of its own: of a shared one the
//! other end could take the flag that a call must not block.

use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::unix::AsyncFd;

use super::raw;
use crate::error::Error;

/// Bytes that are taken off the socket at a time.
const BYTES_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Bell {
    socket: AsyncFd<UnixStream>,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// To look again.
    Ring,
    /// The other end has no socket any more.
    Gone,
}

impl Bell {
    /// In a runtime that drives sockets.
    pub(super) fn new(socket: UnixStream) -> Result<Self, Error> {
        socket.set_nonblocking(true).map_err(Error::io("set the socket"))?;
        Ok(Self { socket: raw::watch(socket)? })
    }

    /// Wakes the other end. False if it is gone.
    pub(super) fn ring(&self) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            return match send(self.socket.get_ref(), &[0], flags) {
                // Full of wake-ups: it will look.
                Ok(_) | Err(Errno::AGAIN) => true,
                Err(Errno::INTR) => continue,
                Err(_) => false,
            };
        }
    }

    /// Ready when the other end rang since this was ready last, or is gone.
    pub(super) fn poll_heard(&self, cx: &mut Context<'_>) -> Poll<Heard> {
        loop {
            // The runtime's reactor is gone when the process stops: nothing is heard any more.
            let Ok(mut guard) = ready!(self.socket.poll_read_ready(cx)) else {
                return Poll::Ready(Heard::Gone);
            };
            match self.hear() {
                // If the buffer was not filled there is no more, and what comes later is told
                // again. That the other end is gone stays told.
                Some((heard, BYTES_MAX)) => return Poll::Ready(heard),
                Some((heard, _)) => {
                    guard.clear_ready();
                    return Poll::Ready(heard);
                }
                None => guard.clear_ready(),
            }
        }
    }

    /// What is there to be heard, without waiting, and in how many bytes, up to [`BYTES_MAX`].
    pub(super) fn hear(&self) -> Option<(Heard, usize)> {
        let mut bytes = [0; BYTES_MAX];
        match recv(self.socket.get_ref(), &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Some((Heard::Gone, 0)),
            // Any number of bytes is one ring.
            Ok((count, _)) => Some((Heard::Ring, count)),
            Err(Errno::INTR) => Some((Heard::Ring, BYTES_MAX)),
            Err(Errno::AGAIN) => None,
            Err(_) => Some((Heard::Gone, 0)),
        }
    }
}
