//! The listener's certificate and key, and the connections they protect.
//!
//! - Both files are read before anything is bound. What is wrong with one names its setting.
//! - They can be read again while the node runs: new connections get what was read, open ones keep
//!   theirs. If what is there then cannot be used, the old goes on.
//! - TLS 1.3 and 1.2; the client and the node agree on HTTP/2 or HTTP/1.1 in the handshake.
//!
//! How long a handshake may take is the connection's business, as headers are.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::error::Error;

/// The settings, as messages name them.
const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";

/// Largest file; a chain of certificates has some ten kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What HTTP/2 is called in a handshake.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// First byte of what a client of TLS says.
pub(super) const HANDSHAKE: u8 = 22;

/// What a client is told that does not speak TLS where it should.
pub(super) const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 42\r\n\r\n\
    this port speaks TLS: write https:// here\n";

/// See the module.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsConfig,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads what is configured; none if nothing is.
    ///
    /// # Errors
    /// A file cannot be used; the message names the setting.
    pub(crate) fn load(files: &TlsConfig) -> Result<Option<Self>, Error> {
        let Some(current) = read(files)? else { return Ok(None) };
        Ok(Some(Self { files: files.clone(), current: RwLock::new(Arc::new(current)) }))
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Tls::load`]; then nothing has changed.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        if let Some(read) = read(&self.files)? {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        }
        Ok(())
    }

    /// For one new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

/// True if a handshake ended in HTTP/2.
pub(super) fn is_http2(connection: &rustls::ServerConnection) -> bool {
    connection.alpn_protocol() == Some(HTTP2)
}

fn read(files: &TlsConfig) -> Result<Option<ServerConfig>, Error> {
    let (Some(certificate), Some(key)) = (&files.certificate, &files.key) else {
        return Ok(None);
    };
    let bytes = contents(CERTIFICATE, certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| no_pem(CERTIFICATE, certificate, &error))?;
    if chain.is_empty() {
        return Err(unusable(CERTIFICATE, certificate, "there is no certificate in it"));
    }
    let bytes = contents(KEY, key)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable(KEY, key, "there is no private key in it"),
        error => no_pem(KEY, key, &error),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Internal(format!("the TLS provider: {error}")))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let why = format!("it is not the key of {}", certificate.display());
            unusable(KEY, key, why)
        }
        rustls::Error::InvalidCertificate(why) => {
            unusable(CERTIFICATE, certificate, format!("not a certificate: {why}"))
        }
        other => unusable(KEY, key, other.to_string()),
    })?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Some(config))
}

fn contents(field: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| unusable(field, path, error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(field, path, format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn no_pem(field: &'static str, path: &Path, error: &pem::Error) -> Error {
    unusable(field, path, format!("not PEM: {error}"))
}

fn unusable(field: &'static str, path: &Path, why: impl Into<String>) -> Error {
    Error::Tls { field, file: path.display().to_string(), why: why.into() }
}
