//! Whom a request comes from, and whether it may do what it asks.
//!
//! - With tokens: `Authorization: Bearer`. No token or an unknown one is told so; a good one of
//!   another tenant finds nothing under this tenant's name.
//! - In development mode there are no tokens, and the node listens on loopback only. Then a request
//!   must name this machine in `Host`, and one that comes from a web page must come from a page of
//!   this very node: a page elsewhere can neither post to it nor reach it under a name of its own.
//! - Who a connection's last token belonged to is remembered for a second, so a revoked token works
//!   for as long after the file was read.
//! - A tenant's open connections are drawn from its quota, from the first request on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use http::uri::Authority;
use http::{Request, Uri};
use sluicebox_core::quota::Resource;

use super::connection::{Connection, Via};
use super::server::Edge;
use crate::admission::{Account, Permit};
use crate::error::Error;
use crate::tenants::{Identity, Scope};

/// How long a look-up is believed.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Who a request comes from, with the account it draws on.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) identity: Identity,
    pub(super) account: Arc<Account>,
    /// The tenant has a process of its own.
    pub(super) is_isolated: bool,
    /// The tenant's permit for the connection; shared by callers of one tenant on it. None for
    /// connections of the front and of other nodes, which have counted those of their clients.
    connection: Option<Arc<Permit>>,
}

/// The caller a connection has seen last.
#[derive(Debug)]
pub(super) struct Known {
    /// Empty in development mode.
    token: Vec<u8>,
    since: Duration,
    caller: Arc<Caller>,
}

impl Caller {
    /// Refuses a name that is not the caller's tenant, and an action its token does not allow.
    pub(super) fn may(&self, tenant: &str, scope: Scope) -> Result<(), Error> {
        if self.identity.tenant.as_str() != tenant {
            return Err(Error::not_found("tenant", tenant));
        }
        self.has(scope)
    }

    /// Refuses an action the token does not allow.
    pub(super) fn has(&self, scope: Scope) -> Result<(), Error> {
        let allowed = self.identity.scopes.contains(scope);
        if allowed { Ok(()) } else { Err(Error::Scope { scope: scope.as_str() }) }
    }
}

/// Finds out whom a request comes from.
pub(super) fn identify<B>(
    edge: &Edge,
    connection: &Connection,
    request: &Request<B>,
) -> Result<Arc<Caller>, Error> {
    let node = edge.node();
    let alone = node.tenants().without_token();
    let token = match alone {
        Some(_) => &[][..],
        None => bearer(request.headers()).ok_or(Error::Unauthorised)?,
    };
    // Another node has looked at where its client is.
    if node.dev_mode() && connection.via() != Via::Node {
        check_site(connection, request.uri(), request.headers())?;
    }
    let now = edge.now();
    let mut known = connection.known().borrow_mut();
    if let Some(last) = known.as_ref()
        && now.saturating_sub(last.since) < REMEMBERED
        && same(&last.token, token)
    {
        return Ok(Arc::clone(&last.caller));
    }
    let by_token =
        || std::str::from_utf8(token).ok().and_then(|token| node.tenants().authenticate(token));
    let identity = alone.or_else(by_token);
    let identity = identity.ok_or(Error::Unauthorised)?;
    let account = node.admission().account(&identity.tenant, &node.tenants().current());
    let before = known.take().filter(|last| last.caller.identity.tenant == identity.tenant);
    let permit = match before {
        Some(last) => last.caller.connection.clone(),
        None if !connection.is_a_clients() => None,
        None => Some(Arc::new(account.lend(Resource::Connections, 1)?)),
    };
    let is_isolated = node.front().isolates(node.tenants(), &identity.tenant);
    let caller = Arc::new(Caller { identity, account, is_isolated, connection: permit });
    *known = Some(Known { token: token.to_vec(), since: now, caller: Arc::clone(&caller) });
    Ok(caller)
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Compares in a time that says nothing about where two tokens differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Refuses requests that a foreign web page made, or that reached us under a foreign name.
pub(super) fn check_site(
    connection: &Connection,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Error> {
    let foreign = |header| Err(Error::ForeignSite { header });
    if !connection.peer().ip().to_canonical().is_loopback() {
        return foreign("Host");
    }
    let host = headers.get(HOST).map(|value| value.to_str().unwrap_or("?"));
    let target = uri.authority().map(Authority::as_str);
    let mut named = host.into_iter().chain(target).peekable();
    let Some(ours) = named.peek().copied() else { return foreign("Host") };
    if !named.all(is_loopback) {
        return foreign("Host");
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(origin) = text(ORIGIN.as_str())
        && origin.strip_prefix(connection.origin()) != Some(ours)
    {
        return foreign("Origin");
    }
    match text("sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => foreign("Sec-Fetch-Site"),
    }
}

/// True for the names of this machine's loopback address, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(pair).collect()
    }

    fn site(
        peer: [u8; 4],
        uri: &str,
        list: &[(&'static str, &'static str)],
    ) -> Option<&'static str> {
        let connection = Connection::new((peer, 1).into(), Duration::ZERO, Via::Plain);
        match check_site(&connection, &uri.parse().expect("a URI"), &headers(list)) {
            Err(Error::ForeignSite { header }) => Some(header),
            other => {
                other.expect("no other refusal");
                None
            }
        }
    }

    const HERE: [u8; 4] = [127, 0, 0, 1];

    #[test]
    fn requests_of_this_machine_pass() {
        for host in ["localhost", "LOCALHOST:7411", "127.0.0.1:7411", "127.9.9.9", "[::1]:7411"] {
            assert_eq!(site(HERE, "/v1", &[("host", host)]), None, "{host}");
        }
        let page = [
            ("host", "localhost:7411"),
            ("origin", "http://localhost:7411"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(site(HERE, "/v1", &page), None);
        assert_eq!(site(HERE, "http://localhost:7411/v1", &[]), None, "HTTP/2 has no Host");
    }

    #[test]
    fn foreign_names_and_pages_are_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "localhost@evil.example",
            "evil@localhost",
            "10.0.0.1",
            "0.0.0.0",
            "",
            "a b",
        ] {
            let value = HeaderValue::from_static(host);
            let connection = Connection::new((HERE, 1).into(), Duration::ZERO, Via::Plain);
            let found = [(HOST, value)].into_iter().collect();
            assert!(check_site(&connection, &Uri::from_static("/"), &found).is_err(), "{host:?}");
        }
        assert_eq!(site(HERE, "/v1", &[]), Some("Host"));
        assert_eq!(site([10, 0, 0, 1], "/v1", &[("host", "localhost")]), Some("Host"));
        assert_eq!(site(HERE, "http://evil.example/v1", &[("host", "localhost")]), Some("Host"));
        for origin in [
            "http://evil.example",
            "https://localhost:7411",
            "http://localhost:3000",
            "http://127.0.0.1:7411",
            "null",
            "",
        ] {
            let list = [("host", "localhost:7411"), ("origin", origin)];
            assert_eq!(site(HERE, "/v1", &list), Some("Origin"), "{origin:?}");
        }
        for fetch in ["cross-site", "same-site", "else"] {
            let list = [("host", "localhost"), ("sec-fetch-site", fetch)];
            assert_eq!(site(HERE, "/v1", &list), Some("Sec-Fetch-Site"));
        }
    }

    #[test]
    fn by_tls_the_page_has_come_by_tls_as_well() {
        let connection = Connection::new((HERE, 1).into(), Duration::ZERO, Via::Tls);
        let from = |origin| {
            let list = headers(&[("host", "localhost:7411"), ("origin", origin)]);
            check_site(&connection, &Uri::from_static("/v1"), &list).is_ok()
        };
        assert!(from("https://localhost:7411") && !from("http://localhost:7411"));
    }

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_the_word() {
        let token = |text| bearer(&headers(&[("authorization", text)])).map(<[u8]>::to_vec);
        assert_eq!(token("Bearer abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(token("bearer   abc ").as_deref(), Some(&b"abc"[..]));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(token(bad), None, "{bad:?}");
        }
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab"));
    }
}
