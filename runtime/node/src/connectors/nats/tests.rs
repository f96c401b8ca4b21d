//! Sources and sinks of NATS against a server that does as it is told: loses deliveries, brings
//! them again, refuses.

#![expect(clippy::large_futures, reason = "tests are not many at a time")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::sink::contract::{Does, Told, keeps};
use super::super::source::contract::{Noted, all, lines};
use super::super::source::{Piece, Places as _, Source as _};
use super::*;
use crate::config::{Config, ConnectorsConfig, Sources};
use crate::egress::reach::Reach;

/// A server with one stream and one consumer.
#[derive(Default)]
struct State {
    created: String,
    /// Header and payload, by number from 1 on.
    messages: Vec<(String, String)>,
    is_made: bool,
    /// Deliveries so far, and the last message delivered for the first time.
    deliveries: u64,
    delivered: u64,
    open: BTreeSet<u64>,
    /// What is delivered again, before anything else.
    again: VecDeque<u64>,
    /// So many deliveries get lost.
    lose: u64,
    /// What was said of deliveries, by number.
    words: BTreeMap<u64, Vec<String>>,
    /// What is said instead of letting somebody in.
    refuses: Option<String>,
    /// What is said instead of INFO.
    says: Option<String>,
    introduced: Vec<Value>,
    /// What becomes of results.
    results: Told,
}

#[derive(Clone)]
struct Fake {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Fake {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("room on loopback");
        let port = listener.local_addr().expect("bound").port();
        let created = "2026-01-31T12:00:00Z".to_owned();
        let state = Arc::new(Mutex::new(State { created, ..State::default() }));
        let fake = Self { port, state };
        let own = fake.clone();
        // They end with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = own.clone();
                std::thread::spawn(move || fake.serve(stream));
            }
        });
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn fill(&self, from: u64, to: u64) -> Vec<String> {
        let all: Vec<String> = (from..=to).map(|n| format!("m{n}")).collect();
        let messages = all.iter().map(|text| (String::new(), text.clone()));
        self.state().messages.extend(messages);
        all
    }

    fn serve(&self, stream: TcpStream) {
        let mut out = stream.try_clone().expect("a socket of ours");
        let said = self.state().says.clone().unwrap_or_else(|| {
            "INFO {\"max_payload\":1000,\"headers\":true,\"connect_urls\":[\"127.0.0.1:1\"]}\r\n"
                .to_owned()
        });
        drop(out.write_all(said.as_bytes()));
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            let whole = std::mem::take(&mut line);
            let line = whole.as_str();
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(answer) = (match words.as_slice() {
                ["CONNECT", ..] => {
                    let said = serde_json::from_str(line["CONNECT ".len()..].trim());
                    self.state().introduced.push(said.expect("JSON"));
                    let no = self.state().refuses.clone();
                    Some(no.map(|no| format!("-ERR '{no}'\r\n")).unwrap_or_default())
                }
                ["PING"] => Some("PONG\r\n".to_owned()),
                [verb @ ("PUB" | "HPUB"), subject, rest @ ..] => {
                    let of_line = if *verb == "PUB" { 1 } else { 2 };
                    let reply = if rest.len() > of_line { rest[0] } else { "" };
                    let bytes: usize = rest[rest.len() - 1].parse().expect("a number");
                    let mut body = vec![0; bytes + 2];
                    lines.read_exact(&mut body).expect("all of it");
                    body.truncate(bytes);
                    let body = String::from_utf8(body).expect("text");
                    match *subject {
                        "results" => self.result(reply, &body),
                        subject => Some(self.asked(subject, reply, &body)),
                    }
                }
                _ => Some(String::new()),
            }) else {
                return;
            };
            if out.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// Something for a stream; none ends the connection.
    fn result(&self, reply: &str, body: &str) -> Option<String> {
        let (header, payload) = body.split_once("\r\n\r\n").expect("a header");
        let name = header.lines().find_map(|line| line.strip_prefix("Nats-Msg-Id: "));
        let said = match self.state().results.came(name.expect("a name"), payload) {
            Does::Takes => json!({ "stream": "OUT", "seq": 1 }),
            Does::Waits => json!({ "error": { "err_code": 10_077 } }),
            Does::Refuses => json!({ "error": { "err_code": 10_054 } }),
            Does::Vanishes => return None,
        };
        Some(message(reply, "", "", &said.to_string()))
    }

    fn asked(&self, subject: &str, reply: &str, body: &str) -> String {
        let mut state = self.state();
        let answer = |value: Value| message(reply, "", "", &value.to_string());
        let last = state.messages.len() as u64;
        let open_from = state.open.first().map_or(state.delivered, |first| first - 1);
        if let Some(rest) = subject.strip_prefix("$JS.ACK.S.c.") {
            let number: u64 = rest.split('.').nth(1).and_then(|n| n.parse().ok()).expect("one");
            state.open.remove(&number);
            state.words.entry(number).or_default().push(body.to_owned());
            return String::new();
        }
        let standing = json!({
            "config": { "ack_policy": "explicit", "deliver_policy": "all" },
            "delivered": { "consumer_seq": state.deliveries, "stream_seq": state.delivered },
            "ack_floor": { "consumer_seq": 0, "stream_seq": open_from },
        });
        match subject {
            "$JS.API.STREAM.INFO.S" => {
                answer(json!({ "created": state.created, "state": { "last_seq": last } }))
            }
            "$JS.API.CONSUMER.INFO.S.c" if state.is_made => answer(standing),
            "$JS.API.CONSUMER.INFO.S.c" => answer(json!({ "error": { "err_code": 10_014 } })),
            "$JS.API.CONSUMER.CREATE.S.c" => {
                state.is_made = true;
                answer(standing)
            }
            "$JS.API.STREAM.MSG.GET.S" => {
                let asked: Value = serde_json::from_str(body).expect("JSON");
                let from = asked["seq"].as_u64().expect("a number");
                let Some((header, payload)) = state.messages.get(from as usize - 1) else {
                    return answer(json!({ "error": { "err_code": 10_037 } }));
                };
                answer(json!({ "message": {
                    "subject": "a", "seq": from, "hdrs": STANDARD.encode(header),
                    "data": STANDARD.encode(payload), "time": "2026-01-31T12:00:00.5Z",
                } }))
            }
            "$JS.API.CONSUMER.MSG.NEXT.S.c" => {
                let asked: Value = serde_json::from_str(body).expect("JSON");
                let batch = asked["batch"].as_u64().expect("a number");
                let said = state.deliver(batch);
                drop(state);
                std::thread::sleep(Duration::from_millis(20));
                said + &message(reply, "", "NATS/1.0 408 Request Timeout\r\n\r\n", "")
            }
            _ => message(reply, "", "NATS/1.0 503\r\n\r\n", ""),
        }
    }
}

impl State {
    fn deliver(&mut self, batch: u64) -> String {
        let mut said = String::new();
        for _ in 0..batch {
            let number = match self.again.pop_front() {
                Some(number) => number,
                None if self.delivered < self.messages.len() as u64 => {
                    self.delivered += 1;
                    self.delivered
                }
                None => break,
            };
            self.deliveries += 1;
            self.open.insert(number);
            if self.lose > 0 {
                self.lose -= 1;
                continue;
            }
            let (header, payload) = &self.messages[number as usize - 1];
            let ack = format!("$JS.ACK.S.c.1.{number}.{}.1700000000000000000.0", self.deliveries);
            said += &message("a", &ack, header, payload);
        }
        said
    }
}

fn message(subject: &str, reply: &str, header: &str, payload: &str) -> String {
    let all = header.len() + payload.len();
    match header {
        "" => format!("MSG {subject} 1 {reply} {all}\r\n{payload}\r\n"),
        _ => format!("HMSG {subject} 1 {reply} {} {all}\r\n{header}{payload}\r\n", header.len()),
    }
}

fn config() -> ConnectorsConfig {
    let mut sources = Sources::default();
    sources.flag("--a", "connectors.hosts", "127.0.0.1,localhost");
    sources.flag("--b", "connectors.networks", "127.0.0.0/8");
    Config::load(&sources).expect("a configuration").config.connectors
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

async fn road(host: &str, fake: &Fake, reach: Reach) -> Road {
    let target = Target { by_tls: false, host: host.to_owned(), port: fake.port };
    Road::new(target, reach, std::path::PathBuf::new()).await.expect("a way")
}

async fn server_at(fake: &Fake, secret: Option<std::path::PathBuf>) -> Server {
    let (config, tenant) = (config(), name("a"));
    let reach = Grants::new(&config, &tenant).reach();
    Server { road: road("127.0.0.1", fake, reach).await, secret, name: "test".to_owned() }
}

async fn stream(fake: &Fake) -> Stream {
    let names = Names { stream: "S".to_owned(), consumer: "c".to_owned(), filter: None };
    let declared = NatsSource { message_bytes: 100, ..NatsSource::default() };
    Stream::new(server_at(fake, None).await, "s", names, &declared)
}

/// Where tasks of a worker are.
async fn on_a_worker<T>(test: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(test).await
}

/// The next piece, which must be there soon.
async fn piece(stream: &mut Stream, noted: &Noted) -> Piece {
    let next = tokio::time::timeout(Duration::from_secs(20), stream.next(noted));
    next.await.expect("soon").expect("it can be had")
}

#[tokio::test]
async fn keeps_the_contract_of_sources() {
    on_a_worker(async {
        let fake = Fake::start();
        let noted = Noted::default();
        for round in 0..3 {
            let wanted = fake.fill(round * 1000 + 1, round * 1000 + 1000);
            // Some that are made beforehand, as they cannot be waited for where they are used.
            let mut made = Vec::new();
            for _ in 0..40 {
                made.push(stream(&fake).await);
            }
            let make = || made.pop().expect("enough were made");
            assert_eq!(all(&noted, make, |number| number % 2 == round as usize % 2).await, wanted);
        }
        // What comes again was taken, and is confirmed; so is what was read by its number.
        {
            let mut state = fake.state();
            state.again = state.open.iter().copied().collect();
        }
        let mut source = stream(&fake).await;
        let soon = Duration::from_millis(700);
        assert!(tokio::time::timeout(soon, source.next(&noted)).await.is_err(), "nothing is new");
        let state = fake.state();
        assert!(state.open.is_empty(), "{:?}", state.open);
        assert!(state.words.values().flatten().all(|word| word == "+ACK"));
    })
    .await;
}

#[tokio::test]
async fn keeps_the_contract_of_sinks() {
    on_a_worker(async {
        let fake = Fake::start();
        let declared = NatsSink {
            subject: "results".to_owned(),
            by_stream: true,
            timeout_ms: 5000,
            ..NatsSink::default()
        };
        let publisher = Publisher::new(server_at(&fake, None).await, &declared);
        let told = fake.state().results.clone();
        keeps(publisher, &told).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_read_before_what_follows_it() {
    on_a_worker(async {
        let fake = Fake::start();
        let noted = Noted::default();
        let mut source = stream(&fake).await;
        let mut found = Vec::new();
        let mut wanted = Vec::new();
        for round in 0..4 {
            wanted.extend(fake.fill(round * 300 + 1, round * 300 + 300));
            // First deliveries are lost, or some in the middle.
            fake.state().lose = if round % 2 == 0 { 5 } else { 0 };
            while found.len() < wanted.len() {
                match source.next(&noted).await {
                    Ok(piece) => {
                        noted.note(&piece);
                        found.extend(lines(&piece));
                        fake.state().lose = u64::from(found.len() % 2 == 0) * 3;
                    }
                    Err(fault) => assert_eq!(fault.code, "connector.stream", "{fault:?}"),
                }
            }
        }
        assert_eq!(found, wanted);
    })
    .await;
}

#[tokio::test]
async fn what_was_given_and_not_taken_is_given_again() {
    on_a_worker(async {
        let fake = Fake::start();
        let noted = Noted::default();
        fake.fill(1, 10);
        let mut source = stream(&fake).await;
        let first = piece(&mut source, &noted).await;
        let again = piece(&mut source, &noted).await;
        assert_eq!((lines(&first), first.number), (lines(&again), again.number));
        assert!(fake.state().words.is_empty(), "nothing is confirmed that was not taken");
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_an_event_is_left_out_and_does_not_come_again() {
    on_a_worker(async {
        let fake = Fake::start();
        let noted = Noted::default();
        let header = |text: &str| (text.to_owned(), "x".to_owned());
        let large = (String::new(), "x".repeat(101));
        let good = (String::new(), "good".to_owned());
        let bad = header("NATS/1.0\r\nno colon\r\n\r\n");
        fake.state().messages = vec![large.clone(), good.clone(), bad.clone(), large, good, bad];
        let mut source = stream(&fake).await;
        let first = piece(&mut source, &noted).await;
        assert_eq!((lines(&first), first.left_out, first.number), (vec!["good".into(); 2], 4, 6));
        // Another, who did not hear of it, reads the same by number.
        let mut other = stream(&fake).await;
        let same = piece(&mut other, &noted).await;
        assert_eq!((lines(&same), same.left_out, same.number), (vec!["good".into(); 2], 4, 6));
        drop(other);
        noted.note(&first);
        let soon = Duration::from_millis(300);
        assert!(tokio::time::timeout(soon, source.next(&noted)).await.is_err());
        let words: Vec<String> = fake.state().words.values().flatten().cloned().collect();
        assert_eq!(words, ["+TERM", "+ACK", "+TERM", "+TERM", "+ACK", "+TERM"]);
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_another_and_one_without_its_end_is_not_read() {
    on_a_worker(async {
        let fake = Fake::start();
        let noted = Noted::default();
        fake.fill(1, 10);
        let taken = piece(&mut stream(&fake).await, &noted).await;
        noted.note(&taken);
        fake.state().messages.truncate(5);
        let fault = stream(&fake).await.next(&noted).await.map(drop);
        assert_eq!(fault.map_err(|fault| fault.code), Err("connector.stream"));
        let created = "2026-02-01T00:00:00Z".to_owned();
        let messages = fake.state().messages.clone();
        *fake.state() = State { created, messages, ..State::default() };
        let anew = piece(&mut stream(&fake).await, &noted).await;
        assert_eq!((lines(&anew).len(), anew.number), (5, 5));
        assert_ne!(anew.place, taken.place);
        assert_eq!(noted.of(&anew.place), None);
    })
    .await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_and_secrets_are_said_and_read_anew() {
    on_a_worker(async {
        let fake = Fake::start();
        let folder = tempfile::tempdir().expect("a temporary directory");
        let secret = folder.path().join("nats");
        std::fs::write(&secret, "user ada wrong\n").expect("written");
        fake.state().refuses = Some("Authorization Violation".to_owned());
        let mut server = server_at(&fake, Some(secret.clone())).await;
        let code = |connected: Result<client::Client, super::super::Fault>| {
            connected.map(drop).map_err(|fault| fault.code)
        };
        assert_eq!(code(server.connect(100).await), Err("connector.credentials"));
        fake.state().refuses = None;
        std::fs::write(&secret, "user ada lace\n").expect("written");
        assert_eq!(code(server.connect(100).await), Ok(()));
        let said: Vec<Value> = fake.state().introduced.clone();
        let passwords: Vec<&Value> = said.iter().map(|said| &said["pass"]).collect();
        assert_eq!(passwords, ["wrong", "lace"]);
        assert_eq!((&said[1]["user"], &said[1]["no_responders"]), (&"ada".into(), &true.into()));
        std::fs::write(&secret, "nonsense").expect("written");
        assert_eq!(code(server.connect(100).await), Err("connector.secret"));
        std::fs::remove_file(&secret).expect("removed");
        assert_eq!(code(server.connect(100).await), Err("connector.secret"));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_none_and_an_address_of_ones_own_are_refused() {
    on_a_worker(async {
        let fake = Fake::start();
        let mut server = server_at(&fake, None).await;
        for (says, code) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "connector.protocol"),
            ("PING\r\n", "connector.protocol"),
            ("INFO {\"headers\":false}\r\n", "connector.protocol"),
            ("INFO {\"tls_required\":true,\"headers\":true}\r\n", "connector.unreachable"),
            ("-ERR 'Maximum Connections Exceeded'\r\n", "connector.unreachable"),
        ] {
            fake.state().says = Some(says.to_owned());
            let fault = server.connect(100).await.map(drop).map_err(|fault| fault.code);
            assert_eq!(fault, Err(code), "{says}");
        }
        fake.state().says = None;
        let reach = Reach::new(&Config::default().connectors, &name("a"), false);
        let road = road("localhost", &fake, reach).await;
        let mut server = Server { road, secret: None, name: "test".to_owned() };
        let fault = server.connect(100).await.map(drop).map_err(|fault| fault.code);
        assert_eq!(fault, Err("connector.address"));
    })
    .await;
}

#[test]
fn a_url_is_one_of_a_server() {
    let good = target("nats://Nats.example.com").expect("good");
    assert_eq!((good.port, good.by_tls), (4222, false));
    let good = target("tls://[::1]:81/").expect("good");
    assert_eq!((good.host.as_str(), good.port, good.by_tls), ("::1", 81, true));
    for wrong in [
        "",
        "nats.example.com:4222",
        "http://a",
        "ws://a",
        "nats://",
        "nats://u:p@a",
        "nats://a,nats://b",
        "nats://a/b",
        "nats://a?x=1",
        "nats://a#b",
        "nats://a:99999",
    ] {
        let refused = target(wrong).map(drop).map_err(|refused| refused.code);
        assert_eq!(refused, Err("connector.url"), "{wrong}");
    }
}

#[test]
fn subjects_and_names_are_those_of_nats_and_hosts_are_allowed() {
    let config = config();
    let tenant = name("a");
    let grants = Grants::new(&config, &tenant);
    let both = |subject: &str| {
        (check_subject(subject, true).is_ok(), check_subject(subject, false).is_ok())
    };
    assert_eq!(both("orders.new"), (true, true));
    for many in ["*", ">", "a.*.b", "a.>", "$SYS.x"] {
        assert_eq!(both(many), (true, false), "{many}");
    }
    for wrong in ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x", "a.>.b", "\u{0}"] {
        assert_eq!(both(wrong), (false, false), "{wrong}");
    }
    let url = "nats://127.0.0.1:4222".to_owned();
    let good = NatsSource { url, stream: Some("S".to_owned()), ..NatsSource::default() };
    assert_eq!(check_source(&grants, &good), Ok(()));
    let code = |source: NatsSource| check_source(&grants, &source).map_err(|r| (r.field, r.code));
    for wrong in ["", "a.b", "a b", "*", ">", "a/b", "a\n"] {
        let some = || Some(wrong.to_owned());
        let of = |field| Err((field, "connector.subject"));
        assert_eq!(code(NatsSource { stream: some(), ..good.clone() }), of("stream"), "{wrong}");
        assert_eq!(code(NatsSource { consumer: some(), ..good.clone() }), of("consumer"));
        assert_eq!(code(NatsSource { queue: some(), ..good.clone() }), of("queue"));
    }
    let other = NatsSource { url: "nats://10.0.0.1".to_owned(), ..good.clone() };
    assert_eq!(code(other), Err(("url", "connector.host")));
    let secret = NatsSource { secret: Some("s".to_owned()), ..good };
    assert_eq!(code(secret), Err(("secret", "connector.secret")));
    let sink = NatsSink { url: "tls://127.0.0.1".to_owned(), ..NatsSink::default() };
    assert!(check_sink(&grants, &sink).is_err_and(|refused| refused.field == "subject"));
}
