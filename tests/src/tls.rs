//! Certificates of the tests, and who trusts them.
//!
//! `testdata/tls` has an authority, whose key nobody has any more, and two certificates for this
//! machine's loopback addresses, `first` and `second`, with their keys.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::eventually::SOON;

/// A file of `testdata/tls`.
#[must_use]
pub fn file(name: &str) -> PathBuf {
    crate::root().join("tests/testdata/tls").join(name)
}

/// For clients that trust the authority of the tests, and nobody else.
#[must_use]
pub fn trusting() -> ClientConfig {
    static CONFIG: LazyLock<ClientConfig> = LazyLock::new(|| {
        let authority = CertificateDer::from_pem_file(file("authority.pem"));
        let mut roots = RootCertStore::empty();
        roots.add(authority.expect("it is PEM")).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS")
            .with_root_certificates(roots)
            .with_no_client_auth()
    });
    CONFIG.clone()
}

/// The name of the certificate a node shows: `first` or `second`.
///
/// # Panics
/// If there is no handshake.
#[must_use]
pub fn shown_by(address: SocketAddr) -> &'static str {
    let name = ServerName::from(address.ip());
    let mut client = ClientConnection::new(Arc::new(trusting()), name).expect("a good name");
    let mut socket = TcpStream::connect(address).expect("the node listens");
    socket.set_read_timeout(Some(SOON)).expect("a socket of ours");
    while client.is_handshaking() {
        client.complete_io(&mut socket).expect("a handshake");
    }
    let shown = client.peer_certificates().and_then(|chain| chain.first()).expect("one is shown");
    let is = |name: &&&str| {
        let known = CertificateDer::from_pem_file(file(&format!("{name}.pem")));
        known.expect("it is PEM") == *shown
    };
    ["first", "second"].iter().find(is).expect("one of ours")
}
