//! Who a node is to other nodes: its name, the certificate that shows it, and whom it trusts.
//!
//! A name is one that a certificate can have (a DNS name among the subject's alternative names).
//! One authority signs the certificates of all nodes; a chain that does not end there is refused,
//! at both ends. Connections are not resumed, so that each shows its certificate.
//!
//! Two protocols are spoken with the same certificates, links and what `peer` carries. The
//! handshake agrees on one; a server speaks both, and whoever accepts looks which it was.
//!
//! Leaves to the caller: where the certificates come from (`authority` makes some), and new ones
//! before they expire.

use std::fmt;
use std::sync::Arc;

use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, CommonState, RootCertStore, ServerConfig};

use crate::error::{Error, Part};

/// What is spoken behind the handshake, so that no other protocol meets one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Link,
    Peer,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Link, Self::Peer];

    pub(super) const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Link => b"sluicebox-link",
            Self::Peer => b"sluicebox-peer",
        }
    }

    /// What is said of one that speaks something else.
    const fn missing(self) -> &'static str {
        match self {
            Self::Link => "it does not say that it wants a link",
            Self::Peer => "it does not say that it wants to speak as a peer",
        }
    }
}

/// Longest name; what DNS allows.
pub(super) const NAME_BYTES_MAX: usize = 253;

/// What a node is called in certificates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// A name that a certificate can have: letters, digits, `-`, `_` and dots between them, at most
    /// 253 bytes.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn new(name: &str) -> Result<Self, Error> {
        // DNS allows a dot at the end, and it would be a second name of the same node.
        let is_name = name.len() <= NAME_BYTES_MAX
            && !name.ends_with('.')
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
    link_client: Arc<ClientConfig>,
    peer_client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Of a node with this name, which its certificate, the first of the chain, has; it trusts whom
    /// these authorities have signed.
    ///
    /// # Errors
    /// [`Error::Identity`]: one of them cannot be used.
    pub fn new(
        name: NodeName,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authorities: &[CertificateDer<'static>],
    ) -> Result<Self, Error> {
        has_name(&chain, &name)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (roots, verifier) = trust(authorities, &provider)?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        server.alpn_protocols = Protocol::ALL.map(|protocol| protocol.as_bytes().to_vec()).to_vec();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        client.resumption = Resumption::disabled();
        let speaks = |protocol: Protocol| {
            let mut client = client.clone();
            client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            Arc::new(client)
        };
        let (link_client, peer_client) = (speaks(Protocol::Link), speaks(Protocol::Peer));
        Ok(Self { name, link_client, peer_client, server: Arc::new(server) })
    }

    /// The same of what files have, in PEM: the node's certificate and, behind it, what leads to an
    /// authority; its key; the authorities. A certificate that no other node would take now is
    /// refused as well, so that a wrong file is told of where it was named.
    ///
    /// # Errors
    /// [`Error::Identity`] with which of them cannot be used, and why.
    pub fn from_pem(
        name: NodeName,
        certificate_pem: &[u8],
        key_pem: &[u8],
        authority_pem: &[u8],
    ) -> Result<Self, Error> {
        let chain = certificates(Part::Certificate, certificate_pem)?;
        let key = private_key(Part::Key, key_pem)?;
        let authorities = certificates(Part::Authority, authority_pem)?;
        let identity = Self::new(name, chain.clone(), key, &authorities)?;
        is_signed(&chain, &authorities)?;
        Ok(identity)
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

    pub(super) fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        match protocol {
            Protocol::Link => self.link_client.clone(),
            Protocol::Peer => self.peer_client.clone(),
        }
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}

/// Whom these authorities have signed, for connecting and for accepting.
fn trust(
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<RootCertStore>, Arc<dyn ClientCertVerifier>), Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.clone())
            .map_err(|error| Error::unusable(Part::Authority, reason(error)))?;
    }
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let verifier = verifier.build().map_err(|error| Error::unusable(Part::Authority, error))?;
    Ok((roots, verifier))
}

/// Refuses a chain that does not begin with a certificate of this name.
fn has_name(chain: &[CertificateDer<'static>], name: &NodeName) -> Result<(), Error> {
    let Some(own) = chain.first() else {
        return Err(Error::unusable(Part::Certificate, "there is none"));
    };
    let checked = ParsedCertificate::try_from(own)
        .and_then(|own| verify_server_name(&own, &name.as_server_name()));
    checked.map_err(|error| Error::unusable(Part::Certificate, reason(error)))
}

/// Refuses a chain that does not lead to an authority, or not at this time.
fn is_signed(
    chain: &[CertificateDer<'static>],
    authorities: &[CertificateDer<'static>],
) -> Result<(), Error> {
    let Some((own, between)) = chain.split_first() else {
        return Err(Error::unusable(Part::Certificate, "there is none"));
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (_, verifier) = trust(authorities, &provider)?;
    let verified = verifier.verify_client_cert(own, between, UnixTime::now());
    verified.map(drop).map_err(|error| match error {
        // Two authorities of ours have the same name, and differ in their keys.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Error::unusable(Part::Certificate, "it does not lead to the authority"),
        other => Error::unusable(Part::Certificate, reason(other)),
    })
}

/// All certificates of a text in PEM, at least one.
pub(super) fn certificates(part: Part, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(|error| Error::unusable(part, no_pem(error)))?;
    if all.is_empty() {
        return Err(Error::unusable(part, "there is no certificate in it"));
    }
    Ok(all)
}

/// The private key of a text in PEM.
pub(super) fn private_key(part: Part, text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::unusable(part, "there is no private key in it"),
        error => Error::unusable(part, no_pem(error)),
    })
}

/// Why a text is not PEM. What is in it stays there, it may be a key.
fn no_pem(error: pem::Error) -> String {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "the end of a section is missing",
        pem::Error::IllegalSectionStart { .. } => "a section does not begin as sections do",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    format!("not PEM: {why}")
}

/// Which of certificate and key it was.
fn unusable(error: rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::unusable(Part::Key, "it is not the key of the certificate")
        }
        rustls::Error::InvalidCertificate(why) => Error::unusable(Part::Certificate, why),
        other => Error::unusable(Part::Key, other),
    }
}

/// What rustls says, without saying that it is of another.
fn reason(error: rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => why.to_string(),
        other => other.to_string(),
    }
}

/// Refuses who speaks something else.
pub(super) fn speaks(other: &CommonState, protocol: Protocol) -> Result<(), Error> {
    if other.alpn_protocol() == Some(protocol.as_bytes()) {
        return Ok(());
    }
    Err(Error::Peer { why: protocol.missing().to_owned() })
}

/// Refuses a name that the other end's certificate does not have.
pub(super) fn is_in_certificate(other: &CommonState, name: &NodeName) -> Result<(), Error> {
    let verified = verify_server_name(&certificate_of(other)?, &name.as_server_name());
    verified.map_err(|error| Error::Peer { why: format!("it is not {name}: {error}") })
}

/// The first of these names that the other end's certificate has.
pub(super) fn name_in_certificate(
    other: &CommonState,
    known: &[NodeName],
) -> Result<NodeName, Error> {
    let certificate = certificate_of(other)?;
    let is_its =
        |name: &&NodeName| verify_server_name(&certificate, &name.as_server_name()).is_ok();
    let found = known.iter().find(is_its).cloned();
    found.ok_or_else(|| Error::Peer {
        why: "its certificate has the name of no node that is known here".to_owned(),
    })
}

/// What the other end has shown; the handshake has verified it.
fn certificate_of(other: &CommonState) -> Result<ParsedCertificate<'_>, Error> {
    let certificate = other.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = certificate else {
        return Err(Error::Peer { why: "it has no certificate".to_owned() });
    };
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.map_err(|error| Error::Peer { why: format!("its certificate: {error}") })
}
