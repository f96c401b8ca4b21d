//! Whose word is taken for a collector's certificate: that of `OTEL_EXPORTER_OTLP_CERTIFICATE`,
//! else of those whom the system trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::CollectorConfig;
use crate::error::Error;

/// Where systems keep the certificates they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a connection by TLS is made, and to whom.
pub(super) fn connector(
    config: &CollectorConfig,
) -> Result<(TlsConnector, ServerName<'static>), Error> {
    let system = || SYSTEM.iter().map(PathBuf::from).find(|file| file.exists());
    let file = config.authorities.clone().or_else(system).ok_or_else(|| {
        let what = "there is no file of those whom the system trusts; name one";
        unusable(Path::new(SYSTEM[0]), what)
    })?;
    let bytes = std::fs::read(&file).map_err(|error| unusable(&file, &error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let readable = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    let (known, _) = roots.add_parsable_certificates(readable);
    if known == 0 {
        return Err(unusable(&file, "it has no certificate in PEM"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&file, &error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(config.url.host.clone())
        .map_err(|error| unusable(&file, &format!("{}: {error}", config.url.host)))?;
    Ok((TlsConnector::from(Arc::new(client)), name))
}

fn unusable(file: &Path, why: &str) -> Error {
    let (file, why) = (file.display().to_string(), why.to_owned());
    Error::Tls { field: "OTEL_EXPORTER_OTLP_CERTIFICATE", file, why }
}
