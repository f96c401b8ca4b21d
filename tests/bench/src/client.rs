//! HTTP/1.1 by hand, as little of it as a load generator needs.
//!
//! Requests are bytes made once and sent often. Of a reply the status, the head and the body are
//! found and nothing is copied; a reply without a length, or one that is cut off, is an error.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Room that is asked for before each read.
const READ_BYTES: usize = 64 * 1024;
/// A head longer than this is none of ours.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    /// Bytes of the last reply, still at the front of the buffer.
    last: usize,
}

/// A reply, until the next one is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The status.
    pub status: u16,
    /// Status line and headers.
    pub head: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl Reply<'_> {
    /// The value of a header; its name in lower case, as it was sent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// True if the connection ends with this reply: a node that refuses a request may not read the
    /// rest of it.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }

    /// An error that shows this reply, for one that should not be.
    #[must_use]
    pub fn unexpected(&self) -> Error {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        Error::other(format!("unexpected reply: status {}, {body}", self.status))
    }
}

impl Client {
    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(READ_BYTES), last: 0 })
    }

    /// Sends a request and takes its reply.
    ///
    /// # Errors
    /// The connection broke, or the reply is none.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Reply<'_>> {
        self.send(request).await?;
        self.receive().await
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await
    }

    /// Takes the next reply.
    ///
    /// # Errors
    /// The connection broke, or the reply is none.
    pub async fn receive(&mut self) -> Result<Reply<'_>> {
        self.buffer.advance(self.last);
        self.last = 0;
        let head = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Error::new(ErrorKind::InvalidData, "a head without end"));
            }
            self.fill(READ_BYTES).await?;
        };
        let status = status(&self.buffer).ok_or_else(|| malformed("no status"))?;
        let body = body_length(status, &self.buffer[..head])?;
        while self.buffer.len() < head + body {
            self.fill((head + body - self.buffer.len()).max(READ_BYTES)).await?;
        }
        self.last = head + body;
        let (head, body) = self.buffer[..self.last].split_at(head);
        Ok(Reply { status, head, body })
    }

    async fn fill(&mut self, room: usize) -> Result<()> {
        self.buffer.reserve(room);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// From `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()
}

fn body_length(status: u16, head: &[u8]) -> Result<usize> {
    if status == 204 {
        return Ok(0);
    }
    let value = header(head, b"content-length").and_then(|value| std::str::from_utf8(value).ok());
    value.and_then(|value| value.parse().ok()).ok_or_else(|| malformed("no content-length"))
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = head;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = &rest[..end];
        if line.len() > name.len() && line[name.len()] == b':' && line.starts_with(name) {
            return Some(line[name.len() + 1..].trim_ascii());
        }
        rest = &rest[end + 1..];
    }
    None
}

/// A request without a body.
#[must_use]
pub fn get(path: &str, headers: &[(&str, &str)]) -> Bytes {
    request("GET", path, headers, None)
}

/// A request with a body.
#[must_use]
pub fn with_body(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Bytes {
    request(method, path, headers, Some(body))
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Bytes {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"HTTP/1.1 202 Accepted\r\nx: 1\r\ncontent-length: 12\r\n\r\n";

    #[test]
    fn status_and_headers_are_found_in_a_head() {
        assert_eq!(status(REPLY), Some(202));
        assert_eq!(body_length(202, REPLY).expect("a length"), 12);
        assert_eq!(header(REPLY, b"x"), Some(&b"1"[..]));
        assert_eq!(header(REPLY, b"content"), None);
        assert_eq!(body_length(204, b"HTTP/1.1 204 No Content\r\n\r\n").expect("no body"), 0);
        assert!(body_length(200, b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert_eq!(status(b"HTTP/1.0 200 OK\r\n"), None);
    }

    #[test]
    fn replies_one_after_another_are_told_apart() {
        let runtime = crate::runtime().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let mut client = Client::connect(address).await.expect("a connection");
            let (mut server, _) = listener.accept().await.expect("a connection");
            let twice = [REPLY, b"first answer", REPLY, b"other answer"].concat();
            server.write_all(&twice).await.expect("sent");
            for body in [&b"first answer"[..], b"other answer"] {
                let reply = client.receive().await.expect("a reply");
                assert_eq!((reply.status, reply.body), (202, body));
            }
            drop(server);
            assert!(client.receive().await.is_err());
        });
    }
}
