//! Names of things: tenants, pipelines, stages, components, requests.
//!
//! A [`Name`] is checked once, where it enters; whoever holds one may put it in a path, a metric
//! label or a store key without looking again. A [`Digest`] is the SHA-256 of the bytes a user
//! uploaded, the form other registries and `sha256sum` use.
//!
//! What the log speaks of has numbers besides names, so that a renamed stage keeps its state and an
//! event costs few bytes. They are given out when a pipeline is applied and never used again.

use std::fmt;
use std::sync::Arc;

use crate::limits::NAME_BYTES_MAX;

/// A checked name: `[a-z]` then `[a-z0-9-]`, at most 63 bytes, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name: use 1 to 63 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'"
)]
pub struct NameError {
    /// The start of the offending text.
    pub text: String,
}

impl Name {
    /// Checks `text`. See the type for what is allowed.
    ///
    /// # Errors
    /// [`NameError`] with the first characters of the text.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let ok = !bytes.is_empty()
            && bytes.len() <= NAME_BYTES_MAX
            && bytes.iter().all(allowed)
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last() != Some(&b'-');
        if ok {
            Ok(Self(text.into()))
        } else {
            Err(NameError { text: text.chars().take(80).collect() })
        }
    }

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a component's or an asset's bytes; written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads `sha256:<64 hex digits>`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Self(out))
    }

    /// The 64 hex digits alone, for file names.
    #[must_use]
    pub fn hex(&self) -> String {
        let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
        self.0.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
    }
}

/// Upper case is refused, so that one digest has one text.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Ties events to a client that waits for a result. Unique on a node for its life; zero is never
/// given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A pipeline in the log of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineId(pub u64);

/// A stage of a pipeline, whatever it is called in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub u32);

/// What is kept of a stage for each key: each a state of its own, beside one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What the stage writes.
    Own,
    /// Its events that wait because their key does.
    Parked,
    /// Its timers.
    Timers,
}

impl Part {
    /// Those that never leave memory, since they say when something is to be done.
    pub const HELD: [Self; 2] = [Self::Parked, Self::Timers];
}

impl StageId {
    /// Stages are numbered below both.
    const PARKED: u32 = 1 << 31;
    const TIMERS: u32 = 1 << 30;

    /// Under which the events parked at this stage are kept, as state beside its own.
    #[must_use]
    pub const fn parked(self) -> Self {
        Self(self.0 | Self::PARKED)
    }

    /// Under which a part of what is kept of this stage is kept.
    #[must_use]
    pub const fn part(self, part: Part) -> Self {
        match part {
            Part::Own => self,
            Part::Parked => self.parked(),
            Part::Timers => Self(self.0 | Self::TIMERS),
        }
    }

    /// The stage itself, and for which part of it this stood.
    #[must_use]
    pub const fn split(self) -> (Self, Part) {
        if self.0 & Self::PARKED != 0 {
            (Self(self.0 & !Self::PARKED), Part::Parked)
        } else if self.0 & Self::TIMERS != 0 {
            (Self(self.0 & !Self::TIMERS), Part::Timers)
        } else {
            (self, Part::Own)
        }
    }
}

/// An edge of a pipeline: from a stage's port to a stage's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(pub u32);

/// An output of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_bounded() {
        assert!(Name::new("word-count2").is_ok());
        for bad in ["", "-a", "a-", "A", "a_b", "1a", "a/b", "a..", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?} was taken for a name");
        }
    }

    #[test]
    fn a_digest_has_one_text() {
        let digest = Digest([0xAB; 32]);
        let text = digest.to_string();
        assert_eq!(Digest::parse(&text), Some(digest));
        assert_eq!(Digest::parse(&text.to_uppercase()), None);
        assert_eq!(Digest::parse(&text[..70]), None);
        assert_eq!(Digest::parse(&format!("sha256:{}", text[7..].to_uppercase())), None);
    }
}
