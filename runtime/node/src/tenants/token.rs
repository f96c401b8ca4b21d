//! Tokens: how one is made, what is kept of it, how one is recognised.
//!
//! A token is `sbx_<tenant>_` and 32 random bytes in base64url without padding. The tenant is in
//! it for people and for secret scanners; what counts is the SHA-256 of the whole text. With 256
//! random bits a slow hash would add nothing but load.
//!
//! A [`Token`] exists only between its making and its being shown. It has no `Display`, and its
//! `Debug` leaves the secret out.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};
use sluicebox_core::ids::{Digest, Name};

use super::error::Error;

const PREFIX: &str = "sbx_";
const SECRET_BYTES: usize = 32;
/// 32 bytes in base64 without padding.
const SECRET_CHARS: usize = 43;

/// A new token, to be shown once.
pub struct Token {
    tenant: Name,
    text: String,
}

impl Token {
    /// Makes one for the tenant, of random bytes from the system.
    ///
    /// # Errors
    /// [`Error::NoRandomness`] if the system has none.
    pub fn new(tenant: &Name) -> Result<Self, Error> {
        let secret = random::<SECRET_BYTES>()?;
        let text = format!("{PREFIX}{tenant}_{}", URL_SAFE_NO_PAD.encode(secret));
        Ok(Self { tenant: tenant.clone(), text })
    }

    /// The token itself: for the one place that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.tenant)
    }
}

/// Random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    // Up to 256 bytes come whole or not at all.
    let filled = getrandom(&mut bytes[..], GetRandomFlags::empty())
        .map_err(|e| Error::NoRandomness { source: e.into() })?;
    assert_eq!(filled, N, "the system gave fewer random bytes than it promises");
    Ok(bytes)
}

/// The tenant that a token names, if the text has the form of one.
pub(super) fn tenant_of(text: &str) -> Option<&str> {
    let (tenant, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (secret.len() == SECRET_CHARS && secret.bytes().all(plain) && tenant.len() < 64)
        .then_some(tenant)
}

/// SHA-256 of a token's text. Comparing takes the same time wherever two differ.
// The comparison is that of `blake3::Hash`, which promises this; no BLAKE3 is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(blake3::Hash);

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(blake3::Hash::from_bytes(Sha256::digest(text.as_bytes()).into()))
    }

    /// Reads `sha256:` and 64 hex digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Digest::parse(text).map(|digest| Self(blake3::Hash::from_bytes(digest.0)))
    }

    /// Where to look for it in a map.
    pub(super) fn place(&self) -> u64 {
        let first = self.0.as_bytes().first_chunk().expect("a hash has more than eight bytes");
        u64::from_le_bytes(*first)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(*self.0.as_bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Name {
        Name::new("acme-2").unwrap()
    }

    #[test]
    fn a_token_names_its_tenant_and_is_never_the_same() {
        let (one, two) = (Token::new(&acme()).unwrap(), Token::new(&acme()).unwrap());
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(tenant_of(one.reveal()), Some("acme-2"));
        assert_eq!(one.reveal().len(), "sbx_acme-2_".len() + 43);
        let secret = one.reveal().rsplit_once("acme-2_").unwrap().1;
        assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap().len(), 32);
    }

    #[test]
    fn the_secret_is_not_in_what_is_logged() {
        let token = Token::new(&acme()).unwrap();
        assert_eq!(format!("{token:?}"), "sbx_acme-2_…");
    }

    #[test]
    fn the_hash_is_plain_sha_256_of_the_whole_text() {
        let hash = TokenHash::of("abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(TokenHash::parse(text), Some(hash));
        assert_ne!(TokenHash::of("abd"), hash);
    }

    #[test]
    fn what_has_not_the_form_of_a_token_is_not_one() {
        let secret = "A".repeat(43);
        assert!(tenant_of(&format!("sbx_a_{secret}")).is_some());
        for bad in [
            String::new(),
            "sbx_".into(),
            "sbx_a".into(),
            "sbx_a_".into(),
            format!("sbx_a_{secret}A"),
            format!("sbx_a_{}", &secret[1..]),
            format!("sbx_a_{}+", &secret[1..]),
            format!("SBX_a_{secret}"),
            format!("a_{secret}"),
            format!("sbx_{}_{secret}", "a".repeat(64)),
            format!(" sbx_a_{secret}"),
        ] {
            assert_eq!(tenant_of(&bad), None, "{bad:?}");
        }
    }
}
