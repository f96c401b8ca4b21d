//! A new connection: the name, its addresses, TLS. The only place that connects for a tenant.
//!
//! - What is connected to is what was looked at: there is no second look-up that could have
//!   another answer. Of a name that has an address which may not be reached none is: who answers
//!   so is not to be asked.
//! - Nothing ends a look-up, so that one counts among the few at a time until the resolver
//!   answers, whoever still waits for it.
//!
//! Leaves to others: which hosts may be asked for (`reach`), how long it may take.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::reach::Reach;
use super::target::Target;

/// Addresses of a name that are looked at and tried, and for how long each.
const ADDRESSES_MAX: usize = 4;
const TRY_TIME_MAX: Duration = Duration::from_secs(3);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotConnected {
    #[error("its name leads nowhere")]
    NotFound(#[source] io::Error),
    #[error("its name has no address")]
    NoAddress,
    #[error("the host has the address {0}, which is in a network of one's own")]
    Prohibited(IpAddr),
    #[error("nobody takes the connection")]
    Refused(#[source] io::Error),
    #[error("nobody takes the connection within {TRY_TIME_MAX:?}")]
    Late,
    #[error("TLS came to nothing")]
    Tls(#[source] io::Error),
}

impl NotConnected {
    /// The other end is not who it should be.
    pub(crate) fn is_certificate(&self) -> bool {
        let Self::Tls(error) = self else { return false };
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
    }
}

/// Looks up where a target is, with the right to be one of few. To be run as a task, which goes
/// on, and keeps that, when nobody waits for it any more.
pub(crate) async fn look_up<P>(
    _one_of_few: P,
    target: Target,
) -> Result<Vec<SocketAddr>, NotConnected> {
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    Ok(found.map_err(NotConnected::NotFound)?.take(ADDRESSES_MAX).collect())
}

/// Connects to the first of these addresses that takes it.
pub(crate) async fn open(found: &[SocketAddr], reach: &Reach) -> Result<TcpStream, NotConnected> {
    let found = found.get(..ADDRESSES_MAX).unwrap_or(found);
    if let Some(address) = found.iter().find(|address| !reach.may(address.ip())) {
        return Err(NotConnected::Prohibited(address.ip()));
    }
    let mut last = NotConnected::NoAddress;
    for address in found {
        last = match timeout(TRY_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(NotConnected::Refused)?;
                return Ok(stream);
            }
            Ok(Err(error)) => NotConnected::Refused(error),
            Err(_) => NotConnected::Late,
        };
    }
    Err(last)
}

/// Begins TLS with who a target should be.
pub(crate) async fn secure(
    stream: TcpStream,
    target: &Target,
    trust: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, NotConnected> {
    let name = ServerName::try_from(target.host.clone());
    let name = name.map_err(|error| NotConnected::Tls(io::Error::other(error)))?;
    let connecting = TlsConnector::from(trust.clone()).connect(name, stream);
    connecting.await.map_err(NotConnected::Tls)
}

/// Trusts the authorities in a file.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn trusting(path: &Path) -> Result<ClientConfig, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    // Files of systems hold some that nobody can use.
    let (added, _) = roots.add_parsable_certificates(certificates.map_while(Result::ok));
    if added == 0 {
        return Err("there is no certificate in it".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use sluicebox_core::ids::Name;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn of_a_name_with_an_address_that_may_not_be_reached_none_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let own = listener.local_addr().expect("it is bound");
        let other = SocketAddr::new("10.0.0.1".parse().expect("an address"), own.port());
        let name = Name::new("t").expect("a name");
        let reach = |dev| Reach::new(&Config::default().connectors, &name, dev);
        for found in [[own, other], [other, own]] {
            let refused = open(&found, &reach(true)).await;
            assert!(matches!(refused, Err(NotConnected::Prohibited(ip)) if ip == other.ip()));
        }
        let refused = open(&[own], &reach(false)).await;
        assert!(matches!(refused, Err(NotConnected::Prohibited(_))), "{refused:?}");
        assert!(matches!(open(&[], &reach(true)).await, Err(NotConnected::NoAddress)));
        // One that nobody answers at is made up for by another.
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let nobody = closed.local_addr().expect("it is bound");
        drop(closed);
        let stream = open(&[nobody, own], &reach(true)).await.expect("somebody listens");
        assert_eq!(stream.peer_addr().expect("it is connected"), own);
    }
}
