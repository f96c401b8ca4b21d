//! Who a node is to other nodes: its name, the certificate that shows it, and whom it trusts.
//!
//! A name is one that a certificate can have (a DNS name among the subject's alternative names).
//! One authority signs the certificates of all nodes; a chain that does not end there is refused,
//! at both ends. Connections are not resumed, so that each shows its certificate.

use std::fmt;
use std::sync::Arc;

use rustls::client::{Resumption, verify_server_name};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

use crate::error::Error;

/// What is spoken behind the handshake, so that no other protocol meets this one.
const PROTOCOL: &[u8] = b"sluicebox-link";

/// Longest name; what DNS allows.
pub(super) const NAME_BYTES_MAX: usize = 253;

/// What a node is called in certificates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// A name that a certificate can have: letters, digits, `-` and dots, at most 253 bytes.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn new(name: &str) -> Result<Self, Error> {
        let is_name = name.len() <= NAME_BYTES_MAX
            && matches!(super::server_name(name), Some(ServerName::DnsName(_)));
        let what = "the name of a node is one that DNS allows";
        if is_name { Ok(Self(name.to_ascii_lowercase())) } else { Err(Error::Setting { what }) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn as_server_name(&self) -> ServerName<'static> {
        super::server_name(&self.0).expect("`new` has checked it")
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Identity {
    name: NodeName,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Of a node with this name, which its certificate, the first of the chain, has; it trusts whom
    /// these authorities have signed.
    ///
    /// # Errors
    /// [`Error::Peer`]: one of them cannot be used.
    pub fn new(
        name: NodeName,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authorities: &[CertificateDer<'static>],
    ) -> Result<Self, Error> {
        let unusable = |error: rustls::Error| Error::Peer { why: format!("our own part: {error}") };
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone()).map_err(unusable)?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        if let Some(own) = chain.first() {
            let own = ParsedCertificate::try_from(own).map_err(unusable)?;
            verify_server_name(&own, &name.as_server_name()).map_err(unusable)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let verifier =
            verifier.map_err(|error| Error::Peer { why: format!("our own part: {error}") })?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { name, client: Arc::new(client), server: Arc::new(server) })
    }

    /// What this node is called.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Says another name than its own, for tests.
    #[cfg(test)]
    pub(super) fn call_itself(&mut self, name: NodeName) {
        self.name = name;
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}

/// Refuses a name that the other end's certificate does not have, and who speaks something else.
pub(super) fn is_in_certificate(peer: &ServerConnection, name: &NodeName) -> Result<(), Error> {
    if peer.alpn_protocol() != Some(PROTOCOL) {
        return Err(Error::Peer { why: "it does not say that it wants a link".to_owned() });
    }
    let certificate = peer.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = certificate else {
        return Err(Error::Peer { why: "it has no certificate".to_owned() });
    };
    let verified = ParsedCertificate::try_from(certificate)
        .and_then(|certificate| verify_server_name(&certificate, &name.as_server_name()));
    verified.map_err(|error| Error::Peer { why: format!("it is not {name}: {error}") })
}
