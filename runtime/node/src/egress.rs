//! What the node may connect to on behalf of a pipeline: hosts by name, and the addresses they turn
//! out to have.
//!
//! - A host is reached if somebody allowed its name and port; nothing is by default.
//! - Its address is looked at as well, behind the look-up that the connection uses: a name anybody
//!   owns may lead into the network the node is in. Addresses that are not for everybody are
//!   refused unless their network was allowed.
//!
//! Pure: whoever connects looks names up, and connects to what was looked at here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest name of a host.
const HOST_BYTES_MAX: usize = 253;

/// A host and a port that may be reached: `example.com:443`, `*.example.com:443`, `example.com`
/// with any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// In small letters; addresses without brackets.
    name: String,
    /// All names that end so as well, behind a dot.
    below: bool,
    port: Option<u16>,
}

impl FromStr for Host {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, port) = split_port(text).ok_or(())?;
        let (name, below) = match name.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let name = plain(name).ok_or(())?;
        // A rule for everything would be none.
        if below && !name.contains('.') {
            return Err(());
        }
        Ok(Self { name, below, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
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
            true => host.strip_suffix(self.name.as_str()).is_some_and(|front| front.ends_with('.')),
            false => host == self.name,
        };
        same && self.port.is_none_or(|known| known == port)
    }
}

/// A host's name or address, and the port behind it if there is one.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']')?;
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

/// A name in one form, if it is one.
fn plain(name: &str) -> Option<String> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    let is_label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
    };
    let good = bare.len() <= HOST_BYTES_MAX && bare.split('.').all(is_label);
    // What looks like a number some systems take for an address.
    let number = bare.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    (good && !number).then(|| bare.to_ascii_lowercase())
}

/// Addresses that begin alike: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = if bits.is_empty() && !text.contains('/') {
            most
        } else {
            bits.parse().map_err(|_| ())?
        };
        if bits > most {
            return Err(());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    /// Whether an address is in it.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.address, bare(address)) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let away = 32 - u32::from(self.bits);
                (own.to_bits() ^ other.to_bits()).checked_shr(away).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let away = 128 - u32::from(self.bits);
                (own.to_bits() ^ other.to_bits()).checked_shr(away).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Whether a connection to an address may be made: it is for everybody, or in a network that was
/// allowed.
#[must_use]
pub fn may_reach(address: IpAddr, networks: &[Network]) -> bool {
    is_public(address) || networks.iter().any(|network| network.has(address))
}

/// An address of the old kind that is written as one of the new.
fn bare(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(new) => new.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// An address that anybody's machine could have: none of the node's own network, of the machine
/// itself, of groups, of translation, or that is reserved.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match bare(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = a == 0
        || a >= 240
        // Shared by providers; special protocols; translation; measuring.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !(reserved
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // What is given out for all begins with 001.
    let global = a & 0xE000 == 0x2000;
    let special = (a == 0x2001 && (b < 0x0200 || b == 0x0DB8))
        // Ways around that lead to addresses of the old kind.
        || a == 0x2002
        || (a == 0x3FFF && b < 0x1000);
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_addresses_for_everybody_are_public() {
        for public in ["1.1.1.1", "93.184.216.34", "100.63.255.255", "2606:4700::1111"] {
            assert!(is_public(address(public)), "{public}");
        }
        for own in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "172.16.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "100::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!is_public(address(own)), "{own}");
            assert!(!may_reach(address(own), &[]), "{own}");
        }
    }

    #[test]
    fn a_network_that_is_allowed_is_reached_and_no_other() {
        let network = |text: &str| text.parse::<Network>().expect("a network");
        let ten = [network("10.1.0.0/16"), network("::1"), network("127.0.0.1/32")];
        for reached in ["10.1.255.1", "::1", "127.0.0.1", "::ffff:10.1.0.1", "8.8.8.8"] {
            assert!(may_reach(address(reached), &ten), "{reached}");
        }
        for not in ["10.2.0.1", "127.0.0.2", "::2", "172.31.0.1"] {
            assert!(!may_reach(address(not), &ten), "{not}");
        }
        let all = [network("0.0.0.0/0")];
        assert!(may_reach(address("10.2.0.1"), &all) && !may_reach(address("::1"), &all));
        for wrong in ["", "10", "10.0.0.0/33", "::/129", "10.0.0.0/", "a/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert_eq!(network("10.0.0.0/8").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn a_host_is_meant_by_its_whole_name_and_port() {
        let host = |text: &str| text.parse::<Host>().expect("a host");
        assert!(host("Example.com:443").is("EXAMPLE.com.", 443));
        assert!(!host("example.com:443").is("example.com", 80));
        assert!(host("example.com").is("example.com", 80));
        assert!(!host("example.com").is("a.example.com", 80));
        assert!(!host("example.com").is("notexample.com", 80));
        assert!(host("*.example.com").is("a.b.example.com", 1));
        assert!(!host("*.example.com").is("example.com", 1));
        assert!(!host("*.example.com").is("badexample.com", 1));
        assert!(host("127.0.0.1:9").is("127.0.0.1", 9));
        assert!(host("[::1]:9").is("[0:0::1]", 9));
        for text in ["example.com:443", "*.example.com", "[::1]:9", "127.0.0.1"] {
            assert_eq!(host(text).to_string(), text);
        }
        let wrong =
            ["", "*", "*.", "*.com", "a b", "a:0", "a:x", "::1:9", "a..b", "0x7f.1", "127.1"];
        for wrong in wrong {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
        assert!(!host("example.com").is("2130706433", 80), "a number is no name");
    }
}
