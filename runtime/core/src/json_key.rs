//! Taking a key out of a JSON payload by RFC 6901 pointer, without building a tree.
//!
//! The whole payload is checked to be JSON on the way. A key may be a string, a number or a
//! boolean; numbers keep the text they were written with. Copies only strings with escapes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A parsed pointer, `/user/id` and the like; the empty pointer means the whole payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    tokens: Vec<String>,
}

impl Pointer {
    /// Reads RFC 6901 syntax; `None` if it is not.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>()?;
        Some(Self { tokens })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens
            .iter()
            .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

/// `~1` is `/` and `~0` is `~`; any other `~` is an error.
fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

/// Why a payload gives no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not JSON; the parser's message with line and column.
    #[error("not JSON: {0}")]
    Json(String),
    /// Nothing there, or something that cannot be a key.
    #[error("no string, number or boolean at '{0}'")]
    Missing(String),
}

/// Checks that `payload` is one JSON value and nothing else.
///
/// # Errors
/// [`KeyError::Json`].
pub fn check(payload: &[u8]) -> Result<(), KeyError> {
    serde_json::from_slice::<IgnoredAny>(payload)
        .map(|_| ())
        .map_err(|error| KeyError::Json(error.to_string()))
}

/// The key at `pointer`.
///
/// # Errors
/// The payload is not JSON, or has no usable value there.
pub fn extract<'a>(payload: &'a [u8], pointer: &Pointer) -> Result<Cow<'a, str>, KeyError> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let as_json = |error: serde_json::Error| KeyError::Json(error.to_string());
    let found = Seek { tokens: &pointer.tokens }.deserialize(&mut json).map_err(as_json)?;
    json.end().map_err(as_json)?;
    let missing = || KeyError::Missing(pointer.to_string());
    let text = found.ok_or_else(missing)?;
    match text.as_bytes().first() {
        Some(b'"') => unquote(text).ok_or_else(missing),
        Some(b'0'..=b'9' | b'-' | b't' | b'f') => Ok(Cow::Borrowed(text)),
        _ => Err(missing()),
    }
}

/// The content of a JSON string literal.
fn unquote(literal: &str) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(literal).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Walks down one token a level and gives the raw text found there. When a member name repeats,
/// the first counts; the rest is read only to check it.
struct Seek<'p> {
    tokens: &'p [String],
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        if self.tokens.is_empty() {
            let raw: &'de RawValue = serde::Deserialize::deserialize(d)?;
            return Ok(Some(raw.get()));
        }
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (token, rest) = self.tokens.split_first().unwrap_or((&EMPTY, &[]));
        let mut found = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if found.is_none() && name == token.as_str() {
                found = map.next_value_seed(Seek { tokens: rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (token, rest) = self.tokens.split_first().unwrap_or((&EMPTY, &[]));
        let wanted = array_index(token);
        let mut found = None;
        for at in 0.. {
            if Some(at) == wanted {
                match seq.next_element_seed(Seek { tokens: rest })? {
                    Some(value) => found = value,
                    None => break,
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// `Seek` with no tokens never reaches a visitor; this stands in for the token it would lack.
static EMPTY: String = String::new();

/// RFC 6901: digits without a leading zero.
fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || (!token.starts_with('0') && !token.starts_with('+'));
    if canonical { token.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(payload: &str, pointer: &str) -> Result<String, KeyError> {
        let pointer = Pointer::parse(pointer).expect("pointer");
        extract(payload.as_bytes(), &pointer).map(Cow::into_owned)
    }

    #[test]
    fn finds_strings_numbers_and_booleans() {
        let doc = r#"{"a":{"b":[10,{"c":"x"}]},"n":-1.50e3,"t":true,"e":"q\"\u00e9","a/b":"s"}"#;
        assert_eq!(at(doc, "/a/b/1/c").as_deref(), Ok("x"));
        assert_eq!(at(doc, "/a/b/0").as_deref(), Ok("10"));
        assert_eq!(at(doc, "/n").as_deref(), Ok("-1.50e3"));
        assert_eq!(at(doc, "/t").as_deref(), Ok("true"));
        assert_eq!(at(doc, "/e").as_deref(), Ok("q\"é"));
        assert_eq!(at(doc, "/a~1b").as_deref(), Ok("s"));
        assert_eq!(at("\"whole\"", "").as_deref(), Ok("whole"));
    }

    #[test]
    fn says_what_is_missing() {
        for pointer in ["/x", "/a/9", "/a", "/n", "/a/00", "/a/0/deeper"] {
            let result = at(r#"{"a":[1],"n":null}"#, pointer);
            assert_eq!(result, Err(KeyError::Missing(pointer.to_owned())));
        }
    }

    #[test]
    fn the_whole_payload_must_be_json() {
        for bad in
            [r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":1,"b":nope}"#, "", "{\"a\":1,\"b\":\"\u{1}\"}"]
        {
            assert!(matches!(at(bad, "/a"), Err(KeyError::Json(_))), "{bad:?}");
            assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check(b"[1,{\"a\":null}]").is_ok());
    }

    #[test]
    fn the_first_of_a_repeated_member_counts() {
        assert_eq!(at(r#"{"k":"1","k":"2"}"#, "/k").as_deref(), Ok("1"));
    }

    #[test]
    fn pointer_syntax_is_checked_and_kept() {
        for text in ["", "/", "/a~0b/~1", "/a//b"] {
            assert_eq!(Pointer::parse(text).map(|p| p.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Pointer::parse("a"), None);
        assert_eq!(Pointer::parse("/~2"), None);
    }
}
