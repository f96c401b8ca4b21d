//! What is said to a registry, and what is said to nobody else.
//!
//! - TLS, except with registries of this machine and those that a flag names. Nothing leads from a
//!   connection with TLS to one without.
//! - Credentials go to the registry they are of, and to where it has its tokens made; a token goes
//!   to the registry alone. Where it sends somebody on to, they do not go along.
//! - Every answer is bounded, in bytes and in time, before it is read and while it is.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::credentials::{Credentials, DOCKER};
use super::reference::Reference;
use crate::args::push::RegistryArgs;
use crate::client::{innermost, quoted, to_anybody};
use crate::failure::{Cause, Failure, printable};
use crate::render::grouped;

/// Longest time until an answer begins, and between two pieces of one.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Longest time of a whole answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// How often a registry may send somebody on, for one answer.
const REDIRECTS_MAX: usize = 5;

/// Largest answer of who makes tokens.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// Where Docker's own registry is.
const DOCKER_HOST: &str = "registry-1.docker.io";

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("sluicebox/", env!("CARGO_PKG_VERSION")));

/// Connections to registries.
pub(super) struct Transport {
    pool: Pool<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// Those that are spoken to without TLS, besides those of this machine.
    plain: Vec<String>,
}

impl Transport {
    /// Trusts whom the system trusts.
    pub(super) fn new(args: &RegistryArgs) -> Result<Self, Failure> {
        let pool = Pool::builder(TokioExecutor::new()).build(to_anybody()?);
        Ok(Self { pool, plain: args.plain_registry.clone() })
    }

    fn is_plain(&self, authority: &Authority) -> bool {
        let is_named = |plain: &String| plain.eq_ignore_ascii_case(authority.as_str());
        is_loopback(authority.host()) || self.plain.iter().any(is_named)
    }

    /// One request, and the beginning of its answer.
    async fn ask(
        &self,
        uri: &Uri,
        accept: &'static str,
        authorisation: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::get(uri).header(USER_AGENT, AGENT).header(ACCEPT, accept);
        if let Some(value) = authorisation {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::new()).map_err(|error| {
            Failure::new(Cause::Internal, format!("the request cannot be formed: {error}"))
        })?;
        let host = host_of(uri);
        match tokio::time::timeout(SILENCE_MAX, self.pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreached(&host, &innermost(&error))),
            Err(_) => Err(unreached(&host, &format!("no answer within {SILENCE_MAX:?}"))),
        }
    }
}

/// True for names of this machine itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host_of(uri: &Uri) -> String {
    printable(uri.authority().map_or("", Authority::as_str))
}

fn unreached(host: &str, why: &str) -> Failure {
    Failure::new(Cause::Unavailable, format!("the registry at {host} cannot be reached: {why}"))
        .code("oci.connect")
        .fix(if why.contains("certificate") {
            "name a file with the certificate that vouches for the registry's in SSL_CERT_FILE"
        } else {
            "look at the address and the network; without TLS it takes --plain-registry"
        })
}

/// An answer that is none.
fn nonsense(host: &str, what: &str) -> Failure {
    Failure::new(Cause::Unavailable, format!("the registry at {host} {what}"))
        .code("oci.reply")
        .fix("is it a registry? If so, try again later or ask who runs it")
}

/// Questions about one repository.
pub(super) struct Exchange<'a> {
    transport: &'a Transport,
    reference: Reference,
    authorisation: Option<HeaderValue>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(transport: &'a Transport, reference: &Reference) -> Self {
        Self { transport, reference: reference.clone(), authorisation: None }
    }

    /// Where the registry is.
    fn base(&self) -> Result<Uri, Failure> {
        let named = self.reference.registry.as_str();
        let host = if named == DOCKER { DOCKER_HOST } else { named };
        let authority = host.parse::<Authority>();
        let is_plain = authority.is_ok_and(|authority| self.transport.is_plain(&authority));
        let scheme = if is_plain { "http" } else { "https" };
        format!("{scheme}://{host}/").parse::<Uri>().map_err(|error| {
            Failure::new(Cause::Usage, format!("{}: {error}", self.reference)).code("oci.reference")
        })
    }

    /// All of something in the repository that has at most so many bytes.
    pub(super) async fn get(
        &mut self,
        what: &str,
        accept: &'static str,
        bytes_max: u64,
    ) -> Result<Bytes, Failure> {
        let base = self.base()?;
        let path = format!("/v2/{}/{what}", self.reference.repository);
        let uri = at(&base, &path).ok_or_else(|| nonsense(&host_of(&base), "has no such path"))?;
        let (mut response, is_registry) = self.follow(&base, &uri, accept).await?;
        let is_asked = is_registry && response.status() == StatusCode::UNAUTHORIZED;
        // Also if there is one: a token may be over by the time the last component comes.
        if is_asked {
            self.authorise(&base, response.headers()).await?;
            (response, _) = self.follow(&base, &uri, accept).await?;
        }
        self.judge(response.status(), what)?;
        let host = host_of(&base);
        let whole = collect(&host, response.into_body(), bytes_max);
        let late = |_| unreached(&host, &format!("not all within {ANSWER_TIME_MAX:?}"));
        tokio::time::timeout(ANSWER_TIME_MAX, whole).await.map_err(late)?
    }

    /// A request, and those it leads to: the last answer, and whether the registry itself gave it.
    /// Nobody else may say who makes tokens.
    async fn follow(
        &self,
        base: &Uri,
        uri: &Uri,
        accept: &'static str,
    ) -> Result<(Response<Incoming>, bool), Failure> {
        let mut uri = uri.clone();
        for _ in 0..=REDIRECTS_MAX {
            let is_registry = uri.scheme() == base.scheme() && uri.authority() == base.authority();
            let authorisation = self.authorisation.as_ref().filter(|_| is_registry);
            let response = self.transport.ask(&uri, accept, authorisation).await?;
            let is_elsewhere = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.headers().get(LOCATION).filter(|_| is_elsewhere) else {
                return Ok((response, is_registry));
            };
            let next = location.to_str().ok().and_then(|location| at(&uri, location));
            let next = next.ok_or_else(|| nonsense(&host_of(&uri), "sends on to no address"))?;
            self.permit(base, &next, "sends on to")?;
            // Nor back, where TLS was left to be begun on the way.
            self.permit(&uri, &next, "sends on to")?;
            uri = next;
        }
        Err(nonsense(&host_of(base), "sends on and on"))
    }

    /// Refuses to leave TLS, and to go without it where nobody said so.
    fn permit(&self, base: &Uri, next: &Uri, how: &str) -> Result<(), Failure> {
        let is_plain = || {
            [base, next].iter().all(|uri| uri.scheme() == Some(&Scheme::HTTP))
                && next.authority().is_some_and(|authority| self.transport.is_plain(authority))
        };
        let is_allowed =
            next.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && (next.scheme() == Some(&Scheme::HTTPS) || is_plain());
        if is_allowed {
            return Ok(());
        }
        Err(nonsense(&host_of(base), &format!("{how} {}, without TLS", host_of(next))))
    }

    /// Gets what the registry wants to see.
    async fn authorise(&mut self, base: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        let credentials = Credentials::of(&self.reference.registry)?;
        let challenge = Challenge::of(headers);
        let asked = match challenge {
            Some(Challenge::Bearer { realm, service }) => {
                let token = self.token(base, &realm, &service, &credentials).await?;
                Some(token)
            }
            Some(Challenge::Basic) => match &credentials {
                Credentials::Basic(value) => Some(value.clone()),
                Credentials::None | Credentials::Elsewhere(_) => None,
            },
            None => return Err(nonsense(&host_of(base), "asks for credentials of no known kind")),
        };
        let Some(asked) = asked else { return Err(self.denied(&credentials)) };
        self.authorisation = Some(asked);
        Ok(())
    }

    /// A token to read this repository, of whoever makes them for the registry.
    async fn token(
        &self,
        base: &Uri,
        realm: &str,
        service: &str,
        credentials: &Credentials,
    ) -> Result<HeaderValue, Failure> {
        let host = host_of(base);
        let scope = format!("repository:{}:pull", self.reference.repository);
        let joint = if realm.contains('?') { '&' } else { '?' };
        let mut address = format!("{realm}{joint}scope={}", quoted(&scope));
        if !service.is_empty() {
            address.push_str(&format!("&service={}", quoted(service)));
        }
        let uri: Option<Uri> = address.parse().ok().filter(|uri: &Uri| uri.authority().is_some());
        let uri = uri.ok_or_else(|| nonsense(&host, "has its tokens made at no address"))?;
        self.permit(base, &uri, "has its tokens made at")?;
        let known = match credentials {
            Credentials::Basic(value) => Some(value),
            Credentials::None | Credentials::Elsewhere(_) => None,
        };
        let response = self.transport.ask(&uri, "application/json", known).await?;
        let maker = host_of(&uri);
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Err(self.denied(credentials)),
            other => {
                let what = format!("has its tokens made at {maker}, which answered {other}");
                return Err(nonsense(&host, &what));
            }
        }
        let whole = collect(&maker, response.into_body(), TOKEN_BYTES_MAX);
        let late = |_| unreached(&maker, &format!("not all within {SILENCE_MAX:?}"));
        let text = tokio::time::timeout(SILENCE_MAX, whole).await.map_err(late)??;
        let answer: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let token = ["token", "access_token"].iter().find_map(|name| answer.get(name)?.as_str());
        let value = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let mut value =
            value.ok_or_else(|| nonsense(&host, "was to give a token and gave none"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Anything but a success is a failure.
    fn judge(&self, status: StatusCode, what: &str) -> Result<(), Failure> {
        let Reference { registry, repository, .. } = &self.reference;
        match status.as_u16() {
            200 => Ok(()),
            401 | 403 => Err(self.denied(&Credentials::of(registry)?)),
            404 => {
                let version = what.rsplit('/').next().unwrap_or_default();
                let what = format!("{registry} has no {version} of {repository}");
                Err(Failure::new(Cause::NotFound, what)
                    .code("oci.unknown")
                    .fix("look at the repository, and at the tag or digest"))
            }
            429 => Err(Failure::new(Cause::Exhausted, format!("{registry} wants fewer questions"))
                .code("oci.reply")
                .fix("try again a little later, or with credentials")),
            other => Err(nonsense(registry, &format!("answered {other}"))),
        }
    }

    fn denied(&self, credentials: &Credentials) -> Failure {
        let Reference { registry, repository, .. } = &self.reference;
        let what = format!("{registry} does not let {repository} be read");
        Failure::new(Cause::Denied, what).code("oci.denied").fix(credentials.remedy(registry))
    }
}

/// An address as another one's server has it, or in full.
fn at(uri: &Uri, location: &str) -> Option<Uri> {
    let next: Uri = location.parse().ok()?;
    if next.authority().is_some() {
        return next.scheme().is_some().then_some(next);
    }
    if !location.starts_with('/') {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = next.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

/// A body of at most so many bytes.
async fn collect(host: &str, mut body: Incoming, bytes_max: u64) -> Result<Bytes, Failure> {
    let too_large = || {
        let what = format!("{host} sends more than the {} bytes it may", grouped(bytes_max));
        Failure::new(Cause::Invalid, what)
            .code("oci.size")
            .fix("nothing was pushed; the registry does not keep to what its manifest says")
    };
    if body.size_hint().lower() > bytes_max {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(unreached(host, &innermost(&error))),
            Ok(None) => return Ok(whole.freeze()),
            Err(_) => return Err(unreached(host, &format!("nothing more within {SILENCE_MAX:?}"))),
        };
        if let Ok(data) = frame.into_data() {
            if (whole.len() + data.len()) as u64 > bytes_max {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
    }
}

/// What a registry wants to see.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// The first that can be met; a token rather than a password.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let parsed = texts.iter().filter_map(|text| http_auth::parse_challenges(text).ok());
        let all: Vec<http_auth::ChallengeRef<'_>> = parsed.flatten().collect();
        let bearer = all.iter().find_map(|challenge| {
            let is_bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
            let param = |name: &str| {
                let named =
                    challenge.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                named.map(|(_, value)| value.to_unescaped())
            };
            let realm = param("realm").filter(|_| is_bearer)?;
            Some(Self::Bearer { realm, service: param("service").unwrap_or_default() })
        });
        let is_basic = |one: &http_auth::ChallengeRef<'_>| one.scheme.eq_ignore_ascii_case("basic");
        bearer.or_else(|| all.iter().any(is_basic).then_some(Self::Basic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(registry: &str) -> Reference {
        Reference::parse(&format!("oci://{registry}/a:t")).unwrap()
    }

    fn transport(plain: &[&str]) -> Transport {
        let plain_registry = plain.iter().map(|&name| name.to_owned()).collect();
        Transport::new(&RegistryArgs { plain_registry }).unwrap()
    }

    #[test]
    fn only_this_machine_and_who_is_named_is_spoken_to_without_tls() {
        let transport = transport(&["registry.lan:5000"]);
        for (registry, base) in [
            ("ghcr.io", "https://ghcr.io/"),
            ("docker.io", "https://registry-1.docker.io/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.2", "http://127.0.0.2/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("registry.lan:5000", "http://registry.lan:5000/"),
            ("registry.lan", "https://registry.lan/"),
            ("localhost.evil.io", "https://localhost.evil.io/"),
            ("127.0.0.1.evil.io", "https://127.0.0.1.evil.io/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/"),
        ] {
            let exchange = Exchange::new(&transport, &reference(registry));
            assert_eq!(exchange.base().unwrap().to_string(), base);
        }
    }

    #[test]
    fn nothing_leads_away_from_tls() {
        let transport = transport(&["plain.lan"]);
        for (registry, next, allowed) in [
            ("ghcr.io", "https://cdn.example/x", true),
            ("ghcr.io", "http://cdn.example/x", false),
            ("ghcr.io", "http://127.0.0.1:7411/x", false),
            ("ghcr.io", "http://plain.lan/x", false),
            ("ghcr.io", "ftp://cdn.example/x", false),
            ("ghcr.io", "https://u:p@cdn.example/x", false),
            ("localhost:5000", "http://127.0.0.1:9000/x", true),
            ("localhost:5000", "http://plain.lan/x", true),
            ("localhost:5000", "http://cdn.example/x", false),
            ("localhost:5000", "https://cdn.example/x", true),
        ] {
            let one = Exchange::new(&transport, &reference(registry));
            let permitted = one.permit(&one.base().unwrap(), &next.parse().unwrap(), "to");
            assert_eq!(permitted.is_ok(), allowed, "{registry} to {next}");
        }
    }

    #[test]
    fn where_it_is_sent_on_to_is_in_full_or_from_the_root() {
        let from: Uri = "https://h:1/v2/a?x=1".parse().unwrap();
        let to = |location: &str| at(&from, location).map(|uri| uri.to_string());
        assert_eq!(to("/b?c=d").as_deref(), Some("https://h:1/b?c=d"));
        assert_eq!(to("http://other/b").as_deref(), Some("http://other/b"));
        for bad in ["", "b", "//other/b", "other:80", "http://"] {
            assert_eq!(to(bad).filter(|uri| !uri.starts_with("https://h:1/")), None, "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_is_read_whatever_its_form() {
        let of = |values: &[&'static str]| {
            let values = values.iter().map(|value| HeaderValue::from_static(value));
            Challenge::of(&values.map(|value| (WWW_AUTHENTICATE, value)).collect())
        };
        let bearer = Challenge::Bearer { realm: "https://a/t".into(), service: "s, \"x\"".into() };
        let text = "Basic realm=\"x\", bearer service=\"s, \\\"x\\\"\", Realm=\"https://a/t\"";
        assert_eq!(of(&[text]), Some(bearer));
        assert_eq!(of(&["Negotiate", "Basic realm=\"x\""]), Some(Challenge::Basic));
        for none in [&["Bearer service=\"x\""][..], &["Digest realm=\"x\""], &["\"\""], &[]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
