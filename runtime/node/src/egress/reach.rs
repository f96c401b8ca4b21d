//! What the node may connect to on behalf of a tenant: hosts by name, and the addresses they turn
//! out to have.
//!
//! - A host is reached if the operator allowed its name and port to the tenant; nothing is by
//!   default. In development mode this machine's loopback may be reached as well, as whoever is
//!   there may do so anyway.
//! - Its address is looked at as well, behind the look-up that the connection uses: a name anybody
//!   owns may lead into the network the node is in. Addresses that are not for everybody are
//!   refused unless their network was allowed.
//!
//! Pure: whoever connects looks names up, and connects to what was looked at here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use sluicebox_core::ids::Name;
use sluicebox_core::origin::{Host, Origin, plain};

use crate::config::ConnectorsConfig;

/// Names of this machine for itself.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The networks behind them.
const LOOPBACK: [Network; 2] = [
    Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
    Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
];

/// What one tenant may reach.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    hosts: Vec<Host>,
    networks: Vec<Network>,
    /// This machine's loopback too.
    dev: bool,
}

impl Reach {
    pub(crate) fn new(config: &ConnectorsConfig, tenant: &Name, dev: bool) -> Self {
        let hosts = config.hosts.iter().filter_map(|grant| grant.of(tenant)).cloned().collect();
        let own = LOOPBACK.into_iter().filter(|_| dev);
        let networks = config.networks.iter().copied().chain(own).collect();
        Self { hosts, networks, dev }
    }

    /// Whether a host may be connected to, by its name.
    pub(crate) fn has(&self, host: &str, port: u16) -> bool {
        self.is_own(host) || self.hosts.iter().any(|known| known.is(host, port))
    }

    /// Whether all that an origin stands for may be.
    pub(crate) fn covers(&self, origin: &Origin) -> bool {
        self.is_own(&origin.at().0) || self.hosts.iter().any(|known| known.covers(origin))
    }

    /// Whether a connection to an address may be made.
    pub(crate) fn may(&self, address: IpAddr) -> bool {
        may_reach(address, &self.networks)
    }

    fn is_own(&self, host: &str) -> bool {
        self.dev && plain(host).is_some_and(|host| LOOPBACK_NAMES.contains(&&*host))
    }
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
fn may_reach(address: IpAddr, networks: &[Network]) -> bool {
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
fn is_public(address: IpAddr) -> bool {
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
        || (a == 192 && b == 31 && c == 196)
        || (a == 198 && (18..20).contains(&b))
        // Where one large provider tells machines about themselves.
        || address.octets() == [168, 63, 129, 16];
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
    use crate::config::{Config, Sources};

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
            "168.63.129.16",
            "192.0.0.8",
            "192.31.196.1",
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
    fn a_tenant_reaches_hosts_it_was_allowed_and_no_others() {
        let mut sources = Sources::default();
        sources.flag("--x", "connectors.hosts", "a=hooks.test:443,*.all.test");
        let config = Config::load(&sources).expect("a good configuration").config.connectors;
        let name = |text: &str| Name::new(text).expect("a name");
        let (a, b) = (name("a"), name("b"));
        let reach = |tenant, dev| Reach::new(&config, tenant, dev);
        assert!(reach(&a, false).has("hooks.test", 443) && reach(&a, false).has("x.all.test", 1));
        assert!(
            !reach(&a, false).has("hooks.test", 80) && !reach(&b, false).has("hooks.test", 443)
        );
        let origin = |text: &str| Origin::parse(text).expect("an origin");
        assert!(reach(&b, false).covers(&origin("https://*.b.all.test")));
        assert!(reach(&a, false).covers(&origin("https://hooks.test")));
        assert!(!reach(&a, false).covers(&origin("https://*.hooks.test")));
        for own in ["127.0.0.1", "[::1]", "::1", "LocalHost."] {
            assert!(!reach(&a, false).has(own, 80) && reach(&a, true).has(own, 80), "{own}");
        }
        assert!(reach(&a, true).covers(&origin("http://[::1]:9")));
        assert!(!reach(&a, true).has("127.0.0.2", 80) && !reach(&a, true).has("10.0.0.1", 80));
        let own = address("127.0.0.1");
        assert!(reach(&a, true).may(own) && !reach(&a, false).may(own));
        let none = config.closed();
        assert!(!Reach::new(&none, &a, false).has("hooks.test", 443));
    }
}
