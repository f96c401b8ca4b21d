//! Streams sent in one request: in and out at once, cut off at any moment, and gone on with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use sluicebox_tests::client::{Client, NDJSON, TENANT, payload};
use sluicebox_tests::eventually::{SOON, eventually_equal};
use sluicebox_tests::node::{Home, Node, Setup};
use sluicebox_tests::session::{Session, open};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::streams::{GUEST, last_words, manifest, texts, told};
use super::{Dice, number};

async fn begin(top: &str) -> (Node, Client) {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", manifest(top, "")).await;
    (node, client)
}

fn path(key: &str, query: &str) -> String {
    format!("/v1/tenants/{TENANT}/pipelines/streams/streams/{key}{query}")
}

const LINES: (&str, &str) = ("content-type", NDJSON);
const RAW: (&str, &str) = ("content-type", "image/x-test");

async fn session(node: &Node, key: &str, query: &str, kind: (&str, &str)) -> Session {
    open((node.address(), false), &path(key, query), &[kind]).await.expect("a session")
}

/// How far the streams of a key have come.
async fn standing(client: &Client, key: &str) -> (u64, bool) {
    let reply = client.page("streams", &format!("streams/{key}"), "").await.is(200).json();
    (reply["at"].as_u64().expect("a number"), reply["ended"].as_bool().expect("a flag"))
}

/// What the guest said, of lines of a session.
fn outputs(lines: &[Value]) -> Vec<String> {
    let outputs = lines.iter().filter(|line| line.get("offset").is_some());
    outputs.map(|line| String::from_utf8(payload(line)).expect("text")).collect()
}

fn cursor(lines: &[Value]) -> String {
    let last = lines.iter().rev().find_map(|line| line["cursor"].as_str());
    last.expect("an output has a cursor").to_owned()
}

/// What the guest says of a whole stream.
fn whole(payloads: &[Vec<u8>]) -> Vec<String> {
    let mut all = told(payloads);
    all.push(last_words(payloads));
    all
}

async fn until_taken(session: &mut Session, at: u64) -> Vec<Value> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &Value| line["taken"] != at) {
        lines.push(session.next().await.expect("the session goes on"));
    }
    lines
}

/// Reads until a unit was answered and the node says that it has it.
async fn until_answered(session: &mut Session) {
    let mut lines = Vec::new();
    while outputs(&lines).is_empty() || !lines.iter().any(|line| line["taken"] == 1) {
        lines.push(session.next().await.expect("the session goes on"));
    }
}

async fn until_outputs(session: &mut Session, count: usize) -> Vec<Value> {
    let mut lines = Vec::new();
    while outputs(&lines).len() < count {
        lines.push(session.next().await.expect("the session goes on"));
    }
    lines
}

#[tokio::test]
async fn a_stream_goes_in_and_comes_out_in_one_request() {
    for delivery in ["", "delivery = \"best-effort\""] {
        let (node, client) = begin(delivery).await;
        for http2 in [false, true] {
            let key = format!("cam%20{http2}");
            let query = path(&key, "?chunk=3");
            let mut session = open((node.address(), http2), &query, &[RAW]).await.expect("one");
            assert_eq!(session.headers["sluicebox-ordinal"], "0");
            session.send("onetw").await;
            // The answer to the first comes while the second is not whole yet.
            assert_eq!(outputs(&until_outputs(&mut session, 1).await), told(&texts(&["one"])));
            session.send("osix").await;
            let mut lines = until_outputs(&mut session, 2).await;
            session.end();
            lines.extend(session.rest().await);
            let all = texts(&["one", "two", "six"]);
            assert_eq!(outputs(&lines), whole(&all)[1..], "{delivery} {http2}");
            let last = lines.last().expect("a last line");
            assert_eq!(last["ended"]["at"], 3, "{last}");
            assert!(lines.iter().any(|line| line["taken"] == 3), "{lines:#?}");
            assert_eq!(standing(&client, &key).await, (3, true));
        }
    }
}

#[tokio::test]
async fn a_session_that_breaks_off_is_suspended_and_gone_on_with() {
    for delivery in ["", "delivery = \"best-effort\""] {
        let (node, client) = begin(delivery).await;
        let mut first = session(&node, "k", "", LINES).await;
        first.send("1\n2\n3\n4").await;
        let mut lines = until_outputs(&mut first, 2).await;
        first.break_off().await;
        let stands = || async { standing(&client, "k").await };
        eventually_equal((3, false), SOON, stands).await;
        // From before what the node has: that is left out.
        let query = format!("?from=1&cursor={}", cursor(&lines));
        let mut again = session(&node, "k", &query, LINES).await;
        assert_eq!(again.headers["sluicebox-ordinal"], "3");
        again.send("2\n3\n4\n").await;
        again.send("5\n").await;
        again.end();
        lines.extend(again.rest().await);
        let all = texts(&["1", "2", "3", "4", "5"]);
        assert_eq!(outputs(&lines), whole(&all), "{delivery}");
        assert_eq!(standing(&client, "k").await, (5, true));
        // The last reply was lost: all is sent again, and nothing happens twice.
        let mut third = session(&node, "k", "?from=0&cursor=oldest", LINES).await;
        third.send("1\n2\n3\n4\n5\n").await;
        third.end();
        let again = third.rest().await;
        assert_eq!(outputs(&again), whole(&all), "{delivery}");
        assert_eq!(again.last().expect("a last line")["ended"]["at"], 5);
        // Without an ordinal another stream of the key begins.
        let mut next = session(&node, "k", "", LINES).await;
        assert_eq!(next.headers["sluicebox-ordinal"], "5");
        next.send("9").await;
        next.end();
        assert_eq!(outputs(&next.rest().await), whole(&texts(&["9"])), "{delivery}");
        assert_eq!(standing(&client, "k").await, (6, true));
    }
}

#[tokio::test]
async fn a_session_goes_on_after_a_kill() {
    let (node, client) = begin("partitions = 2").await;
    let mut first = session(&node, "k", "?chunk=prefixed", RAW).await;
    let unit = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    first.send(unit("one")).await;
    first.send(unit("two")).await;
    let seen = until_taken(&mut first, 2).await;
    drop(client);
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    assert_eq!(standing(&client, "k").await, (2, false));
    let mut again = session(&node, "k", "?chunk=prefixed&from=2&cursor=oldest", RAW).await;
    again.send(unit("three")).await;
    again.end();
    let all = texts(&["one", "two", "three"]);
    assert_eq!(outputs(&again.rest().await), whole(&all), "{seen:?}");
    // Nothing is left to be sent, and what was not seen comes after another kill.
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let mut last = session(&node, "k", "?chunk=prefixed&from=3&cursor=oldest", RAW).await;
    last.end();
    let lines = last.rest().await;
    assert_eq!(outputs(&lines), whole(&all));
    assert_eq!(lines.last().expect("a last line")["ended"]["at"], 3);
}

#[tokio::test]
async fn a_body_that_ends_before_where_its_key_stands_ends_nothing() {
    let (node, client) = begin("").await;
    let mut first = session(&node, "k", "", LINES).await;
    first.send("1\n2\n3\n").await;
    until_taken(&mut first, 3).await;
    first.break_off().await;
    let mut part = session(&node, "k", "?from=0", LINES).await;
    part.send("1\n2\n").await;
    part.end();
    let last = part.rest().await.pop().expect("a last line");
    assert_eq!(last["suspended"]["code"], "stream.gap", "{last}");
    assert_eq!(standing(&client, "k").await, (3, false));
}

#[tokio::test]
async fn a_session_that_waits_for_quota_goes_on_with_the_version_that_runs_by_then() {
    let setup = Setup::dev().set("quota.events-per-second", "4");
    let node = setup.set("http.heartbeat-time", "100ms").start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", manifest("", "")).await;
    let mut session = session(&node, "cam", "?chunk=3", RAW).await;
    session.send("onetwosixten").await;
    let mut lines = until_taken(&mut session, 4).await;
    // These wait for a second, and the session learns of the version while they do.
    session.send("sunmoonow").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.apply("streams", manifest("", "retries = 2")).await;
    session.end();
    let rest = tokio::time::timeout(SOON, session.rest()).await;
    lines.extend(rest.expect("the session goes on"));
    let all = texts(&["one", "two", "six", "ten", "sun", "moo", "now"]);
    assert_eq!(outputs(&lines), whole(&all));
    assert_eq!(lines.last().expect("a last line")["ended"]["at"], 7);
}

#[tokio::test]
async fn a_newer_session_takes_over() {
    let (node, _client) = begin("").await;
    let mut old = session(&node, "k", "", LINES).await;
    old.send("1\n").await;
    // What comes of it is on its way to nobody else.
    until_answered(&mut old).await;
    let mut new = session(&node, "k", "", LINES).await;
    let last = old.rest().await.pop().expect("a last line");
    assert_eq!(last["suspended"]["code"], "stream.taken-over", "{last}");
    assert_eq!(last["suspended"]["at"], 1);
    new.send("2\n").await;
    new.end();
    assert_eq!(outputs(&new.rest().await), whole(&texts(&["1", "2"]))[1..]);
}

#[tokio::test]
async fn a_bad_unit_is_left_out_and_told_of_and_keeps_its_ordinal() {
    let (node, client) = begin("").await;
    let mut session = session(&node, "k", "", LINES).await;
    session.send("1\n{\n\n\"\u{7}\"\n2").await;
    session.end();
    let lines = session.rest().await;
    let rejected: Vec<_> = lines.iter().filter_map(|line| line.get("rejected")).collect();
    assert_eq!(rejected.len(), 2, "{lines:#?}");
    assert_eq!((&rejected[0]["at"], &rejected[0]["code"]), (&1.into(), &"ingest.json".into()));
    assert_eq!(rejected[1]["at"], 2);
    assert_eq!(outputs(&lines), whole(&texts(&["1", "2"])));
    assert_eq!(standing(&client, "k").await, (4, true));
}

#[tokio::test]
async fn a_body_that_ends_within_a_unit_does_not_end_the_stream() {
    let (node, client) = begin("").await;
    let mut cut = session(&node, "k", "?chunk=4", RAW).await;
    cut.send("onceup").await;
    cut.end();
    let last = cut.rest().await.pop().expect("a last line");
    assert_eq!(last["suspended"]["code"], "stream.cut-off", "{last}");
    assert_eq!(standing(&client, "k").await, (1, false));
    let mut large = session(&node, "k", "?chunk=prefixed", RAW).await;
    large.send(u32::MAX.to_le_bytes().to_vec()).await;
    let last = large.rest().await.pop().expect("a last line");
    assert_eq!(last["suspended"]["code"], "request.too-large", "{last}");
}

#[tokio::test]
async fn what_cannot_be_a_session_is_refused_before_it_begins() {
    let (node, client) = begin("").await;
    let refused = |key: &'static str, query: &'static str, headers: &'static [(&str, &str)]| {
        let address = node.address();
        async move { open((address, false), &path(key, query), headers).await.expect_err(query) }
    };
    refused("k", "", &[RAW]).await.problem(400, "stream.chunk");
    refused("k", "?chunk=0", &[RAW]).await.problem(400, "stream.chunk");
    refused("k", "?from=7", &[LINES]).await.problem(409, "stream.gap");
    refused("k", "?from=x", &[LINES]).await.problem(400, "request.query");
    refused("k", "?form=1", &[LINES]).await.problem(400, "request.query");
    refused("k", "?output=none", &[LINES]).await.problem(404, "output.unknown");
    refused("k", "?cursor=!", &[LINES]).await.problem(400, "output.cursor");
    refused("%FF", "", &[LINES]).await.problem(400, "stream.key");
    let coded = &[LINES, ("content-encoding", "gzip")];
    refused("k", "", coded).await.problem(415, "request.coding");
    let many = "x".repeat(513);
    client.page("streams", &format!("streams/{many}"), "").await.problem(400, "stream.key");
    let none = client.path("pipelines/none/streams/k");
    client.plain(&none).await.problem(404, "pipeline.unknown");
    // Nothing of it left a trace.
    assert_eq!(standing(&client, "k").await, (0, false));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from_and_misses_nothing() {
    let (node, client) = begin("").await;
    let mut session = session(&node, "k", "", LINES).await;
    let units: Vec<Vec<u8>> = (0..100_000).map(|n| n.to_string().into_bytes()).collect();
    let all = units.clone();
    let feed = session.feed();
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        for part in all.chunks(500) {
            let text: Vec<u8> = part.iter().flat_map(|unit| [unit, &b"\n"[..]].concat()).collect();
            feed.send(Ok(text.into())).await.expect("the node takes all");
        }
    });
    // It stops somewhere: nothing is taken while the answers find no room.
    let mut before = u64::MAX;
    let stopped = || {
        let client = client.clone();
        async move { standing(&client, "k").await.0 }
    };
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = stopped().await;
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < units.len() as u64, "everything was taken of a client that reads nothing");
    session.end();
    let lines = session.rest().await;
    sending.join_next().await.expect("it is there").expect("all was sent");
    assert_eq!(outputs(&lines), whole(&units));
}

#[tokio::test]
async fn a_node_that_stops_suspends_its_sessions() {
    let (node, _client) = begin("").await;
    let mut session = session(&node, "k", "", LINES).await;
    session.send("1\n").await;
    until_answered(&mut session).await;
    node.terminate();
    let last = session.rest().await.pop().expect("a last line");
    assert_eq!(last["suspended"]["code"], "node.draining", "{last}");
    let (_status, home) = node.ended().await;
    let node = Setup::dev().home(&home).start().await;
    let mut again = self::session(&node, "k", "?from=1", LINES).await;
    again.send("2\n").await;
    again.end();
    assert_eq!(outputs(&again.rest().await), whole(&texts(&["1", "2"]))[1..]);
}

/// What a node says over a WebSocket until it closes it, and the code it closes it with.
async fn hear(
    socket: &mut WebSocketStream<TcpStream>,
    stop: impl Fn(&Value) -> bool,
) -> (Vec<Value>, Option<u16>) {
    let mut lines = Vec::new();
    loop {
        let message = tokio::time::timeout(SOON, socket.next()).await.expect("in time");
        match message {
            Some(Ok(Message::Text(text))) => {
                lines.push(serde_json::from_str(&text).expect("a line of JSON"));
                if lines.last().is_some_and(&stop) {
                    return (lines, None);
                }
            }
            Some(Ok(Message::Close(frame))) => {
                return (lines, frame.map(|frame| frame.code.into()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (lines, None),
        }
    }
}

#[tokio::test]
async fn a_web_socket_is_another_door() {
    let (node, client) = begin("").await;
    let connect = |key: &'static str| {
        let address = node.address();
        async move {
            let stream = TcpStream::connect(address).await.expect("the node listens");
            let url = format!("ws://{address}{}", path(key, ""));
            tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket").0
        }
    };
    let mut socket = connect("k").await;
    socket.send(Message::text("{\"n\":1}")).await.expect("it is taken");
    socket.send(Message::binary(&b"\xFF\x00"[..])).await.expect("it is taken");
    socket.send(Message::text("{")).await.expect("it is taken");
    let is_rejected = |line: &Value| line.get("rejected").is_some();
    let (mut lines, _) = hear(&mut socket, is_rejected).await;
    assert_eq!(lines.last().expect("a line")["rejected"]["at"], 2);
    socket.send(Message::text("")).await.expect("it is taken");
    let (rest, code) = hear(&mut socket, |_| false).await;
    lines.extend(rest);
    let units = vec![b"{\"n\":1}".to_vec(), b"\xFF\x00".to_vec()];
    assert_eq!(outputs(&lines), whole(&units));
    assert_eq!(lines.last().expect("a last line")["ended"]["at"], 3);
    assert_eq!(code, Some(1000));
    // To close with 1000 is an end as well.
    let mut short = connect("short").await;
    short.send(Message::text("1")).await.expect("it is taken");
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    short.send(Message::Close(Some(normal))).await.expect("it closes");
    let stands = || async { standing(&client, "short").await };
    eventually_equal((1, true), SOON, stands).await;
    // Who leaves without a word suspends the stream.
    let mut gone = connect("left").await;
    gone.send(Message::text("1")).await.expect("it is taken");
    hear(&mut gone, |line| line["taken"] == 1).await;
    drop(gone);
    let stands = || async { standing(&client, "left").await };
    eventually_equal((1, false), SOON, stands).await;
    let plain = [("upgrade", "websocket"), ("connection", "upgrade")];
    let refused = client.ask(http::Method::GET, &path("k", ""), &plain, "").await;
    refused.problem(400, "request.upgrade");
}

/// What the clients saw, for a failure to show.
#[derive(Default)]
struct Seen {
    cuts: AtomicU64,
    last: Mutex<BTreeMap<String, String>>,
}

impl Seen {
    fn note(&self, key: &str, what: String) {
        self.last.lock().expect("nobody panics").insert(key.to_owned(), what);
    }
}

/// A client that sends a stream and is cut off now and then, by itself or with the node.
async fn cut_off_again_and_again(
    key: String,
    units: Vec<Vec<u8>>,
    seed: u64,
    address: watch::Receiver<SocketAddr>,
    seen: Arc<Seen>,
) -> (String, Vec<String>) {
    let mut dice = Dice(seed);
    let mut said = Vec::new();
    let (mut from, mut cursor) = (0_u64, "oldest".to_owned());
    loop {
        let at = *address.borrow();
        let query = format!("?from={from}&cursor={cursor}");
        seen.note(&key, format!("opens {query}"));
        let opened = sluicebox_tests::session::try_open(at, &path(&key, &query), &[LINES]).await;
        let mut session = match opened {
            Some(Ok(session)) => session,
            Some(Err(refused)) => panic!("{key}: {query}: {refused:?}"),
            None => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        // Some are sent again, so that what the node has is left out.
        let first = from as usize;
        let until = match dice.below(3) {
            0 => units.len(),
            _ => (first + dice.below(40) as usize).min(units.len()),
        };
        let mut whole = until == units.len();
        for unit in &units[first..until] {
            whole &= session.try_send([unit, &b"\n"[..]].concat()).await;
            if dice.below(8) == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut left = match whole {
            true => u64::MAX,
            false => dice.below(60),
        };
        if whole && dice.below(4) > 0 {
            session.end();
        } else {
            left = left.min(dice.below(60));
        }
        while left > 0 {
            left -= 1;
            // A session that goes on need not have anything more to say.
            let patience = if session.is_fed() { Duration::from_millis(300) } else { 2 * SOON };
            let next = tokio::time::timeout(patience, session.try_next()).await;
            let Ok(Ok(Some(line))) = next else { break };
            seen.note(&key, format!("{query}, ends {whole}: {line}"));
            if line.get("offset").is_some() {
                said.push(String::from_utf8(payload(&line)).expect("text"));
                cursor = line["cursor"].as_str().expect("a cursor").to_owned();
            } else if line.get("ended").is_some() {
                return (key, said);
            } else if let Some(taken) = line["taken"].as_u64() {
                from = from.max(taken.saturating_sub(dice.below(3)));
            } else if line.get("suspended").is_some() {
                break;
            }
            if session.is_fed() && left > 40 && dice.below(50) == 0 {
                break;
            }
        }
        seen.cuts.fetch_add(1, Ordering::Relaxed);
        session.break_off().await;
    }
}

#[tokio::test]
async fn streams_that_are_cut_off_at_random_say_what_they_would_have_said() {
    let kills = number("SLUICEBOX_KILLS").unwrap_or(6);
    let seed = number("SLUICEBOX_SEED").unwrap_or(17);
    let home = Home::new();
    let setup = |home: &Arc<Home>| Setup::dev().home(home).set("log.checkpoint-log-bytes", "1MiB");
    let mut node = setup(&home).start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", manifest("partitions = 3", "")).await;
    let (tell, address) = watch::channel(node.address());
    let seen = Arc::<Seen>::default();
    let mut dice = Dice(seed);
    let mut streams = BTreeMap::new();
    let mut clients = JoinSet::new();
    for at in 0..24 {
        let unit = |n: u64| format!("{}", n * dice.below(1000)).into_bytes();
        let units: Vec<Vec<u8>> = (0..150).map(unit).collect();
        let key = format!("key-{at}");
        streams.insert(key.clone(), whole(&units));
        let (address, seen) = (address.clone(), seen.clone());
        clients.spawn(cut_off_again_and_again(key, units, seed ^ at << 32, address, seen));
    }
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(100 + dice.below(400))).await;
        drop(node.kill());
        node = setup(&home).start().await;
        tell.send(node.address()).expect("clients run");
    }
    let mut said = BTreeMap::new();
    let all = async {
        while let Some(ended) = clients.join_next().await {
            let (key, lines) = ended.expect("a client ends");
            said.insert(key, lines);
        }
    };
    if tokio::time::timeout(Duration::from_secs(120), all).await.is_err() {
        let client = node.client();
        let open: Vec<_> = streams.keys().filter(|key| !said.contains_key(*key)).collect();
        let seen = seen.last.lock().expect("nobody panics").clone();
        let last: Vec<_> = open.iter().map(|key| (key, &seen[*key])).collect();
        panic!("seed {seed}: {last:#?} {:#}", client.describe("streams").await);
    }
    assert_eq!(said, streams, "seed {seed}");
    assert!(seen.cuts.load(Ordering::Relaxed) > 24, "nobody was cut off");
}
