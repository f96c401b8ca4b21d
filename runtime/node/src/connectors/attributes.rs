//! Attributes of an event in the headers of what hands it on, as CloudEvents writes them in its
//! bindings.

use crate::http::holds_json;

/// Longest value of a header that is made of an attribute.
const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// Text as a header's value: printable, whatever was in it. None if it is empty, or too long.
pub(super) fn encoded(text: &str) -> Option<String> {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0x21..=0x7E if byte != b'"' && byte != b'%' => value.push(char::from(byte)),
            other => value.push_str(&format!("%{other:02X}")),
        }
    }
    let fits = value.len() <= ATTRIBUTE_BYTES_MAX && !value.is_empty();
    fits.then_some(value)
}

/// What a payload is: what its event says, or what can be seen of it.
pub(super) fn content_type<'a>(said: Option<&'a str>, payload: &[u8]) -> &'a str {
    let is_plain = |text: &&str| text.bytes().all(|byte| (0x20..0x7F).contains(&byte));
    let said = said.filter(is_plain).filter(|text| text.len() <= ATTRIBUTE_BYTES_MAX);
    match said.unwrap_or(UNKNOWN) {
        UNKNOWN if holds_json(payload) => "application/json",
        said => said,
    }
}

/// What says nothing of a payload.
const UNKNOWN: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_headers_whatever_is_in_them() {
        assert_eq!(encoded("a/b:c").as_deref(), Some("a/b:c"));
        let found = encoded("a b\"%ü\r\nx: y");
        assert_eq!(found.as_deref(), Some("a%20b%22%25%C3%BC%0D%0Ax:%20y"));
        assert_eq!(encoded(&"x".repeat(ATTRIBUTE_BYTES_MAX + 1)), None);
        assert_eq!(encoded(""), None);
    }

    #[test]
    fn a_payload_is_what_its_event_says_or_what_can_be_seen() {
        assert_eq!(content_type(Some("text/plain"), b"{}"), "text/plain");
        assert_eq!(content_type(None, b"{}"), "application/json");
        assert_eq!(content_type(Some(UNKNOWN), b"[1]"), "application/json");
        for said in [None, Some("a\r\nb: c"), Some("text/pl\u{e4}in")] {
            assert_eq!(content_type(said, b"x"), UNKNOWN);
        }
    }
}
