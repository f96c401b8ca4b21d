//! Where a document is kept: a checked path such as `tenants/dev/pipelines/word-count`.
//!
//! A [`Key`] is 1 to 8 segments joined by `/`; a segment is 1 to 128 of `a-z`, `0-9`, `.` and `-`,
//! begins and ends with a letter or digit and has no two dots in a row; the whole is at most 512
//! bytes. So a key is always a path below its root, on every file system, and a name or the hex
//! digits of a digest can be a segment. Keys are ordered by their bytes.
//!
//! A key says nothing about who may use it; whoever builds it from a tenant's name does.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// Segments in a key.
pub const SEGMENTS_MAX: usize = 8;
/// Bytes in a segment: 64 hex digits and a suffix fit, and so does a file name made of it.
pub const SEGMENT_BYTES_MAX: usize = 128;
/// Bytes in a key.
pub const KEY_BYTES_MAX: usize = 512;

/// A checked key, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks `text`. See the file's documentation for what is allowed.
    ///
    /// # Errors
    /// [`Error::KeyInvalid`] with the start of the text and the rule it breaks.
    pub fn new(text: &str) -> Result<Self, Error> {
        match check(text) {
            Ok(()) => Ok(Self(text.into())),
            Err(rule) => Err(Error::KeyInvalid { text: text.chars().take(80).collect(), rule }),
        }
    }

    /// Joins segments with `/` and checks the result.
    ///
    /// # Errors
    /// [`Error::KeyInvalid`], also when a segment has a `/` in it.
    pub fn of(segments: &[&str]) -> Result<Self, Error> {
        if let Some(segment) = segments.iter().find(|s| s.contains('/')) {
            let text = segment.chars().take(80).collect();
            return Err(Error::KeyInvalid { text, rule: "a segment has no '/'" });
        }
        Self::new(&segments.join("/"))
    }

    /// The text of the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, first to last.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    #[must_use]
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

/// The rule that `text` breaks, if it breaks one.
fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > KEY_BYTES_MAX {
        return Err("a key has at most 512 bytes");
    }
    if text.split('/').count() > SEGMENTS_MAX {
        return Err("a key has at most 8 segments");
    }
    text.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    if bytes.is_empty() || bytes.len() > SEGMENT_BYTES_MAX {
        return Err("a segment has 1 to 128 bytes");
    }
    if !bytes.iter().all(|b| plain(b) || matches!(b, b'.' | b'-')) {
        return Err("a segment is made of a-z, 0-9, '.' and '-'");
    }
    if !bytes.first().is_some_and(plain) || !bytes.last().is_some_and(plain) {
        return Err("a segment begins and ends with a letter or digit");
    }
    if segment.contains("..") {
        return Err("a segment has no two dots in a row");
    }
    Ok(())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths_of_names_and_digests() {
        let hex = "0123456789abcdef".repeat(4);
        for good in ["a", "tenants/dev/pipelines/word-count", "v1.2.3", &format!("c/{hex}"), "1"] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Key::of(&["tenants", "dev", &hex]).unwrap().last(), hex);
        assert_eq!(Key::new("a/b/c").unwrap().segments().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn nothing_else_is_a_key() {
        let (long, deep) = ("x".repeat(129), ["a"; 9].join("/"));
        let wide = vec!["x".repeat(70); 8].join("/");
        for bad in [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a..b", ".a", "a.", "-a", "a-",
            "A", "a_b", "a b", "a\\b", "a\0", "ä", "a:b", "~", &long, &deep, &wide,
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?} was taken for a key");
        }
        assert!(Key::of(&[]).is_err());
        assert!(Key::of(&["a/b"]).is_err());
        assert!(Key::of(&["a", "..", "b"]).is_err());
    }

    #[test]
    fn the_error_says_the_rule_and_not_the_whole_text() {
        let error = Key::new(&"X".repeat(400)).unwrap_err().to_string();
        assert!(error.contains("a segment has 1 to 128 bytes") && error.len() < 250, "{error}");
    }
}
