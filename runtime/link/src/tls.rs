//! A link between two machines: TCP with TLS 1.3, both ends with a certificate.
//!
//! - `identity` is who this node is and whom it trusts; `wire` is what goes over the connection;
//!   `sending` and `receiving` are the two ends, each with one task that reads and writes. `peer`
//!   makes connections of another protocol between the same nodes, `knock` tells the two apart on
//!   one port, `authority` makes certificates.
//! - One connection, one way: whoever has something to send connects. Both ends verify the other's
//!   chain against one authority. The sender wants the name it connects to in the receiver's
//!   certificate; the receiver wants the name that the sender says in the sender's.
//! - What is under way is bounded by the window the receiver gives, in bytes of packets and 64 more
//!   for each: not taken by the sender before the receiver has given out as much. So each end holds
//!   at most a window, whatever the other does.
//! - Neither end waits for ever: the handshake has a bound, and a machine that does not answer any
//!   more is given up after `silence_time_max`, which the system watches.
//!
//! Leaves to the caller: connecting again. The link knows nothing of what was under way when the
//! one before it broke. Whoever links again sends what the log has and nobody has acknowledged; the
//! numbers of runs tell the reader what it has already (ADR 0014). That a node has one link from
//! each other node, and ends the older when a newer one comes, is the caller's as well.

use std::future::Future;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::CommonState;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::Error;

pub mod authority;
mod identity;
mod knock;
mod peer;
mod receiving;
mod sending;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;

pub use identity::{Identity, NodeName};
pub use knock::Knock;
pub use peer::{peer_accept, peer_acceptor, peer_connect, peer_name};
pub use receiving::TlsReceiver;
pub use sending::TlsSender;

use identity::Protocol;
use wire::{Answer, Hello};

/// What both ends choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the largest packet. A sender does not send larger ones, a receiver takes none.
    pub packet_bytes_max: usize,
    /// Bytes under way at most, with 64 more for each packet. The smaller one of both ends holds.
    pub window_bytes: usize,
    /// How long the handshake may take, and a farewell.
    pub handshake_time_max: Duration,
    /// How long the other machine may not answer.
    pub silence_time_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1024 * 1024 + 64 * 1024,
            window_bytes: 4 * 1024 * 1024,
            handshake_time_max: Duration::from_secs(5),
            silence_time_max: Duration::from_secs(20),
        }
    }
}

impl Settings {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`Error::Setting`] with the rule.
    pub fn check(&self) -> Result<(), Error> {
        let what = if u32::try_from(self.packet_bytes_max).is_err() {
            "a packet has less than 4 GiB"
        } else if self.packet_bytes_max > wire::packet_bytes_max(self.window_bytes as u64) {
            "the largest packet and 64 bytes fit into three quarters of the window"
        } else if self.silence_time_max < Duration::from_secs(1) {
            "a machine may be silent for a second"
        } else {
            return Ok(());
        };
        Err(Error::Setting { what })
    }
}

/// Begins a link to the node of this name, on a connection that was just made.
///
/// # Errors
/// The settings, the system, that the other end cannot show who it is, or what it answers.
pub async fn connect(
    socket: TcpStream,
    identity: &Identity,
    to: &NodeName,
    settings: Settings,
) -> Result<TlsSender, Error> {
    settings.check()?;
    prepare(&socket, &settings)?;
    in_time(&settings, "greeting it", async {
        let connector = TlsConnector::from(identity.client(Protocol::Link));
        let stream = connector.connect(to.as_server_name(), socket).await;
        let mut stream = stream.map_err(handshake)?;
        let hello = Hello {
            from: identity.name().clone(),
            to: to.clone(),
            packet_bytes_max: settings.packet_bytes_max as u64,
        };
        wire::write(&mut stream, &hello.encode()).await?;
        let answer = Answer::read(&mut stream).await.map_err(farewell)?;
        let window = answer.window()?.min(settings.window_bytes as u64);
        if settings.packet_bytes_max > wire::packet_bytes_max(window) {
            return Err(Error::Refused { why: "its window is too small for our packets" });
        }
        Ok(TlsSender::new(stream, window, settings))
    })
    .await
}

/// Takes a link from whatever node connects, on a connection that was just accepted. Gives its
/// name, which its certificate has.
///
/// # Errors
/// The settings, the system, or that the other end cannot show who it is.
pub async fn accept(
    socket: TcpStream,
    identity: &Identity,
    settings: Settings,
) -> Result<(NodeName, TlsReceiver), Error> {
    settings.check()?;
    prepare(&socket, &settings)?;
    in_time(&settings, "its greeting", async {
        let acceptor = TlsAcceptor::from(identity.server());
        let stream = acceptor.accept(socket).await.map_err(handshake)?;
        greet(stream, identity, settings).await
    })
    .await
}

/// Takes a link on a connection whose handshake is done, one that [`speaks_link`]. Gives the name
/// of the node, as [`accept`]. The caller has bounded the handshake, and has had the system watch
/// the socket, by [`prepare`] or as it likes.
///
/// # Errors
/// As [`accept`].
pub async fn accept_stream<S>(
    stream: TlsStream<S>,
    identity: &Identity,
    settings: Settings,
) -> Result<(NodeName, TlsReceiver), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    settings.check()?;
    in_time(&settings, "its greeting", greet(stream, identity, settings)).await
}

/// Whether the handshake has agreed on a link.
#[must_use]
pub fn speaks_link(connection: &CommonState) -> bool {
    identity::speaks(connection, Protocol::Link).is_ok()
}

/// The receiver's part of the greeting, behind the handshake.
async fn greet<S>(
    mut stream: TlsStream<S>,
    identity: &Identity,
    settings: Settings,
) -> Result<(NodeName, TlsReceiver), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Before anything is waited for: another protocol may begin with nothing.
    identity::speaks(stream.get_ref().1, Protocol::Link)?;
    let hello = Hello::read(&mut stream).await;
    let checked = hello.and_then(|hello| {
        identity::is_in_certificate(stream.get_ref().1, &hello.from)?;
        hello.fits(identity.name(), settings.packet_bytes_max)?;
        Ok(hello.from)
    });
    let answer = Answer::to(checked.as_ref().err(), settings.window_bytes as u64);
    let answered = wire::write(&mut stream, &answer.encode()).await;
    let from = checked?;
    answered?;
    Ok((from, TlsReceiver::new(stream, settings)))
}

async fn in_time<T>(
    settings: &Settings,
    doing: &'static str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let done = tokio::time::timeout(settings.handshake_time_max, future).await;
    done.unwrap_or(Err(Error::Timeout { doing }))
}

/// Has the system watch a connection as the settings say: that a machine that does not answer any
/// more is given up. [`connect`] and [`accept`] do so themselves.
///
/// # Errors
/// The system refuses.
pub fn prepare(socket: &TcpStream, settings: &Settings) -> Result<(), Error> {
    let silence = settings.silence_time_max;
    let step = (silence / 4).max(Duration::from_secs(1));
    let set = || {
        sockopt::set_tcp_nodelay(socket, true)?;
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, step)?;
        sockopt::set_tcp_keepintvl(socket, step)?;
        sockopt::set_tcp_keepcnt(socket, 3)?;
        let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, millis)
    };
    set().map_err(Error::errno("set the socket"))
}

/// Says of an error of a handshake whether it was about trust.
fn handshake(error: std::io::Error) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(why) => Error::Peer { why: why.to_string() },
        None => Error::io("greet the other end")(error),
    }
}

/// The same behind the handshake: with TLS 1.3 a client learns only now that its certificate was
/// not taken.
fn farewell(error: Error) -> Error {
    match error {
        Error::Io { why, .. } if why.contains("alert") => Error::Peer { why },
        other => other,
    }
}

/// For certificates.
fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}
