//! A collector of traces, as a node sees one: it takes OTLP by HTTP, and can be busy, deaf or
//! choosy. What it reads is written down in `collector/messages.rs` from the published
//! definitions, and from nothing of the node's.

mod messages;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::eventually::{SOON, eventually};
use crate::node::Setup;
use messages::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue,
    ResourceSpans, Span, Value,
};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    Takes,
    /// It answers so many requests with this status, and takes what comes then.
    Busy(usize, u16),
    /// It takes connections and never answers.
    Deaf,
    /// It takes all but one span of each request.
    Choosy,
}

/// A span as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What whoever sent it says of itself.
    pub resource: BTreeMap<String, String>,
    /// The id of its trace.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// The id of the span that caused it; empty: none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its kind, as the protocol numbers them.
    pub kind: i32,
    /// When it began and ended, in nanoseconds since 1970.
    pub times: (u64, u64),
    /// What is known of it.
    pub attributes: BTreeMap<String, String>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    requests: usize,
    headers: Vec<http::HeaderMap>,
    spans: Vec<Seen>,
}

/// See the module.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Ends with it.
    _serving: JoinSet<()>,
}

impl Collector {
    /// Begins to listen.
    ///
    /// # Panics
    /// If there is no port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("it listens");
        let state = State { mood: Mood::Takes, requests: 0, headers: Vec::new(), spans: vec![] };
        let state = Arc::new(Mutex::new(state));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, _serving: serving }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A node that sends everything it follows here, soon.
    #[must_use]
    pub fn of(&self, setup: Setup) -> Setup {
        setup
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", self.address))
            .variable("OTEL_BSP_SCHEDULE_DELAY", "20")
    }

    /// Behaves so from now on.
    pub fn set(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// What came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Seen> {
        self.state.lock().unwrap().spans.clone()
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }

    /// A header of all requests.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let values = state.headers.iter().filter_map(|headers| headers.get(name));
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    /// Waits until all of these names came in a trace, each as often as it is named, and gives the
    /// spans of that trace.
    pub async fn until(&self, trace: &str, names: &[&str]) -> Vec<Seen> {
        let what = format!("{names:?} of {trace}");
        let found = eventually(&what, SOON, || async {
            let spans: Vec<Seen> =
                self.spans().into_iter().filter(|span| span.trace == trace).collect();
            let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
            let wanted = |name: &&str| names.iter().filter(|other| *other == name).count();
            names.iter().all(|name| count(name) >= wanted(name)).then_some(spans)
        });
        found.await
    }

    /// Waits until there is such a span in a trace.
    pub async fn until_seen(&self, trace: &str, wanted: impl Fn(&&Seen) -> bool) {
        eventually(&format!("a certain span of {trace}"), SOON, || async {
            let spans = self.spans();
            spans.iter().filter(|span| span.trace == trace).find(&wanted).map(drop)
        })
        .await;
    }
}

/// The first of these spans of one trace, to which all the others lead.
///
/// # Panics
/// If they do not hang together.
#[must_use]
#[track_caller]
pub fn tree(spans: &[Seen]) -> &Seen {
    let ids: BTreeMap<&str, &Seen> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(ids.len(), spans.len(), "each id once: {spans:#?}");
    let roots: Vec<&Seen> =
        spans.iter().filter(|span| !ids.contains_key(span.parent.as_str())).collect();
    assert_eq!(roots.len(), 1, "one root: {roots:#?} of {spans:#?}");
    for span in spans {
        assert!(span.times.0 > 0 && span.times.0 <= span.times.1, "{span:#?}");
        let (mut at, mut steps) = (span, 0);
        while let Some(next) = ids.get(at.parent.as_str()) {
            (at, steps) = (next, steps + 1);
            assert!(steps <= spans.len(), "no way back to the root: {span:#?}");
        }
    }
    roots[0]
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let answer = service_fn(|request| answer(request, Arc::clone(&state)));
            // Whoever goes away in the middle is not missed.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(reply(400, Vec::new())) };
    let mut body = body.to_bytes().to_vec();
    if head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
        let mut plain = Vec::new();
        let read = flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain);
        read.expect("what is said to be gzip is");
        body = plain;
    }
    let mood = {
        let mut state = state.lock().unwrap();
        state.requests += 1;
        state.headers.push(head.headers.clone());
        let mood = state.mood;
        if let Mood::Busy(times, status) = mood {
            let next = times.checked_sub(1).filter(|left| *left > 0);
            state.mood = next.map_or(Mood::Takes, |left| Mood::Busy(left, status));
        }
        mood
    };
    match mood {
        Mood::Busy(_, status) => return Ok(reply(status, Vec::new())),
        Mood::Deaf => std::future::pending().await,
        Mood::Takes | Mood::Choosy => {}
    }
    let is_for_us = head.method == "POST"
        && head.uri.path() == "/v1/traces"
        && head.headers.get("content-type").is_some_and(|kind| kind == "application/x-protobuf");
    if !is_for_us {
        return Ok(reply(404, Vec::new()));
    }
    let Ok(request) = ExportTraceServiceRequest::decode(&body[..]) else {
        return Ok(reply(400, Vec::new()));
    };
    let mut spans: Vec<Seen> = request.resource_spans.iter().flat_map(seen).collect();
    let partial_success = (mood == Mood::Choosy).then(|| {
        spans.pop();
        let error_message = "one is not wanted".to_owned();
        ExportTracePartialSuccess { rejected_spans: 1, error_message }
    });
    state.lock().unwrap().spans.append(&mut spans);
    Ok(reply(200, ExportTraceServiceResponse { partial_success }.encode_to_vec()))
}

fn reply(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    let builder = Response::builder().status(status);
    builder.body(Full::new(body.into())).expect("a good reply")
}

fn seen(of: &ResourceSpans) -> Vec<Seen> {
    let resource = of.resource.as_ref().map(|resource| texts(&resource.attributes));
    let resource = resource.unwrap_or_default();
    let spans = of.scope_spans.iter().flat_map(|scope| &scope.spans);
    spans.map(|span| see(resource.clone(), span)).collect()
}

fn see(resource: BTreeMap<String, String>, span: &Span) -> Seen {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(span.trace_id.len() == 16 && span.span_id.len() == 8, "{span:?}");
    let status = span.status.as_ref().filter(|status| status.code == 2);
    Seen {
        resource,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: span.kind,
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: texts(&span.attributes),
        error: status.map(|status| status.message.clone()),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Whole(number)) => number.to_string(),
            Some(Value::Flag(flag)) => flag.to_string(),
            other => format!("{other:?}"),
        };
        (pair.key.clone(), text)
    };
    let all: BTreeMap<String, String> = attributes.iter().map(text).collect();
    assert_eq!(all.len(), attributes.len(), "each name once: {attributes:?}");
    all
}
