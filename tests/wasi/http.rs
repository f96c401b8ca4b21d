//! `wasi:http`: where requests go and where they do not, and what they may take.

use std::time::{Duration, Instant};

use sluicebox_tests::client::Client;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};
use sluicebox_tests::tls;
use tokio::task::LocalSet;

use super::server::Server;

const HTTP: &str = "http";

/// What a stage says that may make requests to these.
fn grant(allow: &[&str], more: &str) -> String {
    format!("retries = 0\ngrants = {{ http = {{ allow = {allow:?}{more} }} }}")
}

/// A node with the guest, which may make requests to the server.
struct Bed {
    _node: Node,
    client: Client,
    server: Server,
}

impl Bed {
    async fn new(setup: Setup, more: &str) -> Self {
        let server = Server::start().await;
        let node = setup.start().await;
        let client = node.client();
        client.push(HTTP).await;
        let manifest = single(HTTP, HTTP, &grant(&[&server.origin()], more));
        client.apply(HTTP, manifest).await;
        Self { _node: node, client, server }
    }

    async fn say(&self, command: &str, path: &str, more: &str) -> String {
        let command = format!("{command} {}{path}{more}", self.server.origin());
        say(&self.client, &command).await
    }
}

async fn say(client: &Client, command: &str) -> String {
    client.call(HTTP, "k", command.to_owned()).await.is(200).text().to_owned()
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_component_that_makes_requests_needs_the_grant() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(HTTP).await;
    let reply = client.put("pipelines/http", single(HTTP, HTTP, "")).await;
    let problem = reply.problem(400, "manifest.invalid");
    assert_eq!(problem["problems"][0]["field"], "stages.stage-0.grants.http");
    assert_eq!(problem["problems"][0]["code"], "pipeline.no-grant");
}

#[tokio::test]
async fn what_the_operator_did_not_allow_is_refused_when_it_is_applied() {
    let refused = async |client: Client, allow: &[&str]| {
        client.push(HTTP).await;
        let reply = client.put("pipelines/http", single(HTTP, HTTP, &grant(allow, ""))).await;
        let problem = reply.problem(400, "manifest.invalid");
        let problems = problem["problems"].as_array().expect("a list").clone();
        assert_eq!(problems.len(), 1, "{problem:#}");
        let text = |name: &str| problems[0][name].as_str().expect("text").to_owned();
        assert_eq!(text("code"), "connector.host");
        (text("field"), text("fix"))
    };
    let hosts = "a=api.example.com:443,a=*.example.net";
    let node = Setup::tenants(&["a", "b"])
        .set("connectors.hosts", hosts)
        .set_unless_set("isolation.processes", "false")
        .start()
        .await;
    let a = node.tenant("a");
    a.push(HTTP).await;
    let all = ["https://api.example.com", "http://*.example.net:8080", "https://x.example.net"];
    a.apply(HTTP, single(HTTP, HTTP, &grant(&all, ""))).await;
    for more in [
        "http://api.example.com",
        "https://api.example.com:8443",
        "https://*.api.example.com",
        "https://example.net",
        "http://127.0.0.1",
        "http://localhost",
    ] {
        let (field, fix) = refused(node.tenant("a"), &["https://api.example.com", more]).await;
        assert_eq!(field, "stages.stage-0.grants.http.allow[1]", "{more}");
        assert!(fix.contains("connectors.hosts"), "{fix}");
    }
    // What one tenant may reach, another may not.
    let (field, _) = refused(node.tenant("b"), &["https://api.example.com"]).await;
    assert_eq!(field, "stages.stage-0.grants.http.allow[0]");
    // Nothing is allowed in the process of a tenant, and it is said why.
    let apart = Setup::tenants(&["a"])
        .set("connectors.hosts", hosts)
        .set("isolation.processes", "true")
        .start()
        .await;
    let (_, fix) = refused(apart.tenant("a"), &["https://api.example.com"]).await;
    assert!(fix.contains("a process of its own"), "{fix}");
}

#[tokio::test]
async fn requests_go_where_they_may_by_connections_that_are_used_again() {
    run(async {
        let bed = Bed::new(Setup::dev(), "").await;
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
        let headers = [("sluicebox-key", "k"), ("sluicebox-id", "order-7")];
        let command = format!("post {}/echo text", bed.server.origin());
        let reply = bed.client.send(HTTP, "?wait=20s", &headers, command).await.is(200);
        let host = bed.server.origin().replace("http://", "");
        assert_eq!(reply.text(), format!("200 POST {host} order-7 text"));
        for _ in 0..5 {
            assert_eq!(bed.say("upload", "/count", " 300000").await, "200 300000");
        }
        assert_eq!(bed.server.connections(), 1, "one connection did for all of them");
        let metrics = bed.client.plain("/metrics").await;
        let line = |name: &str| {
            let found = metrics.text().lines().find(|line| line.starts_with(name));
            found.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
        };
        assert!(line("sluicebox_stage_http_sent_bytes_total") >= 1_500_000);
        assert!(line("sluicebox_stage_http_received_bytes_total") > 0);
        assert_eq!(line("sluicebox_stage_http_requests_total"), 7);
    })
    .await;
}

#[tokio::test]
async fn requests_go_nowhere_else() {
    run(async {
        let bed = Bed::new(Setup::dev(), "").await;
        let other = Server::start().await;
        for denied in [
            format!("get {}/hello", other.origin()),
            format!("get http://localhost:{}/hello", bed.server.port()),
            format!("get https://127.0.0.1:{}/hello", bed.server.port()),
            format!("get http://127.0.0.2:{}/hello", bed.server.port()),
            "get http://127.0.0.1/hello".to_owned(),
            "get https://example.com/".to_owned(),
        ] {
            assert_eq!(say(&bed.client, &denied).await, "HttpRequestDenied", "{denied}");
        }
        let user = format!("get http://127.0.0.1:{}@{}/", bed.server.port(), other.port());
        let user = say(&bed.client, &user).await;
        assert!(["HttpRequestUriInvalid", "HttpRequestDenied"].contains(&&*user), "{user}");
        assert_eq!(other.requests("/hello") + other.connections(), 0);
        // Where a server sends its callers to is an answer, and nothing more.
        assert_eq!(bed.say("get", "/redirect", "").await, "302 elsewhere");
        assert_eq!(bed.server.requests("/hello"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_name_or_an_address_of_this_machine_or_network_is_refused() {
    run(async {
        let server = Server::start().await;
        // Not in development mode: there this machine may be reached. The names are allowed, and
        // what they lead to is not.
        let port = server.port();
        let hosts = "localhost,127.0.0.1,[::1],169.254.169.254,10.0.0.1";
        let names = [
            format!("http://localhost:{port}"),
            format!("http://127.0.0.1:{port}"),
            format!("http://[::1]:{port}"),
            "http://169.254.169.254".to_owned(),
            "http://10.0.0.1".to_owned(),
        ];
        let allow: Vec<&str> = names.iter().map(String::as_str).collect();
        let setup = || {
            let setup = Setup::tenants(&["acme"]).set("connectors.hosts", hosts);
            setup.set_unless_set("isolation.processes", "false")
        };
        let node = setup().start().await;
        let client = node.tenant("acme");
        client.push(HTTP).await;
        client.apply(HTTP, single(HTTP, HTTP, &grant(&allow, ""))).await;
        for name in &names {
            let answer = say(&client, &format!("get {name}/hello")).await;
            assert_eq!(answer, "DestinationIpProhibited", "{name}");
        }
        assert_eq!(server.connections(), 0);
        drop(node);
        // The operator allows what is needed, and no more.
        let node = setup().set("connectors.networks", "127.0.0.0/8,::1").start().await;
        let client = node.tenant("acme");
        client.push(HTTP).await;
        client.apply(HTTP, single(HTTP, HTTP, &grant(&allow, ""))).await;
        assert_eq!(say(&client, &format!("get {}/hello", names[0])).await, "200 hello");
        assert_eq!(say(&client, &format!("get {}/hello", names[1])).await, "200 hello");
        assert_eq!(say(&client, "get http://10.0.0.1/hello").await, "DestinationIpProhibited");
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_cut_both_ways() {
    run(async {
        let bounds = ", request-bytes = \"100kB\", response-bytes = \"99kB\"";
        let bed = Bed::new(Setup::dev(), bounds).await;
        assert_eq!(bed.say("upload", "/count", " 100000").await, "200 100000");
        assert_eq!(bed.say("upload", "/count", " 100001").await, "HttpRequestBodySize");
        assert_eq!(bed.say("read", "/known", "").await, "HttpResponseBodySize");
        let big = bed.say("read", "/big", "").await;
        let (read, end) = big.split_once(" then ").expect("it was cut");
        assert_eq!(end, "HttpResponseBodySize");
        let read: usize = read.trim_start_matches("read ").parse().expect("a number");
        assert!(read <= 99_000, "{read}");
        assert_eq!(bed.say("get", "/heads", "").await, "HttpResponseHeaderSectionSize");
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
    })
    .await;
}

#[tokio::test]
async fn a_slow_server_ends_at_the_deadline_and_slows_nobody_else() {
    run(async {
        let server = Server::start().await;
        let setup = Setup::tenants(&["slow", "quick"])
            .set("connectors.hosts", "slow=127.0.0.1")
            .set("connectors.networks", "127.0.0.0/8");
        // One thread for all of it.
        let node = setup.set("node.workers", "1").set_unless_set("isolation.processes", "false");
        let node = node.start().await;
        let (slow, quick) = (node.tenant("slow"), node.tenant("quick"));
        slow.push(HTTP).await;
        let origin = server.origin();
        let more = grant(&[&origin], ", deadline = \"1s\"");
        slow.apply(HTTP, single(HTTP, HTTP, &more)).await;
        quick.push("conformance-rust").await;
        quick.apply("echo", single("echo", "conformance-rust", "")).await;
        let waits = async {
            let began = Instant::now();
            let never = say(&slow, &format!("get {origin}/never")).await;
            assert_eq!(never, "HttpResponseTimeout");
            let drip = say(&slow, &format!("read {origin}/drip")).await;
            assert!(
                drip.starts_with("read ") && drip.ends_with(" then HttpResponseTimeout"),
                "{drip}"
            );
            let took = began.elapsed();
            assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
        };
        let goes_on = async {
            let (began, mut calls) = (Instant::now(), 0_u32);
            while began.elapsed() < Duration::from_millis(1_500) {
                let call = Instant::now();
                assert_eq!(quick.call("echo", "k", "ex").await.text(), "x");
                assert!(call.elapsed() < Duration::from_millis(500), "{:?}", call.elapsed());
                calls += 1;
            }
            assert!(calls > 50, "{calls} calls beside one that waits");
        };
        tokio::join!(waits, goes_on);
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_requests_at_once_are_few_at_once() {
    run(async {
        let bed = Bed::new(Setup::dev(), ", in-flight = 4").await;
        let answer = bed.say("flood", "/brief", " 100").await;
        let good: usize = answer.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
        // Those under way, and those that wait for them.
        assert!((4..=20).contains(&good), "{answer}");
        assert!(answer.contains(&format!("ConnectionLimitReached {}", 100 - good)), "{answer}");
        assert!(bed.server.most() <= 4, "{} at once", bed.server.most());
        // More than an instance has handles for, or fuel: the call traps, and the next one finds
        // another.
        let command = format!("flood {}/brief 10000", bed.server.origin());
        let headers = [("sluicebox-key", "k")];
        bed.client.send(HTTP, "", &headers, command).await.is(202);
        let dead = bed.client.records(HTTP, "dead-letters", 1).await;
        let why = dead[0].to_string();
        assert!(why.contains("resource table") || why.contains("out of fuel"), "{why}");
        assert!(bed.server.most() <= 4, "{} at once", bed.server.most());
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
        assert!(bed.server.connections() <= 30, "{}", bed.server.connections());
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_forgotten_keep_nobody_waiting_for_long() {
    run(async {
        let bed = Bed::new(Setup::dev(), ", in-flight = 1, deadline = \"500ms\"").await;
        assert_eq!(bed.say("hold", "/big", "").await, "200");
        // It waits until the time of the other is over, and may have some of its own left.
        let second = bed.say("get", "/hello", "").await;
        assert!(["HttpResponseTimeout", "200 hello"].contains(&&*second), "{second}");
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_answer_is_refused_and_harms_nobody() {
    run(async {
        let bed = Bed::new(Setup::dev(), ", deadline = \"2s\"").await;
        let long = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1_000));
        let sized = |length: &str, body: &str| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
        for (raw, answer) in [
            (String::new(), "ConnectionTerminated"),
            ("\0\u{1}\u{2} what is this\r\n\r\n".to_owned(), "HttpProtocolError"),
            ("HTTP/1.1 OK 200\r\n\r\n".to_owned(), "HttpProtocolError"),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(), "HttpProtocolError"),
            (sized("5\r\ncontent-length: 6", "hello"), "HttpProtocolError"),
            (sized("-1", ""), "HttpProtocolError"),
            (long, "HttpResponseHeaderSectionSize"),
            // What breaks off in the middle has begun well.
            (sized("10", "hello"), "read 5 then ConnectionTerminated"),
            (chunks.to_owned(), "read 5 then ConnectionTerminated"),
            (sized("5", "hello and more"), "read 5"),
        ] {
            bed.server.say_raw(&raw);
            assert_eq!(bed.say("read", "/raw", "").await, answer, "{raw:?}");
            // The next request has a good connection.
            assert_eq!(bed.say("get", "/hello", "").await, "200 hello", "{raw:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_before_anybody_is_asked() {
    run(async {
        let bed = Bed::new(Setup::dev(), "").await;
        let origin = bed.server.origin();
        for (command, answer) in [
            ("get ftp://127.0.0.1/".to_owned(), "HttpProtocolError"),
            ("get http:///hello".to_owned(), "HttpRequestUriInvalid"),
            ("get http://127.0.0.1:99999/".to_owned(), "HttpRequestUriInvalid"),
            ("get http://127.1/".to_owned(), "HttpRequestUriInvalid"),
            (format!("get {origin}/{}", "p".repeat(20_000)), "HttpRequestUriInvalid"),
            (format!("connect {origin}/"), "HttpRequestUriInvalid"),
            // What is about connections is the host's: the answer says the header was refused.
            (format!("header {origin}/hello host evil.example"), "HttpProtocolError"),
            (format!("header {origin}/hello transfer-encoding chunked"), "HttpProtocolError"),
        ] {
            assert_eq!(say(&bed.client, &command).await, answer, "{command:.60}");
        }
        assert_eq!(bed.server.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_went_away_is_reached_again() {
    run(async {
        let bed = Bed::new(Setup::dev(), "").await;
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
        // It closes each connection behind its answer: at once, or as the next request comes.
        for _ in 0..3 {
            assert_eq!(bed.say("get", "/last", "").await, "200 last");
        }
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
        bed.server.close_when_asked(1);
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
        // What is not to be made twice is not made again by the host.
        bed.server.close_when_asked(1);
        assert_eq!(bed.say("post", "/echo", " text").await, "ConnectionTerminated");
        bed.server.pause().await;
        assert_eq!(bed.say("get", "/hello", "").await, "ConnectionRefused");
        bed.server.go_on().await;
        assert_eq!(bed.say("get", "/hello", "").await, "200 hello");
    })
    .await;
}

#[tokio::test]
async fn an_event_that_is_run_again_makes_its_request_again_under_the_same_key() {
    run(async {
        let server = Server::start().await;
        let node = Setup::dev().start().await;
        let client = node.client();
        client.push(HTTP).await;
        let more = grant(&[&server.origin()], "").replace("retries = 0", "retries = 2");
        client.apply(HTTP, single(HTTP, HTTP, &more)).await;
        let headers = [("sluicebox-key", "k"), ("sluicebox-id", "order-7")];
        let command = format!("insist {}/seen", server.origin());
        let reply = client.send(HTTP, "?wait=20s", &headers, command).await.is(200);
        assert_eq!(reply.text(), "200 order-7 2");
    })
    .await;
}

#[tokio::test]
async fn what_is_handed_over_is_paid_for() {
    run(async {
        let bed = Bed::new(Setup::dev(), "").await;
        let more = grant(&[&bed.server.origin()], "");
        let poor = format!("{more}\nlimits = {{ fuel-per-event = 50_000_000 }}");
        bed.client.apply(HTTP, single(HTTP, HTTP, &poor)).await;
        // A call of the interface is paid for, whatever it is called with.
        for (command, is_dear) in
            [("names 10 100", false), ("names 1000000 1000", true), ("paths 1000000 1000", true)]
        {
            let headers = [("sluicebox-key", "k")];
            let reply = bed.client.send(HTTP, "?wait=20s", &headers, command).await;
            let text = reply.text().to_owned();
            assert_eq!(text != "done", is_dear, "{command}: {text}");
        }
        for dead in bed.client.records(HTTP, "dead-letters", 2).await {
            assert!(dead.to_string().contains("out of fuel"), "{dead}");
        }
    })
    .await;
}

#[tokio::test]
async fn tls_needs_a_certificate_of_somebody_whose_word_is_taken() {
    let (certificate, key) = (tls::file("first.pem"), tls::file("first.key"));
    let text = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
    let secure = Setup::dev()
        .set("tls.certificate", &text(&certificate))
        .set("tls.key", &text(&key))
        .start()
        .await;
    let origin = format!("https://{}", secure.address());
    let authority = text(&tls::file("authority.pem"));
    for (setup, answer) in [
        (Setup::dev().set("connectors.authorities", &authority), "200"),
        (
            Setup::dev().set("connectors.authorities", &text(&tls::file("first.pem"))),
            "TlsCertificateError",
        ),
    ] {
        let node = setup.start().await;
        let client = node.client();
        client.push(HTTP).await;
        client.apply(HTTP, single(HTTP, HTTP, &grant(&[&origin], ""))).await;
        let said = say(&client, &format!("get {origin}/healthz")).await;
        assert!(said.starts_with(answer), "{said}");
    }
}
