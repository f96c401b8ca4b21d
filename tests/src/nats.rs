//! A real server of NATS on loopback: Debian's nats-server with a folder of its own, and a client
//! that says what a test wants said, byte by byte.
//!
//! It ends with the test, by a panic too, and can be killed and started again where it was. One
//! that is missing fails the test with the command that installs it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::eventually::{SOON, eventually};
use crate::tls;

/// How to get what is missing.
const ADVICE: &str = "install it with `apt-get install nats-server`, or let `cargo xtask test` do \
                      that";

/// Debian has it where only root looks.
const PROGRAMS: [&str; 2] = ["nats-server", "/usr/sbin/nats-server"];

/// A server with JetStream.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Nats {
    /// One that lets everybody in.
    pub async fn open() -> Self {
        Self::with("").await
    }

    /// One that shows the first certificate of the tests.
    pub async fn by_tls() -> Self {
        let (cert, key) = (tls::file("first.pem"), tls::file("first.key"));
        let (cert, key) = (cert.display(), key.display());
        Self::with(&format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}")).await
    }

    /// One with more in its configuration.
    pub async fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        // Nobody else takes a port that was just free, but for bad luck.
        let listener = TcpListener::bind("127.0.0.1:0").expect("room on loopback");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let store = folder.path().join("kept");
        let config = format!(
            "listen: \"{address}\"\nserver_name: tests\n\
             jetstream {{ store_dir: \"{}\", max_file: 1G, max_mem: 64M }}\n{more}\n",
            store.display()
        );
        std::fs::write(folder.path().join("config"), config).expect("it can be written");
        let child = spawn(&folder);
        let server = Self { child, folder, address };
        server.listens().await;
        server
    }

    /// Kills it, and starts it again where it was with what it has on disk.
    pub async fn again(&mut self) {
        self.kill();
        self.child = spawn(&self.folder);
        self.listens().await;
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }

    async fn listens(&self) {
        let connected = || std::future::ready(TcpStream::connect(self.address).ok());
        drop(eventually("the server of NATS listens", SOON, connected).await);
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// A client that nobody is asked for.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_as(&json!({}))
    }

    /// A client that introduces itself.
    #[must_use]
    pub fn client_as(&self, who: &Value) -> Client {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a socket of ours");
        // No two have one port: what one asks is not answered to another.
        let port = stream.local_addr().expect("it is connected").port();
        let inbox = format!("_INBOX.tests-{port}");
        let mut client = Client { stream: BufReader::new(stream), inbox, count: 0 };
        let info = client.line();
        assert!(info.starts_with("INFO "), "{info}");
        let mut said = json!({ "verbose": false, "headers": true, "no_responders": true });
        for (name, value) in who.as_object().expect("an object") {
            said[name] = value.clone();
        }
        client.say(&format!("CONNECT {said}\r\n"));
        client.settle();
        client
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &TempDir) -> Child {
    let log = std::fs::File::create(folder.path().join("said")).expect("it can be written");
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.arg("-c").arg(folder.path().join("config")).env_clear();
        let log = log.try_clone().expect("a file of ours");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Ok(child) = command.spawn() {
            return child;
        }
    }
    panic!("no nats-server; {ADVICE}")
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it was sent to.
    pub subject: String,
    /// With its first line; empty if there is none.
    pub header: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// A field of the header.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        let fields = self.header.lines().filter_map(|line| line.split_once(": "));
        let mut found = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value)
    }

    /// The payload as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.payload.clone()).expect("text")
    }
}

/// A client of a server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
    inbox: String,
    count: u64,
}

impl Client {
    fn say(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("the server listens");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the server talks");
        line.trim_end().to_owned()
    }

    /// Waits until the server has all that was said.
    ///
    /// # Panics
    /// If it refuses something.
    pub fn settle(&mut self) {
        self.say("PING\r\n");
        loop {
            match self.line().as_str() {
                "PONG" => return,
                "PING" => self.say("PONG\r\n"),
                line if line.starts_with("INFO ") => {}
                line => panic!("{line}"),
            }
        }
    }

    /// Publishes a payload.
    pub fn publish(&mut self, subject: &str, payload: &str) {
        self.say(&format!("PUB {subject} {}\r\n{payload}\r\n", payload.len()));
    }

    /// Publishes a payload with a header, which begins with `NATS/1.0` or not.
    pub fn publish_with(&mut self, subject: &str, header: &str, payload: &str) {
        let all = header.len() + payload.len();
        self.say(&format!("HPUB {subject} {} {all}\r\n{header}{payload}\r\n", header.len()));
    }

    /// Listens to a subject.
    pub fn listen(&mut self, subject: &str) {
        self.say(&format!("SUB {subject} 1\r\n"));
        self.settle();
    }

    /// The next message, if one comes in this time.
    pub fn next(&mut self, most: Duration) -> Option<Message> {
        let end = Instant::now() + most;
        self.stream.get_ref().set_read_timeout(Some(most)).expect("a socket of ours");
        let mut line = String::new();
        while Instant::now() < end && self.stream.read_line(&mut line).is_ok() {
            if line.starts_with("PING") {
                self.say("PONG\r\n");
            } else if line.starts_with("MSG") || line.starts_with("HMSG") {
                return Some(self.message(&line));
            }
            line.clear();
        }
        None
    }

    fn message(&mut self, line: &str) -> Message {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<usize>().expect("a number");
        let all = number(words.last().expect("a number"));
        let header = if words[0] == "HMSG" { number(words[words.len() - 2]) } else { 0 };
        let mut bytes = vec![0; all + 2];
        self.stream.read_exact(&mut bytes).expect("all of it");
        bytes.truncate(all);
        let payload = bytes.split_off(header);
        let header = String::from_utf8_lossy(&bytes).into_owned();
        Message { subject: words[1].to_owned(), header, payload }
    }

    /// Asks JetStream something, on a connection that listens to nothing else.
    pub fn ask(&mut self, what: &str, question: &Value) -> Value {
        if self.count == 0 {
            self.listen(&format!("{}.*", self.inbox));
        }
        self.count += 1;
        let inbox = format!("{}.{}", self.inbox, self.count);
        let question = if question.is_null() { String::new() } else { question.to_string() };
        let length = question.len();
        self.say(&format!("PUB $JS.API.{what} {inbox} {length}\r\n{question}\r\n"));
        let answer = self.next(SOON).expect("JetStream answers");
        serde_json::from_slice(&answer.payload).unwrap_or_default()
    }

    /// Makes a stream; it stays as it is if it is there.
    ///
    /// # Panics
    /// If the server does not.
    pub fn stream(&mut self, name: &str, subjects: &str, more: &Value) {
        let mut config = json!({ "name": name, "subjects": [subjects], "storage": "file" });
        for (name, value) in more.as_object().into_iter().flatten() {
            config[name] = value.clone();
        }
        let made = self.ask(&format!("STREAM.CREATE.{name}"), &config);
        assert!(made["error"].is_null(), "{made}");
    }

    /// Everything a stream has.
    pub fn all(&mut self, stream: &str) -> Vec<Message> {
        let (mut all, mut from) = (Vec::new(), 1_u64);
        loop {
            let question = json!({ "seq": from, "next_by_subj": ">" });
            let answer = self.ask(&format!("STREAM.MSG.GET.{stream}"), &question);
            let found = &answer["message"];
            let Some(number) = found["seq"].as_u64() else { return all };
            let bytes = |name: &str| {
                let text = found[name].as_str().unwrap_or_default();
                STANDARD.decode(text).expect("base 64")
            };
            all.push(Message {
                subject: found["subject"].as_str().unwrap_or_default().to_owned(),
                header: String::from_utf8_lossy(&bytes("hdrs")).into_owned(),
                payload: bytes("data"),
            });
            from = number + 1;
        }
    }
}
