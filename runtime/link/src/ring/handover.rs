//! How a ring begins: the sender makes the memory and hands it over on a Unix socket; the receiver
//! looks at it and answers.
//!
//! ```text
//!  sender -> receiver   magic (8 bytes), with the memory as the one file that comes along
//!  receiver -> sender   answer (1 byte): 1 taken, else why not
//! ```
//!
//! Calls here block, for at most `handshake_time_max` in each read and write, and closing a file
//! that a stranger sent may block as well: they belong on the blocking pool.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::format::{MAGIC, read_header, write_header};
use super::raw::{self, Mapping};
use super::reader::Reader;
use super::writer::Writer;
use super::{Limits, Offer};
use crate::error::Error;

const TAKEN: u8 = 1;
/// Why not, by the code of the answer less 2.
const REFUSALS: [&str; 3] = [
    "its version is older than the ring's format",
    "the ring or its packets are larger than it takes",
    "it found the memory or its header wrong",
];

/// Makes a ring and hands it over.
pub(super) fn offer(socket: &UnixStream, offer: &Offer) -> Result<Writer<Mapping>, Error> {
    offer.sizes.check()?;
    bound(socket, offer.handshake_time_max)?;
    let file = raw::make(offer.sizes)?;
    let mapping = raw::map(&file, offer.sizes.memory_bytes())?;
    write_header(&mapping, offer.sizes);
    send_file(socket, &file)?;
    drop(file);
    let mut answer = [0];
    (&*socket).read_exact(&mut answer).map_err(Error::io("read the answer"))?;
    match answer[0] {
        TAKEN => Ok(Writer::new(mapping, offer.sizes)),
        code => Err(refusal(code)),
    }
}

fn refusal(code: u8) -> Error {
    match REFUSALS.get(usize::from(code).wrapping_sub(2)) {
        Some(why) => Error::Refused { why },
        None => Error::Garbage { what: "an answer that does not exist" },
    }
}

/// Takes a ring that is handed over.
pub(super) fn accept(socket: &UnixStream, limits: &Limits) -> Result<Reader<Mapping>, Error> {
    bound(socket, limits.handshake_time_max)?;
    let taken = receive_file(socket).and_then(|file| take(&file, limits));
    let answer = match &taken {
        Ok(_) => TAKEN,
        Err(Error::FormatNewer { .. }) => 2,
        Err(Error::TooLarge { .. }) => 3,
        Err(_) => 4,
    };
    let told = (&*socket).write_all(&[answer]).map_err(Error::io("answer"));
    let reader = taken?;
    told?;
    Ok(reader)
}

fn take(file: &OwnedFd, limits: &Limits) -> Result<Reader<Mapping>, Error> {
    let bytes = raw::inspect(file, limits.ring_bytes_max)?;
    let mapping = raw::map(file, bytes)?;
    let sizes = read_header(&mapping)?;
    if sizes.packet_bytes_max > limits.packet_bytes_max {
        return Err(Error::TooLarge { what: "larger packets" });
    }
    Ok(Reader::new(mapping, sizes))
}

fn bound(socket: &UnixStream, time_max: std::time::Duration) -> Result<(), Error> {
    let failed = Error::io("bound the handshake");
    let bounded = socket
        .set_nonblocking(false)
        .and_then(|()| socket.set_read_timeout(Some(time_max)))
        .and_then(|()| socket.set_write_timeout(Some(time_max)));
    bounded.map_err(failed)
}

fn send_file(socket: &UnixStream, file: &OwnedFd) -> Result<(), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    let has_room = control.push(SendAncillaryMessage::ScmRights(&files));
    debug_assert!(has_room, "there is room for one");
    let sent = sendmsg(socket, &[IoSlice::new(&MAGIC)], &mut control, SendFlags::NOSIGNAL);
    match sent.map_err(Error::errno("hand the memory over"))? {
        sent if sent == MAGIC.len() => Ok(()),
        _ => Err(Error::Timeout { doing: "handing the memory over" }),
    }
}

/// The one file that comes with the magic. What comes besides is closed.
fn receive_file(socket: &UnixStream) -> Result<OwnedFd, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut magic = [0; MAGIC.len()];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut magic)], &mut control, flags);
    let received = received.map_err(Error::errno("take the memory"))?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let mut files: Vec<OwnedFd> = files.flatten().collect();
    if received.bytes == 0 {
        return Err(Error::Gone);
    }
    if received.bytes != magic.len() || magic != MAGIC {
        return Err(Error::Garbage { what: "what is offered is no ring" });
    }
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        _ => Err(Error::Garbage { what: "there is not one file with the offer" }),
    }
}
