//! A request and its answer.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::request::Parts;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::HOST;
use hyper::{Method, Request, Response, Uri};
use sluicebox_core::pipeline::HttpGrant;
use sluicebox_engine::http::{Answering, Body, Http, Refused};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::body::{Arriving, Leaving, failed};
use super::connect::{NotConnected, look_up, open, secure};
use super::idle::{Connection, IDLE_MAX, Idle, Turn};
use super::reach::Reach;
use super::target::Target;
use super::{Share, Trust};
use crate::metrics::{PipelineMetrics, StageMetrics};

/// Requests that wait for those under way, for each of them; who would be one more is refused.
const WAITING_FOR_EACH: usize = 4;

/// Longest path with its query.
const PATH_BYTES_MAX: usize = 16 * 1024;

/// What a stage has of requests to the outside, in all its instances.
#[derive(Debug)]
pub(super) struct Stage {
    handle: Handle,
    grant: HttpGrant,
    reach: Reach,
    trust: Trust,
    permits: Arc<Semaphore>,
    /// Connections of the stage, and of all tenants.
    connections: [Arc<Semaphore>; 2],
    share: Arc<Share>,
    /// Requests that are under way or wait.
    present: Arc<AtomicUsize>,
    idle: Idle,
    figures: Arc<StageMetrics>,
    /// So that they are there for as long as they are counted in.
    _pipeline: Arc<PipelineMetrics>,
}

impl Stage {
    pub(super) fn new(
        (handle, node, share): (Handle, Arc<Semaphore>, Arc<Share>),
        (reach, trust): (Reach, Trust),
        grant: &HttpGrant,
        (pipeline, figures): (Arc<PipelineMetrics>, Arc<StageMetrics>),
    ) -> Self {
        let most = usize::from(grant.in_flight) + IDLE_MAX;
        Self {
            handle,
            grant: grant.clone(),
            reach,
            trust,
            permits: Arc::new(Semaphore::new(grant.in_flight.into())),
            connections: [Arc::new(Semaphore::new(most)), node],
            share,
            present: Arc::default(),
            idle: Idle::default(),
            figures,
            _pipeline: pipeline,
        }
    }

    /// A place among those that are under way or wait.
    fn enter(&self) -> Result<Present, Refused> {
        let most = usize::from(self.grant.in_flight) * (1 + WAITING_FOR_EACH);
        if self.present.fetch_add(1, Ordering::Relaxed) >= most {
            self.present.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::TooMany);
        }
        Ok(Present(self.present.clone()))
    }

    async fn exchange(
        self: Arc<Self>,
        (target, request): (Target, Request<Body>),
        until: tokio::time::Instant,
    ) -> Result<Response<Body>, Refused> {
        let present = self.enter()?;
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Refused::TooMany)?;
        let place = Place { _permit: permit, _present: present };
        let is_over = Arc::new(AtomicBool::new(false));
        let request = request.map(|body| {
            let bytes_max = self.grant.request_bytes;
            Leaving::new(body, bytes_max, is_over.clone(), self.figures.clone())
        });
        let sent = self.send(&target, request).await;
        let (connection, response) = match sent {
            Err(_) if is_over.load(Ordering::Relaxed) => return Err(Refused::RequestTooLarge),
            sent => sent?,
        };
        let bytes_max = self.grant.response_bytes;
        let (parts, body) = response.into_parts();
        let under_way = UnderWay::new(&self.handle, (place, connection.turn()), until);
        let body = Arriving::new(body, bytes_max, until, (self.figures.clone(), under_way))?;
        self.idle.put(connection);
        Ok(Response::from_parts(parts, body.boxed_unsync()))
    }

    /// By a connection that waits for it, or a new one.
    async fn send(
        &self,
        target: &Target,
        mut request: Request<Leaving>,
    ) -> Result<(Connection, Response<Incoming>), Refused> {
        while let Some(mut connection) = self.idle.take(target) {
            let again = again(&request);
            let waiting = Unanswered::new(&connection);
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    waiting.answered();
                    return Ok((connection, response));
                }
                // The other end gave the connection up as it was taken.
                Err(mut error) => match (error.take_message(), again) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(parts)) if has_ended(error.error()) => {
                        request =
                            Request::from_parts(parts, Leaving::nothing(self.figures.clone()));
                    }
                    (None, _) => return Err(failed(error.error())),
                },
            }
        }
        let mut connection = self.connect(target).await?;
        let waiting = Unanswered::new(&connection);
        let response = connection.sender.send_request(request).await;
        let response = response.map_err(|error| failed(&error))?;
        waiting.answered();
        Ok((connection, response))
    }

    /// Connects to where a request goes.
    async fn connect(&self, target: &Target) -> Result<Connection, Refused> {
        let permits = self.permits_to_connect().await?;
        let found = match target.address() {
            Some(address) => vec![address],
            None => {
                let one = self.share.lookups.clone().acquire_owned().await;
                let looking = look_up(one.map_err(|_| Refused::TooMany)?, target.clone());
                let found = self.handle.spawn(looking).await.map_err(|_| Refused::Ended)?;
                found.map_err(|error| refused(&error))?
            }
        };
        let stream = open(&found, &self.reach).await.map_err(|error| refused(&error))?;
        if !target.by_tls {
            return Connection::begin(&self.handle, target.clone(), stream, permits).await;
        }
        let Trust(Some(trust)) = &self.trust else { return Err(Refused::Certificate) };
        let stream = secure(stream, target, trust).await.map_err(|error| refused(&error))?;
        Connection::begin(&self.handle, target.clone(), stream, permits).await
    }

    /// The right to one more connection: of the stage, which waits for it, of its tenant, and of
    /// the node.
    async fn permits_to_connect(&self) -> Result<[OwnedSemaphorePermit; 3], Refused> {
        let [stage, node] = &self.connections;
        if stage.available_permits() == 0 {
            self.idle.make_room();
        }
        let stage = stage.clone().acquire_owned().await.map_err(|_| Refused::TooMany)?;
        let now = |of: &Arc<Semaphore>| of.clone().try_acquire_owned();
        let tenant = now(&self.share.connections).map_err(|_| Refused::TooMany)?;
        let node = now(node).map_err(|_| Refused::TooMany)?;
        Ok([stage, tenant, node])
    }

    fn count<T>(&self, outcome: &Result<T, Refused>) {
        let word = match outcome {
            Ok(_) => "answered",
            Err(refused) => word(refused),
        };
        self.figures.http_requests.add(word, 1);
    }
}

/// Ends the connection of a request that nobody waits for any more.
struct Unanswered(Option<Turn>);

impl Unanswered {
    fn new(connection: &Connection) -> Self {
        Self(Some(connection.turn()))
    }

    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(turn) = &self.0 {
            turn.end();
        }
    }
}

/// A request that is under way or waits.
#[derive(Debug)]
struct Present(Arc<AtomicUsize>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of a request that is under way.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _present: Present,
}

/// Keeps a place until it is dropped, or the request's time is over. A guest may forget the body:
/// then its connection ends, so that it is nobody's for no longer than that.
#[derive(Debug)]
pub(super) struct UnderWay(JoinHandle<()>);

impl UnderWay {
    fn new(handle: &Handle, (place, turn): (Place, Turn), until: tokio::time::Instant) -> Self {
        Self(handle.spawn(async move {
            let _place = place;
            tokio::time::sleep_until(until).await;
            turn.end();
        }))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A stage as the engine has it.
#[derive(Debug)]
pub(super) struct Granted(pub(super) Arc<Stage>);

impl Http for Granted {
    fn send(&self, request: Request<Body>, until: Instant) -> Answering {
        let stage = self.0.clone();
        let said = (request.uri(), request.method());
        let addressed = addressed(said, &stage.grant, &stage.reach)
            .and_then(|target| Ok((at(&target, request)?, target)));
        let (request, target) = match addressed {
            Ok(addressed) => addressed,
            Err(refused) => {
                stage.count::<()>(&Err(refused.clone()));
                return Box::pin(ready(Err(refused)));
            }
        };
        let until = tokio::time::Instant::from_std(until);
        let handle = stage.handle.clone();
        let work = handle.spawn(async move {
            let exchanged = stage.clone().exchange((target, request), until);
            let outcome = timeout_at(until, exchanged).await.unwrap_or(Err(Refused::Late));
            stage.count(&outcome);
            outcome
        });
        let mut work = Work(work);
        // A panic of ours, or the node ends.
        Box::pin(async move { (&mut work.0).await.unwrap_or(Err(Refused::Ended)) })
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(self.0.grant.deadline_ms)
    }
}

/// Ends what it stands for when it is dropped.
struct Work(JoinHandle<Result<Response<Body>, Refused>>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a request goes that the stage may make. Who it belongs to is looked at too: what the
/// operator allows may be less than it was when the manifest was applied.
fn addressed(
    (request, method): (&Uri, &Method),
    grant: &HttpGrant,
    reach: &Reach,
) -> Result<Target, Refused> {
    let target = Target::of(request).map_err(Refused::Invalid)?;
    if *method == Method::CONNECT {
        return Err(Refused::Invalid("has a method that asks for a tunnel"));
    }
    let Target { by_tls, host, port } = &target;
    let listed = grant.allow.iter().any(|origin| origin.allows(*by_tls, host, *port));
    if listed && reach.has(host, *port) { Ok(target) } else { Err(Refused::Denied) }
}

/// The request as it is said to a target: its path alone, and the host in a header.
fn at(target: &Target, mut request: Request<Body>) -> Result<Request<Body>, Refused> {
    let host = target.authority().ok_or(Refused::Invalid("has a host that cannot be said"))?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if path.len() > PATH_BYTES_MAX {
        return Err(Refused::Invalid("has a path that is too long"));
    }
    *request.uri_mut() = path.parse().map_err(|_| Refused::Invalid("has a path that is none"))?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// What it takes to make a request again that may have come: one that means the same twice, and
/// has no body that went with the first.
fn again(request: &Request<Leaving>) -> Option<Parts> {
    let may = request.method().is_idempotent() && request.body().is_end_stream();
    may.then(|| {
        let mut copy = Request::new(());
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        copy.headers_mut().clone_from(request.headers());
        copy.into_parts().0
    })
}

/// Whether a connection ended before anything of an answer.
fn has_ended(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

/// Why there is no connection, as it is told.
fn refused(error: &NotConnected) -> Refused {
    tracing::debug!(%error, "a stage is not connected");
    match error {
        NotConnected::NotFound(_) | NotConnected::NoAddress => Refused::NotFound,
        NotConnected::Prohibited(_) => Refused::Prohibited,
        NotConnected::Refused(_) | NotConnected::Late => Refused::Unreachable,
        NotConnected::Tls(_) if error.is_certificate() => Refused::Certificate,
        NotConnected::Tls(_) => Refused::Tls,
    }
}

/// How an outcome is counted.
fn word(refused: &Refused) -> &'static str {
    match refused {
        Refused::Denied => "denied",
        Refused::Invalid(_) => "invalid",
        Refused::NotFound => "not-found",
        Refused::Prohibited => "prohibited",
        Refused::Unreachable => "unreachable",
        Refused::Certificate => "certificate",
        Refused::Tls => "tls",
        Refused::TooMany => "too-many",
        Refused::Late => "late",
        Refused::RequestTooLarge => "request-too-large",
        Refused::HeadTooLarge => "head-too-large",
        Refused::ResponseTooLarge => "response-too-large",
        Refused::Ended => "ended",
        Refused::Protocol => "protocol",
        Refused::GivenUp => "given-up",
        Refused::NoRoom => "no-room",
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::ids::Name;
    use sluicebox_core::origin::Origin;

    use super::*;
    use crate::config::{Config, Sources};

    fn target(uri: &str) -> Result<Target, Refused> {
        let allow = ["https://*.example.com", "http://127.0.0.1:8080", "http://[::1]"];
        let grant = HttpGrant {
            allow: allow.into_iter().filter_map(Origin::parse).collect(),
            in_flight: 1,
            deadline_ms: 1,
            request_bytes: 0,
            response_bytes: 0,
        };
        let mut sources = Sources::default();
        let hosts = "*.example.com,127.0.0.1,[::1],t=other.test,u=x.example.com";
        sources.flag("--x", "connectors.hosts", hosts);
        let config = Config::load(&sources).expect("a good configuration").config.connectors;
        let reach = Reach::new(&config, &Name::new("t").expect("a name"), false);
        addressed((&uri.parse().expect("a URI"), &Method::GET), &grant, &reach)
    }

    #[test]
    fn a_request_goes_where_it_may_and_nowhere_near() {
        assert!(target("https://API.Example.com/x?y").is_ok());
        assert!(target("https://api.example.com.:443/").is_ok());
        assert!(target("http://127.0.0.1:8080/").is_ok());
        assert_eq!(target("http://[::1]/").expect("allowed").host, "::1");
        for denied in [
            "http://api.example.com/",
            "https://example.com/",
            "https://api.example.com:8443/",
            "https://api.example.com.evil.test/",
            "http://127.0.0.1/",
            // The operator allows it, and the manifest does not list it.
            "https://other.test/",
        ] {
            assert_eq!(target(denied), Err(Refused::Denied), "{denied}");
        }
        for invalid in [
            "http://127.1:8080/",
            "https://api.example.com@evil.test/",
            "https://evil.test:1@api.example.com/",
            "https://api.example.com:99999/",
        ] {
            let found = target(invalid);
            assert!(matches!(found, Err(Refused::Invalid(_))), "{invalid}: {found:?}");
        }
    }

    #[test]
    fn what_the_operator_no_longer_allows_is_denied() {
        let listed = Origin::parse("https://api.example.com").expect("an origin");
        let grant = HttpGrant {
            allow: vec![listed],
            in_flight: 1,
            deadline_ms: 1,
            request_bytes: 0,
            response_bytes: 0,
        };
        let reach = Reach::new(&Config::default().connectors, &Name::new("t").unwrap(), false);
        let uri = "https://api.example.com/".parse().unwrap();
        assert_eq!(addressed((&uri, &Method::GET), &grant, &reach), Err(Refused::Denied));
    }

    #[test]
    fn only_what_means_the_same_twice_is_made_again() {
        let request = |method: Method, body: Leaving| {
            let mut request = Request::new(body);
            *request.method_mut() = method;
            request
        };
        let nothing = || Leaving::nothing(Arc::default());
        assert!(again(&request(Method::GET, nothing())).is_some());
        assert!(again(&request(Method::DELETE, nothing())).is_some());
        assert!(again(&request(Method::POST, nothing())).is_none());
        let text = http_body_util::Full::new(bytes::Bytes::from_static(b"x"));
        let text: Body = text.map_err(|never| match never {}).boxed_unsync();
        let text = Leaving::new(text, 1, Arc::default(), Arc::default());
        assert!(again(&request(Method::PUT, text)).is_none());
    }
}
