//! A stream in one request: its body written by hand, its answer read to the last chunk.
//!
//! An answer is looked at as bytes: it is counted how many outputs are in it, and its last line has
//! to say that the stream has ended.

use std::io::{Error, Result};
use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::node::Tenant;

/// Room that is asked for before each read.
const READ_BYTES: usize = 64 * 1024;
/// What every output has, and nothing else that is said.
const OUTPUT: &[u8] = b",\"offset\":";
/// The last line of a whole session begins with it.
const ENDED: &[u8] = b"{\"ended\":";
/// The end of a chunked body.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// One connection, on which sessions follow each other.
#[derive(Debug)]
pub struct Sessions {
    stream: TcpStream,
    buffer: BytesMut,
}

/// The head of a session whose body has this length and is cut into such chunks.
#[must_use]
pub fn head(tenant: &Tenant, (pipeline, key): (&str, &str), chunk: &str, body: usize) -> Bytes {
    let path = tenant.path(&format!("pipelines/{pipeline}/streams/{key}?chunk={chunk}"));
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {body}\r\n");
    for (name, value) in tenant.headers() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    Bytes::from(head)
}

impl Sessions {
    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(READ_BYTES) })
    }

    /// Writes the head of a session, or a part of its body.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads until the session has said so many outputs.
    ///
    /// # Errors
    /// The connection broke, or the session ended before.
    pub async fn until_outputs(&mut self, count: usize) -> Result<()> {
        loop {
            if memmem::find_iter(&self.buffer, OUTPUT).count() >= count {
                self.buffer.clear();
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// Reads the answer of a session whose body was sent; gives the number of outputs in it that
    /// were not read before.
    ///
    /// # Errors
    /// The connection broke, or the stream did not end.
    pub async fn finish(&mut self) -> Result<usize> {
        loop {
            // What is behind it is nothing: no request was sent yet.
            if self.buffer.ends_with(LAST_CHUNK) {
                break;
            }
            self.read().await?;
        }
        let outputs = memmem::find_iter(&self.buffer, OUTPUT).count();
        let ended = memmem::rfind(&self.buffer, ENDED).is_some();
        let shown =
            String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(400)]).into_owned();
        self.buffer.advance(self.buffer.len());
        if ended { Ok(outputs) } else { Err(Error::other(format!("not ended: {shown}"))) }
    }

    async fn read(&mut self) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            let shown = String::from_utf8_lossy(&self.buffer).into_owned();
            return Err(Error::other(format!("the connection broke off behind: {shown}")));
        }
        Ok(())
    }
}
