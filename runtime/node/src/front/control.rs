//! What the front and a tenant's process say to each other: one message at a time, over a pair of
//! sockets that only the two have.
//!
//! ```text
//!  message   tag (1 byte), then what belongs to it; files may come along
//!
//!  front ─► process   b  begin: the configuration, the tenant, and what the    once, first
//!                        group leaves it, with zero bytes between
//!                     c  a connection: the socket that comes along, or that and two rings
//!                     t  the tenant has changed: its text
//!                     r  are you at rest?
//!                     e  finish what you do, and end
//!  process ─► front   m  measures: what holds the process in, a line each      once
//!                     y  ready
//!                     f  failed: why, and it ends
//!                     r  at rest: when time brings something to do, u64 microseconds since 1970
//!                     w  at work
//!                     s  spans of traces that are kept, as OTLP has those of one scope
//! ```
//!
//! The sockets are sequenced packets: a message arrives whole or not at all. The front believes
//! nothing of what a process says beyond this: texts are cut before they are logged, numbers are
//! looked at, and one that says nonsense, or what it was not asked for, is ended.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Longest message. A configuration takes a few thousand bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Files that may come along with a message.
const FILES_MAX: usize = 3;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Begin,
    Connection,
    Tenant,
    AskRest,
    End,
    Measures,
    Ready,
    Failed,
    AtWork,
    Spans,
}

impl Tag {
    const ALL: [(Self, u8); 10] = [
        (Self::Begin, b'b'),
        (Self::Connection, b'c'),
        (Self::Tenant, b't'),
        (Self::AskRest, b'r'),
        (Self::End, b'e'),
        (Self::Measures, b'm'),
        (Self::Ready, b'y'),
        (Self::Failed, b'f'),
        (Self::AtWork, b'w'),
        (Self::Spans, b's'),
    ];

    fn byte(self) -> u8 {
        Self::ALL.iter().find(|(tag, _)| *tag == self).map_or(0, |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == byte).map(|(tag, _)| *tag)
    }
}

/// What a process's control group leaves it, as it is told: bytes, then a directory a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaves {
    /// Bytes of memory it may write to.
    pub(super) writable_bytes: u64,
    /// Where it may read what the group has; none without a group.
    pub(super) groups: Vec<PathBuf>,
}

impl Leaves {
    pub(super) fn to_text(&self) -> String {
        let groups = self.groups.iter().map(|path| format!("\n{}", path.display()));
        format!("{}{}", self.writable_bytes, groups.collect::<String>())
    }

    /// `None` if it is none.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let writable_bytes = lines.next()?.parse().ok()?;
        Some(Self { writable_bytes, groups: lines.map(PathBuf::from).collect() })
    }
}

/// A message that came. The question and the answer about rest have one tag.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) tag: Tag,
    pub(super) body: Vec<u8>,
    pub(super) files: Vec<OwnedFd>,
}

impl Message {
    /// Its body as text, with what is none replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Two ends of a control channel; the first does not block.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (front, process) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::io::ioctl_fionbio(&front, true)?;
    Ok((front, process))
}

/// Sends a message; with [`io::ErrorKind::WouldBlock`] nothing was sent.
pub(super) fn send(
    to: impl AsFd,
    tag: Tag,
    body: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_with(to, (tag, SendFlags::empty()), body, files)
}

/// The same, in another way.
pub(super) fn send_with(
    to: impl AsFd,
    (tag, flags): (Tag, SendFlags),
    body: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if body.len() >= MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        let has_room = control.push(SendAncillaryMessage::ScmRights(files));
        debug_assert!(has_room, "there is room for them");
    }
    let tag = [tag.byte()];
    let pieces = [IoSlice::new(&tag), IoSlice::new(body)];
    sendmsg(to, &pieces, &mut control, flags | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; `None` when the other end is gone.
pub(super) fn receive(from: impl AsFd) -> io::Result<Option<Message>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(from, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    // More than there is space for are closed by the system, which says so.
    let files: Vec<OwnedFd> = files.flatten().collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    let nonsense = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(nonsense("a message is too long"));
    }
    let tag = Tag::of(bytes[0]).ok_or_else(|| nonsense("a message of no known sort"))?;
    bytes.truncate(received.bytes);
    bytes.remove(0);
    Ok(Some(Message { tag, body: bytes, files }))
}

/// The next message of a process; `None` when it is gone.
pub(super) async fn next(control: &UnixDatagram) -> io::Result<Option<Message>> {
    control.async_io(Interest::READABLE, || receive(control)).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn messages_arrive_whole_with_what_comes_along() {
        let (front, process) = pair().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&front, Tag::Begin, b"text", &[]).unwrap();
        send(&front, Tag::Connection, b"", &[theirs.as_fd()]).unwrap();
        drop(theirs);
        let first = receive(&process).unwrap().unwrap();
        assert_eq!((first.tag, first.text().as_str()), (Tag::Begin, "text"));
        assert!(first.files.is_empty());
        let mut second = receive(&process).unwrap().unwrap();
        let mut theirs = UnixStream::from(second.files.pop().unwrap());
        theirs.write_all(b"hello").unwrap();
        let mut read = [0; 5];
        (&ours).read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
        drop(front);
        assert!(receive(&process).unwrap().is_none(), "the end is no message");
    }

    #[test]
    fn nonsense_is_an_error_and_an_empty_channel_says_so() {
        let (front, process) = pair().unwrap();
        let empty = receive(&front).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        rustix::io::write(&process, b"?what").unwrap();
        assert_eq!(receive(&front).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let long = vec![b'x'; MESSAGE_BYTES_MAX + 1];
        rustix::io::write(&process, &long).unwrap();
        assert_eq!(receive(&front).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(send(&front, Tag::Begin, &long, &[]).is_err());
    }

    #[test]
    fn what_a_group_leaves_is_read_as_it_was_written() {
        for groups in [vec![], vec![PathBuf::from("/sys/fs/a b"), PathBuf::from("/c")]] {
            let leaves = Leaves { writable_bytes: 7, groups };
            assert_eq!(Leaves::of_text(&leaves.to_text()), Some(leaves));
        }
        assert_eq!((Leaves::of_text(""), Leaves::of_text("/c\n7")), (None, None));
    }

    #[test]
    fn every_tag_has_a_byte_of_its_own() {
        for (tag, byte) in Tag::ALL {
            assert_eq!((tag.byte(), Tag::of(byte)), (byte, Some(tag)));
        }
    }
}
