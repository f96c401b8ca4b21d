//! The edge of a real node, spoken to byte by byte: who is let in, and what bad clients get.
//!
//! What needs a pipeline is tested through the program, in `tests/`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;
use tempfile::TempDir;

use crate::config::{Config, Sources};
use crate::tenants::{Edit, Scope, Scopes};
use crate::{Node, RunningNode};

/// A node with one worker and little patience.
struct Edge {
    node: RunningNode,
    _dir: TempDir,
}

impl Edge {
    fn start(prepare: impl FnOnce(&std::path::Path), settings: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let tenants = dir.path().join("tenants.toml");
        prepare(&tenants);
        let mut sources = Sources::default();
        sources.flag("test", "node.data-dir", dir.path().join("data").display());
        sources.flag("test", "node.tenants-file", tenants.display());
        sources.flag("test", "node.workers", 1);
        sources.flag("test", "engine.instances", 10);
        sources.flag("test", "http.listen", "127.0.0.1:0");
        settings.iter().for_each(|(field, value)| sources.flag("test", field, value));
        let config = Config::load(&sources).expect("good settings").config;
        let node = Node::start_with(config, PathBuf::from("no-compiler")).expect("a node");
        Self { node, _dir: dir }
    }

    fn dev(settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings.iter().copied().chain([("node.dev", "true")]).collect();
        Self::start(|_| {}, &settings)
    }

    fn address(&self) -> SocketAddr {
        self.node.address()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("the node listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    }

    /// Sends bytes and reads until the node closes.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The node may close before it has read everything.
        let _sent = stream.write_all(request);
        let mut reply = Vec::new();
        let _read = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// One request on a connection of its own.
    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text.push_str("host: localhost\r\n");
        }
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        Reply::of(&self.exchange(text.as_bytes()))
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Status and stable code.
    fn outcome(&self) -> (u16, String) {
        let value: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert!(self.status < 400 || value["status"] == self.status, "{self:?}");
        (self.status, value["code"].as_str().unwrap_or_default().to_owned())
    }
}

fn is(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.outcome(), (status, code.to_owned()), "{reply:?}");
}

const EVENTS: &str = "/v1/tenants/dev/pipelines/p/events";

#[test]
fn a_node_in_development_answers_this_machine_only() {
    let edge = Edge::dev(&[]);
    let components = "/v1/tenants/dev/components";
    assert_eq!(edge.request("GET", components, &[]).status, 200);
    is(&edge.request("GET", components, &[("host", "evil.example")]), 403, "auth.foreign-site");
    let page = [("origin", "http://evil.example")];
    is(&edge.request("POST", EVENTS, &page), 403, "auth.foreign-site");
    is(&edge.request("GET", "/metrics", &page), 403, "auth.foreign-site");
    is(&edge.request("GET", "/v1/tenants/other/components", &[]), 404, "tenant.unknown");
}

#[test]
fn what_is_not_there_is_said_in_the_same_form_everywhere() {
    let edge = Edge::dev(&[]);
    let tenant = "/v1/tenants/dev";
    for (method, path, status, code) in [
        ("GET", "/", 404, "route.unknown"),
        ("GET", "/v1/tenants/dev/nothing", 404, "route.unknown"),
        ("POST", "/healthz", 405, "request.method"),
        ("POST", EVENTS, 404, "pipeline.unknown"),
        ("GET", EVENTS, 405, "request.method"),
        ("GET", "/v1/tenants/dev/pipelines/p/outputs/o", 404, "pipeline.unknown"),
        ("POST", "/v1/tenants/dev/pipelines/p/dead-letters", 405, "request.method"),
        ("GET", "/v1/tenants/dev/pipelines/P%2F", 404, "pipeline.unknown"),
        ("DELETE", "/v1/tenants/dev/components/none", 404, "component.unknown"),
        ("PATCH", "/v1/tenants/dev/pipelines", 405, "request.method"),
        ("PUT", "/v1/tenants/dev/components/Bad", 400, "name.invalid"),
        ("PUT", "/v1/tenants/dev/pipelines/p?dryrun=1", 400, "request.query"),
    ] {
        let reply = edge.request(method, path, &[("content-length", "0")]);
        is(&reply, status, code);
        assert!(reply.head.contains("content-type: application/problem+json"), "{reply:?}");
        assert_eq!(reply.head.contains("\nallow: "), status == 405, "{reply:?}");
    }
    let upload = format!("{tenant}/components/c");
    is(&edge.request("PUT", &upload, &[("content-length", "999999999")]), 413, "request.too-large");
    assert_eq!(edge.request("GET", "/healthz", &[("host", "any")]).body, "ok\n");
    assert_eq!(edge.request("GET", "/readyz", &[]).status, 200);
    let metrics = edge.request("GET", "/metrics", &[]);
    assert!(metrics.body.contains("sluicebox_connections{} 1\n"), "{metrics:?}");
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

#[test]
fn tokens_open_their_own_tenant_within_their_scopes() {
    let mut tokens = Vec::new();
    let edge = Edge::start(
        |path| {
            let mut edit = Edit::open(path).expect("a new file");
            for tenant in ["one", "two"] {
                edit.add(&name(tenant)).expect("a new tenant");
            }
            edit.set_quota(&name("two"), Resource::Connections, Some(1)).expect("a quota");
            let now = SystemTime::now();
            let reader = Scopes::parse("read").expect("a scope");
            let admin = Scopes::parse(Scope::Admin.as_str()).expect("a scope");
            for (tenant, scopes) in
                [("one", Scopes::TENANT), ("one", reader), ("one", admin), ("two", Scopes::TENANT)]
            {
                let made = edit.add_token(&name(tenant), None, scopes, now);
                tokens.push(format!("Bearer {}", made.expect("a token").1.reveal()));
            }
            edit.commit().expect("the file is written");
        },
        &[],
    );
    let [all, reader, admin, other] = tokens.try_into().expect("four tokens");
    let get = |token: &str, path: &str| edge.request("GET", path, &[("authorization", token)]);
    let components = "/v1/tenants/one/components";
    assert_eq!(get(&all, components).status, 200);
    assert_eq!(get(&reader, components).status, 200);
    let missing = edge.request("GET", components, &[]);
    is(&missing, 401, "auth.token");
    assert!(missing.head.contains("www-authenticate: bearer"), "{missing:?}");
    for wrong in [format!("{all}x"), "Bearer nonsense".to_owned(), all.replace("Bearer", "Basic")] {
        is(&get(&wrong, components), 401, "auth.token");
    }
    is(&get(&other, components), 404, "tenant.unknown");
    is(&get(&other, "/v1/tenants/nobody/components"), 404, "tenant.unknown");
    let post = |token: &str| {
        let headers = [("authorization", token), ("content-length", "0")];
        edge.request("POST", "/v1/tenants/one/pipelines/p/events", &headers)
    };
    is(&post(&reader), 403, "auth.scope");
    is(&post(&all), 404, "pipeline.unknown");
    is(&get(&admin, components), 403, "auth.scope");
    let from_outside = [("host", "node.example"), ("authorization", admin.as_str())];
    assert_eq!(edge.request("GET", "/metrics", &from_outside).status, 200);
    let from_outside = [("host", "node.example"), ("authorization", all.as_str())];
    is(&edge.request("GET", "/metrics", &from_outside), 403, "auth.scope");
    is(&edge.request("GET", "/metrics", &[("host", "node.example")]), 401, "auth.token");
    // The tenant's one connection stays open; a second one finds the quota used up.
    let mut held = edge.connect();
    let text = format!(
        "GET /v1/tenants/two/components HTTP/1.1\r\nhost: x\r\nauthorization: {other}\r\n\r\n"
    );
    held.write_all(text.as_bytes()).expect("sent");
    let mut start = [0; 12];
    held.read_exact(&mut start).expect("a reply");
    assert_eq!(&start, b"HTTP/1.1 200");
    is(&get(&other, "/v1/tenants/two/components"), 429, "quota.exhausted");
    drop(held);
}

#[test]
fn bad_clients_end_without_harm() {
    let settings = [
        ("http.header-time-max", "300ms"),
        ("http.idle-time-max", "600ms"),
        ("http.body-bytes-max", "64KiB"),
    ];
    let edge = Edge::dev(&settings);
    let status = |text: &str| Reply::of(&edge.exchange(text.as_bytes())).status;
    let long = "x".repeat(20_000);
    assert_eq!(
        status(&format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n")),
        431
    );
    let many = "x: y\r\n".repeat(200);
    assert_eq!(status(&format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n")), 431);
    assert_eq!(status("\0\u{1}\u{2} nonsense\r\n\r\n"), 400);
    let lengths = "content-length: 1\r\ncontent-length: 2\r\n";
    assert_eq!(
        status(&format!("POST {EVENTS} HTTP/1.1\r\nhost: localhost\r\n{lengths}\r\nab")),
        400
    );
    // Says nothing; says half a head; says it drop by drop; says nothing more.
    let begun = Instant::now();
    assert_eq!(edge.exchange(b""), "");
    assert_eq!(edge.exchange(b"GET /healthz HT"), "");
    let mut dripping = edge.connect();
    let ended = (0..100).find(|_| {
        std::thread::sleep(Duration::from_millis(20));
        dripping.write_all(b"x").is_err()
    });
    assert!(ended.is_some(), "a head that drips was read for two seconds");
    let idle = edge.exchange(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(idle.ends_with("ok\n"), "{idle}");
    assert!(begun.elapsed() < Duration::from_secs(8), "took {:?}", begun.elapsed());
    let metrics = edge.request("GET", "/metrics", &[]).body;
    for line in [
        "sluicebox_connections_closed_total{reason=\"idle\"} 1",
        "sluicebox_connections_closed_total{reason=\"slow-headers\"} 3",
        "sluicebox_body_bytes{} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in:\n{metrics}");
    }
}

#[test]
fn draining_closes_idle_connections_and_takes_no_new_ones() {
    let edge = Edge::dev(&[]);
    let mut idle = edge.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let mut start = [0; 12];
    idle.read_exact(&mut start).expect("a reply");
    let address = edge.address();
    let Edge { node, _dir } = edge;
    let begun = Instant::now();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(node.drain(Duration::from_secs(20)));
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("closed in order");
    assert!(TcpStream::connect(address).is_err());
}
