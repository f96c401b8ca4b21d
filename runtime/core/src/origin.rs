//! Hosts and origins that somebody may connect to, as manifests and the configuration write them.
//!
//! - A name is looked at in one form: small letters, no dot at its end, an address as it is
//!   written by everybody. What has no such form matches nothing.
//! - `*.` before a name stands for every name below it, not for the name itself.
//!
//! What an address may be is not decided here: a name may lead anywhere by the time somebody
//! connects.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Bytes of a name of a host, and of one part of it (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// What an entry for every name below another begins with.
const BELOW: &str = "*.";

/// A host and a port that may be reached: `example.com:443`, `*.example.com:443`, `example.com`
/// with any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// In its one form; addresses without brackets.
    name: String,
    /// All names that end so, behind a dot, and not this one.
    below: bool,
    port: Option<u16>,
}

impl FromStr for Host {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (written, port) = split_port(text).ok_or(())?;
        let (name, below) = match written.strip_prefix(BELOW) {
            Some(name) => (name, true),
            None => (written, false),
        };
        let name = plain(name).ok_or(())?;
        // A rule for everything would be none, and nothing is below an address.
        if below && (!name.contains('.') || name.parse::<IpAddr>().is_ok()) {
            return Err(());
        }
        Ok(Self { name, below, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { BELOW } else { "" };
        match self.name.contains(':') {
            true => write!(f, "[{}]", self.name)?,
            false => write!(f, "{below}{}", self.name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Host {
    /// Whether a host, as it is in a URL, and its port are meant.
    #[must_use]
    pub fn is(&self, host: &str, port: u16) -> bool {
        let Some(host) = plain(host) else { return false };
        let same = match self.below {
            true => is_below(&host, &self.name),
            false => host == self.name,
        };
        same && self.port.is_none_or(|known| known == port)
    }

    /// Whether everything that an origin stands for is meant.
    #[must_use]
    pub fn covers(&self, origin: &Origin) -> bool {
        let Origin { host: other, port, .. } = origin;
        let same = match (self.below, other.below) {
            (true, true) => other.name == self.name || is_below(&other.name, &self.name),
            (true, false) => is_below(&other.name, &self.name),
            (false, true) => false,
            (false, false) => other.name == self.name,
        };
        same && self.port.is_none_or(|known| known == *port)
    }
}

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// By TLS, or without.
    tls: bool,
    /// Without a port.
    host: Host,
    port: u16,
}

impl Origin {
    /// Reads `https://host`, `http://host:8080`, `https://*.example.com`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let mut host: Host = rest.parse().ok()?;
        let port = host.port.take().unwrap_or_else(|| usual_port(tls));
        Some(Self { tls, host, port })
    }

    /// Whether a request to this host, as it is in a URL, may be made under this entry.
    #[must_use]
    pub fn allows(&self, tls: bool, host: &str, port: u16) -> bool {
        self.tls == tls && self.port == port && self.host.is(host, port)
    }

    /// The host, and its port.
    #[must_use]
    pub fn at(&self) -> (String, u16) {
        (self.host.to_string(), self.port)
    }

    /// By TLS, or without.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port } = self;
        write!(f, "{}://{host}", if *tls { "https" } else { "http" })?;
        if *port == usual_port(*tls) { Ok(()) } else { write!(f, ":{port}") }
    }
}

/// The port that a scheme has if none is written.
#[must_use]
pub const fn usual_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn is_below(name: &str, other: &str) -> bool {
    name.strip_suffix(other).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
}

/// A host's name or address, and the port behind it if there is one.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|port| digits && *port > 0)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']')?;
        // Others have no brackets.
        address.parse::<Ipv6Addr>().ok()?;
        return match behind.strip_prefix(':') {
            Some(behind) => Some((address, Some(port(behind)?))),
            None => behind.is_empty().then_some((address, None)),
        };
    }
    match text.rsplit_once(':') {
        Some((name, behind)) if !name.contains(':') => Some((name, Some(port(behind)?))),
        Some(_) => None,
        None => Some((text, None)),
    }
}

/// A name in its one form, if it is one; an address without brackets.
#[must_use]
pub fn plain(name: &str) -> Option<String> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    let is_label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let length = (1..=LABEL_BYTES_MAX).contains(&label.len());
        length && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    let good = bare.len() <= NAME_BYTES_MAX && bare.split('.').all(is_label);
    let bare = bare.to_ascii_lowercase();
    // What looks like a number some systems take for an address, each in its own way.
    let is_number = |l: &str| l.starts_with("0x") || l.bytes().all(|b| b.is_ascii_digit());
    let number = bare.rsplit('.').next().is_some_and(is_number);
    (good && !number).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        text.parse().expect("a host")
    }

    #[test]
    fn a_host_is_meant_by_its_whole_name_and_port() {
        assert!(host("Example.com:443").is("EXAMPLE.com.", 443));
        assert!(!host("example.com:443").is("example.com", 80));
        assert!(host("example.com").is("example.com", 80));
        assert!(!host("example.com").is("a.example.com", 80));
        assert!(!host("example.com").is("notexample.com", 80));
        assert!(host("*.example.com").is("a.b.example.com", 1));
        assert!(!host("*.example.com").is("example.com", 1));
        assert!(!host("*.example.com").is(".example.com", 1));
        assert!(!host("*.example.com").is("badexample.com", 1));
        assert!(host("127.0.0.1:9").is("127.0.0.1", 9));
        assert!(host("[::1]:9").is("[0:0::1]", 9));
        for text in ["example.com:443", "*.example.com", "[::1]:9", "127.0.0.1"] {
            assert_eq!(host(text).to_string(), text);
        }
        let wrong = [
            "",
            "*",
            "*.",
            "*.com",
            "*.127.0.0.1",
            "a b",
            "a:0",
            "a:x",
            "a:+9",
            "::1:9",
            "[127.0.0.1]",
            "a..b",
            "-a.b",
            "0x7f.1",
            "0x7f000001",
            "127.1",
        ];
        for wrong in wrong {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
        assert!(!host("example.com").is("2130706433", 80), "a number is no name");
    }

    #[test]
    fn an_origin_is_read_and_written() {
        for (text, written) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://API.example.com:443", "https://api.example.com"),
            ("https://api.example.com.", "https://api.example.com"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::0001]:8080", "http://[::1]:8080"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]"),
            ("http://localhost:80", "http://localhost"),
            ("https://*.example.com", "https://*.example.com"),
        ] {
            assert_eq!(Origin::parse(text).map(|o| o.to_string()).as_deref(), Some(written));
        }
        for text in [
            "",
            "api.example.com",
            "ftp://api.example.com",
            "https://",
            "https://api.example.com/",
            "https://user@api.example.com",
            "https://api.example.com:0",
            "https://api.example.com:65536",
            "https://api.example.com:",
            "https://api..example.com",
            "https://-api.example.com",
            "https://*",
            "https://*.com",
            "https://a.*.example.com",
            "https://*.0.0.1",
            "http://127.1",
            "http://0x7f000001",
            "http://2130706433",
            "http://[127.0.0.1]",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_origin_allows_itself_and_nothing_near_it() {
        let origin = |text| Origin::parse(text).unwrap();
        let exact = origin("https://api.example.com");
        assert!(exact.allows(true, "api.example.com", 443));
        assert!(exact.allows(true, "API.example.com.", 443));
        assert!(!exact.allows(false, "api.example.com", 443));
        assert!(!exact.allows(true, "api.example.com", 444));
        assert!(!exact.allows(true, "b.api.example.com", 443));
        let below = origin("https://*.example.com");
        assert!(below.allows(true, "api.example.com", 443));
        assert!(below.allows(true, "a.b.example.com", 443));
        assert!(!below.allows(true, "example.com", 443));
        assert!(!below.allows(true, ".example.com", 443));
        assert!(!below.allows(true, "badexample.com", 443));
    }

    #[test]
    fn an_origin_is_covered_by_what_allows_all_of_it() {
        let covers = |known: &str, text: &str| host(known).covers(&Origin::parse(text).unwrap());
        assert!(covers("api.example.com", "https://api.example.com:8443"));
        assert!(covers("api.example.com:443", "https://api.example.com"));
        assert!(!covers("api.example.com:443", "http://api.example.com"));
        assert!(covers("*.example.com", "https://api.example.com"));
        assert!(covers("*.example.com", "https://*.example.com"));
        assert!(covers("*.example.com", "https://*.api.example.com"));
        assert!(!covers("*.example.com", "https://example.com"));
        assert!(!covers("api.example.com", "https://*.example.com"));
        assert!(!covers("*.api.example.com", "https://*.example.com"));
        assert!(!covers("*.example.com", "https://*.badexample.com"));
        assert!(covers("[::1]", "http://[::1]:8080"));
    }
}
