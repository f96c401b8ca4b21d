//! An authority of our own: makes the certificates by which nodes know each other, for those who
//! have none already.
//!
//! - An authority is a key and a certificate that it has signed for itself. It signs certificates
//!   of nodes and nothing below them. Each of those has one name and a key of its own, and is good
//!   for connecting and for accepting.
//! - Keys are ECDSA on P-256, serial numbers random. A certificate begins an hour before it is
//!   made, for clocks that are behind.
//! - Only what was made here can be loaded again: a certificate names who signed it, and that name
//!   is written here, not copied.
//!
//! Leaves to the caller: where the texts are kept, and that nobody else reads the keys. Nothing
//! here revokes: a node that must not be trusted any more needs a new authority for all others.
//! When the authority's own certificate ends is for people; nodes look only at each other's.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::identity::{NodeName, certificates, private_key};
use crate::error::{Error, Part};

/// How long an authority lasts unless asked otherwise.
pub const AUTHORITY_DAYS: u32 = 3650;
/// How long a node's certificate lasts unless asked otherwise.
pub const NODE_DAYS: u32 = 825;

/// How far the clock of another machine may be behind.
const SKEW: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The last second that a certificate can name, that of the year 9999, since 1970.
const LAST: Duration = Duration::from_secs(253_402_300_799);
const SERIAL_BYTES: usize = 16;
/// Longest common name, by X.520; longer names are only where they count.
const COMMON_NAME_BYTES_MAX: usize = 64;
/// Bytes of base64 in a line of PEM.
const PEM_LINE_BYTES: usize = 64;

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: SystemTime,
    /// The last one.
    pub until: SystemTime,
}

impl Validity {
    /// So many days from now on, and a little before.
    #[must_use]
    pub fn of_days(days: u32) -> Self {
        let now = SystemTime::now();
        Self { from: now - SKEW, until: now + DAY * days }
    }

    fn set(self, params: &mut CertificateParams) -> Result<(), Error> {
        let since_1970 = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).ok();
            since.filter(|since| *since <= LAST)
        };
        let (Some(from), Some(until)) = (since_1970(self.from), since_1970(self.until)) else {
            return Err(Error::Setting { what: "certificates end in the year 9999 at the latest" });
        };
        if from >= until {
            return Err(Error::Setting { what: "a certificate ends after it begins" });
        }
        params.not_before = date_time_ymd(1970, 1, 1) + from;
        params.not_after = date_time_ymd(1970, 1, 1) + until;
        Ok(())
    }
}

/// A certificate of a node and its key, both in PEM.
pub struct Issued {
    /// For everybody.
    pub certificate_pem: String,
    /// For the node alone.
    pub key_pem: String,
}

/// See the module.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Setting`] of the time, or that the system has no randomness.
    pub fn new(validity: Validity) -> Result<Self, Error> {
        let mut params = authority_params();
        validity.set(&mut params)?;
        params.serial_number = Some(serial()?);
        let key = KeyPair::generate().map_err(refused("make the key"))?;
        let certificate = params.self_signed(&key).map_err(refused("sign the certificate"))?;
        Ok(Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// One that was made before.
    ///
    /// # Errors
    /// [`Error::Identity`] with which of the two cannot be used, and why.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, Error> {
        let [certificate] = <[_; 1]>::try_from(certificates(Part::Authority, certificate_pem)?)
            .map_err(|_| Error::unusable(Part::Authority, "there are several in it"))?;
        let key = private_key(Part::AuthorityKey, key_pem)?;
        let no_key = |_| Error::unusable(Part::AuthorityKey, "it is no key that was made here");
        let key = KeyPair::try_from(&key).map_err(no_key)?;
        // What this key would sign for itself tells how the certificate has to be.
        let params = authority_params();
        let same = params.self_signed(&key).map_err(refused("sign the certificate"))?;
        let (found, same) = (anchor(&certificate)?, anchor(same.der())?);
        if found.subject != same.subject {
            let why = "it is not of an authority that was made here";
            return Err(Error::unusable(Part::Authority, why));
        }
        if found.subject_public_key_info != same.subject_public_key_info {
            return Err(Error::unusable(Part::AuthorityKey, "it is not that of the certificate"));
        }
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Its certificate, which every node has.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// Its key. Whoever has it can be every node.
    #[must_use]
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.issuer.key().serialized_der())
    }

    /// A certificate for a node of this name, with a new key.
    ///
    /// # Errors
    /// [`Error::Setting`] of the time, or that the system has no randomness.
    pub fn issue(&self, name: &NodeName, validity: Validity) -> Result<Issued, Error> {
        let mut params = CertificateParams::new([name.to_string()])
            .map_err(refused("write the name into the certificate"))?;
        validity.set(&mut params)?;
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        if name.as_str().len() <= COMMON_NAME_BYTES_MAX {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(refused("make the key"))?;
        let certificate = params.signed_by(&key, &self.issuer);
        let certificate = certificate.map_err(refused("sign the certificate"))?;
        let certificate_pem = pem("CERTIFICATE", certificate.der());
        Ok(Issued { certificate_pem, key_pem: pem("PRIVATE KEY", key.serialized_der()) })
    }
}

// Keys are in no log.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = &self.certificate_pem;
        f.debug_struct("Issued").field("certificate_pem", certificate).finish_non_exhaustive()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.certificate_pem();
        f.debug_struct("Authority").field("certificate_pem", &certificate).finish_non_exhaustive()
    }
}

/// What every authority's certificate says, but for its time and number.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "sluicebox authority");
    // For other tools: nodes do not look at what an authority's own certificate allows it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; SERIAL_BYTES];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| refused("make the number")("no randomness"))?;
    // Positive, and of the same length each time.
    bytes[0] = bytes[0] & 0x7F | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A certificate as those see it who trust it.
fn anchor(certificate: &CertificateDer<'static>) -> Result<TrustAnchor<'static>, Error> {
    let mut roots = RootCertStore::empty();
    let added = roots.add(certificate.clone());
    added.map_err(|error| Error::unusable(Part::Authority, error))?;
    Ok(roots.roots.remove(0))
}

fn pem(label: &str, bytes: &[u8]) -> String {
    let base64 = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE_BYTES));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn refused<E: fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Io { doing, why: error.to_string() }
}

#[cfg(test)]
mod tests;
