//! Whose word the command takes for a node's certificate.
//!
//! - With `--ca-cert` the certificates of that file, and no others.
//! - Else those of the system, from the file in which systems keep them: `SSL_CERT_FILE`, or the
//!   first of the usual places.
//! - There is no way to trust anybody: a node in a test has a certificate that can be named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::failure::{Cause, Failure};

/// Where systems keep the certificates they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a connection by TLS is begun with. Nobody is trusted where none is wanted.
pub(super) fn config(ca_cert: Option<&Path>, wanted: bool) -> Result<ClientConfig, Failure> {
    let roots = match ca_cert {
        Some(file) => roots_of(file)?,
        None if wanted => match system() {
            Some(file) => roots_of(&file)?,
            None => RootCertStore::empty(),
        },
        None => RootCertStore::empty(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Cause::Internal, format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn system() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| SYSTEM.iter().map(PathBuf::from).find(|file| file.exists()))
}

fn roots_of(file: &Path) -> Result<RootCertStore, Failure> {
    let bytes = std::fs::read(file).map_err(|error| {
        Failure::local(format!("read the certificates in {}", file.display()), &error)
    })?;
    let mut roots = RootCertStore::empty();
    let readable = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    let (known, _) = roots.add_parsable_certificates(readable);
    if known == 0 {
        let what = format!("there is no certificate in {}", file.display());
        return Err(Failure::new(Cause::Usage, what).fix("name a file with certificates in PEM"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let failure = config(Some(file.path()), true).unwrap_err();
        assert_eq!(failure.cause, Cause::Usage);
        assert_eq!(
            config(Some(Path::new("/no/such/file")), false).unwrap_err().cause,
            Cause::Local
        );
        assert!(config(None, false).is_ok());
    }
}
