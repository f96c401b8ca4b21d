//! Where a request goes: what a URL says of it, in one form.

use std::net::{IpAddr, SocketAddr};

use hyper::Uri;
use hyper::header::HeaderValue;
use sluicebox_core::origin::{plain, usual_port};

/// A scheme: its name, whether it is by TLS, and its usual port.
pub(crate) type Scheme = (&'static str, bool, u16);

/// Those of HTTP.
const HTTP: [Scheme; 2] = [("https", true, usual_port(true)), ("http", false, usual_port(false))];

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub by_tls: bool,
    /// A name in small letters, or an address without brackets.
    pub host: String,
    pub port: u16,
}

impl Target {
    /// What a URL of HTTP leads to.
    ///
    /// # Errors
    /// What is wrong with it, behind "which".
    pub(crate) fn of(uri: &Uri) -> Result<Self, &'static str> {
        Self::by(&HTTP, uri).map_err(|why| why.unwrap_or("is neither http nor https"))
    }

    /// What a URL with one of these schemes leads to.
    ///
    /// # Errors
    /// What is wrong with it, behind "which"; nothing if its scheme is another.
    pub(crate) fn by(schemes: &[Scheme], uri: &Uri) -> Result<Self, Option<&'static str>> {
        let is_it = |(name, ..): &&Scheme| uri.scheme_str() == Some(*name);
        let (_, by_tls, usual) = *schemes.iter().find(is_it).ok_or(None)?;
        let authority = uri.authority().ok_or(Some("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(Some("holds a user's name"));
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host).unwrap_or_default() {
            "" | ":" => usual,
            _ => {
                let port = authority.port_u16().filter(|port| *port > 0);
                port.ok_or(Some("has no port that can be"))?
            }
        };
        let host = plain(host).ok_or(Some("has a host that is no name and no address"))?;
        Ok(Self { by_tls, host, port })
    }

    /// Where it is, if its host is an address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(address, self.port))
    }

    /// What the header `host` says.
    pub(crate) fn authority(&self) -> Option<HeaderValue> {
        let Self { by_tls, host, port } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let is_usual = *port == usual_port(*by_tls);
        let text = if is_usual { host } else { format!("{host}:{port}") };
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<(bool, String, u16), &'static str> {
        let uri: Uri = uri.parse().map_err(|_| "is no URL")?;
        Target::of(&uri).map(|target| (target.by_tls, target.host, target.port))
    }

    #[test]
    fn a_url_leads_to_one_host_and_port() {
        let good = |by_tls, host: &str, port| Ok((by_tls, host.to_owned(), port));
        assert_eq!(target("https://API.example.com./x?y"), good(true, "api.example.com", 443));
        assert_eq!(target("http://api.example.com:/"), good(false, "api.example.com", 80));
        assert_eq!(target("http://[0::1]:81/"), good(false, "::1", 81));
        for wrong in [
            "ftp://a.example/",
            "/path",
            "https://user@a.example/",
            "https://a.example:80@b.example/",
            "https://a.example:99999/",
            "https://a.example:0/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://a..example/",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_usual_port_is_not_said() {
        let said = |uri: &str| {
            let target = Target::of(&uri.parse().expect("a URI")).expect("a target");
            target.authority().expect("a value")
        };
        assert_eq!(said("https://A.example:443/"), "a.example");
        assert_eq!(said("http://a.example:443/"), "a.example:443");
        assert_eq!(said("http://[::1]:8080/"), "[::1]:8080");
    }
}
