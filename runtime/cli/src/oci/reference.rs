//! How a component in a registry is named: `oci://REGISTRY/REPOSITORY:TAG@sha256:DIGITS`.
//!
//! The registry is always said. A digest decides alone; the tag before it is for people. What gets
//! into a path of a request is checked here, so that no name leads elsewhere.

use std::fmt;

use hyper::http::uri::Authority;
use sluicebox_core::ids::{Digest, Name};

use crate::failure::{Cause, Failure, printable};

const SCHEME: &str = "oci://";

/// Longest name of a repository, and longest tag.
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// Names that pipelines' components from registries have at the node begin so: no stage's own
/// component is called that by accident.
const PREFIX: &str = "oci-";

/// Longest name of a component.
const NAME_BYTES_MAX: usize = 63;

/// True for what is meant as a component in a registry.
pub(crate) fn is_reference(text: &str) -> bool {
    text.starts_with(SCHEME)
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// Host, and port if it is not the usual one.
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) version: Version,
}

/// Which manifest of the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Whatever is called so.
    Tag(String),
    Digest(Digest),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, version } = self;
        let mark = if self.digest().is_some() { '@' } else { ':' };
        write!(f, "{SCHEME}{registry}/{repository}{mark}{version}")
    }
}

impl Reference {
    /// Reads one; says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        Self::read(text).map_err(|wrong| {
            Failure::new(Cause::Usage, format!("{}: {wrong}", printable(text)))
                .code("oci.reference")
                .fix("write oci://REGISTRY/REPOSITORY@sha256:DIGITS, or :TAG instead of the digest")
        })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix(SCHEME).ok_or("this does not begin with oci://")?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::parse(digest);
                (rest, Some(digest.ok_or("the digest is not sha256: and 64 hex digits")?))
            }
            None => (rest, None),
        };
        let (registry, path) = rest.split_once('/').ok_or("there is no repository behind a /")?;
        let authority: Authority = registry.parse().map_err(|_| "the registry is no host")?;
        // What stands behind the last colon has to be a port.
        let is_whole = authority.host().len() == registry.len() || authority.port_u16().is_some();
        if authority.host().is_empty() || !is_whole {
            return Err("the registry is no host, or host and port");
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_part) {
            return Err(
                "the repository is not parts of a-z, 0-9, '.', '_' and '-' between slashes",
            );
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("the tag is not 1 to 128 letters, digits, '.', '_' and '-'");
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, Some(tag)) => Version::Tag(tag.to_owned()),
            (None, None) => return Err("it does not say which: a digest or a tag is missing"),
        };
        let (registry, repository) = (registry.to_ascii_lowercase(), repository.to_owned());
        Ok(Self { registry, repository, version })
    }

    /// The digest of the manifest, if that is how it is named.
    pub(super) const fn digest(&self) -> Option<Digest> {
        match self.version {
            Version::Digest(digest) => Some(digest),
            Version::Tag(_) => None,
        }
    }

    /// The same by its digest.
    pub(super) fn pinned(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }

    /// The name that somebody who pushes it means, if none is said: the last part.
    pub(super) fn short_name(&self) -> Result<Name, Failure> {
        let last = self.repository.rsplit('/').next().unwrap_or_default();
        Name::new(&last.replace(['_', '.'], "-")).map_err(|error| {
            Failure::new(Cause::Usage, error.to_string())
                .fix("give the component a name with --name")
        })
    }

    /// The name it has at the node where a pipeline's manifest names it.
    pub(super) fn name(&self) -> Name {
        let path = self.repository.replace(['/', '_', '.'], "-");
        // Of a long one the end says more.
        let from = path.len().saturating_sub(NAME_BYTES_MAX - PREFIX.len());
        let path = path[from..].trim_start_matches('-');
        Name::new(&format!("{PREFIX}{path}")).expect("parts begin and end with a letter or digit")
    }
}

fn is_part(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| is_plain(*first) && is_plain(*last))
        && bytes.iter().all(|byte| is_plain(*byte) || b"._-".contains(byte))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= TAG_BYTES_MAX
        && bytes.first().is_some_and(|first| is_word(*first))
        && bytes.iter().all(|byte| is_word(*byte) || b".-".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "0a".repeat(32))
    }

    #[test]
    fn what_is_written_is_read() {
        let digest = digest();
        for good in [
            "oci://ghcr.io/acme/split:1.2".to_owned(),
            format!("oci://ghcr.io/acme/stages/split@{digest}"),
            "oci://127.0.0.1:5000/split:v1_a".to_owned(),
            "oci://[::1]:5000/a/b-c__d.e:latest".to_owned(),
            format!("oci://localhost/x@{digest}"),
        ] {
            assert_eq!(Reference::parse(&good).unwrap().to_string(), good);
        }
        // The digest decides, and hosts are the same however they are written.
        let reference = Reference::parse(&format!("oci://H.io:5000/a/b:t@{digest}")).unwrap();
        let pinned = reference.pinned(reference.digest().unwrap());
        assert_eq!(reference, pinned);
        assert_eq!(pinned.to_string(), format!("oci://h.io:5000/a/b@{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        for (bad, reason) in [
            ("oci://ghcr.io/acme/split", "a digest or a tag is missing"),
            ("oci://ghcr.io", "no repository"),
            ("oci:///a:t", "no host"),
            ("oci://u:p@h/a:t", "digest"),
            ("oci://h:port/a:t", "no host"),
            ("oci://h:99999/a:t", "no host"),
            ("oci://h/../v2/x:t", "the repository"),
            ("oci://h/a//b:t", "the repository"),
            ("oci://h/A:t", "the repository"),
            ("oci://h/a?b:t", "the repository"),
            ("oci://h/a%2e:t", "the repository"),
            ("oci://h/a:", "the tag"),
            ("oci://h/a:t/b", "the tag"),
            ("oci://h/a:-t", "the tag"),
            ("oci://h/a@sha256:00", "the digest"),
            ("oci://h/a@sha512:00", "the digest"),
            ("docker://h/a:t", "oci://"),
        ] {
            let failure = Reference::parse(bad).unwrap_err();
            assert!(failure.what.contains(reason), "{bad}: {}", failure.what);
            assert_eq!((failure.cause, failure.code.as_str()), (Cause::Usage, "oci.reference"));
        }
    }

    #[test]
    fn names_at_the_node_say_where_it_comes_from() {
        let name = |text: &str| Reference::parse(text).unwrap().name().to_string();
        assert_eq!(name("oci://ghcr.io/acme/word_split:1"), "oci-acme-word-split");
        assert_eq!(name("oci://h/1.x:1"), "oci-1-x");
        let long = name(&format!("oci://h/{}/split:1", "a".repeat(200)));
        assert!(long.len() == 63 && long.ends_with("a-split"), "{long}");
        let short = |text: &str| Reference::parse(text).unwrap().short_name();
        assert_eq!(short("oci://h/acme/word_split:1").unwrap().as_str(), "word-split");
        assert_eq!(short("oci://h/acme/1:1").unwrap_err().cause, Cause::Usage);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_leave_its_path(text in "(oci://)?[a-z.:/@%?#\\[\\]_A-Z0-9-]{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                let _name = reference.name();
                prop_assert!(!reference.repository.split('/').any(|part| part == ".." || part.is_empty()));
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
