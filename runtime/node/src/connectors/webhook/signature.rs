//! Signatures of requests, as Standard Webhooks have them: HMAC-SHA-256 of id, time and body.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;

use super::super::grants::Refused;
use super::super::secret;

/// Before a secret in base64.
const PREFIX: &str = "whsec_";

/// Bytes a secret has.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// How one is written.
const FORM: &str = "whsec_ and 24 to 64 bytes in base64";

/// What requests are signed with. It is never shown.
pub(super) struct Secret(hmac::Key);

impl Secret {
    /// Reads it from its file.
    pub(super) async fn read(path: &Path) -> Result<Self, Refused> {
        let text = secret::read(path, FORM).await?;
        let written = || secret::refused("is not written as a secret".to_owned(), FORM);
        Self::parse(text.trim()).ok_or_else(written)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let fits = SECRET_BYTES.contains(&bytes.len());
        fits.then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Adds the headers of a signature.
    pub(super) fn sign(&self, (id, time): (&str, u64), body: &[u8], headers: &mut HeaderMap) {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{id}.{time}.").as_bytes());
        signing.update(body);
        let signature = format!("v1,{}", STANDARD.encode(signing.sign()));
        for (name, value) in [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", time.to_string()),
            ("webhook-signature", signature),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_as_the_standard_says() {
        // The example of the specification.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let mut headers = HeaderMap::new();
        let id = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        secret.sign(id, br#"{"test": 2432232314}"#, &mut headers);
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(headers["webhook-signature"], expected);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for wrong in ["", "whsec_", "whsec_!", "secret", "whsec_c2hvcnQ="] {
            assert!(Secret::parse(wrong).is_none(), "{wrong}");
        }
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        assert!(Secret::parse(&long).is_none());
    }
}
