//! The first words of a node on a port that serves both protocols: which of them it wants, before
//! the handshake goes on.
//!
//! What a connection carries may decide who looks after it, and a link's connection is looked after
//! by the link's own task: so who accepts asks first and wraps the socket then, or does not.
//!
//! Nothing here is known of who the other end is. What it wants is looked at again when the
//! handshake is done, by `accept_stream` and by `peer_name`.
//!
//! Leaves to the caller: every bound on time, as with `peer_acceptor`.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::{StartHandshake, TlsStream};
use tokio_rustls::{LazyConfigAcceptor, rustls::server::Acceptor};

use super::handshake;
use super::identity::{Identity, Protocol};
use crate::error::Error;

/// See the module.
pub struct Knock<S>(StartHandshake<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Knock<S> {
    /// Reads the first words, and answers nothing.
    ///
    /// # Errors
    /// They are not those of TLS, or the connection ends.
    pub async fn hear(socket: S) -> Result<Self, Error> {
        let heard = LazyConfigAcceptor::new(Acceptor::default(), socket).await;
        Ok(Self(heard.map_err(handshake)?))
    }

    /// Whether it will be a link, if the handshake succeeds.
    #[must_use]
    pub fn wants_link(&self) -> bool {
        let offered = self.0.client_hello().alpn();
        let link = Protocol::Link.as_bytes();
        offered.is_some_and(|mut offered| offered.any(|protocol| protocol == link))
    }

    /// Goes on by another way to the same other end: the socket as it is looked after now.
    #[must_use]
    pub fn wrap<T: AsyncRead + AsyncWrite + Unpin>(self, wrap: impl FnOnce(S) -> T) -> Knock<T> {
        let StartHandshake { accepted, io, .. } = self.0;
        Knock(StartHandshake::from_parts(accepted, wrap(io)))
    }

    /// The rest of the handshake. The other end has then shown a certificate of our authority, and
    /// not yet who it is.
    ///
    /// # Errors
    /// It cannot show one, or the connection ends.
    pub async fn accept(self, identity: &Identity) -> Result<TlsStream<S>, Error> {
        self.0.into_stream(identity.server()).await.map_err(handshake)
    }
}
